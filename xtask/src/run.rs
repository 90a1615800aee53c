//! `run`: the agent on this machine's traffic; the README's other command.

use std::{fs, os::unix::process::CommandExt as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{project, root, shell};

/// Builds the agent and becomes it, as root.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let args = match args {
        [] => vec!["--iface".to_owned(), default_interface()?],
        _ => args.to_vec(),
    };
    let agent = build_agent()?;
    shell::say(&format!("{} {}", agent.display(), args.join(" ")));
    let error = root::command(&agent, "watching an interface")?.args(&args).exec();
    Err(error).with_context(|| format!("cannot start {}", agent.display()))
}

/// Builds the agent and returns its path.
pub(crate) fn build_agent() -> Result<PathBuf> {
    shell::run(project::cargo()?.args(["build", "--release", "--package", "feature-agent"]))?;
    Ok(project::target()?.join("release/feature-agent"))
}

/// The interface of the default route, of IPv4 if there is one, else of IPv6.
fn default_interface() -> Result<String> {
    let table = |path| fs::read_to_string(path).unwrap_or_default();
    let found = default_route_v4(&table("/proc/net/route"))
        .or_else(|| default_route_v6(&table("/proc/net/ipv6_route")));
    let Some(interface) = found else {
        bail!(
            "no default route tells which interface to watch; the interfaces here are {}: \
             choose one, as in `cargo xtask run -- --iface {}`, or see `cargo xtask demo`",
            interfaces().join(", "),
            interfaces().first().map_or("NAME", String::as_str)
        );
    };
    Ok(interface)
}

/// The names of this machine's interfaces.
fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = table.lines().skip(2).filter_map(|line| line.split(':').next());
    names.map(|name| name.trim().to_owned()).collect()
}

/// The default route's interface in a table laid out as /proc/net/route; the lowest metric wins.
fn default_route_v4(table: &str) -> Option<String> {
    // Iface Destination Gateway Flags RefCnt Use Metric Mask …
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(|row| match row[..] {
        [name, "00000000", _, flags, _, _, metric, "00000000", ..] => {
            Some((name, u32::from_str_radix(flags, 16).ok()?, metric.parse().ok()?))
        }
        _ => None,
    })
    .filter(|&(_, flags, _): &(&str, u32, u64)| usable(flags))
    .min_by_key(|&(_, _, metric)| metric)
    .map(|(name, _, _)| name.to_owned())
}

/// The default route's interface in a table laid out as /proc/net/ipv6_route.
fn default_route_v6(table: &str) -> Option<String> {
    // Destination Length Source Length Gateway Metric RefCnt Use Flags Iface
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter_map(|row| match row[..] {
        [to, "00", _, "00", _, metric, _, _, flags, name] if to.bytes().all(|b| b == b'0') => {
            let hex = |text| u32::from_str_radix(text, 16).ok();
            Some((name, hex(flags)?, hex(metric)?))
        }
        _ => None,
    })
    .filter(|&(_, flags, _)| usable(flags))
    .min_by_key(|&(_, _, metric)| metric)
    .map(|(name, _, _)| name.to_owned())
}

/// Whether a route with these flags carries packets: it is up and rejects none.
fn usable(flags: u32) -> bool {
    const UP: u32 = 0x1;
    const REJECT: u32 = 0x200;
    flags & (UP | REJECT) == UP
}

#[cfg(test)]
mod tests {
    use super::{default_route_v4, default_route_v6};

    #[test]
    fn ipv4_route_of_the_lowest_metric() {
        let table = "\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
dead0\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
vpn0\t00000000\t00000000\t0001\t0\t0\t50\t00000080\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";
        assert_eq!(default_route_v4(table).as_deref(), Some("eth0"));
        assert_eq!(default_route_v4(""), None);
    }

    #[test]
    fn ipv6_route_that_is_not_a_rejecting_one() {
        let zeros = "00000000000000000000000000000000";
        let router = "fe80000000000000000000000000ff01";
        let table = format!(
            "{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n\
             {zeros} 00 {zeros} 00 {router} 00000400 00000001 00000000 00000003 eth1\n\
             {zeros} 01 {zeros} 00 {router} 00000001 00000001 00000000 00000003 vpn0\n"
        );
        assert_eq!(default_route_v6(&table).as_deref(), Some("eth1"));
        assert_eq!(default_route_v6(""), None);
    }
}
