//! The demo's client: some of what a host does on a network.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, TcpStream, UdpSocket},
    os::unix::process::parent_id,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{CLOSED_PORT, ECHO_PORT, HOLD_PORT, HTTP_PORT, SERVER_V4, SERVER_V6};
use crate::shell;

/// How long the agent may take to attach before there is traffic.
const BEFORE: Duration = Duration::from_secs(2);
/// How long there is traffic.
const TRAFFIC: Duration = Duration::from_secs(15);
/// How long the agent may take to end.
const AFTER: Duration = Duration::from_secs(10);

/// Makes traffic until the time is up or the agent, whose process number is the argument, is gone;
/// asks it to end if it is not.
pub(crate) fn client(args: &[String]) -> Result<()> {
    let [agent] = args else { bail!("`demo-client` is a part of `demo`: run that") };
    // The agent started us; once it is gone, its number may be another's.
    let agent_lives = || parent_id().to_string() == *agent;
    let wait = |most: Duration| {
        let end = Instant::now() + most;
        while agent_lives() && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
    };
    let held = TcpStream::connect((SERVER_V4, HOLD_PORT)).context("the server is not there")?;
    wait(BEFORE);
    // Each ends when it fails, or with this process: the others' traffic is still worth seeing.
    thread::spawn(|| again(Duration::from_millis(50), || one_page(SERVER_V4)));
    thread::spawn(keep_alive);
    thread::spawn(|| again(Duration::from_secs(4), || download(SERVER_V6)));
    thread::spawn(call);
    thread::spawn(|| again(Duration::from_millis(200), lookup));
    thread::spawn(|| again(Duration::from_secs(1), knock));
    wait(TRAFFIC);
    if agent_lives() {
        shell::run(Command::new("sh").args(["-c", "kill -INT \"$1\"", "sh", agent]))?;
    }
    // The server's end takes the interfaces along: not before the agent has finished.
    wait(AFTER);
    drop(held);
    Ok(())
}

/// Does something again and again, until it fails.
fn again(pause: Duration, mut what: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        what()?;
        thread::sleep(pause);
    }
}

/// A connection of its own for one small page, as old browsers and many scripts have it.
fn one_page(server: IpAddr) -> io::Result<()> {
    let mut connection = BufReader::new(TcpStream::connect((server, HTTP_PORT))?);
    get(&mut connection, 3000)
}

/// One connection, many requests of growing size.
fn keep_alive() -> io::Result<()> {
    let mut connection = BufReader::new(TcpStream::connect((SERVER_V4, HTTP_PORT))?);
    let mut size = 100;
    again(Duration::from_millis(20), || {
        size = size % 20_000 + 100;
        get(&mut connection, size)
    })
}

/// A bulk transfer, at whatever speed the machine gives.
fn download(server: IpAddr) -> io::Result<()> {
    let mut connection = BufReader::new(TcpStream::connect((server, HTTP_PORT))?);
    get(&mut connection, 256 << 20)
}

/// Fifty small datagrams a second, both ways, as a telephone call has them.
fn call() -> io::Result<()> {
    let socket = socket_to(SERVER_V4, ECHO_PORT)?;
    again(Duration::from_millis(20), || {
        socket.send(&[0x80; 172])?;
        // A lost answer is as good as any.
        socket.recv(&mut [0; 2048]).ok();
        Ok(())
    })
}

/// One datagram and its answer on a port of its own, as a name server's clients do it.
fn lookup() -> io::Result<()> {
    let socket = socket_to(SERVER_V6, ECHO_PORT)?;
    socket.send(&[0; 40])?;
    socket.recv(&mut [0; 2048]).map(|_| ())
}

/// A datagram to a port where nobody listens: the answer is ICMP.
fn knock() -> io::Result<()> {
    socket_to(SERVER_V4, CLOSED_PORT)?.send(b"anyone?").map(|_| ())
}

/// A socket for datagrams to one port of the server, that does not wait long.
fn socket_to(server: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let any = match server {
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, port))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

/// Asks for this many bytes and reads them.
fn get(connection: &mut BufReader<TcpStream>, size: u64) -> io::Result<()> {
    let request = format!("GET /{size} HTTP/1.1\r\nHost: demo\r\nAccept: */*\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    while connection.read_line(&mut line)? > 2 {
        line.clear();
    }
    io::copy(&mut connection.take(size), &mut io::sink())?;
    Ok(())
}
