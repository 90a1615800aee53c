//! Vectors on their way: finished once, shared by all sinks.

use std::{
    borrow::Cow,
    io::IoSlice,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use agent_common::record::Record;

use crate::{
    line::{Context, Line, LineWriter},
    process::Process,
};

/// Vectors of a batch at most.
pub const BATCH: usize = 128;
/// Buffers kept for the next batches.
const SPARE: usize = 8;
/// A batch that fills less of its buffer is copied out of it: a queue of such would hold mostly nothing.
const WORTH_KEEPING: usize = 2;

/// Which kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines of JSON.
    Json,
    /// Lines of CSV.
    Csv,
}

/// What sinks want of each vector: it is made once, and only if somebody wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Lines of JSON.
    pub json: bool,
    /// Lines of CSV.
    pub csv: bool,
    /// The integers.
    pub rows: bool,
}

impl std::ops::BitOr for Wants {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            json: self.json || other.json,
            csv: self.csv || other.csv,
            rows: self.rows || other.rows,
        }
    }
}

/// A vector that is not finished.
#[derive(Clone, Debug)]
pub struct Row {
    /// The integers.
    pub record: Record,
    /// Name of the interface.
    pub iface: Arc<str>,
    /// The record's process, if it names one.
    pub process: Option<Arc<Process>>,
    /// Unix time minus the record's clock, in µs.
    pub epoch_offset_us: i64,
}

/// Where a line ends, and where its [`agent_common::features::LOST`] stands.
#[derive(Clone, Copy, Debug)]
struct Mark {
    lost: usize,
    end: usize,
}

/// Complete lines.
#[derive(Debug, Default)]
struct Text {
    /// Behind the last line's end they mean nothing.
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

impl Text {
    /// The bytes of one line.
    fn line(&self, index: usize) -> Range<usize> {
        self.begin(index)..self.marks[index].end
    }

    fn begin(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.marks[before].end)
    }

    fn end(&self) -> usize {
        self.begin(self.marks.len())
    }

    /// Adds a line.
    fn push(&mut self, writer: &LineWriter, record: &Record, context: &Context<'_>) {
        let start = self.end();
        let needed = start + writer.room(context);
        if self.bytes.len() < needed {
            self.bytes.reserve(needed - self.bytes.len());
            self.bytes.resize(self.bytes.capacity(), 0);
        }
        let Line { lost, end } = writer.write(&mut self.bytes[start..], record, context);
        self.marks.push(Mark { lost: start + lost, end: start + end });
    }

    /// The text, moved to a buffer of its size if its own is far too large.
    fn fitted(&mut self) -> Self {
        let end = self.end();
        if end * WORTH_KEEPING >= self.bytes.capacity() {
            return std::mem::take(self);
        }
        let fitted = Self { bytes: self.bytes[..end].to_vec(), marks: self.marks.clone() };
        self.marks.clear();
        fitted
    }
}

/// Vectors that no one changes any more.
#[derive(Debug)]
pub struct Batch {
    vectors: usize,
    json: Text,
    csv: Text,
    rows: Vec<Row>,
    /// Where a large buffer goes when the last sink is through with it.
    home: Arc<Spares>,
}

/// Buffers for the next batches. The one that came last, which the cache may still hold, goes first.
#[derive(Debug, Default)]
struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn put(&self, buffer: Vec<u8>) {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARE {
            spares.push(buffer);
        }
    }
}

impl Batch {
    /// How many.
    pub fn len(&self) -> usize {
        self.vectors
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vectors == 0
    }

    fn text(&self, form: Form) -> &Text {
        match form {
            Form::Json => &self.json,
            Form::Csv => &self.csv,
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for text in [&mut self.json, &mut self.csv] {
            if text.bytes.capacity() > 0 {
                self.home.put(std::mem::take(&mut text.bytes));
            }
        }
    }
}

/// Makes batches.
#[derive(Debug)]
pub struct Builder {
    json: Option<LineWriter>,
    csv: Option<LineWriter>,
    wants: Wants,
    vectors: usize,
    texts: [Text; 2],
    rows: Vec<Row>,
    /// The interface of the last vector: most often that of the next.
    iface: Arc<str>,
    home: Arc<Spares>,
}

impl Builder {
    /// Of vectors as they are wanted; `json` is their writer.
    pub fn new(wants: Wants, json: LineWriter) -> Self {
        Self {
            json: wants.json.then_some(json),
            csv: wants.csv.then(LineWriter::csv),
            wants,
            vectors: 0,
            texts: Default::default(),
            rows: Vec::new(),
            iface: "".into(),
            home: Arc::default(),
        }
    }

    /// Vectors of the batch so far.
    pub fn len(&self) -> usize {
        self.vectors
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vectors == 0
    }

