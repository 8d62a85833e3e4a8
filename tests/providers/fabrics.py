"""A throw-away fabric of real network namespaces, held by file descriptors alone: closing them leaves nothing behind."""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from wardian.providers.local import netlink, relay, shaping

SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
PORT = 4000


class Fabric:
    """One fabric namespace, with node namespaces around it; sockets made in them are used from the test itself."""

    def __init__(self):
        self.namespaces = {}
        self.fd = self.make("fabric")

    def make(self, name):
        """A new network namespace without IPv6 chatter."""
        made = []

        def work():
            ctypes.CDLL(None).unshare(0x40000000)
            for scope in ("all", "default"):
                with open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w") as file:
                    file.write("1")
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.namespaces[name] = made[0]
        return made[0]

    def close(self):
        for namespace in self.namespaces.values():
            os.close(namespace)

    def bridge(self, name):
        with netlink.Netlink.into(self.fd) as net:
            net.send([netlink.bridge(name)])

    def node(self, name, address):
        """A node with the port of its name in the fabric."""
        namespace = self.make(name)
        with netlink.Netlink.into(self.fd) as net:
            net.send([netlink.veth(name, "eth0", peer_namespace=namespace)])
        with netlink.Netlink.into(namespace) as net:
            index = net.index("eth0")
            net.send([netlink.change(index, up=True), netlink.address(index, f"{address}/24")])

    def apply(self, *segments, netem=False):
        shaping.apply(self.fd, segments, netem=netem)

    def links(self):
        with netlink.Netlink.into(self.fd) as net:
            return net.links()

    def udp(self, node, address="", port=PORT):
        """A socket on a node, with room for all that a test sends."""

        def make():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 2**26)
            made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            made.bind((address, port))
            made.settimeout(10)
            return made

        return netlink.in_namespace(self.namespaces[node], make)

    def listener(self, node):
        def make():
            made = socket.create_server(("", PORT))
            made.settimeout(20)
            return made

        return netlink.in_namespace(self.namespaces[node], make)

    def connect(self, node, address):
        return netlink.in_namespace(self.namespaces[node], lambda: socket.create_connection((address, PORT), 20))

    @contextmanager
    def relay(self, folder):
        """The relay for what stands in the fabric, until the block ends."""
        running = Relay(self, folder)
        try:
            yield running
        finally:
            running.process.kill()
            running.process.wait()


class Relay:
    def __init__(self, fabric, folder):
        self.fabric = fabric
        self.config = folder / "relay.json"
        self.counts = folder / "counters.json"
        self.write()
        signals = {signal.SIGHUP, signal.SIGUSR1}
        command = [sys.executable, "-S", "-E", relay.__file__, str(self.config)]
        self.process = subprocess.Popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signals))
        self.counters()

    def write(self):
        config = shaping.relay_config(
            self.fabric.links(), counters=str(self.counts), seed="fern", netns=f"/proc/{os.getpid()}/fd/{self.fabric.fd}"
        )
        fresh = self.config.with_suffix(".new")
        fresh.write_text(json.dumps(config))
        fresh.replace(self.config)

    def reload(self):
        """Have it take up what stands in the fabric now."""
        self.write()
        self.process.send_signal(signal.SIGHUP)
        return self.counters()

    def counters(self):
        """Its counters, written after now and after what it was told before."""
        self.counts.unlink(missing_ok=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(0.05)
            if self.counts.exists():
                return json.loads(self.counts.read_text())
        raise TimeoutError("the relay wrote no counters")


def one_way(sender, receiver, address, count=40, gap=0.004, size=64):
    """Seconds that each of `count` single datagrams took from one node to the other, sorted."""
    taken = []
    for number in range(count):
        sent = time.monotonic()
        sender.sendto(number.to_bytes(8, "big") + bytes(size - 8), (address, PORT))
        receiver.recv(2048)
        taken.append(time.monotonic() - sent)
        time.sleep(gap)
    return sorted(taken)


def drain(receiver, silence=0.6):
    """All datagrams that arrive, the first one of them whenever it does, until none does for `silence` seconds: [(arrival, data)].

    Arrival is when the kernel had it, however late we come to take it.
    """
    arrived = []
    # a wait between the two clocks makes a difference smaller
    ahead = max(time.time() - time.monotonic() for _ in range(10))
    while select.select([receiver], [], [], silence if arrived else 10)[0]:
        data, ancillary, _, _ = receiver.recvmsg(2048, 64)
        whole, nanoseconds = struct.unpack("qq", ancillary[0][2])
        arrived.append((whole + nanoseconds / 1e9 - ahead, data))
    return arrived


def carried(moments, octets, packets=10):
    """Bits a second at which frames of `octets` usually arrive, over runs of `packets`.

    A busy machine looks late into its bucket of tokens, which has run over meanwhile: such runs are slower, each by another amount.
    """
    runs = zip(moments, moments[packets:], strict=False)
    return usual(packets * octets * 8 / (after - before) for before, after in runs)


def usual(values):
    """What most values are about: the middle of the shortest span that holds a fifth of them. Waits of this machine are no two alike."""
    ordered = sorted(values)
    held = len(ordered) // 5
    low, high = min(zip(ordered, ordered[held:], strict=False), key=lambda span: span[1] - span[0])
    return (low + high) / 2


def flood(sender, address, rate, seconds, size=1472):
    """Send datagrams at `rate` bits a second (on the wire, with headers), each carrying its time of sending. Gives how many."""
    gap, begin, sent = (size + 42) * 8 / rate, time.monotonic(), 0
    while (now := time.monotonic()) < begin + seconds:
        while sent * gap <= now - begin:
            sender.sendto(f"{time.monotonic():.6f} {sender.getsockname()[1]}".encode().ljust(size), (address, PORT))
            sent += 1
        time.sleep(0.001)
    return sent
