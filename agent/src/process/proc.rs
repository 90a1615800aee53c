//! The program that a process runs, from /proc.

use std::fs;

use agent_common::owner::Owner;

/// Nanoseconds of a tick: user space is told times in hundredths of a second on every machine (`USER_HZ`,
/// include/asm-generic/param.h).
const TICK_NS: u64 = 10_000_000;
/// Place of the start time behind the name in /proc/PID/stat: field 22 of proc_pid_stat(5), the first behind it is 3.
const STARTED: usize = 22 - 3;

/// Path of the program. `None`: the process has ended, is hidden, or another has got its number.
pub(super) fn exe(owner: &Owner) -> Option<String> {
    let folder = format!("/proc/{}", owner.pid);
    let exe = fs::read_link(format!("{folder}/exe")).ok()?;
    // Read behind the path: if the process that has the number now is still that of the socket, so was it before.
    let stat = fs::read(format!("{folder}/stat")).ok()?;
    is_same(owner, &stat).then(|| exe.to_string_lossy().into_owned())
}

fn is_same(owner: &Owner, stat: &[u8]) -> bool {
    if owner.started_ns == 0 {
        return name(stat) == Some(owner.comm());
    }
    started(stat) == Some(owner.started_ns / TICK_NS)
}

/// The name stands in parentheses, and may hold any itself.
fn name(stat: &[u8]) -> Option<&[u8]> {
    let begin = stat.iter().position(|&byte| byte == b'(')? + 1;
    stat.get(begin..end_of_name(stat)?)
}

fn started(stat: &[u8]) -> Option<u64> {
    let behind = stat.get(end_of_name(stat)? + 1..)?;
    str::from_utf8(behind).ok()?.split_ascii_whitespace().nth(STARTED)?.parse().ok()
}

fn end_of_name(stat: &[u8]) -> Option<usize> {
    stat.iter().rposition(|&byte| byte == b')')
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    const STAT: &[u8] = b"17 (a) (b) S 1 17 17 0 -1 4194560 9 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1\n";

    #[test]
    fn a_start_time_is_found_behind_any_name() {
        assert_eq!(name(STAT), Some(b"a) (b".as_slice()));
        assert_eq!(started(STAT), Some(4242));
        assert_eq!(started(b"17 (a"), None);
        assert_eq!(started(b""), None);
    }

    #[test]
    fn another_process_of_the_same_number_is_another() {
        let owner = |started_ns| Owner { started_ns, ..Owner::zeroed() };
        assert!(is_same(&owner(4242 * TICK_NS + 9), STAT));
        assert!(!is_same(&owner(4243 * TICK_NS), STAT));
        let mut named = Owner::zeroed();
        named.comm[..5].copy_from_slice(b"a) (b");
        assert!(is_same(&named, STAT));
        assert!(!is_same(&Owner::zeroed(), STAT));
    }

    #[test]
    fn this_process_is_found() {
        let stat = fs::read("/proc/self/stat").expect("/proc");
        let started_ns = started(&stat).expect("a start time") * TICK_NS;
        let owner = Owner { pid: std::process::id(), started_ns, ..Owner::zeroed() };
        let own = std::env::current_exe().expect("a path");
        assert_eq!(exe(&owner).as_deref(), own.to_str());
        assert_eq!(exe(&Owner { started_ns: started_ns + TICK_NS, ..owner }), None);
    }
}
