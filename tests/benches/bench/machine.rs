//! The machine that numbers belong to.

use std::{fmt, fs, num::NonZero, thread, time::SystemTime};

use serde_json::{Value, json};

/// What a number means nothing without.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    virtualized: bool,
    /// Load average of the minute before: what else the machine had to do.
    load: String,
    date: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn read() -> Self {
        let first_word = |path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().next().unwrap_or("unknown").to_owned()
        };
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            cpu: model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, NonZero::get),
            kernel: first_word("/proc/sys/kernel/osrelease"),
            virtualized: cpus.split_whitespace().any(|flag| flag == "hypervisor"),
            load: first_word("/proc/loadavg"),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }

    /// For the JSON.
    pub(crate) fn json(&self) -> Value {
        let Self { cpu, cores, kernel, virtualized, load, date } = self;
        json!({
            "cpu": cpu,
            "cores": cores,
            "kernel": kernel,
            "virtualized": virtualized,
            "load_average": load,
            "date": date,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, virtualized, load, date } = self;
        let kind = if *virtualized { " of a virtual machine" } else { "" };
        write!(f, "{cpu}, {cores} cores{kind}, Linux {kernel}, {date}, load average before: {load}")
    }
}
