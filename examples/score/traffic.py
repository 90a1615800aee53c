"""The demo's traffic: a server, what is normal, a port scan and an exfiltration; and a capture of it.

Only Python's own library, and only in the network namespaces that demo.sh made.
"""

import random
import select
import socket
import struct
import sys
import threading
import time

SERVER = "10.77.0.2"
WEB, NAMES, CALL, DROP = 80, 53, 5004, 443


def reply(connection):
    """Answers each request, a line with a number, by so many bytes."""
    with connection, connection.makefile("rb") as requests:
        for request in requests:
            connection.sendall(bytes(int(request)))


def swallow(connection):
    with connection:
        while connection.recv(1 << 18):
            pass


def listen(port, serve):
    listener = socket.create_server(("0.0.0.0", port), backlog=256)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=[connection], daemon=True).start()


def echo(port):
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", port))
    while True:
        data, client = server.recvfrom(2048)
        server.sendto(data * 3 if port == NAMES else data, client)


def serve():
    jobs = [(listen, WEB, reply), (listen, DROP, swallow), (echo, NAMES), (echo, CALL)]
    for job, *args in jobs:
        threading.Thread(target=job, args=args, daemon=True).start()
    time.sleep(0.2)
    print("serving", flush=True)
    sys.stdin.read()  # until whoever started it goes


def get(connection, size):
    connection.sendall(b"%d\n" % size)
    while size > 0:
        size -= len(connection.recv(min(size, 1 << 16)))


def pages():
    """A connection for each page and what belongs to it."""
    with socket.create_connection((SERVER, WEB), 5) as connection:
        for _ in range(random.randint(1, 6)):
            get(connection, int(random.lognormvariate(8.5, 1.2)))
            time.sleep(random.expovariate(1 / 0.02))
    time.sleep(random.expovariate(1 / 0.03))


def session():
    """A long connection with small requests."""
    with socket.create_connection((SERVER, WEB), 5) as connection:
        for _ in range(60):
            get(connection, random.randint(100, 8000))
            time.sleep(random.expovariate(1 / 0.03))


def lookup():
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.sendto(bytes(random.randint(28, 60)), (SERVER, NAMES))
        client.recv(2048)
    time.sleep(random.expovariate(1 / 0.1))


def call():
    """Fifty datagrams a second, both ways."""
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        for _ in range(100):
            client.sendto(bytes(172), (SERVER, CALL))
            client.recv(2048)
            time.sleep(0.02)


def normal(seconds):
    end = time.monotonic() + seconds

    def again(what):
        while time.monotonic() < end:
            try:
                what()
            except TimeoutError:
                pass  # a busy machine

    threads = [threading.Thread(target=again, args=[what]) for what in (pages, pages, session, lookup, call)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def scan():
    """Knocks at a thousand ports, of which few are open."""
    for port in range(1000, 2000):
        with socket.socket() as client:
            client.settimeout(1)
            client.connect_ex((SERVER, port))
        time.sleep(0.002)


def exfiltrate(seconds=4.0, bytes_per_second=20_000_000):
    """Sends much to one place, and gets nothing but acknowledgements."""
    chunk = bytes(1 << 16)
    with socket.create_connection((SERVER, DROP), 5) as connection:
        start, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - start) < seconds:
            if sent > elapsed * bytes_per_second:
                time.sleep(0.001)
                continue
            connection.sendall(chunk)
            sent += len(chunk)


def capture(interface, path):
    """Writes what passes an interface to a pcap file, until standard input ends."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    packets.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    packets.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS: the kernel's time, not ours
    packets.bind((interface, 0))
    print("capturing", flush=True)
    with open(path, "wb") as out:
        # Nanoseconds, Ethernet.
        out.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        while True:
            ready, _, _ = select.select([packets, sys.stdin], [], [])
            if packets not in ready:
                return
            frame, [(_, _, stamp)], _, _ = packets.recvmsg(262144, 64)
            seconds, nanos = struct.unpack("qq", stamp)
            out.write(struct.pack("=IIII", seconds, nanos, len(frame), len(frame)) + frame)


if __name__ == "__main__":
    job, *args = sys.argv[1:]
    random.seed(1)
    match job:
        case "serve":
            serve()
        case "normal":
            normal(float(args[0]))
        case "scan":
            scan()
        case "exfiltrate":
            exfiltrate()
        case "capture":
            capture(*args)
        case _:
            sys.exit(f"no traffic is called {job}")
