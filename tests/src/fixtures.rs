//! Named packets with the answer written beside them by hand.
//!
//! The table is for every observer: the oracle must give these answers, and so must the kernel program
//! through `BPF_PROG_TEST_RUN`. Well-formed frames are built by etherparse, odd ones by [`crate::craft`].

mod offload;

use etherparse::{PacketBuilder, VlanId};

use crate::{
    craft::{self, C_TAG, IPV4, IPV6, S_TAG, Tcp, V4},
    frame::Frame,
    generate::malformed_packets,
    oracle::parse::flag::{ACK, CWR, FIN, PSH, SYN},
};

/// What must become of one frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Counted in a flow.
    Account {
        /// Protocol, initiator, other end, and VLAN ids if any, as [`flow_name`] writes them.
        flow: &'static str,
        /// Wire packets.
        packets: u64,
        /// Sum of their IP lengths.
        bytes: u64,
        /// Sum of their payloads.
        payload: u64,
    },
    /// Counted as not IP.
    NotIp,
    /// Counted as malformed for the reason of this name.
    Malformed(&'static str),
}

/// A sequence of frames for one fresh flow table.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// What it is about.
    pub name: &'static str,
    /// Frames in order, each with its own fate.
    pub frames: Vec<(Frame, Expect)>,
}

/// How the table names a flow, for example `6 10.0.0.1:1000 > 10.0.0.2:80 vlan 5`.
pub fn flow_name(id: &crate::oracle::FlowId) -> String {
    let end = |ip: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    };
    let mut name = format!("{} {} > {}", id.proto, end(id.src, id.sport), end(id.dst, id.dport));
    for vid in [id.vlan, id.vlan_inner].into_iter().flatten() {
        name = format!("{name} vlan {vid}");
    }
    name
}

const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const A6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// The flow most fixtures are about, by its TCP, UDP and IPv6 names.
const TCP_AB: &str = "6 10.0.0.1:1000 > 10.0.0.2:80";
const UDP_AB: &str = "17 10.0.0.1:1000 > 10.0.0.2:53";
const UDP6_AB: &str = "17 [fd00::1]:1000 > [fd00::2]:53";

fn account(flow: &'static str, packets: u64, bytes: u64, payload: u64) -> Expect {
    Expect::Account { flow, packets, bytes, payload }
}

fn fixture(name: &'static str, data: Vec<u8>, expect: Expect) -> Fixture {
    Fixture { name, frames: vec![(Frame::ethernet(0, data), expect)] }
}

/// All fixtures.
pub fn all() -> Vec<Fixture> {
    let mut all = plain();
    all.extend(tagged());
    all.extend(lengths());
    all.extend(extended());
    all.extend(offload::all());
    all.extend(sequences());
    all.push(icmp_errors());
    all.extend(
        malformed_packets()
            .into_iter()
            .map(|(reason, data)| fixture(reason, data, Expect::Malformed(reason))),
    );
    all
}

fn udp_ab(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2(MAC_A, MAC_B)
        .ipv4(A, B, 64)
        .udp(1000, 53)
        .write(&mut out, payload)
        .expect("write to memory");
    out
}

fn tcp_ab(flags: u8, payload: &[u8]) -> Vec<u8> {
    let tcp = Tcp { sport: 1000, dport: 80, flags, window: 512, options: 12 };
    let packet = V4::new(A.into(), B.into(), 6).packet(&tcp.segment(payload));
    craft::ethernet(&[], IPV4, &packet)
}

