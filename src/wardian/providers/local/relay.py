"""The relay: holds, loses, doubles and reorders Ethernet frames in user space, where the kernel has no netem.

    python -S -E relay.py CONFIG

One process serves a whole environment. Its configuration, a JSON file, names pairs of TAP devices: a frame that leaves the kernel by
one of a pair comes back by the other, after the delay and unless it is lost. Rate and queue are no business of the relay: they stand
in front of it, as the queueing discipline of the TAP that a frame leaves by.

    {"netns": "/proc/4711/ns/net" | null,    entered first; null when started in the right one
     "counters": path of the file to which the counters are written, at most every two seconds, and on SIGUSR1,
     "pairs": [{"id", "near": TAP, "far": TAP, "mtu": bytes, "there": DIRECTION, "back": DIRECTION}]}
    DIRECTION is {"limit": bytes, "seed": text}, from near to far and back; and where wanted "delay": seconds, "jitter": seconds,
    "distribution": "uniform" | "normal" | "pareto", "loss": fraction, "loss_burst": mean number lost in a row, "duplicate": fraction,
    "reorder": fraction that does not wait, "trace": {"began": seconds since the epoch, "length", "repeat",
    "steps": [[seconds, {delay, jitter, loss: value}], …]}, whose values go before those beside it

What the words mean is as tc-netem(8) has it; the losses in a row are its simple Gilbert model.

SIGHUP: read the configuration again; frames under way stay so. Start it with SIGHUP and SIGUSR1 blocked: it unblocks them once it can
take them, and one that was sent before that does not end it. As with netem, a frame is sent when it is due: after the delay was
lowered, frames may overtake those that came before the change. The process ends when its configuration file is gone.

Needs nothing but the standard library of Python 3.8, and no package of ours, so that it starts at once and stays small.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import heapq
import json
import math
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from bisect import bisect_right
from collections import deque
from contextlib import suppress
from typing import Any

BATCH = 64
"""Frames taken from one TAP before the others have their turn."""
TICK = 2.0
"""Seconds between two writings of the counters, and two tries to open a TAP that is not there."""
LATE = 1_000_000
"""Nanoseconds after its time from which on a sent frame counts as late."""
FRAME = 2048
"""Bytes read at once, unless a TAP's MTU asks for more."""
FARTHEST = 4.0
"""How many jitters a frame may be off; what netem's tables hold."""
NEVER = 2**63
"""Later than any time of the monotonic clock."""

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
CLOCK_MONOTONIC = 1
TFD_NONBLOCK = os.O_NONBLOCK
TFD_CLOEXEC = os.O_CLOEXEC
TFD_TIMER_ABSTIME = 1


