//! What the kernel lets this process do with BPF, found by trying. Nothing stays loaded or attached.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Btf,
    maps::MapType,
    programs::{ProgramError, ProgramType, SchedClassifier, TcAttachType},
    sys::{is_map_supported, is_program_supported},
};

use super::attach;

/// Where perf_event_open(2) tells what it can attach to.
const PERF_SOURCES: &str = "/sys/bus/event_source/devices";

/// Whether there are ring buffers.
pub fn ring_buffer() -> Result<bool> {
    is_map_supported(MapType::RingBuf).context("cannot make a ring buffer")
}

/// Reads the kernel's type information, whole.
pub fn type_information() -> Result<()> {
    Btf::from_sys_fs().map(drop).context("cannot read /sys/kernel/btf/vmlinux")
}

/// Whether fentry programs load and attach: one does, for a moment, to a function that the kernel has for tests.
pub fn fentry() -> Result<bool> {
    is_program_supported(ProgramType::Tracing).context("cannot attach an fentry program")
}

/// Whether kprobe programs load, and whether there is something to attach them to.
pub fn kprobe() -> Result<bool> {
    ensure!(
        Path::new(PERF_SOURCES).is_dir(),
        "there is no {PERF_SOURCES}: /sys is not mounted, or the kernel has no CONFIG_PERF_EVENTS"
    );
    if !Path::new(PERF_SOURCES).join("kprobe/type").exists() {
        return Ok(false);
    }
    is_program_supported(ProgramType::KProbe).context("cannot load a kprobe program")
}

/// Whether there is TCX, without attaching: asks what is attached to the loopback interface.
pub fn tcx() -> Result<bool> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if attach::is_unsupported(&error) => Ok(false),
        Err(ProgramError::SyscallError(error)) => {
            Err(error.io_error).context("cannot ask what is attached by TCX")
        }
        Err(error) => Err(error).context("cannot ask what is attached by TCX"),
    }
}
