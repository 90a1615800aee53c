//! The last word: where every packet went, and every vector.

use std::fmt;

use agent_common::{counters::Counters, parse::Malformed};

use crate::{settings::HookChoice, sink::Totals};

/// What is printed on standard error at exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was seen.
    pub hook: HookChoice,
    /// The kernel's counters, read after the programs were detached.
    pub counters: Counters,
    /// The same of calls on sockets.
    pub calls: Option<Counters>,
    /// Vectors taken out of the ring.
    pub taken: u64,
    /// Whether they were left to another process, which alone knows how many it read.
    pub ring_is_left: bool,
    /// What became of them, by output.
    pub outputs: Vec<(String, Totals)>,
}

impl Report {
    /// Vectors that got out, each once for every output.
    pub fn written(&self) -> u64 {
        self.outputs.iter().map(|(_, totals)| totals.sent).sum()
    }

    /// Vectors that did not get out, each once for every output.
    pub fn lost(&self) -> u64 {
        let made = self.counters.vectors + self.calls.map_or(0, |calls| calls.vectors);
        let left = made.saturating_sub(self.taken);
        let of = |totals: &Totals| totals.offered.saturating_sub(totals.sent) + left;
        self.outputs.iter().map(|(_, totals)| of(totals)).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters {
            seen,
            accounted,
            accounted_bytes,
            not_ip,
            malformed,
            filtered,
            table_full,
            table_full_bytes,
            super_packets,
            orphan_fragments,
            clock_backwards,
            flows,
            vectors,
            ring_full,
            // Of calls alone.
            contended: _,
            contended_bytes: _,
            missed: _,
        } = self.counters;
        let calls = self.calls.unwrap_or_default();
        let (flows, vectors) = (flows + calls.flows, vectors + calls.vectors);
        let ring_full = ring_full + calls.ring_full;
        let several = self.outputs.len() > 1;
        if self.hook.sees_packets() {
            writeln!(
                f,
                "seen = accounted + not_ip + malformed + filtered + table_full: \
                 {seen} = {accounted} + {not_ip} + {} + {filtered} + {table_full}",
                self.counters.malformed()
            )?;
        }
        if let Some(calls) = &self.calls {
            of_calls(f, calls)?;
        }
        let (written, lost) = (self.written(), self.lost());
        if self.ring_is_left {
            writeln!(
                f,
                "vectors: {vectors} left to the ring's reader; delayed (ring full): {ring_full}"
            )?;
        } else {
            writeln!(
                f,
                "vectors: {written} written, {lost} lost; delayed (ring full): {ring_full}"
            )?;
        }
        for (name, totals) in
            self.outputs.iter().filter(|(_, totals)| several || !totals.is_plain())
        {
            writeln!(f, "output {name}: {totals}")?;
        }
        let bytes = accounted_bytes + calls.accounted_bytes;
        writeln!(f, "flows: {flows}; bytes accounted: {bytes}")?;
        let unaccounted = self.counters.unaccounted();
        if unaccounted != 0 {
            writeln!(f, "error in the agent: {unaccounted} packets are in no counter")?;
        }
        let names = Malformed::ALL.map(Malformed::name);
        details(f, "malformed", names.into_iter().zip(malformed))?;
        details(
            f,
            "of these",
            [
                ("super-packets (GRO, TSO)", super_packets),
                ("fragments without their first", orphan_fragments),
                ("packets timed before their flow's last", clock_backwards),
                ("bytes that found the flow table full", table_full_bytes),
            ],
        )
    }
}

/// Where calls on sockets went, and the bytes that they sent and received.
fn of_calls(f: &mut fmt::Formatter<'_>, calls: &Counters) -> fmt::Result {
    let Counters { seen, accounted, not_ip, filtered, table_full, contended, missed, .. } = calls;
    writeln!(
        f,
        "calls on sockets: seen = accounted + not_ip + filtered + table_full + contended: \
         {seen} = {accounted} + {not_ip} + {filtered} + {table_full} + {contended}; \
         not told of by the kernel: {missed}; bytes accounted: {}",
        calls.accounted_bytes
    )?;
    let unaccounted = calls.unaccounted();
    if unaccounted != 0 {
        writeln!(f, "error in the agent: {unaccounted} calls are in no counter")?;
    }
    details(
        f,
        "of the calls",
        [
            ("calls timed before their flow's last", calls.clock_backwards),
            ("bytes that found the flow table full", calls.table_full_bytes),
            ("bytes whose flow others had for too long", calls.contended_bytes),
        ],
    )
}

