//! The record decoder and the writer of lines: any bytes are refused, or become lines that keep the schema.

use agent_common::{
    features::{Field, Group, fields},
    record::{DecodeError, Record},
};
use feature_agent::{
    capture::Captures,
    line::{Context, LineWriter, Shape},
    replay::Engine,
};
use serde_json::Value;

use super::{replay::Setting, seeds};
use crate::lines::Line;

/// Of the interface of these records: text that must be escaped in any syntax.
const INTERFACE: &str = "e\"t,h\\0\n";

/// What is no record is refused in a sentence, and what is one is the same bytes and has a line in each shape.
pub(super) fn body(bytes: &[u8]) {
    match Record::from_bytes(bytes) {
        Err(error) => {
            assert!(error.to_string().contains(' '), "{error:?} is no sentence");
            let wrong_size = bytes.len() != size_of::<Record>();
            assert_eq!(matches!(error, DecodeError::Size(_)), wrong_size, "{error:?}");
        }
        Ok(record) => {
            assert_eq!(bytemuck::bytes_of(&record), bytes);
            lines(&record);
        }
    }
}

/// The line of a record of an interface, without the line's end.
pub(super) fn line(writer: &LineWriter, record: &Record, interface: &str) -> String {
    let mut line = Vec::new();
    let lost = writer.append(&mut line, record, &Context::new(interface, 0)).lost;
    assert_eq!(line[lost], b'0', "not the place of the lost ones");
    let line = String::from_utf8(line).expect("text");
    line.trim_end_matches(['\r', '\n']).to_owned()
}

/// All shapes of a record's line say the same, and what the schema promises.
fn lines(record: &Record) {
    let flat = line(&LineWriter::new(Shape::Flat), record, INTERFACE);
    let flat = Line::parse(&flat).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(flat.fields.len(), fields().count());
    for (field, (name, value)) in fields().zip(&flat.fields) {
        assert_eq!(field.name, name);
        assert!(keeps(field, value), "{name} is {value}: {}", flat.raw);
    }
    let array = line(&LineWriter::new(Shape::Array), record, INTERFACE);
    let array = Line::from_array(&array).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(flat.fields, array.fields);
    let csv = line(&LineWriter::csv(), record, INTERFACE);
    assert_eq!(separators(&csv), fields().count() - 1, "{csv}");
}

/// Whether a value is of its field's type, or null where the schema allows it.
fn keeps(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => !field.null.is_empty(),
        Value::Bool(_) => field.kind.name() == "bool",
        Value::Number(number) if field.kind.name() == "integer" => number.is_u64(),
        // A spread is not negative. Whoever sets a record's time may set one before 1970.
        Value::Number(number) => {
            field.kind.name() == "float"
                && number.as_f64().is_some_and(|x| x >= 0.0 || field.group == Group::Envelope)
        }
        Value::String(_) => field.kind.name() == "text",
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Commas of a line of CSV that are not in quotes.
fn separators(csv: &str) -> usize {
    // What stands between quotes is every other piece; a quote in a text is two, with nothing between.
    csv.split('"').step_by(2).map(|piece| piece.matches(',').count()).sum()
}

/// Records that replays make, and one that is cut off.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0; size_of::<Record>() - 1]];
    for content in seeds::captures() {
        let memory = seeds::Memory::new(&content);
        let Ok(mut captures) = Captures::open(&[memory.path()], "capture") else { continue };
        let mut engine = Engine::new(&Setting::default().flows, true);
        while let Some(packet) = captures.next_packet() {
            let Ok(packet) = packet else { continue };
            engine.packet(&packet);
        }
        engine.stop();
        let records = engine.records().drain(..).step_by(7);
        seeds.extend(records.map(|record| bytemuck::bytes_of(&record).to_vec()));
    }
    seeds
}
