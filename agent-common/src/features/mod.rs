//! The features: name, type, unit, formula and value, each defined once, in [`fields`].
//!
//! A [`Vector`] is a record and what it takes to finish it. All arithmetic here is exact integers first and
//! one or two correctly rounded f64 operations last, so that a value is the same on every machine.

mod community_id;
mod derive;
mod envelope;
mod schema;
mod totals;
mod window;

use core::net::IpAddr;

pub use self::{
    community_id::CommunityId,
    envelope::LOST,
    schema::{SCHEMA_VERSION, SchemaId, fingerprint, schema_id},
};
use crate::record::Record;

/// A record about to be finished.
#[derive(Clone, Copy, Debug)]
pub struct Vector<'a> {
    /// The integers.
    pub record: &'a Record,
    /// Name of the interface.
    pub iface: &'a str,
    /// What is known of the record's process beside its numbers; none if it names none.
    pub process: Option<Process<'a>>,
    /// Unix time minus the record's clock, in µs.
    pub epoch_offset_us: i64,
    /// Vectors made since the consumer's last one that it did not get: what stands under [`LOST`].
    pub lost: u64,
    /// The schema's identifier, from [`schema_id`].
    pub schema: &'a SchemaId,
}

/// A process, as user space has found it.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    /// Its name.
    pub comm: &'a str,
    /// Path of its program, if it was still there to be asked.
    pub exe: Option<&'a str>,
    /// Path of its control group in the unified hierarchy.
    pub cgroup: Option<&'a str>,
    /// The container that path names.
    pub container_id: Option<&'a str>,
}

impl Process<'_> {
    /// Bytes of all its texts.
    pub fn text_len(&self) -> usize {
        let Self { comm, exe, cgroup, container_id } = *self;
        let others = [exe, cgroup, container_id].into_iter().flatten();
        comm.len() + others.map(str::len).sum::<usize>()
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// The field has no value here; its `null` says when.
    Null,
    /// An integer.
    Integer(u64),
    /// A finite number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A name.
    Text(&'a str),
    /// A word of the schema: it holds nothing that a format would have to escape.
    Word(&'a str),
    /// An address.
    Address(IpAddr),
    /// A community id.
    CommunityId(CommunityId),
    /// Unix time in µs, written as seconds with six decimals.
    UnixMicros(i64),
}

/// Type of a field's values. A line has four of them, see [`Type::name`]; a column of a table needs to know how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Unsigned integer of 8 bits.
    U8,
    /// Unsigned integer of 16 bits.
    U16,
    /// Unsigned integer of 32 bits.
    U32,
    /// Unsigned integer of 64 bits.
    U64,
    /// Finite 64-bit float.
    Float,
    /// A time: [`Value::UnixMicros`].
    Time,
    /// Boolean.
    Bool,
    /// Text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Type {
    /// The type's word in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => "integer",
            Self::Float | Self::Time => "float",
            Self::Bool => "bool",
            Self::Text | Self::Word(_) => "text",
        }
    }
}

/// Whether a field says whose vector it is, or is an input to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Whose, when, why.
    Envelope,
    /// Since the flow began.
    Totals,
    /// Over the sliding window.
    Window,
}

impl Group {
    /// The group's word in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Totals => "totals",
            Self::Window => "window",
        }
    }
}

/// One field of a line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name, and key in a line.
    pub name: &'static str,
    /// Where it belongs.
    pub group: Group,
    /// Type of its values.
    pub kind: Type,
    /// Unit; empty for none.
    pub unit: &'static str,
    /// What it is, in words or as a formula.
    pub formula: &'static str,
    /// When it is null; empty for never.
    pub null: &'static str,
    /// Its value.
    pub value: for<'a> fn(&Vector<'a>) -> Value<'a>,
}

/// Every field, in the order of a line: envelope, totals, window.
pub fn fields() -> impl Iterator<Item = &'static Field> + Clone {
    envelope::FIELDS
        .iter()
        .chain(totals::FLOW)
        .chain(totals::FWD)
        .chain(totals::BWD)
        .chain(window::FIELDS)
        .chain(window::FWD)
        .chain(window::BWD)
}

#[cfg(test)]
mod tests;
