//! What processes send and receive: calls on TCP and UDP sockets, as flows of their own.
//!
//! Programs at the begin of the kernel's functions note whose call it is, those at the end how many bytes it came to. By
//! trampolines (fentry, fexit) or by break points (kprobe, kretprobe), which differ in nothing but how they are entered.

mod ends;
mod notes;
mod programs;
mod table;

use agent_common::{
    counters::Counters,
    filter::selects,
    flow::NO_WINDOW,
    key::{LOCAL_A, LOCAL_B, proto},
    owner::USED,
    parse::Measures,
    segments::Segments,
};
use aya_ebpf::{
    btf_maps::PerCpuArray, helpers::generated::bpf_get_smp_processor_id, macros::btf_map,
};

pub(crate) use self::table::Sockets;
use self::{ends::Far, notes::Note};
use crate::{
    account::{self, Fate},
    config::{self, Filter},
    owner, packet,
    passage::Passage,
};

/// The kernel's functions that are hooked.
mod function {
    pub(super) const TCP_SENDMSG: u32 = 0;
    pub(super) const TCP_SENDPAGE: u32 = 1;
    pub(super) const UDP_SENDMSG: u32 = 2;
    pub(super) const UDPV6_SENDMSG: u32 = 3;
    /// From here on they receive.
    pub(super) const TCP_RECVMSG: u32 = 4;
    pub(super) const TCP_SPLICE_READ: u32 = 5;
    pub(super) const SKB_CONSUME_UDP: u32 = 6;
    /// A call that takes nothing: it only looks.
    pub(super) const NONE: u32 = 7;
}

/// The number of the program at the end of every function, by break points: there no two run at once on one processor.
const RETURNED: u32 = function::NONE;
/// Added to a function's number: that of the program at its begin.
const ENTERED: u32 = 8;
/// Programs, and those of them that let flows take calls in.
const PROGRAMS: usize = 16;
const ENDS: usize = 8;

/// Room for a call on its way to its flow. Of each program its own: one may interrupt another, and the kernel lets no
/// program interrupt itself.
#[repr(C)]
struct Room {
    passage: Passage,
    note: Note,
    bytes: u32,
}

#[btf_map]
static ROOMS: PerCpuArray<Room, ENDS> = PerCpuArray::new();

/// What the programs count, each for itself: an interrupted addition would be lost.
#[btf_map]
static CALLS: PerCpuArray<Counters, PROGRAMS> = PerCpuArray::new();

/// This program's counters, on this CPU.
#[inline(always)]
fn counters(program: u32) -> Option<&'static mut Counters> {
    let counters = CALLS.get_ptr_mut(program)?;
    // SAFETY: this program's alone, and it does not interrupt itself.
    Some(unsafe { &mut *counters })
}

/// A call has returned this. What failed, or came to nothing on a stream, has sent and received nothing.
#[inline(always)]
fn ended(program: u32, note: &Note, returned: i32) {
    let function = note.function;
    let is_stream = !is_datagram(function);
    if returned < 0 || (is_stream && returned == 0) || function >= function::NONE {
        return;
    }
    let (Some(room), Some(counters)) = (ROOMS.get_ptr_mut(program), counters(program)) else {
        return;
    };
    // SAFETY: as the counters.
    let room = unsafe { &mut *room };
    room.note = *note;
    room.bytes = returned as u32;
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    room.passage.token = cpu * ENDS as u32 + program + 1;
    take(room, counters);
}

#[inline(always)]
fn is_datagram(function: u32) -> bool {
    matches!(function, function::UDP_SENDMSG | function::UDPV6_SENDMSG | function::SKB_CONSUME_UDP)
}

/// What a flow measures of a call: its bytes, without headers of TCP and IP.
#[inline(always)]
fn measures(bytes: u32) -> Measures {
    let segments = Segments { count: 1, len: bytes, last_len: bytes, headers: 0, kept: 0 };
    Measures { segments, tcp_window: NO_WINDOW, tcp_flags: 0, ttl: 0 }
}

/// Counts a call, and lets its flow take it in.
///
/// VERIFIER: one copy for all programs. What it is given lies in a map, so that its paths are few.
#[inline(never)]
fn take(room: &mut Room, counters: &mut Counters) {
    let Room { passage, note, bytes } = room;
    let bytes = *bytes;
    counters.seen += 1;
    let sent = note.function < function::TCP_RECVMSG;
    let protocol = if is_datagram(note.function) { proto::UDP } else { proto::TCP };
    let Some(ends) = ends::of(note) else {
        counters.not_ip += 1;
        return;
    };
    passage.admit(ends.headers(protocol, sent), measures(bytes));
    let passage = core::hint::black_box(passage);
    passage.address();
    // Of two ends, one is the sender, and one is the socket's.
    let local_is_b = (passage.arrival.from_b != 0) == sent;
    passage.template.key.local = if local_is_b { LOCAL_B } else { LOCAL_A };
    // Who begins is who sends first: there are no SYNs to tell.
    passage.arrival.is_tcp = false;
    let fate = if selects(&Filter, config::sample(), &passage.headers, passage.key()) {
        let passage = core::hint::black_box(passage);
        account::flow::<Sockets>(passage, counters, packet::now_us, |passage, _| {
            owner::current(USED).write_to(&mut passage.owner);
        })
    } else {
        Fate::Filtered
    };
    let bytes = u64::from(bytes);
    match fate {
        Fate::Accounted => {
            counters.accounted += 1;
            counters.accounted_bytes += bytes;
        }
        Fate::Filtered => counters.filtered += 1,
        Fate::TableFull => {
            counters.table_full += 1;
            counters.table_full_bytes += bytes;
        }
        Fate::Contended => {
            counters.contended += 1;
            counters.contended_bytes += bytes;
        }
    }
}

impl Note {
    /// Of a call whose other end is the socket's peer.
    #[inline(always)]
    fn new(function: u32, socket: u64) -> Self {
        Self { socket, far: Far::THE_PEER, function, padding: 0 }
    }
}
