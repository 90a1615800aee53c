//! Whether what the kernel's maps take by default may be had.

use std::fs;

use bytesize::ByteSize;

use super::check::Check;

/// Compares the memory that is free, and what this process's control group may have, with what is needed.
///
/// RLIMIT_MEMLOCK is not asked: since Linux 5.11 maps count to the control group.
pub(super) fn check(needed: u64) -> Check {
    let Some(available) = available(&read("/proc/meminfo")) else {
        return Check::unknown("memory", "cannot read MemAvailable in /proc/meminfo");
    };
    let groups = read("/proc/self/cgroup");
    let mounts = read("/proc/self/mountinfo");
    let limit = limit_files(&groups, &mounts)
        .iter()
        // Version 2 says `max` where there is none, version 1 a number beyond all memory.
        .filter_map(|file| read(file).trim().parse::<u64>().ok())
        .min();
    verdict(needed, available, limit)
}

fn verdict(needed: u64, available: u64, limit: Option<u64>) -> Check {
    let size = |bytes| ByteSize(bytes).to_string();
    let limit = limit.filter(|&limit| limit < available);
    let bound = limit.map_or_else(
        || format!("{} available", size(available)),
        |limit| format!("limited to {} by the control group", size(limit)),
    );
    let found = format!("{bound}, flow table and ring take {}", size(needed));
    if limit.unwrap_or(available) >= needed {
        return Check::ok("memory", found);
    }
    Check::missing("memory", found).required().or_else(
        "the main job with its default --max-flows",
        "a smaller --max-flows or --ring-size",
    )
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// The files that may hold a limit: of this process's group, and of those above it.
fn limit_files(groups: &str, mounts: &str) -> Vec<String> {
    let place = |wanted: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let (kind, rest) = after.split_once(' ')?;
            wanted(kind, rest.rsplit(' ').next()?).then(|| before.split(' ').nth(4))?
        })
    };
    let mut files = Vec::new();
    for line in groups.lines() {
        // hierarchy:controllers:path (cgroups(7)); version 2 has no controllers there.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let found = if controllers.is_empty() {
            place(&|kind, _| kind == "cgroup2").map(|place| (place, "memory.max"))
        } else if controllers.split(',').any(|name| name == "memory") {
            let is_memory = |options: &str| options.split(',').any(|option| option == "memory");
            place(&|kind, options| kind == "cgroup" && is_memory(options))
                .map(|place| (place, "memory.limit_in_bytes"))
        } else {
            None
        };
        let Some((place, name)) = found else { continue };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{place}{path}/{name}"));
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    files
}

/// A file that is not there says nothing.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn limits_of_both_versions_and_of_the_groups_above() {
        let mounts = "31 30 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                      32 30 0:28 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                      29 24 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "4:memory:/a/b\n2:cpu:/c\n0::/s.slice\n";
        assert_eq!(
            limit_files(groups, mounts),
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/unified/s.slice/memory.max",
                "/sys/fs/cgroup/unified/memory.max",
            ]
        );
        assert_eq!(limit_files("0::/\n", mounts), ["/sys/fs/cgroup/unified/memory.max"]);
    }

    #[test]
    fn the_smaller_of_limit_and_memory_counts() {
        assert_eq!(verdict(100, 200, None).status, Status::Ok);
        assert_eq!(verdict(100, 200, Some(u64::MAX)).status, Status::Ok);
        let limited = verdict(100, 200, Some(50));
        assert_eq!((limited.status, limited.required), (Status::Missing, true));
        assert!(limited.found.contains("control group"), "{}", limited.found);
        assert_eq!(verdict(100, 50, Some(200)).status, Status::Missing);
    }

    #[test]
    fn available_memory_is_in_bytes() {
        let text = "MemTotal:       100 kB\nMemAvailable:    64 kB\n";
        assert_eq!(available(text), Some(65_536));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }
}
