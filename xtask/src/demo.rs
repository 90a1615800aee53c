//! `demo`: real traffic in a world of its own, and the agent watching it.
//!
//! Two network namespaces without names, joined by a veth pair: a server in one; a client and the
//! agent in the other. A nameless namespace ends with its last process and takes the interfaces
//! along, so that nothing is left behind however the demo ends. Ctrl-C reaches the agent alone: the
//! client goes when the agent has gone, and the server when the client has.
//!
//! ```text
//! xtask demo ── becomes ── unshare --net xtask demo-stage ── becomes ── feature-agent --iface demo0
//!                                          ├─ unshare --net xtask demo-server  (until the client is gone)
//!                                          └─ xtask demo-client                (then asks the agent to end)
//! ```

mod client;
mod server;

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::{client::client, server::server};
use crate::{root, run, shell};

/// The client's interface, which the agent watches.
const CLIENT_LINK: &str = "demo0";
/// The server's interface.
const SERVER_LINK: &str = "demo1";
/// The client's addresses.
const CLIENT: [&str; 2] = ["192.0.2.1/24", "2001:db8::1/64"];
/// The server's addresses, as its interface has them.
const SERVER: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];
/// The server's IPv4 address, as the client calls it.
const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
/// The server's IPv6 address, as the client calls it.
const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
/// Where the server answers requests over TCP.
const HTTP_PORT: u16 = 80;
/// Where the server sends datagrams back.
const ECHO_PORT: u16 = 5004;
/// Where nobody listens: the server's kernel answers by ICMP.
const CLOSED_PORT: u16 = 9;
/// Where the client holds one connection: when it closes, the server ends.
const HOLD_PORT: u16 = 7;

/// Builds the agent and goes on as root in a namespace, with the agent's arguments after `--`.
pub(crate) fn demo(args: &[String]) -> Result<()> {
    root::need("ip", "iproute2")?;
    root::need("unshare", "util-linux")?;
    let agent = run::build_agent()?;
    shell::say("15 seconds of traffic between two namespaces; Ctrl-C ends it");
    let error = root::command("unshare", "making a network namespace")?
        .arg("--net")
        .arg(me()?)
        .arg("demo-stage")
        .arg(agent)
        .args(args)
        .exec();
    Err(error).context("cannot start `unshare`")
}

/// In the client's namespace: joins it to a server's, starts the client and becomes the agent.
pub(crate) fn stage(args: &[String]) -> Result<()> {
    let Some((agent, args)) = args.split_first() else {
        bail!("`demo-stage` is a part of `demo`: run that");
    };
    let (mut server, mut says) = start_server()?;
    expect(&mut says, "in its namespace")?;
    let pid = server.id().to_string();
    ip(&["link", "add", CLIENT_LINK, "type", "veth", "peer", "name", SERVER_LINK, "netns", &pid])?;
    set_up(CLIENT_LINK, CLIENT)?;
    // The server waits for this line: its interface is there now.
    let mut told = server.stdin.take().context("the server has no input")?;
    told.write_all(b"go\n").context("cannot tell the server to go on")?;
    expect(&mut says, "serving")?;
    Command::new(me()?)
        .args(["demo-client", &std::process::id().to_string()])
        .process_group(0)
        .spawn()
        .context("cannot start the demo's client")?;
    let error = Command::new(agent).args(["--iface", CLIENT_LINK]).args(args).exec();
    Err(error).with_context(|| format!("cannot start {agent}"))
}

/// Starts the server in a namespace of its own; what it says comes back line by line.
fn start_server() -> Result<(Child, BufReader<ChildStdout>)> {
    let mut server = Command::new("unshare")
        .arg("--net")
        .arg(me()?)
        .arg("demo-server")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start `unshare`")?;
    let says = server.stdout.take().context("the server has no output")?;
    Ok((server, BufReader::new(says)))
}

/// Waits for the server to say this.
fn expect(says: &mut BufReader<ChildStdout>, wanted: &str) -> Result<()> {
    let mut line = String::new();
    says.read_line(&mut line).context("cannot hear the server")?;
    if line.trim_end() != wanted {
        bail!("the demo's server ended before it was {wanted}");
    }
    Ok(())
}

/// Gives an interface its addresses, at once usable, and sets it up.
fn set_up(link: &str, addresses: [&str; 2]) -> Result<()> {
    let [v4, v6] = addresses;
    ip(&["address", "add", v4, "dev", link])?;
    // Without IPv6 in this kernel the demo goes on with IPv4.
    if ip(&["address", "add", v6, "dev", link, "nodad"]).is_err() {
        shell::say("no IPv6 here");
    }
    ip(&["link", "set", link, "up"])
}

/// Runs `ip`.
fn ip(args: &[&str]) -> Result<()> {
    shell::run(Command::new("ip").args(args))
}

/// This program.
fn me() -> Result<std::path::PathBuf> {
    env::current_exe().context("cannot find this program's own path")
}
