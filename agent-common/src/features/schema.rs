//! The schema's identity: it changes when the meaning of a line does.

use core::fmt;

use sha1::{Digest, Sha1};

use super::{Field, fields};

/// Version of the field names.
pub const SCHEMA_VERSION: &str = "feature-agent/1";

/// `feature-agent/1:` and eight hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaId {
    text: [u8; 24],
}

impl SchemaId {
    /// The identifier as it stands in a line.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.text).unwrap_or(SCHEMA_VERSION)
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identifier of this build's fields: the first 32 bits of a SHA-1 over each field's name, group,
/// type, unit, formula and null rule.
pub fn schema_id() -> SchemaId {
    let hex = fingerprint(fields().flat_map(|field| {
        let Field { name, group, kind, unit, formula, null, value: _ } = field;
        [name, group.name(), kind.name(), unit, formula, null]
    }));
    let mut text = [0; 24];
    let (version, digits) = text.split_at_mut(SCHEMA_VERSION.len() + 1);
    version[..SCHEMA_VERSION.len()].copy_from_slice(SCHEMA_VERSION.as_bytes());
    version[SCHEMA_VERSION.len()] = b':';
    digits.copy_from_slice(&hex);
    SchemaId { text }
}

/// The first 32 bits of a SHA-1 over texts, each followed by a zero, as hex digits.
pub fn fingerprint<'a>(texts: impl Iterator<Item = &'a str>) -> [u8; 8] {
    let mut hash = Sha1::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    core::array::from_fn(|index| {
        let byte: u8 = digest[index / 2];
        let nibble = if index % 2 == 0 { byte >> 4 } else { byte & 15 };
        b"0123456789abcdef"[usize::from(nibble)]
    })
}
