//! From an expression to instructions.
//!
//! The usual filters get short by two rules: what must hold of the same word of the facts is one test, and
//! what must hold beside alternatives moves into each of them if it costs nothing there.

use std::net::{IpAddr, Ipv4Addr};

use agent_common::{
    filter::{IllFormed, Instruction, MAX_INSTRUCTIONS, Program, end, word},
    key::{Address, proto},
};

use super::{
    FilterError,
    ast::{Expression, Net, Primitive, Side, Version},
};

/// The program of an expression.
pub(super) fn program(expression: &Expression) -> Result<Program, FilterError> {
    let mut instructions = Vec::new();
    match node(expression) {
        Node::Constant(true) => {}
        node => node.emit(&mut instructions),
    }
    finish(&instructions, "the filter")
}

/// See [`super::exclude`].
pub(super) fn exclude(
    program: &Program,
    address: IpAddr,
    port: u16,
) -> Result<Program, FilterError> {
    let end = |side| {
        let net = Primitive::Net(side, Net::host(address));
        let ports = Primitive::Ports(side, Some(proto::TCP), port..=port);
        all(vec![primitive(&net), primitive(&ports)])
    };
    let mut instructions = program.instructions().to_vec();
    not(any(vec![end(Side::Src), end(Side::Dst)])).emit(&mut instructions);
    if !program.instructions().is_empty() {
        instructions.push(Instruction::AND);
    }
    finish(&instructions, &format!("the filter, with {address} port {port} left out,"))
}

fn finish(instructions: &[Instruction], what: &str) -> Result<Program, FilterError> {
    Program::new(instructions).map_err(|error| {
        FilterError::whole(match error {
            IllFormed::TooLong => format!(
                "{what} takes {} instructions, and there is room for {MAX_INSTRUCTIONS}; write \
                 networks and port ranges in place of many hosts and ports, or filter on fewer",
                instructions.len()
            ),
            IllFormed::Unknown | IllFormed::Unbalanced => {
                format!("{what} was compiled wrongly ({error:?}); please report the expression")
            }
        })
    })
}

/// What an expression comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Constant(bool),
    Test(Test),
    Not(Box<Node>),
    /// Two or more, none of them an `All` or a constant.
    All(Vec<Node>),
    /// Two or more, none of them an `Any` or a constant.
    Any(Vec<Node>),
}

impl Node {
    fn emit(&self, into: &mut Vec<Instruction>) {
        match self {
            // No value is below 0 from 1.
            Self::Constant(false) => into.push(Instruction::test(0, 0, 1, 0)),
            Self::Constant(true) => into.push(Instruction::test(0, 0, 0, 0)),
            Self::Test(test) => into.push(test.instruction()),
            Self::Not(negated) => {
                negated.emit(into);
                into.push(Instruction::NOT);
            }
            Self::All(nodes) => emit_joined(nodes, Instruction::AND, into),
            Self::Any(nodes) => emit_joined(nodes, Instruction::OR, into),
        }
    }
}

fn emit_joined(nodes: &[Node], joint: Instruction, into: &mut Vec<Instruction>) {
    for (index, node) in nodes.iter().enumerate() {
        node.emit(into);
        if index > 0 {
            into.push(joint);
        }
    }
}

fn node(expression: &Expression) -> Node {
    match expression {
        Expression::Primitive(asked) => primitive(asked),
        Expression::Not(negated) => not(node(negated)),
        Expression::And(left, right) => all(vec![node(left), node(right)]),
        Expression::Or(left, right) => any(vec![node(left), node(right)]),
    }
}

fn not(node: Node) -> Node {
    match node {
        Node::Constant(value) => Node::Constant(!value),
        Node::Not(negated) => *negated,
        node => Node::Not(Box::new(node)),
    }
}

fn any(nodes: Vec<Node>) -> Node {
    let mut kept: Vec<Node> = Vec::new();
    for node in nodes {
        match node {
            Node::Constant(true) => return node,
            Node::Constant(false) => {}
            Node::Any(inner) => inner.into_iter().for_each(|node| keep(&mut kept, node)),
            node => keep(&mut kept, node),
        }
    }
    joined(kept, false, Node::Any)
}

