//! Tables become bytes: Arrow's file format, or Parquet. All in memory, so that what fails in writing them can be
//! tried again.

use std::mem::take;

use anyhow::Result;
use arrow_array::RecordBatch;
use arrow_ipc::{
    MetadataVersion,
    writer::{FileWriter, IpcWriteOptions},
};
use arrow_schema::SchemaRef;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::{
        metadata::{FileMetaData, KeyValue, ParquetMetaDataBuilder, ParquetMetaDataWriter},
        properties::{EnabledStatistics, WriterProperties},
    },
};

use crate::sink::ColumnFormat;

/// Where the parts of an Arrow file begin: at a multiple of so many bytes, and so its stream of tables, behind the
/// file's magic.
pub(super) const ARROW_ALIGNMENT: usize = 64;

/// Makes the bytes of one file, in order.
pub(super) enum Encoder {
    /// [Arrow IPC](https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format): a stream of tables, then a
    /// list of where they are.
    Arrow(Box<FileWriter<Vec<u8>>>),
    /// [Parquet](https://parquet.apache.org/docs/file-format/): row groups, then what they hold and where.
    Parquet {
        /// Makes the row groups.
        writer: Box<ArrowWriter<Vec<u8>>>,
        /// What stands in the footer besides them.
        about: Box<FileMetaData>,
    },
}

impl Encoder {
    /// Of a file whose tables have this schema.
    pub(super) fn new(format: ColumnFormat, schema: &SchemaRef) -> Result<Self> {
        Ok(match format {
            ColumnFormat::Arrow => {
                let options =
                    IpcWriteOptions::try_new(ARROW_ALIGNMENT, false, MetadataVersion::V5)?;
                let writer = FileWriter::try_new_with_options(Vec::new(), schema, options)?;
                Self::Arrow(writer.into())
            }
            ColumnFormat::Parquet => {
                let begin =
                    || ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties(schema)));
                // The footer of an empty file, for those of this one.
                let empty = begin()?.close()?;
                let about = Box::new(empty.file_metadata().clone());
                Self::Parquet { writer: begin()?.into(), about }
            }
        })
    }

    /// What the file goes on with: the beginning if there was none, and the table, if it holds anything.
    pub(super) fn encode(&mut self, table: Option<&RecordBatch>) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Arrow(writer) => {
                table.map(|table| writer.write(table)).transpose()?;
                take(writer.get_mut())
            }
            Self::Parquet { writer, .. } => {
                table.map(|table| writer.write(table)).transpose()?;
                writer.flush()?;
                writer.sync()?;
                take(writer.inner_mut())
            }
        })
    }

    /// What would end the file here, if that can be said before it ends.
    pub(super) fn footer(&self) -> Result<Option<Vec<u8>>> {
        let Self::Parquet { writer, about } = self else { return Ok(None) };
        let groups = writer.flushed_row_groups().to_vec();
        let metadata =
            ParquetMetaDataBuilder::new((**about).clone()).set_row_groups(groups).build();
        let mut bytes = Vec::new();
        ParquetMetaDataWriter::new(&mut bytes, &metadata).finish()?;
        Ok(Some(bytes))
    }

    /// What ends the file: nothing can follow.
    pub(super) fn end(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Arrow(writer) => {
                writer.finish()?;
                Ok(take(writer.get_mut()))
            }
            Self::Parquet { .. } => Ok(self.footer()?.unwrap_or_default()),
        }
    }
}

/// What every reader reads: Parquet 1.0, Snappy, and smallest and largest value of each column of a row group.
fn properties(schema: &SchemaRef) -> WriterProperties {
    let metadata = schema.metadata().iter();
    let metadata = metadata.map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    WriterProperties::builder()
        .set_created_by(concat!("feature-agent version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // They lie before the footer, and would have to be written again with it.
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(metadata))
        .build()
}
