//! A record becomes one line of text: of JSON, or of CSV.

mod text;

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
    ops::Range,
    sync::Arc,
};

use agent_common::{
    features::{Field, Group, LOST, SchemaId, Value, Vector, fields, schema_id},
    record::Record,
};
use clap::ValueEnum;

use self::text::{LONGEST_NUMBER, Piece, Room, SLACK, piece_and_integer};
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

/// Bytes by which the texts of a line, but for the names of interface and process, may be longer than numbers: six in
/// quotes, and the longest is a pair of addresses.
const LONGER_TEXTS: usize = 8 * 20;

/// Bytes by which JSON may write one.
const LONGEST_ESCAPE: usize = 6;

/// Writes lines. What does not change from line to line is made once.
#[derive(Debug)]
pub struct LineWriter {
    schema: SchemaId,
    syntax: Syntax,
    steps: Vec<Step>,
    /// The step of the field that differs between consumers.
    lost: usize,
    end: &'static [u8],
    /// Bytes to have ready for a line, but for the names of interface and process.
    room: usize,
}

/// A line that was written.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Where the one digit stands that is the value of [`LOST`], a 0: each consumer may have another number there.
    pub lost: usize,
    /// Where the line ends.
    pub end: usize,
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
    prefix: Piece,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
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
                writer.measured()
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
        let steps = of.enumerate().map(step).collect();
        Self { schema: schema_id(), syntax, steps, lost, end, room: 0 }.measured()
    }

    /// The same, its room known.
    fn measured(self) -> Self {
        let steps = self.steps.iter().map(|step| step.prefix.len() + LONGEST_NUMBER);
        Self { room: steps.sum::<usize>() + LONGER_TEXTS + self.end.len() + SLACK, ..self }
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

    /// Bytes that [`LineWriter::write`] has to have for a vector in this context.
    pub fn room(&self, context: &Context<'_>) -> usize {
        let process = context.process.map_or(0, |process| process.names().text_len());
        self.room + LONGEST_ESCAPE * (context.iface.len() + process)
    }

    /// Writes a record's line to the first of these bytes, which are at least [`LineWriter::room`]; what the others are
    /// then is not told.
    pub fn write(&self, out: &mut [u8], record: &Record, context: &Context<'_>) -> Line {
        let Context { iface, process, epoch_offset_us } = *context;
        let process = process.map(|process| process.names());
        let vector =
            Vector { record, iface, process, epoch_offset_us, lost: 0, schema: &self.schema };
        let (mut at, mut lost) = (0, 0);
        for (place, Step { prefix, value }) in self.steps.iter().enumerate() {
            at = match value(&vector) {
                Value::Integer(n) => {
                    if place == self.lost {
                        lost = at + prefix.len();
                    }
                    piece_and_integer(out, at, prefix, n)
                }
                value => {
                    let mut room = Room::new(out, at);
                    room.piece(prefix);
                    write_value(&mut room, self.syntax, value);
                    room.at()
                }
            };
        }
        let mut room = Room::new(out, at);
        room.bytes(self.end);
        Line { lost, end: room.at() }
    }

    /// Appends a record's line, its end included. Its places are told as those in `out`.
    pub fn append(&self, out: &mut Vec<u8>, record: &Record, context: &Context<'_>) -> Line {
        let start = out.len();
        out.resize(start + self.room(context), 0);
        let Line { lost, end } = self.write(&mut out[start..], record, context);
        out.truncate(start + end);
        Line { lost: start + lost, end: start + end }
    }
}

fn keyed((place, field): (usize, &Field)) -> Step {
    let open = if place == 0 { '{' } else { ',' };
    let prefix = format!("{open}\"{}\":", field.name);
    Step { prefix: Piece::new(prefix.as_bytes()), value: field.value }
}

fn listed((place, field): (usize, &Field)) -> Step {
    let prefix: &[u8] = if place == 0 { b",\"features\":[" } else { b"," };
    Step { prefix: Piece::new(prefix), value: field.value }
}

