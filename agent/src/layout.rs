//! Prints how the maps that `--pin` pins lie in memory, from the definitions of the structures in them.

use std::io::{self, Write};

use agent_common::{
    entry::{Entry, Place, STATES},
    features::fingerprint,
    key::LOCAL,
    layout::{Layout as _, Shape},
    owner::CLAIMS,
    record::{DirectionBy, Reason, Record},
    window::{entropy::FRACTION_BITS, slot},
};
use serde_json::{Value, json};

/// Version of the maps' names and of what is in them.
const VERSION: &str = "feature-agent-maps/1";

/// What stands behind the name `layout` beside the pinned maps: it changes when their layout does.
pub fn layout_id() -> String {
    let parts: Vec<String> = [Place::SHAPE, Entry::SHAPE, Record::SHAPE]
        .iter()
        .flat_map(fields)
        .map(|field| field.to_string())
        .chain([codes().to_string(), slot_fields().to_string()])
        .collect();
    let hex = fingerprint(parts.iter().map(String::as_str));
    format!("{VERSION}:{}", String::from_utf8_lossy(&hex))
}

/// Writes the layout as one JSON object, each number that a structure holds in a line.
pub fn print(out: &mut impl Write) -> io::Result<()> {
    expand(out, &layout(), 0)?;
    writeln!(out)
}

/// Objects and lists of objects over several lines, all else in one.
fn expand(out: &mut impl Write, value: &Value, depth: usize) -> io::Result<()> {
    let margin = "  ".repeat(depth + 1);
    let comma = |index| if index == 0 { "" } else { "," };
    match value {
        Value::Object(members) if depth < 2 => {
            write!(out, "{{")?;
            for (index, (name, value)) in members.iter().enumerate() {
                write!(out, "{}\n{margin}{}: ", comma(index), json!(name))?;
                expand(out, value, depth + 1)?;
            }
            write!(out, "\n{}}}", &margin[2..])
        }
        Value::Array(items) => {
            write!(out, "[")?;
            for (index, item) in items.iter().enumerate() {
                write!(out, "{}\n{margin}{item}", comma(index))?;
            }
            write!(out, "\n{}]", &margin[2..])
        }
        value => write!(out, "{value}"),
    }
}

fn layout() -> Value {
    json!({
        "layout": layout_id(),
        "byte_order": if cfg!(target_endian = "little") { "little" } else { "big" },
        "flows": {
            "type": "hash",
            "key_size": size_of::<Place>(),
            "value_size": size_of::<Entry>(),
            "key": documented(&Place::SHAPE),
            "value": documented(&Entry::SHAPE),
        },
        "records": {
            "type": "ringbuf",
            "record_size": size_of::<Record>(),
            "record": documented(&Record::SHAPE),
        },
        "slot": slot_fields(),
        "codes": codes(),
        "entropy_fraction_bits": FRACTION_BITS,
    })
}

/// The numbers that stand for words.
fn codes() -> Value {
    let words = |pairs: &[(u64, &'static str)]| -> Value {
        pairs.iter().map(|(code, word)| (code.to_string(), json!(word))).collect()
    };
    let reasons: Vec<_> = Reason::ALL.iter().map(|code| (*code as u64, code.name())).collect();
    let rules: Vec<_> = DirectionBy::ALL.iter().map(|code| (*code as u64, code.name())).collect();
    json!({
        "state": words(&STATES),
        "reason": words(&reasons),
        "direction_by": words(&rules),
        "local": words(&LOCAL),
        "claim": words(&CLAIMS),
    })
}

/// The parts of a word of the window's ring.
fn slot_fields() -> Value {
    slot::FIELDS
        .iter()
        .map(|(name, shift, bits)| json!({ "name": name, "shift": shift, "bits": bits }))
        .collect()
}

/// The numbers in a structure, each with its path, offset, bits and count.
fn fields(shape: &Shape) -> Vec<Value> {
    let mut fields = Vec::new();
    walk("", 0, shape, "", &mut fields);
    for field in &mut fields {
        field.as_object_mut().and_then(|field| field.remove("what"));
    }
    fields
}

/// As [`fields`], with what each is for.
fn documented(shape: &Shape) -> Vec<Value> {
    let mut fields = Vec::new();
    walk("", 0, shape, "", &mut fields);
    fields
}

fn walk(path: &str, at: usize, shape: &Shape, what: &str, fields: &mut Vec<Value>) {
    let mut number = |bits: u32, count: usize| {
        fields.push(json!({
            "name": path, "offset": at, "type": format!("u{bits}"), "count": count, "what": what,
        }));
    };
    match *shape {
        Shape::Integer(bits) => number(bits, 1),
        Shape::Array(Shape::Integer(bits), count) => number(*bits, count),
        Shape::Array(of, count) => {
            for index in 0..count {
                walk(&format!("{path}[{index}]"), at + index * of.size(), of, what, fields);
            }
        }
        Shape::Struct(members) => {
            for member in members {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", member.name);
                walk(&path, at + member.offset, &member.shape, &words(member.what), fields);
            }
        }
    }
}

/// Lines of documentation as one, its links as the names of what they lead to.
fn words(lines: &[&str]) -> String {
    let text = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let mut parts = text.trim_end().split("[`");
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (link, rest) = part.split_once("`]").unwrap_or((part, ""));
        words += link.rsplit("::").next().unwrap_or(link);
        words += rest;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_structure_fill_it() {
        let layout = layout();
        for (part, list, size) in [
            ("flows", "key", "key_size"),
            ("flows", "value", "value_size"),
            ("records", "record", "record_size"),
        ] {
            let mut end = 0;
            for field in layout[part][list].as_array().expect("a list") {
                assert_eq!(field["offset"], end, "{field}");
                let bits: u64 = field["type"].as_str().expect("a type")[1..].parse().expect("bits");
                end += bits / 8 * field["count"].as_u64().expect("a count");
                assert_ne!(field["what"], "", "{field}");
            }
            assert_eq!(layout[part][size], end);
        }
    }

    #[test]
    fn a_member_is_found_by_its_path() {
        let layout = layout();
        let value = layout["flows"]["value"].as_array().expect("a list");
        let offset = |name: &str| {
            value.iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("no {name}"))
                ["offset"]
                .as_u64()
        };
        // ARCHITECTURE.md: lock and zero, key, Summary, 40 bytes of state, Window.
        assert_eq!(offset("key.ifindex"), Some(8 + 32));
        assert_eq!(offset("flow.summary.totals[1].packets"), Some(56 + 112));
        assert_eq!(offset("flow.window.sums.lengths[1].packets"), Some(56 + 272 + 68));
        assert_eq!(offset("flow.window.ring"), Some(56 + 272 + 144));
        assert_eq!(offset("state"), Some(1032));
    }

    #[test]
    fn a_slot_is_what_its_fields_say() {
        let packet = slot::Packet::new(0x0abc_def1, 0xf_edcb, 0xa5, 1);
        let bits = slot::Slot::of(packet).to_bits();
        let parts: Vec<u64> = slot::FIELDS
            .iter()
            .map(|(_, shift, width)| bits >> shift & ((1 << width) - 1))
            .collect();
        assert_eq!(parts, [0x0abc_def1, 0xf_edcb, 0xa5, 1, 27]);
    }
}
