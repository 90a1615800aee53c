#!/usr/bin/env python3
"""Reads the windows of all flows from the kernel, where `feature-agent --pin DIR` has pinned them.

    sudo feature-agent --iface eth0 --pin /sys/fs/bpf/feature-agent &
    sudo python3 windows.py /sys/fs/bpf/feature-agent              each flow once, as a line of JSON
    sudo python3 windows.py /sys/fs/bpf/feature-agent --every 1    the same every second

With --pin-ring, vectors come from the ring as they are made, without a copy through the agent:

    sudo feature-agent --iface eth0 --pin /sys/fs/bpf/feature-agent --pin-ring --latency low &
    sudo python3 windows.py /sys/fs/bpf/feature-agent --records

Nothing but Python and bpf(2). Where each number lies is in layout.json, which `feature-agent schema --layout`
prints; the agent that pinned the maps must have the same layout, or this stops.
"""

import argparse
import ctypes
import ipaddress
import json
import math
import mmap
import os
import platform
import select
import struct
import sys
import time

# include/uapi/linux/bpf.h
BPF_OBJ_GET, BPF_MAP_LOOKUP_BATCH = 7, 24
BPF_F_LOCK, BPF_F_RDONLY = 4, 8
RING_BUSY, RING_DISCARDED, RING_HEADER = 1 << 31, 1 << 30, 8
# bpf(2) has no function in the C library.
SYSCALL = {"x86_64": 321, "aarch64": 280}
# Flows of one system call, more than one bucket of the kernel's hash ever holds.
BATCH = 1024
FLAGS = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"]

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    """bpf(2) with the attributes' bytes, which the kernel may change."""
    result = libc.syscall(SYSCALL[platform.machine()], command, attributes, len(attributes))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def open_pin(path, flags):
    name = ctypes.create_string_buffer(path.encode())
    # pathname, bpf_fd, file_flags
    attributes = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), 0, flags), 16)
    try:
        return bpf(BPF_OBJ_GET, attributes)
    except OSError as error:
        sys.exit(f"cannot open {path}: {error.strerror}. Is the agent running, and may this user read it?")


class Structure:
    """Numbers by name, from bytes."""

    def __init__(self, fields, order):
        kinds = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
        self.fields = {
            field["name"]: (struct.Struct(f"{order}{field['count']}{kinds[field['type']]}"), field["offset"])
            for field in fields
        }

    def read(self, data, name):
        """The number of this name; several as a tuple."""
        form, offset = self.fields[name]
        numbers = form.unpack_from(data, offset)
        return numbers[0] if len(numbers) == 1 else numbers


class Table:
    """The flow table."""

    def __init__(self, folder, layout, order):
        self.fd = open_pin(f"{folder}/flows", BPF_F_RDONLY)
        self.key_size = layout["flows"]["key_size"]
        self.value_size = layout["flows"]["value_size"]
        self.value = Structure(layout["flows"]["value"], order)

    def entries(self):
        """Each entry as it was between two packets.

        A batch takes the kernel's buckets one after another, so that no entry comes twice or is left out because
        another was deleted; and BPF_F_LOCK has each copied under its lock. Without that flag an entry may be half of
        before and half of after a packet.
        """
        keys = ctypes.create_string_buffer(BATCH * self.key_size)
        values = ctypes.create_string_buffer(BATCH * self.value_size)
        position, more = ctypes.create_string_buffer(8), False
        while True:
            # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
            attributes = ctypes.create_string_buffer(
                struct.pack(
                    "=QQQQIIQQ",
                    ctypes.addressof(position) if more else 0,
                    ctypes.addressof(position),
                    ctypes.addressof(keys),
                    ctypes.addressof(values),
                    BATCH,
                    self.fd,
                    BPF_F_LOCK,
                    0,
                ),
                56,
            )
            try:
                bpf(BPF_MAP_LOOKUP_BATCH, attributes)
                more = True
            except FileNotFoundError:
                more = False  # The last.
            (count,) = struct.unpack_from("=I", attributes, 32)
            for index in range(count):
                yield memoryview(values)[index * self.value_size :][: self.value_size]
            if not more:
                return


