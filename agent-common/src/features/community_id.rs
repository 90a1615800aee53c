//! Community ID version 1, seed 0: the name by which other tools know the flow.
//! <https://github.com/corelight/community-id-spec>

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use crate::key::{Family, FlowKey};

/// `1:` and the base64 of a SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommunityId {
    text: [u8; 30],
}

impl CommunityId {
    /// The id of a flow; its key is ordered as the specification orders.
    pub fn of(key: &FlowKey) -> Self {
        let (a, b) = (key.a.octets(), key.b.octets());
        let start = match key.family() {
            Family::V4 => 12,
            Family::V6 => 0,
        };
        let mut hash = Sha1::new();
        hash.update([0, 0]);
        hash.update(&a[start..]);
        hash.update(&b[start..]);
        hash.update([key.proto, 0]);
        if key.has_ports() {
            hash.update(key.port_a.to_be_bytes());
            hash.update(key.port_b.to_be_bytes());
        }
        let mut text = [b'='; 30];
        text[..2].copy_from_slice(b"1:");
        let digest: [u8; 20] = hash.finalize().into();
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