fn all(nodes: Vec<Node>) -> Node {
    let mut kept: Vec<Node> = Vec::new();
    let mut tests: Vec<Test> = Vec::new();
    for node in nodes {
        let inner = if let Node::All(inner) = node { inner } else { vec![node] };
        for node in inner {
            match node {
                Node::Constant(false) => return node,
                Node::Constant(true) => {}
                Node::Test(test) => {
                    if conjoin(&mut tests, test).is_none() {
                        return Node::Constant(false);
                    }
                }
                node => keep(&mut kept, node),
            }
        }
    }
    // A test that fits into every alternative of a choice costs nothing there.
    tests.retain(|test| {
        for node in &mut kept {
            if let Some(narrower) = narrowed(node, test) {
                *node = narrower;
                return false;
            }
        }
        true
    });
    if kept.contains(&Node::Constant(false)) {
        return Node::Constant(false);
    }
    // A choice of which one alternative is left is a test itself.
    if kept.iter().any(|node| matches!(node, Node::Test(_))) {
        kept.extend(tests.into_iter().map(Node::Test));
        return all(kept);
    }
    let tests = tests.into_iter().map(Node::Test);
    joined(tests.chain(kept).collect(), true, Node::All)
}

/// Adds a test to those that must hold, in one of them if it fits; `None` if they contradict each other.
fn conjoin(tests: &mut Vec<Test>, test: Test) -> Option<()> {
    for known in tests.iter_mut() {
        match known.and(&test) {
            Conjunction::One(both) => {
                *known = both;
                return Some(());
            }
            Conjunction::Never => return None,
            Conjunction::Two => {}
        }
    }
    tests.push(test);
    Some(())
}

/// A choice between tests, each of them with a further test in it, if all of them can take it.
fn narrowed(node: &Node, test: &Test) -> Option<Node> {
    let Node::Any(choice) = node else { return None };
    let mut narrower = Vec::new();
    for node in choice {
        let Node::Test(known) = node else { return None };
        match known.and(test) {
            Conjunction::One(both) => narrower.push(Node::Test(both)),
            Conjunction::Never => {}
            Conjunction::Two => return None,
        }
    }
    Some(any(narrower))
}

fn keep(kept: &mut Vec<Node>, node: Node) {
    if !kept.contains(&node) {
        kept.push(node);
    }
}

fn joined(mut nodes: Vec<Node>, of_none: bool, join: fn(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        0 => Node::Constant(of_none),
        1 => nodes.remove(0),
        _ => join(nodes),
    }
}

/// A test of one word: some bits are equal to a value, and a field below them lies in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    word: u32,
    /// The bits that are to be equal to those of `value`.
    exact: u64,
    value: u64,
    /// The range's field; 0 if there is no range. All of `exact` lies above it.
    field: u64,
    low: u64,
    high: u64,
}

/// Two tests that must both hold.
enum Conjunction {
    /// They are this one.
    One(Test),
    /// They contradict each other.
    Never,
    /// They remain two.
    Two,
}

const PROTO: u64 = 0xff << end::PROTO;
const VERSION: u64 = 0xf << end::VERSION;
const HAS_PORT: u64 = 1 << end::HAS_PORT;

/// Bits that are the same in the words of both ends.
const COMMON: u64 = PROTO | VERSION | HAS_PORT;

/// The protocols for which [`end::HAS_PORT`] is set.
const PORTED: [u8; 3] = [proto::TCP, proto::UDP, proto::SCTP];

impl Test {
    fn exact(word: u32, exact: u64, value: u64) -> Self {
        Self { word, exact, value: value & exact, field: 0, low: 0, high: 0 }
    }

    fn range(word: u32, field: u64, low: u64, high: u64) -> Self {
        if low == high {
            Self::exact(word, field, low)
        } else {
            Self { word, exact: 0, value: 0, field, low, high }
        }
    }

    /// A test of the protocol, of the version, or of both.
    fn common(version: Option<Version>, protocol: Option<u8>) -> Self {
        let mut test = Self::exact(word::SRC_END, 0, 0);
        if let Some(version) = version {
            test.exact |= VERSION;
            test.value |= (version as u64) << end::VERSION;
        }
        if let Some(protocol) = protocol {
            test.exact |= PROTO;
            test.value |= u64::from(protocol) << end::PROTO;
        }
        test
    }

    fn is_common(&self) -> bool {
        self.word == word::SRC_END && self.exact & !COMMON == 0 && self.field == 0
    }

