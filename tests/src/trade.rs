//! Two processes that send and receive in every way that a socket hook must count, and keep books of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{IoSlice, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
};

use socket2::{Domain, MsgHdr, Protocol, SockAddr, Socket, Type};

use crate::peers::{TCP_PORT, UDP_PORT};

/// Calls and bytes, sent and received; no calls where the kernel alone knows how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Calls that sent something.
    pub sends: u64,
    /// What they sent.
    pub sent: u64,
    /// Calls that received something.
    pub receipts: u64,
    /// What they received.
    pub received: u64,
}

/// A flow as its socket has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    /// IP protocol number.
    pub proto: u8,
    /// The socket's address: that of no host, if it is bound to none.
    pub local: SocketAddr,
    /// The other's.
    pub remote: SocketAddr,
    /// Whether calls are not counted: only the kernel knows how many there were.
    pub only_bytes: bool,
}

/// What a process has sent and received.
pub type Books = BTreeMap<Ends, Sum>;

/// Bytes that a connection carries in each direction, beside what it sends out of a file.
const CARGO: usize = 40_000;
/// Bytes of the file.
const OF_FILE: usize = 30_000;
/// Datagrams of a socket.
const DATAGRAMS: usize = 12;

/// An address as the kernel routes it: IPv4 that an IPv6 socket has mapped is IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The local end: where the socket is bound to no address, that of no host, in the peer's version.
fn local(address: SocketAddr, remote: SocketAddr) -> SocketAddr {
    let address = plain(address);
    match (address.ip(), remote.ip()) {
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(_)) => {
            SocketAddr::new([0, 0, 0, 0].into(), address.port())
        }
        _ => address,
    }
}

fn ends(proto: u8, address: SocketAddr, remote: SocketAddr, only_bytes: bool) -> Ends {
    let remote = plain(remote);
    Ends { proto, local: local(address, remote), remote, only_bytes }
}

fn of_stream(stream: &TcpStream, only_bytes: bool) -> Ends {
    let address = stream.local_addr().expect("an address");
    ends(6, address, stream.peer_addr().expect("a peer"), only_bytes)
}

/// Writes `bytes` by calls of many lengths, some of several pieces.
fn write(stream: &mut TcpStream, bytes: usize, sum: &mut Sum) {
    let cargo = vec![b'x'; bytes];
    let (mut at, mut nth) = (0, 1);
    while at < bytes {
        let end = (at + nth * 701).min(bytes);
        let middle = at + (end - at) / 2;
        let pieces = [IoSlice::new(&cargo[at..middle]), IoSlice::new(&cargo[middle..end])];
        let wrote = stream.write_vectored(&pieces).expect("write");
        sum.sends += 1;
        sum.sent += wrote as u64;
        at += wrote;
        nth += 1;
    }
}

/// Reads `bytes` by calls of many lengths; looks before some of them, and waits for all in others.
fn read(stream: &mut TcpStream, bytes: usize, sum: &mut Sum) {
    let mut buffer = vec![0; 8192];
    let (mut left, mut nth) = (bytes, 1);
    while left > 0 {
        let room = (nth * 977).min(buffer.len()).min(left);
        if nth % 3 == 0 {
            assert!(stream.peek(&mut buffer[..room]).expect("peek") > 0);
        }
        let flags = if nth % 4 == 0 { libc::MSG_WAITALL } else { 0 };
        // SAFETY: so many bytes are the buffer's.
        let got =
            unsafe { libc::recv(stream.as_raw_fd(), buffer.as_mut_ptr().cast(), room, flags) };
        assert!(got > 0, "{}", std::io::Error::last_os_error());
        sum.receipts += 1;
        sum.received += got as u64;
        left -= got as usize;
        nth += 1;
    }
}

/// Sends a file's bytes without a copy.
fn send_file(stream: &TcpStream, sum: &mut Sum) {
    let path = std::env::temp_dir().join(format!("cargo-{}", std::process::id()));
    std::fs::write(&path, vec![b'f'; OF_FILE]).expect("a file");
    let file = File::open(path).expect("open");
    let mut left = OF_FILE;
    while left > 0 {
        // SAFETY: two open files, no offset.
        let sent = unsafe {
            libc::sendfile(stream.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut(), left)
        };
        assert!(sent > 0, "{}", std::io::Error::last_os_error());
        sum.sent += sent as u64;
        left -= sent as usize;
    }
}

