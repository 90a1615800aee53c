//! Real sockets between the two hosts of a [`Pair`], bounded in volume and time.
//!
//! Both ends run on one processor. Each packet is then shown to the capture and to the agent's program in
//! the same order, which across processors it need not be.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::{
    netns::{FAR_IP, FAR_IP6, NEAR_IP, NEAR_IP6, Netns, Pair},
    sys::pin_to_cpu,
};

/// No socket call of a test waits longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The IP version to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6; the pair must have it enabled.
    V6,
}

impl Version {
    /// The watched host's address.
    pub fn near(self) -> IpAddr {
        self.pick(NEAR_IP, NEAR_IP6)
    }

    /// The peer's address.
    pub fn far(self) -> IpAddr {
        self.pick(FAR_IP, FAR_IP6)
    }

    fn pick(self, v4: &str, v6: &str) -> IpAddr {
        match self {
            Self::V4 => v4.parse().expect("an address"),
            Self::V6 => v6.parse().expect("an address"),
        }
    }
}

/// How a TCP connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// FIN from both sides.
    Fin,
    /// RST from the client.
    Reset,
}

/// The far host sends `bytes` to the near one over one TCP connection.
pub fn tcp_bulk(pair: &Pair, version: Version, bytes: usize) {
    let listener = listen(&pair.near, version.near());
    let address = listener.local_addr().expect("bound");
    let server = || {
        let (mut stream, _) = listener.accept().expect("accept");
        bound(&stream);
        let mut buffer = vec![0; 1 << 18];
        let mut got = 0;
        loop {
            match stream.read(&mut buffer).expect("read the bulk") {
                0 => break,
                n => got += n,
            }
        }
        assert_eq!(got, bytes);
    };
    let client = || {
        let mut stream = connect(&pair.far, address);
        let chunk = vec![0x42; 1 << 18];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(chunk.len());
            stream.write_all(&chunk[..part]).expect("write the bulk");
            left -= part;
        }
    };
    together(server, client);
}

/// One TCP connection with `rounds` of a request and a response of the given sizes.
pub fn tcp_request_response(
    pair: &Pair,
    version: Version,
    rounds: usize,
    request: usize,
    response: usize,
) {
    let listener = listen(&pair.near, version.near());
    let address = listener.local_addr().expect("bound");
    let server = || {
        let (mut stream, _) = listener.accept().expect("accept");
        bound(&stream);
        let (mut ask, answer) = (vec![0; request], vec![2; response]);
        for _ in 0..rounds {
            stream.read_exact(&mut ask).expect("read a request");
            stream.write_all(&answer).expect("write a response");
        }
    };
    let client = || {
        let mut stream = connect(&pair.far, address);
        let (ask, mut answer) = (vec![1; request], vec![0; response]);
        for _ in 0..rounds {
            stream.write_all(&ask).expect("write a request");
            stream.read_exact(&mut answer).expect("read a response");
        }
    };
    together(server, client);
}

/// `count` TCP connections one after the other, 100 bytes each way.
pub fn tcp_short(pair: &Pair, version: Version, count: usize, end: End) {
    let listener = listen(&pair.near, version.near());
    let address = listener.local_addr().expect("bound");
    let server = || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().expect("accept");
            bound(&stream);
            let mut buffer = [0; 100];
            stream.read_exact(&mut buffer).expect("read a request");
            stream.write_all(&buffer).expect("write a response");
            // Until the client's FIN or RST.
            let _end = stream.read(&mut buffer);
        }
    };
    let client = || {
        for _ in 0..count {
            let mut stream = connect(&pair.far, address);
            let mut buffer = [9; 100];
            stream.write_all(&buffer).expect("write a request");
            stream.read_exact(&mut buffer).expect("read a response");
            if end == End::Reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
            }
        }
    };
    together(server, client);
}

/// `count` datagrams of `size` bytes from the far host, each answered by one of the same size if `answered`.
///
/// Larger than the MTU they travel as fragments.
pub fn udp(pair: &Pair, version: Version, count: usize, size: usize, answered: bool) {
    udp_paced(pair, version, count, size, answered, Duration::ZERO);
}

