"""The probe: sends and answers UDP packets on a node, so that what a link does to them can be counted and timed.

    python3 -c SOURCE ADDRESS

One JSON line on standard input is a command, one on standard output its answer; it ends with its input. It first says
{"port", "clock": which kernel's clock its times are from}. Commands, with "op":

    send     {"train", "to": [address, port], "count", "interval": seconds, "size": bytes of payload, "echo": bool, "linger": seconds,
             "lasts": seconds that what waits on the way lasts without us}
             sends a train of packets; answers {"sent", "seconds", "missed": seconds of pauses beyond that, "back": STATISTICS of the
             echoes, "round_trip": SUMMARY}
    report   {"train"}: {"there": STATISTICS of what came of a train, "overflows": packets that came but found no room here}
    largest  {"to", "sizes": [bytes of whole IP packets]}: {"passed": [those of which an echo came]}; not to be fragmented

    STATISTICS  {"count", "unique", "overtook", "delay": SUMMARY, "late_delay": median of the last third, "rate": bits a second of
                payloads once a quarter has come}
    SUMMARY     {"count", "mean", "least", "lower", "median", "upper", "most"}, seconds; lower and upper are the quartiles

Needs nothing but the standard library of Python 3.8.
"""

from __future__ import annotations

import array
import contextlib
import json
import math
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

HEAD = struct.Struct("!4sBIIIdd")
MARK = b"wdn1"
DATA, ECHOED, REPLY = 0, 1, 2
SMALLEST = HEAD.size
HEADERS = 28
UDP_SEGMENT = 103
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_PROBE = 10, 0, 3
AT_ONCE = 40
"""Most packets handed to the kernel in one call."""
SLOTS, SLOT, NAME = 32, 65536, 16
"""Packets taken at once, bytes for each, and bytes of a sender's address."""
MSG_WAITFORONE = 0x10000
BEHIND = 8
"""Most packets sent at once because sending them was late."""


