//! The entries: at the kernel's functions for TCP and UDP.
//!
//! Bytes are counted where they are certain: of a call that sends, what the function returns that it took; of one that
//! receives, what it returns that it gave. Not at `tcp_cleanup_rbuf`, which a call passes several times with what it has
//! come to so far.

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};

use super::{
    ENTERED, RETURNED, ended,
    ends::Far,
    function,
    notes::{self, Note},
};
use crate::kernel::{offset, read};

/// Flags of a call that receives: look, but do not take; give errors, not bytes (include/linux/socket.h).
const MSG_PEEK: u64 = 2;
const MSG_ERRQUEUE: u64 = 0x2000;

/// What the begin of each function leaves. `argument` gives the function's arguments.
#[inline(always)]
fn note_of(function: u32, argument: impl Fn(usize) -> u64) -> Note {
    match function {
        function::TCP_RECVMSG => {
            // VERIFIER: all read before one is chosen, see `Packet`.
            let arguments =
                core::hint::black_box([argument(0), argument(1), argument(3), argument(4)]);
            let flags =
                if offset!(socket.tcp_recvmsg_flags) == 3 { arguments[2] } else { arguments[3] };
            let takes = flags & (MSG_PEEK | MSG_ERRQUEUE) == 0;
            Note::new(if takes { function } else { function::NONE }, arguments[0])
        }
        function::TCP_SPLICE_READ => {
            Note::new(function, read(argument(0) + u64::from(offset!(socket.sk))))
        }
        function::UDP_SENDMSG | function::UDPV6_SENDMSG => {
            let far = Far::named(argument(1), function == function::UDP_SENDMSG);
            Note { far, ..Note::new(function, argument(0)) }
        }
        _ => Note::new(function, argument(0)),
    }
}

/// A datagram is taken from a socket's queue. A look at one passes here with a negative length.
#[inline(always)]
fn consumed(program: u32, argument: impl Fn(usize) -> u64) {
    let length = argument(2) as i32;
    if length >= 0 {
        let far = Far::sender(argument(1));
        let note = Note { far, ..Note::new(function::SKB_CONSUME_UDP, argument(0)) };
        ended(program, &note, length);
    }
}

/// Programs at the end of functions that take all from there.
macro_rules! ends {
    ($($name:ident: $function:ident;)+) => {
        $(
            #[doc = concat!(stringify!($function), " ends.")]
            #[fexit]
            pub(crate) fn $name(ctx: FExitContext) -> i32 {
                if let Ok(returned) = ctx.ret::<i32>() {
                    let note = note_of(function::$function, |nth| ctx.arg(nth));
                    ended(function::$function, &note, returned);
                }
                0
            }
        )+
    };
}

ends! {
    tcp_sendmsg_ends: TCP_SENDMSG;
    tcp_sendpage_ends: TCP_SENDPAGE;
    tcp_recvmsg_ends: TCP_RECVMSG;
    tcp_splice_read_ends: TCP_SPLICE_READ;
}

/// Programs at both, of functions that change what they are given.
macro_rules! pairs {
    ($($begins:ident, $ends:ident: $function:ident;)+) => {
        $(
            #[doc = concat!(stringify!($function), " begins.")]
            #[fentry]
            pub(crate) fn $begins(ctx: FEntryContext) -> i32 {
                notes::leave(&note_of(function::$function, |nth| ctx.arg(nth)));
                0
            }

            #[doc = concat!(stringify!($function), " ends.")]
            #[fexit]
            pub(crate) fn $ends(ctx: FExitContext) -> i32 {
                if let (Some(note), Ok(returned)) = (notes::take(), ctx.ret::<i32>()) {
                    ended(function::$function, &note, returned);
                }
                0
            }
        )+
    };
}

pairs! {
    udp_sendmsg_begins, udp_sendmsg_ends: UDP_SENDMSG;
    udpv6_sendmsg_begins, udpv6_sendmsg_ends: UDPV6_SENDMSG;
}

/// `skb_consume_udp` begins.
#[fentry]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
pub(crate) fn skb_consume_udp_begins(ctx: FEntryContext) -> i32 {
    consumed(function::SKB_CONSUME_UDP, |nth| ctx.arg(nth));
    0
}

/// The same by break points, whose ends know no arguments.
macro_rules! probes {
    ($($name:ident: $function:ident;)+) => {
        $(
            #[doc = concat!(stringify!($function), " begins.")]
            #[kprobe]
            pub(crate) fn $name(ctx: ProbeContext) -> u32 {
                notes::leave(&note_of(function::$function, |nth| ctx.arg(nth).unwrap_or(0)));
                0
            }
        )+
    };
}

probes! {
    tcp_sendmsg_probe: TCP_SENDMSG;
    tcp_sendpage_probe: TCP_SENDPAGE;
    tcp_recvmsg_probe: TCP_RECVMSG;
    tcp_splice_read_probe: TCP_SPLICE_READ;
    udp_sendmsg_probe: UDP_SENDMSG;
    udpv6_sendmsg_probe: UDPV6_SENDMSG;
}

/// Any of them ends.
#[kretprobe]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
pub(crate) fn call_returns(ctx: RetProbeContext) -> u32 {
    if let Some(note) = notes::take() {
        ended(RETURNED, &note, ctx.ret());
    }
    0
}

/// `skb_consume_udp` begins.
#[kprobe]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
pub(crate) fn skb_consume_udp_probe(ctx: ProbeContext) -> u32 {
    consumed(function::SKB_CONSUME_UDP, |nth| ctx.arg(nth).unwrap_or(0));
    0
}

const _: () = assert!(ENTERED > RETURNED);
