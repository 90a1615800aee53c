//! What is attached to an interface, as the kernel tells.

use std::{fs, path::Path, process::Command};

use aya::{
    programs::{SchedClassifier, tc::TcAttachType},
    util::KernelVersion,
};

use crate::{netns::Netns, sys::is_emulated};

/// The first kernel with TCX.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// Whether there is TCX. A kernel that is new enough must have it: without, this panics.
pub fn has_tcx() -> bool {
    let answer = SchedClassifier::query_tcx("lo", TcAttachType::Ingress);
    let kernel = KernelVersion::current().expect("the kernel's version");
    assert_eq!(answer.is_ok(), kernel >= TCX_SINCE, "TCX on {kernel:?}: {answer:?}");
    answer.is_ok()
}

/// True where there is TCX. Otherwise the kernel is older than that, and this says so in one line.
pub fn has_tcx_or_say(test: &str) -> bool {
    let there = has_tcx();
    if !there {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
        eprintln!("{test}: not run, Linux {} is older than TCX (6.6)", release.trim());
    }
    there
}

/// Whether the kernel has kprobes, as a distribution's has. A guest's is one: without, this panics.
pub fn has_kprobes() -> bool {
    let there = Path::new("/sys/bus/event_source/devices/kprobe/type").exists();
    assert!(there || !is_emulated(), "a guest's kernel without kprobes");
    there
}

/// Programs attached to both sides of an interface, by TCX or as filters.
pub fn programs(ns: &Netns, interface: &str) -> usize {
    tcx_programs(ns, interface) + tc_filters(ns, interface).len()
}

/// Programs attached to both sides of an interface by TCX; none where there is no TCX.
pub fn tcx_programs(ns: &Netns, interface: &str) -> usize {
    if !has_tcx() {
        return 0;
    }
    ns.run(|| {
        [TcAttachType::Ingress, TcAttachType::Egress]
            .into_iter()
            .map(|side| {
                let (_revision, programs) = SchedClassifier::query_tcx(interface, side)
                    .unwrap_or_else(|e| panic!("TCX programs of {interface}: {e:?}"));
                programs.len()
            })
            .sum()
    })
}

/// Lines of `tc filter show` for both sides of an interface that name a program.
pub fn tc_filters(ns: &Netns, interface: &str) -> Vec<String> {
    ["ingress", "egress"]
        .into_iter()
        .flat_map(|side| {
            let text = tc(ns, &["filter", "show", "dev", interface, side]);
            let named = text.lines().filter(|line| line.contains("handle"));
            named.map(|line| format!("{side} {}", line.trim())).collect::<Vec<_>>()
        })
        .collect()
}

/// Attaches a foreign filter to the ingress of an interface that drops IPv6 and passes everything else on.
///
/// It is a classic program in direct-action mode: ethertype 0x86dd gives TC_ACT_SHOT, others TC_ACT_UNSPEC.
pub fn attach_ipv6_dropper(ns: &Netns, interface: &str) {
    tc(ns, &["qdisc", "add", "dev", interface, "clsact"]);
    let program = "4,40 0 0 12,21 0 1 34525,6 0 0 2,6 0 0 4294967295";
    let filter = ["filter", "add", "dev", interface, "ingress", "protocol", "all", "pref", "60000"];
    tc(ns, &[&filter[..], &["bpf", "da", "bytecode", program]].concat());
}

fn tc(ns: &Netns, args: &[&str]) -> String {
    let output =
        Command::new("tc").args(["-n", ns.name()]).args(args).output().expect("run tc (iproute2)");
    assert!(output.status.success(), "tc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