/// One line of the counts that are not zero, if there are any.
fn details<'a>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    counts: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let shown: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if shown.is_empty() { Ok(()) } else { writeln!(f, "{title}: {}", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(counters: Counters, outputs: &[(&str, Totals)]) -> Report {
        let outputs = outputs.iter().map(|(name, totals)| ((*name).to_owned(), *totals)).collect();
        Report {
            hook: HookChoice::Tc,
            taken: counters.vectors,
            ring_is_left: false,
            counters,
            calls: None,
            outputs,
        }
    }

    #[test]
    fn a_quiet_run_says_three_lines() {
        let report = report(Counters::default(), &[("x", Totals::default())]);
        assert_eq!(
            report.to_string(),
            "seen = accounted + not_ip + malformed + filtered + table_full: 0 = 0 + 0 + 0 + 0 + 0\n\
             vectors: 0 written, 0 lost; delayed (ring full): 0\n\
             flows: 0; bytes accounted: 0\n"
        );
    }

    #[test]
    fn what_is_not_zero_is_said() {
        let counters = Counters {
            seen: 20,
            accounted: 10,
            accounted_bytes: 999,
            not_ip: 3,
            malformed: [1, 0, 0, 0, 0, 0, 0, 0, 2],
            filtered: 1,
            table_full: 2,
            super_packets: 5,
            vectors: 8,
            ring_full: 4,
            ..Counters::default()
        };
        let totals = Totals { offered: 8, sent: 7, dropped: 1, ..Totals::default() };
        let text = report(counters, &[("x", totals)]).to_string();
        assert!(text.contains(": 20 = 10 + 3 + 3 + 1 + 2\n"), "{text}");
        assert!(text.contains("vectors: 7 written, 1 lost; delayed (ring full): 4\n"), "{text}");
        assert!(text.contains("error in the agent: 1 packets are in no counter\n"), "{text}");
        assert!(text.contains("malformed: truncated_link 1, bad_l4 2\n"), "{text}");
        assert!(text.contains("of these: super-packets (GRO, TSO) 5\n"), "{text}");
    }

    #[test]
    fn calls_have_books_of_their_own() {
        let calls = Counters {
            seen: 10,
            accounted: 6,
            accounted_bytes: 700,
            filtered: 2,
            contended: 2,
            contended_bytes: 30,
            missed: 1,
            vectors: 3,
            flows: 2,
            ..Counters::default()
        };
        let of_sweeps = Counters { vectors: 4, ..Counters::default() };
        let totals = Totals { offered: 7, sent: 7, ..Totals::default() };
        let mut report = Report {
            hook: HookChoice::Socket,
            calls: Some(calls),
            taken: 7,
            ..report(of_sweeps, &[("x", totals)])
        };
        assert_eq!(
            report.to_string(),
            "calls on sockets: seen = accounted + not_ip + filtered + table_full + contended: \
             10 = 6 + 0 + 2 + 0 + 2; not told of by the kernel: 1; bytes accounted: 700\n\
             of the calls: bytes whose flow others had for too long 30\n\
             vectors: 7 written, 0 lost; delayed (ring full): 0\n\
             flows: 2; bytes accounted: 700\n"
        );
        report.hook = HookChoice::Both;
        report.calls = Some(Counters { seen: 11, ..calls });
        let text = report.to_string();
        assert!(text.starts_with("seen = accounted"), "{text}");
        assert!(text.contains("error in the agent: 1 calls are in no counter"), "{text}");
    }

    #[test]
    fn each_of_several_outputs_has_its_line() {
        let counters = Counters { vectors: 10, ..Counters::default() };
        let all = Totals { offered: 10, sent: 10, ..Totals::default() };
        let some = Totals { offered: 10, sent: 6, dropped: 3, errors: 2, ..Totals::default() };
        let mut report = report(counters, &[("a", all), ("b", some)]);
        let text = report.to_string();
        assert!(text.contains("vectors: 16 written, 4 lost; "), "{text}");
        assert!(text.contains("\noutput a: 10 sent, 0 dropped\n"), "{text}");
        assert!(
            text.contains("\noutput b: 6 sent, 3 dropped, 1 still queued, 2 errors\n"),
            "{text}"
        );
        // What stayed in the ring reached none of them.
        report.counters.vectors = 15;
        assert_eq!(report.lost(), 4 + 2 * 5);
    }
}
