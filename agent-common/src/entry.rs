//! An entry of the flow table, as it lies in the kernel's map.
//!
//! A reader in user space that asks for the lock (`BPF_F_LOCK`) sees an entry between two packets, whole. One that
//! does not may see half of a packet.

use bytemuck::{Pod, Zeroable};

use crate::{flow::Flow, key::FlowKey, layout::laid_out};

/// Inserted, not begun.
pub const NEW: u64 = 0;
/// Holds a flow.
pub const ALIVE: u64 = 1;
/// About to be deleted.
pub const DEAD: u64 = 2;

/// What the states are called.
pub const STATES: [(u64, &str); 3] = [(NEW, "new"), (ALIVE, "alive"), (DEAD, "dead")];

laid_out! {
/// A key of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Place {
    /// [`FlowKey::digest`] of the flow's key, by secrets of the agent's: it tells entries apart, and no more.
    pub digest: u64,
}
}

laid_out! {
/// A value of the table. The kernel program's own definition has the kernel's type for the lock, which no other
/// map may hold, and is held against this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Entry {
    /// The kernel's spin lock; a reader gets 0.
    pub lock: u32,
    /// Zero.
    pub padding: u32,
    /// Whose flow it is.
    pub key: FlowKey,
    /// The flow.
    pub flow: Flow,
    /// What the entry is: only one that is alive holds a flow.
    ///
    /// Last of all: an insertion copies upwards over a dead entry, which so stays dead until the whole of
    /// it is written.
    pub state: u64,
}
}

const _: () = assert!(size_of::<Entry>() == 1040);
