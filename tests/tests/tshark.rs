//! Packets and bytes of every conversation, by `feature-agent replay` and by tshark.
//!
//! Where both have the same idea of a conversation, their numbers must be equal: from address to address in each
//! VLAN, and from port to port for TCP, UDP and SCTP. Where they have not, [`REASONS`] and [`EXCEPTIONS`] say why.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use feature_agent_tests::{
    agent::{Outcome, replay},
    generate::timed_frames,
    pcap::{self, Temporary},
    totals::Totals,
    tshark::{Capture, LeftOut, is_there},
};

/// Why a packet is in a conversation of tshark and in no flow of the agent.
struct Reason {
    left_out: LeftOut,
    /// What both make of it.
    why: &'static str,
    /// The agent's counter in which it is.
    counter: &'static [&'static str],
    /// A capture of those in which it occurs, and how often.
    example: (&'static str, u64),
}

/// What the generated capture is called in [`REASONS`].
const GENERATED: &str = "generated";

const REASONS: [Reason; 5] = [
    Reason {
        left_out: LeftOut::Carried,
        why: "tshark looks through MPLS, PPPoE, PPP, Frame Relay and FabricPath; the agent through the first two, \
              and with --decap alone",
        counter: &["not_ip"],
        example: ("zeek/pppoe-over-qinq.pcap", 86),
    },
    Reason {
        left_out: LeftOut::BeyondFrame,
        why: "the IP length says more than there was on the wire; tshark warns and counts, the agent believes none \
              of its headers",
        counter: &["bad_ip_length"],
        example: ("tcpdump/olsr-oobr-1.pcap", 4),
    },
    Reason {
        left_out: LeftOut::CutOff,
        why: "the headers were not captured to their end; tshark counts what it saw, the agent knows no flow",
        counter: &["truncated_ip", "truncated_l4"],
        example: ("zeek/icmp-header-trunc.pcap", 2),
    },
    Reason {
        left_out: LeftOut::TooDeep,
        why: "there are more than two VLAN tags, or more than eight IPv6 extension headers; tshark looks through all",
        counter: &["vlan_depth", "ext_chain"],
        example: (GENERATED, 3),
    },
    Reason {
        left_out: LeftOut::BadTransport,
        why: "the UDP length or the TCP data offset is impossible; tshark warns and counts, the agent does not take \
              the ports from such a header",
        counter: &["bad_l4"],
        example: ("tcpdump/babel_update_oobr.pcap", 14),
    },
];

/// A capture on which the two differ otherwise.
struct Exception {
    file: &'static str,
    why: &'static str,
    /// On what, in the words of [`Totals::differences`]: the agent's packets/bytes, not tshark's.
    on: &'static [&'static str],
}

const OTHER_VERSION: &str = "the link type says IPv4, the packet IPv6, or the other way round; the agent believes the \
                             packet";
const BIG_TCP: &str = "an IPv6 length of 0, longer than such a field can say (BIG TCP); tshark 4.0 does not look for \
                       ports behind it";

const EXCEPTIONS: [Exception; 7] = [
    Exception {
        file: "tcpdump/LINKTYPE_IPV4_invalid.pcap",
        why: OTHER_VERSION,
        on: &[
            "2001:db8::1 > 2620:fe::9: 1/77, not 0/0",
            "udp [2001:db8::1]:12345 > [2620:fe::9]:53: 1/77, not 0/0",
        ],
    },
    Exception {
        file: "tcpdump/LINKTYPE_IPV6_invalid.pcap",
        why: OTHER_VERSION,
        on: &[
            "192.168.1.100 > 9.9.9.9: 1/57, not 0/0",
            "udp 192.168.1.100:12345 > 9.9.9.9:53: 1/57, not 0/0",
        ],
    },
    Exception {
        file: "tcpdump/bigtcp-ipv6-geneve-ipv4.pcap",
        why: BIG_TCP,
        on: &[
            "udp [2604:1380:4091:ce00::b]:55411 > [2604:1380:4091:ce00::d]:6081: 1/80122, not 0/0",
        ],
    },
    Exception {
        file: "tcpdump/bigtcp-ipv6-geneve-ipv6.pcap",
        why: BIG_TCP,
        on: &[
            "udp [2604:1380:4091:ce00::d]:23733 > [2604:1380:4091:ce00::b]:6081: 1/80142, not 0/0",
        ],
    },
    Exception {
        file: "tcpdump/bigtcp-ipv6-vxlan-ipv4.pcap",
        why: BIG_TCP,
        on: &[
            "udp [2604:1380:4091:ce00::d]:52238 > [2604:1380:4091:ce00::b]:4789: 1/80122, not 0/0",
        ],
    },
    Exception {
        file: "tcpdump/bigtcp-ipv6-vxlan-ipv6.pcap",
        why: BIG_TCP,
        on: &[
            "udp [2604:1380:4091:ce00::d]:37059 > [2604:1380:4091:ce00::b]:4789: 1/80142, not 0/0",
        ],
    },
    Exception {
        file: "tcpdump/bigtcp-ipv6.pcap",
        why: BIG_TCP,
        on: &[
            "tcp [2604:1380:4091:ce00::b]:43267 > [2604:1380:4091:ce00::d]:41219: 1/80040, not 0/0",
        ],
    },
];

