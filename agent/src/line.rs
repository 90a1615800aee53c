//! A record becomes one line of JSON.

use std::{io::Write as _, net::IpAddr};

use agent_common::{
    features::{Field, Group, SchemaId, Value, Vector, fields, schema_id},
    record::Record,
};
use clap::ValueEnum;

/// Shape of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// One flat object: every field under its name
    #[default]
    Flat,
    /// The envelope's fields under their names, all others in one array `features`, in schema order
    Array,
}

/// Bytes to keep free for a line, so that a buffer grows once: a line is 1,200 to 1,900 bytes.
pub const TYPICAL_LINE: usize = 2048;

/// Writes lines. What does not change from line to line is made once.
#[derive(Debug)]
pub struct LineWriter {
    schema: SchemaId,
    steps: Vec<Step>,
    end: &'static [u8],
}

/// A field, and what stands between the value before and its own.
#[derive(Debug)]
struct Step {
    prefix: Box<[u8]>,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
}

impl LineWriter {
    /// A writer of lines of this shape.
    pub fn new(shape: Shape) -> Self {
        let steps = match shape {
            Shape::Flat => fields().enumerate().map(keyed).collect(),
            Shape::Array => {
                let is_envelope = |field: &&Field| field.group == Group::Envelope;
                let envelope = fields().filter(is_envelope).enumerate().map(keyed);
                let features = fields().filter(|field| !is_envelope(field)).enumerate();
                envelope.chain(features.map(listed)).collect()
            }
        };
        let end: &[u8] = match shape {
            Shape::Flat => b"}\n",
            Shape::Array => b"]}\n",
        };
        Self { schema: schema_id(), steps, end }
    }

    /// The identifier that lines carry.
    pub fn schema(&self) -> &SchemaId {
        &self.schema
    }

    /// Appends a record's line, its newline included; `epoch_offset_us` is unix time minus the record's
    /// clock.
    pub fn append(&self, out: &mut Vec<u8>, record: &Record, iface: &str, epoch_offset_us: i64) {
        out.reserve(TYPICAL_LINE);
        let vector = Vector { record, iface, epoch_offset_us, schema: &self.schema };
        for Step { prefix, value } in &self.steps {
            out.extend_from_slice(prefix);
            write_value(out, value(&vector));
        }
        out.extend_from_slice(self.end);
    }
}

fn keyed((place, field): (usize, &Field)) -> Step {
    let open = if place == 0 { '{' } else { ',' };
    let prefix = format!("{open}\"{}\":", field.name);
    Step { prefix: prefix.into_bytes().into(), value: field.value }
}

fn listed((place, field): (usize, &Field)) -> Step {
    let prefix: &[u8] = if place == 0 { b",\"features\":[" } else { b"," };
    Step { prefix: prefix.into(), value: field.value }
}

fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Integer(n) => write_integer(out, n),
        Value::Float(x) => write_float(out, x),
        Value::Bool(yes) => out.extend_from_slice(if yes { b"true" } else { b"false" }),
        Value::Text(text) => write_text(out, text),
        Value::Address(address) => write_address(out, address),
        Value::CommunityId(id) => quoted(out, |out| out.extend_from_slice(id.as_str().as_bytes())),
        Value::UnixMicros(micros) => write_seconds(out, micros),
    }
}

/// The fewest digits that read back as the same float.
fn write_float(out: &mut Vec<u8>, value: f64) {
    debug_assert!(value.is_finite(), "the core makes no other, and JSON has none");
    let written = serde_json::to_writer(out, &value);
    debug_assert!(written.is_ok(), "a Vec takes every byte");
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok(), "a Vec takes every byte");
}

fn write_integer(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    quoted(out, |out| match address {
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
    });
}

fn quoted(out: &mut Vec<u8>, inside: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    inside(out);
    out.push(b'"');
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
