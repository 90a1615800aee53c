//! `bench`: what a packet, a flow and a vector cost.

use std::{env, path::Path};

use anyhow::{Context as _, Result};

use crate::{project, root, run, shell, vm};

/// The section of the bench that takes a kernel with probes at its functions (`tests/benches/bench/socket.rs`).
const OF_PROBES: &str = "socket hook, per call";
/// What its rows have in their names, as others have.
const SHARED: [&str; 2] = ["UDP", "TCP"];
/// What no other section, and no row of one, has in its name.
const ITS_OWN: [&str; 4] = ["socket", "hook", "fentry", "kprobe"];

/// Runs the bench, as root if that can be had, and passes the arguments on. What this kernel cannot run is measured on
/// another, in a virtual machine.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    let args = with_whole_path(args)?;
    let filter = filter(&args);
    let has_probes = Path::new("/sys/bus/event_source/devices/kprobe/type").exists();
    let of_rows = || SHARED.iter().chain(&ITS_OWN);
    let is_there = |filter| OF_PROBES.contains(filter) || of_rows().any(|row| row.contains(filter));
    let in_guest = !has_probes && filter.is_none_or(is_there);
    let is_its_own = |filter: &str| ITS_OWN.iter().any(|word| filter.contains(word));
    let only_there = in_guest && filter.is_some_and(is_its_own);
    if !only_there {
        here(&args)?;
    }
    if in_guest {
        let quick = args.iter().filter(|arg| *arg == "--quick").cloned();
        vm::measure(&quick.chain([OF_PROBES.to_owned()]).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The word that chooses rows.
fn filter(args: &[String]) -> Option<&str> {
    let is_word = |at: usize| !args[at].starts_with('-') && (at == 0 || args[at - 1] != "--json");
    (0..args.len()).find(|&at| is_word(at)).map(|at| args[at].as_str())
}

fn here(args: &[String]) -> Result<()> {
    // The daemon that is measured is built by whoever asked, not by root.
    let agent = run::build_agent()?;
    let mut cargo = project::cargo()?;
    cargo.args(["bench", "--package", "feature-agent-tests", "--bench", "bench"]);
    cargo.env("FEATURE_AGENT_BIN", agent);
    let privileged = root::need("ip", "iproute2")
        .and_then(|()| root::run_programs_of(&mut cargo, "measuring the kernel program"));
    if let Err(error) = privileged {
        // The bench itself names what it leaves out.
        shell::say(&format!("{error:#}"));
    }
    shell::run(cargo.arg("--").args(args))
}

/// The arguments, with the file behind `--json` named from the root: the bench runs in another folder.
fn with_whole_path(args: &[String]) -> Result<Vec<String>> {
    let here = env::current_dir().context("cannot tell which folder this is")?;
    let mut out: Vec<String> = Vec::new();
    for arg in args.iter().skip_while(|arg| *arg == "--") {
        let is_file = out.last().is_some_and(|last| last == "--json");
        out.push(if is_file { here.join(arg).display().to_string() } else { arg.clone() });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{filter, with_whole_path};

    #[test]
    fn the_word_that_chooses_is_neither_flag_nor_file() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert_eq!(filter(&words("--quick --json out.json sweep")), Some("sweep"));
        assert_eq!(filter(&words("--json out.json")), None);
    }

    #[test]
    fn only_the_file_is_made_whole() {
        let args = ["--", "--quick", "--json", "out.json", "sweep"].map(String::from);
        let whole = with_whole_path(&args).expect("a folder");
        let here = std::env::current_dir().expect("a folder");
        let file = here.join("out.json").display().to_string();
        assert_eq!(whole, ["--quick", "--json", &file, "sweep"]);
    }
}
