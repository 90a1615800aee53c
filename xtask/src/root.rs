//! Becoming root, and what is installed as root.

use std::{env, ffi::OsStr, fs, os::unix::fs::MetadataExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Whether this process is root.
fn is_root() -> Result<bool> {
    let me = fs::metadata("/proc/self").context("cannot read /proc/self: is /proc mounted?")?;
    Ok(me.uid() == 0)
}

/// The words to put before a command so that it runs as root with our environment: none, or sudo.
fn prefix(why: &str) -> Result<Vec<&'static str>> {
    if is_root()? {
        return Ok(Vec::new());
    }
    if shell::which("sudo").is_none() {
        bail!("{why} needs root, and there is no sudo here: run this command as root");
    }
    Ok(vec!["sudo", "-E"])
}

/// A command that runs as root, by sudo if we are not.
pub(crate) fn command(program: impl AsRef<OsStr>, why: &str) -> Result<Command> {
    let prefix = prefix(why)?;
    let Some((first, rest)) = prefix.split_first() else {
        return Ok(Command::new(program));
    };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    Ok(command)
}

/// Has this cargo start what it builds as root.
///
/// Cargo itself stays an ordinary user: what it builds belongs to who asked for it.
pub(crate) fn run_programs_of(cargo: &mut Command, why: &str) -> Result<()> {
    let prefix = prefix(why)?;
    if !prefix.is_empty() {
        let arch = env::consts::ARCH.to_uppercase();
        cargo.env(format!("CARGO_TARGET_{arch}_UNKNOWN_LINUX_GNU_RUNNER"), prefix.join(" "));
    }
    Ok(())
}

/// Installs a Debian package if the program is missing.
pub(crate) fn need(program: &str, package: &str) -> Result<()> {
    if shell::which(program).is_some() {
        return Ok(());
    }
    if shell::which("apt-get").is_none() {
        bail!("`{program}` is missing: install it (on Debian it is in the package {package})");
    }
    shell::say(&format!("`{program}` is missing: installing {package}"));
    let why = format!("installing {package}");
    update(&why)?;
    shell::run(
        command("env", &why)?
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y"])
            .args(["--no-install-recommends", package]),
    )
}

/// Has apt look at what there is.
pub(crate) fn update(why: &str) -> Result<()> {
    shell::run(command("apt-get", why)?.args(["update", "-q"]))
}

/// Installs a Debian package if the program is missing; goes on without, and says so, if that does not work.
pub(crate) fn want(program: &str, package: &str) {
    if let Err(error) = need(program, package) {
        shell::say(&format!("going on without `{program}`: {error:#}"));
    }
}
