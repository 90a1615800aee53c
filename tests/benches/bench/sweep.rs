//! What a walk over the flow table costs.

use agent_common::sweep::SweepRequest;
use anyhow::{Result, ensure};
use feature_agent::bpf::{Kernel, LoadOptions};

use crate::{
    Plan,
    flows::{FLOWS, empty_table, mean_ns},
    frames,
    kernel::{ETHERNET, NEVER_US, silent},
    proc::thread_time,
    table::{Paired, Row, median, number},
};

pub(crate) const TITLE: &str = "sweep";
pub(crate) const METHOD: &str = "A walk over the default table of 65,536 places as the daemon asks for it every 250 \
    ms, in CPU time; the walk over an empty one is a row of its own and subtracted from the others. Median of \
    11 rounds in turn.";

/// A table.
struct Case {
    what: String,
    flows: u32,
    /// Every flow emits its last vector and is deleted; else none has anything to say.
    ends: bool,
}

fn cases() -> [Case; 4] {
    let case = |flows: u32, ends| {
        let said = if ends { "all end" } else { "nothing due" };
        Case { what: format!("{} flows, {said}", number(flows.into())), flows, ends }
    };
    [case(1_000, false), case(10_000, false), case(FLOWS, false), case(FLOWS, true)]
}

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let mut cases = Vec::from(cases());
    cases.retain(|case| plan.wants(TITLE, &case.what));
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    // Room for a record of every flow.
    let options = LoadOptions { ring_bytes: 32 << 20, ..silent() };
    let mut nothing = Kernel::load(&options)?;
    let mut kernels = Vec::new();
    for case in &cases {
        let mut kernel = Kernel::load(&options)?;
        fill(&mut kernel, case.flows)?;
        kernels.push(kernel);
    }
    let mut empty = Vec::new();
    let mut measured = vec![Paired::default(); cases.len()];
    for round in 0..=plan.pick(11, 1) {
        let base = sweep_us(&mut nothing, false, 0)?;
        if round > 0 {
            empty.push(base);
        }
        for ((case, kernel), paired) in cases.iter().zip(&mut kernels).zip(&mut measured) {
            let whole = sweep_us(kernel, case.ends, case.flows)?;
            if round > 0 {
                paired.base.push(base);
                paired.whole.push(whole);
            }
            if case.ends {
                empty_table(kernel)?;
                fill(kernel, case.flows)?;
            }
        }
    }
    let mut rows = vec![Row::of("an empty table", empty, "µs").remark("the whole walk")];
    rows.extend(cases.into_iter().zip(measured).map(|(case, paired)| {
        let remark = format!("the whole walk: {} µs", number(median(&paired.whole).round()));
        let mut row = paired.row(case.what, "µs per 1,000", f64::from(case.flows) / 1000.0);
        row.times_empty = None;
        let remark = if case.ends { format!("{remark}, a vector each") } else { remark };
        row.remark(remark)
    }));
    Ok(rows)
}

fn fill(kernel: &mut Kernel, flows: u32) -> Result<()> {
    let frames: Vec<Vec<u8>> = (0..flows).map(frames::syn4).collect();
    mean_ns(kernel, ETHERNET, frames.iter()).map(drop)
}

fn sweep_us(kernel: &mut Kernel, ends: bool, flows: u32) -> Result<f64> {
    let request = if ends { SweepRequest::stop() } else { SweepRequest::ordinary(NEVER_US) };
    let start = thread_time()?;
    let report = kernel.sweep(&request)?;
    let spent = thread_time()?.saturating_sub(start);
    let expected = if ends { (0, flows.into()) } else { (u64::from(flows), 0) };
    ensure!((report.flows, report.ended) == expected, "{flows} flows, but {report:?}");
    Ok(spent.as_secs_f64() * 1e6)
}
