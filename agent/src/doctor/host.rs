//! Kernel, capabilities, control groups and lockdown, as the system tells.

use std::{fs, io, thread};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::CapabilitySet,
};

use super::check::Check;
use crate::{privilege, process::mounts};

/// The kernel's age.
pub(super) fn kernel(release: &str) -> Check {
    match privilege::check_kernel(release) {
        Ok(()) => Check::ok("kernel", format!("Linux {release}")),
        Err(_) => Check::missing("kernel", format!("Linux {release} is too old"))
            .or_else("the main job", privilege::NEWER_KERNEL),
    }
    .required()
}

/// What this process may do.
pub(super) fn capabilities(held: CapabilitySet) -> Check {
    let missing = privilege::missing(held);
    if missing.is_empty() {
        let all = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or what includes them";
        return Check::ok("capabilities", all).required();
    }
    Check::missing("capabilities", format!("this process lacks {}", missing.join(", ")))
        .required()
        .or_else(
            "the main job, and most of what is asked below",
            privilege::how_to_get_capabilities(),
        )
}

/// Which version of control groups is mounted where.
pub(super) fn cgroup() -> Check {
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => cgroup_of(&mounts),
        Err(error) => {
            Check::unknown("cgroup", format!("cannot read /proc/self/mountinfo: {error}"))
        }
    }
}

fn cgroup_of(mountinfo: &str) -> Check {
    let (first, second) = mounts(mountinfo);
    match (second, first) {
        (Some(place), None) => Check::ok("cgroup", format!("version 2 at {place}")),
        (Some(place), Some(_)) => {
            Check::ok("cgroup", format!("version 2 at {place}, beside version 1"))
        }
        (None, first) => {
            let found = first.map_or("no control groups are mounted", |_| "version 1 only");
            Check::missing("cgroup", found).or_else(
                "--process: which process a flow belongs to",
                "sudo mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with \
                 systemd.unified_cgroup_hierarchy=1",
            )
        }
    }
}

/// Where the kernel tells which security modules it has, and how far one of them locks it down.
const SECURITY: &str = "/sys/kernel/security";

/// How far the kernel is locked down.
pub(super) fn lockdown() -> Check {
    let seen = read_security()
        .or_else(|error| {
            // Not mounted: for this look it is, where nobody else sees it.
            let mounted = thread::spawn(|| mount_security().and_then(|()| read_security()));
            mounted.join().ok().and_then(Result::ok).ok_or(error)
        })
        .map(|(modules, level)| lockdown_of(&modules, level.as_deref()));
    seen.unwrap_or_else(|error| {
        Check::unknown("lockdown", format!("cannot read {SECURITY}: {error}"))
            .seen_by(format!("sudo mount -t securityfs securityfs {SECURITY}"))
    })
}

/// The names of the security modules, and what the one for lockdown says, if there is one.
fn read_security() -> io::Result<(String, Option<String>)> {
    let modules = fs::read_to_string(format!("{SECURITY}/lsm"))?;
    Ok((modules, fs::read_to_string(format!("{SECURITY}/lockdown")).ok()))
}

/// In a mount namespace of this thread's own.
fn mount_security() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("securityfs", SECURITY, "securityfs", MountFlags::empty(), None)?;
    Ok(())
}

/// The level as in `none [integrity] confidentiality`.
fn lockdown_of(modules: &str, text: Option<&str>) -> Check {
    let modules = modules.trim();
    let level = text.map_or(Some("none"), |text| {
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(level, _)| level)
    });
    let found = |level| format!("{level}; security modules: {modules}");
    match level {
        // Integrity forbids what could change the kernel, and no program here does.
        Some(level @ ("none" | "integrity")) => Check::ok("lockdown", found(level)),
        Some(level @ "confidentiality") => Check::missing("lockdown", found(level)).or_else(
            "--hook socket: its programs may not read kernel memory",
            "boot without lockdown=confidentiality",
        ),
        _ => Check::unknown("lockdown", found(text.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn control_groups_by_what_is_mounted() {
        let first = "31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n";
        let second = "29 24 0:25 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";
        let of = |mounts: &str| {
            let check = cgroup_of(mounts);
            (check.status, check.found)
        };
        assert_eq!(of(second), (Status::Ok, "version 2 at /sys/fs/cgroup/unified".to_owned()));
        let both = "version 2 at /sys/fs/cgroup/unified, beside version 1".to_owned();
        assert_eq!(of(&[first, second].concat()), (Status::Ok, both));
        assert_eq!(of(first), (Status::Missing, "version 1 only".to_owned()));
        assert_eq!(of("").0, Status::Missing);
    }

    #[test]
    fn lockdown_by_the_level_in_brackets() {
        let of = |text| lockdown_of("capability,lockdown\n", text);
        let none = of(Some("[none] integrity confidentiality\n"));
        assert_eq!(none.found, "none; security modules: capability,lockdown");
        assert_eq!(of(None), none);
        assert_eq!(of(Some("none [integrity] confidentiality\n")).status, Status::Ok);
        let tight = of(Some("none integrity [confidentiality]\n"));
        assert_eq!((tight.status, tight.required), (Status::Missing, false));
        assert_eq!(of(Some("?")).status, Status::Unknown);
    }

    #[test]
    fn an_old_kernel_stops_the_main_job() {
        let old = kernel("5.10.0-30-amd64");
        assert_eq!((old.status, old.required), (Status::Missing, true));
        assert!(old.found.contains("5.10.0-30-amd64") && old.remedy.starts_with("Boot a newer"));
        assert_eq!(kernel("6.1.0").status, Status::Ok);
    }

    #[test]
    fn lacking_capabilities_are_named() {
        let check = capabilities(CapabilitySet::BPF);
        assert_eq!(check.found, "this process lacks CAP_PERFMON, CAP_NET_ADMIN");
        assert!(check.required && check.remedy.contains("setcap"), "{check:?}");
    }
}
