//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use bytesize::ByteSize;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{
    generate,
    settings::{
        AttachMode, Direction, FlowOptions, HookChoice, Latency, Options, ReplayOptions,
        SocketProbe,
    },
    sink::{OutputArgs, QueueArgs, Target},
};

/// Computes machine-learning features of network flows inside the Linux kernel.
///
/// Attaches to network interfaces, keeps an exact sliding window over the last packets of every flow in
/// the kernel, and writes one JSON object per line for each vector of features. It never changes, delays
/// or drops a packet. Ctrl-C or SIGTERM ends it: every flow writes a last vector, and standard error says
/// where each packet went.
#[derive(Debug, Parser)]
#[command(
    name = "feature-agent",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        sudo feature-agent --iface eth0 | your-model\n  \
        sudo feature-agent --iface eth0 --iface wg0 --output vectors.jsonl\n  \
        feature-agent schema\n\n\
        Durations: 250ms, 1s, 5m. Sizes: 512KiB, 8MiB."
)]
pub struct Cli {
    /// What to do, if not the main job.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The main job's options.
    #[command(flatten)]
    pub run: RunArgs,
    /// How much is said on standard error.
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// All but the main job.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make the same lines from capture files: no root, no kernel program
    ///
    /// Reads pcap and pcapng, plain, gzip or zstd, and writes the lines that the agent would have written where
    /// the packets passed. Time is that of the packets; several files are one stream in order of time.
    #[command(after_help = "Examples:\n  \
        feature-agent replay capture.pcap | your-model\n  \
        zcat *.gz | feature-agent replay -\n  \
        feature-agent replay day1.pcapng day2.pcap.zst --filter 'tcp port 443' --output vectors.jsonl")]
    Replay(Box<ReplayArgs>),
    /// Print every field of a vector: name, type, unit, formula, and when it is null
    Schema(SchemaArgs),
    /// Print the options in force, as a configuration file, and where each comes from
    Config(Box<RunArgs>),
    /// Look whether the main job can run here, and what this kernel, host and user lack
    ///
    /// Loads and attaches the agent's program for a moment, in a network namespace of its own: no interface is
    /// touched. Says of what is missing what does not work without it, and how to get it. The exit code is 0 if
    /// the main job can run, else 1. Any user may ask; what that user cannot see is said.
    Doctor(DoctorArgs),
    /// Print the manual page, completions for a shell, or a configuration file to begin with
    Generate(GenerateArgs),
}

/// Options of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Captures: pcap or pcapng, also compressed by gzip or zstd; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// What interfaces are called that have no name in the capture
    #[arg(
        long = "iface",
        value_name = "NAME",
        default_value = "capture",
        help_heading = "Traffic"
    )]
    pub interface: String,

    /// Keep super-packets (GRO, TSO) as they were captured. Otherwise those of TCP are split into the packets
    /// that were on the wire, where the flow's SYNs told the segment size
    #[arg(long, help_heading = "Traffic")]
    pub no_resegment: bool,

    /// What is made of the packets.
    #[command(flatten)]
    pub flows: FlowOptions,

    /// Where vectors go, and how
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ReplayArgs {
    /// The values, still to be checked.
    pub fn options(self) -> ReplayOptions {
        let Self { files, interface, no_resegment, flows, output } = self;
        ReplayOptions { files, interface, resegment: !no_resegment, flows, output }
    }
}

/// Options of `doctor`.
#[derive(Args, Clone, Copy, Debug)]
pub struct DoctorArgs {
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// Options of `generate`.
#[derive(Args, Clone, Copy, Debug)]
pub struct GenerateArgs {
    /// What
    #[arg(value_enum)]
    pub kind: generate::Kind,
}

/// Options of `schema`.
#[derive(Args, Clone, Debug)]
pub struct SchemaArgs {
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: SchemaFormat,

    /// Print instead how the maps lie in memory that --pin pins, as one JSON object
    #[arg(long, conflicts_with = "format")]
    pub layout: bool,
}

/// How a schema is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// A table for people
    #[default]
    Table,
    /// One JSON object for programs
    Json,
}

