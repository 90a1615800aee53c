//! Which packets are looked at: a program of tests over a packet's headers.
//!
//! The user's filter expression is compiled once, in user space, into a [`Program`]; the kernel program and
//! the replay of a capture run it here, over the same [`Facts`]. It sees what the parser found: tags,
//! options, extension headers and fragments hide nothing from it.
//!
//! A program is in postfix order: tests push a bit, `and`, `or` and `not` work on the bits on top. The
//! stack is one word.

use bytemuck::{Pod, Zeroable};

use crate::{
    barrier::{less, opaque},
    key::{Endpoint, FlowKey, proto},
    parse::Headers,
};

/// Most instructions of a program: half as many tests.
pub const MAX_INSTRUCTIONS: usize = 64;

/// Words of [`Facts`]; a power of two, so that an index can be masked.
pub const WORDS: usize = 8;

/// Which word of [`Facts`] holds what.
pub mod word {
    /// The source address, in memory order.
    pub const SRC: [u32; 2] = [0, 1];
    /// The destination address, in memory order.
    pub const DST: [u32; 2] = [2, 3];
    /// The source end, see [`super::end`].
    pub const SRC_END: u32 = 4;
    /// The destination end, see [`super::end`].
    pub const DST_END: u32 = 5;
    /// VLAN ids: the outermost in the low 16 bits, the second above; 0 for none.
    pub const VLAN: u32 = 6;
}

/// Where things lie in a word of an end: most tests on IPv4 and on ports are one look at one word.
///
/// The port is lowest, so that a range of ports and what must be equal above it are one test.
pub mod end {
    /// Lowest bit of the port: 16 bits, 0 where there is none.
    pub const PORT: u32 = 0;
    /// Lowest bit of the address's last four bytes in memory order, all of an IPv4 address.
    pub const ADDRESS: u32 = 16;
    /// Lowest bit of the IP protocol number, 8 bits; the same in both ends' words.
    pub const PROTO: u32 = 48;
    /// Lowest bit of the IP version, 4 bits; the same in both ends' words.
    pub const VERSION: u32 = 56;
    /// Set if the port is one: the protocol is TCP, UDP or SCTP, and not ICMP, whose type and code are
    /// there. The same in both ends' words.
    pub const HAS_PORT: u32 = 60;
}

/// A packet's headers as a filter sees them, see [`word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Facts {
    words: [u64; WORDS],
}

const _: () = assert!(size_of::<Facts>() == 64);

impl Facts {
    /// What a filter may ask of a packet, after [`Headers::join_fragments`]: a later fragment so has the
    /// ports of its datagram, and port 0, as in its flow's key, if they are not known.
    #[inline(always)]
    pub fn of(headers: &Headers) -> Self {
        let protocol = u32::from(headers.proto());
        // VERIFIER: no comparison, see `barrier::less`.
        let has_port = less(protocol ^ u32::from(proto::TCP), 1)
            | less(protocol ^ u32::from(proto::UDP), 1)
            | less(protocol ^ u32::from(proto::SCTP), 1);
        let common = u64::from(protocol) << end::PROTO
            | u64::from(headers.version() & 0xf) << end::VERSION
            | u64::from(has_port & 1) << end::HAS_PORT;
        let [src_high, src_low] = headers.src.address.words();
        let [dst_high, dst_low] = headers.dst.address.words();
        let vlan = u64::from(headers.kind.vlan()) | u64::from(headers.kind.vlan_inner()) << 16;
        let (src, dst) = (end_word(&headers.src, common), end_word(&headers.dst, common));
        Self { words: [src_high, src_low, dst_high, dst_low, src, dst, vlan, 0] }
    }

    #[inline(always)]
    fn word(&self, index: u32) -> u64 {
        self.words[index as usize % WORDS]
    }
}

#[inline(always)]
fn end_word(endpoint: &Endpoint, common: u64) -> u64 {
    u64::from(endpoint.port) << end::PORT
        | u64::from(endpoint.address.tail()) << end::ADDRESS
        | common
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// Pushes whether a word of the facts passes, see [`Instruction::test`].
    Test,
    /// Replaces the two bits on top by whether both are set.
    And,
    /// Replaces the two bits on top by whether one is set.
    Or,
    /// Turns the bit on top around.
    Not,
}

/// One step of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Instruction {
    /// Bits of the word that are looked at.
    pub mask: u64,
    /// Least value that passes.
    pub least: u64,
    /// How far above the least one a value passes; less than 2^63.
    pub span: u64,
    /// Which word.
    pub word: u32,
    /// An [`Op`].
    pub op: u32,
}

const _: () = assert!(size_of::<Instruction>() == 32);

impl Instruction {
    /// Pushes whether `(facts[word] & mask) - least`, as an unsigned number, is at most `span`.
    pub const fn test(word: u32, mask: u64, least: u64, span: u64) -> Self {
        Self { mask, least, span, word, op: Op::Test as u32 }
    }

    /// Replaces the two bits on top by whether both are set.
    pub const AND: Self = Self::plain(Op::And);
    /// Replaces the two bits on top by whether one is set.
    pub const OR: Self = Self::plain(Op::Or);
    /// Turns the bit on top around.
    pub const NOT: Self = Self::plain(Op::Not);

