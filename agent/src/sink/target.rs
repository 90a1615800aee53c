//! The names of outputs: what `--output` takes.

use std::{fmt, path::PathBuf, str::FromStr};

use anyhow::Result;

use super::{Form, OnFull, Plan, Remote, Server, Wants};

/// Where vectors go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Lines to standard output: `-`.
    Stdout,
    /// Lines to a file, or a named pipe: its path.
    File(PathBuf),
    /// Lines to whoever connects to a socket: `unix:PATH`.
    Unix(PathBuf),
    /// A message for each vector to a NATS server: `nats://HOST:PORT/SUBJECT`, with TLS `tls://…`.
    Nats {
        /// Servers and subject.
        remote: Remote,
        /// Whether the connection must be encrypted.
        tls: bool,
    },
    /// A message for each vector to Kafka: `kafka://BROKER:PORT/TOPIC`.
    #[cfg(feature = "kafka")]
    Kafka(Remote),
    /// Rows to a file of columns: `arrow:PATH`, `parquet:PATH`.
    Columns(ColumnFormat, PathBuf),
}

/// How a file of columns is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnFormat {
    /// [Arrow IPC](https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format), also called Feather.
    Arrow,
    /// [Parquet](https://parquet.apache.org).
    Parquet,
}

impl fmt::Display for ColumnFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdout);
        }
        let path = |path: &str| {
            if path.is_empty() { Err(format!("`{text}` names no file")) } else { Ok(path.into()) }
        };
        let columns = |format: ColumnFormat, rest: &str| {
            if rest == "-" {
                return Err(format!(
                    "{format} goes to a file: standard output has no name to give"
                ));
            }
            path(rest).map(|path| Self::Columns(format, path))
        };
        match text.split_once(':') {
            Some(("file", rest)) => path(rest).map(Self::File),
            Some(("unix", rest)) => path(rest).map(Self::Unix),
            Some(("arrow", rest)) => columns(ColumnFormat::Arrow, rest),
            Some(("parquet", rest)) => columns(ColumnFormat::Parquet, rest),
            Some((scheme, rest))
                if is_scheme(scheme)
                    && let Some(rest) = rest.strip_prefix("//") =>
            {
                remote(scheme, rest)
            }
            _ => path(text).map(Self::File),
        }
    }
}

/// An output at `SCHEME://`.
fn remote(scheme: &str, rest: &str) -> Result<Target, String> {
    match scheme {
        "nats" => {
            Remote::parse("nats", NATS, rest).map(|remote| Target::Nats { remote, tls: false })
        }
        "tls" => Remote::parse("tls", NATS, rest).map(|remote| Target::Nats { remote, tls: true }),
        #[cfg(feature = "kafka")]
        "kafka" => {
            let remote = Remote::parse("kafka", KAFKA, rest)?;
            match &remote.login {
                Some(login) if login.password.is_none() => {
                    Err("Kafka takes USER:PASSWORD, no token".into())
                }
                _ => Ok(Target::Kafka(remote)),
            }
        }
        #[cfg(not(feature = "kafka"))]
        "kafka" => Err(NO_KAFKA.into()),
        _ => Err(format!("there is no output `{scheme}:`. {KINDS}; a file of this name is ./NAME")),
    }
}

#[cfg(not(feature = "kafka"))]
const NO_KAFKA: &str = "this build knows no Kafka. Build one that does by `cargo build --release \
                        --features kafka`, which takes compilers of C and C++, and make";
const KINDS: &str = "An output is `-`, a file, unix:PATH, arrow:PATH, parquet:PATH, nats://HOST:PORT/SUBJECT, or \
                     kafka://BROKER:PORT/TOPIC";
/// The ports that servers have if none is given.
const NATS: u16 = 4222;
#[cfg(feature = "kafka")]
const KAFKA: u16 = 9092;

fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Nats { remote, tls: _ } => write!(f, "{remote}"),
            Self::Columns(format, path) => write!(f, "{format}:{}", path.display()),
            #[cfg(feature = "kafka")]
            Self::Kafka(remote) => write!(f, "{remote}"),
        }
    }
}

impl Target {
    /// Whether it is a file, which may be rotated.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_) | Self::Columns(..))
    }

    /// Whether it is a file of lines.
    pub fn is_file_of_lines(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// What it wants of each vector.
    pub fn wants(&self, plan: &Plan) -> Wants {
        let text = match plan.form() {
            Form::Json => Wants { json: true, ..Wants::default() },
            Form::Csv => Wants { csv: true, ..Wants::default() },
        };
        match self {
            Self::Stdout | Self::File(_) | Self::Unix(_) => text,
            Self::Nats { remote, .. } => Wants { rows: remote.is_by_iface(), ..text },
            Self::Columns(..) => Wants { rows: true, ..Wants::default() },
            // For the key.
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Wants { rows: true, ..text },
        }
    }

    /// The servers that it connects to.
    pub fn remote(&self) -> Option<&Remote> {
        match self {
            Self::Stdout | Self::File(_) | Self::Unix(_) | Self::Columns(..) => None,
            Self::Nats { remote, .. } => Some(remote),
            #[cfg(feature = "kafka")]
            Self::Kafka(remote) => Some(remote),
        }
    }

    /// The servers that are found through those; an error if they are not found now.
    pub fn further_servers(&self) -> Result<Vec<Server>> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(remote) => super::kafka::brokers(remote),
            _ => Ok(Vec::new()),
        }
    }

    /// What happens when its queue is full, if nobody says.
    pub fn default_on_full(&self) -> OnFull {
        match self {
            Self::Stdout | Self::File(_) | Self::Columns(..) => OnFull::Block,
            Self::Unix(_) | Self::Nats { .. } => OnFull::DropOldest,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => OnFull::DropOldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, String> {
        text.parse()
    }

    #[test]
    fn targets_are_read_and_named() {
        for (text, target) in [
            ("-", Target::Stdout),
            ("vectors.jsonl", Target::File("vectors.jsonl".into())),
            ("/var/log/a:b", Target::File("/var/log/a:b".into())),
            ("file:-", Target::File("-".into())),
            ("unix:/run/x.sock", Target::Unix("/run/x.sock".into())),
            ("arrow:x.arrow", Target::Columns(ColumnFormat::Arrow, "x.arrow".into())),
            ("parquet:/a/x", Target::Columns(ColumnFormat::Parquet, "/a/x".into())),
        ] {
            assert_eq!(parse(text), Ok(target));
        }
        for (text, name) in [
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("nats://a:b@host/x.{iface}", "nats://host:4222/x.{iface}"),
            ("tls://token@host:1/x", "tls://host:1/x"),
        ] {
            assert_eq!(parse(text).map(|target| target.to_string()), Ok(name.into()));
        }
    }

    #[test]
    fn what_is_no_output_is_refused_with_a_sentence() {
        assert_eq!(parse("unix:"), Err("`unix:` names no file".into()));
        assert_eq!(parse(""), Err("`` names no file".into()));
        let said = parse("parquet:-").expect_err("no file");
        assert!(said.starts_with("parquet goes to a file"), "{said}");
        let said = parse("ftp://host/x").expect_err("no such output");
        assert!(said.starts_with("there is no output `ftp:`."), "{said}");
        assert!(parse("nats://host").is_err());
        #[cfg(not(feature = "kafka"))]
        assert!(
            parse("kafka://h/x")
                .expect_err("not built in")
                .starts_with("this build knows no Kafka.")
        );
    }
}
