//! Vectors as a table: a column per field, made from the fields' own list.

use std::{collections::HashMap, sync::Arc};

use agent_common::features::{Field, SchemaId, Type, Value, Vector, fields, schema_id};
use anyhow::{Context as _, Result};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, DictionaryArray, PrimitiveArray, RecordBatch, StringArray,
    builder::{BooleanBuilder, PrimitiveBuilder, StringBuilder},
    types::{
        Float64Type, Int8Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    },
};
use arrow_schema::{DataType, Field as Column, Schema, SchemaRef, TimeUnit};

use crate::sink::Row;

/// Key of a file's metadata under which the schema's identifier stands, as it does in every row.
pub(super) const SCHEMA_KEY: &str = "schema";
/// Key of a file's metadata under which the version of the program stands that made it.
pub(super) const VERSION_KEY: &str = "feature-agent";
/// Time zone of the column `ts`.
const UTC: &str = "UTC";

/// A vector, and how many were lost before it.
pub(super) type Told = (Row, u64);

/// Makes tables of vectors.
#[derive(Debug)]
pub(super) struct Table {
    id: SchemaId,
    schema: SchemaRef,
    /// For each field whose values are words: these, the same for all tables of a file.
    words: Vec<Option<ArrayRef>>,
}

impl Table {
    pub(super) fn new() -> Self {
        let id = schema_id();
        let columns: Vec<Column> = fields().map(column).collect();
        let metadata = [(SCHEMA_KEY, id.as_str()), (VERSION_KEY, env!("CARGO_PKG_VERSION"))];
        let schema = Arc::new(Schema::new_with_metadata(columns, owned(metadata)));
        let words = |field: &Field| match field.kind {
            Type::Word(words) => Some(Arc::new(StringArray::from(words.to_vec())) as ArrayRef),
            _ => None,
        };
        Self { id, schema, words: fields().map(words).collect() }
    }

    /// Types, names and what is to be known about each field.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Fails if a field's value is not of its type, which would be an error in the field's definition.
    pub(super) fn batch(&self, rows: &[Told]) -> Result<RecordBatch> {
        let columns: Result<Vec<ArrayRef>> = fields()
            .zip(&self.words)
            .map(|(field, words)| {
                let values = Values { field, rows, schema: &self.id };
                let array = values.array(words.as_ref());
                array.with_context(|| format!("a value of `{}` is not of its type", field.name))
            })
            .collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns?)?)
    }
}

fn column(field: &Field) -> Column {
    let Field { name, group, kind, unit, formula, null, value: _ } = field;
    let facts = [("group", group.name()), ("unit", unit), ("formula", formula), ("null", null)];
    let facts = facts.into_iter().filter(|(_, text)| !text.is_empty());
    Column::new(*name, data_type(*kind), !null.is_empty()).with_metadata(owned(facts))
}

fn owned<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn data_type(kind: Type) -> DataType {
    match kind {
        Type::U8 => DataType::UInt8,
        Type::U16 => DataType::UInt16,
        Type::U32 => DataType::UInt32,
        Type::U64 => DataType::UInt64,
        Type::Float => DataType::Float64,
        // In µs, as the value is: every value fits, while ns end in the year 2262.
        Type::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        Type::Bool => DataType::Boolean,
        Type::Text => DataType::Utf8,
        Type::Word(_) => DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into()),
    }
}

/// The values of one field.
#[derive(Clone, Copy)]
struct Values<'a> {
    field: &'a Field,
    rows: &'a [Told],
    schema: &'a SchemaId,
}

impl<'a> Values<'a> {
    fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let Self { field, rows, schema } = self;
        rows.iter().map(move |(Row { record, iface, process, epoch_offset_us }, lost)| {
            (field.value)(&Vector {
                record,
                iface,
                process: process.as_ref().map(|process| process.names()),
                epoch_offset_us: *epoch_offset_us,
                lost: *lost,
                schema,
            })
        })
    }

    /// `None`: a value is of another type.
    fn array(self, words: Option<&ArrayRef>) -> Option<ArrayRef> {
        Some(match self.field.kind {
            Type::U8 => self.integers::<UInt8Type>()?,
            Type::U16 => self.integers::<UInt16Type>()?,
            Type::U32 => self.integers::<UInt32Type>()?,
            Type::U64 => self.integers::<UInt64Type>()?,
            Type::Float => Arc::new(self.numbers::<Float64Type>(|value| match value {
                Value::Float(number) => Some(number),
                _ => None,
            })?),
            Type::Time => {
                let times = self.numbers::<TimestampMicrosecondType>(|value| match value {
                    Value::UnixMicros(micros) => Some(micros),
                    _ => None,
                });
                Arc::new(times?.with_timezone(UTC))
            }
            Type::Bool => self.bools()?,
            Type::Text => self.texts()?,
            Type::Word(known) => {
                let keys = self.numbers::<Int8Type>(|value| match value {
                    Value::Word(word) => {
                        known.iter().position(|&known| known == word)?.try_into().ok()
                    }
                    _ => None,
                });
                Arc::new(DictionaryArray::try_new(keys?, Arc::clone(words?)).ok()?)
            }
        })
    }

    fn integers<T: ArrowPrimitiveType>(self) -> Option<ArrayRef>
    where
        T::Native: TryFrom<u64>,
    {
        let integers = self.numbers::<T>(|value| match value {
            Value::Integer(integer) => integer.try_into().ok(),
            _ => None,
        });
        Some(Arc::new(integers?))
    }

    fn numbers<T: ArrowPrimitiveType>(
        self,
        read: impl Fn(Value<'_>) -> Option<T::Native>,
    ) -> Option<PrimitiveArray<T>> {
        let mut column = PrimitiveBuilder::<T>::with_capacity(self.rows.len());
        for value in self.iter() {
            match value {
                Value::Null => column.append_null(),
                value => column.append_value(read(value)?),
            }
        }
        Some(column.finish())
    }

    fn bools(self) -> Option<ArrayRef> {
        let mut column = BooleanBuilder::with_capacity(self.rows.len());
        for value in self.iter() {
            match value {
                Value::Null => column.append_null(),
                Value::Bool(yes) => column.append_value(yes),
                _ => return None,
            }
        }
        Some(Arc::new(column.finish()))
    }

    fn texts(self) -> Option<ArrayRef> {
        let mut column = StringBuilder::new();
        for value in self.iter() {
            match value {
                Value::Null => column.append_null(),
                Value::Text(text) | Value::Word(text) => column.append_value(text),
                Value::CommunityId(id) => column.append_value(id.as_str()),
                Value::Address(address) => column.append_value(address.to_string()),
                _ => return None,
            }
        }
        Some(Arc::new(column.finish()))
    }
}
