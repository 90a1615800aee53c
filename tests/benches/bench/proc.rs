//! Processes and threads: what /proc tells of them, and where they run.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use feature_agent_tests::sys::pin_to_cpu;
use nix::time::{ClockId, clock_gettime};

/// CPU time of a process so far, its own and the kernel's for it.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The command's name, in parentheses, may hold anything; utime and stime are the 12th and 13th field behind.
    let behind = text.rsplit(')').next().unwrap_or_default();
    let ticks: Option<u64> =
        behind.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every architecture there is eBPF on.
    Ok(Duration::from_millis(10 * ticks.context(path)?))
}

/// CPU time of this thread so far, the kernel's for it included: what others run in between does not count.
pub(crate) fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Resident memory of a process in KiB, by kind: `VmRSS`, `RssAnon` and so on.
pub(crate) fn memory_kib(pid: u32) -> Result<BTreeMap<String, u64>> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path)?;
    let kinds = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().strip_suffix("kB")?.trim().parse().ok()?))
    });
    Ok(kinds.collect())
}

/// A field of each eBPF object that a process holds open, such as `prog_id` or `memlock`, once per object.
pub(crate) fn bpf_field(pid: u32, id: &str, field: &str) -> Result<Vec<u64>> {
    let mut objects = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be gone by now.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let value = |name: &str| -> Option<u64> {
            let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok())
        };
        if let (Some(id), Some(value)) = (value(id), value(field)) {
            objects.insert(id, value);
        }
    }
    Ok(objects.into_values().collect())
}

/// Runs `work` on a thread of its own that stays on the first processor; the caller's threads stay free to
/// run where they like.
pub(crate) fn on_one_cpu<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let working = scope.spawn(|| {
            pin_to_cpu(0);
            work()
        });
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
