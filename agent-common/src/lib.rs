//! What a flow is, what its window holds, and what its features mean.
//!
//! One `no_std` core, compiled into the eBPF program, into the daemon and into the tests: the same packets
//! at the same times give the same integers everywhere. The kernel half of this crate is integer
//! arithmetic only; floats appear in [`features`], behind the feature `finish`, which only user space
//! turns on.
//!
//! The way of a packet: [`parse`] → [`key`] → [`flow::Flow::on_packet`] ([`window`] inside) →
//! [`record::Record`] → [`features`].
//!
//! Units, unless a name says otherwise: lengths in bytes, times in microseconds.

#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(test)]
extern crate std;

pub mod barrier;
pub mod config;
pub mod counters;
pub mod entry;
#[cfg(feature = "finish")]
pub mod features;
pub mod filter;
pub mod flow;
pub mod key;
pub mod layout;
pub mod offsets;
pub mod owner;
pub mod parse;
pub mod record;
pub mod segments;
pub mod sweep;
pub mod window;