fn plain() -> Vec<Fixture> {
    let built = |build: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        build(&mut out);
        out
    };
    let eth = || PacketBuilder::ethernet2(MAC_A, MAC_B);
    let port_less = |proto| V4::new(A.into(), B.into(), proto).packet(&[7; 40]);
    vec![
        fixture(
            "tcp_syn_v4",
            built(&|out| {
                eth().ipv4(A, B, 64).tcp(1000, 80, 1, 512).syn().write(out, &[]).expect("memory");
            }),
            account(TCP_AB, 1, 40, 0),
        ),
        fixture(
            "tcp_syn_ack_names_its_receiver",
            built(&|out| {
                let builder = eth().ipv4(B, A, 64).tcp(80, 1000, 1, 512).syn().ack(2);
                builder.write(out, &[]).expect("memory");
            }),
            account(TCP_AB, 1, 40, 0),
        ),
        fixture(
            "tcp_data_v6",
            built(&|out| {
                let builder = eth().ipv6(A6, B6, 64).tcp(1000, 80, 1, 512).ack(2).psh();
                builder.write(out, &[1; 100]).expect("memory");
            }),
            account("6 [fd00::1]:1000 > [fd00::2]:80", 1, 160, 100),
        ),
        fixture("tcp_options", tcp_ab(ACK, &[1; 10]), account(TCP_AB, 1, 62, 10)),
        fixture("udp_v4", udp_ab(&[1; 20]), account(UDP_AB, 1, 48, 20)),
        fixture(
            "udp_v6",
            built(&|out| {
                eth().ipv6(A6, B6, 9).udp(1000, 53).write(out, &[1; 20]).expect("memory");
            }),
            account(UDP6_AB, 1, 68, 20),
        ),
        fixture(
            "icmp_echo_request",
            built(&|out| {
                let builder = eth().ipv4(A, B, 64).icmpv4_echo_request(1, 2);
                builder.write(out, &[1; 56]).expect("memory");
            }),
            account("1 10.0.0.1:8 > 10.0.0.2:0", 1, 84, 56),
        ),
        fixture(
            "icmpv6_echo_reply",
            built(&|out| {
                let builder = eth().ipv6(A6, B6, 64).icmpv6_echo_reply(1, 2);
                builder.write(out, &[1; 56]).expect("memory");
            }),
            account("58 [fd00::1]:129 > [fd00::2]:128", 1, 104, 56),
        ),
        fixture(
            "icmp_port_unreachable",
            craft::ethernet(
                &[],
                IPV4,
                &V4::new(A.into(), B.into(), 1).packet(&craft::icmp(3, 3, &[0; 28])),
            ),
            account("1 10.0.0.1:3 > 10.0.0.2:3", 1, 56, 28),
        ),
        fixture(
            "sctp",
            craft::ethernet(
                &[],
                IPV4,
                &V4::new(A.into(), B.into(), 132).packet(&craft::sctp(7, 9, &[0; 16])),
            ),
            account("132 10.0.0.1:7 > 10.0.0.2:9", 1, 48, 16),
        ),
        fixture(
            "gre",
            craft::ethernet(&[], IPV4, &port_less(47)),
            account("47 10.0.0.1 > 10.0.0.2", 1, 60, 40),
        ),
        fixture(
            "esp",
            craft::ethernet(&[], IPV4, &port_less(50)),
            account("50 10.0.0.1 > 10.0.0.2", 1, 60, 40),
        ),
        fixture("arp", craft::ethernet(&[], craft::ARP, &[0; 28]), Expect::NotIp),
        fixture("llc", craft::ethernet(&[], 3, &[0x42, 0x42, 3]), Expect::NotIp),
        fixture("mpls", craft::ethernet(&[], 0x8847, &[0; 40]), Expect::NotIp),
    ]
}

