//! The kernel side, from user space: the only user of aya.
//!
//! A [`Kernel`] is the loaded program with its maps; an [`Attachment`] lets packets reach it.

mod attach;
mod clsact;
mod kernel_types;
mod offsets;
mod owners;
mod pin;
pub mod probe;
mod self_check;
mod sockets;
mod stats;
mod test_run;

use std::{
    array,
    fs::File,
    hash::{BuildHasher as _, RandomState},
    os::fd::{AsFd as _, BorrowedFd},
};

use agent_common::{
    config::Config,
    counters::Counters,
    filter,
    key::Secrets,
    parse::Link,
    record::Record,
    sweep::{OF_CALLS, SweepReport, SweepRequest},
};
use anyhow::{Context as _, Error, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{Array, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{ProgramError, SchedClassifier},
};
use aya_log::EbpfLogger;
use tracing::debug;

pub use self::{
    attach::Attachment, pin::Pins, sockets::SocketAttachment, stats::RunStats,
    test_run::PacketContext,
};
use crate::settings::HookChoice;

/// The committed object; `cargo xtask build-ebpf` makes it.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/feature-agent.bpf.o");

/// Threads that can be in a call on a socket at once; more are counted as missed.
const NOTES: u32 = 16_384;

// Values of maps are bytes to aya, and structures to bytemuck.
const COUNTERS: usize = size_of::<Counters>();
const REQUEST: usize = size_of::<SweepRequest>();
const REPORT: usize = size_of::<SweepReport>();

/// What is fixed when the program is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// The thresholds.
    pub config: Config,
    /// Which packets are looked at.
    pub filter: filter::Program,
    /// What is seen: of the others, the tables are as small as they can be.
    pub hook: HookChoice,
    /// Entries of each flow table.
    pub max_flows: u32,
    /// Bytes of the ring: a power of two, and a multiple of the page size.
    pub ring_bytes: u32,
    /// Whether the program says why it could not read or place a packet.
    pub kernel_log: bool,
    /// By what flows are placed in the table: [`random_secrets`], or whoever sends packets can have them collide.
    pub secrets: Secrets,
}

/// Programs of the object, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A packet that begins with this.
    Packet(Link),
    /// A walk over the packets' flow table.
    Sweep,
    /// A walk over that of calls on sockets; loaded for the socket hook alone.
    SweepCalls,
    /// Nothing: what benchmarks subtract.
    Empty,
}

impl Program {
    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet(Link::Ethernet) => "tc_ethernet",
            // An interface's packets begin with one or the other; the rest is what captures have.
            Self::Packet(_) => "tc_ip",
            Self::Sweep => "sweep_flows",
            Self::SweepCalls => "sweep_calls",
            Self::Empty => "empty",
        }
    }
}

/// The loaded program.
pub struct Kernel {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, [u8; COUNTERS]>,
    calls: Option<PerCpuArray<MapData, [u8; COUNTERS]>>,
    sweep_request: Array<MapData, [u8; REQUEST]>,
    sweep_report: Array<MapData, [u8; REPORT]>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    config: Config,
    filter: filter::Program,
    /// The agent's own packets, which no one else sent.
    probes: Counters,
    /// The link types that something was attached to.
    attached: Vec<Link>,
    /// What tells of calls on sockets that the kernel did not tell of.
    misses: Vec<File>,
}

impl Kernel {
    /// Makes the maps, and loads what walks them. Every other program is loaded at its first use, unless [`Self::prepare`]
    /// has: the verifier takes its time for each. Nothing is attached yet.
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let LoadOptions { config, filter, hook, max_flows, ring_bytes, kernel_log, secrets } =
            options;
        // aya-log's levels: 0 is off, and the verifier then removes what would log.
        let log_level: u8 = if *kernel_log { 5 } else { 0 };
        let offsets = offsets::read(config.process != 0, hook.sees_calls())?;
        let sized = |size, is_used| if is_used { size } else { 1 };
        let mut ebpf = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global("CONFIG", bytemuck::bytes_of(config), true)
            .override_global("SECRETS", bytemuck::bytes_of(secrets), true)
            .override_global("OFFSETS", bytemuck::bytes_of(&offsets), true)
            .override_global("FILTER", bytemuck::bytes_of(filter), true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .map_max_entries("FLOWS", sized(*max_flows, hook.sees_packets()))
            .map_max_entries("SOCKETS", sized(*max_flows, hook.sees_calls()))
            .map_max_entries("NOTES", sized(NOTES, hook.sees_calls()))
            .map_max_entries("RECORDS", *ring_bytes)
            .load(OBJECT)
            .with_context(|| cannot_make_maps(*max_flows, *ring_bytes))?;
        let sweeps =
            [(Program::Sweep, hook.sees_packets()), (Program::SweepCalls, hook.sees_calls())];
        for (program, _) in sweeps.iter().filter(|(_, is_used)| *is_used) {
            classifier(&mut ebpf, *program)?;
        }
        let logger = if *kernel_log {
            Some(EbpfLogger::init(&mut ebpf).context("cannot open the kernel's log ring")?)
        } else {
            None
        };
        Ok(Self {
            ring: RingBuf::try_from(map(&mut ebpf, "RECORDS")?)?,
            counters: PerCpuArray::try_from(map(&mut ebpf, "COUNTERS")?)?,
            calls: if hook.sees_calls() {
                Some(PerCpuArray::try_from(map(&mut ebpf, "CALLS")?)?)
            } else {
                None
            },
            sweep_request: Array::try_from(map(&mut ebpf, "SWEEP_REQUEST")?)?,
            sweep_report: Array::try_from(map(&mut ebpf, "SWEEP_REPORT")?)?,
            ebpf,
            logger,
            config: *config,
            filter: *filter,
            probes: Counters::default(),
            attached: Vec::new(),
            misses: Vec::new(),
        })
    }