/// What came of a capture.
#[derive(Default)]
struct Compared {
    packets: u64,
    left_out: BTreeMap<LeftOut, u64>,
    /// Whether the tables were compared too.
    tables: bool,
    faults: Vec<String>,
}

fn compare(path: &Path) -> Compared {
    let capture = Capture::read(path);
    let reading = capture.reading();
    let outcome = replay(path, &["--no-resegment"]);
    let ours = Totals::of_lines(&outcome.lines());
    let mut faults = Vec::new();

    let books = outcome.reconciliation();
    // tshark opens no file of a link type that it does not know.
    if books.seen != reading.frames && reading.frames > 0 {
        faults.push(format!("the agent saw {} frames, tshark {}", books.seen, reading.frames));
    }
    if books.accounted != ours.packets() {
        faults.push(format!("{} packets in lines: {}", ours.packets(), outcome.stderr));
    }
    for reason in &REASONS {
        let left_out = reading.left_out.get(&reason.left_out).copied().unwrap_or(0);
        let counted = counted(&outcome, reason.counter);
        if left_out > counted {
            faults.push(format!("{left_out} packets, but {:?} is {counted}", reason.counter));
        }
    }
    let differences = ours.differences(&reading.totals);
    let exception = EXCEPTIONS.iter().find(|exception| path.ends_with(exception.file));
    let (why, expected) = exception.map_or(("", &[][..]), |found| (found.why, found.on));
    if differences != expected {
        let found = &differences[..differences.len().min(20)];
        let all = differences.len();
        faults.push(format!(
            "{all} differences: {found:#?}, not {expected:#?} {why}\n{}",
            outcome.stderr
        ));
    }
    let tables = reading.left_out.is_empty() && capture.is_plain();
    if tables {
        let mut ways: BTreeMap<String, u64> = BTreeMap::new();
        for (way, sum) in reading.totals.ways() {
            let way = way.to_string();
            let way = way.split(" in VLAN").next().expect("a first part").to_owned();
            *ways.entry(way).or_default() += sum.packets;
        }
        let told = capture.conversations();
        if ways != told {
            faults.push(format!("tshark's fields say {ways:#?}, its tables {told:#?}"));
        }
    }
    Compared { packets: reading.totals.packets(), left_out: reading.left_out, tables, faults }
}

/// Whether the reasons' examples are found in a capture.
fn examples(name: &Path, compared: &Compared) -> Vec<String> {
    let of_this = REASONS.iter().filter(|reason| name.ends_with(reason.example.0));
    let found = |reason: &Reason| compared.left_out.get(&reason.left_out).copied();
    of_this
        .filter(|reason| found(reason) != Some(reason.example.1))
        .map(|reason| {
            format!("{:?} packets, not {}: {}", found(reason), reason.example.1, reason.why)
        })
        .collect()
}

/// How many packets are in some of the agent's counters.
fn counted(outcome: &Outcome, names: &[&str]) -> u64 {
    let malformed = outcome.malformed_reasons();
    let not_ip = ("not_ip".to_owned(), outcome.reconciliation().not_ip);
    let all = malformed.into_iter().chain([not_ip]);
    all.filter(|(name, _)| names.contains(&name.as_str())).map(|(_, count)| count).sum()
}

/// Compares files, two at a time.
fn compare_all(paths: &[PathBuf]) -> Vec<Compared> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = paths.get(index) else { break };
                    let compared = compare(path);
                    done.lock().expect("no panic").insert(index, compared);
                }
            });
        }
    });
    done.into_inner().expect("no panic").into_values().collect()
}

#[test]
fn a_generated_capture_has_tsharks_totals() {
    if !is_there("a_generated_capture_has_tsharks_totals") {
        return;
    }
    let file = Temporary::new("tshark", &pcap::file_of(&timed_frames(7, 12_000)));
    let compared = compare(file.path());
    println!("{} packets, left out {:?}", compared.packets, compared.left_out);
    let faults = [compared.faults.clone(), examples(Path::new(GENERATED), &compared)].concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(compared.packets > 15_000, "only {} packets", compared.packets);
}

#[test]
fn real_captures_have_tsharks_totals() {
    if !is_there("real_captures_have_tsharks_totals") {
        return;
    }
    let paths = pcap::files();
    let compared = compare_all(&paths);
    let mut faults = Vec::new();
    for (path, compared) in paths.iter().zip(&compared) {
        let own = compared.faults.clone().into_iter().chain(examples(path, compared));
        faults.extend(own.map(|fault| format!("{}: {fault}", path.display())));
    }
    let packets: u64 = compared.iter().map(|compared| compared.packets).sum();
    let tables = compared.iter().filter(|compared| compared.tables).count();
    println!("{} files, {tables} also by tables, {packets} packets", paths.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