fn tagged() -> Vec<Fixture> {
    let mut single = Vec::new();
    PacketBuilder::ethernet2(MAC_A, MAC_B)
        .single_vlan(VlanId::try_new(5).expect("a VLAN id"))
        .ipv4(A, B, 64)
        .udp(1000, 53)
        .write(&mut single, &[1; 20])
        .expect("write to memory");
    let mut double = Vec::new();
    PacketBuilder::ethernet2(MAC_A, MAC_B)
        .double_vlan(VlanId::try_new(5).expect("a VLAN id"), VlanId::try_new(6).expect("one"))
        .ipv4(A, B, 64)
        .udp(1000, 53)
        .write(&mut double, &[1; 20])
        .expect("write to memory");
    let packet = V4::new(A.into(), B.into(), 17).packet(&craft::udp(1000, 53, &[1; 20]));
    let out_of_band = |name, data, tci, flow| Fixture {
        name,
        frames: vec![(Frame::ethernet(0, data).with_tci(tci), account(flow, 1, 48, 20))],
    };
    vec![
        fixture(
            "vlan_in_band",
            single.clone(),
            account("17 10.0.0.1:1000 > 10.0.0.2:53 vlan 5", 1, 48, 20),
        ),
        fixture(
            "qinq_in_band",
            double,
            account("17 10.0.0.1:1000 > 10.0.0.2:53 vlan 5 vlan 6", 1, 48, 20),
        ),
        fixture(
            "priority_tag_is_no_vlan",
            craft::ethernet(&[(C_TAG, 0xe000)], IPV4, &packet),
            account(UDP_AB, 1, 48, 20),
        ),
        fixture("arp_in_vlan", craft::ethernet(&[(C_TAG, 5)], craft::ARP, &[0; 28]), Expect::NotIp),
        out_of_band(
            "vlan_out_of_band",
            udp_ab(&[1; 20]),
            0x6005,
            "17 10.0.0.1:1000 > 10.0.0.2:53 vlan 5",
        ),
        out_of_band(
            "qinq_outer_out_of_band",
            single,
            0x0007,
            "17 10.0.0.1:1000 > 10.0.0.2:53 vlan 7 vlan 5",
        ),
        Fixture {
            name: "third_tag_with_one_out_of_band",
            frames: vec![(
                Frame::ethernet(0, craft::ethernet(&[(S_TAG, 1), (C_TAG, 2)], IPV4, &packet))
                    .with_tci(3),
                Expect::Malformed("vlan_depth"),
            )],
        },
    ]
}

fn lengths() -> Vec<Fixture> {
    let mut padded = udp_ab(&[]);
    padded.resize(60, 0);
    let zero_udp =
        V4::new(A.into(), B.into(), 17).packet(&craft::udp_claiming(1000, 53, 0, &[1; 8]));
    let zero_ip = V4 { claim: Some(0), ..V4::new(A.into(), B.into(), 17) }
        .packet(&craft::udp(1000, 53, &[1; 8]));
    let flags = ACK | FIN | PSH | CWR;
    let super_packet = |name, payload: usize, gso_size, packets, bytes| Fixture {
        name,
        frames: vec![(
            Frame::ethernet(0, tcp_ab(flags, &vec![1; payload])).with_gso(gso_size),
            account(TCP_AB, packets, bytes, payload as u64),
        )],
    };
    vec![
        fixture("ethernet_padding", padded, account(UDP_AB, 1, 28, 0)),
        fixture(
            "udp_length_zero",
            craft::ethernet(&[], IPV4, &zero_udp),
            account(UDP_AB, 1, 36, 8),
        ),
        fixture(
            "ipv4_length_zero",
            craft::ethernet(&[], IPV4, &zero_ip),
            account(UDP_AB, 1, 36, 8),
        ),
        fixture(
            "ipv4_options",
            craft::ethernet(
                &[],
                IPV4,
                &V4 { options: vec![1; 40], ..V4::new(A.into(), B.into(), 17) }
                    .packet(&craft::udp(1000, 53, &[1; 8])),
            ),
            account(UDP_AB, 1, 76, 8),
        ),
        super_packet("super_packet_of_one", 100, 100, 1, 152),
        super_packet("super_packet_of_ten", 1000, 100, 10, 1520),
        super_packet("super_packet_with_a_short_tail", 1001, 100, 11, 1001 + 11 * 52),
        super_packet("super_packet_of_sixty_four", 640, 10, 64, 640 + 64 * 52),
        super_packet("super_packet_longer_than_the_window", 650, 10, 65, 650 + 65 * 52),
        super_packet("super_packet_by_fragments", 1000, 0xffff, 1, 1052),
    ]
}

