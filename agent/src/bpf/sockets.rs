//! Where calls on sockets meet the program: at the kernel's functions for TCP and UDP.

use std::any::Any;

use agent_common::counters::Counters;
use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Btf, Ebpf,
    programs::{FEntry, FExit, KProbe},
};
use tracing::debug;

use super::{COUNTERS, Kernel, kernel_types::KernelTypes, named};
use crate::settings::SocketProbe;

/// A function of the kernel's, and whether every kernel has it.
struct Function {
    name: &'static str,
    required: bool,
    /// Whether the program at its end is told of its arguments by one at its begin.
    paired: bool,
}

/// At whose begin and end programs are. Which, and why: `agent-ebpf/src/sockets/programs.rs`.
const FUNCTIONS: [Function; 6] = [
    Function { name: "tcp_sendmsg", required: true, paired: false },
    // sendfile(2) and splice(2) before Linux 6.5; after it they come by tcp_sendmsg.
    Function { name: "tcp_sendpage", required: false, paired: false },
    Function { name: "tcp_recvmsg", required: true, paired: false },
    Function { name: "tcp_splice_read", required: true, paired: false },
    Function { name: "udp_sendmsg", required: true, paired: true },
    // Not there in a kernel without IPv6.
    Function { name: "udpv6_sendmsg", required: false, paired: true },
];

/// At whose begin one is.
const CONSUMED: &str = "skb_consume_udp";

/// The program at the end of every function, by break points.
const RETURNS: &str = "call_returns";

/// Programs attached to the kernel's functions; detached when dropped.
pub struct SocketAttachment {
    links: Vec<Box<dyn Any>>,
    /// Their names in the object.
    programs: Vec<String>,
    kind: SocketProbe,
}

impl std::fmt::Debug for SocketAttachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketAttachment").field("programs", &self.programs).finish_non_exhaustive()
    }
}

impl SocketAttachment {
    /// By what they are attached: [`SocketProbe::Fentry`] or [`SocketProbe::Kprobe`].
    pub fn kind(&self) -> SocketProbe {
        self.kind
    }

    fn new(kind: SocketProbe) -> Self {
        Self { links: Vec::new(), programs: Vec::new(), kind }
    }

    fn add(&mut self, program: &str, link: impl Any) {
        self.links.push(Box::new(link));
        if !self.programs.iter().any(|known| known == program) {
            self.programs.push(program.to_owned());
        }
    }
}

impl Drop for SocketAttachment {
    fn drop(&mut self) {
        // The last first: a begin without an end would leave notes that count as missed calls.
        while let Some(link) = self.links.pop() {
            drop(link);
        }
    }
}

impl Kernel {
    /// From now on calls on TCP and UDP sockets are seen.
    pub fn attach_sockets(&mut self, probe: SocketProbe) -> Result<SocketAttachment> {
        let types = KernelTypes::of_this_kernel()?;
        for function in FUNCTIONS.iter().filter(|function| function.required) {
            if !types.has_function(function.name) {
                bail!(
                    "this kernel has no function `{}`, which the socket hook is at",
                    function.name
                );
            }
        }
        let attachment = match probe {
            SocketProbe::Fentry => self.by_trampolines(&types).context(NO_FENTRY)?,
            SocketProbe::Kprobe => self.by_break_points(&types).context(NO_KPROBE)?,
            SocketProbe::Auto => match self.by_trampolines(&types) {
                Ok(attachment) => attachment,
                Err(fentry) => {
                    debug!("no fentry here, kprobe instead: {fentry:#}");
                    self.by_break_points(&types).map_err(|kprobe| {
                        anyhow!(
                            "this kernel has neither fentry nor kprobes to see calls on sockets by: \
                             `feature-agent doctor` says what it lacks. fentry: {fentry:#}. kprobe: \
                             {kprobe:#}"
                        )
                    })?
                }
            },
        };
        self.watch_misses(&attachment.programs);
        debug!(kind = ?attachment.kind, programs = ?attachment.programs, "calls on sockets are seen");
        Ok(attachment)
    }