class Direction:
    """One way across a pair: its frames under way, and what was counted."""

    COUNTERS = ("frames", "bytes", "lost", "dropped", "late", "duplicated", "reordered")

    def __init__(self) -> None:
        self.source = self.target = -1
        self.size = FRAME
        self.asked: dict[str, Any] = {}
        self.moments: list[float] = []
        self.changes = NEVER
        self.delay = self.jitter = 0
        self.loss = self.duplicate = self.reorder = 0.0
        self.limit = 0
        self.seed: Any = None
        self.random = random.Random()  # noqa: S311
        self.vary = self._uniform
        self.lose = self._lose_at_random
        self.in_burst = False
        # what is due after all that came before it, and what is due earlier than some of that
        self.queue: deque[tuple[int, bytes]] = deque()
        self.overtaking: list[tuple[int, int, bytes]] = []
        self.order = 0
        self.held = 0
        self.scheduled = 0
        self.frames = self.bytes = self.lost = self.dropped = self.late = self.duplicated = self.reordered = 0

    def configure(self, wanted: dict[str, Any]) -> None:
        self.limit = int(wanted["limit"])
        if wanted.get("seed") != self.seed:
            self.seed = wanted.get("seed")
            self.random = random.Random(self.seed)  # noqa: S311
        self.asked = wanted
        trace = wanted.get("trace")
        self.moments = [step[0] for step in trace["steps"]] if trace else []
        self.changes = 0 if trace else NEVER
        self._set(wanted)

    def receive(self, now: int) -> None:
        """Take in the frames that wait at the source. Raises OSError when the source is gone."""
        if now >= self.changes:
            self._follow_trace(now)
        if self.jitter or self.duplicate or self.reorder:
            self._receive_one_by_one(now)
            return
        read, source, size, queue, limit = os.read, self.source, self.size, self.queue, self.limit
        lose, held, due = self.lose if self.loss else None, self.held, now + self.delay
        in_order = not queue or queue[-1][0] <= due
        try:
            for _ in range(BATCH):
                frame = read(source, size)
                if lose and lose():
                    self.lost += 1
                elif held >= limit:
                    self.dropped += 1
                else:
                    held += len(frame)
                    if in_order:
                        queue.append((due, frame))
                    else:
                        self._put_between(due, frame)
        except BlockingIOError:
            pass
        finally:
            self.held = held

    def send(self, now: int) -> None:
        """Send what is due. Raises OSError when the target is gone."""
        write, target, queue = os.write, self.target, self.queue
        frames = size = 0
        try:
            while (due := self.due()) <= now:
                frame = queue.popleft()[1] if not self.overtaking or self.overtaking[0][0] > due else heapq.heappop(self.overtaking)[2]
                size += len(frame)
                try:
                    write(target, frame)
                except OSError as error:
                    if error.errno == errno.EBADFD:
                        raise
                    self.dropped += 1
                    continue
                frames += 1
                if now - due > LATE:
                    self.late += 1
        finally:
            self.frames += frames
            self.bytes += size
            self.held -= size

    def due(self) -> int:
        """When the next frame is to be sent, nanoseconds of the monotonic clock."""
        due = self.queue[0][0] if self.queue else NEVER
        return min(due, self.overtaking[0][0]) if self.overtaking else due

    def clear(self) -> None:
        """Forget what is under way."""
        self.queue.clear()
        self.overtaking.clear()
        self.held = self.scheduled = 0

    def counters(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.COUNTERS}

    def _set(self, wanted: dict[str, Any]) -> None:
        self.delay = round(wanted.get("delay", 0.0) * 1e9)
        self.jitter = round(wanted.get("jitter", 0.0) * 1e9)
        self.vary = {"normal": self._normal, "pareto": self._pareto}.get(wanted.get("distribution", ""), self._uniform)
        self.loss = float(wanted.get("loss", 0.0))
        self.duplicate = float(wanted.get("duplicate", 0.0))
        self.reorder = float(wanted.get("reorder", 0.0))
        burst = wanted.get("loss_burst")
        self.lose = self._lose_at_random
        if burst and 0 < self.loss < 1:
            self.lose = self._lose_in_bursts
            self.burst_ends = 1 / burst
            self.burst_begins = min(self.loss * self.burst_ends / (1 - self.loss), 1.0)

    def _follow_trace(self, now: int) -> None:
        """Take up the step that the trace is at, and note when the next one comes."""
        trace = self.asked["trace"]
        steps, length = trace["steps"], trace["length"]
        position = max(time.time() - trace["began"], 0.0)
        if trace["repeat"]:
            position %= length
        number = max(bisect_right(self.moments, position) - 1, 0)
        self._set({**self.asked, **steps[number][1]})
        ahead = steps[number + 1][0] if number + 1 < len(steps) else length if trace["repeat"] else math.inf
        self.changes = now + max(round((ahead - position) * 1e9), 1) if ahead < math.inf else NEVER

    def _receive_one_by_one(self, now: int) -> None:
        """The same for a direction each of whose frames has its own delay."""
        draw = self.random.random
        try:
            for _ in range(BATCH):
                frame = os.read(self.source, self.size)
                copies = 1
                if self.duplicate and draw() < self.duplicate:
                    copies = 2
                    self.duplicated += 1
                if self.loss and self.lose():
                    copies -= 1
                    self.lost += 1
                for _ in range(copies):
                    self._hold(now, frame, draw)
        except BlockingIOError:
            pass

    def _hold(self, now: int, frame: bytes, draw: Any) -> None:
        if self.held >= self.limit:
            self.dropped += 1
            return
        due = now + self.delay
        if self.reorder and draw() < self.reorder:
            due = now
            self.reordered += 1
        elif self.jitter:
            due = max(due + round(self.jitter * self.vary()), now)
        self.held += len(frame)
        self._put_between(due, frame)

    def _put_between(self, due: int, frame: bytes) -> None:
        if not self.queue or self.queue[-1][0] <= due:
            self.queue.append((due, frame))
        else:
            self.order += 1
            heapq.heappush(self.overtaking, (due, self.order, frame))

    def _lose_at_random(self) -> bool:
        return self.random.random() < self.loss

    def _lose_in_bursts(self) -> bool:
        lost = self.in_burst
        chance = self.burst_ends if lost else self.burst_begins
        if self.random.random() < chance:
            self.in_burst = not lost
        return lost

    def _uniform(self) -> float:
        return 2 * self.random.random() - 1

    def _normal(self) -> float:
        return min(max(self.random.gauss(0.0, 1.0), -FARTHEST), FARTHEST)

    def _pareto(self) -> float:
        # of shape 3, brought to mean 0 and standard deviation 1
        drawn: float = (1 - self.random.random()) ** (-1 / 3)
        return min((drawn - 1.5) / math.sqrt(0.75), FARTHEST)