fn extended() -> Vec<Fixture> {
    let (a, b) = (A6.into(), B6.into());
    let datagram = craft::udp(1000, 53, &[1; 8]);
    let v6 = |next, body: &[u8]| craft::ethernet(&[], IPV6, &craft::ipv6(a, b, next, 64, body));
    let mut chain = (datagram.clone(), 17);
    for _ in 0..8 {
        chain = (craft::extension(chain.1, 0, &chain.0), 60);
    }
    let jumbo = {
        let mut packet = craft::ipv6(a, b, 0, 64, &craft::extension(17, 0, &datagram));
        packet[4..6].copy_from_slice(&[0, 0]);
        craft::ethernet(&[], IPV6, &packet)
    };
    vec![
        fixture(
            "ipv6_hop_by_hop",
            v6(0, &craft::extension(17, 1, &datagram)),
            account(UDP6_AB, 1, 72, 8),
        ),
        fixture(
            "ipv6_authentication",
            v6(51, &craft::authentication(17, 4, &datagram)),
            account(UDP6_AB, 1, 80, 8),
        ),
        fixture(
            "ipv6_atomic_fragment",
            v6(44, &craft::fragment(17, 0, false, 1, &datagram)),
            account(UDP6_AB, 1, 64, 8),
        ),
        fixture("ipv6_eight_extensions", v6(chain.1, &chain.0), account(UDP6_AB, 1, 120, 8)),
        fixture("ipv6_no_next_header", v6(59, &[]), account("59 fd00::1 > fd00::2", 1, 40, 0)),
        fixture(
            "ipv6_esp_behind_an_extension",
            v6(60, &craft::extension(50, 0, &[9; 30])),
            account("50 fd00::1 > fd00::2", 1, 78, 30),
        ),
        fixture("ipv6_jumbo_takes_the_frame", jumbo, account(UDP6_AB, 1, 64, 8)),
        Fixture {
            name: "no_link_header",
            frames: vec![(
                Frame::ethernet(0, udp_ab(&[1; 20])).without_link(),
                account(UDP_AB, 1, 48, 20),
            )],
        },
    ]
}

fn sequences() -> Vec<Fixture> {
    let second = 1_000_000_000;
    let datagram = craft::udp(1000, 53, &[1; 24]);
    let part = |id, offset, more, bytes: &[u8]| {
        let packet = V4 { id, offset, more, ..V4::new(A.into(), B.into(), 17) }.packet(bytes);
        Frame::ethernet(0, craft::ethernet(&[], IPV4, &packet))
    };
    let orphan = "17 10.0.0.1:0 > 10.0.0.2:0";
    let later = |proto| {
        let packet = V4 { id: 9, offset: 3, ..V4::new(A.into(), B.into(), proto) };
        Frame::ethernet(0, craft::ethernet(&[], IPV4, &packet.packet(&[0; 24])))
    };
    let part6 = |next, offset, more, bytes: &[u8]| {
        let body = craft::fragment(next, offset, more, 77, bytes);
        let packet = craft::ipv6(A6.into(), B6.into(), 44, 64, &body);
        Frame::ethernet(0, craft::ethernet(&[], IPV6, &packet))
    };
    let optioned = craft::extension(17, 0, &datagram);
    let back = {
        let tcp = Tcp { sport: 80, dport: 1000, flags: SYN | ACK, window: 99, options: 0 };
        let packet = V4::new(B.into(), A.into(), 6).packet(&tcp.segment(&[]));
        Frame::ethernet(0, craft::ethernet(&[], IPV4, &packet))
    };
    let forth = |time, flags| Frame::ethernet(time, tcp_ab(flags, &[]));
    vec![
        Fixture {
            name: "fragments_v4",
            frames: vec![
                (part(1, 0, true, &datagram[..16]), account(UDP_AB, 1, 36, 8)),
                (part(1, 2, true, &datagram[16..24]), account(UDP_AB, 1, 28, 8)),
                (part(1, 3, false, &datagram[24..]), account(UDP_AB, 1, 28, 8)),
                (part(2, 3, false, &datagram[24..]), account(orphan, 1, 28, 8)),
                (part(1, 3, false, &datagram[24..]).at(31 * second), account(orphan, 1, 28, 8)),
            ],
        },
        Fixture {
            // Port-less protocols have none to miss; TCP's window is in the first fragment only.
            name: "fragments_without_their_first",
            frames: vec![
                (later(6), account("6 10.0.0.1:0 > 10.0.0.2:0", 1, 44, 24)),
                (later(47), account("47 10.0.0.1 > 10.0.0.2", 1, 44, 24)),
                (later(132), account("132 10.0.0.1:0 > 10.0.0.2:0", 1, 44, 24)),
                (later(6), account("6 10.0.0.1:0 > 10.0.0.2:0", 1, 44, 24)),
                (part6(58, 3, false, &[0; 24]), account("58 [fd00::1]:0 > [fd00::2]:0", 1, 72, 24)),
                (part6(60, 3, false, &[0; 24]), account("60 fd00::1 > fd00::2", 1, 72, 24)),
            ],
        },
        Fixture {
            // Of a packet's fragments the first one's protocol counts (RFC 8200, 4.5), one without ports too.
            name: "fragments_v6_of_another_protocol_than_they_say",
            frames: vec![
                (part6(50, 0, true, &[0; 24]), account("50 fd00::1 > fd00::2", 1, 72, 24)),
                (part6(17, 3, false, &[0; 24]), account("50 fd00::1 > fd00::2", 1, 72, 24)),
            ],
        },
        Fixture {
            name: "fragments_v6",
            frames: vec![
                (part6(17, 0, true, &datagram[..16]), account(UDP6_AB, 1, 64, 8)),
                (part6(17, 2, false, &datagram[16..]), account(UDP6_AB, 1, 64, 16)),
            ],
        },
        Fixture {
            // Only the first fragment holds the options, and with them the protocol (RFC 8200, 4.5).
            name: "fragments_v6_with_options_inside",
            frames: vec![
                (part6(60, 0, true, &optioned[..24]), account(UDP6_AB, 1, 72, 8)),
                (part6(60, 3, false, &optioned[24..]), account(UDP6_AB, 1, 64, 16)),
            ],
        },
        Fixture {
            name: "both_directions_are_one_flow",
            frames: vec![
                (forth(0, SYN), account(TCP_AB, 1, 52, 0)),
                (back, account(TCP_AB, 1, 40, 0)),
                (forth(second, ACK), account(TCP_AB, 1, 52, 0)),
            ],
        },
        Fixture {
            name: "a_syn_after_the_idle_time_out",
            frames: vec![
                (forth(0, SYN), account(TCP_AB, 1, 52, 0)),
                (forth(15 * second, SYN), account(TCP_AB, 1, 52, 0)),
            ],
        },
    ]
}

