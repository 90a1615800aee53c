//! `test`: every test there is; the README's command.

use anyhow::Result;

use crate::{build_ebpf, kafka, project, root, shell, unpacked, vm};

/// The package whose tests load programs into the kernel and make network namespaces.
pub(crate) const KERNEL_TESTS: &str = "feature-agent-tests";

/// Runs every test, those on the real kernel as root, and passes the arguments to each program.
pub(crate) fn test(args: &[String]) -> Result<()> {
    root::need("ip", "iproute2")?;
    // What the product is compared with, and what reads its completions.
    for program in ["tshark", "tcpdump", "zsh", "fish"] {
        root::want(program, program);
    }
    // Who asks for some tests does not ask for all kernels.
    let guests = if args.is_empty() { vm::Background::start() } else { None };
    let mut ordinary = project::cargo()?;
    ordinary.args(["test", "--no-fail-fast", "--workspace"]);
    ordinary.args(["--exclude", build_ebpf::PACKAGE, "--exclude", KERNEL_TESTS]);
    let mut kernel = project::cargo()?;
    kernel.args(["test", "--no-fail-fast", "--package", KERNEL_TESTS]);
    kernel.env("NATS_SERVER", unpacked::need("nats-server", "nats-server")?);
    root::run_programs_of(&mut kernel, "testing on the real kernel")?;
    // Against a cluster that librdkafka mocks, which is built for this alone.
    let mut kafka = project::cargo()?;
    kafka.args(["test", "--package", "feature-agent", "--lib", "kafka"]);
    kafka::include(&mut kafka)?;
    // All, whatever the first says: one failure should not hide another.
    let first = shell::run(ordinary.arg("--").args(args));
    let second = shell::run(kernel.arg("--").args(args));
    let third = shell::run(kafka.arg("--").args(args));
    let fourth = guests.map_or(Ok(()), vm::Background::finish);
    first.and(second).and(third).and(fourth)
}
