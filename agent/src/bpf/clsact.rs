//! The agent's filters on clsact qdiscs, which outlive a process that is killed.
//!
//! A filter's handle is its owner's number, and an owner lives as long as an abstract socket of that
//! number is bound in the interface's network namespace: the kernel unbinds it with the process, however
//! that ends, and no process id of another container can be mistaken for it.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use agent_common::parse::Link;
use anyhow::{Context as _, Result, bail};
use aya::programs::{TcAttachType, tc::SchedClassifierLink, tc::TcHandle};
use tracing::info;

use super::Program;
use crate::{interface::Interface, netlink::FilterSocket};

/// The sign that an owner of filters lives.
#[derive(Debug)]
pub(super) struct Owner {
    handle: u32,
    _socket: UnixDatagram,
}

/// Numbers to try before giving up: each is taken by another agent.
const ATTEMPTS: u32 = 1000;

impl Owner {
    /// A number of our own.
    pub(super) fn new() -> Result<Self> {
        let first = std::process::id();
        for attempt in 0..ATTEMPTS {
            // The kernel reads 0 as "any".
            let handle = (first.wrapping_add(attempt.wrapping_mul(0x9e37_79b1))).max(1);
            match claim(handle) {
                Ok(socket) => return Ok(Self { handle, _socket: socket }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Err(error).context("cannot bind a socket for the filters' owner");
                }
            }
        }
        bail!("no number is free for the filters' owner")
    }

    /// The handle of the owner's filters.
    pub(super) fn handle(&self) -> u32 {
        self.handle
    }
}

/// Removes the filters on an interface whose owner is gone. Others' filters stay.
pub(super) fn clean(interface: &Interface) -> Result<()> {
    let names = [Link::Ethernet, Link::Ip].map(|link| Program::Packet(link).name());
    for (side, parent) in [(TcAttachType::Ingress, INGRESS), (TcAttachType::Egress, EGRESS)] {
        for filter in FilterSocket::new()?.list(interface.index, parent)? {
            if !names.contains(&filter.name.as_str()) {
                continue;
            }
            // Bound here means that nobody else has it: the owner is gone. The socket is held until the
            // filter is gone too, so that no other agent takes the number in between.
            let Ok(_socket) = claim(filter.handle) else {
                continue;
            };
            let handle = TcHandle::from(filter.handle);
            let name = &interface.name;
            let link = SchedClassifierLink::attached(name, side, filter.priority, handle, None)
                .with_context(|| format!("cannot find `{name}`"))?;
            drop(link);
            info!(interface = name, ?side, "removed a filter that an agent before had left");
        }
    }
    Ok(())
}

/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`, include/uapi/linux/pkt_sched.h
const INGRESS: u32 = 0xffff_fff2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`
const EGRESS: u32 = 0xffff_fff3;

fn claim(handle: u32) -> io::Result<UnixDatagram> {
    let name = format!("feature-agent/clsact/{handle:08x}");
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}
