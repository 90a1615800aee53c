//! Network interfaces: what is there, and whether its packets can be read.

use agent_common::parse::Link;
use anyhow::{Result, bail};

use crate::netlink::{LinkSocket, RawLink};

/// An interface that programs can be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace.
    pub index: u32,
    /// What its packets begin with.
    pub link: Link,
    /// Whether what it sends comes back as received.
    pub loopback: bool,
    /// Largest IP packet on its wire, in bytes.
    pub mtu: u32,
}

/// `ARPHRD_LOOPBACK`
const LOOPBACK: u16 = 772;

impl Interface {
    /// The interface of this name; the error names those that are there.
    pub fn find(name: &str) -> Result<Self> {
        let links = LinkSocket::new()?.list()?;
        match links.iter().find(|link| link.name == name) {
            Some(link) => Self::from_raw(link),
            None => bail!("{}", missing(name, &links)),
        }
    }

    /// The interface that a link message describes, if its packets can be read.
    pub(crate) fn from_raw(raw: &RawLink) -> Result<Self> {
        let RawLink { index, name, hardware, mtu } = raw;
        let Some(link) = link_type(*hardware) else {
            bail!(
                "interface `{name}` is {} (hardware type {hardware}), whose packets this agent does not \
                 read. Watch an interface that carries Ethernet or plain IP",
                described(*hardware)
            );
        };
        Ok(Self {
            name: name.clone(),
            index: *index,
            link,
            loopback: *hardware == LOOPBACK,
            mtu: *mtu,
        })
    }
}

fn missing(name: &str, links: &[RawLink]) -> String {
    let mut names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    names.sort_unstable();
    format!("no interface `{name}`; there are: {}", names.join(", "))
}

/// By `ARPHRD_…` of linux/if_arp.h.
fn link_type(hardware: u16) -> Option<Link> {
    match hardware {
        // ether; loopback
        1 | LOOPBACK => Some(Link::Ethernet),
        // ppp; rawip; tunnel, tunnel6; sit; ipgre, ip6gre; none (tun, WireGuard)
        512 | 519 | 768 | 769 | 776 | 778 | 823 | 65534 => Some(Link::Ip),
        _ => None,
    }
}

/// What an interface of an unsupported type is, in words.
fn described(hardware: u16) -> &'static str {
    match hardware {
        24 => "IEEE 1394",
        32 => "InfiniBand",
        280 => "a CAN bus",
        801..=803 => "a Wi-Fi monitor",
        804..=805 => "IEEE 802.15.4",
        824 => "a netlink monitor",
        825 => "6LoWPAN",
        826 => "a vsock monitor",
        _ => "of a kind unknown to it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(name: &str, hardware: u16) -> RawLink {
        RawLink { index: 3, name: name.into(), hardware, mtu: 1500 }
    }

    #[test]
    fn loopback_is_found() {
        let loopback = Interface::find("lo").expect("lo is everywhere");
        assert!(loopback.loopback);
        assert_eq!((loopback.index, loopback.link), (1, Link::Ethernet));
    }

    #[test]
    fn a_missing_interface_is_answered_by_those_there_are() {
        let links = [raw("lo", 772), raw("eth0", 1)];
        assert_eq!(missing("eht0", &links), "no interface `eht0`; there are: eth0, lo");
        let error = Interface::find("eht0").expect_err("no such interface").to_string();
        assert!(error.starts_with("no interface `eht0`; there are: "), "{error}");
    }

    #[test]
    fn link_types_by_hardware() {
        let ip = [512, 519, 768, 769, 776, 778, 823, 65534];
        assert!(ip.into_iter().all(|hardware| link_type(hardware) == Some(Link::Ip)));
        assert_eq!(link_type(1), Some(Link::Ethernet));
        let ethernet = Interface::from_raw(&raw("eth0", 1)).expect("supported");
        assert!(!ethernet.loopback);
    }

    #[test]
    fn an_unsupported_kind_is_named() {
        let error = Interface::from_raw(&raw("can0", 280)).expect_err("unsupported").to_string();
        assert!(error.starts_with("interface `can0` is a CAN bus (hardware type 280)"), "{error}");
    }
}
