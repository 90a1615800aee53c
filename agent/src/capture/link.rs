//! Link types of captures, by the numbers of <https://www.tcpdump.org/linktypes.html>.

use agent_common::parse::Link;

/// What the packets of this link type begin with, if they can be read.
pub(super) fn link(link_type: u32) -> Option<Link> {
    match link_type {
        1 => Some(Link::Ethernet),
        // RAW; 12 and 14 are what some systems call it in memory, and some writers in files; IPV4; IPV6
        12 | 14 | 101 | 228 | 229 => Some(Link::Ip),
        113 => Some(Link::CookedV1),
        276 => Some(Link::CookedV2),
        // NULL; LOOP, its word in network order
        0 | 108 => Some(Link::Null),
        _ => None,
    }
}

/// What a link type is called, for those that are met in practice and cannot be read.
pub fn link_type_name(link_type: u32) -> &'static str {
    match link_type {
        6 => "Token Ring",
        8 => "SLIP",
        9 | 50 => "PPP",
        10 => "FDDI",
        51 => "PPPoE",
        100 | 123 => "ATM",
        104 => "Cisco HDLC",
        105 | 119 | 127 | 163 => "IEEE 802.11",
        107 => "Frame Relay",
        117 => "OpenBSD pflog",
        138 => "IP over IEEE 1394",
        147..=162 => "of a private kind",
        186 | 189 | 220 | 249 => "USB",
        187 | 201 | 251 | 254..=256 => "Bluetooth",
        192 => "PPI",
        195 | 215 | 230 => "IEEE 802.15.4",
        197 => "Endace ERF",
        227 => "a CAN bus",
        239 => "Linux nflog",
        240 | 241 => "netANALYZER",
        247 => "InfiniBand",
        252 => "Wireshark's upper PDUs",
        253 => "Linux netlink",
        258 => "macOS pktap",
        271 => "Linux vsock",
        _ => "of an unknown kind",
    }
}
