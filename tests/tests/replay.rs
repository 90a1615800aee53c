//! `feature-agent replay`, the program: golden lines, broken captures, its ends, and the live agent beside it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use feature_agent_tests::{
    agent::{Agent, binary},
    craft::{self, C_TAG, IPV4, IPV6, Tcp, V4},
    generate::mixed_frames,
    inject::{Injector, wait_until},
    lines::{Line, parse_all},
    netns::{FAR_IF, NEAR_IF, Pair},
    pcap::{self, Temporary},
    random::Random,
    sys::{is_root_or_say, pin_to_cpu},
};

/// Runs `replay` with bytes on its standard input.
fn replay_of(input: &[u8], args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("replay").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // It may end before it has read all of it.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("its end");
    feeder.join().expect("no panic");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// About forty packets: each kind of flow once.
fn short() -> Vec<(u64, Vec<u8>)> {
    let mut packets = Vec::new();
    let mut now_ns = 1_700_000_000_123_456_789_u64;
    let mut push = |gap_us: u64, frame: Vec<u8>| {
        now_ns += gap_us * 1000;
        packets.push((now_ns, frame));
    };
    let (a, b) = ([192, 0, 2, 1].into(), [198, 51, 100, 7].into());
    let v4 = |from_a: bool, proto: u8, payload: &[u8]| {
        let (src, dst) = if from_a { (a, b) } else { (b, a) };
        V4::new(src, dst, proto).packet(payload)
    };
    let tcp = |from_a: bool, flags: u8, mss: bool, payload: usize| {
        let (sport, dport) = if from_a { (40_000, 443) } else { (443, 40_000) };
        let options = if mss { 4 } else { 0 };
        let mut segment =
            Tcp { sport, dport, flags, window: 64_240, options }.segment(&vec![1; payload]);
        if mss {
            segment[20..24].copy_from_slice(&[2, 4, 5, 180]);
        }
        v4(from_a, 6, &segment)
    };
    let plain = |packet: &[u8]| craft::ethernet(&[], IPV4, packet);
    push(0, plain(&tcp(true, 0x02, true, 0)));
    push(10_311, plain(&tcp(false, 0x12, true, 0)));
    push(87, plain(&tcp(true, 0x10, false, 0)));
    push(412, plain(&tcp(true, 0x18, false, 517)));
    // Three packets of the wire in one.
    push(9_000, plain(&tcp(false, 0x18, false, 3_500)));
    for size in [1460, 1460, 1200] {
        push(3, plain(&tcp(false, 0x10, false, size)));
    }
    for port in [53, 123] {
        push(70, plain(&v4(true, 17, &craft::udp(5_000, port, &[7; 30]))));
        push(20_000, plain(&v4(false, 17, &craft::udp(port, 5_000, &[7; 130]))));
    }
    for _ in 0..3 {
        push(1_000_000, plain(&v4(true, 1, &craft::icmp(8, 0, &[0; 56]))));
        push(900, plain(&v4(false, 1, &craft::icmp(0, 0, &[0; 56]))));
    }
    let v6 = |port: u16, payload: usize| {
        let packet = craft::ipv6(
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into(),
            17,
            63,
            &craft::udp(port, 443, &vec![3; payload]),
        );
        craft::ethernet(&[(C_TAG, 42)], IPV6, &packet)
    };
    for size in [1200, 38, 900, 1200] {
        push(333, v6(50_001, size));
    }
    let datagram = craft::udp(6_000, 7_000, &[9; 1400]);
    let part = |offset: u16, more: bool, bytes: &[u8]| {
        plain(&V4 { id: 77, offset, more, ..V4::new(a, b, 17) }.packet(bytes))
    };
    push(50, part(0, true, &datagram[..800]));
    push(5, part(100, false, &datagram[800..]));
    push(40, craft::ethernet(&[], craft::ARP, &[0; 28]));
    push(50, plain(&tcp(true, 0x11, false, 0)));
    push(800, plain(&tcp(false, 0x11, false, 0)));
    push(12, plain(&tcp(true, 0x10, false, 0)));
    // Silence ends what is open; the last packet lets it be seen.
    push(20_000_000, plain(&v4(true, 17, &craft::udp(5_000, 53, &[7; 31]))));
    packets
}

#[test]
fn a_short_capture_gives_the_golden_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/short.jsonl");
    let output = replay_of(&pcap::file_of(&short()), &["-"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &output.stdout).expect("write the golden lines");
    }
    let golden = fs::read_to_string(&path).expect("the golden lines");
    let found = text(&output.stdout);
    for (number, (expected, found)) in golden.lines().zip(found.lines()).enumerate() {
        if expected != found {
            let [expected, found] = [expected, found].map(|l| Line::parse(l).expect("a line"));
            let differs = expected.fields.iter().zip(&found.fields).find(|(a, b)| a != b);
            panic!(
                "line {}: {differs:?}. If the meaning of a field has changed on purpose, run this \
                 with UPDATE_GOLDEN=1 and read the difference",
                number + 1
            );
        }
    }
    assert_eq!(golden.lines().count(), found.lines().count(), "lines");
}

#[test]
fn a_broken_capture_gives_all_before_the_break_and_a_sentence() {
    let bytes = pcap::file_of(&short());
    let mut before = short();
    before.pop();
    let before = replay_of(&pcap::file_of(&before), &["-"]);
    // The last packet is cut.
    let file = Temporary::new("broken", &bytes[..bytes.len() - 3]);
    let name = file.path().to_str().expect("a path");
    let output = replay_of(b"", &[name]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), text(&before.stdout));
    let said = text(&output.stderr);
    let offset = bytes.len() - short().last().expect("packets").1.len() - 16;
    assert!(said.contains(name) && said.contains(&offset.to_string()), "{said}");
    let books = text(&before.stderr).lines().next().expect("a report");
    assert!(books.starts_with("seen = ") && said.contains(books), "{said}");
}

