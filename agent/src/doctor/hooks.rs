//! What the kernel has for programs: a ring buffer, type information, and functions to hook.

use std::io;

use anyhow::Result;

use super::{ASK_AS_ROOT, check::Check};
use crate::bpf::probe;

/// What needs the kernel's types.
const TYPES: &str = "--hook socket; and --process tells processes by their numbers alone";
/// What needs programs at the kernel's functions.
const FUNCTIONS: &str = "--hook socket, unless the other of fentry and kprobe is there";

/// Whether records can come out of the kernel at all.
pub(super) fn ring_buffer(permitted: bool) -> Check {
    tried("ring", "a ring buffer can be made", permitted, probe::ring_buffer)
        .required()
        .or_else("the main job: vectors leave the kernel by it", "Linux 5.8 or later")
}

/// The kernel's types, which hooks of functions are made by.
pub(super) fn type_information() -> Check {
    match probe::type_information() {
        Ok(()) => Check::ok("btf", "/sys/kernel/btf/vmlinux tells the kernel's types"),
        Err(error) => Check::missing("btf", format!("{error:#}"))
            .or_else(TYPES, "a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build theirs"),
    }
}

/// Programs at the begin of kernel functions, by trampolines.
pub(super) fn fentry(permitted: bool) -> Check {
    tried("fentry", "attached and detached", permitted, probe::fentry).or_else(
        FUNCTIONS,
        "a kernel with CONFIG_DEBUG_INFO_BTF, CONFIG_FUNCTION_TRACER and \
         CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, as distributions build theirs (arm64: Linux 6.4)",
    )
}

/// Programs at the begin of kernel functions, by break points.
pub(super) fn kprobe(permitted: bool) -> Check {
    tried("kprobe", "programs load, and the kernel has kprobe events", permitted, probe::kprobe)
        .or_else(
            FUNCTIONS,
            "a kernel with CONFIG_KPROBES and CONFIG_KPROBE_EVENTS, as distributions build theirs",
        )
}

/// What a probe says. One that a process without permission cannot make says nothing about the kernel.
fn tried(
    name: &'static str,
    works: &str,
    permitted: bool,
    probe: impl FnOnce() -> Result<bool>,
) -> Check {
    match probe() {
        Ok(true) => Check::ok(name, works),
        Ok(false) => Check::missing(name, "this kernel has none"),
        Err(error) if permitted => {
            let forbidden = error
                .chain()
                .filter_map(|cause| cause.downcast_ref::<io::Error>())
                .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
            let by = if forbidden { FORBIDDEN } else { "" };
            Check::missing(name, format!("{error:#}{by}"))
        }
        Err(error) => Check::unknown(name, format!("{error:#}")).seen_by(ASK_AS_ROOT),
    }
}

/// Behind what the kernel says to a process that holds every capability it could want.
const FORBIDDEN: &str = "; not for want of capabilities: something else forbids it, such as a security \
                         module (named below, with lockdown)";

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{super::Status, *};

    #[test]
    fn a_refusal_is_an_answer_only_to_those_who_may_ask() {
        let status = |permitted, answer| tried("x", "", permitted, || answer).status;
        assert_eq!(status(true, Ok(true)), Status::Ok);
        assert_eq!(status(false, Ok(false)), Status::Missing);
        assert_eq!(status(true, Err(anyhow!("EPERM"))), Status::Missing);
        assert_eq!(status(false, Err(anyhow!("EPERM"))), Status::Unknown);
        let refused = || Err(anyhow::Error::new(io::Error::from_raw_os_error(1)).context("no"));
        let check = tried("x", "", true, refused);
        assert!(check.found.contains("security module"), "{check:?}");
    }
}
