//! `feature-agent doctor`: what this host lets this user do, found by trying where that leaves no trace.
//!
//! The agent's own program is loaded, checked and attached in a network namespace that nobody else is in
//! (`trial`); smaller programs tell what else the kernel has (`hooks`); the rest is read (`host`, `memory`,
//! `interfaces`).

mod check;
mod hooks;
mod host;
mod interfaces;
mod memory;
mod print;
mod trial;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use nix::unistd::geteuid;

pub use self::{
    check::{Check, Status},
    interfaces::Offloading,
};
use crate::{
    cli::{Cli, DoctorArgs},
    privilege,
    settings::Settings,
};

/// How those see more who lack permission.
const ASK_AS_ROOT: &str = "sudo feature-agent doctor";

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// The user that asked, whose permissions were found.
    pub uid: u32,
    /// What was looked at, in the order in which it is printed.
    pub checks: Vec<Check>,
    /// The interfaces of this network namespace.
    pub interfaces: Vec<Offloading>,
}

impl Report {
    /// Whether nothing is missing that the main job needs.
    pub fn can_run(&self) -> bool {
        !self.checks.iter().any(|check| check.required && check.status == Status::Missing)
    }
}

/// Looks, and prints what was found; returns whether the main job can run.
pub fn run(arguments: &DoctorArgs) -> Result<bool> {
    let report = look()?;
    let text = if arguments.json { print::json(&report) } else { print::text(&report) };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed.context("cannot write to standard output")?,
    }
    Ok(report.can_run())
}

fn look() -> Result<Report> {
    let kernel = privilege::kernel();
    let settings = defaults()?;
    let held = privilege::held()?;
    let permitted = privilege::missing(held).is_empty();
    let is_new = privilege::check_kernel(&kernel).is_ok();
    let trial = trial::run(permitted && is_new, settings.clone());

    let mut checks = vec![host::kernel(&kernel), host::capabilities(held)];
    checks.extend(trial.checks());
    checks.push(hooks::ring_buffer(permitted));
    checks.push(memory::check(settings.kernel_bytes()));
    checks.push(hooks::type_information());
    checks.extend([hooks::fentry(permitted), hooks::kprobe(permitted)]);
    checks.extend([host::cgroup(), host::lockdown()]);
    Ok(Report { kernel, uid: geteuid().as_raw(), checks, interfaces: interfaces::all()? })
}

/// The main job with no option but an interface.
fn defaults() -> Result<Settings> {
    let cli = Cli::try_parse_from(["feature-agent", "--iface", "lo"]).context("no defaults")?;
    Ok(cli.run.options(cli.verbosity).check()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_and_missing_stops_the_main_job() {
        let can_run = |checks| {
            Report { kernel: String::new(), uid: 0, checks, interfaces: Vec::new() }.can_run()
        };
        assert!(can_run(vec![Check::ok("a", "").required(), Check::missing("b", "")]));
        assert!(can_run(vec![Check::unknown("a", "").required()]));
        assert!(!can_run(vec![Check::ok("a", ""), Check::missing("b", "").required()]));
    }
}
