//! What the daemon is to do, checked: the command line's values in the units the kernel program takes.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

mod flows;

use agent_common::{config::Config, entry::Entry, filter::Program, key::FlowKey};
use clap::ValueEnum;

pub(crate) use self::flows::duration;
pub use self::flows::{FlowOptions, FlowSettings, Sample};
use crate::sink::{OutputArgs, Plan, QueueArgs};

/// Window sizes that the kernel program's ring of slots can hold.
pub const WINDOW: std::ops::RangeInclusive<u32> = 2..=64;
/// Most entries of the flow table: at about 1 KiB each, 16 GiB.
pub const MAX_FLOWS: u32 = 1 << 24;
/// Smallest ring buffer.
pub const MIN_RING: u32 = 64 << 10;
/// Largest ring buffer.
pub const MAX_RING: u32 = 1 << 30;
/// Longest duration of any option: far beyond use, and no sum of two can overflow.
const MAX_DURATION: Duration = Duration::from_hours(366 * 24);

/// Which packets of an interface are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Received and sent packets: flows with both their directions
    #[default]
    Both,
    /// Packets that the interface receives
    Ingress,
    /// Packets that the interface sends
    Egress,
}

/// What is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HookChoice {
    /// Packets, at network interfaces
    #[default]
    Tc,
    /// What processes send and receive, at the calls of TCP and UDP sockets
    Socket,
    /// Both, as flows of their own
    Both,
}

impl HookChoice {
    /// Whether packets are.
    pub fn sees_packets(self) -> bool {
        self != Self::Socket
    }

    /// Whether calls on sockets are.
    pub fn sees_calls(self) -> bool {
        self != Self::Tc
    }
}

/// How programs are attached to the kernel's functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SocketProbe {
    /// fentry where the kernel has it, else kprobe
    #[default]
    Auto,
    /// BPF trampolines, the cheaper
    Fentry,
    /// Break points
    Kprobe,
}

impl SocketProbe {
    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// By which kernel interface the programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachMode {
    /// TCX where the kernel has it (6.6 and later), else clsact
    #[default]
    Auto,
    /// TCX links: the kernel removes them with the process, however it ends
    Tcx,
    /// tc filters on a clsact qdisc, on every kernel
    Clsact,
}

/// How soon a vector reaches its consumer, against what waking up costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Latency {
    /// At once: every vector may wake the agent
    Low,
    /// Within about 20 ms, sooner when much arrives
    #[default]
    Balanced,
    /// Within --poll, sooner when much arrives: the least CPU
    Bulk,
}

impl Latency {
    /// Fill of the ring, in bytes, at which a vector wakes the agent; 0: each may.
    pub fn wakeup_bytes(self, ring_bytes: u32) -> u32 {
        match self {
            Self::Low => 0,
            Self::Balanced => ring_bytes / 8,
            Self::Bulk => ring_bytes / 4,
        }
    }

    /// How often the ring is drained even if nothing wakes the agent; `None`: at each poll.
    pub fn drain_every(self) -> Option<Duration> {
        match self {
            Self::Balanced => Some(Duration::from_millis(20)),
            Self::Low | Self::Bulk => None,
        }
    }
}

/// The values of the options as given, before they are checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--iface`, each.
    pub interfaces: Vec<String>,
    /// `--hook`.
    pub hook: HookChoice,
    /// `--socket-probe`.
    pub socket_probe: SocketProbe,
    /// `--direction`.
    pub direction: Direction,
    /// `--attach`.
    pub attach: AttachMode,
    /// Whether vectors name the process behind their flow.
    pub process: bool,
    /// What is made of the packets.
    pub flows: FlowOptions,
    /// `--ring-size`, in bytes.
    pub ring_size: u64,
    /// `--latency`.
    pub latency: Latency,
    /// `--output`, and all that is said about outputs.
    pub output: OutputArgs,
    /// `--queue`, and what happens when it is full.
    pub queue: QueueArgs,
    /// `--metrics`.
    pub metrics: Option<SocketAddr>,
    /// `--pin`.
    pub pin: Option<PathBuf>,
    /// `--pin-ring`.
    pub pin_ring: bool,
    /// `--user`.
    pub user: Option<String>,
    /// Whether the kernel program says why it rejects packets (`-vv`).
    pub kernel_log: bool,
}

/// Options of a replay, still to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayOptions {
    /// The captures.
    pub files: Vec<PathBuf>,
    /// `--iface`.
    pub interface: String,
    /// Whether super-packets are split.
    pub resegment: bool,
    /// What is made of the packets.
    pub flows: FlowOptions,
    /// `--output`, and all that is said about outputs.
    pub output: OutputArgs,
}

/// Checked settings of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplaySettings {
    /// The captures; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// What interfaces are called that have no name in the capture.
    pub interface: String,
    /// Whether super-packets are split.
    pub resegment: bool,
    /// What is made of the packets.
    pub flows: FlowSettings,
    /// Where vectors go.
    pub outputs: Plan,
}

