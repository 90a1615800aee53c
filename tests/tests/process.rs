//! `--process`: which process is behind a flow, told by the sockets themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{self, Command},
    time::Duration,
};

use feature_agent_tests::{
    agent::Agent,
    inject::wait_until,
    lines::{Line, PROCESS},
    netns::{FAR_IF, NEAR_IF, Netns, Pair},
    peers::{self, Peer, Role, TCP_PORT, Talked, UDP_PORT},
    scenario::assert_conserved,
    sys::is_root_or_say,
    traffic::Version,
};
use serde_json::Value;

/// Not a test: what other processes of these tests do.
#[test]
fn peer() {
    peers::play();
}

fn start(ns: &Netns, role: &Role) -> Peer {
    Peer::start(ns, "peer", role, |_| ())
}

fn watch(ns: &Netns, interface: &str) -> Agent {
    Agent::start(ns, &["--iface", interface, "--process", "--interval", "200ms"])
}

fn both() -> Vec<IpAddr> {
    vec![Version::V4.far(), Version::V6.far()]
}

fn pair() -> Pair {
    let pair = Pair::new();
    pair.enable_ipv6();
    pair
}

/// The lines of each flow that a client has made, by the client's port. Panics if a flow has none.
fn by_flow<'a>(lines: &'a [Line], talked: &[Talked]) -> BTreeMap<Talked, Vec<&'a Line>> {
    let of = |talked: &Talked| -> Vec<&Line> {
        let is_of = |line: &&Line| {
            line.int("proto") == u64::from(talked.proto)
                && line.text("src").contains(':') == talked.v6
                && line.int_or_null("sport") == Some(talked.port.into())
        };
        lines.iter().filter(is_of).collect()
    };
    let flows: BTreeMap<_, _> = talked.iter().map(|talked| (*talked, of(talked))).collect();
    for (talked, lines) in &flows {
        assert!(!lines.is_empty(), "no line of {talked:?}");
    }
    flows
}

/// Ends an agent once it has had time to speak; its lines, and the books right.
fn lines_of(agent: Agent) -> Vec<Line> {
    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let lines = outcome.lines();
    assert_conserved(&outcome.reconciliation(), &lines);
    lines
}

fn assert_names_nobody(line: &Line) {
    for field in PROCESS {
        assert_eq!(line.get(field), &Value::Null, "{field} of {line:?}");
    }
}

/// Waits until an agent has written a line of each flow.
fn await_lines(agent: &Agent, talked: &[Talked]) {
    let all_are = || {
        let lines = agent.lines_so_far();
        let flow = |line: &Line| (line.int("proto"), line.int_or_null("sport"));
        let said: BTreeSet<_> = lines.iter().map(flow).collect();
        talked.iter().all(|Talked { proto, port, .. }| {
            said.contains(&(u64::from(*proto), Some(u64::from(*port))))
        })
    };
    let all = wait_until(Duration::from_secs(10), all_are);
    assert!(all, "not every flow has spoken; the agent said:\n{}", agent.stderr());
}

#[test]
fn each_end_knows_its_own_process() {
    if !is_root_or_say("each_end_knows_its_own_process") {
        return;
    }
    let pair = pair();
    let agents = [watch(&pair.near, NEAR_IF), watch(&pair.far, FAR_IF)];
    let server = start(&pair.far, &Role::Serve(both()));
    let role = Role::Talk(20, both());
    let mut client = Peer::start(&pair.near, "peer", &role, |command: &mut Command| {
        command.uid(65_534);
    });
    let talked = client.talked();
    assert_eq!(talked.len(), 80);
    for agent in &agents {
        await_lines(agent, &talked);
    }
    let exe = std::env::current_exe().expect("the test's own path");
    let [near, far] = agents.map(lines_of);
    for (lines, process, uid) in [(&near, &client, 65_534), (&far, &server, 0)] {
        for line in by_flow(lines, &talked).values().flatten() {
            assert_eq!(line.int("pid"), process.pid(), "{line:?}");
            assert_eq!(line.text("comm"), process.comm);
            assert_eq!(line.text("exe"), exe.to_str().expect("UTF-8"));
            assert_eq!(line.int("uid"), uid);
            let number = fs::metadata(root().join(&line.text("cgroup")[1..]));
            let number = number.map(|group| group.ino());
            assert_eq!(line.int("cgroup_id"), number.expect("a control group"));
        }
    }
    client.finish();
    server.finish();
}

