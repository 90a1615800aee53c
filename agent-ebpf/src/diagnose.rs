//! Diagnostics for people, through the kernel's log ring; off unless asked for at load.
//!
//! VERIFIER: a copy for each program, which the compiler then takes into it: see [`crate::account::packet`].

use agent_common::parse::Malformed;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;

/// Says why a packet was malformed.
#[inline(always)]
pub(crate) fn malformed<const PROGRAM: bool>(ctx: &TcContext, ifindex: u32, reason: Malformed) {
    // One place that logs, and not one for each reason: such a place is 400 instructions.
    let name = &NAMES[reason as usize & 15];
    // SAFETY: ASCII.
    let name = unsafe { core::str::from_utf8_unchecked(name) };
    debug!(ctx, "malformed packet on interface {}: {}", ifindex, name);
}

/// The reasons' names, of one width: a table of pointers would need relocations inside read-only data.
static NAMES: [[u8; WIDTH]; 16] = {
    let mut names = [[b' '; WIDTH]; 16];
    let mut reason = 0;
    while reason < Malformed::ALL.len() {
        let name = Malformed::ALL[reason].name().as_bytes();
        let mut index = 0;
        while index < name.len() {
            names[reason][index] = name[index];
            index += 1;
        }
        reason += 1;
    }
    names
};

/// Room for the longest name.
const WIDTH: usize = 16;

/// Says that a packet found no place in the flow table.
#[inline(always)]
pub(crate) fn table_full<const PROGRAM: bool>(ctx: &TcContext, ifindex: u32) {
    debug!(ctx, "flow table full: a packet on interface {} has no place in it", ifindex);
}