    /// Where every call on a socket went; `None` without the socket hook. Calls that the kernel did not tell of count as
    /// `missed`.
    pub fn calls(&self) -> Result<Option<Counters>> {
        let Some(calls) = &self.calls else { return Ok(None) };
        let what = "cannot read the kernel program's counters";
        let mut sum = Counters::default();
        for program in 0..calls.len() {
            let cpus = calls.get(&program, 0).context(what)?;
            for cpu in cpus.iter() {
                let one: &[u8; COUNTERS] = cpu;
                sum.add(&bytemuck::pod_read_unaligned(one));
            }
        }
        sum.missed += self.misses();
        Ok(Some(sum))
    }

    fn by_trampolines(&mut self, types: &KernelTypes) -> Result<SocketAttachment> {
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types")?;
        let mut attachment = SocketAttachment::new(SocketProbe::Fentry);
        // The ends first: a note that nobody takes would count as a call that was missed.
        for Function { name, paired, .. } in there(types) {
            exit(&mut self.ebpf, &btf, &mut attachment, name, &format!("{name}_ends"))?;
            if *paired {
                entry(&mut self.ebpf, &btf, &mut attachment, name)?;
            }
        }
        entry(&mut self.ebpf, &btf, &mut attachment, CONSUMED)?;
        Ok(attachment)
    }

    fn by_break_points(&mut self, types: &KernelTypes) -> Result<SocketAttachment> {
        if !cfg!(target_arch = "x86_64") {
            bail!("kprobe programs read the processor's registers, and know those of x86-64 alone");
        }
        let mut attachment = SocketAttachment::new(SocketProbe::Kprobe);
        for Function { name, .. } in there(types) {
            probe(&mut self.ebpf, &mut attachment, name, RETURNS)?;
        }
        for Function { name, .. } in there(types) {
            probe(&mut self.ebpf, &mut attachment, name, &format!("{name}_probe"))?;
        }
        probe(&mut self.ebpf, &mut attachment, CONSUMED, &format!("{CONSUMED}_probe"))?;
        Ok(attachment)
    }
}

const NO_FENTRY: &str = "this kernel does not let calls on sockets be seen by fentry: try --socket-probe kprobe; \
                         `feature-agent doctor` says what it lacks";
const NO_KPROBE: &str = "this kernel does not let calls on sockets be seen by kprobes: try --socket-probe fentry; \
                         `feature-agent doctor` says what it lacks";

/// Capabilities are there: that was asked before.
fn refused(name: &str) -> String {
    format!("the kernel does not take the program `{name}`")
}

/// The functions that this kernel has.
fn there(types: &KernelTypes) -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.iter().filter(|function| types.has_function(function.name))
}

fn exit(
    ebpf: &mut Ebpf,
    btf: &Btf,
    attachment: &mut SocketAttachment,
    function: &str,
    name: &str,
) -> Result<()> {
    let program: &mut FExit = named(ebpf, name)?;
    program.load(function, btf).with_context(|| refused(name))?;
    let id = program.attach().with_context(|| format!("cannot attach to `{function}`"))?;
    attachment.add(name, program.take_link(id)?);
    Ok(())
}

fn entry(
    ebpf: &mut Ebpf,
    btf: &Btf,
    attachment: &mut SocketAttachment,
    function: &str,
) -> Result<()> {
    let name = &format!("{function}_begins");
    let program: &mut FEntry = named(ebpf, name)?;
    program.load(function, btf).with_context(|| refused(name))?;
    let id = program.attach().with_context(|| format!("cannot attach to `{function}`"))?;
    attachment.add(name, program.take_link(id)?);
    Ok(())
}

fn probe(
    ebpf: &mut Ebpf,
    attachment: &mut SocketAttachment,
    function: &str,
    name: &str,
) -> Result<()> {
    let program: &mut KProbe = named(ebpf, name)?;
    if program.fd().is_err() {
        program.load().with_context(|| refused(name))?;
    }
    let id =
        program.attach(function, 0).with_context(|| format!("cannot attach to `{function}`"))?;
    attachment.add(name, program.take_link(id)?);
    Ok(())
}