class Train:
    """What came of one train, in the order in which it came. orders: the one in which it was sent."""

    def __init__(self) -> None:
        self.orders: array.array[int] = array.array("l")
        self.numbers: array.array[int] = array.array("l")
        self.delays: array.array[float] = array.array("d")
        self.trips: array.array[float] = array.array("d")
        self.times: array.array[float] = array.array("d")
        self.size = 0
        self.answered: set[int] = set()

    def add(self, number: int, order: int, delay: float, trip: float, now: float, size: int) -> None:
        self.numbers.append(number)
        self.orders.append(order)
        self.delays.append(delay)
        self.trips.append(trip)
        self.times.append(now)
        self.size = size

    def statistics(self) -> dict[str, Any]:
        later, overtook = math.inf, 0
        for order in reversed(self.orders):
            overtook += order > later
            later = min(later, order)
        return {
            "count": len(self.numbers),
            "unique": len(set(self.numbers)),
            "overtook": overtook,
            "delay": summary(self.delays),
            "late_delay": summary(self.delays[len(self.delays) * 2 // 3 :])["median"],
            "rate": self.rate(),
        }

    def rate(self) -> float | None:
        skipped = len(self.times) // 4
        settled = self.times[skipped:]
        if len(settled) < 8 or settled[-1] <= settled[0]:
            return None
        return len(set(self.numbers[skipped + 1 :])) * self.size * 8 / (settled[-1] - settled[0])


class Inbox:
    """Takes packets from a socket one at a time."""

    def __init__(self, own: socket.socket) -> None:
        self.buffer = bytearray(SLOT)
        self._socket = own
        self._sender: Any = None

    def wait(self) -> Sequence[int]:
        """Wait for packets; gives the size of each. They are in `buffer`, one every SLOT bytes."""
        size, self._sender = self._socket.recvfrom_into(self.buffer)
        return (size,)

    def sender(self, slot: int) -> Any:
        """Whose packet is in a slot."""
        return self._sender


class ManyInbox(Inbox):
    """Takes all that has come, by the system's recvmmsg(2): packets that come thick cost a third so."""

    def __init__(self, own: socket.socket) -> None:
        import ctypes

        class IOVec(ctypes.Structure):
            _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

        class Header(ctypes.Structure):
            _fields_ = (
                *(("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.c_void_p)),
                *(("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t)),
                ("flags", ctypes.c_int),
            )

        class Counted(ctypes.Structure):
            _fields_ = (("header", Header), ("length", ctypes.c_uint32))

        super().__init__(own)
        self.buffer = bytearray(SLOTS * SLOT)
        self._names = bytearray(SLOTS * NAME)
        slots, names = (ctypes.addressof(ctypes.c_char.from_buffer(each)) for each in (self.buffer, self._names))
        self._vectors = (IOVec * SLOTS)(*(IOVec(slots + SLOT * slot, SLOT) for slot in range(SLOTS)))
        self._counted = (Counted * SLOTS)()
        for slot, each in enumerate(self._counted):
            each.header.name, each.header.name_length = names + NAME * slot, NAME
            each.header.vectors, each.header.vector_count = ctypes.addressof(self._vectors[slot]), 1
        self._receive = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._error = ctypes.get_errno
        self._words = memoryview(self._counted).cast("B").cast("I")
        self._length, self._step = ctypes.sizeof(Header) // 4, ctypes.sizeof(Counted) // 4

    def wait(self) -> Sequence[int]:
        count = self._receive(self._socket.fileno(), self._counted, SLOTS, MSG_WAITFORONE, None)
        if count < 0:
            raise OSError(self._error(), "recvmmsg")
        return self._words[self._length : count * self._step : self._step].tolist()

    def sender(self, slot: int) -> Any:
        _, port, address = struct.unpack_from("=H2s4s", self._names, slot * NAME)
        return socket.inet_ntoa(address), int.from_bytes(port, "big")


def inbox_of(own: socket.socket) -> Inbox:
    try:
        return ManyInbox(own)
    except (ImportError, AttributeError, OSError):
        # a Python without ctypes, a C library without the call
        return Inbox(own)


class Probe:
    """A socket, what came to it, and what it is told to send."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            for name in option[::-1]:
                with contextlib.suppress(OSError):
                    self.socket.setsockopt(socket.SOL_SOCKET, name, 1 << 24)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        self.socket.bind((address, 0))
        self.came: dict[int, Train] = {}
        self.back: dict[int, Train] = {}
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self) -> None:
        inbox = inbox_of(self.socket)
        buffer, view = inbox.buffer, memoryview(inbox.buffer)
        while True:
            try:
                sizes = inbox.wait()
            except OSError:
                # a refusal of something sent earlier shows here
                continue
            now = time.time()
            for slot, size in enumerate(sizes):
                start = slot * SLOT
                if size < HEAD.size:
                    continue
                mark, kind, train, number, order, sent, arrived = HEAD.unpack_from(buffer, start)
                if mark != MARK:
                    continue
                if kind == REPLY:
                    if train in self.back:
                        self.back[train].add(number, order, now - arrived, now - sent, now, size)
                    continue
                if train not in self.came:
                    self.came[train] = Train()
                came = self.came[train]
                came.add(number, order, now - sent, 0.0, now, size)
                # a copy gets no answer, or copies made there would count as made on the way back
                if kind == ECHOED and number not in came.answered:
                    HEAD.pack_into(buffer, start, MARK, REPLY, train, number, len(came.answered), sent, now)
                    came.answered.add(number)
                    with contextlib.suppress(OSError):
                        self.socket.sendto(view[start : start + size], inbox.sender(slot))

    def send(
        self, train: int, to: Sequence[Any], count: int, interval: float, size: int, echo: bool, linger: float, lasts: float = math.inf
    ) -> dict[str, Any]:
        train_back = self.back[train] = Train()
        kind, padding = (ECHOED if echo else DATA), bytes(max(size - HEAD.size, 0))
        target, begun, sent = tuple(to), time.monotonic(), 0
        together = self.segmented(size, interval)
        most = BEHIND if echo else count
        missed, before = 0.0, begun
        while sent < count:
            due = min(int((time.monotonic() - begun) / interval) + 1, count)
            if due - sent > most:
                # late: what was missed is not made up for in one burst, which a short queue would drop
                begun += (due - sent - most) * interval
                due = sent + most
            while sent < due:
                batch = min(together, due - sent)
                moment, now = time.monotonic(), time.time()
                missed, before = missed + max(moment - before - lasts, 0.0), moment
                packets = [HEAD.pack(MARK, kind, train, sent + each, sent + each, now, 0.0) + padding for each in range(batch)]
                sent += batch
                try:
                    self.socket.sendto(b"".join(packets), target)
                except OSError:
                    # as lost as if the link had done it; a full queue of our own is none, for sending waits
                    continue
            if sent < count:
                time.sleep(max(begun + sent * interval - time.monotonic(), 0.0005))
        seconds = time.monotonic() - begun
        self.segmented(0, 0)
        until = time.monotonic() + linger
        while echo and len(train_back.numbers) < count and time.monotonic() < until:
            time.sleep(0.005)
        if not echo:
            time.sleep(linger)
        return {
            "sent": sent,
            "seconds": seconds,
            "missed": missed,
            "back": train_back.statistics(),
            "round_trip": summary(train_back.trips),
        }

    def segmented(self, size: int, interval: float) -> int:
        """Let the kernel cut what is sent together into packets, where it can and packets come thick. Gives how many together."""
        wanted = size if size and interval < 1e-4 else 0
        try:
            self.socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, wanted)
        except OSError:
            return 1
        return min(AT_ONCE, 60000 // size) if wanted else 1

    def report(self, train: int) -> dict[str, Any]:
        return {"there": self.came.pop(train, Train()).statistics(), "overflows": self.overflows()}

    def largest(self, train: int, to: Sequence[Any], sizes: Iterable[int]) -> dict[str, Any]:
        passed: list[int] = []
        self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        for size in sizes:
            back = self.back[train] = Train()
            for number in range(20):
                with contextlib.suppress(OSError):
                    packet = HEAD.pack(MARK, ECHOED, train, number, number, time.time(), 0.0)
                    self.socket.sendto(packet + bytes(size - HEADERS - len(packet)), tuple(to))
                until = time.monotonic() + 0.1
                while not back.numbers and time.monotonic() < until:
                    time.sleep(0.005)
                if back.numbers:
                    passed.append(size)
                    break
            train += 1
        self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        return {"passed": passed}

    def overflows(self) -> int:
        port = f":{self.socket.getsockname()[1]:04X}"
        with open("/proc/net/udp") as table:
            rows = [line.split() for line in table]
        return sum(int(row[-1]) for row in rows[1:] if row[1].endswith(port))


def summary(values: Iterable[float]) -> dict[str, Any]:
    ordered, names = sorted(values), ("least", "lower", "median", "upper", "most")
    if not ordered:
        return {"count": 0, "mean": None, **dict.fromkeys(names)}
    quarters = [ordered[min(len(ordered) * part // 4, len(ordered) - 1)] for part in range(5)]
    return {"count": len(ordered), "mean": math.fsum(ordered) / len(ordered), **dict(zip(names, quarters))}  # noqa: B905


def clock() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return None


def main() -> None:
    """Obey until the input ends."""
    probe = Probe(sys.argv[1])
    print(json.dumps({"port": probe.socket.getsockname()[1], "clock": clock()}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(probe, command.pop("op"))(**command)), flush=True)


if __name__ == "__main__":
    main()
