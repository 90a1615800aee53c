//! What a packet, a flow, a vector and the daemon cost: `cargo xtask bench [--quick] [--json FILE] [FILTER]`.
//!
//! One table on standard output, the same with every sample as JSON. Times are never a reason to fail: a target
//! that is missed is marked. What needs root is left out, in one line, for others.

mod flows;
mod frames;
mod kernel;
mod lines;
mod live;
mod machine;
mod proc;
mod process;
mod program;
mod replay;
mod socket;
mod sweep;
mod table;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::{
    machine::Machine,
    table::{Row, Section, json, markdown},
};

/// What to measure, and how often.
#[derive(Debug)]
pub(crate) struct Plan {
    json: Option<PathBuf>,
    filter: Option<String>,
    /// Everything once, as little of it as runs all the code: so that benches do not rot.
    pub(crate) quick: bool,
}

impl Plan {
    fn from_args(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self { json: None, filter: None, quick: true };
        let mut args = args.peekable();
        // Cargo passes `--bench`, unless the bench is run as if it were a test.
        let mut wanted_quick = false;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => plan.quick = false,
                "--quick" => wanted_quick = true,
                "--json" => plan.json = Some(args.next().context("`--json` takes a file")?.into()),
                flag if flag.starts_with('-') => {
                    bail!(
                        "the bench takes `--quick`, `--json FILE` and a filter, there is no `{flag}`"
                    )
                }
                _ if plan.filter.is_some() => bail!("one filter is enough: `{arg}` is another"),
                _ => plan.filter = Some(arg),
            }
        }
        plan.quick |= wanted_quick;
        Ok(plan)
    }

    /// Whether a row of a section is to be measured.
    pub(crate) fn wants(&self, section: &str, what: &str) -> bool {
        let matches = |filter: &String| section.contains(filter) || what.contains(filter);
        self.filter.as_ref().is_none_or(matches)
    }

    /// Where every sample goes: `target/bench.json` if nothing else is said.
    fn json(&self) -> PathBuf {
        // Numbers that mean little do not take the place of those that do.
        let name = self.pick("bench.json", "bench-quick.json");
        let exe = env::current_exe().unwrap_or_default();
        // target/release/deps/bench-…
        let target = exe.ancestors().nth(3).unwrap_or(Path::new(""));
        self.json.clone().unwrap_or_else(|| target.join(name))
    }

    /// `full`, or `quick` if that is asked for.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The rows of a section, or nothing if its measurement is not wanted.
type Measure = fn(&Plan) -> Result<Vec<Row>>;

/// A section before it is measured.
struct Part {
    title: &'static str,
    method: &'static str,
    needs_root: bool,
    measure: Measure,
}

const PARTS: [Part; 9] = [
    Part { title: kernel::TITLE, method: kernel::METHOD, needs_root: true, measure: kernel::rows },
    Part { title: flows::TITLE, method: flows::METHOD, needs_root: true, measure: flows::rows },
    Part { title: sweep::TITLE, method: sweep::METHOD, needs_root: true, measure: sweep::rows },
    Part { title: lines::TITLE, method: lines::METHOD, needs_root: false, measure: lines::rows },
    Part { title: replay::TITLE, method: replay::METHOD, needs_root: false, measure: replay::rows },
    Part { title: live::TITLE, method: live::METHOD, needs_root: true, measure: live::rows },
    Part {
        title: process::TITLE,
        method: process::METHOD,
        needs_root: true,
        measure: process::rows,
    },
    Part { title: socket::TITLE, method: socket::METHOD, needs_root: true, measure: socket::rows },
    Part {
        title: program::TITLE,
        method: program::METHOD,
        needs_root: true,
        measure: program::rows,
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let plan = Plan::from_args(env::args().skip(1))?;
    let machine = Machine::read();
    let root = geteuid().is_root();
    let mut sections = Vec::new();
    let mut left_out = Vec::new();
    for Part { title, method, needs_root, measure } in PARTS {
        if needs_root && !root {
            left_out.push(title);
            continue;
        }
        let start = Instant::now();
        let rows = measure(&plan).with_context(|| format!("cannot measure: {title}"))?;
        if !rows.is_empty() {
            eprintln!("bench: {title}: {} rows in {:.1?}", rows.len(), start.elapsed());
            sections.push(Section { title, method, rows });
        }
    }
    if !left_out.is_empty() {
        eprintln!("bench: not root, so left out: {}", left_out.join("; "));
    }
    if sections.is_empty() {
        bail!("no row is named like that");
    }
    if plan.quick {
        println!("A quick run: all code, but numbers that mean little.\n");
    }
    print!("{}", markdown(&machine, &sections));
    let file = plan.json();
    fs::write(&file, json(&machine, plan.quick, &sections))
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nEvery sample: {}", file.display());
    Ok(())
}
