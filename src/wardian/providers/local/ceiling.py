"""How much the relay carries on this host: measured once, by `wardian doctor`, and kept for plans to tell."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import ProviderError
from . import netlink, relays, shaping
from .netlink import Netlink
from .shaping import CLONE_NEWNET, Segment
from .state import read_json, write_json

FILE = "relay-ceiling.json"
SECONDS = 0.7
"""How long full and small frames are sent, each."""
FULL, SMALL = 1472, 22
"""Payloads of datagrams whose frames are full and smallest, bytes."""
HEADERS = 42
SO_RCVBUFFORCE = 33


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the relay carries, both directions together: bits a second of full frames, and small frames a second."""

    rate: float
    frames: float
    measured: bool = True

    def __str__(self) -> str:
        about = "" if self.measured else "about "
        return f"{about}{self.rate / 1e6:.0f} Mbit/s or {self.frames:,.0f} frames a second in all"


TYPICAL = Ceiling(shaping.RELAY_RATE, shaping.RELAY_FRAMES, measured=False)
"""That of a modest processor, while the environment works."""


def known(state: Path) -> Ceiling:
    """What was measured on this host, or what is typical."""
    kept = read_json(state / FILE)
    return Ceiling(**kept) if kept else TYPICAL


def measure(state: Path) -> Ceiling:
    """Measure it and keep it. Blocking, one to two seconds with both processors busy. Raises OSError, ProviderError."""
    with _between() as (sender, receiver, address):
        rates = [_carried(sender, receiver, address, size) for size in (FULL, SMALL)]
    found = Ceiling(round(rates[0] * (FULL + HEADERS) * 8, -6), round(rates[1], -2))
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(state / FILE, asdict(found))
    return found


def _carried(sender: socket.socket, receiver: socket.socket, address: str, size: int) -> float:
    """Datagrams of a size that come through a second while more are sent than can."""
    stopping = threading.Event()

    def flood() -> None:
        data = bytes(size)
        while not stopping.is_set():
            try:
                sender.sendto(data, (address, receiver.getsockname()[1]))
            except BlockingIOError:
                continue

    thread = threading.Thread(target=flood)
    thread.start()
    buffer, count = bytearray(2048), 0
    try:
        receiver.recv_into(buffer)
        begun = time.monotonic()
        while time.monotonic() < begun + SECONDS:
            receiver.recv_into(buffer)
            count += 1
        elapsed = time.monotonic() - begun
    finally:
        stopping.set()
        thread.join()
    # what is still under way belongs to this measurement, not to the next one
    receiver.settimeout(0.2)
    try:
        while True:
            receiver.recv_into(buffer)
    except TimeoutError:
        receiver.settimeout(5)
    return count / elapsed


@contextmanager
def _between() -> Iterator[tuple[socket.socket, socket.socket, str]]:
    """Sockets in two namespaces that nobody sees, with a relay between them: (sender, receiver, the receiver's address)."""
    with ExitStack() as stack:
        fabric, near, far = (_namespace(stack) for _ in range(3))
        addresses = "198.51.100.1", "198.51.100.2"
        for name, namespace, address in zip(("near", "far"), (near, far), addresses, strict=True):
            with Netlink.into(fabric) as outside:
                outside.send([netlink.veth(name, "eth0", peer_namespace=namespace)])
            with Netlink.into(namespace) as inside:
                index = inside.index("eth0")
                inside.send([netlink.change(index, up=True), netlink.address(index, f"{address}/24")])
        shape = {"delay": 0.001}
        shaping.apply(fabric, [Segment("ceiling", "near", far_port="far", there=shape, back=shape)], netem=False)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardian-ceiling-")))
        stack.enter_context(_relay(folder, fabric))
        sockets = [stack.enter_context(netlink.in_namespace(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
                   for namespace in (near, far)]  # fmt: skip
        try:
            sockets[1].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 2**24)
        except PermissionError:
            # past the host's limit only root goes; what is then lost counts as not carried
            sockets[1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**24)
        sockets[1].bind((addresses[1], 0))
        sockets[1].settimeout(5)
        yield sockets[0], sockets[1], addresses[1]


@contextmanager
def _relay(folder: Path, namespace: int) -> Iterator[None]:
    with Netlink.into(namespace) as wiring:
        config = shaping.relay_config(wiring.links(), counters="", netns=f"/proc/{os.getpid()}/fd/{namespace}")
        path = relays.RELAY.configuration(folder)
        path.write_text(json.dumps(config))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGUSR1])
        try:
            process = subprocess.Popen([sys.executable, *relays.RELAY.command, str(path)], stdin=subprocess.DEVNULL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        try:
            relays.wait_until_served(namespace, wiring, {pair[end] for pair in config["pairs"] for end in ("near", "far")})
            yield
        finally:
            process.kill()
            process.wait()


def _namespace(stack: ExitStack) -> int:
    def make() -> int:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise ProviderError(f"a network namespace cannot be made: {os.strerror(ctypes.get_errno())}")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        made = netlink.in_namespace(own, make)
    finally:
        os.close(own)
    stack.callback(os.close, made)
    return made
