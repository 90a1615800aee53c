//! What the running kernel tells of its types (BTF).
//!
//! Read here, since aya's reader does not tell members and parameters, and the crates that do are under copyleft or are
//! bindings to C. The format: Documentation/bpf/btf.rst.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context as _, Result, anyhow, ensure};

/// Where the kernel tells them.
const PLACE: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's types.
pub(super) struct KernelTypes {
    bytes: Vec<u8>,
    /// Where the names begin.
    names: usize,
    /// Where each type begins; the first, number 0, is `void`.
    places: Vec<usize>,
    /// Structures and functions by name.
    known: HashMap<(u32, Vec<u8>), u32>,
}

/// Kinds of types (include/uapi/linux/btf.h).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

const MAGIC: u16 = 0xeb9f;
/// Bytes of each type, before what its kind adds.
const COMMON: usize = 12;
/// Deepest nesting of structures without a name, or of qualifiers, that is looked through.
const DEPTH: u32 = 16;

impl KernelTypes {
    /// Those of the running kernel.
    pub(super) fn of_this_kernel() -> Result<Self> {
        Self::read(Path::new(PLACE)).with_context(|| {
            format!(
                "this kernel does not tell its types: {PLACE} cannot be read. It takes a kernel with \
                 CONFIG_DEBUG_INFO_BTF, as distributions build theirs"
            )
        })
    }