fn separated((place, field): (usize, &Field)) -> Step {
    let prefix: &[u8] = if place == 0 { b"" } else { b"," };
    Step { prefix: Piece::new(prefix), value: field.value }
}

#[inline]
fn write_value(room: &mut Room<'_>, syntax: Syntax, value: Value<'_>) {
    match value {
        Value::Null if syntax == Syntax::Csv => {}
        Value::Null => room.block(b"null", 4),
        Value::Integer(n) => room.integer(n),
        Value::Float(x) => room.float(x),
        Value::Bool(yes) => room.bytes(if yes { b"true" } else { b"false" }),
        Value::Text(text) => write_text(room, syntax, text),
        Value::Word(word) => quoted(room, syntax, |room| room.bytes(word.as_bytes())),
        Value::Address(address) => quoted(room, syntax, |room| write_address(room, address)),
        Value::CommunityId(id) => quoted(room, syntax, |room| room.block(id.as_bytes(), 30)),
        Value::UnixMicros(micros) => write_seconds(room, micros),
    }
}

fn write_text(room: &mut Room<'_>, syntax: Syntax, text: &str) {
    // RFC 8259, section 7; RFC 4180.
    let is_special = |byte: u8| match syntax {
        Syntax::Json => byte < b' ' || byte == b'"' || byte == b'\\',
        Syntax::Csv => matches!(byte, b'"' | b',' | b'\r' | b'\n'),
    };
    if !text.bytes().any(is_special) {
        return quoted(room, syntax, |room| room.bytes(text.as_bytes()));
    }
    match syntax {
        Syntax::Json => room.bytes(serde_json::Value::from(text).to_string().as_bytes()),
        Syntax::Csv => {
            room.byte(b'"');
            room.bytes(text.replace('"', "\"\"").as_bytes());
            room.byte(b'"');
        }
    }
}

fn write_address(room: &mut Room<'_>, address: IpAddr) {
    match address {
        // By hand: `Display` goes through a padded buffer, three times as slow.
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    room.byte(b'.');
                }
                room.octet(octet);
            }
        }
        IpAddr::V6(address) => write_ipv6(room, address),
    }
}

/// In the form of RFC 5952: of the longest runs of zeros the first is left out.
fn write_ipv6(room: &mut Room<'_>, address: Ipv6Addr) {
    if address.to_ipv4_mapped().is_some() {
        let written = write!(room, "{address}");
        debug_assert!(written.is_ok(), "room takes every byte");
        return;
    }
    let groups = address.segments();
    let left_out = longest_zeros(groups);
    for (place, group) in groups.into_iter().enumerate() {
        if left_out.contains(&place) {
            if place == left_out.start {
                room.block(b"::", 2);
            }
            continue;
        }
        if place > 0 && place != left_out.end {
            room.byte(b':');
        }
        room.hexadecimal(group);
    }
}

/// The first of the longest runs of two zeros or more.
fn longest_zeros(groups: [u16; 8]) -> Range<usize> {
    let (mut longest, mut run) = (0..0, 0..0);
    for (place, group) in groups.into_iter().enumerate() {
        let start = if group == 0 { run.start } else { place + 1 };
        run = start..place + 1;
        if run.len() > longest.len() {
            longest = run.clone();
        }
    }
    if longest.len() > 1 { longest } else { 0..0 }
}

/// A value that holds nothing to escape.
#[inline]
fn quoted(room: &mut Room<'_>, syntax: Syntax, inside: impl FnOnce(&mut Room<'_>)) {
    match syntax {
        Syntax::Json => {
            room.byte(b'"');
            inside(room);
            room.byte(b'"');
        }
        Syntax::Csv => inside(room),
    }
}

/// Seconds with six decimals, digit by digit: an f64 would not hold them past the year 2242.
fn write_seconds(room: &mut Room<'_>, micros: i64) {
    if micros < 0 {
        room.byte(b'-');
    }
    let micros = micros.unsigned_abs();
    room.integer(micros / 1_000_000);
    room.byte(b'.');
    room.six_digits((micros % 1_000_000) as u32);
}

#[cfg(test)]
pub(crate) mod tests;
