//! `endurance`: a day's worth of vectors through each sink.

use anyhow::{Context as _, Result, bail};

use crate::{kafka, project, shell, test::KERNEL_TESTS, unpacked};

/// Ten million: what a busy host makes in a day.
const VECTORS: u64 = 10_000_000;

/// Runs the endurance tests with many vectors, one sink after the other, in a release build.
pub(crate) fn endurance(args: &[String]) -> Result<()> {
    let (vectors, filter) = match args {
        [] => (VECTORS, None),
        [vectors] => (number(vectors)?, None),
        [vectors, filter] => (number(vectors)?, Some(filter)),
        _ => bail!("`endurance` takes a number of vectors, and which sinks"),
    };
    let mut cargo = project::cargo()?;
    cargo.args(["test", "--release", "--package", KERNEL_TESTS, "--test", "endurance"]);
    kafka::include(&mut cargo)?;
    cargo.env("NATS_SERVER", unpacked::need("nats-server", "nats-server")?);
    cargo.env("FEATURE_AGENT_ENDURANCE", vectors.to_string());
    // One at a time, so that each has the machine to itself, and what it says is seen.
    cargo.args(["--", "--test-threads", "1", "--nocapture"]).args(filter);
    shell::run(&mut cargo)
}

fn number(text: &str) -> Result<u64> {
    text.replace('_', "").parse().with_context(|| format!("`{text}` is no number of vectors"))
}
