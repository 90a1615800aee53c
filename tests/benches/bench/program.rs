//! How large the program is, and what the verifier had to do.

use std::{fs, path::Path};

use agent_common::parse::Link;
use anyhow::{Context as _, Result};
use feature_agent::bpf::{Kernel, LoadOptions, Program};
use feature_agent_tests::agent::binary;

use crate::{
    Plan,
    kernel::defaults,
    proc::bpf_field,
    table::{Row, number},
};

pub(crate) const TITLE: &str = "the program";
pub(crate) const METHOD: &str = "As this kernel tells after loading; with the log off the verifier removes what \
    would write to it, with -vv it is there.";

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/bpf/feature-agent.bpf.o");

const PROGRAMS: [Program; 3] =
    [Program::Packet(Link::Ethernet), Program::Packet(Link::Ip), Program::Sweep];

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kernel_log in [false, true] {
        let suffix = if kernel_log { ", -vv" } else { "" };
        let mut kernel = None;
        for program in PROGRAMS {
            let what = format!("verified instructions, `{}`{suffix}", program.name());
            if !plan.wants(TITLE, &what) {
                continue;
            }
            let kernel = match &mut kernel {
                Some(kernel) => kernel,
                none => none.insert(Kernel::load(&LoadOptions { kernel_log, ..defaults() })?),
            };
            let Some(verified) = kernel.verified_instructions(program)? else { continue };
            rows.push(Row::new(what, verified.into(), "").remark(size(program)?));
        }
    }
    let files = [
        ("eBPF object", Path::new(OBJECT), "embedded in the agent"),
        ("`feature-agent`, release build", binary(), "with line tables"),
    ];
    for (what, path, remark) in files {
        if plan.wants(TITLE, what) {
            let size = fs::metadata(path).with_context(|| path.display().to_string())?.len();
            rows.push(Row::new(what, size as f64, "bytes").remark(remark));
        }
    }
    Ok(rows)
}

/// The loaded program's size. Only this process's: others may run agents of their own.
fn size(program: Program) -> Result<String> {
    let mine = bpf_field(std::process::id(), "prog_id", "prog_id")?;
    for info in aya::programs::loaded_programs() {
        // One that was unloaded since.
        let Ok(info) = info else { continue };
        let kernel_name = program.name().get(..15).unwrap_or(program.name());
        if mine.contains(&info.id().into()) && info.name() == kernel_name.as_bytes() {
            let translated = info.size_translated().map_or(0, |bytes| bytes / 8);
            return Ok(format!(
                "{} instructions loaded, {} bytes of machine code",
                number(translated.into()),
                number(info.size_jitted().into())
            ));
        }
    }
    Ok(String::new())
}
