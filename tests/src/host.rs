//! What the parser says of a frame on the host, over the bytes alone.

use std::net::{IpAddr, SocketAddr};

use agent_common::{
    key::{Endpoint, Family},
    parse::{self, Headers, Reject, parse},
};

use crate::{fixtures::Expect, frame::Frame};

/// What became of a packet: its flow's name with packets, bytes and payload, or why it has none.
pub type Fate = Result<(String, [u64; 3]), &'static str>;

/// The fate that a table has written.
pub fn written(expect: &Expect) -> Fate {
    match expect {
        Expect::Account { flow, packets, bytes, payload } => {
            Ok(((*flow).to_owned(), [*packets, *bytes, *payload]))
        }
        Expect::NotIp => Err("not_ip"),
        Expect::Malformed(reason) => Err(reason),
    }
}

/// The fate that the parser finds.
pub fn parsed(frame: &Frame, decap: bool) -> Fate {
    assert!(frame.vlan_tci.is_none(), "not of the bytes alone");
    let about = parse::Frame {
        link: frame.link.into(),
        ifindex: 1,
        wire_len: u32::try_from(frame.wire_len).expect("a packet's length"),
        gso_size: frame.gso_size.into(),
        vlan_tci: 0,
    };
    match parse(&frame.data[..], &about, decap) {
        Ok((headers, measures)) => {
            let segments = &measures.segments;
            let sums = [segments.count.into(), segments.bytes(), segments.payload_bytes()];
            Ok((sender_first(&headers), sums))
        }
        Err(Reject::NotIp) => Err("not_ip"),
        Err(Reject::Malformed(reason)) => Err(reason.name()),
    }
}

/// As [`crate::fixtures::flow_name`] writes it.
fn sender_first(headers: &Headers) -> String {
    let family = if headers.version() == 4 { Family::V4 } else { Family::V6 };
    let end = |end: &Endpoint| {
        let ip: IpAddr = end.address.ip(family);
        if matches!(headers.proto(), 6 | 17) {
            SocketAddr::new(ip, end.port).to_string()
        } else {
            ip.to_string()
        }
    };
    let mut name = format!("{} {} > {}", headers.proto(), end(&headers.src), end(&headers.dst));
    for vid in [headers.kind.vlan(), headers.kind.vlan_inner()].into_iter().filter(|vid| *vid != 0)
    {
        name = format!("{name} vlan {vid}");
    }
    name
}