/// Receives by splice(2), through a pipe.
fn splice(stream: &TcpStream, sum: &mut Sum) {
    let (mut from, into) = std::io::pipe().expect("a pipe");
    let (mut left, mut buffer) = (OF_FILE, vec![0; OF_FILE]);
    while left > 0 {
        let (source, sink) = (stream.as_raw_fd(), into.as_raw_fd());
        let none = std::ptr::null_mut();
        // SAFETY: two open files, no offsets.
        let got = unsafe { libc::splice(source, none, sink, none, left.min(4096), 0) };
        assert!(got > 0, "{}", std::io::Error::last_os_error());
        from.read_exact(&mut buffer[..got as usize]).expect("read the pipe");
        sum.received += got as u64;
        left -= got as usize;
    }
}

/// A connection's client: one by one, then both directions at once from two threads, then a file. Ends its own half first,
/// and reads on after the other has ended.
fn client(to: SocketAddr) -> (Ends, Sum, TcpStream) {
    let mut stream = TcpStream::connect(to).expect("connect");
    let mut sum = Sum::default();
    let name = of_stream(&stream, true);
    write(&mut stream, 1, &mut sum);
    write(&mut stream, CARGO, &mut sum);
    read(&mut stream, CARGO, &mut sum);
    let mut other = stream.try_clone().expect("clone");
    let both = thread::spawn(move || {
        let mut sum = Sum::default();
        read(&mut other, CARGO, &mut sum);
        sum
    });
    write(&mut stream, CARGO, &mut sum);
    let more = both.join().expect("the reader");
    sum.receipts += more.receipts;
    sum.received += more.received;
    send_file(&stream, &mut sum);
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    // The other's last words are in the queue when the connection is over.
    thread::sleep(std::time::Duration::from_millis(100));
    read(&mut stream, CARGO, &mut sum);
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    (name, sum, stream)
}

fn server(mut stream: TcpStream) -> (Ends, Sum, TcpStream) {
    let mut sum = Sum::default();
    let name = of_stream(&stream, true);
    read(&mut stream, 1 + CARGO, &mut sum);
    write(&mut stream, CARGO, &mut sum);
    let mut other = stream.try_clone().expect("clone");
    let both = thread::spawn(move || {
        let mut sum = Sum::default();
        write(&mut other, CARGO, &mut sum);
        sum
    });
    read(&mut stream, CARGO, &mut sum);
    let more = both.join().expect("the writer");
    sum.sends += more.sends;
    sum.sent += more.sent;
    splice(&stream, &mut sum);
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    write(&mut stream, CARGO, &mut sum);
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    (name, sum, stream)
}

fn datagram(bytes: usize) -> Vec<u8> {
    vec![b'd'; bytes]
}

/// Sends datagrams, an empty one among them, and reads the answers.
fn send_datagrams(to: SocketAddr, connected: bool) -> (Ends, Sum, UdpSocket) {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).expect("bind");
    if connected {
        socket.connect(to).expect("connect");
    }
    let mut sum = Sum::default();
    let mut buffer = [0; 2000];
    for nth in 0..DATAGRAMS {
        let message = datagram(nth * 100);
        let sent = if connected { socket.send(&message) } else { socket.send_to(&message, to) };
        sum.sends += 1;
        sum.sent += sent.expect("send") as u64;
        let got = if connected {
            socket.recv(&mut buffer)
        } else {
            socket.recv_from(&mut buffer).map(|(got, _)| got)
        };
        sum.receipts += 1;
        sum.received += got.expect("receive") as u64;
    }
    (ends(17, socket.local_addr().expect("an address"), to, false), sum, socket)
}

/// Answers the datagrams of `clients` sockets; cuts those off that are longer than its room, and looks before it takes.
fn answer_datagrams(socket: &UdpSocket, clients: usize) -> Books {
    let mut books = Books::new();
    let address = socket.local_addr().expect("an address");
    let mut buffer = [0; 1000];
    for nth in 0..clients * DATAGRAMS {
        // An empty datagram that is only looked at counts as one that is taken: it cannot be told from that.
        if next_datagram(socket) > 0 {
            socket.peek_from(&mut buffer).expect("peek");
        }
        let (got, from) = socket.recv_from(&mut buffer).expect("receive");
        let sum = books.entry(ends(17, address, from, false)).or_default();
        sum.receipts += 1;
        sum.received += got as u64;
        let sent = if nth % 2 == 0 {
            socket.send_to(&buffer[..got], from).expect("answer")
        } else {
            send_message(socket, &buffer[..got], from)
        };
        sum.sends += 1;
        sum.sent += sent as u64;
    }
    books
}

