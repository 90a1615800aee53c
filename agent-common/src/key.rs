//! Whose packet it is: the flow key, the same for both directions.

use core::{
    hint::select_unpredictable,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytemuck::{Pod, Zeroable};

use crate::{
    barrier::reread,
    layout::{Layout, Shape, laid_out},
};

/// An IP address as 16 bytes in network order; IPv4 is stored IPv4-mapped (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Address {
    /// The bytes in memory order, as two words.
    words: [u64; 2],
}

impl Layout for Address {
    const SHAPE: Shape = <[u8; 16]>::SHAPE;
}

impl Address {
    /// An IPv4 address, mapped.
    #[inline(always)]
    pub fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self { words: [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])] }
    }

    /// An IPv6 address.
    #[inline(always)]
    pub fn v6(octets: [u8; 16]) -> Self {
        Self { words: bytemuck::cast(octets) }
    }

    /// The 16 bytes of an IPv6 address in memory order, as two words.
    #[inline(always)]
    pub(crate) fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// The 16 bytes in network order.
    pub fn octets(&self) -> [u8; 16] {
        bytemuck::cast(self.words)
    }

    /// The bytes in memory order, as two words.
    #[inline(always)]
    pub fn words(&self) -> [u64; 2] {
        self.words
    }

    /// The last four bytes in memory order: all of an IPv4 address.
    #[inline(always)]
    pub fn tail(&self) -> u32 {
        const SHIFT: u32 = if cfg!(target_endian = "little") { 32 } else { 0 };
        (self.words[1] >> SHIFT) as u32
    }

    /// The address as people write it.
    pub fn ip(&self, family: Family) -> IpAddr {
        let octets = self.octets();
        match family {
            Family::V4 => {
                let [.., a, b, c, d] = octets;
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            Family::V6 => IpAddr::V6(Ipv6Addr::from(octets)),
        }
    }

    /// Whether the bytes come after those of `other`, `None` if they are the same.
    #[inline(always)]
    fn after(&self, other: &Self) -> Option<bool> {
        // VERIFIER: arrays compared by PartialOrd become a memcmp call, which a spin lock forbids.
        let (mine, theirs) = (u64::from_be(self.words[0]), u64::from_be(other.words[0]));
        if mine != theirs {
            return Some(mine > theirs);
        }
        let (mine, theirs) = (u64::from_be(self.words[1]), u64::from_be(other.words[1]));
        (mine != theirs).then_some(mine > theirs)
    }
}

/// What a flow is of beside its ends and its interface, in one word: VLAN ids, protocol, IP version. On a machine whose
/// lowest byte comes first it is that of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u64);

impl Kind {
    /// With [`LOCAL_NONE`]; the key of a flow of calls gets its own later.
    #[inline(always)]
    pub fn new([vlan, vlan_inner]: [u16; 2], proto: u8, version: u8) -> Self {
        const { assert!(LOCAL_NONE == 0) };
        Self(
            u64::from(vlan)
                | u64::from(vlan_inner) << 16
                | u64::from(proto) << 32
                | u64::from(version) << 40,
        )
    }

    /// Outermost VLAN id, 0 for none.
    #[inline(always)]
    pub fn vlan(self) -> u16 {
        self.0 as u16
    }