/// How much is said on standard error.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Verbosity {
    /// Say more: -v debug messages, -vv also why the kernel program rejects packets
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// Options of the main job.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Interface to watch; repeat it for several. One that disappears is watched again when it is back
    #[arg(long = "iface", value_name = "NAME", help_heading = "Traffic")]
    pub interfaces: Vec<String>,

    /// Where flows are seen: packets at interfaces, or calls on TCP and UDP sockets, whose `len` is then bytes a call
    #[arg(long, value_enum, default_value_t, help_heading = "Traffic")]
    pub hook: HookChoice,

    /// How calls on sockets are seen
    #[arg(long, value_enum, default_value_t, help_heading = "Traffic")]
    pub socket_probe: SocketProbe,

    /// Which packets are seen. With one side only, flows have no packets in the other direction. A loopback
    /// interface is always watched on one side: each of its packets passes both
    #[arg(long, value_enum, default_value_t, help_heading = "Traffic")]
    pub direction: Direction,

    /// How programs are attached to an interface
    #[arg(long, value_enum, default_value_t, help_heading = "Traffic")]
    pub attach: AttachMode,

    /// Name the process behind each flow that a socket of this host is one end of: id, name, program, user, control
    /// group and container. Takes cgroup2, at whose root it is attached
    #[arg(long, help_heading = "Vectors")]
    pub process: bool,

    /// What is made of the packets.
    #[command(flatten)]
    pub flows: FlowOptions,

    /// Ring buffer between kernel and agent, 424 bytes a vector; rounded up to a power of two, at least
    /// 64KiB. A full ring delays vectors, it loses none
    #[arg(long, value_name = "SIZE", default_value = "8MiB", help_heading = "Output")]
    pub ring_size: ByteSize,

    /// How soon vectors come out, against the CPU time that waking up costs
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub latency: Latency,

    /// Where vectors go, and how
    #[command(flatten)]
    pub output: OutputArgs,

    /// What waits for slow consumers
    #[command(flatten)]
    pub queue: QueueArgs,

    /// Serve Prometheus metrics at /metrics, and whether all is well at /healthz, as in 127.0.0.1:9469
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Service")]
    pub metrics: Option<SocketAddr>,

    /// Pin the flow table in this folder of a bpf file system, such as /sys/fs/bpf/feature-agent, for readers in other
    /// processes; `feature-agent schema --layout` prints what is in it
    #[arg(long, value_name = "DIR", help_heading = "Service")]
    pub pin: Option<PathBuf>,

    /// With --pin, pin the ring as well and leave its records to the process that reads it there: a ring has one
    /// reader, so this agent then writes no vectors itself
    #[arg(long, help_heading = "Service")]
    pub pin_ring: bool,

    /// Once everything is open and attached, go on as this user, with no capability but those that attaching
    /// again takes (by TCX: none). Files opened anew later must be this user's to write
    #[arg(long, value_name = "NAME", help_heading = "Service")]
    pub user: Option<String>,

    /// Where vectors go if neither --output nor the file says: for the units of a service
    #[arg(long, value_name = "WHERE", help_heading = "Service")]
    pub default_output: Option<Target>,

    /// Read options from this file, a flag wins over it [default: /etc/feature-agent/config.toml, if it is there]
    #[arg(long, value_name = "FILE", help_heading = "Service")]
    pub config: Option<PathBuf>,
}

impl RunArgs {
    /// The values, still to be checked.
    pub fn options(self, verbosity: Verbosity) -> Options {
        let Self {
            interfaces,
            hook,
            socket_probe,
            direction,
            attach,
            process,
            flows,
            ring_size,
            latency,
            output,
            queue,
            metrics,
            pin,
            pin_ring,
            user,
            default_output: _,
            config: _,
        } = self;
        Options {
            interfaces,
            hook,
            socket_probe,
            direction,
            attach,
            process,
            flows,
            ring_size: ring_size.as_u64(),
            latency,
            output,
            queue,
            metrics,
            pin,
            pin_ring,
            user,
            kernel_log: verbosity.verbose >= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;
    use crate::{
        line::Shape,
        settings::tests::options,
        sink::{Format, OnFull, Plan, Rotation},
    };

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["feature-agent"].iter().chain(arguments))
    }