/// How long the next datagram is, once it is there.
fn next_datagram(socket: &UdpSocket) -> i32 {
    let mut length = 0;
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one open file, one structure.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1);
    // SAFETY: the request writes one integer.
    assert_eq!(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut length) }, 0);
    length
}

/// By sendmsg(2), of two pieces.
fn send_message(socket: &UdpSocket, message: &[u8], to: SocketAddr) -> usize {
    let (head, tail) = message.split_at(message.len() / 2);
    let pieces = [IoSlice::new(head), IoSlice::new(tail)];
    let to = SockAddr::from(to);
    let message = MsgHdr::new().with_addr(&to).with_buffers(&pieces);
    socket2::SockRef::from(socket).sendmsg(&message, 0).expect("answer")
}

/// Listens for both versions of IP by one socket if `address` is that of no host, else for its own.
fn listen(address: IpAddr) -> (TcpListener, UdpSocket) {
    let socket = |kind, protocol, port| {
        let socket = Socket::new(Domain::for_address((address, 0).into()), kind, Some(protocol));
        let socket = socket.expect("a socket");
        if address.is_ipv6() {
            socket.set_only_v6(!address.is_unspecified()).expect("an option");
        }
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&SocketAddr::new(address, port).into()).expect("bind");
        socket
    };
    let tcp = socket(Type::STREAM, Protocol::TCP, TCP_PORT);
    tcp.listen(16).expect("listen");
    (tcp.into(), socket(Type::DGRAM, Protocol::UDP, UDP_PORT).into())
}

/// Serves `count` connections, and twice as many sockets of datagrams, at each address; tells when it listens.
pub fn serve(addresses: &[IpAddr], count: usize, listening: impl FnOnce()) -> Books {
    let sockets: Vec<_> = addresses.iter().map(|&address| listen(address)).collect();
    listening();
    let servers: Vec<_> = sockets
        .into_iter()
        .map(|(tcp, udp)| {
            thread::spawn(move || {
                let datagrams = thread::spawn(move || answer_datagrams(&udp, 2 * count));
                let streams: Vec<_> = (0..count)
                    .map(|_| {
                        let (stream, _) = tcp.accept().expect("accept");
                        server(stream)
                    })
                    .collect();
                let mut books = datagrams.join().expect("datagrams");
                books.extend(streams.iter().map(|(name, sum, _)| (*name, *sum)));
                books
            })
        })
        .collect();
    servers.into_iter().flat_map(|server| server.join().expect("a server")).collect()
}

/// Makes `count` connections, and twice as many sockets of datagrams, to each address.
pub fn visit(addresses: &[IpAddr], count: usize) -> Books {
    let mut books = Books::new();
    let mut open = Vec::new();
    for &address in addresses {
        let (tcp, udp) = (SocketAddr::new(address, TCP_PORT), SocketAddr::new(address, UDP_PORT));
        for _ in 0..count {
            let (name, sum, stream) = client(tcp);
            books.insert(name, sum);
            open.push(stream);
            for connected in [true, false] {
                let (name, sum, socket) = send_datagrams(udp, connected);
                // An unconnected socket has no local address, and its port is its own.
                books.insert(name, sum);
                open.push(TcpStream::from(std::os::fd::OwnedFd::from(socket)));
            }
        }
    }
    // Once a port is free another may have it.
    std::mem::forget(open);
    books
}

/// A flow's books in a line.
pub fn text(name: &Ends, sum: &Sum) -> String {
    let Ends { proto, local, remote, only_bytes } = name;
    let Sum { sends, sent, receipts, received } = sum;
    format!("{proto} {local} {remote} {only_bytes} {sends} {sent} {receipts} {received}")
}

/// Reads [`text`].
pub fn parse(line: &str) -> (Ends, Sum) {
    let words: Vec<&str> = line.split(' ').collect();
    let [proto, local, remote, only_bytes, sends, sent, receipts, received] = words[..] else {
        panic!("no books: {line}")
    };
    let number = |text: &str| text.parse().expect("a number");
    (
        Ends {
            proto: proto.parse().expect("a protocol"),
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
            only_bytes: only_bytes.parse().expect("true or false"),
        },
        Sum {
            sends: number(sends),
            sent: number(sent),
            receipts: number(receipts),
            received: number(received),
        },
    )
}