    /// Loads the programs for packets that begin with these, which so far may not have been used.
    pub fn prepare(&mut self, links: &[Link]) -> Result<()> {
        for link in links {
            classifier(&mut self.ebpf, Program::Packet(*link))?;
        }
        Ok(())
    }

    /// Walks the flow table once. At most one sweep runs at a time.
    pub fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        let what = "cannot ask the kernel program for a sweep";
        self.sweep_request.set(0, bytemuck::cast::<_, [u8; REQUEST]>(*request), 0).context(what)?;
        self.sweep_report.set(0, [0; REPORT], 0).context(what)?;
        // The program reads nothing of the packet, but it takes one to run it.
        let program = if request.table == OF_CALLS { Program::SweepCalls } else { Program::Sweep };
        self.run(program, &[0; 64], &PacketContext::default(), 1)?;
        let report = self.sweep_report.get(&0, 0).context(what)?;
        Ok(bytemuck::pod_read_unaligned(&report))
    }

    /// Takes up to `budget` records out of the ring; returns how many.
    pub fn drain(&mut self, budget: usize, each: &mut dyn FnMut(&Record)) -> Result<usize> {
        let mut taken = 0;
        let mut broken = None;
        while taken < budget {
            let Some(item) = self.ring.next() else {
                break;
            };
            taken += 1;
            match Record::from_bytes(&item) {
                Ok(record) => each(&record),
                Err(error) => broken = Some(error),
            }
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        match broken {
            None => Ok(taken),
            Some(error) => Err(error).context(
                "the kernel program wrote what this agent cannot read: they are not of one build",
            ),
        }
    }

    /// Where every packet went, over all CPUs; the agent's own packets are taken out.
    pub fn counters(&self) -> Result<Counters> {
        let mut sum = self.raw_counters()?;
        sum.subtract(&self.probes);
        Ok(sum)
    }

    /// Readable when a record has woken user space.
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Instructions that the verifier walked to accept a program; `None` before Linux 5.16.
    pub fn verified_instructions(&mut self, program: Program) -> Result<Option<u32>> {
        Ok(verified(classifier(&mut self.ebpf, program)?))
    }

    fn raw_counters(&self) -> Result<Counters> {
        let what = "cannot read the kernel program's counters";
        let mut sum = Counters::default();
        for cpu in self.counters.get(&0, 0).context(what)?.iter() {
            sum.add(&bytemuck::pod_read_unaligned(cpu));
        }
        Ok(sum)
    }

    fn clear_counters(&mut self) -> Result<()> {
        let what = "cannot clear the kernel program's counters";
        let cpus = self.counters.get(&0, 0).context(what)?.len();
        let zeros = PerCpuValues::try_from(vec![[0; COUNTERS]; cpus]).context(what)?;
        self.counters.set(0, zeros, 0).context(what)
    }
}

/// A program of the object, loaded.
fn classifier(ebpf: &mut Ebpf, program: Program) -> Result<&mut SchedClassifier> {
    let name = program.name();
    let found: &mut SchedClassifier = named(ebpf, name)?;
    if found.fd().is_err() {
        found.load().map_err(|error| cannot_load(name, error))?;
        debug!(program = name, instructions = ?verified(found), "loaded");
    }
    Ok(found)
}

/// A program of the object, by its name and kind.
fn named<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let found = ebpf.program_mut(name).with_context(|| not_in_object(name))?;
    found.try_into().with_context(|| not_in_object(name))
}

fn map(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name).with_context(|| not_in_object(name))
}

fn verified(program: &SchedClassifier) -> Option<u32> {
    program.info().ok()?.verified_instruction_count()
}

fn not_in_object(name: &str) -> String {
    format!("the embedded kernel program has no `{name}`: this build is broken, make it anew")
}

/// Others at each call: SipHash by a key that std has from the operating system.
pub fn random_secrets() -> Secrets {
    let state = RandomState::new();
    array::from_fn(|word| state.hash_one(word))
}

fn cannot_make_maps(max_flows: u32, ring_bytes: u32) -> String {
    format!(
        "cannot make the kernel program's maps for {max_flows} flows and a ring of {ring_bytes} bytes. \
         Too little memory? Try a smaller --max-flows or --ring-size"
    )
}

fn cannot_load(name: &str, error: ProgramError) -> Error {
    match &error {
        ProgramError::LoadError { io_error, verifier_log: _ }
            if io_error.raw_os_error() == Some(PERMISSION) =>
        {
            anyhow!(
                "the kernel does not let this process load `{name}`: it needs CAP_BPF, CAP_NET_ADMIN and \
                 CAP_PERFMON (run it by sudo), and no lockdown that forbids BPF"
            )
        }
        _ => Error::new(error).context(format!(
            "the kernel refuses the program `{name}`. It takes Linux 5.15 or later; if this is one, please \
             report what follows"
        )),
    }
}

/// EPERM; a program that the verifier refuses is EACCES.
const PERMISSION: i32 = 1;