    /// Second VLAN id, 0 for none.
    #[inline(always)]
    pub fn vlan_inner(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn proto(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// 4 or 6.
    #[inline(always)]
    pub fn version(self) -> u8 {
        (self.0 >> 40) as u8
    }
}

/// IP version of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// IP protocol numbers (IANA) that the parser looks into.
pub mod proto {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// Generic Routing Encapsulation.
    pub const GRE: u8 = 47;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub address: Address,
    /// Port in host order; for ICMP what Community ID puts there; 0 where there is none.
    pub port: u16,
}

impl Endpoint {
    /// Two ends in this order, or swapped: without a branch, for which way a packet goes no processor guesses.
    #[inline(always)]
    pub(crate) fn ordered(one: &Self, other: &Self, is_swapped: bool) -> (Self, Self) {
        let either = |one: &Self, other: &Self| {
            let ([high, low], [other_high, other_low]) = (one.address.words, other.address.words);
            let high = select_unpredictable(is_swapped, other_high, high);
            let low = select_unpredictable(is_swapped, other_low, low);
            let port = select_unpredictable(is_swapped, other.port, one.port);
            Self { address: Address { words: [high, low] }, port }
        };
        (either(one, other), either(other, one))
    }
}

laid_out! {
/// {interface, VLAN ids, protocol, (address, port) pair}, the pair ordered jointly as Community ID
/// version 1 orders it, so that both directions have one key. Numbers are in host byte order, addresses
/// in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FlowKey {
    /// Address of the lesser end.
    pub a: Address,
    /// Address of the greater end.
    pub b: Address,
    /// Interface index; of a flow of socket calls, the inode number of the socket's network namespace.
    pub ifindex: u32,
    /// Port of the lesser end.
    pub port_a: u16,
    /// Port of the greater end.
    pub port_b: u16,
    /// Outermost VLAN id, 0 for none.
    pub vlan: u16,
    /// Second VLAN id, 0 for none.
    pub vlan_inner: u16,
    /// IP protocol number.
    pub proto: u8,
    /// 4 or 6.
    pub version: u8,
    /// Whose calls make the flow: of the socket that is end `a` ([`LOCAL_A`]), or end `b` ([`LOCAL_B`]); 0 where packets do.
    /// Two sockets of one host that talk to each other so have a flow each.
    pub local: u8,
    /// Zero: every byte is hashed.
    pub padding: u8,
}
}

const _: () = assert!(size_of::<FlowKey>() == 48);

/// Words of a key that are digested.
pub const DIGESTED: usize = size_of::<FlowKey>() / size_of::<u32>();

/// A factor for each word, see [`FlowKey::digest`].
pub type Secrets = [u64; DIGESTED];

/// [`FlowKey::local`] of a flow of packets.
pub const LOCAL_NONE: u8 = 0;
/// [`FlowKey::local`] of the socket that is end `a`.
pub const LOCAL_A: u8 = 1;
/// [`FlowKey::local`] of the socket that is end `b`.
pub const LOCAL_B: u8 = 2;

/// What the codes of [`FlowKey::local`] are called.
pub const LOCAL: [(u64, &str); 3] =
    [(LOCAL_NONE as u64, "none"), (LOCAL_A as u64, "a"), (LOCAL_B as u64, "b")];

impl FlowKey {
    /// Writes the key of the packets between two ends, the lesser first.
    ///
    /// In place and in whole words: who hashes it reads it at once, and a processor that has to put a word together from
    /// smaller pieces which are still on their way to memory waits for all of them.
    #[inline(always)]
    pub(crate) fn write(&mut self, a: &Endpoint, b: &Endpoint, ifindex: u32, kind: Kind) {
        // VERIFIER: word by word, for of an address as a whole LLVM makes a call of memmove.
        let words: &mut [u64; 6] = bytemuck::cast_mut(self);
        let [a_high, a_low, b_high, b_low, place, last] = words;
        *a_high = reread(&a.address.words[0]);
        *a_low = reread(&a.address.words[1]);
        *b_high = reread(&b.address.words[0]);
        *b_low = reread(&b.address.words[1]);
        let ports = u32::from(a.port) | u32::from(b.port) << 16;
        if cfg!(target_endian = "little") {
            *place = u64::from(ifindex) | u64::from(ports) << 32;
            *last = kind.0;
        } else {
            *place = u64::from(ifindex) << 32 | u64::from(ports.rotate_left(16));
            *last = u64::from(kind.vlan()) << 48
                | u64::from(kind.vlan_inner()) << 32
                | u64::from(kind.proto()) << 24
                | u64::from(kind.version()) << 16;
        }
    }

    /// A number to look a flow up by, for which less is to be hashed than for the key itself.
    ///
    /// Multilinear hashing (Carter and Wegman, 1979): the sum of the key's twelve 32-bit words, each times a secret of 64
    /// random bits. Two words differ by less than 2^32, so that two keys, however they are chosen by who does not know
    /// the secrets, have one digest with a probability of at most 2^-33; and two that nobody chose, of about 2^-63. The
    /// table holds the whole key too: a flow that finds another in its place is turned away and counted, never mistaken.
    ///
    /// Of IPv4 those words are left out that all of its addresses share: keys of two versions differ by the version.
    #[inline(always)]
    pub fn digest(&self, secret: impl Fn(usize) -> u64) -> u64 {
        const DISTINCT: [usize; 6] = [3, 7, 8, 9, 10, 11];
        const PREFIXES: [usize; 6] = [0, 1, 2, 4, 5, 6];
        let words: &[u32; DIGESTED] = bytemuck::cast_ref(self);
        let sum = |of: [usize; 6]| {
            let mut sum = 0u64;
            let mut at = 0;
            while at < of.len() {
                sum = sum.wrapping_add(u64::from(words[of[at]]).wrapping_mul(secret(of[at])));
                at += 1;
            }
            sum
        };
        let digest = sum(DISTINCT);
        if self.version == 4 { digest } else { digest.wrapping_add(sum(PREFIXES)) }
    }

    /// IP version.
    pub fn family(&self) -> Family {
        if self.version == 4 { Family::V4 } else { Family::V6 }
    }