    const fn plain(op: Op) -> Self {
        Self { mask: 0, least: 0, span: 0, word: 0, op: op as u32 }
    }

    /// The bit that a test pushes.
    ///
    /// VERIFIER: no comparison of packet data, which would double the paths with each test. Of two numbers
    /// below 2^63 the lesser is the one from which the other cannot be taken without borrowing.
    #[inline(always)]
    fn passes(&self, facts: &Facts) -> u64 {
        let above = (facts.word(self.word) & self.mask).wrapping_sub(self.least);
        let outside = opaque(above | self.span.wrapping_sub(above)) >> 63;
        outside ^ 1
    }
}

/// Read access to a program. The kernel's implementation loads each instruction from read-only data, so
/// that the verifier knows it; the host's is [`Program`] itself.
pub trait Instructions {
    /// How many there are.
    fn len(&self) -> u32;

    /// The one at an index below [`Instructions::len`].
    fn at(&self, index: u32) -> Instruction;

    /// Whether there is none, and every packet matches.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether a packet is looked at: it passes the filter, and its flow is in the sample (see
/// [`crate::config::Config::sample`]).
#[inline(always)]
pub fn selects<P: Instructions + ?Sized>(
    program: &P,
    sample: u32,
    headers: &Headers,
    key: &FlowKey,
) -> bool {
    // What asks for everything costs nothing.
    (sample == u32::MAX || key.sample() <= sample)
        && (program.is_empty() || matches(program, &Facts::of(headers)))
}

/// Whether a packet passes a program; every packet passes an empty one.
#[inline(always)]
pub fn matches<P: Instructions + ?Sized>(program: &P, facts: &Facts) -> bool {
    let mut stack = 1_u64;
    for index in 0..MAX_INSTRUCTIONS as u32 {
        if index >= program.len() {
            break;
        }
        let instruction = program.at(index);
        // Only the bit on top of what is left changes, and what lies above is gone.
        stack = match instruction.op {
            AND => (stack >> 1) & (stack | !1),
            OR => (stack >> 1) | (stack & 1),
            NOT => stack ^ 1,
            _ => stack << 1 | instruction.passes(facts),
        };
    }
    stack & 1 != 0
}

const AND: u32 = Op::And as u32;
const OR: u32 = Op::Or as u32;
const NOT: u32 = Op::Not as u32;

/// A filter in the form in which it runs: well-formed instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Program {
    instructions: [Instruction; MAX_INSTRUCTIONS],
    len: u32,
    padding: u32,
}

const _: () = assert!(size_of::<Program>() == 64 * 32 + 8);

/// Why instructions are no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IllFormed {
    /// More than [`MAX_INSTRUCTIONS`].
    TooLong,
    /// An instruction with a code, word or span that there is not.
    Unknown,
    /// `and`, `or` or `not` without enough bits to work on, or bits left at the end.
    Unbalanced,
}

impl Program {
    /// Every packet matches.
    pub const ALL: Self = Self {
        instructions: [Instruction::test(0, 0, 0, 0); MAX_INSTRUCTIONS],
        len: 0,
        padding: 0,
    };

    /// Instructions as a program; [`Program::ALL`] if there are none.
    pub fn new(instructions: &[Instruction]) -> Result<Self, IllFormed> {
        let mut program = Self::ALL;
        let room = program.instructions.get_mut(..instructions.len()).ok_or(IllFormed::TooLong)?;
        room.copy_from_slice(instructions);
        program.len = instructions.len() as u32;
        let mut depth = 0_u32;
        for instruction in instructions {
            let (takes, gives) = instruction.effect().ok_or(IllFormed::Unknown)?;
            depth = depth.checked_sub(takes).ok_or(IllFormed::Unbalanced)? + gives;
        }
        if depth == 1 || instructions.is_empty() { Ok(program) } else { Err(IllFormed::Unbalanced) }
    }

    /// The instructions, in order.
    pub fn instructions(&self) -> &[Instruction] {
        self.instructions.get(..self.len as usize).unwrap_or(&self.instructions)
    }

    /// Where the length lies in a program somewhere in memory.
    #[inline(always)]
    pub fn len_at(program: *const Self) -> *const u32 {
        program.wrapping_byte_add(core::mem::offset_of!(Self, len)).cast()
    }

    /// Where an instruction lies in a program somewhere in memory.
    #[inline(always)]
    pub fn place(program: *const Self, index: u32) -> *const Instruction {
        program.cast::<Instruction>().wrapping_add(index as usize % MAX_INSTRUCTIONS)
    }

    /// Whether a packet passes.
    pub fn matches(&self, facts: &Facts) -> bool {
        matches(self, facts)
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::ALL
    }
}

impl Instructions for Program {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn at(&self, index: u32) -> Instruction {
        self.instructions[index as usize % MAX_INSTRUCTIONS]
    }
}

impl Instruction {
    /// How many bits it takes from the stack and gives to it; `None` if it is none.
    fn effect(&self) -> Option<(u32, u32)> {
        match self.op {
            AND | OR => Some((2, 1)),
            NOT => Some((1, 1)),
            _ => {
                let known = self.op == Op::Test as u32
                    && (self.word as usize) < WORDS
                    && self.span >> 63 == 0;
                known.then_some((0, 1))
            }
        }
    }
}

#[cfg(test)]
mod tests;
