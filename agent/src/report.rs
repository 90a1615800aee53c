//! The last word: where every packet went, and every vector.

use std::fmt;

use agent_common::{counters::Counters, parse::Malformed};

/// What is printed on standard error at exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's counters, read after the programs were detached.
    pub counters: Counters,
    /// Vectors that got out.
    pub written: u64,
}

impl Report {
    /// Vectors that did not get out.
    pub fn lost(&self) -> u64 {
        self.counters.vectors.saturating_sub(self.written)
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
            vectors: _,
            ring_full,
        } = self.counters;
        writeln!(
            f,
            "seen = accounted + not_ip + malformed + filtered + table_full: \
             {seen} = {accounted} + {not_ip} + {} + {filtered} + {table_full}",
            self.counters.malformed()
        )?;
        let (written, lost) = (self.written, self.lost());
        writeln!(f, "vectors: {written} written, {lost} lost; delayed (ring full): {ring_full}")?;
        writeln!(f, "flows: {flows}; bytes accounted: {accounted_bytes}")?;
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

    #[test]
    fn a_quiet_run_says_three_lines() {
        let report = Report { counters: Counters::default(), written: 0 };
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
        let text = Report { counters, written: 7 }.to_string();
        assert!(text.contains(": 20 = 10 + 3 + 3 + 1 + 2\n"), "{text}");
        assert!(text.contains("vectors: 7 written, 1 lost; delayed (ring full): 4\n"), "{text}");
        assert!(text.contains("error in the agent: 1 packets are in no counter\n"), "{text}");
        assert!(text.contains("malformed: truncated_link 1, bad_l4 2\n"), "{text}");
        assert!(text.contains("of these: super-packets (GRO, TSO) 5\n"), "{text}");
    }
}
