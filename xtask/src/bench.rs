//! `bench`: what a packet, a flow and a vector cost.

use std::env;

use anyhow::{Context as _, Result};

use crate::{project, root, run, shell};

/// Runs the bench, as root if that can be had, and passes the arguments on.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    let args = with_whole_path(args)?;
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
    use super::with_whole_path;

    #[test]
    fn only_the_file_is_made_whole() {
        let args = ["--", "--quick", "--json", "out.json", "sweep"].map(String::from);
        let whole = with_whole_path(&args).expect("a folder");
        let here = std::env::current_dir().expect("a folder");
        let file = here.join("out.json").display().to_string();
        assert_eq!(whole, ["--quick", "--json", &file, "sweep"]);
    }
}