impl ReplayOptions {
    /// Checks every value.
    pub fn check(self) -> Result<ReplaySettings, Invalid> {
        let flows = self.flows.check()?;
        let outputs = self.output.check(QueueArgs::default())?;
        let Self { files, interface, resegment, .. } = self;
        if interface.is_empty() {
            return Err(Invalid("--iface must not be empty".into()));
        }
        Ok(ReplaySettings { files, interface, resegment, flows, outputs })
    }
}

/// Kernel memory of a flow, in bytes: its entry and key, and the hash's own element (48) and bucket (16); measured, as
/// `memlock` of the map's descriptor.
const BYTES_PER_FLOW: u64 = (size_of::<Entry>() + size_of::<FlowKey>() + 48 + 16) as u64;

/// Checked settings of the main job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Names of the interfaces, each once, in the order given.
    pub interfaces: Vec<String>,
    /// What is seen.
    pub hook: HookChoice,
    /// How programs are attached to the kernel's functions.
    pub socket_probe: SocketProbe,
    /// Which packets are seen.
    pub direction: Direction,
    /// How programs are attached.
    pub attach: AttachMode,
    /// The kernel program's thresholds.
    pub config: Config,
    /// Which packets are looked at.
    pub filter: Program,
    /// Time between two sweeps of the flow table.
    pub poll: Duration,
    /// Entries of the flow table.
    pub max_flows: u32,
    /// Size of the ring buffer: a power of two.
    pub ring_bytes: u32,
    /// When the ring is drained.
    pub latency: Latency,
    /// Where vectors go.
    pub outputs: Plan,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where maps are pinned.
    pub pin: Option<PathBuf>,
    /// Whether the ring is among them, and its records are left to another process.
    pub pin_ring: bool,
    /// As whom the agent goes on once it runs.
    pub user: Option<String>,
    /// Whether the kernel program says why it rejects packets.
    pub kernel_log: bool,
}

impl Settings {
    /// Where vectors go, for people.
    pub fn destination(&self) -> String {
        match &self.pin {
            Some(folder) if self.pin_ring => format!("the reader of {}/records", folder.display()),
            _ => self.outputs.names(),
        }
    }

    /// Bytes of kernel memory that flow table and ring take, which count to the agent's control group.
    pub fn kernel_bytes(&self) -> u64 {
        let tables = if self.hook == HookChoice::Both { 2 } else { 1 };
        tables * u64::from(self.max_flows) * BYTES_PER_FLOW + u64::from(self.ring_bytes)
    }
}

/// A value that an option cannot have, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl Invalid {
    /// The sentence.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl Options {
    /// Checks every value, and brings them into the kernel program's units.
    pub fn check(self) -> Result<Settings, Invalid> {
        let ring_bytes = ring_bytes(self.ring_size)?;
        let flows = self.flows.check()?;
        let mut outputs = self.output.check(self.queue)?;
        if self.pin_ring {
            if self.pin.is_none() {
                return Err(Invalid("--pin-ring is about what --pin pins: name a folder".into()));
            }
            outputs.targets.clear();
        }
        let wakeup_bytes = self.latency.wakeup_bytes(ring_bytes);
        Ok(Settings {
            interfaces: once_each(self.interfaces, self.hook)?,
            hook: self.hook,
            socket_probe: self.socket_probe,
            direction: self.direction,
            attach: self.attach,
            config: Config { wakeup_bytes, process: self.process.into(), ..flows.config },
            filter: flows.filter,
            poll: flows.poll,
            max_flows: flows.max_flows,
            ring_bytes,
            latency: self.latency,
            outputs,
            metrics: self.metrics,
            pin: self.pin,
            pin_ring: self.pin_ring,
            user: self.user,
            kernel_log: self.kernel_log,
        })
    }
}

fn once_each(names: Vec<String>, hook: HookChoice) -> Result<Vec<String>, Invalid> {
    if hook == HookChoice::Socket && !names.is_empty() {
        return Err(Invalid(
            "--hook socket sees calls on sockets, which pass no interface: leave --iface out, or take \
             --hook both"
                .into(),
        ));
    }
    if names.is_empty() && hook.sees_packets() {
        return Err(Invalid(
            "no interface is given: name one by --iface, or by `iface` in the configuration file"
                .into(),
        ));
    }
    let mut each: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if name.is_empty() {
            return Err(Invalid("--iface must be the name of an interface, not empty".into()));
        }
        if !each.contains(&name) {
            each.push(name);
        }
    }
    Ok(each)
}

