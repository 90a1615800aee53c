//! The filter's compiler: any text is a filter that runs, or refused in a sentence.

use std::cell::OnceCell;

use agent_common::{
    filter::{Facts, MAX_INSTRUCTIONS},
    parse::{Link, parse},
};
use feature_agent::filter::compile;

use crate::generate::mixed_frames;

thread_local! {
    /// Packets to try filters on.
    static PACKETS: OnceCell<Vec<Facts>> = const { OnceCell::new() };
}

/// A filter runs, and its negation says the opposite.
pub(super) fn body(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let program = match compile(&text) {
        Ok(program) => program,
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains(' '), "{said} is no sentence");
            let after = text.chars().count() + 1;
            assert!(error.column().is_none_or(|column| (1..=after).contains(&column)), "{said}");
            return;
        }
    };
    assert!(program.instructions().len() <= MAX_INSTRUCTIONS);
    // The negation of an empty filter is none, and one that just fits has no room for it.
    let Ok(negation) = compile(&format!("not ({text})")) else { return };
    PACKETS.with(|packets| {
        for facts in packets.get_or_init(packets_to_try) {
            assert_ne!(program.matches(facts), negation.matches(facts), "{text}: {facts:?}");
        }
    });
}

fn packets_to_try() -> Vec<Facts> {
    let frames = mixed_frames(5, 400);
    let headers = frames.iter().filter_map(|data| {
        let frame = agent_common::parse::Frame {
            link: Link::Ethernet,
            ifindex: 1,
            wire_len: data.len() as u32,
            gso_size: 0,
            vlan_tci: 0,
        };
        parse(&data[..], &frame, false).ok()
    });
    headers.map(|(headers, _)| Facts::of(&headers)).collect()
}

/// The language's words in their places, and what comes near.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "",
        " ",
        "tcp port 443 and net 10.0.0.0/8",
        "src host 10.0.0.1 or dst host fd00::1",
        "src or dst net 192.0.2.0 mask 255.255.255.0",
        "src and dst net 192.168",
        "udp portrange 1000-2000 or 53",
        "not (icmp or icmp6) and ip6 proto 58",
        "proto gre || ip proto \\tcp && ! vlan 7",
        "vlan and (tcp or udp) and port (80 or 443)",
        "ip6 net 2001:db8::/32 and sctp dst port 65535",
        "igmp or igrp or pim or vrrp or carp or ah or esp",
        "port http",
        "ether host 02:00:00:00:00:01",
        "tcp[13] & 2 != 0",
        "((((((((((tcp))))))))))",
        "len <= 100",
    ];
    let deep = ["(".repeat(5000), "not ".repeat(5000), "tcp or ".repeat(2000) + "tcp"];
    let texts = texts.into_iter().map(str::to_owned).chain(deep);
    texts.map(String::into_bytes).collect()
}