#[test]
fn what_is_no_capture_is_refused_before_anything_is_written() {
    for (input, word) in
        [(&b""[..], "empty"), (b"GET / HTTP/1.1\r\n\r\n and more of it", "capture")]
    {
        let output = replay_of(input, &["-"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
    let output = replay_of(b"", &["/nowhere/at-all.pcap"]);
    assert!(text(&output.stderr).contains("/nowhere/at-all.pcap"));
    let output = replay_of(b"", &["-", "--filter", "tcp prot 80"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains('^'), "{}", text(&output.stderr));
}

#[test]
fn several_files_are_one_stream() {
    let packets = short();
    let whole = replay_of(&pcap::file_of(&packets), &["-"]);
    let (even, odd): (Vec<_>, Vec<_>) =
        packets.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    let file = |name: &str, half: Vec<(usize, (u64, Vec<u8>))>| {
        let half: Vec<_> = half.into_iter().map(|(_, packet)| packet).collect();
        Temporary::new(name, &pcap::file_of(&half))
    };
    let (even, odd) = (file("even", even), file("odd", odd));
    let names = [even.path(), odd.path()].map(|path| path.to_str().expect("a path"));
    let output = replay_of(b"", &names);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), text(&whole.stdout));
}

#[test]
fn a_consumer_that_has_enough_is_no_error() {
    let packets: Vec<_> = (0_u64..)
        .zip(mixed_frames(3, 20_000))
        .map(|(index, frame)| (1_700_000_000_000_000_000 + index * 1_000_000, frame))
        .collect();
    let file = Temporary::new("long", &pcap::file_of(&packets));
    let mut child = Command::new(binary())
        .args(["replay", "--stride", "1", "--min-gap", "0s"])
        .arg(file.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the program");
    let mut first = [0; 4096];
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut first).expect("lines");
    drop(stdout);
    assert!(child.wait().expect("its end").success());
}

#[test]
fn it_needs_no_root() {
    if !is_root_or_say("it_needs_no_root") {
        return;
    }
    // A copy where anyone may read it.
    let copy: PathBuf = std::env::temp_dir().join(format!("feature-agent-{}", std::process::id()));
    fs::copy(binary(), &copy).expect("a copy");
    let file = Temporary::new("nobody", &pcap::file_of(&short()));
    let output =
        Command::new(&copy).arg("replay").arg(file.path()).uid(65_534).gid(65_534).output();
    let _ = fs::remove_file(&copy);
    let output = output.expect("start the program");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), text(&replay_of(&pcap::file_of(&short()), &["-"]).stdout));
}

/// A line without what depends on time, and on how the flow ended.
fn timeless(line: &Line) -> String {
    let timed = |name: &str| {
        name == "ts"
            || name == "flow_duration_us"
            || name == "win_span_us"
            || name == "reason"
            || name.contains("_iat_")
            || name.ends_with("_per_s")
    };
    let fields = line.fields.iter().filter(|(name, _)| !timed(name));
    fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_live_agent_gives_the_same_but_for_time() {
    if !is_root_or_say("the_live_agent_gives_the_same_but_for_time") {
        return;
    }
    let mut random = Random::new(5);
    let mut now_ns = 1_700_000_000_000_000_000_u64;
    let mut packets = Vec::new();
    for frame in mixed_frames(21, 1_500) {
        now_ns += random.below(1_200_000);
        packets.push((now_ns, frame));
    }
    // Vectors by count alone: no sweep but the last.
    let options = [
        ["--stride", "5"],
        ["--min-gap", "0s"],
        ["--interval", "1h"],
        ["--idle-timeout", "1h"],
        ["--poll", "1m"],
    ]
    .concat();
    let file = pcap::file_of(&packets);
    let output = replay_of(&file, &[&["-", "--iface", NEAR_IF][..], &options].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let replayed = parse_all(text(&output.stdout).lines()).expect("lines");

    let pair = Pair::bare(9000);
    let agent = Agent::start(&pair.near, &[&["--iface", NEAR_IF][..], &options].concat());
    let before = pair.near.counter(NEAR_IF, "rx_packets");
    let injector = Injector::new(&pair.far, FAR_IF);
    // A veth keeps the order of what one processor sends.
    pin_to_cpu(0);
    let (start, first_ns) = (Instant::now(), packets[0].0);
    for (time_ns, frame) in &packets {
        let due = Duration::from_nanos(time_ns - first_ns);
        sleep(due.saturating_sub(start.elapsed()));
        injector.send(&[frame]);
    }
    let sent = packets.len() as u64;
    assert!(wait_until(Duration::from_secs(5), || {
        pair.near.counter(NEAR_IF, "rx_packets") - before >= sent
    }));
    let outcome = agent.stop();
    let live = outcome.lines();
    let sorted = |lines: &[Line]| {
        let mut lines: Vec<String> = lines.iter().map(timeless).collect();
        lines.sort();
        lines
    };
    let (live, replayed) = (sorted(&live), sorted(&replayed));
    for (live, replayed) in live.iter().zip(&replayed) {
        assert_eq!(live, replayed);
    }
    assert_eq!(live.len(), replayed.len());
    assert!(live.len() > 300, "only {} lines", live.len());
}