class Pair:
    """Two TAPs and the two directions between them."""

    def __init__(self, near: str, far: str) -> None:
        self.names = near, far
        self.there, self.back = Direction(), Direction()

    def open(self) -> bool:
        """Open both TAPs; whether they are there and free."""
        taps = []
        try:
            for name in self.names:
                taps.append(open_tap(name))
        except OSError:
            for tap in taps:
                os.close(tap)
            return False
        self.there.source = self.back.target = taps[0]
        self.back.source = self.there.target = taps[1]
        return True

    def configure(self, wanted: dict[str, Any]) -> None:
        self.there.size = self.back.size = max(FRAME, wanted.get("mtu", 0) + 64)
        self.there.configure(wanted["there"])
        self.back.configure(wanted["back"])

    def close(self) -> None:
        for direction in (self.there, self.back):
            if direction.source >= 0:
                os.close(direction.source)
            direction.source = -1
            direction.clear()
        self.there.target = self.back.target = -1

    @property
    def is_open(self) -> bool:
        return self.there.source >= 0


class Timer:
    """A timer with the clock's own resolution that an epoll waits for; epoll's own timeout counts in milliseconds."""

    class _Spec(ctypes.Structure):
        _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "s", "ns")]

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        self._spec = self._Spec()
        self._set = libc.timerfd_settime
        self._arguments = self.fd, TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None
        self._at = 0

    def arm(self, at: int) -> None:
        """Fire at this time, nanoseconds of the monotonic clock."""
        if at != self._at:
            self._at = at
            self._spec.s, self._spec.ns = divmod(at, 1_000_000_000)
            self._set(*self._arguments)