#[test]
fn a_process_that_has_ended_is_named() {
    if !is_root_or_say("a_process_that_has_ended_is_named") {
        return;
    }
    let pair = pair();
    let agent = watch(&pair.near, NEAR_IF);
    let pids: Vec<u64> = [Version::V4, Version::V6, Version::V4]
        .into_iter()
        .map(|version| {
            let peer = start(&pair.near, &Role::Cry(version.far()));
            let pid = peer.pid();
            peer.finish();
            pid
        })
        .collect();
    let cries = || -> Vec<Line> {
        let lines = agent.lines_so_far().into_iter();
        lines.filter(|line| line.int_or_null("dport") == Some(UDP_PORT.into())).collect()
    };
    assert!(wait_until(Duration::from_secs(10), || cries().len() >= pids.len()));
    let mut named: Vec<u64> = lines_of(agent)
        .iter()
        .filter(|line| line.int_or_null("dport") == Some(UDP_PORT.into()))
        .map(|line| line.int("pid"))
        .collect();
    named.dedup();
    named.sort_unstable();
    named.dedup();
    let mut pids = pids;
    pids.sort_unstable();
    assert_eq!(named, pids);
}

#[test]
fn who_accepts_is_the_process_of_a_servers_socket() {
    if !is_root_or_say("who_accepts_is_the_process_of_a_servers_socket") {
        return;
    }
    let pair = pair();
    let agent = watch(&pair.far, FAR_IF);
    // Made here, inherited by who accepts, as from a manager of services.
    let listener = pair.far.run(|| TcpListener::bind((Version::V4.far(), TCP_PORT)).expect("bind"));
    let server = Peer::start(&pair.far, "peer", &Role::Accept, |command| {
        command.stdin(OwnedFd::from(listener));
    });
    let udp = start(&pair.far, &Role::Serve(vec![Version::V6.far()]));
    let mut client = start(&pair.near, &Role::Talk(5, vec![Version::V6.far()]));
    let by_others = client.talked();
    let streams: Vec<_> =
        pair.near.run(|| (0..5).map(|_| echo(connect(Version::V4.far()))).collect());
    let talked: Vec<Talked> = streams
        .iter()
        .map(|stream| {
            let port = stream.local_addr().expect("an address").port();
            Talked { proto: 6, port, v6: false }
        })
        .collect();
    await_lines(&agent, &talked);
    drop(streams);
    let lines = lines_of(agent);
    for line in by_flow(&lines, &talked).values().filter_map(|lines| lines.last()) {
        assert_eq!(line.int("pid"), server.pid(), "not {}, who made the socket", process::id());
    }
    for line in by_flow(&lines, &by_others).values().flatten() {
        assert_eq!(line.int("pid"), udp.pid());
    }
    client.finish();
}

fn connect(to: IpAddr) -> TcpStream {
    TcpStream::connect((to, TCP_PORT)).expect("connect")
}

/// Has a server answer, so that it has accepted.
fn echo(mut stream: TcpStream) -> TcpStream {
    for _ in 0..3 {
        stream.write_all(b"are you there?").expect("send");
        stream.read_exact(&mut [0; 14]).expect("the echo");
    }
    stream
}

#[test]
fn a_connection_from_before_the_agent_is_known() {
    if !is_root_or_say("a_connection_from_before_the_agent_is_known") {
        return;
    }
    let pair = pair();
    let server = start(&pair.far, &Role::Serve(both()));
    let stream = pair.near.run(|| connect(Version::V4.far()));
    let stream = echo(stream);
    let agents = [watch(&pair.near, NEAR_IF), watch(&pair.far, FAR_IF)];
    let stream = echo(stream);
    let port = stream.local_addr().expect("an address").port();
    let talked = [Talked { proto: 6, port, v6: false }];
    for agent in &agents {
        await_lines(agent, &talked);
    }
    let [near, far] = agents.map(lines_of);
    for (lines, pid) in [(&near, u64::from(process::id())), (&far, server.pid())] {
        for line in by_flow(lines, &talked).values().flatten() {
            assert_eq!(line.get("midstream"), &Value::Bool(true));
            assert_eq!(line.int("pid"), pid, "{line:?}");
            assert!(line.int("cgroup_id") > 0);
        }
    }
    server.finish();
}

