//! The entries. Each only names what it is; the verdict is always [`CONTINUE`].
//!
//! VERIFIER: inlined by order, for the macro wraps each in the function that the kernel sees, and LLVM leaves a
//! large one outside: see `account::packet`.

use agent_common::{
    barrier::settled,
    parse::{Link, Reject, parse_into},
};
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

use crate::{
    account::{self, Fate},
    config, counters, diagnose,
    packet::Packet,
    passage::Passage,
    sockets::Sockets,
    sweep,
    table::Packets,
};

/// "Go on with the next program": `TCX_NEXT`, and for clsact "no classification".
const CONTINUE: i32 = TC_ACT_UNSPEC;

/// A packet of an interface with Ethernet headers, either way.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
pub(crate) fn tc_ethernet(ctx: TcContext) -> i32 {
    observe::<ETHERNET>(&ctx);
    CONTINUE
}

/// A packet of an interface without link headers, either way.
#[classifier]
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
pub(crate) fn tc_ip(ctx: TcContext) -> i32 {
    observe::<IP>(&ctx);
    CONTINUE
}

/// The daemon's poll (by `BPF_PROG_TEST_RUN`, never attached).
#[classifier]
pub(crate) fn sweep_flows(_ctx: TcContext) -> i32 {
    sweep::run::<Packets>();
    CONTINUE
}

/// The same for the flows of calls on sockets.
#[classifier]
pub(crate) fn sweep_calls(_ctx: TcContext) -> i32 {
    sweep::run::<Sockets>();
    CONTINUE
}

/// Nothing: what running any program costs, which benchmarks subtract.
#[classifier]
pub(crate) fn empty(_ctx: TcContext) -> i32 {
    CONTINUE
}

const ETHERNET: bool = true;
const IP: bool = false;

/// Counts a packet, and takes it into its flow.
#[inline(always)]
fn observe<const LINK: bool>(ctx: &TcContext) {
    let link = if LINK { Link::Ethernet } else { Link::Ip };
    let (Some(counters), Some(passage)) = (counters::mine(), Passage::mine()) else {
        return;
    };
    let packet = Packet::new(ctx, &raw mut passage.lethe);
    let frame = packet.frame(link);
    let admit = |headers, measures, _| {
        passage.admit(headers, measures);
        // VERIFIER: where this stands LLVM does not make one copy of several.
        settled(passage);
    };
    if let Err(reject) = parse_into(&packet, &frame, config::decap(), admit) {
        counters.seen += 1;
        match reject {
            Reject::NotIp => counters.not_ip += 1,
            Reject::Malformed(reason) => {
                counters::malformed(counters, reason);
                diagnose::malformed::<LINK>(ctx, frame.ifindex, reason);
            }
        }
        return;
    }
    // VERIFIER: from here on the headers are read from memory. What LLVM kept of them in registers would make
    // each of the parser's paths a path of its own to the end.
    let passage = settled(passage);
    let count = passage.arrival.measures.segments.count;
    counters.seen += u64::from(count);
    if count > 1 {
        counters.super_packets += 1;
    }
    let fate = account::packet(passage, &packet, counters);
    // Read once more: it would only be kept on the stack.
    let segments = passage.arrival.measures.segments;
    let packets = u64::from(segments.count);
    match fate {
        Fate::Accounted => {
            counters.accounted += packets;
            counters.accounted_bytes += segments.bytes();
        }
        Fate::Filtered => counters.filtered += packets,
        Fate::TableFull => {
            counters.table_full += packets;
            counters.table_full_bytes += segments.bytes();
            diagnose::table_full::<LINK>(ctx, frame.ifindex);
        }
        // A lock of the kernel's is waited for.
        Fate::Contended => {}
    }
}