    fn read(path: &Path) -> Result<Self> {
        Self::parse(fs::read(path)?)
            .with_context(|| format!("{} is not as it should be", path.display()))
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        ensure!(half(0) == Some(MAGIC), "it does not begin as type information does");
        let header = |at| word(&bytes, at).map(|number| number as usize);
        let begin = header(4)?;
        let (types, types_len) = (begin + header(8)?, header(12)?);
        let names = begin + header(16)?;
        ensure!(bytes.len() >= names + header(20)?, "it is cut off");
        let mut read = Self { names, places: vec![usize::MAX], known: HashMap::new(), bytes };
        let mut at = types;
        while at < types + types_len {
            let id = read.places.len() as u32;
            read.places.push(at);
            let (kind, count) = (read.kind(id)?, read.count(id)?);
            if matches!(kind, kind::STRUCT | kind::FUNC) {
                let name = read.name_at(word(&read.bytes, at)?)?.to_vec();
                read.known.entry((kind, name)).or_insert(id);
            }
            at += COMMON
                + match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::ENUM | kind::FUNC_PROTO => 8 * count,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
                    // Pointers, forward declarations, other names and qualifiers, floats.
                    2 | 7..=kind::FUNC | 16 | kind::TYPE_TAG => 0,
                    _ => {
                        return Err(anyhow!(
                            "a type of a kind that this agent does not know: {kind}"
                        ));
                    }
                };
        }
        Ok(read)
    }

    /// The offset in bytes of a member, `.` between its name and a name inside of it. What has no name is looked into.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Result<u32> {
        let find = || {
            let mut id = self.named(kind::STRUCT, structure)?;
            let mut bits = 0;
            for name in member.split('.') {
                let (offset, inner) = self.member(id, name.as_bytes(), DEPTH)?;
                bits += offset;
                id = self.bare(inner)?;
            }
            bits.is_multiple_of(8).then_some(bits / 8)
        };
        find().ok_or_else(|| anyhow!("this kernel's `struct {structure}` has no `{member}`"))
    }

    /// Which parameter of a function has this name, from 0.
    pub(super) fn parameter(&self, function: &str, name: &str) -> Result<u32> {
        let find = || {
            let function = self.named(kind::FUNC, function)?;
            let prototype = self.size_or_type(function).ok()?;
            (0..self.count(prototype).ok()?).find(|index| {
                let at = self.place(prototype).map(|at| at + COMMON + 8 * index);
                at.and_then(|at| self.name_at(word(&self.bytes, at)?))
                    .is_ok_and(|found| found == name.as_bytes())
            })
        };
        match find() {
            Some(index) => Ok(index as u32),
            None => Err(anyhow!("this kernel's `{function}` has no parameter `{name}`")),
        }
    }

    /// Whether the kernel has a function that programs may be attached to.
    pub(super) fn has_function(&self, name: &str) -> bool {
        self.named(kind::FUNC, name).is_some()
    }

    fn named(&self, kind: u32, name: &str) -> Option<u32> {
        self.known.get(&(kind, name.as_bytes().to_vec())).copied()
    }

    /// Offset in bits, and type, of a member.
    fn member(&self, structure: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        if !matches!(self.kind(structure).ok()?, kind::STRUCT | kind::UNION) {
            return None;
        }
        // With bit fields among the members, the upper eight bits are the width of one.
        let mask = if self.info(structure).ok()? >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
        let at = self.place(structure).ok()? + COMMON;
        for member in 0..self.count(structure).ok()? {
            let at = at + 12 * member;
            let found = self.name_at(word(&self.bytes, at).ok()?).ok()?;
            let kind = word(&self.bytes, at + 4).ok()?;
            let bits = word(&self.bytes, at + 8).ok()? & mask;
            if found == name {
                return Some((bits, kind));
            }
            if found.is_empty() && depth > 0 {
                let inner = self.member(self.bare(kind)?, name, depth - 1);
                if let Some((inner, kind)) = inner {
                    return Some((bits + inner, kind));
                }
            }
        }
        None
    }

    /// A type without qualifiers and other names.
    fn bare(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            match self.kind(id).ok()? {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.size_or_type(id).ok()?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn place(&self, id: u32) -> Result<usize> {
        self.places.get(id as usize).copied().with_context(|| format!("there is no type {id}"))
    }

    fn info(&self, id: u32) -> Result<u32> {
        word(&self.bytes, self.place(id)?.saturating_add(4))
    }

    fn kind(&self, id: u32) -> Result<u32> {
        Ok(self.info(id)? >> 24 & 0x1f)
    }

    fn count(&self, id: u32) -> Result<usize> {
        Ok(self.info(id)? as usize & 0xffff)
    }

    fn size_or_type(&self, id: u32) -> Result<u32> {
        word(&self.bytes, self.place(id)?.saturating_add(8))
    }

    fn name_at(&self, offset: u32) -> Result<&[u8]> {
        let name = self.bytes.get(self.names + offset as usize..).context("a name is cut off")?;
        Ok(name.split(|&byte| byte == 0).next().unwrap_or_default())
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    found.map(|bytes| u32::from_ne_bytes(*bytes)).context("it is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; union { int b; struct inner { int c; } d; }; const inner_t e; int f: 4; }`, and
    /// `int call(struct outer *out, int flags)`.
    fn sample() -> Vec<u8> {
        let mut names = vec![0];
        let mut name = |name: &str| {
            let at = names.len() as u32;
            names.extend(name.bytes().chain([0]));
            at
        };
        let info = |kind: u32, count: u32, fields: u32| fields << 31 | kind << 24 | count;
        let words = [
            [name("int"), info(kind::INT, 0, 0), 4, 32].as_slice(),
            // 2
            &[name("inner"), info(kind::STRUCT, 1, 0), 4, name("c"), 1, 0],
            // 3
            &[0, info(kind::UNION, 2, 0), 4, name("b"), 1, 0, name("d"), 2, 0],
            // 4, 5
            &[name("inner_t"), info(kind::TYPEDEF, 0, 0), 2],
            &[0, info(kind::CONST, 0, 0), 4],
            // 6
            &[name("outer"), info(kind::STRUCT, 4, 1), 16],
            &[name("a"), 1, 0, 0, 3, 32, name("e"), 5, 64, name("f"), 1, 0x0400_0064],
            // 7, 8, 9
            &[0, info(2, 0, 0), 6],
            &[0, info(kind::FUNC_PROTO, 2, 0), 1, name("out"), 7, name("flags"), 1],
            &[name("call"), info(kind::FUNC, 0, 0), 8],
        ]
        .concat();
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (length, rest) = (types.len() as u32, names.len() as u32);
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes
            .extend([24, 0, length, length, rest].iter().flat_map(|word: &u32| word.to_ne_bytes()));
        [bytes, types, names].concat()
    }

    #[test]
    fn members_are_found_also_in_what_has_no_name() {
        let types = KernelTypes::parse(sample()).expect("types");
        let offset = |member| types.offset("outer", member).ok();
        assert_eq!(offset("a"), Some(0));
        assert_eq!(offset("b"), Some(4));
        assert_eq!(offset("d.c"), Some(4));
        assert_eq!(offset("e.c"), Some(8));
        assert_eq!(offset("f"), None, "a bit field that begins inside of a byte");
        let error = types.offset("outer", "c").expect_err("not a member").to_string();
        assert_eq!(error, "this kernel's `struct outer` has no `c`");
        assert!(types.offset("other", "a").is_err());
    }

    #[test]
    fn parameters_are_found_by_name() {
        let types = KernelTypes::parse(sample()).expect("types");
        assert_eq!(types.parameter("call", "flags").ok(), Some(1));
        assert!(types.parameter("call", "msg").is_err());
        assert!(types.parameter("outer", "a").is_err());
    }

    #[test]
    fn what_is_cut_off_is_refused_without_a_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(KernelTypes::parse(whole[..length].to_vec()).is_err(), "{length}");
        }
        let mut other = whole;
        other[31] = 0x1f;
        assert!(KernelTypes::parse(other).is_err());
    }
}
