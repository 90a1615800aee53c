//! The demo's server: answers requests over TCP, sends datagrams back.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{ECHO_PORT, HOLD_PORT, HTTP_PORT, SERVER, SERVER_LINK, set_up};

/// How long the client may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until the client's holding connection closes.
pub(crate) fn server() -> Result<()> {
    say("in its namespace")?;
    io::stdin().lock().read_line(&mut String::new()).context("cannot hear the stage")?;
    set_up(SERVER_LINK, SERVER)?;
    let http = listen(HTTP_PORT)?;
    let hold = listen(HOLD_PORT)?;
    let echo = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORT))
        .with_context(|| format!("cannot take UDP port {ECHO_PORT}"))?;
    thread::spawn(move || {
        for stream in http.incoming().flatten() {
            // A client that goes away in the middle of an answer is no fault.
            thread::spawn(move || answer(stream).ok());
        }
    });
    thread::spawn(move || send_back(&echo).ok());
    say("serving")?;
    // No client, no end of this process: none may be left behind.
    let (sender, comes) = mpsc::channel();
    thread::spawn(move || hold.accept().map(|(held, _)| sender.send(held)));
    let mut held = comes.recv_timeout(PATIENCE).context("the demo's client does not come")?;
    // Closed or broken off: the client is gone either way.
    held.read_to_end(&mut Vec::new()).ok();
    Ok(())
}

/// Listens on all addresses of both families.
fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot take TCP port {port}"))
}

/// Answers `GET /SIZE` with as many bytes, one request after the other.
fn answer(stream: TcpStream) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    loop {
        let mut size = None;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => size = size.or_else(|| line.split(['/', ' ']).nth(2)?.parse().ok()),
            }
        }
        let size = size.unwrap_or(0);
        write!(answers, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
        io::copy(&mut io::repeat(b'x').take(size), &mut answers)?;
    }
}

/// Sends every datagram back to its sender.
fn send_back(socket: &UdpSocket) -> io::Result<()> {
    let mut datagram = [0; 2048];
    loop {
        let (length, sender) = socket.recv_from(&mut datagram)?;
        socket.send_to(&datagram[..length], sender)?;
    }
}

/// Tells the stage how far the server is.
fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot tell the stage")
}
