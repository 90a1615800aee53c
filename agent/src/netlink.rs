//! Netlink: the one place that reads it. Here rtnetlink's links and filters, in `ethtool` the interfaces' offloads.
//!
//! A netlink socket belongs to the network namespace of the thread that made it; /sys/class/net belongs to
//! the one it was mounted in, which may be another.

pub(crate) mod ethtool;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    Emitable as _, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

// linux/rtnetlink.h, linux/if_link.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTNLGRP_LINK: u32 = 1;
const AF_UNSPEC: u8 = 0;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
// linux/pkt_cls.h
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCMSG_LEN: usize = 20;
/// `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;
/// EINVAL: the interface has no qdisc of that parent.
const INVALID: i32 = 22;
/// Of `struct ifinfomsg`, and of a netlink header.
const HEADER_LEN: usize = 16;

/// More than the kernel puts into one datagram (32 KiB).
const DATAGRAM: usize = 64 << 10;
/// A dump that a change interrupts is begun again, so often.
const DUMP_ATTEMPTS: usize = 10;

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawLink {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `ARPHRD_…`
    pub(crate) hardware: u16,
    pub(crate) mtu: u32,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A link is there; perhaps it always was, perhaps under another name.
    Link(RawLink),
    /// A link is gone.
    Gone { index: u32 },
    /// The dump is complete; if `interrupted`, a change came in between and it may be inconsistent.
    Done { interrupted: bool },
    /// A request failed.
    Error(i32),
}

/// A socket for link messages.
#[derive(Debug)]
pub(crate) struct LinkSocket {
    socket: Socket,
    datagram: Vec<u8>,
}

impl LinkSocket {
    /// A socket for requests.
    pub(crate) fn new() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        socket.bind(&SocketAddr::new(0, 0)).context("cannot bind a netlink socket")?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// A socket that does not block, on which changes of any link arrive.
    pub(crate) fn subscribed() -> Result<Self> {
        let this = Self::new()?;
        this.socket.add_membership(RTNLGRP_LINK).context("cannot subscribe to link changes")?;
        this.socket.set_non_blocking(true).context("cannot make a netlink socket non-blocking")?;
        Ok(this)
    }

    /// The next datagram's messages.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<Message>> {
        self.datagram.clear();
        self.socket.recv(&mut self.datagram, 0)?;
        Ok(messages(&self.datagram))
    }

    /// Every link of the namespace; for a socket that blocks and is not subscribed.
    pub(crate) fn list(&mut self) -> Result<Vec<RawLink>> {
        let what = "cannot list the network interfaces";
        for _ in 0..DUMP_ATTEMPTS {
            self.socket.send(&dump_request(), 0).context(what)?;
            if let Some(links) = self.receive_dump().context(what)? {
                return Ok(links);
            }
        }
        anyhow::bail!("{what}: they change too fast")
    }

    /// Takes a link into service; for a socket that blocks and is not subscribed.
    pub(crate) fn set_up(&mut self, index: u32) -> Result<()> {
        let what = "cannot take an interface into service";
        self.socket.send(&up_request(index), 0).context(what)?;
        match self.receive().context(what)?.first() {
            Some(Message::Error(code)) => Err(io::Error::from_raw_os_error(*code)).context(what),
            _ => Ok(()),
        }
    }

    /// The links of one dump; `None` if a change came in between.
    fn receive_dump(&mut self) -> io::Result<Option<Vec<RawLink>>> {
        let mut links = Vec::new();
        loop {
            for message in self.receive()? {
                match message {
                    Message::Link(link) => links.push(link),
                    Message::Gone { .. } => {}
                    Message::Done { interrupted } => return Ok((!interrupted).then_some(links)),
                    Message::Error(code) => return Err(io::Error::from_raw_os_error(code)),
                }
            }
        }
    }
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A tc filter that runs a BPF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawFilter {
    pub(crate) handle: u32,
    pub(crate) priority: u16,
    /// The program's name, as whoever added the filter gave it.
    pub(crate) name: String,
}

