//! SIGHUP: the settings are read again, and what can change does, with every flow still there. Files that vectors go
//! to are opened again.
//!
//! Thresholds and sizes are fixed when the kernel program is loaded, and the flow table is the loaded program's:
//! what they are made of takes a restart.

use anyhow::{Context as _, Result};
use tracing::{error, info, warn};

use super::Daemon;
use crate::{cli::Verbosity, config::Given, logging, settings::Settings};

/// What an option's change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It is in force.
    Made,
    /// It takes a restart.
    Fixed,
}

impl Daemon<'_> {
    /// Reads the settings again. Whatever is wrong with them, the agent goes on.
    pub(super) fn reload(&mut self) {
        info!("SIGHUP: the settings are read again, files are opened again");
        self.manager.reloading();
        self.pump.outputs.reopen();
        if let Err(error) = self.take_over() {
            error!("the settings stay as they are: {error:#}");
        }
        self.manager.ready(&format!("watching {}", self.wanted()));
    }

    fn take_over(&mut self) -> Result<()> {
        let given = (self.reread)()?;
        // All of them are good before the first is taken.
        let settings = given.settings()?;
        let mut fixed = Vec::new();
        for (index, option) in given.options.iter().enumerate() {
            let Some(before) = self.given.get(index) else { continue };
            if before.values == option.values {
                continue;
            }
            match self.change(&option.name, &settings, &given) {
                Ok(Change::Made) => {
                    info!("{} is now {}", option.name, option.values.join(", "));
                    self.given[index] = option.clone();
                }
                Ok(Change::Fixed) => fixed.push(format!("--{}", option.name)),
                Err(error) => error!("--{} stays as it is: {error:#}", option.name),
            }
        }
        if !fixed.is_empty() {
            warn!("{} cannot change while the agent runs: restart it for that", fixed.join(", "));
        }
        Ok(())
    }

    /// Changes one option, if it can be.
    fn change(&mut self, name: &str, settings: &Settings, given: &Given) -> Result<Change> {
        match name {
            "iface" => {
                // Before the events come: they are told by whether their interface is wanted.
                let before =
                    std::mem::replace(&mut self.settings.interfaces, settings.interfaces.clone());
                if let Err(error) = self.watch.retarget(&settings.interfaces) {
                    self.settings.interfaces = before;
                    return Err(error);
                }
            }
            "poll" => {
                self.settings.poll = settings.poll;
                self.manager.expect_every(settings.poll);
            }
            "metrics" => {
                self.observer.serve_at(settings.metrics).context("it is served where it was")?;
                self.settings.metrics = settings.metrics;
            }
            "verbose" | "quiet" => {
                let Verbosity { verbose: _, quiet } = given.cli.verbosity;
                self.quiet = quiet;
                logging::change(given.cli.verbosity);
                if settings.kernel_log != self.settings.kernel_log {
                    warn!(
                        "what the kernel program says (-vv) is fixed until the agent is restarted"
                    );
                }
            }
            _ => return Ok(Change::Fixed),
        }
        Ok(Change::Made)
    }
}
