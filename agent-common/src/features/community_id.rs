//! Community ID version 1, seed 0: the name by which other tools know the flow.
//! <https://github.com/corelight/community-id-spec>

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::block_api::compress;

use crate::key::{Family, FlowKey};

/// `1:` and the base64 of a SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommunityId {
    text: [u8; 30],
}

/// SHA-1's state before the first block (FIPS 180-4, 5.3.1).
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

impl CommunityId {
    /// The id of a flow; its key is ordered as the specification orders.
    pub fn of(key: &FlowKey) -> Self {
        let mut state = INITIAL;
        compress(&mut state, &[block(key)]);
        let mut digest = [0; 20];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        let mut text = [b'='; 30];
        text[..2].copy_from_slice(b"1:");
        // 20 bytes are always 28 digits: there is room.
        let _ = STANDARD.encode_slice(digest, &mut text[2..]);
        Self { text }
    }

    /// The id as ASCII.
    pub fn as_bytes(&self) -> &[u8; 30] {
        &self.text
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// What is hashed: seed, ends, protocol and ports, at most 40 bytes. With the bit behind them and the number of bits
/// (FIPS 180-4, 5.1.1) that is one block, so that it takes no hasher, which would gather it piece by piece.
#[inline]
fn block(key: &FlowKey) -> [u8; 64] {
    let (a, b) = (key.a.octets(), key.b.octets());
    let mut block = [0; 64];
    let mut len = match key.family() {
        Family::V4 => {
            block[2..6].copy_from_slice(&a[12..]);
            block[6..10].copy_from_slice(&b[12..]);
            10
        }
        Family::V6 => {
            block[2..18].copy_from_slice(&a);
            block[18..34].copy_from_slice(&b);
            34
        }
    };
    block[len] = key.proto;
    len += 2;
    if key.has_ports() {
        block[len..len + 2].copy_from_slice(&key.port_a.to_be_bytes());
        block[len + 2..len + 4].copy_from_slice(&key.port_b.to_be_bytes());
        len += 4;
    }
    block[len] = 0x80;
    block[62..].copy_from_slice(&(8 * len as u16).to_be_bytes());
    block
}