/// A socket for filters.
#[derive(Debug)]
pub(crate) struct FilterSocket {
    socket: LinkSocket,
}

impl FilterSocket {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { socket: LinkSocket::new()? })
    }

    /// The BPF filters of an interface under a parent; none if it has no such qdisc.
    pub(crate) fn list(&mut self, ifindex: u32, parent: u32) -> Result<Vec<RawFilter>> {
        let what = "cannot list an interface's tc filters";
        self.socket.socket.send(&filter_request(ifindex, parent), 0).context(what)?;
        let mut filters = Vec::new();
        loop {
            self.socket.datagram.clear();
            self.socket.socket.recv(&mut self.socket.datagram, 0).context(what)?;
            let mut datagram = &self.socket.datagram[..];
            while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
                match message.message_type() {
                    RTM_NEWTFILTER => filters.extend(filter(message.payload())),
                    NLMSG_DONE => return Ok(filters),
                    NLMSG_ERROR => match failure(message.payload()) {
                        None | Some(INVALID) => return Ok(filters),
                        Some(code) => {
                            return Err(io::Error::from_raw_os_error(code)).context(what);
                        }
                    },
                    _ => {}
                }
                let aligned = (message.length() as usize).next_multiple_of(4);
                datagram = datagram.get(aligned..).unwrap_or_default();
            }
        }
    }
}

/// `struct tcmsg`: family u8, padding [u8; 3], ifindex i32, handle u32, parent u32, info u32.
fn filter_request(ifindex: u32, parent: u32) -> [u8; HEADER_LEN + TCMSG_LEN] {
    let mut request = [0; HEADER_LEN + TCMSG_LEN];
    header(RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, request.len()).emit(&mut request);
    request[HEADER_LEN + 4..][..4].copy_from_slice(&ifindex.to_ne_bytes());
    request[HEADER_LEN + 12..][..4].copy_from_slice(&parent.to_ne_bytes());
    request
}

/// The filter that a message tells of, if it is a BPF filter with a name.
fn filter(payload: &[u8]) -> Option<RawFilter> {
    let (fixed, attributes) = payload.split_at_checked(TCMSG_LEN)?;
    let word = |at: usize| fixed[at..].first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let (handle, info) = (word(8)?, word(16)?);
    let (mut is_bpf, mut name) = (false, None);
    for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
        match attribute.kind() & !NESTED {
            TCA_KIND => is_bpf = text(attribute.value()) == "bpf",
            TCA_OPTIONS => {
                let options = NlasIterator::new(attribute.value()).map_while(Result::ok);
                for option in options.filter(|option| option.kind() == TCA_BPF_NAME) {
                    name = Some(text(option.value()));
                }
            }
            _ => {}
        }
    }
    let filter = RawFilter { handle, priority: (info >> 16) as u16, name: name? };
    is_bpf.then_some(filter)
}

/// The kernel lets through any byte but NUL, `/`, `:` and white space.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn dump_request() -> [u8; 2 * HEADER_LEN] {
    let mut request = [0; 2 * HEADER_LEN];
    // The ifinfomsg behind the header stays zero: any family, any link.
    header(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, request.len()).emit(&mut request);
    request
}

/// The flag IFF_UP set, the others as they are.
fn up_request(index: u32) -> [u8; 2 * HEADER_LEN] {
    let mut request = [0; 2 * HEADER_LEN];
    header(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, request.len()).emit(&mut request);
    request[HEADER_LEN + 4..][..4].copy_from_slice(&index.to_ne_bytes());
    request[HEADER_LEN + 8..][..4].copy_from_slice(&IFF_UP.to_ne_bytes());
    request[HEADER_LEN + 12..][..4].copy_from_slice(&IFF_UP.to_ne_bytes());
    request
}

fn header(kind: u16, flags: u16, length: usize) -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    header.flags = flags;
    header.length = length as u32;
    header
}