    /// A number that is spread evenly over flows and the same for one wherever it is seen: over its ends and
    /// protocol, but not its interface and VLANs. By it flows are sampled.
    ///
    /// Each word is mixed in by the finaliser of MurmurHash3, whose constants these are.
    #[inline(always)]
    pub fn sample(&self) -> u32 {
        let words: &[u64; 6] = bytemuck::cast_ref(self);
        let ports = u64::from(self.port_a) << 32 | u64::from(self.port_b) << 16;
        let mut hash = ports | u64::from(self.proto);
        let mut word = 0;
        while word < 4 {
            hash = (hash ^ words[word]).wrapping_mul(0xff51_afd7_ed55_8ccd);
            hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            hash ^= hash >> 33;
            word += 1;
        }
        (hash >> 32) as u32
    }

    /// Whether the protocol has ports, or type and code in their place.
    pub fn has_ports(&self) -> bool {
        has_ports(self.proto)
    }

    /// Sameness, word by word.
    #[inline(always)]
    pub fn same(&self, other: &Self) -> bool {
        // VERIFIER: `==` becomes a bcmp call, which a spin lock forbids.
        let mine: &[u64; 6] = bytemuck::cast_ref(self);
        let theirs: &[u64; 6] = bytemuck::cast_ref(other);
        (mine[0] ^ theirs[0])
            | (mine[1] ^ theirs[1])
            | (mine[2] ^ theirs[2])
            | (mine[3] ^ theirs[3])
            | (mine[4] ^ theirs[4])
            | (mine[5] ^ theirs[5])
            == 0
    }
}

/// Whether a protocol's flows have ports, or type and code in their place.
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::SCTP | proto::ICMP | proto::ICMPV6)
}

/// Whether a packet from `src` to `dst` has the ends of its key swapped, that is whether it comes from
/// end `b`.
#[inline(always)]
pub fn is_swapped(protocol: u8, src: &Endpoint, dst: &Endpoint) -> bool {
    if icmp_is_one_way(protocol, src.port) {
        return false;
    }
    match src.address.after(&dst.address) {
        Some(after) => after,
        None => src.port > dst.port,
    }
}

/// What Community ID version 1 puts in place of the ports of an ICMP or ICMPv6 message: its type and the
/// type that answers it, or type and code where nothing answers.
/// <https://github.com/corelight/community-id-spec>
#[inline(always)]
pub fn icmp_ports(protocol: u8, kind: u8, code: u8) -> (u16, u16) {
    match icmp_counterpart(protocol, kind) {
        Some(counterpart) => (kind.into(), counterpart.into()),
        None => (kind.into(), code.into()),
    }
}

/// Whether this is an ICMP flow that nothing answers; its ends are not ordered.
#[inline(always)]
fn icmp_is_one_way(protocol: u8, port: u16) -> bool {
    matches!(protocol, proto::ICMP | proto::ICMPV6)
        && icmp_counterpart(protocol, port as u8).is_none()
}

#[inline(always)]
fn icmp_counterpart(protocol: u8, kind: u8) -> Option<u8> {
    if protocol == proto::ICMP {
        Some(match kind {
            8 => 0,
            0 => 8,
            13 => 14,
            14 => 13,
            15 => 16,
            16 => 15,
            10 => 9,
            9 => 10,
            17 => 18,
            18 => 17,
            _ => return None,
        })
    } else {
        Some(match kind {
            128 => 129,
            129 => 128,
            133 => 134,
            134 => 133,
            135 => 136,
            136 => 135,
            130 => 131,
            131 => 130,
            139 => 140,
            140 => 139,
            144 => 145,
            145 => 144,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A product with an odd number tells every factor apart: one that was left out would not show.
        #[test]
        fn every_word_of_a_key_counts_in_its_digest(
            words in any::<[u32; DIGESTED]>(),
            v4 in any::<bool>(),
            secrets in any::<[u64; DIGESTED]>(),
            at in 0..DIGESTED,
            change in 1..=u32::MAX,
        ) {
            let mut key: FlowKey = bytemuck::cast(words);
            key.version = if v4 { 4 } else { 6 };
            if v4 {
                let v4 = |address: Address| Address::v4(address.tail().to_ne_bytes());
                (key.a, key.b) = (v4(key.a), v4(key.b));
            }
            let words: [u32; DIGESTED] = bytemuck::cast(key);
            // What all of IPv4 has in common does not change.
            prop_assume!(!v4 || at >= 8 || at % 4 == 3);
            let digest = |words: [u32; DIGESTED]| {
                bytemuck::cast::<_, FlowKey>(words).digest(|word| secrets[word] | 1)
            };
            let mut other = words;
            other[at] ^= change;
            prop_assert_eq!(digest(words), digest(words));
            prop_assert_ne!(digest(words), digest(other));
        }
    }
}