class Ring:
    """The ring of records: BPF_MAP_TYPE_RINGBUF, as Documentation/bpf/ringbuf.rst has it."""

    def __init__(self, folder, layout, order):
        if platform.machine() != "x86_64":
            # Python has no loads that acquire; elsewhere a reader in C or Rust must use them.
            sys.exit("--records needs a processor that keeps the order of loads: x86-64")
        self.fd = open_pin(f"{folder}/records", 0)
        self.size = layout["records"]["record_size"]
        page = mmap.PAGESIZE
        with open(f"/proc/self/fdinfo/{self.fd}", encoding="ascii") as info:
            capacity = next(int(line.split()[1]) for line in info if line.startswith("max_entries:"))
        self.mask = capacity - 1
        self.consumer_page = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The producer's page, and the data twice, so that no record is cut by the end.
        self.shared = mmap.mmap(self.fd, page + 2 * capacity, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self.consumer = memoryview(self.consumer_page).cast("Q")
        self.producer = memoryview(self.shared)[:8].cast("Q")
        self.data = memoryview(self.shared)[page:]
        self.poll = select.epoll()
        self.poll.register(self.fd, select.EPOLLIN)

    def records(self):
        """What is there now."""
        while self.consumer[0] < self.producer[0]:
            at = self.consumer[0] & self.mask
            (header,) = struct.unpack_from("=I", self.data, at)
            if header & RING_BUSY:
                return
            length = header & ~(RING_BUSY | RING_DISCARDED)
            if not header & RING_DISCARDED:
                assert length == self.size, length
                yield bytes(self.data[at + RING_HEADER :][:length])
            # Only now may the kernel write there again.
            self.consumer[0] += (length + RING_HEADER + 7) & ~7

    def wait(self, seconds):
        """Until a record woke this process. Unless the agent has --latency low most do not: hence a time."""
        self.poll.poll(seconds)


def address(octets, version):
    return str(ipaddress.ip_address(bytes(octets[12:] if version == 4 else octets)))


def entropy(s, n, fraction_bits):
    """log2 n - S / n bits, S being Σ c·log2(c) over the histogram's counts in fixed point."""
    return max(0.0, math.log2(n) - s / n / 2**fraction_bits) if n else None


def by_direction(data, where, sums, name):
    """What the window holds of each direction: fwd, bwd."""
    return [where.read(data, f"{sums}.lengths[{side}].{name}") for side in (0, 1)]


def described(data, where, summary, sums, layout):
    """The fields of a line that the agent would write, as far as a flow and its sums tell."""

    def key(name):
        return where.read(data, f"key.{name}")

    def of(name):
        return where.read(data, f"{summary}.{name}")

    def window(name):
        return where.read(data, f"{sums}.{name}")

    ends = [(address(key(end), key("version")), key(f"port_{end}")) for end in "ab"]
    (src, sport), (dst, dport) = reversed(ends) if of("initiator_is_b") else ends
    names = ("packets", "sum", "sq_sum")
    packets, lengths, squares = (by_direction(data, where, sums, name) for name in names)
    n = sum(packets)
    line = {
        "ifindex": key("ifindex"),
        "proto": key("proto"),
        "src": src,
        "sport": sport,
        "dst": dst,
        "dport": dport,
        "vlan": key("vlan") or None,
        "vlan_inner": key("vlan_inner") or None,
        "direction_by": layout["codes"]["direction_by"][str(of("direction_by"))],
        "seq": of("seq"),
        "flow_duration_us": of("last_us") - of("first_us"),
        "win_packets": n,
        "win_span_us": window("iat_sum"),
        "win_len_sum": sum(lengths),
        "win_len_var": (n * sum(squares) - sum(lengths) ** 2) / n**2,
        "win_len_entropy": entropy(window("len_entropy"), n, layout["entropy_fraction_bits"]),
        "win_iat_entropy": entropy(window("iat_entropy"), n - 1, layout["entropy_fraction_bits"]),
    }
    for side, prefix in enumerate(("fwd_", "bwd_")):
        for name in ("packets", "bytes", "payload_bytes"):
            line[f"{prefix}{name}"] = of(f"totals[{side}].{name}")
        line[f"win_{prefix}packets"] = packets[side]
        line[f"win_{prefix}len_sum"] = lengths[side]
    flags = window("flags").to_bytes(8, "little")
    return line | {f"win_{name}": flags[bit] for bit, name in enumerate(FLAGS)}


def slots(data, where, layout):
    """The window's packets, oldest first: their gap to the packet before, length, TCP flags and direction."""
    ring, head = where.read(data, "flow.window.ring"), where.read(data, "flow.window.head")
    n = sum(by_direction(data, where, "flow.window.sums", "packets"))
    # Slots fill from 0 on. Once the window is full, the next to be written is the oldest.
    oldest = head if head < n else 0
    for index in range(n):
        word = ring[(oldest + index) % n]
        yield {field["name"]: word >> field["shift"] & ((1 << field["bits"]) - 1) for field in layout["slot"]}


def flow(entry, where, layout):
    """A line for an entry of the table, or nothing if it holds no flow."""
    if layout["codes"]["state"][str(where.read(entry, "state"))] != "alive":
        return None
    line = described(entry, where, "flow.summary", "flow.window.sums", layout)
    packets = list(slots(entry, where, layout))
    lengths = [packet["len"] for packet in packets]
    # The gap before the oldest lies outside of the window.
    gaps = [packet["iat"] for packet in packets[1:]]
    if sum(lengths) != line["win_len_sum"] or sum(gaps) != line["win_span_us"]:
        sys.exit(f"this entry is torn: {line}")
    line |= {"win_len_min": min(lengths), "win_len_max": max(lengths)}
    return line | {"win_iat_min_us": min(gaps, default=None), "win_iat_max_us": max(gaps, default=None)}


def record(data, where, layout):
    """A line for a record of the ring."""
    line = described(data, where, "summary", "sums", layout)
    line |= {f"win_len_{end}": where.read(data, f"extrema.len_{end}") for end in ("min", "max")}
    return line | {"reason": layout["codes"]["reason"][str(where.read(data, "reason"))]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="what --pin names")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="read all flows again and again")
    parser.add_argument("--records", action="store_true", help="read records from the ring until the agent ends")
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "layout.json")
    parser.add_argument("--layout", default=here, metavar="FILE", help="what `feature-agent schema --layout` printed")
    arguments = parser.parse_args()
    with open(arguments.layout, encoding="utf-8") as file:
        layout = json.load(file)
    try:
        pinned = os.readlink(f"{arguments.folder}/layout")
    except OSError as error:
        sys.exit(f"no agent pins in {arguments.folder}: {error.strerror}")
    if pinned != layout["layout"]:
        sys.exit(f"the agent's maps have the layout {pinned}, {arguments.layout} is of {layout['layout']}")
    order = "<" if layout["byte_order"] == "little" else ">"

    def say(line):
        if line is not None:
            print(json.dumps(line))

    if arguments.records:
        ring, where = Ring(arguments.folder, layout, order), Structure(layout["records"]["record"], order)
        running = True
        while running:
            # Asked before the last look: what was made until then is read.
            running = os.path.lexists(f"{arguments.folder}/layout")
            for data in ring.records():
                say(record(data, where, layout))
            sys.stdout.flush()
            if running:
                ring.wait(0.02)
        return
    table = Table(arguments.folder, layout, order)
    while True:
        for entry in table.entries():
            say(flow(entry, table.value, layout))
        sys.stdout.flush()
        if arguments.every is None:
            return
        time.sleep(arguments.every)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