/// The messages of a datagram. What is no link message, or is cut off, is passed over.
fn messages(mut datagram: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    let mut interrupted = false;
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        let payload = message.payload();
        found.extend(match message.message_type() {
            RTM_NEWLINK if is_link(payload) => link(payload).map(Message::Link),
            RTM_DELLINK if is_link(payload) => index(payload).map(|index| Message::Gone { index }),
            NLMSG_DONE => Some(Message::Done { interrupted }),
            NLMSG_ERROR => failure(payload).map(Message::Error),
            _ => None,
        });
        let aligned = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
    }
    found
}

/// Bridges tell of their ports by link messages of a family of their own: a port that leaves its bridge is not gone.
fn is_link(payload: &[u8]) -> bool {
    payload.first() == Some(&AF_UNSPEC)
}

/// `struct ifinfomsg`: family u8, padding u8, type u16, index i32, flags u32, change u32; then attributes.
fn link(payload: &[u8]) -> Option<RawLink> {
    let (header, attributes) = payload.split_at_checked(HEADER_LEN)?;
    let hardware = u16::from_ne_bytes(*header[2..].first_chunk()?);
    let (mut name, mut mtu) = (None, 0);
    for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => name = Some(text(value)),
            IFLA_MTU => mtu = value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)),
            _ => {}
        }
    }
    Some(RawLink { index: index(payload)?, name: name?, hardware, mtu })
}

fn index(payload: &[u8]) -> Option<u32> {
    payload.get(4..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// The errno of an error message; `None` for an acknowledgement.
fn failure(payload: &[u8]) -> Option<i32> {
    let code = ErrorBuffer::new_checked(payload).ok()?.code()?;
    Some(code.get().wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        header(kind, flags, HEADER_LEN + payload.len()).emit(&mut bytes);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link_payload(index: u32, hardware: u16, name: &str, mtu: u32) -> Vec<u8> {
        let mut payload = vec![0, 0];
        payload.extend(hardware.to_ne_bytes());
        payload.extend(index.to_ne_bytes());
        payload.extend([0; 8]);
        let mut attribute = |kind: u16, value: &[u8]| {
            payload.extend((4 + value.len() as u16).to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        };
        attribute(999, &[1, 2, 3]);
        attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        attribute(IFLA_MTU, &mtu.to_ne_bytes());
        payload
    }

    #[test]
    fn messages_of_one_datagram_are_read_in_order() {
        let datagram = [
            message(RTM_NEWLINK, 0, &link_payload(7, 1, "eth0", 1500)),
            message(99, 0, b"something else"),
            message(RTM_DELLINK, 0, &[&[7], &link_payload(7, 1, "eth0", 1500)[1..]].concat()),
            message(RTM_DELLINK, 0, &link_payload(8, 772, "lo", 65536)),
            message(NLMSG_DONE, NLM_F_DUMP_INTR, &[0; 4]),
            message(NLMSG_ERROR, 0, &(-1i32).to_ne_bytes()),
        ]
        .concat();
        let eth0 = RawLink { index: 7, name: "eth0".into(), hardware: 1, mtu: 1500 };
        assert_eq!(
            messages(&datagram),
            [
                Message::Link(eth0),
                Message::Gone { index: 8 },
                Message::Done { interrupted: true },
                Message::Error(1)
            ]
        );
    }

    #[test]
    fn no_cut_datagram_panics() {
        let whole = message(RTM_NEWLINK, 0, &link_payload(7, 1, "eth0", 1500));
        for end in 0..whole.len() {
            assert_eq!(messages(&whole[..end]), []);
        }
    }

    #[test]
    fn this_namespace_has_a_loopback_interface() {
        let links = LinkSocket::new().and_then(|mut socket| socket.list()).expect("a list");
        let loopback = links.iter().find(|link| link.name == "lo").expect("lo is everywhere");
        assert_eq!((loopback.index, loopback.hardware), (1, 772));
        assert!(loopback.mtu > 0);
    }
}
