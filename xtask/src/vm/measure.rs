//! What the bench cannot measure on this machine's kernel, measured in a guest.

use anyhow::{Result, bail};

use super::{Lab, NO_DEBIAN, apt::Mirrors, programs::Made, qemu::Clock};
use crate::shell;

/// The kernel: the newest of those that every change is tested on.
const KERNEL: &str = "6.12";

/// Runs the bench with these arguments in a guest that counts instructions for time, and prints its table.
pub(crate) fn measure(args: &[String]) -> Result<()> {
    if Mirrors::of_this_machine().is_none() {
        shell::say(&format!("what takes another kernel is not measured: {NO_DEBIAN}"));
        return Ok(());
    }
    let lab = Lab::prepare(&[KERNEL.to_owned()])?;
    let made = Made::build(&["--bench", "bench"])?;
    let (agent, bench) = (made.find("feature-agent")?, made.find("bench")?);
    let files = [("bin/feature-agent".to_owned(), &*agent), ("bin/bench".to_owned(), &*bench)];
    for kernel in &lab.kernels {
        let version = &kernel.version;
        shell::say(&format!("measuring on Linux {version} in a virtual machine"));
        let words: Vec<String> =
            args.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        let script = format!(
            "#!/bin/sh\n\
             export FEATURE_AGENT_BIN=/bin/feature-agent FEATURE_AGENT_KERNEL={version}\n\
             export FEATURE_AGENT_CLOCK=instructions\n\
             exec bench --bench --json /tmp/bench.json {}\n",
            words.join(" ")
        );
        let ended = lab.boot(kernel, Clock::Instructions, &files, &script, |_, line| {
            println!("{line}");
        })?;
        if ended.code != 0 {
            bail!("the bench failed on Linux {version} (exit code {})", ended.code);
        }
        shell::say(&format!("Linux {version}: measured in {} s", ended.took.as_secs()));
    }
    Ok(())
}
