//! A record becomes one line of text: of JSON, or of CSV.

use std::{io::Write as _, net::IpAddr, sync::Arc};

use agent_common::{
    features::{Field, Group, LOST, SchemaId, Value, Vector, fields, schema_id},
    record::Record,
};
use clap::ValueEnum;

use crate::process::Process;

/// Shape of a line of JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// One flat object: every field under its name
    #[default]
    Flat,
    /// The envelope's fields under their names, all others in one array `features`, in schema order
    Array,
}

/// What a record does not say itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Name of the interface.
    pub iface: &'a str,
    /// The record's process; none if it names none.
    pub process: Option<&'a Arc<Process>>,
    /// Unix time minus the record's clock, in µs.
    pub epoch_offset_us: i64,
}

impl<'a> Context<'a> {
    /// Of a record that names no process.
    pub fn new(iface: &'a str, epoch_offset_us: i64) -> Self {
        Self { iface, process: None, epoch_offset_us }
    }
}

/// Bytes to keep free for a line, so that a buffer grows once: a line is 1,300 to 2,000 bytes.
pub const TYPICAL_LINE: usize = 2048;

/// Writes lines. What does not change from line to line is made once.
#[derive(Debug)]
pub struct LineWriter {
    schema: SchemaId,
    syntax: Syntax,
    steps: Vec<Step>,
    /// The step of the field that differs between consumers.
    lost: usize,
    end: &'static [u8],
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Json,
    Csv,
}

/// A field, and what stands between the value before and its own.
#[derive(Debug)]
struct Step {
    prefix: Prefix,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
}

/// A short text that is written as a block of fixed size: a few moves, where a copy of any length is a call.
#[derive(Debug)]
struct Prefix {
    block: [u8; Self::BLOCK],
    len: usize,
}

impl Prefix {
    const BLOCK: usize = 32;

    fn new(text: &[u8]) -> Self {
        let mut block = [0; Self::BLOCK];
        block[..text.len()].copy_from_slice(text);
        Self { block, len: text.len() }
    }

    #[inline]
    fn append(&self, out: &mut Vec<u8>) {
        let len = out.len() + self.len;
        out.extend_from_slice(&self.block);
        out.truncate(len);
    }
}

impl LineWriter {
    /// A writer of lines of JSON of this shape.
    pub fn new(shape: Shape) -> Self {
        match shape {
            Shape::Flat => Self::with(Syntax::Json, fields(), keyed, b"}\n"),
            Shape::Array => {
                let is_envelope = |field: &&Field| field.group == Group::Envelope;
                let envelope = fields().filter(is_envelope);
                let features = fields().filter(|field| !is_envelope(field)).enumerate();
                let mut writer = Self::with(Syntax::Json, envelope, keyed, b"]}\n");
                writer.steps.extend(features.map(listed));
                writer
            }
        }
    }

    /// A writer of lines of CSV, as [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180) has them: a value of a
    /// field that is null is empty.
    pub fn csv() -> Self {
        Self::with(Syntax::Csv, fields(), separated, b"\r\n")
    }