#[test]
fn what_is_only_passed_on_is_nobodys() {
    if !is_root_or_say("what_is_only_passed_on_is_nobodys") {
        return;
    }
    let router = Netns::new();
    let (left, right) = (Netns::new(), Netns::new());
    for (ns, near, far, net) in [(&left, "r0", "l0", 1), (&right, "r1", "l1", 2)] {
        router.ip(&format!(
            "link add {near} type veth peer name {far} netns {}\n\
             addr add 10.8.{net}.1/24 dev {near}\nlink set {near} up\nlink set lo up\n",
            ns.name()
        ));
        ns.ip(&format!(
            "addr add 10.8.{net}.2/24 dev {far}\nlink set {far} up\n\
             route add default via 10.8.{net}.1\n"
        ));
    }
    router.sysctl("net/ipv4/ip_forward", "1");
    let agent = watch(&router, "r0");
    // A server on the router, bound to no address: it must not be taken for the one that is asked.
    let own = start(&router, &Role::Serve(vec!["0.0.0.0".parse().expect("an address")]));
    let far = start(&right, &Role::Serve(vec!["10.8.2.2".parse().expect("an address")]));
    let visits = ["10.8.2.2", "10.8.1.1"].map(|to| {
        let role = Role::Talk(5, vec![to.parse().expect("an address")]);
        let mut client = start(&left, &role);
        (to, client.talked(), client)
    });
    for (_, talked, _) in &visits {
        await_lines(&agent, talked);
    }
    let lines = lines_of(agent);
    for (to, talked, client) in visits {
        let lines: Vec<Line> =
            lines.iter().filter(|line| line.text("dst") == to).cloned().collect();
        for line in by_flow(&lines, &talked).values().flatten() {
            if to == "10.8.2.2" {
                assert_names_nobody(line);
            } else {
                assert_eq!(line.int("pid"), own.pid());
            }
        }
        client.finish();
    }
    drop((own, far));
}

#[test]
fn only_what_comes_in_is_enough() {
    if !is_root_or_say("only_what_comes_in_is_enough") {
        return;
    }
    let pair = pair();
    let args = ["--iface", FAR_IF, "--process", "--interval", "200ms", "--direction", "ingress"];
    let agent = Agent::start(&pair.far, &args);
    let server = start(&pair.far, &Role::Serve(both()));
    let mut client = start(&pair.near, &Role::Talk(5, both()));
    let talked = client.talked();
    await_lines(&agent, &talked);
    for line in by_flow(&lines_of(agent), &talked).values().flatten() {
        assert_eq!(line.int("pid"), server.pid());
    }
    client.finish();
    server.finish();
}

#[test]
fn on_loopback_it_is_the_initiators_process() {
    if !is_root_or_say("on_loopback_it_is_the_initiators_process") {
        return;
    }
    let ns = Netns::new();
    ns.ip("link set lo up\n");
    ns.sysctl("net/ipv6/conf/lo/disable_ipv6", "0");
    let agent = watch(&ns, "lo");
    let here = vec!["127.0.0.1".parse().expect("an address"), "::1".parse().expect("an address")];
    let server = start(&ns, &Role::Serve(here.clone()));
    let mut client = start(&ns, &Role::Talk(10, here));
    let talked = client.talked();
    await_lines(&agent, &talked);
    for line in by_flow(&lines_of(agent), &talked).values().flatten() {
        assert_eq!(line.int("pid"), client.pid());
    }
    client.finish();
    server.finish();
}

#[test]
fn a_containers_id_comes_from_its_control_group() {
    if !is_root_or_say("a_containers_id_comes_from_its_control_group") {
        return;
    }
    let id = "5eed".repeat(16);
    let group = Group::new(&format!("docker-{id}.scope"));
    let pair = pair();
    let agent = watch(&pair.near, NEAR_IF);
    let server = start(&pair.far, &Role::Serve(both()));
    let procs = group.0.join("cgroup.procs");
    let role = Role::Talk(2, both());
    let mut client = Peer::start(&pair.near, "peer", &role, |command| {
        // SAFETY: between fork and exec it opens a file and writes a word that is there already.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
    });
    let talked = client.talked();
    await_lines(&agent, &talked);
    for line in by_flow(&lines_of(agent), &talked).values().flatten() {
        assert_eq!(
            line.text("cgroup"),
            format!("/{}", group.0.file_name().and_then(|name| name.to_str()).expect("a name"))
        );
        assert_eq!(line.text("container_id"), id);
    }
    client.finish();
    server.finish();
}

#[test]
fn without_the_option_no_process_is_named() {
    if !is_root_or_say("without_the_option_no_process_is_named") {
        return;
    }
    let pair = pair();
    let agent = Agent::start(&pair.near, &["--iface", NEAR_IF, "--interval", "200ms"]);
    let server = start(&pair.far, &Role::Serve(both()));
    let mut client = start(&pair.near, &Role::Talk(1, both()));
    let talked = client.talked();
    await_lines(&agent, &talked);
    for line in by_flow(&lines_of(agent), &talked).values().flatten() {
        assert_names_nobody(line);
    }
    client.finish();
    server.finish();
}

/// Where the unified control groups are.
fn root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(mount.and_then(|line| line.split(' ').nth(1)).expect("cgroup2 is mounted"))
}

/// A control group of a test's own.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let path = root().join(name);
        fs::create_dir(&path).expect("a control group");
        Self(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let gone = |path: &Path| fs::remove_dir(path).is_ok();
        if !wait_until(Duration::from_secs(2), || gone(&self.0)) {
            eprintln!("{} could not be removed", self.0.display());
        }
    }
}
