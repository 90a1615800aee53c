//! The report, for people and for programs.

use std::fmt::Write as _;

use agent_common::parse::Link;
use serde_json::{Value, json};

use super::{
    Report,
    check::{Check, Status},
    interfaces::Offloading,
};
use crate::netlink::ethtool::Offloads;

/// Columns before what was found.
const MARGIN: usize = 25;

/// Lines for people.
pub(super) fn text(report: &Report) -> String {
    let Report { kernel, uid, checks, interfaces } = report;
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("feature-agent {version} on Linux {kernel}, as uid {uid}\n\n");
    for check in checks {
        row(&mut text, check);
    }
    text.push_str("\ninterfaces\n");
    let width = interfaces.iter().map(|interface| interface.name.len()).max().unwrap_or(0);
    for interface in interfaces {
        line(&mut text, format_args!("  {:width$}  {}", interface.name, described(interface)));
    }
    // The agent counts packets right either way; what it cannot know is when each of those joined came.
    let joining = interfaces.iter().filter(|interface| interface.joins());
    let names: Vec<&str> = joining.map(|interface| interface.name.as_str()).collect();
    if let Some(name) = names.first() {
        line(
            &mut text,
            format_args!(
                "  Packets received on {} may be joined before they are seen: they are counted as \
                 those on the wire, but the gaps between them are 0.\n  \
                 To have each seen by itself: sudo ethtool -K {name} gro off lro off rx-gro-hw off",
                names.join(", ")
            ),
        );
    }
    let lacking: Vec<&str> = checks.iter().filter(|check| stops(check)).map(|c| c.name).collect();
    text.push('\n');
    if lacking.is_empty() {
        line(&mut text, format_args!("The main job can run."));
    } else {
        line(&mut text, format_args!("The main job cannot run: {}.", lacking.join(", ")));
    }
    text
}

fn stops(check: &Check) -> bool {
    check.required && check.status == Status::Missing
}

fn row(text: &mut String, check: &Check) {
    let Check { name, status, required: _, found, disables, remedy } = check;
    line(text, format_args!("  {:8} {name:13} {}", status.name(), found.replace('\n', " ")));
    let remedy_for = if *status == Status::Unknown { "to see it" } else { "to get it" };
    for (what, said) in [("disables", disables), (remedy_for, remedy)] {
        if !said.is_empty() {
            line(text, format_args!("{:MARGIN$}{what}: {said}", ""));
        }
    }
}

fn described(interface: &Offloading) -> String {
    let link = match &interface.link {
        Ok(Link::Ethernet) => "Ethernet",
        Ok(_) => "plain IP",
        Err(sentence) => return sentence.clone(),
    };
    let Some(offloads) = interface.offloads else {
        return format!("{link}, MTU {}; the kernel does not tell its offloads", interface.mtu);
    };
    let named = |wanted: bool| -> String {
        let names: Vec<&str> =
            names(offloads).iter().filter(|(_, on)| *on == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    format!("{link}, MTU {}; on: {}; off: {}", interface.mtu, named(true), named(false))
}

/// As ethtool(8) calls them, shortened.
fn names(offloads: Offloads) -> [(&'static str, bool); 5] {
    let Offloads { gro, gro_hw, lro, gso, tso } = offloads;
    [("GRO", gro), ("GRO-HW", gro_hw), ("LRO", lro), ("GSO", gso), ("TSO", tso)]
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{line}");
}

/// One object for programs.
pub(super) fn json(report: &Report) -> String {
    let Report { kernel, uid, checks, interfaces } = report;
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": kernel,
        "uid": uid,
        "can_run": report.can_run(),
        "checks": checks.iter().map(check_object).collect::<Vec<_>>(),
        "interfaces": interfaces.iter().map(interface_object).collect::<Vec<_>>(),
    });
    format!("{report:#}\n")
}

fn check_object(check: &Check) -> Value {
    let Check { name, status, required, found, disables, remedy } = check;
    let or_null = |text: &String| (!text.is_empty()).then(|| text.clone());
    json!({
        "name": name,
        "status": status.name(),
        "required": required,
        "found": found,
        "disables": or_null(disables),
        "remedy": or_null(remedy),
    })
}

/// What the kernel does not tell is null, and so is the link of an interface that is not read.
fn interface_object(interface: &Offloading) -> Value {
    let Offloading { name, index, mtu, link, loopback, offloads } = interface;
    let link = link.as_ref().ok().map(|link| match link {
        Link::Ethernet => "ethernet",
        _ => "ip",
    });
    json!({
        "name": name,
        "index": index,
        "mtu": mtu,
        "link": link,
        "loopback": loopback,
        "gro": offloads.map(|offloads| offloads.gro),
        "gro_hw": offloads.map(|offloads| offloads.gro_hw),
        "lro": offloads.map(|offloads| offloads.lro),
        "gso": offloads.map(|offloads| offloads.gso),
        "tso": offloads.map(|offloads| offloads.tso),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let offloads = Some(Offloads { gro: true, gso: true, ..Offloads::default() });
        let interface = |name: &str, link, offloads| Offloading {
            name: name.to_owned(),
            index: 2,
            mtu: 1500,
            link,
            loopback: false,
            offloads,
        };
        Report {
            kernel: "6.1.0".to_owned(),
            uid: 7,
            checks: vec![
                Check::ok("kernel", "Linux 6.1.0").required(),
                Check::missing("tcx", "none").or_else("--attach tcx", "Linux 6.6"),
                Check::unknown("jit", "no program").seen_by("sudo"),
                Check::missing("memory", "too little").required().or_else("the main job", "more"),
            ],
            interfaces: vec![
                interface("eth0", Ok(Link::Ethernet), offloads),
                interface("can0", Err("is a CAN bus".to_owned()), None),
            ],
        }
    }

    #[test]
    fn text_says_what_is_missing_why_it_matters_and_how_to_get_it() {
        let text = text(&report());
        let version = env!("CARGO_PKG_VERSION");
        let gap = " ".repeat(MARGIN);
        let expected = format!(
            "feature-agent {version} on Linux 6.1.0, as uid 7\n\n\
             \x20 ok       kernel        Linux 6.1.0\n\
             \x20 missing  tcx           none\n\
             {gap}disables: --attach tcx\n\
             {gap}to get it: Linux 6.6\n\
             \x20 unknown  jit           no program\n\
             {gap}to see it: sudo\n\
             \x20 missing  memory        too little\n\
             {gap}disables: the main job\n\
             {gap}to get it: more\n\
             \ninterfaces\n\
             \x20 eth0  Ethernet, MTU 1500; on: GRO, GSO; off: GRO-HW, LRO, TSO\n\
             \x20 can0  is a CAN bus\n\
             \x20 Packets received on eth0 may be joined before they are seen: they are counted as those on \
             the wire, but the gaps between them are 0.\n\
             \x20 To have each seen by itself: sudo ethtool -K eth0 gro off lro off rx-gro-hw off\n\
             \nThe main job cannot run: memory.\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn json_holds_the_same() {
        let json: Value = serde_json::from_str(&json(&report())).expect("JSON");
        assert_eq!(json["can_run"], false);
        assert_eq!(json["uid"], 7);
        assert_eq!(json["checks"][1]["status"], "missing");
        assert_eq!(json["checks"][1]["remedy"], "Linux 6.6");
        assert!(json["checks"][0]["remedy"].is_null());
        assert_eq!(json["checks"][3]["required"], true);
        assert_eq!(json["interfaces"][0]["gro"], true);
        assert!(json["interfaces"][1]["link"].is_null());
        assert!(json["interfaces"][1]["tso"].is_null());
    }
}