/// The kernel wants a power of two that is a multiple of its page size; 64 KiB is the largest of those.
fn ring_bytes(asked: u64) -> Result<u32, Invalid> {
    if asked == 0 || asked > u64::from(MAX_RING) {
        return Err(Invalid(format!(
            "--ring-size must be more than 0 and at most {}, not {}",
            bytesize::ByteSize(MAX_RING.into()).display().iec(),
            bytesize::ByteSize(asked).display().iec(),
        )));
    }
    Ok((asked as u32).next_power_of_two().max(MIN_RING))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        line::Shape,
        sink::{Format, Target},
    };

    /// The command line's defaults.
    pub(crate) fn options() -> Options {
        Options {
            interfaces: vec!["eth0".into()],
            hook: HookChoice::Tc,
            socket_probe: SocketProbe::Auto,
            direction: Direction::Both,
            attach: AttachMode::Auto,
            process: false,
            flows: flows::tests::options(),
            ring_size: 8 << 20,
            latency: Latency::Balanced,
            output: OutputArgs {
                outputs: vec![Target::Stdout],
                format: Format::Jsonl,
                shape: Shape::Flat,
                rotate_size: None,
                rotate_every: None,
                rotate_zstd: false,
            },
            queue: QueueArgs::default(),
            metrics: None,
            pin: None,
            pin_ring: false,
            user: None,
            kernel_log: false,
        }
    }

    fn refusal(change: impl FnOnce(&mut Options)) -> String {
        let mut options = options();
        change(&mut options);
        options.check().expect_err("accepted").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_core() {
        let settings = options().check().expect("defaults are valid");
        assert_eq!(settings.config, Config::DEFAULT);
        assert_eq!(settings.outputs, Plan::default());
    }

    #[test]
    fn values_out_of_range_are_named_with_their_range() {
        assert_eq!(refusal(|o| o.flows.window = 1), "--window must lie within 2 and 64, not 1");
        assert_eq!(refusal(|o| o.flows.window = 65), "--window must lie within 2 and 64, not 65");
        assert!(refusal(|o| o.flows.stride = 0).starts_with("--stride must lie within 1"));
        assert!(refusal(|o| o.flows.max_flows = 0).starts_with("--max-flows must lie within 1"));
        assert!(refusal(|o| o.flows.max_flows = MAX_FLOWS + 1).starts_with("--max-flows"));
        assert_eq!(
            refusal(|o| o.flows.poll = Duration::ZERO),
            "--poll must be at least 1ms, not 0s"
        );
        assert!(
            refusal(|o| o.flows.interval = Duration::ZERO)
                .starts_with("--interval must be at least")
        );
        assert!(refusal(|o| o.flows.idle_timeout = Duration::MAX).contains("at most 366 days"));
        assert!(refusal(|o| o.ring_size = 0).starts_with("--ring-size"));
        assert!(refusal(|o| o.ring_size = 1 << 31).contains("at most 1.0 GiB, not 2.0 GiB"));
        assert!(refusal(|o| o.interfaces.clear()).contains("--iface"));
        assert!(refusal(|o| o.interfaces = vec![String::new()]).contains("--iface"));
    }

    #[test]
    fn the_ring_is_rounded_up() {
        let ring = |asked| ring_bytes(asked).expect("valid");
        assert_eq!(ring(1), MIN_RING);
        assert_eq!(ring(MIN_RING.into()), MIN_RING);
        assert_eq!(ring(u64::from(MIN_RING) + 1), 2 * MIN_RING);
        assert_eq!(ring(5_000_000), 8 << 20);
        assert_eq!(ring(1 << 30), 1 << 30);
    }

    #[test]
    fn latency_sets_the_wake_up() {
        let wakeup = |latency| {
            let options = Options { latency, ..options() };
            options.check().expect("valid").config.wakeup_bytes
        };
        assert_eq!(wakeup(Latency::Low), 0);
        assert_eq!(wakeup(Latency::Balanced), 1 << 20);
        assert_eq!(wakeup(Latency::Bulk), 2 << 20);
    }

    #[test]
    fn a_ring_left_to_its_reader_leaves_no_output() {
        assert!(refusal(|o| o.pin_ring = true).starts_with("--pin-ring is about what --pin pins"));
        let pin = Some("/sys/fs/bpf/x".into());
        let settings = Options { pin, pin_ring: true, ..options() }.check().expect("valid");
        assert!(settings.outputs.targets.is_empty());
        assert_eq!(settings.destination(), "the reader of /sys/fs/bpf/x/records");
    }

    #[test]
    fn the_socket_hook_alone_has_no_interface() {
        assert!(refusal(|o| o.hook = HookChoice::Socket).contains("leave --iface out"));
        let alone = Options { interfaces: Vec::new(), hook: HookChoice::Socket, ..options() };
        assert!(alone.check().is_ok_and(|settings| settings.interfaces.is_empty()));
        let both = Options { interfaces: Vec::new(), hook: HookChoice::Both, ..options() };
        assert!(both.check().is_err());
    }

    #[test]
    fn an_interface_given_twice_is_one() {
        let names = ["b", "a", "b"].map(String::from).to_vec();
        let settings = Options { interfaces: names, ..options() }.check().expect("valid");
        assert_eq!(settings.interfaces, ["b", "a"]);
    }
}
