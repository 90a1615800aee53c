//! The interfaces here, and which of their offloads make super-packets.

use agent_common::parse::Link;
use anyhow::Result;

use crate::{
    interface::Interface,
    netlink::{
        LinkSocket, RawLink,
        ethtool::{Offloads, offloads},
    },
};

/// An interface, and what its packets are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offloading {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Largest IP packet on its wire, in bytes.
    pub mtu: u32,
    /// What its packets begin with; else why they are not read, in a sentence.
    pub link: Result<Link, String>,
    /// Whether what it sends comes back as received.
    pub(super) loopback: bool,
    /// What is on, if the kernel tells.
    pub(super) offloads: Option<Offloads>,
}

impl Offloading {
    /// Whether several packets that were received may be seen as one. On loopback it is the sender that joins.
    pub(super) fn joins(&self) -> bool {
        let joining = |on: &Offloads| on.gro || on.gro_hw || on.lro;
        self.link.is_ok() && !self.loopback && self.offloads.as_ref().is_some_and(joining)
    }
}

/// Every interface of this network namespace.
pub(super) fn all() -> Result<Vec<Offloading>> {
    let offloads = offloads().unwrap_or_default();
    let links = LinkSocket::new()?.list()?;
    let describe = |raw: &RawLink| {
        let RawLink { index, name, hardware: _, mtu } = raw;
        let known = Interface::from_raw(raw);
        Offloading {
            name: name.clone(),
            index: *index,
            mtu: *mtu,
            loopback: known.as_ref().is_ok_and(|known| known.loopback),
            link: known.map(|known| known.link).map_err(|error| format!("{error:#}")),
            offloads: offloads.get(index).copied(),
        }
    };
    Ok(links.iter().map(describe).collect())
}
