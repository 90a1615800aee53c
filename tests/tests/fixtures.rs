//! The oracle gives the answers that the fixture table has written beside each frame.

use std::collections::HashSet;

use feature_agent_tests::{
    fixtures::{Expect, all, flow_name},
    host::{parsed, written},
    oracle::{Oracle, Verdict},
};

#[test]
fn the_oracle_gives_the_answers_of_the_table() {
    for fixture in all() {
        let mut oracle = Oracle::default();
        for (at, (frame, expect)) in fixture.frames.iter().enumerate() {
            let before: Vec<usize> = oracle.flows().iter().map(|f| f.packets.len()).collect();
            match (oracle.push(frame), expect) {
                (Verdict::NotIp, Expect::NotIp) => {}
                (Verdict::Malformed(reason), Expect::Malformed(name)) => {
                    assert_eq!(reason.name(), *name, "{} frame {at}", fixture.name);
                }
                (
                    Verdict::Accounted { flow, .. },
                    Expect::Account { flow: name, packets, bytes, payload },
                ) => {
                    let known = before.get(flow).copied().unwrap_or(0);
                    let flow = &oracle.flows()[flow];
                    let new = &flow.packets[known..];
                    let sum = |of: fn(&feature_agent_tests::oracle::WirePacket) -> u32| {
                        new.iter().map(|packet| u64::from(of(packet))).sum::<u64>()
                    };
                    let counted = (new.len() as u64, sum(|p| p.len), sum(|p| p.payload));
                    assert_eq!(flow_name(&flow.id), *name, "{} frame {at}", fixture.name);
                    assert_eq!(
                        counted,
                        (*packets, *bytes, *payload),
                        "{} frame {at}",
                        fixture.name
                    );
                }
                (verdict, expect) => {
                    panic!("{} frame {at}: {verdict:?}, expected {expect:?}", fixture.name);
                }
            }
        }
    }
}

#[test]
fn the_parser_on_the_host_counts_as_the_table_does() {
    for fixture in all() {
        for (at, (frame, expect)) in fixture.frames.iter().enumerate() {
            // Whose tags are within: a slice has none beside it.
            if frame.vlan_tci.is_some() {
                continue;
            }
            let found = parsed(frame, false);
            // Who began a flow, and the ports of a later fragment, are not told by one packet.
            let sums = |fate: Result<(String, [u64; 3]), _>| fate.map(|(_, sums)| sums);
            assert_eq!(sums(found), sums(written(expect)), "{} frame {at}", fixture.name);
        }
    }
}

#[test]
fn the_table_covers_every_reason_and_names_no_well_formed_fixture_twice() {
    let all = all();
    let mut names = HashSet::new();
    let mut reasons = HashSet::new();
    for fixture in &all {
        for (_, expect) in &fixture.frames {
            match expect {
                Expect::Malformed(reason) => drop(reasons.insert(*reason)),
                _ => assert!(names.insert((fixture.name, expect)) || fixture.frames.len() > 1),
            }
        }
    }
    assert_eq!(reasons.len(), 9, "{reasons:?}");
}
