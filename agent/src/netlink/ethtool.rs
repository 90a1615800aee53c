//! Offloads of interfaces, by ethtool's family of generic netlink (Linux 5.7 and later).

use std::{collections::BTreeMap, io};

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::{DATAGRAM, HEADER_LEN, NESTED, failure, header, text};

// linux/genetlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Of `struct genlmsghdr`: command u8, version u8, reserved u16.
const GENL_LEN: usize = 4;
// linux/ethtool_netlink.h
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// Which offloads of an interface are on: who makes super-packets there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Offloads {
    /// The stack joins what is received.
    pub(crate) gro: bool,
    /// The device does, so that it can be cut again.
    pub(crate) gro_hw: bool,
    /// The device does, in its own way.
    pub(crate) lro: bool,
    /// The stack sends super-packets, which it cuts behind tc if the device cannot.
    pub(crate) gso: bool,
    /// The device cuts super-packets of TCP.
    pub(crate) tso: bool,
}

/// The offloads of every interface of this thread's network namespace, by index.
pub(crate) fn offloads() -> Result<BTreeMap<u32, Offloads>> {
    let mut socket = Socket::new(NETLINK_GENERIC).context("cannot open a netlink socket")?;
    socket.bind(&SocketAddr::new(0, 0)).context("cannot bind a netlink socket")?;

    let mut family = None;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
    ask(&socket, (GENL_ID_CTRL, CTRL_CMD_GETFAMILY), NLM_F_ACK, &name, |answer| {
        family = find(answer, CTRL_ATTR_FAMILY_ID)
            .and_then(|id| id.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes)));
    })
    .and_then(|()| family.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
    .context("this kernel has no ethtool by netlink (CONFIG_ETHTOOL_NETLINK)")
    .and_then(|family| {
        let mut all = BTreeMap::new();
        let any = attribute(ETHTOOL_A_FEATURES_HEADER | NESTED, &[]);
        ask(&socket, (family, ETHTOOL_MSG_FEATURES_GET), NLM_F_DUMP, &any, |answer| {
            all.extend(features(answer));
        })
        .context("cannot ask for the interfaces' offloads")?;
        Ok(all)
    })
}

/// Sends a request to a family and hands over each answer's attributes.
fn ask(
    socket: &Socket,
    (family, command): (u16, u8),
    flags: u16,
    attributes: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut request = vec![0; HEADER_LEN + GENL_LEN];
    request[HEADER_LEN..][..2].copy_from_slice(&[command, 1]);
    request.extend(attributes);
    header(family, NLM_F_REQUEST | flags, request.len()).emit(&mut request);
    socket.send(&request, 0)?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, 0)?;
        let mut rest = &datagram[..];
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match message.message_type() {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = failure(message.payload());
                    return code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)));
                }
                _ => each(message.payload().get(GENL_LEN..).unwrap_or_default()),
            }
            let aligned = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(aligned..).unwrap_or_default();
        }
    }
}

/// `struct nlattr`: length u16, type u16; then the value, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
fn find(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() & !NESTED == kind)
        .map(|attribute| attribute.value().to_vec())
}

/// An interface's index and what is active there; the kernel lists the names of those bits that are set.
fn features(attributes: &[u8]) -> Option<(u32, Offloads)> {
    let device = find(attributes, ETHTOOL_A_FEATURES_HEADER)?;
    let index = *find(&device, ETHTOOL_A_HEADER_DEV_INDEX)?.first_chunk()?;
    let active = find(attributes, ETHTOOL_A_FEATURES_ACTIVE)?;
    let mut offloads = Offloads::default();
    // A set without a bit is left out.
    let bits = find(&active, ETHTOOL_A_BITSET_BITS).unwrap_or_default();
    for bit in NlasIterator::new(&bits[..]).map_while(Result::ok) {
        if bit.kind() & !NESTED != ETHTOOL_A_BITSET_BITS_BIT {
            continue;
        }
        let Some(name) = find(bit.value(), ETHTOOL_A_BITSET_BIT_NAME) else { continue };
        // Names of net/ethtool/common.c.
        match text(&name).as_str() {
            "rx-gro" => offloads.gro = true,
            "rx-gro-hw" => offloads.gro_hw = true,
            "rx-lro" => offloads.lro = true,
            "tx-generic-segmentation" => offloads.gso = true,
            "tx-tcp-segmentation" | "tx-tcp6-segmentation" => offloads.tso = true,
            _ => {}
        }
    }
    Some((u32::from_ne_bytes(index), offloads))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(index: u32, names: &[&str]) -> Vec<u8> {
        let bits: Vec<u8> = names
            .iter()
            .flat_map(|name| {
                let name = attribute(ETHTOOL_A_BITSET_BIT_NAME, &[name.as_bytes(), &[0]].concat());
                attribute(ETHTOOL_A_BITSET_BITS_BIT | NESTED, &name)
            })
            .collect();
        let device = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
        [
            attribute(ETHTOOL_A_FEATURES_HEADER | NESTED, &device),
            // What the device could do: not what is on.
            attribute(2 | NESTED, &attribute(ETHTOOL_A_BITSET_BITS | NESTED, &[])),
            attribute(
                ETHTOOL_A_FEATURES_ACTIVE | NESTED,
                &attribute(ETHTOOL_A_BITSET_BITS | NESTED, &bits),
            ),
        ]
        .concat()
    }

    #[test]
    fn offloads_are_read_by_their_names() {
        let found = features(&answer(7, &["tx-checksum-ipv4", "rx-gro", "tx-tcp6-segmentation"]));
        let expected = Offloads { gro: true, tso: true, ..Offloads::default() };
        assert_eq!(found, Some((7, expected)));
        let found = features(&answer(8, &["tx-generic-segmentation", "rx-gro-hw", "rx-lro"]));
        let expected = Offloads { gso: true, gro_hw: true, lro: true, ..Offloads::default() };
        assert_eq!(found, Some((8, expected)));
        assert_eq!(features(&answer(9, &[])), Some((9, Offloads::default())));
    }

    #[test]
    fn no_cut_answer_panics() {
        let whole = answer(7, &["rx-gro"]);
        for end in 0..whole.len() {
            let found = features(&whole[..end]);
            assert!(found.is_none_or(|(index, _)| index == 7), "cut at {end}");
        }
    }

    #[test]
    fn loopback_has_offloads() {
        let all = offloads().expect("offloads");
        assert!(all.contains_key(&1), "{all:?}");
    }
}
