//! Network namespaces made for one test and removed after it, also when it panics.

use std::{
    fs::{self, File},
    io::Write,
    panic::resume_unwind,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::sys;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace of its own, with only a loopback interface that is down.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace whose name no other process or test uses. IPv6 is off in it until asked for.
    pub fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fat{}x{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let ns = Self { name };
        ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        ns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        ns
    }

    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside of the namespace; processes it starts and sockets it opens are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread inside of the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let file = self.file();
        thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        })
    }

    /// Runs commands of `ip`, one a line, inside of the namespace.
    pub fn ip(&self, commands: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start ip (iproute2)");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(commands.as_bytes()).expect("write to ip");
        drop(stdin);
        let status = child.wait().expect("wait for ip");
        assert!(status.success(), "ip failed for: {commands}");
    }

    /// Sets a sysctl, named by its path below /proc/sys.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| {
            fs::write(format!("/proc/sys/{path}"), value)
                .unwrap_or_else(|e| panic!("sysctl {path}={value}: {e}"));
        });
    }

    /// Reads one of an interface's packet and byte counters.
    ///
    /// `name` is a column of `/proc/net/dev`: `rx_packets`, `rx_dropped` or `tx_packets`.
    pub fn counter(&self, interface: &str, name: &str) -> u64 {
        let column = match name {
            "rx_packets" => 1,
            "rx_dropped" => 3,
            "tx_packets" => 9,
            _ => panic!("no column for {name}"),
        };
        let table =
            self.run(|| fs::read_to_string("/proc/thread-self/net/dev").expect("/proc/net/dev"));
        let row = table
            .lines()
            .filter_map(|row| row.split_once(':'))
            .find(|(device, _)| device.trim() == interface)
            .unwrap_or_else(|| panic!("no {interface} in {table}"))
            .1;
        let field = row.split_whitespace().nth(column).expect("column");
        field.parse().expect("a number")
    }

    /// Turns segmentation and receive offloads of an interface on or off.
    pub fn set_offloads(&self, interface: &str, on: bool) {
        const TSO: u32 = 0x1f;
        const GSO: u32 = 0x24;
        const GRO: u32 = 0x2c;
        self.run(|| {
            for command in [TSO, GSO, GRO] {
                sys::ethtool_set(interface, command, on.into())
                    .unwrap_or_else(|e| panic!("offload {command:#x} of {interface}: {e}"));
            }
        });
    }

    /// Turns only the device's own segmentation on or off; the stack still builds super-packets.
    pub fn set_segmentation_offload(&self, interface: &str, on: bool) {
        const TSO: u32 = 0x1f;
        self.run(|| {
            sys::ethtool_set(interface, TSO, on.into())
                .unwrap_or_else(|e| panic!("segmentation of {interface}: {e}"));
        });
    }

    fn file(&self) -> File {
        let path = format!("/run/netns/{}", self.name);
        File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn enter(&self) {
        setns(self.file(), CloneFlags::CLONE_NEWNET).expect("enter the namespace");
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let result = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !result.is_ok_and(|status| status.success()) {
            eprintln!("namespace {} could not be removed", self.name);
        }
    }
}

/// Two hosts joined by a cable: `near` holds the interface the agent watches, `far` is its peer.
///
/// Addresses: 10.9.0.1 and 10.9.0.2, and with [`Pair::enable_ipv6`] fd09::1 and fd09::2.
/// Neighbours are static, so no ARP is needed.
#[derive(Debug)]
pub struct Pair {
    /// The watched host.
    pub near: Netns,
    /// The other host.
    pub far: Netns,
}

/// The watched interface's name in its namespace.
pub const NEAR_IF: &str = "veth-near";
/// The peer's name in its namespace.
pub const FAR_IF: &str = "veth-far";
/// The watched host's IPv4 address.
pub const NEAR_IP: &str = "10.9.0.1";
/// The peer's IPv4 address.
pub const FAR_IP: &str = "10.9.0.2";
/// The watched host's IPv6 address.
pub const NEAR_IP6: &str = "fd09::1";
/// The peer's IPv6 address.
pub const FAR_IP6: &str = "fd09::2";
/// The watched interface's link address.
pub const NEAR_MAC: [u8; 6] = [2, 0, 0, 9, 0, 1];
/// The peer's link address.
pub const FAR_MAC: [u8; 6] = [2, 0, 0, 9, 0, 2];

impl Pair {
    /// Two hosts with IPv4 addresses.
    pub fn new() -> Self {
        let pair = Self::bare(1500);
        pair.near.ip(&format!(
            "addr add {NEAR_IP}/24 dev {NEAR_IF}\n\
             neigh replace {FAR_IP} lladdr {} dev {NEAR_IF} nud permanent\n",
            mac(FAR_MAC)
        ));
        pair.far.ip(&format!(
            "addr add {FAR_IP}/24 dev {FAR_IF}\n\
             neigh replace {NEAR_IP} lladdr {} dev {FAR_IF} nud permanent\n",
            mac(NEAR_MAC)
        ));
        pair
    }

    /// Two hosts without addresses, for injected frames: no stack answers. `mtu` in bytes.
    pub fn bare(mtu: u32) -> Self {
        let pair = Self { near: Netns::new(), far: Netns::new() };
        pair.connect(mtu);
        pair
    }

    /// Joins the hosts by a new cable; the old one must be gone.
    pub fn connect(&self, mtu: u32) {
        self.near.ip(&format!(
            "link add {NEAR_IF} address {} mtu {mtu} type veth peer name {FAR_IF} address {} mtu {mtu} \
             netns {}\n\
             link set {NEAR_IF} up\n\
             link set lo up\n",
            mac(NEAR_MAC),
            mac(FAR_MAC),
            self.far.name()
        ));
        self.far.ip(&format!("link set {FAR_IF} up\nlink set lo up\n"));
    }

    /// Adds the IPv6 addresses, without duplicate detection and router solicitation.
    pub fn enable_ipv6(&self) {
        let sides = [
            (&self.near, NEAR_IF, NEAR_IP6, FAR_IP6, FAR_MAC),
            (&self.far, FAR_IF, FAR_IP6, NEAR_IP6, NEAR_MAC),
        ];
        for (ns, interface, own, other, other_mac) in sides {
            for (name, value) in [
                ("accept_dad", "0"),
                ("router_solicitations", "0"),
                ("addr_gen_mode", "1"),
                ("mldv2_unsolicited_report_interval", "1"),
                ("disable_ipv6", "0"),
            ] {
                ns.sysctl(&format!("net/ipv6/conf/{interface}/{name}"), value);
            }
            ns.ip(&format!(
                "addr add {own}/64 dev {interface} nodad\n\
                 neigh replace {other} lladdr {} dev {interface} nud permanent\n",
                mac(other_mac)
            ));
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}