    fn and(&self, other: &Self) -> Conjunction {
        let word = match (self.word, other.word) {
            (mine, theirs) if mine == theirs => mine,
            (word::DST_END, _) if other.is_common() => word::DST_END,
            (_, word::DST_END) if self.is_common() => word::DST_END,
            _ => return Conjunction::Two,
        };
        if (self.value ^ other.value) & self.exact & other.exact != 0 {
            return Conjunction::Never;
        }
        let Self { field, low, high, .. } = if self.field == 0 { *other } else { *self };
        let (mut exact, value) = (self.exact | other.exact, self.value | other.value);
        let is_end = matches!(word, word::SRC_END | word::DST_END);
        if is_end && exact & (PROTO | HAS_PORT) == PROTO | HAS_PORT {
            // A protocol says itself whether it has ports.
            if !PORTED.contains(&((value >> end::PROTO) as u8)) {
                return Conjunction::Never;
            }
            exact &= !HAS_PORT;
        }
        let value = value & exact;
        let two_fields = self.field != 0 && other.field != 0;
        // A comparison sees a field only if all that is to be equal lies above it.
        let above = field.checked_ilog2().is_none_or(|top| exact & (u64::MAX >> (63 - top)) == 0);
        if two_fields || !above {
            return Conjunction::Two;
        }
        Conjunction::One(Self { word, exact, value, field, low, high })
    }

    fn instruction(&self) -> Instruction {
        Instruction::test(
            self.word,
            self.exact | self.field,
            self.value | self.low,
            self.high - self.low,
        )
    }
}

fn primitive(primitive: &Primitive) -> Node {
    match primitive {
        Primitive::Version(version) => Node::Test(Test::common(Some(*version), None)),
        Primitive::Protocol(version, number) => Node::Test(Test::common(*version, Some(*number))),
        Primitive::Net(side, net) => sides(*side, |end| at_end(net, end)),
        Primitive::Ports(side, protocol, ports) => {
            let (low, high) = (u64::from(*ports.start()), u64::from(*ports.end()));
            let ported = match protocol {
                Some(protocol) => Test::common(None, Some(*protocol)),
                None => Test::exact(word::SRC_END, HAS_PORT, HAS_PORT),
            };
            sides(*side, |End { packed, .. }| {
                let range =
                    Test::range(packed, 0xffff << end::PORT, low << end::PORT, high << end::PORT);
                all(vec![Node::Test(range), Node::Test(ported)])
            })
        }
        Primitive::Vlan(None) => Node::Test(Test::range(word::VLAN, 0xffff, 1, 0xffff)),
        Primitive::Vlan(Some(id)) => {
            let tag = |shift| Test::exact(word::VLAN, 0xffff_u64 << shift, u64::from(*id) << shift);
            any(vec![Node::Test(tag(0)), Node::Test(tag(16))])
        }
    }
}

/// The words of the facts that are about one end.
#[derive(Clone, Copy)]
struct End {
    address: [u32; 2],
    packed: u32,
}

fn sides(side: Side, at: impl Fn(End) -> Node) -> Node {
    let src = End { address: word::SRC, packed: word::SRC_END };
    let dst = End { address: word::DST, packed: word::DST_END };
    match side {
        Side::Src => at(src),
        Side::Dst => at(dst),
        Side::Either => any(vec![at(src), at(dst)]),
        Side::Both => all(vec![at(src), at(dst)]),
    }
}

fn at_end(net: &Net, end: End) -> Node {
    let version = Node::Test(Test::common(Some(net.version()), None));
    match net {
        Net::V4 { address, mask } => {
            let packed = |octets| u64::from(Address::v4(octets).tail()) << end::ADDRESS;
            let test = Test::exact(end.packed, packed(mask.octets()), packed(address.octets()));
            if test.exact == 0 { version } else { all(vec![Node::Test(test), version]) }
        }
        Net::V6 { address, mask } => {
            let words = |octets| Address::v6(octets).words();
            let (masks, values) = (words(mask.octets()), words(address.octets()));
            let mut nodes: Vec<Node> = (0..2)
                .filter(|&half| masks[half] != 0)
                .map(|half| Node::Test(Test::exact(end.address[half], masks[half], values[half])))
                .collect();
            // IPv4 addresses lie among IPv6's: where the network has room for one, the version tells.
            let beside = address.to_bits() ^ Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().to_bits();
            if beside & (mask.to_bits() >> 32 << 32) == 0 {
                nodes.push(version);
            }
            all(nodes)
        }
    }
}
