//! The options of outputs, on the command line and checked.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::{Form, OnFull, QueueOptions, Rotation, Target};
use crate::{
    line::Shape,
    settings::{Invalid, duration},
};

/// Vectors in a queue, at most: 16 GB of lines.
const MAX_QUEUE: u32 = 10_000_000;

/// What lines of text are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line
    #[default]
    Jsonl,
    /// RFC 4180: first a line with the fields' names; null is empty
    Csv,
}

/// Where vectors go, and how.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Where vectors go; repeat it for several. `-` is standard output, a path a file that lines are appended to or
    /// a named pipe, `unix:PATH` a socket that any number of consumers connect to, `arrow:PATH` and `parquet:PATH`
    /// files of columns, `nats://HOST:4222/SUBJECT` (with TLS `tls://`) a NATS server, `kafka://BROKER:9092/TOPIC`
    /// Kafka, if it is built in. SUBJECT and TOPIC may hold `{iface}` and
    /// `{host}`; a user and a password stand before HOST: `me:pw@`
    #[arg(long = "output", value_name = "WHERE", default_value = "-")]
    pub outputs: Vec<Target>,

    /// What lines are, on standard output, in files, pipes, sockets and messages
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Shape of a line of JSON
    #[arg(long, value_enum, default_value_t)]
    pub shape: Shape,

    /// Close a file of this size, under a name that tells when, and begin a new one. One of columns is closed behind
    /// the row group with which it has it
    #[arg(long, value_name = "SIZE")]
    pub rotate_size: Option<ByteSize>,

    /// Close a file of this age, under a name that tells when, and begin a new one
    #[arg(long, value_name = "DURATION", value_parser = duration())]
    pub rotate_every: Option<Duration>,

    /// Compress files of lines when they are closed
    #[arg(long)]
    pub rotate_zstd: bool,
}

/// What waits for slow consumers of a live stream.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Output")]
pub struct QueueArgs {
    /// Vectors that wait for each consumer at most, at about 1.6 kB each
    #[arg(long, value_name = "VECTORS", default_value_t = 8192)]
    pub queue: u32,

    /// What happens when a queue is full [default: block for standard output, files and pipes, else drop-oldest].
    /// What is dropped is counted, and told to the consumer by the field `lost` of its next vector
    #[arg(long, value_name = "POLICY", value_enum)]
    pub on_full: Option<OnFull>,

    /// How long a full queue may hold the vectors of all outputs back in the kernel, with --on-full block
    #[arg(long, value_name = "DURATION", value_parser = duration(), default_value = "5s")]
    pub block_limit: Duration,
}

impl Default for QueueArgs {
    fn default() -> Self {
        Self { queue: 8192, on_full: None, block_limit: Duration::from_secs(5) }
    }
}

/// Checked options of the outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where vectors go, each once.
    pub targets: Vec<Target>,
    /// Shape of a line of JSON.
    pub shape: Shape,
    /// What lines of text are.
    pub format: Format,
    /// Vectors in a queue at most.
    pub queue: usize,
    /// What happens beyond; `None`: as the kind of output has it.
    pub on_full: Option<OnFull>,
    /// How long a full queue may hold up the others.
    pub block_limit: Duration,
    /// When files are closed.
    pub rotation: Rotation,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            targets: vec![Target::Stdout],
            shape: Shape::Flat,
            format: Format::Jsonl,
            queue: 8192,
            on_full: None,
            block_limit: Duration::from_secs(5),
            rotation: Rotation::default(),
        }
    }
}

impl OutputArgs {
    /// Checks the values.
    pub fn check(self, queue: QueueArgs) -> Result<Plan, Invalid> {
        let Self { outputs, format, shape, rotate_size, rotate_every, rotate_zstd } = self;
        let QueueArgs { queue, on_full, block_limit } = queue;
        let mut targets: Vec<Target> = Vec::with_capacity(outputs.len());
        for target in outputs {
            if targets.contains(&target) {
                return Err(Invalid::new(format!("--output {target} is given twice")));
            }
            targets.push(target);
        }
        if format == Format::Csv && shape == Shape::Array {
            return Err(Invalid::new(
                "--shape array is of JSON: --format csv has a column per field",
            ));
        }
        if !(1..=MAX_QUEUE).contains(&queue) {
            return Err(Invalid::new(format!(
                "--queue must lie within 1 and {MAX_QUEUE}, not {queue}"
            )));
        }
        if rotate_size.is_some_and(|size| size.as_u64() == 0) {
            return Err(Invalid::new("--rotate-size must be more than 0"));
        }
        if rotate_every.is_some_and(|age| age < Duration::from_secs(1)) {
            return Err(Invalid::new("--rotate-every must be at least 1s"));
        }
        let rotation = Rotation {
            size: rotate_size.map(|size| size.as_u64()),
            age: rotate_every,
            zstd: rotate_zstd,
        };
        if rotate_zstd && rotation.size.is_none() && rotation.age.is_none() {
            return Err(Invalid::new(
                "--rotate-zstd compresses files that are closed: say when by --rotate-size or \
                 --rotate-every",
            ));
        }
        if rotate_zstd && !targets.iter().any(Target::is_file_of_lines) {
            return Err(Invalid::new(
                "--rotate-zstd compresses files of lines, and no --output is one",
            ));
        }
        if rotation != Rotation::default() && !targets.iter().any(Target::is_file) {
            return Err(Invalid::new("files are rotated, and no --output is a file"));
        }
        Ok(Plan { targets, shape, format, queue: queue as usize, on_full, block_limit, rotation })
    }
}

impl Plan {
    /// What lines of text are.
    pub fn form(&self) -> Form {
        match self.format {
            Format::Jsonl => Form::Json,
            Format::Csv => Form::Csv,
        }
    }

    /// The queue before an output.
    pub fn queue_of(&self, target: &Target) -> QueueOptions {
        QueueOptions {
            capacity: self.queue,
            on_full: self.on_full.unwrap_or_else(|| target.default_on_full()),
            block_limit: Some(self.block_limit),
        }
    }

    /// The outputs' names, for people.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        names.join(", ")
    }
}
