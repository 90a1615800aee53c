//! Prints what a vector's fields are.

use std::io::{self, Write};

use agent_common::features::{Field, fields, schema_id};
use serde_json::json;

use crate::cli::SchemaFormat;

/// Writes every field, in the order of a line.
pub fn print(out: &mut impl Write, format: SchemaFormat) -> io::Result<()> {
    match format {
        SchemaFormat::Table => table(out),
        SchemaFormat::Json => json(out),
    }
}

fn table(out: &mut impl Write) -> io::Result<()> {
    let head = ["FIELD", "GROUP", "TYPE", "UNIT", "NULL WHEN", "WHAT"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(fields().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..5).filter_map(width).collect();
    writeln!(out, "schema {}\n", schema_id())?;
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(out, "{cell:width$}  ")?;
        }
        writeln!(out, "{}", row[5])?;
    }
    Ok(())
}

fn row(field: &Field) -> [String; 6] {
    let Field { name, group, kind, unit, formula, null, value: _ } = field;
    let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    [
        (*name).to_owned(),
        group.name().to_owned(),
        kind.name().to_owned(),
        or_dash(unit),
        or_dash(null),
        (*formula).to_owned(),
    ]
}

fn json(out: &mut impl Write) -> io::Result<()> {
    let fields: Vec<_> = fields().map(object).collect();
    let schema = json!({ "schema": schema_id().as_str(), "fields": fields });
    serde_json::to_writer_pretty(&mut *out, &schema)?;
    writeln!(out)
}

/// A field without a unit has `null` there, and so has one that is never null.
fn object(field: &Field) -> serde_json::Value {
    let Field { name, group, kind, unit, formula, null, value: _ } = field;
    let or_null = |text: &'static str| (!text.is_empty()).then_some(text);
    json!({
        "name": name,
        "group": group.name(),
        "type": kind.name(),
        "unit": or_null(unit),
        "formula": formula,
        "null": or_null(null),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: SchemaFormat) -> String {
        let mut out = Vec::new();
        print(&mut out, format).expect("a Vec takes every byte");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn the_table_has_a_row_per_field_and_aligned_columns() {
        let table = printed(SchemaFormat::Table);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], format!("schema {}", schema_id()));
        assert_eq!(lines.len(), 3 + fields().count());
        let column = |line: &str, what: &str| line.find(what).map(|at| line[..at].chars().count());
        let group = column(lines[2], "GROUP").expect("a heading");
        for (line, field) in lines[3..].iter().zip(fields()) {
            assert!(line.starts_with(field.name));
            let from_group: String = line.chars().skip(group).collect();
            assert!(from_group.starts_with(field.group.name()), "{line}");
            assert!(line.ends_with(field.formula));
        }
    }

    #[test]
    fn the_json_holds_every_field_in_order() {
        let schema: serde_json::Value =
            serde_json::from_str(&printed(SchemaFormat::Json)).expect("JSON");
        assert_eq!(schema["schema"], schema_id().as_str());
        let listed = schema["fields"].as_array().expect("an array");
        assert_eq!(listed.len(), fields().count());
        for (listed, field) in listed.iter().zip(fields()) {
            assert_eq!(listed["name"], field.name);
            assert_eq!(listed["type"], field.kind.name());
            assert_eq!(listed["formula"], field.formula);
            assert_eq!(listed["null"].is_null(), field.null.is_empty());
        }
    }
}
