//! The replay of a capture file, beside a reader that only counts.

use std::{
    fs::{self, File},
    io::{BufWriter, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use feature_agent_tests::{agent::binary, random::Random};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::resource::{UsageWho, getrusage},
    unistd::Pid,
};

use crate::{
    Plan,
    frames::{self, From},
    proc::{on_one_cpu, thread_time},
    table::{Row, Target, number},
};

pub(crate) const TITLE: &str = "replay of a capture";
pub(crate) const METHOD: &str = "`feature-agent replay`, pinned to one processor, of a pcap file in the page cache: \
    TCP and UDP over IPv4 and IPv6, 2,000 flows at a time, 100,000 packets a second of capture time, default options, \
    lines to /dev/null. IMIX: of 12 packets 7 are the shortest there are, 4 of 576 bytes and 1 of 1,500, the usual stand-in \
    for the lengths on the Internet (RFC 6985). Download: half of 1,500 bytes, three in ten the shortest, the others \
    between. All bytes are in the file. Packets over the CPU time of the process, the kernel's for it included; the \
    reader that only counts goes from record to record of the same file. Medians of 5 runs in turn.";

/// Flows at one time.
const FLOWS: u32 = 2_000;
/// Bytes of an IPv4 and a TCP header with time stamps: of the shortest packet there is in a connection.
const HEADERS: usize = 52;
/// Capture time between two packets.
const GAP_NS: u64 = 10_000;

/// Lengths of packets.
#[derive(Clone, Copy, Debug)]
enum Mix {
    Imix,
    Download,
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Self::Imix => "IMIX",
            Self::Download => "a download",
        }
    }

    /// Who sends the next packet, and how long its payload is.
    fn next(self, random: &mut Random) -> (From, usize) {
        match self {
            Self::Imix => {
                let payload = match random.below(12) {
                    0..7 => 0,
                    7..11 => 576 - HEADERS,
                    _ => 1500 - HEADERS,
                };
                (if random.below(2) == 0 { From::Client } else { From::Server }, payload)
            }
            Self::Download => match random.below(10) {
                0..5 => (From::Server, 1500 - HEADERS),
                5..8 => (From::Client, 0),
                _ => (From::Server, random.below(1400) as usize),
            },
        }
    }
}

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mix in [Mix::Imix, Mix::Download] {
        rows.extend(rows_of(plan, mix)?);
    }
    Ok(rows)
}

fn rows_of(plan: &Plan, mix: Mix) -> Result<Vec<Row>> {
    let of = |what: &str| format!("packets/s, {what} of {}", mix.name());
    let [replayed, counted] = [of("replay"), of("a reader that only counts,")];
    if !plan.wants(TITLE, &replayed) && !plan.wants(TITLE, &counted) {
        return Ok(Vec::new());
    }
    let packets = plan.pick(2_000_000, 20_000);
    let file = Capture::new(packets, mix)?;
    let (mut ours, mut plain, mut lines) = (Vec::new(), Vec::new(), 0);
    for round in 0..=plan.pick(5, 1) {
        let (spent, made) = replay(&file.0)?;
        let counting = count(&file.0, packets)?;
        lines = made;
        if round > 0 {
            ours.push(packets as f64 / spent.as_secs_f64());
            plain.push(packets as f64 / counting.as_secs_f64());
        }
    }
    let share = number((packets as f64 / lines as f64).round());
    let plain = Row::of(counted, plain, "");
    let mut ours = Row::of(replayed, ours, "");
    if matches!(mix, Mix::Imix) {
        ours = ours.target(Target::AtLeast(5_000_000.0));
    }
    let speed = ours.value / plain.value;
    let ours = ours.remark(format!("{speed:.2} of the reader's speed; a line for {share} packets"));
    Ok(vec![ours, plain])
}

/// CPU time of a replay, and the lines it made.
fn replay(path: &Path) -> Result<(Duration, u64)> {
    let children = || -> Result<Duration> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let [user, system] = [usage.user_time(), usage.system_time()];
        let micros =
            (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
        Ok(Duration::from_micros(micros.unsigned_abs()))
    };
    let mut command = Command::new(release()?);
    command
        .arg("replay")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let pin = || {
        let mut cpus = CpuSet::new();
        cpus.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
        Ok(())
    };
    // SAFETY: between fork and exec only a system call is made.
    unsafe { command.pre_exec(pin) };
    let before = children()?;
    let output = command.output().context("cannot start the replay")?;
    let spent = children()?.saturating_sub(before);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the replay failed: {said}");
    let lines = said
        .lines()
        .find_map(|line| line.strip_prefix("vectors: ")?.split(' ').next()?.parse().ok());
    Ok((spent, lines.context("the replay says nothing of its vectors")?))
}

/// The program as it is released: the bench itself is built so.
fn release() -> Result<PathBuf> {
    let path = binary().to_path_buf();
    ensure!(path.exists(), "there is no {}", path.display());
    Ok(path)
}

/// CPU time of a walk over the records.
fn count(path: &Path, packets: usize) -> Result<Duration> {
    on_one_cpu(|| {
        let begin = thread_time()?;
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 18];
        let (mut have, mut at, mut found) = (0, 24, 0);
        loop {
            let rest = have - at.min(have);
            buffer.copy_within(at.min(have)..have, 0);
            at -= at.min(have);
            have = rest + file.read(&mut buffer[rest..])?;
            if have == rest {
                break;
            }
            while at + 16 <= have {
                let len = u32::from_ne_bytes(buffer[at + 8..at + 12].try_into()?) as usize;
                if at + 16 + len > have {
                    break;
                }
                at += 16 + len;
                found += 1;
            }
        }
        ensure!(found == packets, "the reader found {found} packets of {packets}");
        Ok(thread_time()?.saturating_sub(begin))
    })
}

/// The capture, for as long as it is measured.
struct Capture(PathBuf);

impl Capture {
    fn new(packets: usize, mix: Mix) -> Result<Self> {
        let path =
            std::env::temp_dir().join(format!("feature-agent-bench-{}.pcap", std::process::id()));
        let file = Self(path);
        let mut out = BufWriter::new(File::create(&file.0).context("cannot make a capture file")?);
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            out.write_all(&word.to_ne_bytes())?;
        }
        let mut random = Random::new(1);
        for index in 0..packets as u64 {
            // A flow lasts about 200 packets.
            let flow = (index / 200 + random.below(FLOWS.into())) as u32;
            let (from, payload) = mix.next(&mut random);
            let frame = match flow % 8 {
                0 => frames::udp4(flow, from, payload),
                1 => frames::tcp6(flow, from, payload.min(1428)),
                _ => frames::tcp4(flow, from, payload),
            };
            let time_ns = 1_700_000_000_000_000_000 + index * GAP_NS;
            let len = frame.len() as u32;
            for word in
                [(time_ns / 1_000_000_000) as u32, (time_ns % 1_000_000_000) as u32, len, len]
            {
                out.write_all(&word.to_ne_bytes())?;
            }
            out.write_all(&frame)?;
        }
        out.flush()?;
        Ok(file)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // What cannot be removed is left to the folder for what is temporary.
        let _ = fs::remove_file(&self.0);
    }
}
