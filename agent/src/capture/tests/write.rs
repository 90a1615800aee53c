//! Writes captures, byte by byte as the formats' documents say.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
};

use rustix::fs::{MemfdFlags, memfd_create};

/// A file in memory.
pub(super) struct Memory(File);

impl Memory {
    pub(super) fn new(content: &[u8]) -> Self {
        let fd: OwnedFd = memfd_create("capture", MemfdFlags::CLOEXEC).expect("a file in memory");
        let mut file = File::from(fd);
        file.write_all(content).expect("room in memory");
        Self(file)
    }

    pub(super) fn truncate(&self, len: u64) {
        self.0.set_len(len).expect("a shorter file");
    }

    /// By which it can be opened while it lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

pub(super) const ORDERS: [Order; 2] = [Order::Little, Order::Big];

impl Order {
    pub(super) fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

pub(super) const MICROSECONDS: u32 = 0xa1b2_c3d4;
pub(super) const NANOSECONDS: u32 = 0xa1b2_3c4d;
pub(super) const MODIFIED: u32 = 0xa1b2_cd34;

/// The header of a pcap file.
pub(super) fn pcap_header(order: Order, magic: u32, link_type: u32) -> Vec<u8> {
    [
        &order.u32(magic)[..],
        &order.u16(2),
        &order.u16(4),
        &order.u32(0),
        &order.u32(0),
        &order.u32(65535),
        &order.u32(link_type),
    ]
    .concat()
}

/// A record of a pcap file.
pub(super) fn pcap_record(order: Order, time: (u32, u32), data: &[u8], wire_len: u32) -> Vec<u8> {
    let header = [time.0, time.1, data.len() as u32, wire_len].map(|word| order.u32(word));
    [header.as_flattened(), data].concat()
}

/// A block of pcapng.
pub(super) fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0xee; body.len().next_multiple_of(4) - body.len()];
    let length = order.u32((body.len() + padding.len() + 12) as u32);
    [&order.u32(kind)[..], &length, body, &padding, &length].concat()
}

pub(super) fn section(order: Order) -> Vec<u8> {
    let options = option(order, 4, b"a test");
    let body =
        [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &order.u64(u64::MAX), &options];
    block(order, 0x0a0d_0d0a, &body.concat())
}

pub(super) fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
    [&order.u16(code)[..], &order.u16(value.len() as u16), value, &padding].concat()
}

/// An interface's description.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    pub(super) link_type: u16,
    pub(super) snap_len: u32,
    pub(super) name: Option<&'static str>,
    pub(super) resolution: Option<u8>,
    pub(super) offset: Option<i64>,
}

impl Description {
    pub(super) fn ethernet(name: &'static str) -> Self {
        Self { link_type: 1, name: Some(name), ..Self::default() }
    }

    pub(super) fn block(&self, order: Order) -> Vec<u8> {
        let mut body =
            [&order.u16(self.link_type)[..], &[0, 0], &order.u32(self.snap_len)].concat();
        body.extend(self.name.iter().flat_map(|name| option(order, 2, name.as_bytes())));
        body.extend(self.resolution.iter().flat_map(|unit| option(order, 9, &[*unit])));
        let offset = self.offset.map(|offset| order.u64(offset as u64));
        body.extend(offset.iter().flat_map(|offset| option(order, 14, offset)));
        body.extend(option(order, 0, &[]));
        block(order, 1, &body)
    }
}

pub(super) fn enhanced(order: Order, id: u32, ticks: u64, data: &[u8], wire_len: u32) -> Vec<u8> {
    let (high, low) = ((ticks >> 32) as u32, ticks as u32);
    let header = [id, high, low, data.len() as u32, wire_len].map(|word| order.u32(word));
    let padding = vec![0xee; data.len().next_multiple_of(4) - data.len()];
    // epb_flags and a comment
    let options =
        [option(order, 2, &[1, 0, 0, 0]), option(order, 1, b"why"), option(order, 0, &[])];
    block(order, 6, &[header.as_flattened(), data, &padding, &options.concat()].concat())
}

pub(super) fn obsolete(order: Order, id: u16, ticks: u64, data: &[u8], wire_len: u32) -> Vec<u8> {
    let (high, low) = ((ticks >> 32) as u32, ticks as u32);
    let header = [high, low, data.len() as u32, wire_len].map(|word| order.u32(word));
    let ends = [order.u16(id), order.u16(0xffff)];
    block(order, 2, &[ends.as_flattened(), header.as_flattened(), data].concat())
}

pub(super) fn simple(order: Order, data: &[u8], wire_len: u32) -> Vec<u8> {
    block(order, 3, &[&order.u32(wire_len)[..], data].concat())
}
