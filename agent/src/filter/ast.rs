//! What an expression says.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// A filter expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Primitive(Primitive),
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
}

/// One question about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Primitive {
    /// The IP version.
    Version(Version),
    /// The protocol number, behind either version if none is given.
    Protocol(Option<Version>, u8),
    /// A host or a network.
    Net(Side, Net),
    /// Ports, of TCP, UDP and SCTP if no protocol is given.
    Ports(Side, Option<u8>, RangeInclusive<u16>),
    /// A VLAN tag, any if no id is given.
    Vlan(Option<u16>),
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4 = 4,
    V6 = 6,
}

/// Which end of a packet is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Src,
    Dst,
    Either,
    Both,
}

/// An address and which of its bits count; the others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Net {
    V4 { address: Ipv4Addr, mask: Ipv4Addr },
    V6 { address: Ipv6Addr, mask: Ipv6Addr },
}

impl Net {
    /// One address.
    pub(super) fn host(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4 { address, mask: Ipv4Addr::BROADCAST },
            IpAddr::V6(address) => Self::V6 { address, mask: Ipv6Addr::from_bits(u128::MAX) },
        }
    }

    pub(super) fn version(&self) -> Version {
        match self {
            Self::V4 { .. } => Version::V4,
            Self::V6 { .. } => Version::V6,
        }
    }
}