    fn settings(arguments: &[&str]) -> crate::settings::Settings {
        let Cli { run, verbosity, .. } = parse(arguments).expect("arguments");
        run.options(verbosity).check().expect("settings")
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        assert_eq!(settings(&["--iface", "eth0"]), options().check().expect("settings"));
    }

    #[test]
    fn every_option_arrives() {
        let given = settings(&[
            "--iface=a",
            "--iface=b",
            "--hook=both",
            "--socket-probe=kprobe",
            "--direction=ingress",
            "--attach=clsact",
            "--process",
            "--window=16",
            "--stride=8",
            "--min-gap=0s",
            "--interval=2s 500ms",
            "--poll=10ms",
            "--idle-timeout=1m",
            "--active-timeout=1h",
            "--max-flows=10",
            "--filter=udp port 53",
            "--sample=1/4",
            "--decap",
            "--ring-size=100KiB",
            "--latency=bulk",
            "--shape=array",
            "--output=x.jsonl",
            "--output=unix:x.sock",
            "--queue=100",
            "--on-full=drop-newest",
            "--block-limit=1m",
            "--rotate-size=1MiB",
            "--rotate-every=1h",
            "--rotate-zstd",
            "--metrics=[::1]:9469",
            "--user=nobody",
            "-vv",
        ]);
        assert_eq!(given.interfaces, ["a", "b"]);
        assert_eq!((given.hook, given.socket_probe), (HookChoice::Both, SocketProbe::Kprobe));
        assert_eq!(given.direction, Direction::Ingress);
        assert_eq!(given.attach, AttachMode::Clsact);
        assert_eq!((given.config.window, given.config.stride), (16, 8));
        assert_eq!((given.config.min_gap_us, given.config.interval_us), (0, 2_500_000));
        assert_eq!(given.filter, crate::filter::compile("udp port 53").expect("a filter"));
        assert_eq!((given.config.sample, given.config.decap), (u32::MAX / 4, 1));
        assert_eq!(given.config.process, 1);
        assert_eq!(given.poll, Duration::from_millis(10));
        assert_eq!(given.config.idle_timeout_us, 60_000_000);
        assert_eq!(given.config.active_timeout_us, 3_600_000_000);
        assert_eq!((given.max_flows, given.ring_bytes), (10, 128 << 10));
        assert_eq!(given.latency, Latency::Bulk);
        let rotation =
            Rotation { size: Some(1 << 20), age: Some(Duration::from_hours(1)), zstd: true };
        let outputs = Plan {
            targets: vec![Target::File("x.jsonl".into()), Target::Unix("x.sock".into())],
            shape: Shape::Array,
            format: Format::Jsonl,
            queue: 100,
            on_full: Some(OnFull::DropNewest),
            block_limit: Duration::from_mins(1),
            rotation,
        };
        assert_eq!(given.outputs, outputs);
        assert_eq!(given.metrics, Some(([0, 0, 0, 0, 0, 0, 0, 1], 9469).into()));
        assert_eq!(given.user.as_deref(), Some("nobody"));
        assert!(given.kernel_log);
    }

    #[test]
    fn the_main_job_needs_an_interface_and_others_do_not() {
        let Cli { run, verbosity, .. } = parse(&[]).expect("a file may name it");
        let error = run.options(verbosity).check().expect_err("no interface").to_string();
        assert!(error.starts_with("no interface is given"), "{error}");
        let cli = parse(&["schema", "--format", "json"]).expect("schema");
        let Some(Command::Schema(arguments)) = cli.command else { panic!("not the schema") };
        assert_eq!(arguments.format, SchemaFormat::Json);
        assert!(parse(&["--iface", "eth0", "schema"]).is_err());
        assert!(parse(&["schema", "-v"]).is_ok());
    }

    #[test]
    fn bad_durations_and_sizes_are_refused() {
        for argument in ["--poll=fast", "--interval=1", "--min-gap=-1s", "--ring-size=big"] {
            let error = parse(&["--iface=a", argument]).expect_err(argument);
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{argument}");
        }
        assert!(parse(&["--iface=a", "-v", "-q"]).is_err());
    }
}
