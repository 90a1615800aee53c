//! Files of columns: whole or not there, also after a crash. The tests of the replay hold every value against the
//! lines.

use std::path::Path;

use arrow_array::{
    RecordBatch,
    cast::AsArray as _,
    types::{UInt32Type, UInt64Type},
};
use arrow_ipc::reader::FileReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{super::columns::GROUP_ROWS, *};

const GROUP: u64 = GROUP_ROWS as u64;

fn is_arrow(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|ending| ending == "arrow")
}

fn tables(path: &str) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    if is_arrow(path) {
        let tables = FileReader::try_new(file, None).expect("an Arrow file");
        return tables.map(|table| table.expect("a table")).collect();
    }
    let tables = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let tables = tables.with_batch_size(GROUP_ROWS).build().expect("a Parquet file");
    tables.map(|table| table.expect("a table")).collect()
}

/// The numbers of the rows, and what each says was lost before it.
fn rows(path: &str) -> Vec<(u64, u64)> {
    let numbers = |table: RecordBatch| {
        let column = |name: &str| table.column_by_name(name).expect("a column").clone();
        let (seq, lost) = (column("seq"), column("lost"));
        let lost = lost.as_primitive::<UInt64Type>().values().to_vec();
        let seq = seq.as_primitive::<UInt32Type>().values().to_vec();
        seq.into_iter().map(u64::from).zip(lost).collect::<Vec<_>>()
    };
    tables(path).into_iter().flat_map(numbers).collect()
}

/// A path of each format, and the name of the output.
fn each_format(scratch: &Scratch) -> [(String, String); 2] {
    ["arrow", "parquet"].map(|format| {
        let path = scratch.path(&format!("x.{format}"));
        let output = format!("{format}:{path}");
        (path, output)
    })
}

fn start(output: &str, rotation: Rotation) -> Outputs {
    let block_limit = Duration::from_mins(1);
    Outputs::start(&Plan { block_limit, rotation, ..plan(&[output]) }).expect("a file")
}

fn all_of(numbers: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    numbers.map(|number| (number, 0)).collect()
}

#[test]
fn a_file_gets_its_name_when_it_is_whole() {
    let scratch = Scratch::new("columns");
    for (path, output) in each_format(&scratch) {
        let mut outputs = start(&output, Rotation::default());
        let count = GROUP + 1000;
        run(push_patiently(&mut outputs, 0..count));
        wait_until("a row group is out", || totals(&outputs).sent == GROUP);
        assert!(fs::exists(format!("{path}.partial")).expect("known"));
        assert!(!fs::exists(&path).expect("known"), "{path} has its name and no end");
        let report = end(&mut outputs, PATIENCE).remove(0);
        assert!(matches!(report.ending, Ending::Complete), "{report:?}");
        assert!(report.totals.is_plain() && report.totals.sent == count, "{report:?}");
        assert_eq!(rows(&path), all_of(0..count));
    }
    assert_eq!(scratch.names(), ["x.arrow", "x.parquet"], "nothing else is left");
}

#[test]
fn a_file_says_what_it_holds() {
    let scratch = Scratch::new("columns-schema");
    for (path, output) in each_format(&scratch) {
        let mut outputs = start(&output, Rotation::default());
        end(&mut outputs, PATIENCE);
        let file = fs::File::open(&path).expect("also without rows there is a file");
        let schema = if is_arrow(&path) {
            FileReader::try_new(file, None).expect("an Arrow file").schema()
        } else {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
            let known = reader.metadata().file_metadata().key_value_metadata().expect("metadata");
            let id = known.iter().find(|known| known.key == "schema").expect("the schema");
            let name = agent_common::features::schema_id();
            assert_eq!(id.value.as_deref(), Some(name.as_str()));
            reader.schema().clone()
        };
        assert_eq!(schema.metadata()["schema"], agent_common::features::schema_id().as_str());
        assert_eq!(schema.fields().len(), agent_common::features::fields().count());
        for (column, field) in schema.fields().iter().zip(agent_common::features::fields()) {
            assert_eq!(column.name(), field.name);
            assert_eq!(column.is_nullable(), !field.null.is_empty(), "{}", field.name);
            assert_eq!(column.metadata()["formula"], field.formula);
            let unit = column.metadata().get("unit").map_or("", String::as_str);
            assert_eq!(unit, field.unit);
        }
    }
}

#[test]
fn what_was_lost_is_told_by_the_next_row() {
    let scratch = Scratch::new("columns-lost");
    for (path, output) in each_format(&scratch) {
        let mut plan = plan(&[&output]);
        (plan.queue, plan.on_full) = (64, Some(OnFull::DropOldest));
        let mut outputs = Outputs::start(&plan).expect("a file");
        push(&mut outputs, 0..20_000);
        let Totals { offered, sent, dropped, .. } = end(&mut outputs, PATIENCE).remove(0).totals;
        assert!(offered == 20_000 && dropped > 0 && sent + dropped == offered, "{dropped}");
        let received = rows(&path);
        assert_eq!((received.len() as u64, assert_adds_up(&received, 20_000)), (sent, 0));
    }
}

#[test]
fn files_are_rotated_under_dated_names() {
    let scratch = Scratch::new("columns-rotated");
    let rotation = Rotation { size: Some(1), ..Rotation::default() };
    let count = 2 * GROUP + 10;
    for (path, output) in each_format(&scratch) {
        let mut outputs = start(&output, rotation);
        run(push_patiently(&mut outputs, 0..count));
        assert!(end(&mut outputs, PATIENCE).remove(0).totals.is_plain());
        assert!(!fs::exists(path).expect("known"));
    }
    let names = scratch.names();
    for format in ["arrow", "parquet"] {
        let of_format: Vec<_> = names.iter().filter(|name| name.ends_with(format)).collect();
        assert_eq!(of_format.len(), 3, "{names:?}");
        assert!(of_format.iter().all(|name| name.starts_with("x-20")), "{names:?}");
        let rows: Vec<_> = of_format.iter().flat_map(|name| rows(&scratch.path(name))).collect();
        assert_eq!(rows, all_of(0..count));
    }
}

