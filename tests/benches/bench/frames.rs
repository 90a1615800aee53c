//! The packets that are measured.

use std::net::{Ipv4Addr, Ipv6Addr};

use feature_agent_tests::craft::{self, C_TAG, IPV4, IPV6, Tcp, V4};

const ACK: u8 = 0x10;
const SYN: u8 = 0x02;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The initiator.
    Client,
    /// The other end.
    Server,
}

/// A segment of the flow with this number.
pub(crate) fn tcp4(flow: u32, from: From, payload: usize) -> Vec<u8> {
    ipv4(flow, from, TCP, &segment(flow, from, ACK, payload))
}

/// The first segment of the flow with this number.
pub(crate) fn syn4(flow: u32) -> Vec<u8> {
    ipv4(flow, From::Client, TCP, &segment(flow, From::Client, SYN, 0))
}

/// A datagram of the flow with this number.
pub(crate) fn udp4(flow: u32, from: From, payload: usize) -> Vec<u8> {
    let (sport, dport) = ports(flow, from);
    ipv4(flow, from, UDP, &craft::udp(sport, dport, &vec![0; payload]))
}

/// A segment over IPv6.
pub(crate) fn tcp6(flow: u32, from: From, payload: usize) -> Vec<u8> {
    let [_, a, b, c] = flow.to_be_bytes().map(u16::from);
    let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, a, b, c);
    let server = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
    let (src, dst) = order(from, client, server);
    let segment = segment(flow, from, ACK, payload);
    craft::ethernet(&[], IPV6, &craft::ipv6(src, dst, TCP, 64, &segment))
}

/// The same frame with a VLAN tag in band.
pub(crate) fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(C_TAG.to_be_bytes());
    out.extend(vlan.to_be_bytes());
    out.extend(&frame[12..]);
    out
}

/// No IP.
pub(crate) fn arp() -> Vec<u8> {
    craft::ethernet(&[], craft::ARP, &[0; 46])
}

/// An IPv4 packet that claims to be longer than it is.
pub(crate) fn malformed() -> Vec<u8> {
    let header = V4 {
        claim: Some(1000),
        ..V4::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), UDP)
    };
    craft::ethernet(&[], IPV4, &header.packet(&craft::udp(1, 2, &[0; 26])))
}

fn ipv4(flow: u32, from: From, proto: u8, payload: &[u8]) -> Vec<u8> {
    // A client of its own for each flow.
    let [_, a, b, c] = flow.to_be_bytes();
    let (client, server) = (Ipv4Addr::new(10, a, b, c), Ipv4Addr::new(192, 0, 2, 1));
    let (src, dst) = order(from, client, server);
    craft::ethernet(&[], IPV4, &V4::new(src, dst, proto).packet(payload))
}

fn segment(flow: u32, from: From, flags: u8, payload: usize) -> Vec<u8> {
    let (sport, dport) = ports(flow, from);
    // Twelve bytes of options, as time stamps take.
    let header = Tcp { sport, dport, flags, window: 512, options: 12 };
    header.segment(&vec![0; payload])
}

fn ports(flow: u32, from: From) -> (u16, u16) {
    order(from, 32_768 + (flow % 28_000) as u16, 443)
}

fn order<T>(from: From, client: T, server: T) -> (T, T) {
    match from {
        From::Client => (client, server),
        From::Server => (server, client),
    }
}
