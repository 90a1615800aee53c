//! Files of columns, read as any other program would read them, against lines of JSON.

use std::{collections::HashMap, fs::File, path::Path};

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray as _,
    types::{
        Float64Type, Int8Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    },
};
use arrow_ipc::reader::FileReader;
use arrow_schema::{DataType, Schema, TimeUnit};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use crate::lines::Line;

/// The tables of a file, which is Arrow's or Parquet's by the ending of its name.
pub fn tables(path: &Path) -> Vec<RecordBatch> {
    tables_of(path, None)
}

/// The same of these columns alone, in the order that they have in the file.
fn tables_of(path: &Path, names: Option<&[&str]>) -> Vec<RecordBatch> {
    let shown = path.display();
    let open = || File::open(path).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let places = |schema: &Schema| {
        let place = |name: &&str| schema.index_of(name).expect("a column");
        names.map(|names| names.iter().map(place).collect::<Vec<_>>())
    };
    if path.extension().is_some_and(|ending| ending == "arrow") {
        let reader =
            |places| FileReader::try_new(open(), places).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let places = places(&reader(None).schema());
        return reader(places).map(|table| table.expect("a table")).collect();
    }
    let tables = ParquetRecordBatchReaderBuilder::try_new(open());
    let mut tables = tables.unwrap_or_else(|e| panic!("{shown}: {e}"));
    let rows = tables.metadata().file_metadata().num_rows();
    if let Some(places) = places(tables.schema()) {
        let mask = ProjectionMask::roots(tables.parquet_schema(), places);
        tables = tables.with_projection(mask);
    }
    let tables = tables.build().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let tables: Vec<_> = tables.map(|table| table.expect("a table")).collect();
    assert_eq!(count(&tables) as i64, rows, "{shown}: rows, and what the footer says");
    tables
}

/// The number of each row of a file, and how many it says were lost before it.
pub fn numbers_and_lost(path: &Path) -> impl Iterator<Item = (u64, u64)> {
    let integers = |table: &RecordBatch, name| {
        let column = table.column_by_name(name).expect("a column");
        let integer = |row| match value(column, row) {
            Cell::Integer(integer) => integer,
            other => panic!("{name} is {other:?}"),
        };
        (0..table.num_rows()).map(integer).collect::<Vec<_>>()
    };
    tables_of(path, Some(&["seq", "lost"]))
        .into_iter()
        .flat_map(move |table| integers(&table, "seq").into_iter().zip(integers(&table, "lost")))
}

/// Rows of tables.
pub fn count(tables: &[RecordBatch]) -> usize {
    tables.iter().map(RecordBatch::num_rows).sum()
}

/// How often each field had a value, and how often none.
pub type Seen = HashMap<String, [usize; 2]>;

/// Checks every value of every row against the line of the same place, and counts in `seen`.
pub fn assert_same(tables: &[RecordBatch], lines: &[Line], seen: &mut Seen) {
    assert_eq!(count(tables), lines.len(), "rows and lines");
    let mut rest = lines;
    for table in tables {
        let (these, behind) = rest.split_at(table.num_rows());
        rest = behind;
        for (place, column) in table.schema().fields().iter().enumerate() {
            let name = column.name();
            for (row, line) in these.iter().enumerate() {
                let (key, expected) = &line.fields[place];
                assert_eq!(key, name, "order of fields");
                let found = value(table.column(place), row);
                let text = text_of(line, name);
                assert!(same(&found, expected, text), "{name}: {found:?} in {}", line.raw);
                seen.entry(name.clone()).or_default()[usize::from(expected.is_null())] += 1;
            }
        }
        assert!(these.iter().all(|line| line.fields.len() == table.num_columns()));
    }
}

/// What a column may hold.
#[derive(Debug)]
enum Cell {
    Null,
    Integer(u64),
    Float(f64),
    Micros(i64),
    Bool(bool),
    Text(String),
}

fn value(column: &ArrayRef, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match column.data_type() {
        DataType::UInt8 => Cell::Integer(column.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Cell::Integer(column.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Cell::Integer(column.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Cell::Integer(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => {
            Cell::Micros(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Boolean => Cell::Bool(column.as_boolean().value(row)),
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::Dictionary(..) => {
            let column = column.as_dictionary::<Int8Type>();
            let word = column.key(row).expect("a key");
            Cell::Text(column.values().as_string::<i32>().value(word).to_owned())
        }
        other => panic!("a column of {other}"),
    }
}

/// A number as it stands in the line: the parser of JSON rounds the last digit as it likes.
fn text_of<'a>(line: &'a Line, name: &str) -> &'a str {
    let (_, behind) = line.raw.split_once(&format!("\"{name}\":")).expect("the field");
    behind.split([',', '}']).next().unwrap_or(behind)
}

fn same(found: &Cell, expected: &Value, text: &str) -> bool {
    match found {
        Cell::Null => expected.is_null(),
        Cell::Integer(found) => text == found.to_string(),
        Cell::Float(found) => text.parse().is_ok_and(|x: f64| x.to_bits() == found.to_bits()),
        // Seconds with six decimals.
        Cell::Micros(found) => text.replace('.', "") == found.to_string(),
        Cell::Bool(found) => expected.as_bool() == Some(*found),
        Cell::Text(found) => expected.as_str() == Some(found),
    }
}
