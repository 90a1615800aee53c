//! Programs against a stack of booleans and plain comparisons.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{
    key::{Address, Kind},
    parse::Fragment,
};

fn packet(ends: [Endpoint; 2], vlans: [u16; 2], proto: u8, version: u8) -> Headers {
    let [src, dst] = ends;
    Headers {
        src,
        dst,
        ifindex: 1,
        kind: Kind::new(vlans, proto, version),
        fragment: Fragment::Whole,
    }
}

fn headers() -> impl Strategy<Value = Headers> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(Address::v4),
        any::<[u8; 16]>().prop_map(Address::v6),
    ];
    let end = (address, any::<u16>()).prop_map(|(address, port)| Endpoint { address, port });
    let vlans = [0..4096_u16, 0..4096_u16];
    ([end.clone(), end], vlans, any::<u8>(), prop_oneof![Just(4), Just(6)])
        .prop_map(|(ends, vlans, proto, version)| packet(ends, vlans, proto, version))
}

/// Tests of which many pass: values near those of the facts.
fn tests(facts: Facts) -> impl Strategy<Value = Instruction> {
    let mask = prop_oneof![Just(u64::MAX), Just(0xffff), any::<u64>()];
    let span = prop_oneof![Just(0), 0..1_u64 << 16, Just(u64::MAX >> 1), 0..1_u64 << 63];
    (0..WORDS as u32, mask, span, -2..3_i64).prop_map(move |(word, mask, span, off)| {
        let value = facts.words[word as usize] & mask;
        Instruction::test(word, mask, value.wrapping_add_signed(off), span)
    })
}

fn instructions(facts: Facts) -> impl Strategy<Value = Vec<Instruction>> {
    let one = prop_oneof![
        4 => tests(facts),
        2 => Just(Instruction::AND),
        2 => Just(Instruction::OR),
        1 => Just(Instruction::NOT),
    ];
    prop::collection::vec(one, 0..70)
}

/// Makes instructions balanced: leaves out what finds no bits, and joins what is left at the end.
fn balanced(instructions: Vec<Instruction>) -> Vec<Instruction> {
    let mut kept = Vec::new();
    let mut depth = 0;
    for instruction in instructions {
        let (takes, gives) = instruction.effect().expect("made well");
        // What joins the bits at the end must have room.
        let most = MAX_INSTRUCTIONS as u32 - kept.len() as u32;
        if depth >= takes && depth - takes + gives < most {
            depth = depth - takes + gives;
            kept.push(instruction);
        }
    }
    kept.extend((1..depth).map(|_| Instruction::OR));
    kept
}

/// The same program on a stack of booleans; `None` if the stack runs out or bits are left.
fn naive(instructions: &[Instruction], facts: &Facts) -> Option<bool> {
    let mut stack: Vec<bool> = Vec::new();
    for instruction in instructions {
        let Instruction { mask, least, span, word, op } = *instruction;
        let bit = if op == Op::Test as u32 {
            (facts.words[word as usize] & mask).wrapping_sub(least) <= span
        } else if op == Op::Not as u32 {
            !stack.pop()?
        } else {
            let (b, a) = (stack.pop()?, stack.pop()?);
            if op == Op::And as u32 { a && b } else { a || b }
        };
        stack.push(bit);
    }
    match stack[..] {
        [] => Some(true),
        [bit] => Some(bit),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn programs_run_as_a_stack_of_booleans_does(
        (headers, instructions) in headers().prop_flat_map(|headers| {
            (Just(headers), instructions(Facts::of(&headers)).prop_map(balanced))
        })
    ) {
        let facts = Facts::of(&headers);
        let program = Program::new(&instructions);
        prop_assert!(program.is_ok(), "{program:?}");
        let program = program.unwrap_or_default();
        prop_assert_eq!(program.instructions(), &instructions[..]);
        prop_assert_eq!(Some(program.matches(&facts)), naive(&instructions, &facts));
    }

    #[test]
    fn what_is_not_balanced_or_too_long_is_no_program(
        (headers, instructions) in headers().prop_flat_map(|headers| {
            (Just(headers), instructions(Facts::of(&headers)))
        })
    ) {
        let good = instructions.len() <= MAX_INSTRUCTIONS
            && naive(&instructions, &Facts::of(&headers)).is_some();
        prop_assert_eq!(Program::new(&instructions).is_ok(), good);
    }

    #[test]
    fn facts_are_the_headers(headers in headers()) {
        let facts = Facts::of(&headers);
        let ends = [(headers.src, word::SRC, word::SRC_END), (headers.dst, word::DST, word::DST_END)];
        for (end, address, packed) in ends {
            let octets: [u8; 16] = bytemuck::cast(address.map(|word| facts.word(word)));
            prop_assert_eq!(octets, end.address.octets());
            let packed = facts.word(packed);
            prop_assert_eq!((packed >> end::PORT) as u16, end.port);
            let tail = ((packed >> end::ADDRESS) as u32).to_ne_bytes();
            prop_assert_eq!(&tail[..], &octets[12..]);
            prop_assert_eq!((packed >> end::PROTO) as u8, headers.proto());
            prop_assert_eq!((packed >> end::VERSION) as u8 & 0xf, headers.version());
            let has_port = matches!(headers.proto(), proto::TCP | proto::UDP | proto::SCTP);
            prop_assert_eq!(packed >> end::HAS_PORT, u64::from(has_port));
        }
        let vlan = facts.word(word::VLAN);
        prop_assert_eq!((vlan as u16, (vlan >> 16) as u16), (headers.kind.vlan(), headers.kind.vlan_inner()));
    }
}

#[test]
fn every_protocol_has_ports_or_has_not() {
    let end = Endpoint { address: Address::v4([0; 4]), port: 0 };
    let ported: Vec<u8> = (0..=u8::MAX)
        .filter(|&protocol| {
            let facts = Facts::of(&packet([end; 2], [0; 2], protocol, 4));
            facts.word(word::SRC_END) >> end::HAS_PORT & 1 != 0
        })
        .collect();
    assert_eq!(ported, [proto::TCP, proto::UDP, proto::SCTP]);
}

#[test]
fn a_program_without_instructions_lets_everything_pass() {
    assert_eq!(Program::new(&[]), Ok(Program::ALL));
    assert!(Program::ALL.is_empty());
    assert!(Program::ALL.matches(&Facts::zeroed()));
}

#[test]
fn codes_words_and_spans_are_checked() {
    let test = Instruction::test(0, 0, 0, 0);
    assert!(Program::new(&[test]).is_ok());
    for wrong in [
        Instruction { op: 4, ..test },
        Instruction { word: WORDS as u32, ..test },
        Instruction { span: 1 << 63, ..test },
    ] {
        assert_eq!(Program::new(&[wrong]), Err(IllFormed::Unknown), "{wrong:?}");
    }
    assert_eq!(Program::new(&[Instruction::NOT]), Err(IllFormed::Unbalanced));
    assert_eq!(Program::new(&[test, test]), Err(IllFormed::Unbalanced));
    assert_eq!(Program::new(&[test; MAX_INSTRUCTIONS + 1]), Err(IllFormed::TooLong));
}
