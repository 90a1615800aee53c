//! `bench`: what a packet, a flow and a vector cost.

use anyhow::Result;

use crate::{project, root, shell};

/// Runs the bench as root and passes the arguments on.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    root::need("ip", "iproute2")?;
    let mut cargo = project::cargo()?;
    cargo.args(["bench", "--package", "feature-agent-tests", "--bench", "bench"]);
    root::run_programs_of(&mut cargo, "the bench")?;
    shell::run(cargo.arg("--").args(args))
}