class Relay:
    """Moves frames until its configuration file is gone."""

    def __init__(self, config: str) -> None:
        self._config = config
        self._pairs: dict[str, Pair] = {}
        self._sources: dict[int, tuple[Pair, Direction]] = {}
        self._due: list[tuple[int, int, Pair, Direction]] = []
        self._order = 0
        self._timer = Timer()
        self._epoll = select.epoll()
        # edge-triggered, so that the timer need not be read each time that it fired
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        self._signals = self._catch_signals()
        self._counters = ""
        self._measured = time.monotonic(), time.process_time()
        settings = self._read()
        if settings.get("netns"):
            enter_netns(settings["netns"])
        self._apply(settings)

    def run(self) -> None:
        poll, sources, clock, due = self._epoll.poll, self._sources, time.monotonic_ns, self._due
        next_tick = clock() + int(TICK * 1e9)
        while True:
            events = poll(TICK)
            now = clock()
            for fd, _ in events:
                entry = sources.get(fd)
                if entry is not None:
                    self._receive(entry, now)
                elif fd == self._signals:
                    self._heed_signals()
            now = clock()
            while due and due[0][0] <= now:
                self._send(now)
            if due:
                self._timer.arm(due[0][0])
            if now >= next_tick:
                next_tick = now + int(TICK * 1e9)
                if not os.path.exists(self._config):
                    return
                self._open_missing()
                self._write_counters()

    def _receive(self, entry: tuple[Pair, Direction], now: int) -> None:
        pair, direction = entry
        try:
            direction.receive(now)
        except OSError:
            self._lose(pair)
            return
        due = direction.due()
        if due < NEVER and (not direction.scheduled or due < direction.scheduled):
            self._schedule(pair, direction)

    def _send(self, now: int) -> None:
        at, _, pair, direction = heapq.heappop(self._due)
        if at != direction.scheduled:
            return
        direction.scheduled = 0
        try:
            direction.send(now)
        except OSError:
            self._lose(pair)
            return
        if direction.due() < NEVER:
            self._schedule(pair, direction)

    def _schedule(self, pair: Pair, direction: Direction) -> None:
        direction.scheduled = direction.due()
        self._order += 1
        heapq.heappush(self._due, (direction.scheduled, self._order, pair, direction))

    def _lose(self, pair: Pair) -> None:
        """Let go of a pair one of whose TAPs vanished; it is tried again at each tick."""
        for direction in (pair.there, pair.back):
            self._sources.pop(direction.source, None)
        # closing a TAP takes it out of the epoll
        pair.close()

    def _open_missing(self) -> None:
        for pair in self._pairs.values():
            if not pair.is_open and pair.open():
                for direction in (pair.there, pair.back):
                    self._sources[direction.source] = pair, direction
                    self._epoll.register(direction.source, select.EPOLLIN)

    def _read(self) -> dict[str, Any]:
        with open(self._config, encoding="utf-8") as file:
            settings: dict[str, Any] = json.load(file)
        return settings

    def _apply(self, settings: dict[str, Any]) -> None:
        self._counters = settings.get("counters", "")
        wanted = {item["id"]: item for item in settings["pairs"]}
        for name, pair in list(self._pairs.items()):
            if name not in wanted or pair.names != (wanted[name]["near"], wanted[name]["far"]):
                self._lose(self._pairs.pop(name))
        for name, item in wanted.items():
            pair = self._pairs.setdefault(name, Pair(item["near"], item["far"]))
            pair.configure(item)
        self._open_missing()

    def _catch_signals(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (ours, theirs):
            end.setblocking(False)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP, signal.SIGUSR1))
        self._epoll.register(ours, select.EPOLLIN)
        return ours.detach()

    def _heed_signals(self) -> None:
        numbers = os.read(self._signals, 1)
        if signal.SIGHUP in numbers:
            try:
                self._apply(self._read())
            except (OSError, ValueError, KeyError) as error:
                print(f"relay: {self._config} cannot be used, going on as before: {error!r}", file=sys.stderr, flush=True)
        if signal.SIGUSR1 in numbers:
            self._write_counters()

    def _write_counters(self) -> None:
        if not self._counters:
            return
        elapsed, spent = time.monotonic(), time.process_time()
        busy = (spent - self._measured[1]) / max(elapsed - self._measured[0], 1e-9)
        self._measured = elapsed, spent
        pairs = {name: {"there": pair.there.counters(), "back": pair.back.counters()} for name, pair in self._pairs.items()}
        absent = [name for name, pair in self._pairs.items() if not pair.is_open]
        report = {"pid": os.getpid(), "time": time.time(), "busy": round(busy, 3), "absent": absent, "pairs": pairs}
        try:
            with open(self._counters + ".new", "w", encoding="utf-8") as file:
                json.dump(report, file)
            os.replace(self._counters + ".new", self._counters)
        except OSError as error:
            print(f"relay: the counters cannot be written: {error}", file=sys.stderr, flush=True)


def open_tap(name: str) -> int:
    """The descriptor of an existing TAP. Raises OSError when there is none, or when another process has it."""
    # opening a name that nothing has would make a new device
    socket.if_nametoindex(name)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(tap)
        raise
    return tap


def enter_netns(path: str) -> None:
    """Move this process into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(namespace, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    finally:
        os.close(namespace)


def go_first() -> None:
    """Be scheduled before ordinary processes: nodes may keep every processor busy, and frames have to be on time all the same."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        # a control group may have no share of real time to give
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)


def main() -> None:
    """The command."""
    go_first()
    # nothing here forms cycles, and looking for them among thousands of held frames costs time
    gc.disable()
    Relay(sys.argv[1]).run()


if __name__ == "__main__":
    main()