    /// Adds a vector.
    pub fn push(&mut self, record: &Record, context: &Context<'_>) {
        for (writer, text) in [&self.json, &self.csv].into_iter().zip(&mut self.texts) {
            let Some(writer) = writer else { continue };
            if text.bytes.capacity() == 0 {
                text.bytes = self.home.take();
            }
            text.push(writer, record, context);
        }
        if self.wants.rows {
            let Context { iface, process, epoch_offset_us } = *context;
            if *self.iface != *iface {
                self.iface = iface.into();
            }
            let iface = Arc::clone(&self.iface);
            let process = process.cloned();
            self.rows.push(Row { record: *record, iface, process, epoch_offset_us });
        }
        self.vectors += 1;
    }

    /// The batch, if there is anything in it.
    pub fn take(&mut self) -> Option<Arc<Batch>> {
        if self.vectors == 0 {
            return None;
        }
        let [json, csv] = self.texts.each_mut().map(Text::fitted);
        Some(Arc::new(Batch {
            vectors: std::mem::take(&mut self.vectors),
            json,
            csv,
            rows: std::mem::take(&mut self.rows),
            home: Arc::clone(&self.home),
        }))
    }
}

/// The part of a batch that a consumer still has to get.
#[derive(Clone, Debug)]
pub struct Portion {
    batch: Arc<Batch>,
    range: Range<usize>,
    /// Vectors that the consumer did not get before the first of these.
    pub(super) lost: u64,
}

impl Portion {
    /// A whole batch.
    pub(super) fn new(batch: &Arc<Batch>, lost: u64) -> Self {
        Self { batch: Arc::clone(batch), range: 0..batch.vectors, lost }
    }

    /// Vectors.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Takes vectors off the front, which were let out.
    pub(super) fn advance(&mut self, vectors: usize) {
        if vectors > 0 {
            self.range.start += vectors;
            self.lost = 0;
        }
    }

    /// Takes vectors off the front, which are lost to the consumer.
    pub(super) fn lose_oldest(&mut self, vectors: usize) {
        self.range.start += vectors;
        self.lost += vectors as u64;
    }

    /// Takes vectors off the back.
    pub(super) fn cut_newest(&mut self, vectors: usize) {
        self.range.end -= vectors;
    }

    /// The vectors as integers, each with what was lost before it. There are none unless they are wanted.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, u64)> {
        let rows = self.batch.rows.get(self.range.clone()).unwrap_or_default();
        rows.iter().enumerate().map(|(place, row)| (row, if place == 0 { self.lost } else { 0 }))
    }

    /// One of the vectors as integers, if they are wanted.
    pub fn row(&self, index: usize) -> Option<&Row> {
        self.batch.rows.get(self.range.start + index)
    }

    /// One of the lines, its end included.
    pub fn line(&self, form: Form, index: usize) -> Cow<'_, [u8]> {
        let text = self.batch.text(form);
        let line = text.line(self.range.start + index);
        if index > 0 || self.lost == 0 {
            return Cow::Borrowed(&text.bytes[line]);
        }
        let lost = text.marks[self.range.start].lost;
        let (before, behind) = (&text.bytes[line.start..lost], &text.bytes[lost + 1..line.end]);
        Cow::Owned([before, self.lost.to_string().as_bytes(), behind].concat())
    }

    /// All of the lines.
    pub fn lines(&self, form: Form) -> Lines<'_> {
        let text = self.batch.text(form);
        let begin = text.begin(self.range.start);
        let end = self.range.end.checked_sub(1).map_or(begin, |last| text.marks[last].end);
        if self.is_empty() || self.lost == 0 {
            return Lines {
                text,
                first: self.range.start,
                begin,
                parts: [&text.bytes[begin..end], b"", b""],
                digits: String::new(),
            };
        }
        let lost = text.marks[self.range.start].lost;
        let parts: [&[u8]; 3] = [&text.bytes[begin..lost], b"", &text.bytes[lost + 1..end]];
        Lines { text, first: self.range.start, begin, parts, digits: self.lost.to_string() }
    }
}

/// The lines of a portion, in at most three pieces.
#[derive(Debug)]
pub struct Lines<'a> {
    text: &'a Text,
    first: usize,
    begin: usize,
    /// What stands before and behind the digits.
    parts: [&'a [u8]; 3],
    /// The number that stands in the place of a 0; none if that is right.
    digits: String,
}

impl Lines<'_> {
    /// The bytes from `done` on.
    pub fn from(&self, mut done: usize) -> [IoSlice<'_>; 3] {
        let [before, _, behind] = self.parts;
        [before, self.digits.as_bytes(), behind].map(|part| {
            let skipped = done.min(part.len());
            done -= skipped;
            IoSlice::new(&part[skipped..])
        })
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.parts[0].len() + self.digits.len() + self.parts[2].len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a line ends, in bytes of these.
    pub fn end(&self, index: usize) -> usize {
        // The digits stand in the first line, in place of one.
        let longer = self.digits.len().saturating_sub(1);
        self.text.marks[self.first + index].end - self.begin + longer
    }
}