    fn with(
        syntax: Syntax,
        of: impl Iterator<Item = &'static Field> + Clone,
        step: impl Fn((usize, &'static Field)) -> Step,
        end: &'static [u8],
    ) -> Self {
        // Every schema has the field: a test holds it.
        let lost = of.clone().position(|field| field.name == LOST).unwrap_or(usize::MAX);
        Self { schema: schema_id(), syntax, steps: of.enumerate().map(step).collect(), lost, end }
    }

    /// The identifier that lines carry.
    pub fn schema(&self) -> &SchemaId {
        &self.schema
    }

    /// What comes before the first line: the fields' names for CSV, nothing for JSON.
    pub fn header(&self) -> Vec<u8> {
        match self.syntax {
            Syntax::Json => Vec::new(),
            Syntax::Csv => {
                let names: Vec<&str> = fields().map(|field| field.name).collect();
                [names.join(",").as_bytes(), self.end].concat()
            }
        }
    }

    /// Appends a record's line, its end included.
    ///
    /// Returns where in `out` the one digit stands that is the value of [`LOST`], a 0: each consumer may
    /// have another number there.
    pub fn append(&self, out: &mut Vec<u8>, record: &Record, context: &Context<'_>) -> usize {
        out.reserve(TYPICAL_LINE);
        let Context { iface, process, epoch_offset_us } = *context;
        let process = process.map(|process| process.names());
        let vector =
            Vector { record, iface, process, epoch_offset_us, lost: 0, schema: &self.schema };
        let mut lost = 0;
        for (place, Step { prefix, value }) in self.steps.iter().enumerate() {
            prefix.append(out);
            if place == self.lost {
                lost = out.len();
            }
            write_value(out, self.syntax, value(&vector));
        }
        out.extend_from_slice(self.end);
        lost
    }
}

fn keyed((place, field): (usize, &Field)) -> Step {
    let open = if place == 0 { '{' } else { ',' };
    let prefix = format!("{open}\"{}\":", field.name);
    Step { prefix: Prefix::new(prefix.as_bytes()), value: field.value }
}

fn listed((place, field): (usize, &Field)) -> Step {
    let prefix: &[u8] = if place == 0 { b",\"features\":[" } else { b"," };
    Step { prefix: Prefix::new(prefix), value: field.value }
}

fn separated((place, field): (usize, &Field)) -> Step {
    let prefix: &[u8] = if place == 0 { b"" } else { b"," };
    Step { prefix: Prefix::new(prefix), value: field.value }
}

fn write_value(out: &mut Vec<u8>, syntax: Syntax, value: Value<'_>) {
    match value {
        Value::Null if syntax == Syntax::Csv => {}
        Value::Null => out.extend_from_slice(b"null"),
        Value::Integer(n) => write_integer(out, n),
        Value::Float(x) => write_float(out, x),
        Value::Bool(yes) => out.extend_from_slice(if yes { b"true" } else { b"false" }),
        Value::Text(text) => write_text(out, syntax, text),
        Value::Address(address) => quoted(out, syntax, |out| write_address(out, address)),
        Value::CommunityId(id) => {
            quoted(out, syntax, |out| out.extend_from_slice(id.as_str().as_bytes()));
        }
        Value::UnixMicros(micros) => write_seconds(out, micros),
    }
}

/// The fewest digits that read back as the same float.
fn write_float(out: &mut Vec<u8>, value: f64) {
    debug_assert!(value.is_finite(), "the core makes no other, and JSON has none");
    let written = serde_json::to_writer(out, &value);
    debug_assert!(written.is_ok(), "a Vec takes every byte");
}

fn write_text(out: &mut Vec<u8>, syntax: Syntax, text: &str) {
    match syntax {
        Syntax::Json => {
            let written = serde_json::to_writer(out, text);
            debug_assert!(written.is_ok(), "a Vec takes every byte");
        }
        Syntax::Csv if text.contains(['"', ',', '\r', '\n']) => {
            out.push(b'"');
            out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        }
        Syntax::Csv => out.extend_from_slice(text.as_bytes()),
    }
}

fn write_integer(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        // By hand: `Display` goes through a padded buffer, three times as slow.
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                write_integer(out, octet.into());
            }
        }
        IpAddr::V6(address) => {
            let written = write!(out, "{address}");
            debug_assert!(written.is_ok(), "a Vec takes every byte");
        }
    }
}

/// A value that holds nothing to escape.
fn quoted(out: &mut Vec<u8>, syntax: Syntax, inside: impl FnOnce(&mut Vec<u8>)) {
    match syntax {
        Syntax::Json => {
            out.push(b'"');
            inside(out);
            out.push(b'"');
        }
        Syntax::Csv => inside(out),
    }
}

/// Seconds with six decimals, digit by digit: an f64 would not hold them past the year 2242.
fn write_seconds(out: &mut Vec<u8>, micros: i64) {
    if micros < 0 {
        out.push(b'-');
    }
    let micros = micros.unsigned_abs();
    write_integer(out, micros / 1_000_000);
    let mut decimals = *b".000000";
    let mut rest = micros % 1_000_000;
    for digit in decimals[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&decimals);
}

#[cfg(test)]
pub(crate) mod tests;
