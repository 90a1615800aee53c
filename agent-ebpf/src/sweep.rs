//! The walk over the table, run by the daemon's poll.

use agent_common::{
    entry::Entry,
    flow::SweepAction,
    key::FlowKey,
    sweep::{SweepReport, SweepRequest},
};
use aya_ebpf::{btf_maps::Array, helpers::generated::bpf_for_each_map_elem, macros::btf_map};

use crate::{
    counters,
    emit::{self, Action},
    packet,
    table::{self, Locked, Table},
};

/// The daemon writes the request, runs the sweep, and reads the report. One sweep runs at a time.
#[btf_map]
static SWEEP_REQUEST: Array<SweepRequest, 1> = Array::new();

/// See [`SWEEP_REQUEST`].
#[btf_map]
static SWEEP_REPORT: Array<SweepReport, 1> = Array::new();

/// Walks a table.
///
/// VERIFIER: a program for each: of two calls LLVM makes one, and before Linux 6.10 one that takes either map is refused.
#[inline(always)]
pub(crate) fn run<T: Table>() {
    let Some(request) = SWEEP_REQUEST.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the daemon writes it before a sweep only.
    let request = unsafe { &mut *request };
    if request.now_us == 0 {
        request.now_us = packet::now_us();
    }
    // SAFETY: the map and the callback match; the walk has no context.
    unsafe {
        bpf_for_each_map_elem(
            T::map(),
            visit::<T> as *mut core::ffi::c_void,
            core::ptr::null_mut(),
            0,
        )
    };
}

/// By which the sweep takes the locks of calls' flows: no program's number, see [`crate::sockets`].
const TOKEN: u32 = u32::MAX;

/// One entry of the walk; 0: go on.
unsafe extern "C" fn visit<T: Table>(
    _map: *mut core::ffi::c_void,
    _place: *const core::ffi::c_void,
    entry: *mut Entry,
    _context: *mut core::ffi::c_void,
) -> i64 {
    let (Some(request), Some(report)) = (SWEEP_REQUEST.get(0), SWEEP_REPORT.get_ptr_mut(0)) else {
        return 1;
    };
    let Some(counters) = counters::mine() else {
        return 1;
    };
    // SAFETY: one sweep runs at a time.
    let report = unsafe { &mut *report };
    // SAFETY: the kernel passes an entry; its key stays until it is deleted, which the sweep alone does.
    let key = unsafe { &(*entry).key };

    let Some(flow) = table::peek(entry) else {
        return 0;
    };
    let silent = request.now_us.saturating_sub(flow.summary.last_us);
    let action = flow.on_sweep(key.ifindex, request, &T::RULES);
    // VERIFIER: before Linux 6.2 the lock of a callback's entry is not recognised as taken; that of an entry
    // looked up is.
    let entry = match action {
        SweepAction::Keep => entry,
        _ => match T::find(T::place(key)) {
            Some(entry) => entry,
            None => return 0,
        },
    };
    let ends = match action {
        SweepAction::Keep => false,
        SweepAction::End(None) => end_quietly::<T>(entry, key, request),
        SweepAction::Emit(_) | SweepAction::End(Some(_)) => {
            let waiting = &mut report.waiting;
            emit::vector::<T>(entry, key, TOKEN, request.now_us, counters, waiting, |flow| {
                match flow.on_sweep(key.ifindex, request, &T::RULES) {
                    SweepAction::Keep => Action { emit: None, end: false },
                    SweepAction::Emit(reason) => Action { emit: Some(reason), end: false },
                    SweepAction::End(reason) => Action { emit: reason, end: true },
                }
            })
        }
    };
    if ends {
        T::remove(T::place(key));
        report.ended += 1;
    } else {
        report.flows += 1;
        report.ages[request.age_slot(silent) & 63] += 1;
    }
    0
}

/// Ends a flow that has nothing left to say; false if a packet came in between.
#[inline(always)]
fn end_quietly<T: Table>(entry: *mut Entry, key: &FlowKey, request: &SweepRequest) -> bool {
    let Some(mut locked) = Locked::<T>::new(entry, TOKEN) else {
        return false;
    };
    let ends = match locked.living(key) {
        Some(flow) => flow.on_sweep(key.ifindex, request, &T::RULES) == SweepAction::End(None),
        None => false,
    };
    if ends {
        locked.kill();
    }
    ends
}
