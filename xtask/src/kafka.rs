//! Builds with the sink of Kafka, which is off by default.

use std::process::Command;

use anyhow::Result;

use crate::root;

/// Has cargo build with it, and installs what librdkafka is built with.
pub(crate) fn include(cargo: &mut Command) -> Result<&mut Command> {
    root::need("make", "make")?;
    root::need("c++", "g++")?;
    Ok(cargo.args(["--features", "kafka"]))
}
