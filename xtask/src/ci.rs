//! `ci`: what must hold before a change is merged, besides the tests.

use std::process::Command;

use anyhow::Result;

use crate::{build_ebpf, kafka, project, shell, test::KERNEL_TESTS, tidy};

/// Runs every check in turn and stops at the first that fails.
pub(crate) fn ci() -> Result<()> {
    shell::say("format");
    shell::run(project::cargo()?.args(["fmt", "--all", "--check"]))?;

    shell::say("tidy");
    tidy::tidy()?;

    shell::say("lints, for this machine");
    // With Kafka first: librdkafka's build, which is one compiler at a time, has company then.
    let mut all = project::cargo()?;
    all.args(["clippy", "--workspace", "--exclude", build_ebpf::PACKAGE, "--all-targets"]);
    shell::run(deny_warnings(kafka::include(&mut all)?))?;
    let mut ordinary = project::cargo()?;
    ordinary.args(["clippy", "--package", "feature-agent", "--package", KERNEL_TESTS]);
    shell::run(deny_warnings(ordinary.arg("--all-targets")))?;

    shell::say("lints, for the kernel");
    shell::run(deny_warnings(&mut build_ebpf::cargo("clippy")?))?;

    shell::say("the committed kernel program");
    build_ebpf::check()?;

    shell::say("docs");
    let mut docs = project::cargo()?;
    docs.args(["doc", "--workspace", "--exclude", build_ebpf::PACKAGE, "--no-deps"]);
    docs.arg("--document-private-items").env("RUSTDOCFLAGS", "-Dwarnings");
    shell::run(&mut docs)?;

    shell::say("all checks pass");
    Ok(())
}

/// Makes a clippy's warnings errors.
fn deny_warnings(clippy: &mut Command) -> &mut Command {
    clippy.args(["--", "-Dwarnings"])
}
