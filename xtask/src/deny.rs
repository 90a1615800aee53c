//! `deny`: what `deny.toml` says of every crate in the lock file.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{project, shell, tools::Tool};

const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", flags: &[], takes: "five minutes" };

/// What was not checked, for people.
#[derive(Debug)]
#[must_use]
pub(crate) struct Unchecked(Option<String>);

impl Unchecked {
    /// Says it, if there is anything.
    pub(crate) fn say(&self) {
        if let Some(what) = &self.0 {
            shell::say(what);
        }
    }
}

/// Checks licences, duplicates and sources; and known faults, if their list can be had.
pub(crate) fn deny() -> Result<Unchecked> {
    let program = CARGO_DENY.ensure()?;
    shell::say("licences, bans and sources of every crate");
    shell::run(cargo_deny(&program)?.args(["check", "licenses", "bans", "sources"]))?;
    shell::say("known faults of every crate");
    if let Err(error) = shell::run(cargo_deny(&program)?.args(["fetch", "db"])) {
        return Ok(Unchecked(Some(format!(
            "WARNING: whether crates have known faults or were taken back was not checked, for the list \
             of faults (https://github.com/rustsec/advisory-db) cannot be had: {error:#}"
        ))));
    }
    shell::run(cargo_deny(&program)?.args(["check", "--disable-fetch", "advisories"]))?;
    Ok(Unchecked(None))
}

fn cargo_deny(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(project::root()?).arg("--locked");
    Ok(command)
}