#[test]
fn an_old_file_of_columns_is_closed_also_if_nothing_comes() {
    let scratch = Scratch::new("columns-age");
    let rotation = Rotation { age: Some(Duration::from_millis(300)), ..Rotation::default() };
    for (_, output) in each_format(&scratch) {
        let before = scratch.names().len();
        let mut outputs = start(&output, rotation);
        push(&mut outputs, 0..7);
        wait_until("it is closed", || totals(&outputs).sent == 7);
        end(&mut outputs, PATIENCE);
        let names = scratch.names();
        assert_eq!(names.len(), before + 1, "{names:?}");
    }
    for name in scratch.names() {
        assert_eq!(rows(&scratch.path(&name)), all_of(0..7));
    }
}

#[test]
fn a_file_of_the_same_name_is_kept() {
    let scratch = Scratch::new("columns-kept");
    for (path, output) in each_format(&scratch) {
        for numbers in [0..10, 10..20] {
            let mut outputs = start(&output, Rotation::default());
            push(&mut outputs, numbers);
            end(&mut outputs, PATIENCE);
        }
        // One that holds nothing replaces none.
        end(&mut start(&output, Rotation::default()), PATIENCE);
        assert_eq!(rows(&path), all_of(10..20));
        fs::remove_file(&path).expect("it is there");
        let kept = scratch.path(&scratch.names()[0]);
        assert_eq!(rows(&kept), all_of(0..10));
        fs::remove_file(kept).expect("it is there");
    }
}

#[test]
fn when_asked_to_reopen_it_finishes_the_file() {
    let scratch = Scratch::new("columns-reopen");
    for (path, output) in each_format(&scratch) {
        let mut outputs = start(&output, Rotation::default());
        outputs.reopen();
        push(&mut outputs, 0..10);
        wait_until("the file is whole", || {
            outputs.reopen();
            fs::exists(&path).expect("known")
        });
        assert_eq!(rows(&path), all_of(0..10));
        push(&mut outputs, 10..20);
        end(&mut outputs, PATIENCE);
        assert_eq!(rows(&path), all_of(10..20));
    }
    assert_eq!(scratch.names().len(), 4, "the first of each has a dated name");
}

#[test]
fn two_do_not_write_one_file() {
    let scratch = Scratch::new("columns-locked");
    for (path, output) in each_format(&scratch) {
        let mut first = start(&output, Rotation::default());
        push(&mut first, 0..10);
        let error = format!("{:#}", Outputs::start(&plan(&[&output])).expect_err("it is taken"));
        assert!(error.contains("another process is writing"), "{error}");
        end(&mut first, PATIENCE);
        assert_eq!(rows(&path), all_of(0..10));
    }
    let error = Outputs::start(&plan(&["parquet:/dev/null"])).expect_err("no file");
    assert!(format!("{error:#}").contains("it is no ordinary file"), "{error:#}");
}

/// What a process that was killed leaves behind: whole row groups, and a part of another.
fn left_behind(scratch: &Scratch, path: &str, output: &str, part: &[u8]) {
    let mut outputs = start(output, Rotation::default());
    let copies = ["partial", "partial.footer"]
        .map(|name| (format!("{path}.{name}"), scratch.path(&format!("copy.{name}"))));
    run(push_patiently(&mut outputs, 0..GROUP));
    wait_until("a row group is out", || totals(&outputs).sent == GROUP);
    for (file, copy) in &copies {
        // Arrow has no footer beside it.
        let _ = fs::copy(file, copy);
    }
    end(&mut outputs, PATIENCE);
    fs::remove_file(path).expect("it was whole");
    for (file, copy) in &copies {
        if let Ok(mut bytes) = fs::read(copy) {
            if file.ends_with(".partial") {
                bytes.extend_from_slice(part);
            }
            fs::write(file, bytes).expect("a file");
            fs::remove_file(copy).expect("it is there");
        }
    }
}

#[test]
fn what_a_crash_left_behind_becomes_a_file() {
    let scratch = Scratch::new("columns-crash");
    for (path, output) in each_format(&scratch) {
        for part in [&b""[..], &[0xff, 0xff, 0xff, 0xff, 0x40, 0, 0, 0, 1, 2, 3]] {
            left_behind(&scratch, &path, &output, part);
            let mut outputs = start(&output, Rotation::default());
            push(&mut outputs, GROUP..GROUP + 5);
            end(&mut outputs, PATIENCE);
            assert_eq!(rows(&path), all_of(GROUP..GROUP + 5));
            fs::remove_file(&path).expect("it is there");
            let names = scratch.names();
            assert_eq!(names.len(), 1, "{names:?}");
            let recovered = scratch.path(&names[0]);
            assert_eq!(rows(&recovered), all_of(0..GROUP));
            fs::remove_file(recovered).expect("it is there");
        }
        // Nothing whole: it is written over.
        fs::write(format!("{path}.partial"), b"PAR1 or ARROW1, and more").expect("a file");
        let mut outputs = start(&output, Rotation::default());
        push(&mut outputs, 0..5);
        end(&mut outputs, PATIENCE);
        assert_eq!(rows(&path), all_of(0..5));
        fs::remove_file(&path).expect("it is there");
        assert_eq!(scratch.names(), [""; 0]);
    }
}