fn icmp_errors() -> Fixture {
    let error = |back| {
        let (src, dst) = if back { (B, A) } else { (A, B) };
        let message = craft::icmp(3, 3, &udp_ab(&[1; 20])[14..]);
        let packet = V4::new(src.into(), dst.into(), 1).packet(&message);
        Frame::ethernet(0, craft::ethernet(&[], IPV4, &packet))
    };
    let udp6 = craft::ipv6(A6.into(), B6.into(), 17, 64, &craft::udp(1000, 53, &[1; 20]));
    let error6 = |about: &[u8]| {
        // Packet too big.
        let packet = craft::ipv6(B6.into(), A6.into(), 58, 64, &craft::icmp(2, 0, about));
        Frame::ethernet(0, craft::ethernet(&[], IPV6, &packet))
    };
    Fixture {
        // An error quotes the packet that it is about, and is neither of its flow nor of the other way's errors.
        name: "icmp_errors_are_flows_of_their_own",
        frames: vec![
            (Frame::ethernet(0, udp_ab(&[1; 20])), account(UDP_AB, 1, 48, 20)),
            (error(true), account("1 10.0.0.2:3 > 10.0.0.1:3", 1, 76, 48)),
            (error(true), account("1 10.0.0.2:3 > 10.0.0.1:3", 1, 76, 48)),
            (error(false), account("1 10.0.0.1:3 > 10.0.0.2:3", 1, 76, 48)),
            (error6(&udp6), account("58 [fd00::2]:2 > [fd00::1]:0", 1, 116, 68)),
            (Frame::ethernet(0, udp_ab(&[1; 20])), account(UDP_AB, 1, 48, 20)),
            (Frame::ethernet(0, craft::ethernet(&[], IPV6, &udp6)), account(UDP6_AB, 1, 68, 20)),
        ],
    }
}
