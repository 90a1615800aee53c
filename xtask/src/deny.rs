//! `deny`: what `deny.toml` says of every crate in the lock file.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{project, shell, tools::Tool};

const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", flags: &[], takes: "five minutes" };

/// Checks licences, duplicates and sources; and known faults, if their list can be had.
pub(crate) fn deny() -> Result<()> {
    let program = CARGO_DENY.ensure()?;
    shell::say("licences, bans and sources of every crate");
    shell::run(cargo_deny(&program)?.args(["check", "licenses", "bans", "sources"]))?;
    shell::say("known faults of every crate");
    if let Err(error) = shell::run(cargo_deny(&program)?.args(["fetch", "db"])) {
        shell::say(&format!(
            "WARNING: whether crates have known faults was not checked, for the list of them \
             (https://github.com/rustsec/advisory-db) cannot be had: {error:#}"
        ));
        return Ok(());
    }
    shell::run(cargo_deny(&program)?.args(["check", "--disable-fetch", "advisories"]))
}

fn cargo_deny(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(project::root()?).arg("--locked");
    Ok(command)
}
