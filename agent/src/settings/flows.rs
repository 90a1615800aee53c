//! What is made of packets, live or from a capture: the same options, checked once.

use std::{str::FromStr, time::Duration};

use agent_common::{config::Config, filter::Program};
use clap::Args;

use super::{Invalid, MAX_DURATION, MAX_FLOWS, WINDOW};
use crate::filter;

/// Options of windows, vectors and flows, and of which packets count.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct FlowOptions {
    /// Packets in a flow's sliding window, both directions together: 2 to 64
    #[arg(long, value_name = "PACKETS", default_value_t = 64, help_heading = "Vectors")]
    pub window: u32,

    /// A flow writes a vector every so many packets, but see --min-gap
    #[arg(long, value_name = "PACKETS", default_value_t = 64, help_heading = "Vectors")]
    pub stride: u32,

    /// Least time between two vectors that --stride asks of a flow
    #[arg(long, value_name = "DURATION", value_parser = duration(), default_value = "100ms", help_heading = "Vectors")]
    pub min_gap: Duration,

    /// Longest time that a packet waits for a vector that contains it, plus one --poll
    #[arg(long, value_name = "DURATION", value_parser = duration(), default_value = "1s", help_heading = "Vectors")]
    pub interval: Duration,

    /// Time between two sweeps over the flow table, which let silent flows speak and end
    #[arg(long, value_name = "DURATION", value_parser = duration(), default_value = "250ms", help_heading = "Flows")]
    pub poll: Duration,

    /// A flow that is silent for this long has ended
    #[arg(long, value_name = "DURATION", value_parser = duration(), default_value = "15s", help_heading = "Flows")]
    pub idle_timeout: Duration,

    /// A flow that goes on writes a vector with reason `active` every so often
    #[arg(long, value_name = "DURATION", value_parser = duration(), default_value = "5m", help_heading = "Flows")]
    pub active_timeout: Duration,

    /// Flows at one time, at about 1 KiB of kernel memory each, taken at start. Over 80 % full, the longest
    /// silent flows end early; packets that find no place are counted
    #[arg(long, value_name = "FLOWS", default_value_t = 65_536, help_heading = "Flows")]
    pub max_flows: u32,

    /// Only packets that a pcap filter passes, as in 'tcp port 443 and net 10.0.0.0/8'; see pcap-filter(7). The
    /// rest is counted as filtered
    #[arg(long, value_name = "EXPRESSION", help_heading = "Traffic")]
    pub filter: Option<String>,

    /// Only one of so many flows, as in 1/10: whole flows, the same ones on every host and in every capture
    #[arg(long, value_name = "1/N", default_value = "1/1", help_heading = "Traffic")]
    pub sample: Sample,

    /// Look through tunnels (VXLAN, Geneve, GRE, IP in IP, GTP-U; two deep), PPPoE and MPLS: packets belong to
    /// the flow inside
    #[arg(long, help_heading = "Traffic")]
    pub decap: bool,
}

/// The same, checked, in the units of the flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSettings {
    /// Thresholds.
    pub config: Config,
    /// Which packets are looked at.
    pub filter: Program,
    /// Time between two sweeps of the flow table.
    pub poll: Duration,
    /// Entries of the flow table.
    pub max_flows: u32,
}

/// One of how many flows is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(u32);

impl Sample {
    /// The largest [`agent_common::key::FlowKey::sample`] of those.
    fn threshold(self) -> u32 {
        u32::MAX / self.0
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self(1)
    }
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of = text.strip_prefix("1/").and_then(|of| of.parse().ok()).filter(|&of| of > 0);
        of.map(Self).ok_or_else(|| "one of so many flows is written as in 1/10".to_owned())
    }
}

impl FlowOptions {
    /// Checks every value.
    pub fn check(&self) -> Result<FlowSettings, Invalid> {
        let millisecond = Duration::from_millis(1);
        micros("--poll", self.poll, millisecond)?;
        let config = Config {
            min_gap_us: micros("--min-gap", self.min_gap, Duration::ZERO)?,
            interval_us: micros("--interval", self.interval, Duration::from_micros(1))?,
            idle_timeout_us: micros("--idle-timeout", self.idle_timeout, millisecond)?,
            active_timeout_us: micros("--active-timeout", self.active_timeout, millisecond)?,
            window: within("--window", self.window, *WINDOW.start(), *WINDOW.end())?,
            stride: within("--stride", self.stride, 1, u32::MAX)?,
            sample: self.sample.threshold(),
            decap: self.decap.into(),
            ..Config::DEFAULT
        };
        let filter = match &self.filter {
            None => Program::ALL,
            Some(text) => filter::compile(text)
                .map_err(|error| Invalid(format!("--filter cannot be used: {error}")))?,
        };
        let max_flows = within("--max-flows", self.max_flows, 1, MAX_FLOWS)?;
        Ok(FlowSettings { config, filter, poll: self.poll, max_flows })
    }
}

fn within(option: &str, value: u32, least: u32, most: u32) -> Result<u32, Invalid> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Invalid(format!("{option} must lie within {least} and {most}, not {value}")))
}

fn micros(option: &str, value: Duration, least: Duration) -> Result<u64, Invalid> {
    let said = humantime::format_duration;
    if value < least {
        return Err(Invalid(format!(
            "{option} must be at least {}, not {}",
            said(least),
            said(value)
        )));
    }
    if value > MAX_DURATION {
        return Err(Invalid(format!(
            "{option} must be at most {} days, not {}",
            MAX_DURATION.as_secs() / (24 * 3600),
            said(value)
        )));
    }
    Ok(value.as_micros() as u64)
}

/// Parses `100ms`, `1s`, `5m`, and a plain `0`.
pub(crate) fn duration() -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync {
    |text| {
        humantime::parse_duration(text).map_err(|error| format!("{error} (as in 250ms, 1s or 5m)"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The command line's defaults.
    pub(crate) fn options() -> FlowOptions {
        FlowOptions {
            window: 64,
            stride: 64,
            min_gap: Duration::from_millis(100),
            interval: Duration::from_secs(1),
            poll: Duration::from_millis(250),
            idle_timeout: Duration::from_secs(15),
            active_timeout: Duration::from_mins(5),
            max_flows: 65_536,
            filter: None,
            sample: Sample(1),
            decap: false,
        }
    }

    #[test]
    fn a_sample_is_one_of_so_many() {
        let threshold = |text: &str| text.parse::<Sample>().map(Sample::threshold);
        assert_eq!(threshold("1/1"), Ok(u32::MAX));
        assert_eq!(threshold("1/4294967295"), Ok(1));
        for text in ["", "10", "1/", "1/0", "2/3", "1/-1", "1/4294967296"] {
            assert!(threshold(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bad_filter_shows_its_place() {
        let options = FlowOptions { filter: Some("tcp prot 80".into()), ..options() };
        let said = options.check().expect_err("accepted").to_string();
        assert!(said.starts_with("--filter cannot be used: column 5"), "{said}");
    }
}