/// As [`udp`], with a pause after each datagram.
pub fn udp_paced(
    pair: &Pair,
    version: Version,
    count: usize,
    size: usize,
    answered: bool,
    pause: Duration,
) {
    let bind = |ns: &Netns, ip| {
        let socket = ns.run(|| UdpSocket::bind(SocketAddr::new(ip, 0)).expect("bind"));
        socket.set_read_timeout(Some(PATIENCE)).expect("time-out");
        socket
    };
    let server = bind(&pair.near, version.near());
    let client = bind(&pair.far, version.far());
    client.connect(server.local_addr().expect("bound")).expect("connect");
    on_cpu_0(|| {
        let mut buffer = vec![3; size];
        for _ in 0..count {
            client.send(&vec![3; size]).expect("send");
            let (got, from) = server.recv_from(&mut buffer).expect("receive");
            assert_eq!(got, size);
            if answered {
                server.send_to(&buffer, from).expect("answer");
                assert_eq!(client.recv(&mut buffer).expect("receive the answer"), size);
            }
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
    });
}

/// One datagram of 64 bytes from the far host to each of `count` ports of the near one.
pub fn udp_many_flows(pair: &Pair, count: u16) {
    let client = pair.far.run(|| UdpSocket::bind((FAR_IP, 0)).expect("bind"));
    on_cpu_0(|| {
        for port in 0..count {
            // The near host refuses by ICMP now and then, which a later send reports: all the same here.
            let _refused = client.send_to(&[4; 64], (NEAR_IP, 20_000 + port));
        }
    });
}

/// `count` echo requests from the far host with `size` bytes of payload, each answered by the near one's kernel.
pub fn icmp_echo(pair: &Pair, version: Version, count: u16, size: usize) {
    let (domain, protocol, kinds) = match version {
        Version::V4 => (Domain::IPV4, Protocol::ICMPV4, (8, 0)),
        Version::V6 => (Domain::IPV6, Protocol::ICMPV6, (128, 129)),
    };
    let socket =
        pair.far.run(|| Socket::new(domain, Type::RAW, Some(protocol)).expect("raw socket"));
    socket.set_read_timeout(Some(PATIENCE)).expect("time-out");
    let to = SockAddr::from(SocketAddr::new(version.near(), 0));
    on_cpu_0(|| {
        for sequence in 0..count {
            let mut message = vec![kinds.0, 0, 0, 0, 0x12, 0x34];
            message.extend(sequence.to_be_bytes());
            message.resize(8 + size, 5);
            if version == Version::V4 {
                let sum = internet_checksum(&message);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            socket.send_to(&message, &to).expect("send an echo request");
            await_answer(&socket, kinds.1, sequence, version);
        }
    });
}

/// One UDP flow of which each end sends `count` datagrams at will, each from its own processor.
pub fn on_both_processors(pair: &Pair, count: usize) {
    let near = pair.near.run(|| UdpSocket::bind((NEAR_IP, 0)).expect("bind"));
    let far = pair.far.run(|| UdpSocket::bind((FAR_IP, 0)).expect("bind"));
    near.connect(far.local_addr().expect("bound")).expect("connect");
    far.connect(near.local_addr().expect("bound")).expect("connect");
    // The first packet decides the direction; it must be the same one for all observers.
    far.send(&[0; 10]).expect("send");
    thread::scope(|scope| {
        for (cpu, socket) in [(0, &near), (1, &far)] {
            scope.spawn(move || {
                pin_to_cpu(cpu);
                for size in 0..count {
                    socket.send(&vec![0; size % 1400]).expect("send");
                }
            });
        }
    });
}

fn await_answer(mut socket: &Socket, kind: u8, sequence: u16, version: Version) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let got = socket.read(&mut buffer).expect("receive an echo reply");
        // An IPv4 raw socket shows the IP header too.
        let start = if version == Version::V4 { 20 } else { 0 };
        let message = &buffer[start..got];
        if message[0] == kind && message[6..8] == sequence.to_be_bytes() {
            return;
        }
    }
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn listen(ns: &Netns, ip: IpAddr) -> TcpListener {
    ns.run(|| TcpListener::bind(SocketAddr::new(ip, 0)).expect("listen"))
}

fn connect(ns: &Netns, address: SocketAddr) -> TcpStream {
    let stream = ns.run(|| {
        pin_to_cpu(0);
        TcpStream::connect_timeout(&address, PATIENCE).expect("connect")
    });
    bound(&stream);
    stream
}

fn bound(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("time-out");
    stream.set_nodelay(true).expect("TCP_NODELAY");
}

/// Runs both ends on processor 0 until both are done.
fn together(server: impl FnOnce() + Send, client: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let ends = [
            scope.spawn(move || {
                pin_to_cpu(0);
                server();
            }),
            scope.spawn(move || {
                pin_to_cpu(0);
                client();
            }),
        ];
        for end in ends {
            end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

fn on_cpu_0(work: impl FnOnce() + Send) {
    together(|| {}, work);
}
