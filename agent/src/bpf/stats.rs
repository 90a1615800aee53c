//! What the kernel tells of the loaded programs: whether they are compiled, and, while
//! `kernel.bpf_stats_enabled` is 1, what it has measured of them.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::FileExt as _,
    },
    time::Duration,
};

use agent_common::parse::Link;

use super::{Kernel, Program};
use crate::metrics::ProgramStats;

/// The programs' pages in /proc/self/fdinfo, which aya does not read. Held open: after a change of user the
/// folder is not this process's own any more, and the pages still are.
#[derive(Debug, Default)]
pub struct RunStats(Vec<Page>);

/// The programs whose cost is worth watching.
const WATCHED: [Program; 4] = [
    Program::Packet(Link::Ethernet),
    Program::Packet(Link::Ip),
    Program::Sweep,
    Program::SweepCalls,
];

#[derive(Debug)]
struct Page {
    program: &'static str,
    file: File,
    /// What the program had run before: the agent's own packets.
    before: (u64, Duration),
}

impl Kernel {
    /// Whether a program was compiled for this processor; `None` if that cannot be read.
    pub fn is_compiled(&self, program: Program) -> Option<bool> {
        let page = io::read_to_string(self.page(program)?).ok()?;
        Some(field(&page, "prog_jited")? == "1")
    }

    /// From now on counts how often the kernel leaves out one of these programs, since it runs already.
    pub(super) fn watch_misses(&mut self, programs: &[String]) {
        self.misses = programs.iter().filter_map(|name| self.page_of(name)).collect();
    }

    /// How often it did (`recursion_misses`, Linux 5.12 and later).
    pub(super) fn misses(&self) -> u64 {
        let of = |page: &File| {
            let text = text(page)?;
            field(&text, "recursion_misses")?.parse::<u64>().ok()
        };
        self.misses.iter().filter_map(of).sum()
    }

    fn page(&self, program: Program) -> Option<File> {
        self.page_of(program.name())
    }

    fn page_of(&self, name: &str) -> Option<File> {
        let fd = self.ebpf.program(name)?.fd().ok()?;
        File::open(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()
    }
}

impl RunStats {
    /// From now on watches the cost of those that are loaded by now. One whose page cannot be opened is left out.
    pub fn watch(&mut self, kernel: &Kernel) {
        for program in WATCHED {
            let name = program.name();
            if self.0.iter().any(|page| page.program == name) {
                continue;
            }
            let page = kernel.page(program).and_then(|file| Some((read(&file)?, file)));
            if let Some((before, file)) = page {
                self.0.push(Page { program: name, file, before });
            }
        }
    }

    /// Of each program that was ever measured.
    pub fn read(&self) -> Vec<ProgramStats> {
        let stats = self.0.iter().filter_map(|Page { program, file, before }| {
            let (runs, run_time) = read(file)?;
            let runs = runs.saturating_sub(before.0);
            let run_time = run_time.saturating_sub(before.1);
            Some(ProgramStats { name: program, runs, run_time })
        });
        stats.filter(|stats| stats.runs > 0).collect()
    }
}

fn read(page: &File) -> Option<(u64, Duration)> {
    parse(&text(page)?)
}

fn text(page: &File) -> Option<String> {
    let mut text = vec![0; 1024];
    let length = page.read_at(&mut text, 0).ok()?;
    text.truncate(length);
    String::from_utf8(text).ok()
}

/// Reads `run_time_ns` and `run_cnt` (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c, Linux 5.1 and later).
fn parse(page: &str) -> Option<(u64, Duration)> {
    let number = |name| field(page, name)?.parse().ok();
    Some((number("run_cnt")?, Duration::from_nanos(number("run_time_ns")?)))
}

fn field<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_read_by_its_fields_names() {
        let page = "pos:\t0\nprog_type:\t3\nprog_id:\t1\nrun_time_ns:\t1500\nrun_cnt:\t10\n\
                    recursion_misses:\t0\nverified_insns:\t7\n";
        assert_eq!(field(page, "prog_id"), Some("1"));
        assert_eq!(field(page, "prog"), None);
        assert_eq!(parse(page), Some((10, Duration::from_nanos(1500))));
        assert_eq!(parse("run_cnt:\t10\n"), None);
        assert_eq!(parse("run_time_ns:\tx\nrun_cnt:\t10\n"), None);
    }
}
