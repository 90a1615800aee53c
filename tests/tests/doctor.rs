//! `feature-agent doctor`: its answers against other ways to find out the same.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aya::util::KernelVersion;
use feature_agent_tests::{
    agent::{Builder, binary},
    attached::{has_tcx, programs},
    mount::Mounted,
    netns::{FAR_IF, NEAR_IF, Netns, Pair},
    sys::{is_emulated, is_root_or_say},
};
use serde_json::Value;

/// A user without permissions.
const NOBODY: u32 = 65_534;

/// What it says, inside of a namespace, as a user.
fn doctor(ns: &Netns, program: &Path, user: Option<u32>, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("doctor").args(args);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = ns.run(move || command.output().expect("run the doctor"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(errors, "", "its report goes to standard output, and there is nothing else to say");
    output
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    let found: Vec<&Value> = checks.iter().filter(|check| check["name"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {report:#}");
    found[0]
}

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["status"].as_str().expect("a status")
}

/// The binary where any user may run it.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("feature-agent-doctor-{}", std::process::id()));
        fs::copy(binary(), &path).expect("copy the binary");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("remove the copy");
    }
}

#[test]
fn the_doctor_is_right_about_this_kernel() {
    if !is_root_or_say("the_doctor_is_right_about_this_kernel") {
        return;
    }
    let ns = Netns::new();
    let output = doctor(&ns, binary(), None, &["--json"]);
    let report = report(&output);
    println!("{report:#}");
    // The rest of this suite runs the main job here: so it can.
    assert_eq!((output.status.code(), &report["can_run"]), (Some(0), &Value::Bool(true)));
    for name in ["kernel", "capabilities", "program", "jit", "clsact", "ring", "memory"] {
        assert_eq!(status(&report, name), "ok", "{name}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    assert_eq!(report["kernel"], release.trim());
    let ok = |there| if there { "ok" } else { "missing" };
    assert_eq!(status(&report, "tcx"), ok(has_tcx()));
    assert_eq!(status(&report, "btf"), ok(Path::new("/sys/kernel/btf/vmlinux").exists()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert_eq!(status(&report, "cgroup"), ok(mounts.contains(" - cgroup2 ")));

    // What the tracing file system has to say of the two ways to hook functions.
    let tracing = Mounted::new("tracefs", None);
    let kprobes = tracing.path().join("kprobe_events").exists();
    assert_eq!(status(&report, "kprobe"), ok(kprobes));
    // Nobody may read this where a security module keeps all tracing off.
    let hooked = fs::read_to_string(tracing.path().join("available_filter_functions"));
    let hooked = hooked.is_ok_and(|list| list.lines().any(|line| line == "bpf_fentry_test1"));
    assert_eq!(status(&report, "fentry"), ok(hooked));

    // The guests' kernels, Debian's, have all that can be had in their series.
    if is_emulated() {
        for name in ["btf", "fentry", "kprobe", "cgroup", "lockdown"] {
            assert_eq!(status(&report, name), "ok", "{name}");
        }
    }

    for check in report["checks"].as_array().expect("checks") {
        let missing = check["status"] == "missing";
        assert_eq!(check["disables"].is_string(), missing, "{check}");
        assert!(!missing || check["remedy"].is_string(), "{check}");
    }
}

#[test]
fn the_text_says_what_the_json_says() {
    if !is_root_or_say("the_text_says_what_the_json_says") {
        return;
    }
    let pair = Pair::bare(1500);
    let text = doctor(&pair.near, binary(), None, &[]);
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    let report = report(&doctor(&pair.near, binary(), None, &["--json"]));
    for check in report["checks"].as_array().expect("checks") {
        let word = |name: &str| check[name].as_str().unwrap_or("").replace('\n', " ");
        let line = text.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(&word("status")) && words.next() == Some(&word("name"))
        });
        let line = line.unwrap_or_else(|| panic!("no line for {check} in:\n{text}"));
        // Memory is another at every look.
        assert!(check["name"] == "memory" || line.ends_with(&word("found")), "{line}: {check}");
        assert!(text.contains(&word("remedy")) && text.contains(&word("disables")), "{check}");
    }
    for interface in report["interfaces"].as_array().expect("interfaces") {
        assert!(text.contains(interface["name"].as_str().expect("a name")), "{text}");
    }
    assert!(text.ends_with("\nThe main job can run.\n"), "{text}");
}

#[test]
fn a_user_without_permission_is_told_so_and_what_is_out_of_sight() {
    if !is_root_or_say("a_user_without_permission_is_told_so_and_what_is_out_of_sight") {
        return;
    }
    let ns = Netns::new();
    let copy = Copy::new();
    let whole = report(&doctor(&ns, binary(), None, &["--json"]));
    let output = doctor(&ns, &copy.0, Some(NOBODY), &["--json"]);
    let report = report(&output);
    assert_eq!((output.status.code(), &report["can_run"]), (Some(1), &Value::Bool(false)));
    assert_eq!(report["uid"], NOBODY);
    assert_eq!(status(&report, "capabilities"), "missing");
    let remedy = check(&report, "capabilities")["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("sudo") && remedy.contains("setcap"), "{remedy}");
    assert_eq!(status(&report, "program"), "unknown");
    // What this user sees, it sees as root does.
    for check in report["checks"].as_array().expect("checks") {
        let name = check["name"].as_str().expect("a name");
        if name != "capabilities" && check["status"] != "unknown" {
            assert_eq!(check["status"], status(&whole, name), "{name}");
        }
    }
    for name in ["kernel", "btf", "memory", "cgroup"] {
        assert_eq!(status(&report, name), status(&whole, name), "any user can see {name}");
    }
    assert_eq!(report["interfaces"], whole["interfaces"]);
    let text = doctor(&ns, &copy.0, Some(NOBODY), &[]);
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.ends_with("\nThe main job cannot run: capabilities.\n"), "{text}");
}

#[test]
fn the_doctor_touches_no_interface() {
    if !is_root_or_say("the_doctor_touches_no_interface") {
        return;
    }
    let ns = Netns::new();
    let before = links(&ns);
    assert!(doctor(&ns, binary(), None, &[]).status.success());
    assert_eq!(links(&ns), before, "loopback was taken into service");
    assert_eq!(programs(&ns, "lo"), 0);
}

/// Every interface with its flags.
fn links(ns: &Netns) -> String {
    ns.run(|| {
        let links = Command::new("ip").args(["-o", "link"]).output().expect("run ip (iproute2)");
        String::from_utf8(links.stdout).expect("UTF-8")
    })
}

#[test]
fn an_old_kernel_is_refused_in_a_sentence() {
    let name = "an_old_kernel_is_refused_in_a_sentence";
    if !is_root_or_say(name) {
        return;
    }
    if !is_too_old() {
        eprintln!("{name}: nothing to refuse, this kernel is not older than 5.15");
        return;
    }
    let ns = Netns::new();
    let outcome = Builder::new(&ns, &["--iface", "lo"]).spawn().wait();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stderr.contains("the agent needs 5.15 or later"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    let output = doctor(&ns, binary(), None, &["--json"]);
    let report = report(&output);
    println!("{report:#}");
    assert_eq!((output.status.code(), &report["can_run"]), (Some(1), &Value::Bool(false)));
    assert_eq!((status(&report, "kernel"), status(&report, "program")), ("missing", "unknown"));
}

/// Whether this kernel is older than the oldest that the agent runs on.
fn is_too_old() -> bool {
    KernelVersion::current().expect("the kernel's version") < KernelVersion::new(5, 15, 0)
}

#[test]
fn offloads_are_told_as_they_are() {
    if !is_root_or_say("offloads_are_told_as_they_are") {
        return;
    }
    let pair = Pair::bare(1500);
    for on in [false, true] {
        pair.near.set_offloads(NEAR_IF, on);
        let report = report(&doctor(&pair.near, binary(), None, &["--json"]));
        let interfaces = report["interfaces"].as_array().expect("interfaces");
        let near = interfaces.iter().find(|interface| interface["name"] == NEAR_IF);
        let near = near.unwrap_or_else(|| panic!("no {NEAR_IF} in {report:#}"));
        for offload in ["gro", "gso", "tso"] {
            assert_eq!(near[offload], on, "{offload}");
        }
        assert_eq!((&near["link"], &near["mtu"]), (&"ethernet".into(), &1500.into()));
        assert!(interfaces.iter().all(|interface| interface["name"] != FAR_IF));
    }
}
