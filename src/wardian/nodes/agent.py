"""The agent: one process on a node that owns the node's kernels and services, and outlives whoever started it.

This file is sent to the node and run there, so it stands alone: Python 3.8 or newer and the standard library. `docs/protocol.md`
describes what it speaks. It is one thread around one epoll loop: nothing here blocks, and nothing is kept without a bound.
"""

from __future__ import annotations

import array
import codecs
import collections
import contextlib
import errno
import fcntl
import heapq
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Protocol

    class Cancellable(Protocol):
        def cancel(self) -> None: ...

    class Watcher(Protocol):
        """What a socket needs of an event loop."""

        def watch(self, fd: int, callback: Callable[[int], None], events: int = ...) -> None: ...
        def unwatch(self, fd: int) -> None: ...
        def later(self, seconds: float, callback: Callable[[], None]) -> Cancellable: ...


PROTOCOL = 1
HELLO, REQUEST, REPLY, MESSAGE, INPUT, ACK, EVENT, ERROR = range(8)
SHELL, IOPUB, STDIN, CONTROL = range(4)
KEPT, FREE = b"\0", b"\1"

KIB, MIB = 1 << 10, 1 << 20
FRAME_LIMIT = 64 * MIB
WINDOW = 8 * MIB
MEMORY_LIMIT = 16 * MIB
SPOOL_LIMIT = 1024 * MIB
SPOOL_SEGMENT = 32 * MIB
TAIL_LIMIT = 1 * MIB
ARCHIVE_FROM = 256 * KIB
STREAM_LIMIT = 2 * MIB
OUTGOING_LIMIT = 512 * KIB
READ_SIZE = 256 * KIB
LOG_LIMIT = 8 * MIB
STOP_GRACE = 2.0
START_TIMEOUT = 60.0


class BadFrame(Exception):
    """The peer broke the protocol; its connection ends."""


class Refused(Exception):
    """A request cannot be done; the reply says why."""

    def __init__(self, kind: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.remedy = kind, message, remedy


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pack(kind: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def pack_json(kind: int, value: Mapping[str, Any]) -> bytes:
    """One frame whose payload is JSON."""
    return pack(kind, json.dumps(value).encode())


def pack_message(kind: int, sequence: int, channel: int, kernel: bytes, parts: Sequence[bytes]) -> bytes:
    """A MESSAGE or INPUT frame. At most 255 parts."""
    body = [struct.pack(">QBB", sequence, channel, len(kernel)), kernel, struct.pack(">B", len(parts))]
    for part in parts:
        body.append(struct.pack(">I", len(part)))
        body.append(part)
    size = sum(map(len, body)) + 1
    return b"".join([struct.pack(">IB", size, kind), *body])


def unpack_message(payload: bytes) -> tuple[int, int, str, list[bytes]]:
    """Sequence, channel, kernel and parts of a MESSAGE or INPUT payload."""
    try:
        sequence, channel, length = struct.unpack_from(">QBB", payload)
        position = 11 + length
        kernel = payload[10 : 10 + length].decode("ascii")
        count = payload[position - 1]
        parts = []
        for _ in range(count):
            (size,) = struct.unpack_from(">I", payload, position)
            position += 4
            parts.append(payload[position : position + size])
            position += size
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise BadFrame(f"malformed message: {error}") from None
    if position != len(payload) or channel > CONTROL or count < 4:
        raise BadFrame("malformed message")
    return sequence, channel, kernel, parts


def unpack_json(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"malformed JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadFrame("expected a JSON object")
    return value


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add bytes, and give each frame that is whole as (type, payload)."""
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while len(buffer) - position >= 4:
                (length,) = struct.unpack_from(">I", buffer, position)
                if not 1 <= length <= FRAME_LIMIT:
                    raise BadFrame(f"a frame of {length} bytes; at most {FRAME_LIMIT} are allowed")
                if len(buffer) - position - 4 < length:
                    break
                kind = buffer[position + 4]
                if kind > ERROR:
                    raise BadFrame(f"unknown frame type {kind}")
                payload = bytes(memoryview(buffer)[position + 5 : position + 4 + length])
                position += 4 + length
                yield kind, payload
        finally:
            del buffer[:position]


# ── the store ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Spool:
    """Frames in first-in-first-out order on disk, in unlinked files that vanish with this process."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory, self._limit = directory, limit
        self._segments: collections.deque[list[int]] = collections.deque()  # [fd, size] each
        self._offset = 0
        self._used = 0

    def __bool__(self) -> bool:
        return bool(self._segments)

    def append(self, frame: bytes) -> bool:
        """Keep a frame; False when the quota or the disk is full."""
        if self._used + len(frame) > self._limit:
            return False
        try:
            if not self._segments or self._segments[-1][1] >= SPOOL_SEGMENT:
                self._segments.append([unlinked_file(self._directory), 0])
            segment = self._segments[-1]
            view, start = memoryview(frame), segment[1]
            while view:
                written = os.pwrite(segment[0], view, start)
                view, start = view[written:], start + written
        except OSError as error:
            log(f"spool: {error}")
            if self._segments and not self._segments[-1][1]:
                os.close(self._segments.pop()[0])
            return False
        segment[1] += len(frame)
        self._used += len(frame)
        return True

    def take(self) -> bytes:
        """The oldest frame, removed."""
        fd, size = self._segments[0]
        (length,) = struct.unpack(">I", os.pread(fd, 4, self._offset))
        frame = os.pread(fd, length + 4, self._offset)
        self._offset += len(frame)
        if self._offset >= size:
            os.close(fd)
            self._segments.popleft()
            self._used -= size
            self._offset = 0
        return frame

    def close(self) -> None:
        """Give the space back."""
        while self._segments:
            os.close(self._segments.popleft()[0])


def unlinked_file(directory: str) -> int:
    """A file that has no name, and vanishes with this process; gives its descriptor."""
    path = os.path.join(directory, f".wardian-{os.getpid()}-{os.urandom(6).hex()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


class Gap:
    """Messages of one cell that were dropped in a row: how many, what text they had, the number of the last, whose they were."""

    def __init__(self, parent: bytes) -> None:
        self.parent = parent
        self.sequence = self.count = self.size = self.lines = 0

    def add(self, sequence: int, frame: bytes) -> None:
        """Another one is dropped."""
        self.sequence = sequence
        self.count += 1
        parts = unpack_message(frame[5:])[3]
        if b'"stream"' in parts[0]:
            text = stream_text(parts[3])
            self.size += len(text.encode("utf-8", "replace"))
            self.lines += text.count("\n")

    def frame(self, kernel: bytes) -> bytes:
        """What stands in their place: a stream message that says what is missing."""
        what = f"{self.count} messages with {self.size:,} bytes ({self.lines:,} lines) of output"
        text = f"\n[{what} were dropped here: the node's store was full]\n"
        left_out = {"messages": self.count, "bytes": self.size, "lines": self.lines, "dropped": self.size}
        content = {"name": "stderr", "text": text, "left_out": left_out}
        parts = message_parts("stream", content, self.parent, "agent")
        return pack_message(MESSAGE, self.sequence, IOPUB, kernel, parts)


class MessageStore:
    """A kernel's numbered messages, kept until they are acknowledged.

    The oldest are in memory (`memory` bytes), what comes after them in a spool on disk (`disk` bytes). Past that, output is dropped
    from the middle: the newest `tail` bytes stay, an exact mark stands for what is gone, and what is no output (replies, statuses,
    errors, comm messages) is never dropped.
    """

    DROPPABLE = (b'"stream"', b'"display_data"', b'"update_display_data"', b'"execute_result"')

    def __init__(self, kernel: str, directory: str, memory: int = MEMORY_LIMIT, disk: int = SPOOL_LIMIT, tail: int = TAIL_LIMIT) -> None:
        self.id = os.urandom(8).hex()
        self.next = 1
        self.dropped = 0
        self.acknowledged = 0
        self._kernel = kernel.encode()
        self._memory, self._tail_limit = memory, tail
        self._sent: collections.deque[tuple[int, bytes]] = collections.deque()
        self._sent_bytes = 0
        self._ready: collections.deque[tuple[int, bytes]] = collections.deque()
        self._ready_bytes = 0
        self._spool = Spool(directory, disk)
        self._survivors: collections.deque[Gap | tuple[int, bytes]] = collections.deque()
        self._tail: collections.deque[tuple[int, bytes, bytes | None]] = collections.deque()
        self._tail_bytes = 0

    def append(self, channel: int, parts: Sequence[bytes]) -> None:
        """Number a message and keep it."""
        sequence = self.next
        self.next += 1
        frame = pack_message(MESSAGE, sequence, channel, self._kernel, parts)
        if len(frame) > FRAME_LIMIT:
            parts = too_large(parts, channel, len(frame))
            frame = pack_message(MESSAGE, sequence, channel, self._kernel, parts)
        in_order = not self._tail and not self._survivors
        if in_order and not self._spool and self._sent_bytes + self._ready_bytes + len(frame) <= self._memory:
            self._ready.append((sequence, frame))
            self._ready_bytes += len(frame)
        elif not in_order or not self._spool.append(frame):
            droppable = channel == IOPUB and any(kind in parts[0] for kind in self.DROPPABLE)
            self._tail.append((sequence, frame, parts[1] if droppable else None))
            self._tail_bytes += len(frame)
            self._trim()

    def take(self) -> bytes | None:
        """The next frame to send, or None while there is none or the window is full."""
        if not self._ready:
            self._refill()
            if not self._ready:
                return None
        size = len(self._ready[0][1])
        if self._sent and self._sent_bytes + size > WINDOW:
            return None
        item = self._ready.popleft()
        self._ready_bytes -= size
        self._sent.append(item)
        self._sent_bytes += size
        return item[1]

    @property
    def exhausted(self) -> bool:
        """Whether everything was sent."""
        return not (self._ready or self._spool or self._survivors or self._tail)

    def acknowledge(self, sequence: int) -> None:
        """Forget everything sent up to a number."""
        while self._sent and self._sent[0][0] <= sequence:
            self.acknowledged, frame = self._sent.popleft()
            self._sent_bytes -= len(frame)

    def rewind(self, after: int | None) -> int:
        """Go on after a number (None: after what was last acknowledged); gives the number of the next message."""
        self._ready.extendleft(reversed(self._sent))
        self._ready_bytes += self._sent_bytes
        self._sent.clear()
        self._sent_bytes = 0
        while after is not None:
            if not self._ready:
                self._refill()
            if not self._ready or self._ready[0][0] > after:
                break
            self.acknowledged, frame = self._ready.popleft()
            self._ready_bytes -= len(frame)
        return self.acknowledged + 1

    def close(self) -> None:
        """Forget everything."""
        self._spool.close()

    def _refill(self) -> None:
        while self._spool and self._sent_bytes + self._ready_bytes < self._memory // 2:
            frame = self._spool.take()
            self._ready.append((struct.unpack_from(">Q", frame, 5)[0], frame))
            self._ready_bytes += len(frame)
        if self._spool:
            return
        for survivor in self._survivors:
            item = (survivor.sequence, survivor.frame(self._kernel)) if isinstance(survivor, Gap) else survivor
            self._ready.append(item)
            self._ready_bytes += len(item[1])
        self._ready.extend((sequence, frame) for sequence, frame, _ in self._tail)
        self._ready_bytes += self._tail_bytes
        self._survivors.clear()
        self._tail.clear()
        self._tail_bytes = 0

    def _trim(self) -> None:
        while self._tail_bytes > self._tail_limit and len(self._tail) > 1:
            sequence, frame, parent = self._tail.popleft()
            self._tail_bytes -= len(frame)
            last = self._survivors[-1] if self._survivors else None
            if parent is None:
                self._survivors.append((sequence, frame))
                continue
            self.dropped += 1
            if not isinstance(last, Gap) or last.parent != parent:
                last = Gap(parent)
                self._survivors.append(last)
            last.add(sequence, frame)


class Archive:
    """What the cells of a kernel printed, kept after it was acknowledged: views and records of long output are cut, this is not.

    A cell's text is held in memory until it is long (`ARCHIVE_FROM`); what is short is forgotten with the next cell. Long ones are
    unlinked files, together at most `limit` bytes: the oldest go first, and of the last the end.
    """

    def __init__(self, directory: str, limit: int) -> None:
        self._directory, self._limit = directory, limit
        self._parent, self._cell = b"", ""
        self._held = bytearray()
        self._files: collections.OrderedDict[str, list[int]] = collections.OrderedDict()  # fd, bytes kept, bytes lost
        self._used = 0

    def append(self, parent: bytes, content: bytes) -> None:
        """Keep the text of a stream message. parent: the header of the cell's request; content: JSON."""
        if parent != self._parent:
            if self._cell in self._files:
                self._spill()
            self._parent, self._held = parent, bytearray()
            try:
                self._cell = str(json.loads(parent).get("msg_id"))
            except (ValueError, AttributeError, RecursionError):
                self._cell = ""
        self._held += stream_text(content).encode("utf-8", "replace")
        if len(self._held) >= (64 * KIB if self._cell in self._files else ARCHIVE_FROM):
            self._spill()

    def read(self, cell: str, offset: int, size: int) -> tuple[bytes, int, int]:
        """Some of a cell's text from an offset on, how many bytes are kept, and how many are not. Raises KeyError."""
        if cell == self._cell and cell in self._files:
            self._spill()
        if cell == self._cell and cell not in self._files:
            return bytes(self._held[offset : offset + size]), len(self._held), 0
        fd, kept, lost = self._files[cell]
        return os.pread(fd, size, offset), kept, lost

    def close(self) -> None:
        """Give the space back."""
        while self._files:
            os.close(self._files.popitem()[1][0])

    def _spill(self) -> None:
        data, self._held = self._held, bytearray()
        try:
            if self._cell not in self._files:
                self._files[self._cell] = [unlinked_file(self._directory), 0, 0]
            # an earlier cell may still print: what it keeps is not for itself to push out
            self._files.move_to_end(self._cell)
            while self._used + len(data) > self._limit and len(self._files) > 1:
                fd, kept, _ = self._files.popitem(last=False)[1]
                os.close(fd)
                self._used -= kept
            file = self._files[self._cell]
            room = max(0, self._limit - self._used) if not file[2] else 0
            written = os.pwrite(file[0], data[:room], file[1]) if room else 0
        except OSError as error:
            log(f"archive: {error}")
            if self._cell not in self._files:
                return
            file, written = self._files[self._cell], 0
        file[1] += written
        file[2] += len(data) - written
        self._used += written


def message_parts(kind: str, content: Mapping[str, Any], parent: bytes, session: str) -> list[bytes]:
    """The four parts of a Jupyter message. parent: the header, in JSON, of the message that this one answers."""
    now = time.time()
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
    header = {"msg_id": os.urandom(16).hex(), "msg_type": kind, "username": "wardian", "session": session, "date": date, "version": "5.4"}
    return [json.dumps(header).encode(), parent, b"{}", json.dumps(content).encode()]


def stream_text(content: bytes) -> str:
    """The text of a stream message. content: JSON."""
    try:
        return str(json.loads(content).get("text", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def split_stream(parts: Sequence[bytes]) -> Iterator[list[bytes]]:
    """A long stream message as several: a kernel that is printed in fast gathers more than a reader wants at once."""
    header, content = json.loads(parts[0]), json.loads(parts[3])
    text, size = content["text"], STREAM_LIMIT // 8
    for number, start in enumerate(range(0, len(text), size)):
        piece = dict(header, msg_id="{}-{}".format(header["msg_id"], number))
        yield [json.dumps(piece).encode(), parts[1], parts[2], json.dumps(dict(content, text=text[start : start + size])).encode()]


def too_large(parts: Sequence[bytes], channel: int, size: int) -> list[bytes]:
    """What replaces a message that no frame can hold: an error with the same header and parent."""
    text = f"a message of {size} bytes is too large to leave the node; at most {FRAME_LIMIT} are carried"
    if channel == IOPUB:
        return message_parts("stream", {"name": "stderr", "text": f"[{text}]\n"}, parts[1], "agent")
    content = {"status": "error", "ename": "MessageTooLarge", "evalue": text, "traceback": [text]}
    return [parts[0], parts[1], b"{}", json.dumps(content).encode()]


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Timer:
    """Something to be called later."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Don't call it."""
        self.callback = None


class Loop:
    """Calls back for readable and writable descriptors, timers, and children that ended."""

    def __init__(self) -> None:
        self.before_wait: Callable[[], None] = lambda: None
        self.running = True
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._soon: collections.deque[Callable[[], None]] = collections.deque()
        self._children: dict[int, Callable[[int], None]] = {}
        self._adopted: dict[int, Callable[[int], None]] = {}
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._wake = wake_read
        self.watch(wake_read, self._reap)

    def watch(self, fd: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call back with the events of a descriptor; a second call changes what is watched."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching a descriptor, if it was watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back after some time."""
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next round."""
        self._soon.append(callback)

    def child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the exit code of a child (minus the signal's number if one ended it)."""
        self._children[pid] = callback

    def adopt(self, pid: int, callback: Callable[[int], None]) -> None:
        """Likewise of a process that is not our child: somebody will call `ended`."""
        self._adopted[pid] = callback

    def ended(self, pid: int, code: int) -> None:
        """An adopted process has ended."""
        callback = self._adopted.pop(pid, None)
        if callback:
            self._call(callback, code)

    def has_child(self, pid: int) -> bool:
        """Whether a child's end is still to be noticed."""
        return pid in self._children or pid in self._adopted

    def run(self) -> None:
        """Until `running` is False."""
        while self.running:
            self._call(self.before_wait)
            for fd, events in self._epoll.poll(self._timeout()):
                handler = self._handlers.get(fd)
                if handler:
                    self._call(handler, events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                if timer.callback:
                    self._call(timer.callback)
            for _ in range(len(self._soon)):
                self._call(self._soon.popleft())

    def _timeout(self) -> float:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._soon:
            return 0.0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1.0

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        # the kernels of a node live and die with this process: a fault in handling one event must not end the others
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001
            import traceback

            log(traceback.format_exc())

    def _reap(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        for pid in list(self._children):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, status = pid, 0
            if found:
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
                self._call(self._children.pop(pid), code)


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def spawn(argv: Sequence[str], env: Mapping[str, str], cwd: str, fds: Mapping[int, int]) -> int:
    """Start a program in a session of its own, to be killed when this process dies; gives its pid.

    fds: {descriptor there: descriptor here}. Raises OSError when the folder or the program is not there.
    """
    prctl = process_control()
    parent = os.getpid()
    failed_read, failed_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for number in range(1, signal.NSIG):
                if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()
            if prctl:
                prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
                if os.getppid() != parent:
                    os._exit(1)
            os.chdir(cwd)
            high = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 220) for target, fd in fds.items()}
            for target, fd in high.items():
                os.dup2(fd, target)
            os.umask(0o022)
            os.execvpe(argv[0], list(argv), env)  # noqa: S606
        except OSError as error:
            os.write(failed_write, b"%d" % (error.errno or errno.EIO))
        finally:
            os._exit(127)
    os.close(failed_write)
    failure = os.read(failed_read, 16)
    os.close(failed_read)
    if failure:
        os.waitpid(pid, 0)
        number = int(failure)
        raise OSError(number, os.strerror(number), cwd if not os.path.isdir(cwd) else argv[0])
    return pid


class Stem:
    """An idle process on this node that has what a Python kernel needs loaded, and forks kernels (`nodes/stem.py`)."""

    PATIENCE = 5.0

    def __init__(self, loop: Loop, fd: int) -> None:
        self.open = True
        self._loop = loop
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(self.PATIENCE)
        self._forked: set[int] = set()
        self._answer: dict[str, Any] = {}
        loop.watch(fd, lambda events: self._read())

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, fds: Mapping[int, int], exited: Callable[[int], None]
    ) -> int | None:
        """As `spawn`, for `[this interpreter, "-c", ...]`; None where it cannot be done so. `exited` is called with the exit code."""
        if not self.open or list(argv[:2]) != [sys.executable, "-c"] or not os.path.isdir(cwd) or not os.access(cwd, os.X_OK):
            return None
        request = json.dumps({"argv": list(argv), "env": dict(env), "cwd": cwd, "fds": list(fds)}).encode()
        rights = array.array("i", fds.values())
        self._answer = {}
        try:
            self._socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as error:
            log(f"stem: {error}")
            return None
        while not self._answer and self.open:
            self._read()
        pid: int | None = self._answer.get("pid")
        if pid is None:
            log("stem: {}".format(self._answer.get("error", "it does not answer")))
            return None
        self._forked.add(pid)
        self._loop.adopt(pid, exited)
        return pid

    def _read(self) -> None:
        try:
            said = self._socket.recv(4096)
        except OSError:
            said = b""
        if not said:
            self._lost()
            return
        value = json.loads(said)
        if "ended" not in value:
            self._answer = value
        elif value["ended"] in self._forked:
            self._forked.discard(value["ended"])
            self._loop.soon(partial(self._loop.ended, value["ended"], value["code"]))

    def _lost(self) -> None:
        """It has ended, and what it forked with it."""
        self.open = False
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for pid in self._forked:
            self._loop.soon(partial(self._loop.ended, pid, -signal.SIGKILL))
        self._forked.clear()


_prctl: list[Any] = []


def process_control() -> Any:
    """prctl(2), or None where this Python has no ctypes."""
    if not _prctl:
        try:
            import ctypes

            _prctl.append(ctypes.CDLL(None).prctl)
        except (ImportError, OSError, AttributeError):
            _prctl.append(None)
    return _prctl[0]


def session_members(session: int, since: float = 0.0) -> list[int]:
    """The processes of a session that are no zombies, and were started not earlier than a number of seconds after boot."""
    members = []
    earliest = int(since * os.sysconf("SC_CLK_TCK")) - 1
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in (b"Z", b"X") and int(fields[19]) >= earliest:
                members.append(int(name))
    return members


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal; one that has ended does."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"SigIgn:"):
                    return bool(int(line[7:], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return True


def executable_of(pid: int) -> str:
    """The program that a process runs, or nothing when it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def signal_session(session: int, *numbers: int) -> bool:
    """Send signals to every process of a session; whether there was any."""
    members = session_members(session)
    for pid in members:
        for number in numbers:
            try:
                os.kill(pid, number)
            except OSError:
                break
    return bool(members)


class Sessions:
    """The sessions that this agent started, noted on disk so that a later agent can end what a killed one left."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, exist_ok=True)

    def clean(self) -> None:
        """End what an earlier agent left behind."""
        for name in os.listdir(self._directory):
            for pid in session_members(int(name)) if name.isdigit() else ():
                # the number may have gone to a stranger since; ours carry our mark
                if b"WARDIAN_AGENT=" in environment_of(pid):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        continue
            os.unlink(os.path.join(self._directory, name))

    def add(self, session: int) -> None:
        """Note one."""
        os.close(os.open(os.path.join(self._directory, str(session)), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def end(self, session: int, loop: Loop, done: Callable[[], None]) -> None:
        """SIGTERM and SIGHUP to all of it, SIGKILL to what is left after a grace; then call `done`."""
        deadline = time.monotonic() + STOP_GRACE
        signal_session(session, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT)

        def check(pause: float) -> None:
            # its leader's end has to be noticed first: those who handle it still need what `done` lets go
            if not session_members(session) and not loop.has_child(session):
                self.forget(session)
                done()
                return
            if time.monotonic() > deadline:
                signal_session(session, signal.SIGKILL)
            loop.later(pause, lambda: check(min(0.05, pause * 2)))

        check(0.001)

    def forget(self, session: int) -> None:
        """It ended."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, str(session)))


def environment_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def pipe(size: int = 0) -> tuple[int, int]:
    """A pipe whose reading end does not block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    if size:
        with contextlib.suppress(OSError):
            fcntl.fcntl(write, 1031, size)  # F_SETPIPE_SZ
    return read, write


def read_some(fd: int, size: int = READ_SIZE) -> bytes | None:
    """What is there to read; None when nothing is, empty at the end."""
    try:
        return os.read(fd, size)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


def waiting(fd: int) -> int:
    """How many bytes a pipe holds."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


_dev_null: list[int] = []


def dev_null() -> int:
    if not _dev_null:
        _dev_null.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
    return _dev_null[0]


def log(text: str) -> None:
    """A line of the agent's log."""
    with contextlib.suppress(OSError):
        os.write(2, ("{} {}\n".format(time.strftime("%Y-%m-%d %H:%M:%S"), text.rstrip())).encode("utf-8", "replace"))


# ── kernels ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Kernel:
    """What all kinds of kernel share: an id, a store, a client that is attached."""

    language = ""

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str) -> None:
        self.agent, self.id, self.cwd = agent, name, cwd
        self.env = dict(agent.environment, **env, WARDIAN_KERNEL=name)
        self.directory = os.path.join(agent.directory, "kernels", name)
        self.store = MessageStore(name, agent.spool_directory, disk=agent.spool_limit)
        self.archive = Archive(agent.spool_directory, agent.spool_limit)
        self.executing: dict[str, None] = {}
        self.client: Client | None = None
        self.pid: int | None = None
        self.state = "starting"
        self.language_info: dict[str, Any] = {}
        self.death: dict[str, Any] | None = None
        self.sessions: list[int] = []
        self.starting: list[Request] = []

    def start(self) -> None:
        """Start its process; `ready` or `died` follows."""
        raise NotImplementedError

    def input(self, channel: int, parts: list[bytes]) -> None:
        """A message from the client."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """SIGINT to its process group."""
        if self.pid:
            os.killpg(self.pid, signal.SIGINT)

    def close(self) -> None:
        """Let go of what it holds; its processes are ended by then."""
        self.store.close()
        self.archive.close()
        remove_folder(self.directory)

    def launch(self, argv: Sequence[str], fds: Mapping[int, int], exited: Callable[[int], None], env: Mapping[str, str]) -> None:
        """Start its process in a session of its own."""
        stem = self.agent.stem
        self.pid = stem.spawn(argv, env, self.cwd, fds, exited) if stem else None
        if self.pid is None:
            self.pid = spawn(argv, env, self.cwd, fds)
            self.agent.loop.child(self.pid, exited)
        self.sessions.append(self.pid)
        self.agent.sessions.add(self.pid)

    def emit(self, channel: int, parts: Sequence[bytes]) -> None:
        """Number a message, keep it, and have it sent."""
        if channel == IOPUB and len(parts[3]) > STREAM_LIMIT and b'"stream"' in parts[0]:
            for piece in split_stream(parts):
                self.emit(channel, piece)
            return
        self.store.append(channel, parts)
        if channel == IOPUB and b'"stream"' in parts[0]:
            self.archive.append(parts[1], parts[3])
        elif channel == SHELL and b'"execute_reply"' in parts[0]:
            self.executing.pop(header_id(parts[1]), None)
        if self.client:
            self.agent.dirty.add(self.client)

    def ready(self) -> None:
        """Answer those who wait for the start."""
        self.state = "idle"
        for request in self.starting:
            request.succeed(self.described(new=request is self.starting[0]))
        self.starting.clear()

    def described(self, new: bool) -> dict[str, Any]:
        """What a request for its start is answered."""
        return {"pid": self.pid, "new": new, "store": self.store.id, "end": self.store.next - 1, "language_info": self.language_info}

    def died(self, code: int, last: str) -> None:
        """Its process ended for good."""
        self.pid = None
        self.state = "dead"
        self.death = {
            "event": "kernel.died",
            "kernel": self.id,
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
        }
        self.death["last"] = last
        if self.client:
            self.client.owe(self)

    def failed(self, error: Refused) -> None:
        """The start came to nothing."""
        for request in self.starting:
            request.refuse(error)
        self.starting.clear()


class Outlet:
    """One output stream of a shell, cut into stream messages.

    While little comes it passes at once; when much comes it is gathered for a few milliseconds, so that a loop of small writes makes
    few messages. Meanwhile the pipe holds it.
    """

    PERIOD, BURST = 0.01, 8

    def __init__(self, loop: Loop, emit: Callable[[str], None]) -> None:
        self._loop, self._emit = loop, emit
        self.fd, self.write_end = pipe(MIB)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._period_end = 0.0
        self._reads = 0
        loop.watch(self.fd, self._readable)

    def drain(self) -> None:
        """Pass on everything that was written before this call."""
        left = waiting(self.fd)
        while left > 0:
            data = read_some(self.fd, min(left, 64 * KIB))
            if not data:
                break
            left -= len(data)
            self._pass(data)

    def close(self) -> None:
        self._loop.unwatch(self.fd)
        os.close(self.fd)
        os.close(self.write_end)
        self.fd = -1

    def _readable(self, events: int) -> None:
        now = time.monotonic()
        if now >= self._period_end:
            self._period_end, self._reads = now + self.PERIOD, 0
        self._reads += 1
        if self._reads > self.BURST:
            self._loop.unwatch(self.fd)
            self._loop.later(self._period_end - now, self._resume)
            return
        data = read_some(self.fd, 64 * KIB)
        if data:
            self._pass(data)

    def _resume(self) -> None:
        if self.fd < 0:
            return
        for _ in range(16):
            data = read_some(self.fd, 64 * KIB)
            if not data:
                break
            self._pass(data)
        # still in a flood: keep to the slow pace
        self._period_end, self._reads = time.monotonic() + self.PERIOD, self.BURST
        self._loop.watch(self.fd, self._readable)

    def _pass(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        if text:
            self._emit(text)


class Job:
    """Something the shell does before it is asked for anything else: a cell, a completion, its own setup."""

    def __init__(self, lines: str, done: Callable[[int], None], cell: Cell | None = None) -> None:
        self.lines, self.done, self.cell = lines, done, cell
        self.token = 0
        self.started = 0.0
        self.interrupted = self.ending = False


class Cell:
    """One execute request."""

    def __init__(self, channel: int, parts: list[bytes], content: Mapping[str, Any], count: int) -> None:
        self.channel, self.header, self.content, self.count = channel, parts[0], content, count


class BashKernel(Kernel):
    """One long-lived bash on pipes.

    The shell is interactive for one reason: SIGINT then abandons the cell and keeps the shell, as do `set -u` and `${x:?}`. It reads
    `source FILE` on its standard input, followed by a line that reports the status on a pipe of its own. That line comes apart
    from the first because an interrupt discards the line being run.
    """

    language = "bash"
    STATUS_FD, ERROR_FD = 200, 201
    INTERRUPTS = 8
    LANGUAGE: Mapping[str, Any] = {
        "name": "bash",
        "mimetype": "text/x-sh",
        "file_extension": ".sh",
        "codemirror_mode": "shell",
        "pygments_lexer": "bash",
    }
    SETUP = (
        f"exec 2>&{ERROR_FD} {ERROR_FD}>&-; set +H +m +o history; shopt -u checkwinsize; unset HISTFILE TMOUT MAILCHECK PROMPT_COMMAND\n"
        "command_not_found_handle() { printf '%s: line %s: %s: command not found\\n' \"${BASH_SOURCE[1]##*/}\""
        ' "${BASH_LINENO[0]}" "$1" >&2; return 127; }\n'
        f"printf 'version %s\\n' \"$BASH_VERSION\" >&{STATUS_FD}\n"
    )

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str) -> None:
        super().__init__(agent, name, env, cwd)
        self.env.update(PS1="", PS2="", WARDIAN_KERNEL=name)
        self.session = os.urandom(8).hex()
        self.version = ""
        self._count = 0
        self._token = 0
        self._parent = b"{}"
        self._input = -1
        self._jobs: collections.deque[Job] = collections.deque()
        self._job: Job | None = None
        self._outlets: list[Outlet] = []
        self._status_read = self._status_write = -1
        self._status_text = b""

    def start(self) -> None:
        os.makedirs(self.directory, exist_ok=True)
        self._outlets = [Outlet(self.agent.loop, self._stream("stdout")), Outlet(self.agent.loop, self._stream("stderr"))]
        self._status_read, self._status_write = pipe()
        self.agent.loop.watch(self._status_read, self._status)
        self._launch_shell()
        self._enqueue(Job("", lambda status: self.ready()))

    def close(self) -> None:
        for outlet in self._outlets:
            outlet.close()
        if self._status_read >= 0:
            self.agent.loop.unwatch(self._status_read)
            os.close(self._status_read)
            os.close(self._status_write)
        self._close_input()
        super().close()

    def interrupt(self) -> None:
        if self._job and self.pid:
            self._job.interrupted = True
            self._insist(self._job)

    def input(self, channel: int, parts: list[bytes]) -> None:
        try:
            kind = json.loads(parts[0])["msg_type"]
            content = json.loads(parts[3])
            handler = getattr(self, "_on_" + kind, None) if isinstance(kind, str) and isinstance(content, dict) else None
        except (ValueError, KeyError, TypeError, RecursionError):
            log(f"kernel {self.id}: malformed message")
            return
        if handler:
            handler(channel, parts, content)

    # requests

    def _on_execute_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        cell = Cell(channel, parts, content, 0)
        self._enqueue(Job("", lambda status: self._executed(cell, status), cell))

    def _on_kernel_info_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        info = {"status": "ok", "protocol_version": "5.4", "implementation": "wardian-bash", "implementation_version": "1"}
        self._answer(channel, parts, dict(info, language_info=self.language_info, banner="bash " + self.version, help_links=[]))

    def _on_complete_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        code, cursor = content.get("code"), content.get("cursor_pos")
        if not isinstance(code, str) or not isinstance(cursor, int):
            return
        start, word, action = completion_of(code[:cursor])
        result = {"status": "ok", "matches": [], "cursor_start": start, "cursor_end": cursor, "metadata": {}}
        if self._job or not self.pid:
            self._answer(channel, parts, result)
            return
        path = os.path.join(self.directory, "matches")

        def done(status: int) -> None:
            result["matches"] = read_matches(path, word, action, f"/proc/{self.pid}/cwd")
            self._answer(channel, parts, result)

        self._enqueue(Job(f"compgen {action} -- {quoted(word)} >{quoted(path)} 2>/dev/null </dev/null\n", done))

    def _on_is_complete_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        code = content.get("code")
        path = os.path.join(self.directory, "check")
        write_file(path, code if isinstance(code, str) else "")
        read, write = pipe()
        pid = spawn(["bash", "-n", path], dict(self.env, LC_ALL="C"), "/", {0: dev_null(), 1: write, 2: write})
        os.close(write)

        def done(status: int) -> None:
            errors = read_some(read) or b""
            os.close(read)
            unfinished = b"unexpected end of file" in errors or b"unexpected EOF" in errors or b"here-document" in errors
            continued = isinstance(code, str) and (len(code) - len(code.rstrip("\\"))) % 2 == 1
            verdict = "incomplete" if unfinished or continued else "invalid" if status else "complete"
            answer = {"status": verdict}
            if verdict == "incomplete":
                answer["indent"] = ""
            self._answer(channel, parts, answer)

        self.agent.loop.child(pid, done)

    def _on_inspect_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "found": False, "data": {}, "metadata": {}})

    def _on_history_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "history": []})

    def _on_comm_info_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "comms": {}})

    def _on_interrupt_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self.interrupt()
        self._answer(channel, parts, {"status": "ok"})

    def _on_shutdown_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "restart": bool(content.get("restart"))})
        self._jobs.clear()
        pid, self.pid, self._job = self.pid, None, None
        self._close_input()
        if pid:
            self.agent.sessions.end(pid, self.agent.loop, lambda: self.died(0, ""))
        else:
            self.died(0, "")

    # the shell

    def _launch_shell(self) -> None:
        read, self._input = os.pipe()
        os.set_blocking(self._input, False)
        stdout, stderr = (outlet.write_end for outlet in self._outlets)
        fds = {0: read, 1: stdout, 2: dev_null(), self.STATUS_FD: self._status_write, self.ERROR_FD: stderr}
        argv = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
        try:
            self.launch(argv, fds, self._exited, self.env)
        finally:
            os.close(read)
        self._say(self.SETUP)

    def _enqueue(self, job: Job) -> None:
        self._jobs.append(job)
        if not self._job:
            self._next()

    def _next(self) -> None:
        if not self._jobs:
            return
        if not self.pid:
            try:
                self._launch_shell()
            except OSError as error:
                self.died(127, f"bash could not be started again: {error}")
                return
        self._job = job = self._jobs.popleft()
        self._token += 1
        job.token = self._token
        job.started = time.clock_gettime(time.CLOCK_BOOTTIME)
        if job.cell:
            self._begin(job, job.cell)
        self._say(job.lines + self._report(job))

    def _begin(self, job: Job, cell: Cell) -> None:
        silent = cell.content.get("silent") is True
        if not silent and cell.content.get("store_history", True):
            self._count += 1
        cell.count = self._count
        self.state = "busy"
        self._parent = cell.header
        self._publish("status", {"execution_state": "busy"}, cell.header)
        code = cell.content.get("code")
        code = code if isinstance(code, str) else ""
        if not silent:
            self._publish("execute_input", {"code": code, "execution_count": cell.count}, cell.header)
        name = f"cell[{cell.count}]"
        path = os.path.join(self.directory, name)
        write_file(path, code)
        job.lines = f"BASH_ARGV0='{name}'; source {quoted(path)} </dev/null {self.STATUS_FD}>&-\n"

    def _executed(self, cell: Cell, status: int) -> None:
        job = self._job
        interrupted = bool(job and job.interrupted)
        remove_file(os.path.join(self.directory, f"cell[{cell.count}]"))
        reply: dict[str, Any] = {"status": "ok", "execution_count": cell.count, "payload": [], "user_expressions": {}}
        if status:
            error = {"ename": "ExitCode", "evalue": str(status), "traceback": [f"cell[{cell.count}]: exit status {status}"]}
            if interrupted and status == 130:
                error = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": [f"cell[{cell.count}]: interrupted"]}
            self._publish("error", error, cell.header)
            reply = dict(error, status="error", execution_count=cell.count, payload=[], user_expressions={})
        self.state = "idle"
        self.emit(cell.channel, message_parts("execute_reply", reply, cell.header, self.session))
        self._publish("status", {"execution_state": "idle"}, cell.header)
        if status and cell.content.get("stop_on_error", True):
            self._abort()

    def _abort(self) -> None:
        waiting_jobs, self._jobs = self._jobs, collections.deque()
        for job in waiting_jobs:
            if job.cell:
                self._publish("status", {"execution_state": "busy"}, job.cell.header)
                content = {"status": "aborted", "execution_count": self._count}
                self.emit(job.cell.channel, message_parts("execute_reply", content, job.cell.header, self.session))
                self._publish("status", {"execution_state": "idle"}, job.cell.header)
            else:
                self._jobs.append(job)

    def _report(self, job: Job) -> str:
        # without quotes: what an interrupt leaves of the line must not open one
        return f"builtin echo {job.token} $? >&{self.STATUS_FD}\n"

    def _insist(
        self, job: Job, pause: float = 0.01, signals: int = INTERRUPTS, settled: frozenset[int] = frozenset(), patience: int = 3
    ) -> None:
        """SIGINT until the shell has abandoned its job.

        Once is not always enough: the signal may discard the line that reports the status; a command that is just being forked
        misses it; a program that handles it and exits normally makes the shell go on with the cell. No program gets it twice:
        `settled` are those that had it. The shell's own forks do, as they may not be the program yet.
        """
        if self._job is not job or job.ending or not self.pid or not signals:
            return
        foreground = set(self._foreground(job))
        fresh = foreground - settled
        shell = executable_of(self.pid)
        if signals == self.INTERRUPTS and patience and any(executable_of(pid) == shell for pid in fresh):
            # about to become a program, most likely: let it, or it would exit normally and the shell go on
            self.agent.loop.later(0.005, partial(self._insist, job, pause, signals, settled, patience - 1))
            return
        if fresh or not foreground:
            programs = {pid for pid in fresh if executable_of(pid) != shell}
            settled |= programs
            # shells before what they wait for, and the last of a pipeline before what feeds it: the one that sees another
            # end before it has the signal goes on
            for pid in (self.pid, *sorted(fresh - programs), *sorted(programs, reverse=True)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            # a signal that comes amid a line discards its beginning: the blanks are there for that
            self._say(" " * 64 + self._report(job))
            signals -= 1
        self.agent.loop.later(pause, partial(self._insist, job, min(pause * 2, 0.2), signals, settled))

    def _foreground(self, job: Job) -> list[int]:
        """What a job has started and may wait for. Not what ignores SIGINT, as the shell's background processes do.

        Neither the session nor the process group says it: the first has what earlier cells left in the background, the second
        lacks `timeout` and what it runs.
        """
        members = session_members(self.pid or 0, since=job.started)
        return [pid for pid in members if pid != self.pid and not ignores(pid, signal.SIGINT)]

    def _say(self, text: str) -> None:
        try:
            os.write(self._input, text.encode())
        except OSError as error:
            log(f"kernel {self.id}: {error}")

    def _status(self, events: int) -> None:
        data = read_some(self._status_read)
        if not data:
            return
        *lines, self._status_text = (self._status_text + data).split(b"\n")
        for line in lines:
            token, _, value = line.partition(b" ")
            if token == b"version":
                self.version = value.decode("ascii", "replace")
                self.language_info = dict(self.LANGUAGE, version=self.version)
            elif self._job and token == b"%d" % self._job.token:
                self._finish(int(value) if value.isdigit() else 1)

    def _finish(self, status: int) -> None:
        job = self._job
        if not job or job.ending:
            return
        if job.interrupted and self.pid and self._end_foreground(job, status, 0.005):
            return
        job.ending = True
        for outlet in self._outlets:
            outlet.drain()
        job.done(status)
        self._job = None
        self._next()

    def _end_foreground(self, job: Job, status: int, pause: float) -> bool:
        """End what an abandoned job left running: the shell would wait for it before the next. Whether there is any."""
        left = self._foreground(job)
        job.ending = bool(left)
        for pid in left if pause < 0.01 or pause > 0.1 else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if pause < 0.5 else signal.SIGKILL)

        def again() -> None:
            if self._job is job and not (self.pid and self._end_foreground(job, status, pause * 2)):
                job.ending = False
                self._finish(status)

        if left:
            self.agent.loop.later(pause, again)
        return bool(left)

    def _exited(self, code: int) -> None:
        self._status(0)
        if self.state == "dead" or not self.pid:
            return
        self.pid = None
        self._close_input()
        status = code if code >= 0 else 128 - code
        if self.starting:
            self.died(code, "")
            self.failed(Refused("kernel", f"bash ended while starting, with status {status}"))
            return
        for outlet in self._outlets:
            outlet.drain()
        text = f"the shell ended with status {status}; the next cell starts a new one, without the variables of this one\n"
        self._publish("stream", {"name": "stderr", "text": text}, self._parent)
        self._finish(status)

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def _stream(self, name: str) -> Callable[[str], None]:
        def emit(text: str) -> None:
            if name == "stderr" and self._job and self._job.interrupted:
                # the interrupted shell ends the line it takes itself to be on, and at times misses its terminal
                lines = [line for line in text.split("\n") if not line.endswith("tcsetattr: Inappropriate ioctl for device")]
                text = "\n".join(lines) if any(lines) else ""
            if text:
                self._publish("stream", {"name": name, "text": text}, self._parent)

        return emit

    def _publish(self, kind: str, content: Mapping[str, Any], parent: bytes) -> None:
        self.emit(IOPUB, message_parts(kind, content, parent, self.session))

    def _answer(self, channel: int, parts: list[bytes], content: Mapping[str, Any]) -> None:
        kind = json.loads(parts[0])["msg_type"].replace("_request", "_reply")
        self._publish("status", {"execution_state": "busy"}, parts[0])
        self.emit(channel, message_parts(kind, content, parts[0], self.session))
        self._publish("status", {"execution_state": "idle"}, parts[0])


def header_id(header: bytes) -> str:
    """The id in the header of a message, or nothing."""
    try:
        return str(json.loads(header)["msg_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def quoted(text: str) -> str:
    """A text as one word of the shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def completion_of(text: str) -> tuple[int, str, str]:
    """Where the word to complete starts, what to complete, and compgen's options for it."""
    start = len(text)
    while start and not text[start - 1].isspace() and text[start - 1] not in ";|&<>()=\"'`":
        start -= 1
    word = text[start:]
    for sign in ("${", "$"):
        if word.startswith(sign):
            return start + len(sign), word[len(sign) :], "-v"
    before = text[:start].rstrip(" \t")
    first = not before or before[-1] in ";|&(`\n"
    return start, word, "-c" if first and "/" not in word else "-f"


def read_matches(path: str, word: str, action: str, folder: str) -> list[str]:
    """compgen's answers: once each, folders with a slash, blanks escaped."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            matches = sorted(set(file.read().splitlines()))
    except OSError:
        return []
    if action == "-f":
        matches = [match + "/" if os.path.isdir(os.path.join(folder, match)) else match for match in matches]
        return [match.replace(" ", "\\ ") for match in matches]
    return matches[:2000]


def write_file(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)


def remove_file(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_folder(path: str) -> None:
    """A folder and the files in it."""
    try:
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            log(f"{path}: {error}")


class ZmqSocket:
    """Our end of a ZeroMQ connection, a DEALER or a SUB: ZMTP 3.0 without encryption (ZeroMQ RFC 23).

    Written out here because pyzmq would have to be there for the interpreter that this happens to run on. It connects as soon as
    the other side listens at one of `addresses`: the path of a Unix socket, or (host, port).
    """

    GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    MORE, LONG, COMMAND = 1, 2, 4
    RETRY = 0.01

    def __init__(
        self, loop: Watcher, kind: bytes, identity: bytes, addresses: Sequence[Any], received: Callable[[list[bytes]], None]
    ) -> None:
        self._loop, self._kind, self._identity, self._addresses, self._received = loop, kind, identity, addresses, received
        self._socket: socket.socket | None = None
        self._outgoing: collections.deque[bytes | memoryview] = collections.deque()
        self._timer: Cancellable | None = None
        self._buffer = bytearray()
        self._frames: list[bytes] = []
        self._greeted = self._open = self._writing = False
        self._connect()

    def send(self, parts: Sequence[bytes]) -> None:
        """Send a message, now or once there is a connection."""
        for number, part in enumerate(parts, 1 - len(parts)):
            self._outgoing.append(self._head(self.MORE if number else 0, len(part)))
            if part:
                self._outgoing.append(part)
        if self._open and not self._writing:
            self._flush()

    def drain(self) -> None:
        """Take everything that has arrived."""
        while self._read():
            pass

    def close(self) -> None:
        """Let go of it; what was not sent is lost."""
        self._disconnect()
        if self._timer:
            self._timer.cancel()

    def _connect(self) -> None:
        for address in self._addresses:
            connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, socket.SOCK_STREAM)
            connection.settimeout(0.2)
            try:
                connection.connect(address)
            except OSError:
                connection.close()
                continue
            if not isinstance(address, str):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._socket = connection
            self._loop.watch(connection.fileno(), self._ready)
            self._say(self.GREETING)
            return
        self._timer = self._loop.later(self.RETRY, self._connect)

    def _disconnect(self) -> None:
        if self._socket:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
        self._socket = None
        self._greeted = self._open = self._writing = False
        self._buffer.clear()
        self._frames.clear()
        self._outgoing.clear()

    def _lost(self) -> None:
        self._disconnect()
        self._timer = self._loop.later(self.RETRY, self._connect)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> bool:
        """Read once and pass on what is whole; whether there may be more."""
        if not self._socket:
            return False
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._lost()
            return False
        self._buffer += data
        if not self._greeted and not self._greet():
            return bool(self._socket)
        self._cut()
        return True

    def _greet(self) -> bool:
        if len(self._buffer) < 64:
            return False
        if self._buffer[0] != 0xFF or self._buffer[10] < 3 or self._buffer[12:17] != b"NULL\0":
            log(f"{self._addresses[0]} does not speak ZMTP 3 without encryption")
            self._disconnect()
            return False
        del self._buffer[:64]
        self._greeted = True
        body = b"\5READY"
        for name, value in ((b"Socket-Type", self._kind), (b"Identity", self._identity)):
            body += struct.pack(">B", len(name)) + name + struct.pack(">I", len(value)) + value
        self._say(self._head(self.COMMAND, len(body)) + body)
        return True

    def _cut(self) -> None:
        """Pass on the messages in the buffer."""
        buffer, position, length = self._buffer, 0, len(self._buffer)
        try:
            while length - position >= 2:
                flags = buffer[position]
                start, size = position + 2, buffer[position + 1]
                if flags & self.LONG:
                    if length - position < 9:
                        break
                    start, size = position + 9, struct.unpack_from(">Q", buffer, position + 1)[0]
                if length - start < size:
                    break
                frame = bytes(memoryview(buffer)[start : start + size])
                position = start + size
                if flags & self.COMMAND:
                    self._command(frame)
                    continue
                self._frames.append(frame)
                if not flags & self.MORE:
                    frames, self._frames = self._frames, []
                    self._received(frames)
                    if not self._socket:
                        return
        except BaseException:
            # what is behind a message that could not be handled is there already: nothing would bring us back to it
            self._loop.later(0, self._cut)
            raise
        finally:
            del buffer[:position]

    def _command(self, frame: bytes) -> None:
        name, body = frame[1 : 1 + frame[0]], frame[1 + frame[0] :]
        if name == b"READY":
            self._open = True
            if self._kind == b"SUB":
                self._say(self._head(0, 1) + b"\1")  # everything
            self._flush()
        elif name == b"ERROR":
            log("{}: {}".format(self._addresses[0], body.decode("utf-8", "replace")))

    def _say(self, data: bytes) -> None:
        """Something small of the protocol's own, when nothing else is under way."""
        try:
            if self._socket:
                self._socket.send(data)
        except OSError:
            self._lost()

    def _flush(self) -> None:
        while self._socket and self._outgoing:
            try:
                sent = self._socket.sendmsg([self._outgoing[index] for index in range(min(len(self._outgoing), 64))])
            except (BlockingIOError, InterruptedError):
                self._watch(writing=True)
                return
            except OSError:
                self._lost()
                return
            while sent:
                chunk = self._outgoing[0]
                if len(chunk) > sent:
                    self._outgoing[0] = memoryview(chunk)[sent:]
                    break
                sent -= len(chunk)
                self._outgoing.popleft()
        self._watch(writing=False)

    def _watch(self, writing: bool) -> None:
        if self._socket and writing != self._writing:
            self._writing = writing
            self._loop.watch(self._socket.fileno(), self._ready, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def _head(self, flags: int, size: int) -> bytes:
        return struct.pack(">BB", flags, size) if size < 256 else struct.pack(">BQ", flags | self.LONG, size)


class JupyterKernel(Kernel):
    """A Jupyter kernel, and the relay between it and us: over Unix sockets, or TCP within the node where it knows nothing else."""

    DELIMITER = b"<IDS|MSG>"
    TRANSPORTS: Sequence[str] = ("ipc",)
    UNSUBSCRIBED = 20
    """How often it may answer a probe on its shell channel, and stay silent on iopub, before that is taken for its way."""

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str) -> None:
        super().__init__(agent, name, env, cwd)
        for variable in ("JPY_PARENT_PID", "JPY_INTERRUPT_EVENT", "JPY_SESSION_NAME"):
            self.env.pop(variable, None)
        self.title = self.language
        self.interrupts_by_message = False
        self._sockets: list[ZmqSocket] = []
        self._transports = list(self.TRANSPORTS)
        self._key = b""
        self._hmac: Any = None
        self._output = -1
        self._last = b""
        self._probe = b""
        self._answers = 0
        self._subscribed = False
        self._timers: list[Timer] = []

    def argv(self, connection: str) -> Sequence[str]:
        """The command that runs it. connection: the path of its connection file. Raises Refused."""
        raise NotImplementedError

    def start(self) -> None:
        import hmac

        transport = self._transports.pop(0)
        os.makedirs(self.directory, exist_ok=True)
        address = os.path.join(self.directory, "k")
        if len(address) + 2 > 107:
            raise Refused("kernel", f"the path {address} is too long for a Unix socket", "Use a shorter kernel id.")
        key = os.urandom(32).hex()
        self._key = key.encode()
        self._hmac = hmac.new(self._key, digestmod="sha256")
        numbers = range(1, 6) if transport == "ipc" else free_ports(5)
        ports = {f"{channel}_port": number for channel, number in zip(("shell", "iopub", "stdin", "control", "hb"), numbers)}  # noqa: B905
        host = address if transport == "ipc" else "127.0.0.1"
        connection = dict(ports, transport=transport, ip=host, key=key, signature_scheme="hmac-sha256", kernel_name="")
        path = os.path.join(self.directory, "connection.json")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, json.dumps(connection).encode())
        os.close(fd)
        for port in range(1, 6):
            remove_file(f"{address}-{port}")
            remove_file(f"{address}:{port}")
        self.state, self.death = "starting", None
        self._answers, self._subscribed = 0, False
        self._last = b""
        argv = self.argv(path)
        self._output, write = pipe()
        try:
            self.launch(argv, {0: dev_null(), 1: write, 2: write}, self._exited, self.env)
        except OSError:
            os.close(self._output)
            self._output = -1
            raise
        finally:
            os.close(write)
        self.agent.loop.watch(self._output, self._said)
        self._connect(host, ports)
        self._send_probe()
        patience = START_TIMEOUT / 3 if self._transports else START_TIMEOUT
        self._timers = [self.agent.loop.later(patience, partial(self._too_slow, patience))]

    def input(self, channel: int, parts: list[bytes]) -> None:
        if channel != IOPUB and self._sockets and self.pid:
            self._sockets[channel].send([self.DELIMITER, self._sign(parts), *parts])

    def interrupt(self) -> None:
        if self.interrupts_by_message:
            self.input(CONTROL, message_parts("interrupt_request", {}, b"{}", "agent"))
        else:
            super().interrupt()

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _connect(self, host: str, ports: Mapping[str, int]) -> None:
        identity = os.urandom(16)
        for channel, port in enumerate((ports["shell_port"], ports["iopub_port"], ports["stdin_port"], ports["control_port"])):
            # the colon is what kernels write that know only TCP's way to put an address together
            addresses = [f"{host}-{port}", f"{host}:{port}"] if host[0] == "/" else [(host, port)]
            kind, own = (b"SUB", b"") if channel == IOPUB else (b"DEALER", identity)
            self._sockets.append(ZmqSocket(self.agent.loop, kind, own, addresses, partial(self._received, channel)))

    def _disconnect(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for zsocket in self._sockets:
            zsocket.close()
        self._sockets = []
        if self._output >= 0:
            self.agent.loop.unwatch(self._output)
            os.close(self._output)
            self._output = -1

    def _received(self, channel: int, frames: list[bytes]) -> None:
        import hmac

        try:
            start = frames.index(self.DELIMITER) + 1
        except ValueError:
            return
        parts = frames[start + 1 :]
        if len(parts) < 4 or not hmac.compare_digest(frames[start], self._sign(parts)):
            log(f"kernel {self.id}: a message with a wrong signature was ignored")
            return
        if self.state == "starting":
            self._probed(channel, parts)
            return
        if channel == IOPUB:
            if b'"status"' in parts[0]:
                self.state = "busy" if b'"busy"' in parts[3] else "idle"
            elif b'"iopub_welcome"' in parts[0]:
                return
        self.emit(channel, parts)

    def _sign(self, parts: Sequence[bytes]) -> bytes:
        signature = self._hmac.copy()
        for part in parts[:4]:
            signature.update(part)
        signed: bytes = signature.hexdigest().encode()
        return signed

    def _send_probe(self) -> None:
        parts = message_parts("kernel_info_request", {}, b"{}", "agent")
        self._probe = json.loads(parts[0])["msg_id"].encode()
        self.input(SHELL, parts)

    def _probed(self, channel: int, parts: list[bytes]) -> None:
        if channel == SHELL:
            self._answers += 1
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                self.language_info = json.loads(parts[3]).get("language_info") or {}
            if not self._subscribed:
                # a kernel without the welcome message publishes into the void until our subscription has arrived
                self._timers.append(self.agent.loop.later(0.05, self._probe_again))
        elif channel == IOPUB and b'"idle"' in parts[3] and self._probe in parts[1]:
            self._subscribed = True
        if self._answers and (self._subscribed or self._answers > self.UNSUBSCRIBED):
            for timer in self._timers:
                timer.cancel()
            self.ready()

    def _probe_again(self) -> None:
        if self.state == "starting" and self.pid and not self._subscribed:
            self._send_probe()

    def _too_slow(self, patience: float) -> None:
        if self.state == "starting" and self.pid:
            if not self._transports:
                self.failed(Refused("kernel", f"{self.title} did not answer within {patience:g} s{self._tail()}"))
            signal_session(self.pid, signal.SIGKILL)

    def _said(self, events: int) -> None:
        data = read_some(self._output)
        if data:
            self._last = (self._last + data)[-8 * KIB :]
            log("kernel {}: {}".format(self.id, data.decode("utf-8", "replace")))
        elif data == b"":
            self.agent.loop.unwatch(self._output)

    def _exited(self, code: int) -> None:
        while self._output >= 0:
            data = read_some(self._output)
            if not data:
                break
            self._last = (self._last + data)[-8 * KIB :]
        for channel in (SHELL, CONTROL, IOPUB):
            if self._sockets:
                self._sockets[channel].drain()
        self._disconnect()
        if self.state == "starting" and self.starting and self._transports:
            if self.pid:
                signal_session(self.pid, signal.SIGKILL)
            self._start_otherwise()
            return
        self.died(code, self._last.decode("utf-8", "replace"))
        self._failed_start(code)

    def _start_otherwise(self) -> None:
        """Again, by the next transport."""
        try:
            self.start()
        except (OSError, Refused) as error:
            self.died(127, str(error))
            self.failed(error if isinstance(error, Refused) else Refused("kernel", f"{self.title} could not be started: {error}"))

    def _failed_start(self, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        self.failed(Refused("kernel", f"{self.title} ended while starting ({how}){self._tail()}"))

    def _tail(self) -> str:
        lines = self._last.decode("utf-8", "replace").strip().splitlines()[-10:]
        return ":\n" + "\n".join(lines) if lines else ""


class PythonKernel(JupyterKernel):
    """An ipykernel in the node's own interpreter, with what it lacks for that from a folder beside it.

    The interpreter is `WARDIAN_PYTHON` of the node's environment, else the one that runs this. `packages` names the folder.
    """

    language = "python"
    LAUNCHER = """
import sys
packages, needs = sys.argv[1:3]
del sys.argv[1:3]
sys.path[:] = [packages] * bool(packages) + [path for path in sys.path if path]
try:
    if sys.version_info < (3, 8):
        raise ImportError("it is older than Python 3.8")
    import ipykernel.kernelapp
    if ipykernel.version_info[0] < 6:
        raise ImportError("ipykernel is older than 6")
except ImportError as error:
    import json, os, platform, sysconfig
    report = {"error": str(error), "version": list(sys.version_info[:2]), "python": sys.executable, "machine": platform.machine()}
    report.update(implementation=platform.python_implementation(), soabi=sysconfig.get_config_var("SOABI"))
    if sys.version_info >= (3, 8):
        from importlib.metadata import distributions
        for distribution in distributions():
            if distribution.metadata["Name"]:
                report.setdefault("installed", {}).setdefault(distribution.metadata["Name"], distribution.version)
    try:
        report["libc"] = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        report["libc"] = None
    with open(needs, "w") as file:
        json.dump(report, file)
    sys.exit(1)
del packages, needs
import faulthandler, os
faulthandler.enable(os.dup(2))
from ipykernel.kernelapp import IPKernelApp
class Application(IPKernelApp):
    def init_iopub(self, context):
        context.sndhwm = 0
        super().init_iopub(context)
    def log_connection_info(self):
        pass
# history goes to its file a hundred cells at a time, and whenever it is searched: at each cell that takes a fifth of the cell's time
Application.launch_instance(["--HistoryManager.db_cache_size=100"] + sys.argv[1:])
"""

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str, packages: str = "") -> None:
        super().__init__(agent, name, env, cwd)
        self.title = "ipykernel"
        self.python = self.env.get("WARDIAN_PYTHON") or sys.executable
        self._packages = os.path.join(packages_folder(agent.directory), packages) if packages else ""
        self._needs = os.path.join(self.directory, "needs.json")

    def argv(self, connection: str) -> Sequence[str]:
        python = find_program(self.python, self.env)
        if python is None:
            remedy = "Correct `python:` of the node in the experiment file, or install that interpreter there."
            raise Refused("missing", f"the node has no interpreter {self.python}", remedy)
        activate(self.env, python)
        remove_file(self._needs)
        return [python, "-c", self.LAUNCHER, self._packages, self._needs, "-f", connection]

    def _failed_start(self, code: int) -> None:
        """Tell what the interpreter lacks, if that is why it ended: whoever asked for it brings that along."""
        try:
            with open(self._needs, encoding="utf-8") as file:
                needs = json.load(file)
        except (OSError, ValueError):
            super()._failed_start(code)
            return
        folder = packages_folder(self.agent.directory)
        needs.update(folder=folder, there=os.listdir(folder), packages=os.path.basename(self._packages))
        for request in self.starting:
            request.succeed({"needs": needs})
        self.starting.clear()


class SpecKernel(JupyterKernel):
    """A kernel that a kernelspec of the node describes."""

    TRANSPORTS = ("ipc", "tcp")

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str, language: str) -> None:
        super().__init__(agent, name, env, cwd)
        specs = kernelspecs(self.env)
        folder, spec = specs[find_spec(language, specs)]
        self.language = language
        self.title = str(spec.get("display_name") or language)
        self.interrupts_by_message = spec.get("interrupt_mode") == "message"
        self._folder, self._argv = folder, [str(word) for word in spec["argv"]]
        variables = spec.get("env")
        for variable, value in variables.items() if isinstance(variables, dict) else ():
            self.env[variable] = expand(str(value), self.env)

    def argv(self, connection: str) -> Sequence[str]:
        values = {"{connection_file}": connection, "{resource_dir}": self._folder}
        argv = []
        for word in self._argv:
            for name, value in values.items():
                word = word.replace(name, value)
            argv.append(word)
        # PREFIX/share/jupyter/kernels/NAME: a bare `python` there means the one that the kernel is installed for
        own = os.path.join(self._folder, *[os.pardir] * 4, "bin", argv[0])
        if argv[0] in ("python", "python3") and os.access(own, os.X_OK):
            argv[0] = os.path.normpath(own)
        return argv


def kernelspecs(env: Mapping[str, str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The kernels that are installed here for Jupyter: {name: (folder, what its kernel.json says)}."""
    own = env.get("JUPYTER_DATA_DIR") or os.path.join(env.get("XDG_DATA_HOME") or os.path.join(home(), ".local", "share"), "jupyter")
    prefixes = [os.path.join(sys.prefix, "share", "jupyter")]
    python = find_program(env.get("WARDIAN_PYTHON") or "", env)
    if python:
        prefixes.insert(0, os.path.join(os.path.dirname(os.path.dirname(python)), "share", "jupyter"))
    folders = [*filter(None, env.get("JUPYTER_PATH", "").split(os.pathsep)), own, *prefixes]
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for folder in [*folders, "/usr/local/share/jupyter", "/usr/share/jupyter"]:
        path = os.path.join(folder, "kernels")
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            try:
                with open(os.path.join(path, name, "kernel.json"), encoding="utf-8") as file:
                    spec = json.load(file)
            except (OSError, ValueError):
                continue
            # a router within a node would find no environment
            if isinstance(spec, dict) and isinstance(spec.get("argv"), list) and spec["argv"] and name != "wardian":
                found.setdefault(name.lower(), (os.path.join(path, name), spec))
    return found


def find_spec(language: str, specs: Mapping[str, tuple[str, dict[str, Any]]]) -> str:
    """The name of the kernel that is called so, or is the only one for a language that is called so. Raises Refused."""
    wanted = language.lower()
    if wanted in specs:
        return wanted
    fitting = [name for name, (_, spec) in specs.items() if str(spec.get("language")).lower() == wanted]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(["python", "bash", *(f"{name} ({spec.get('display_name', name)})" for name, (_, spec) in sorted(specs.items()))])
    if fitting:
        raise Refused("argument", f"there are several kernels for {language!r}: {', '.join(sorted(fitting))}", "Name one of them.")
    raise Refused("argument", f"there is no kernel for {language!r}; there are {there}", "Install its kernel on the node.")


def expand(text: str, env: Mapping[str, str]) -> str:
    """A text with ${NAME} replaced by what the environment says; names that it lacks stay."""
    import re

    return re.sub(r"\$\{(\w+)\}", lambda found: env.get(found[1], found[0]), text)


def find_program(name: str, env: Mapping[str, str]) -> str | None:
    """The path of a program, found as a shell would."""
    import shutil

    return shutil.which(name, path=env.get("PATH", os.defpath)) if name else None


def activate(env: dict[str, str], python: str) -> None:
    """What activating an interpreter's environment means: its programs come first."""
    folder = os.path.dirname(os.path.abspath(python))
    if folder not in env.get("PATH", os.defpath).split(os.pathsep):
        env["PATH"] = folder + os.pathsep + env.get("PATH", os.defpath)
    prefix = os.path.dirname(folder)
    if os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        env["VIRTUAL_ENV"] = prefix


def packages_folder(fallback: str) -> str:
    """Where packages are kept that kernels need beside their interpreters; made here."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.join(home(), ".cache")
    base = "/var/cache" if os.getuid() == 0 else own
    for folder in (os.path.join(base, "wardian", "packages"), os.path.join(fallback, "packages")):
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o755, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise Refused("system", "the node has no folder that can be written to", "Give it some room on disk.")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


# ── services ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Service:
    """One long-running command: started, watched, restarted; its output in a log of bounded size."""

    FIRST_PAUSE, LONGEST_PAUSE, HEALTHY = 0.2, 10.0, 10.0

    def __init__(self, agent: Agent, name: str, spec: dict[str, Any]) -> None:
        self.agent, self.name, self.spec = agent, name, spec
        self.state = "starting"
        self.pid: int | None = None
        self.restarts = 0
        self.exit_code: int | None = None
        self.since = time.time()
        self.path = os.path.join(agent.directory, "services", name + ".log")
        self._pause = self.FIRST_PAUSE
        self._started = 0.0
        self._waiting: list[tuple[Request, Timer]] = []
        self._timer: Timer | None = None
        self._check_pid: int | None = None
        self._line = b""
        self._pattern: Any = None
        self._stopping: list[Callable[[], None]] | None = None
        ready = spec["ready"] or {}
        if "log" in ready:
            import re

            self._pattern = re.compile(ready["log"].encode())
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._output, self._write_end = pipe()
        agent.loop.watch(self._output, self._said)

    def start(self) -> None:
        """Start the command, now."""
        self._started = time.monotonic()
        env = dict(self.agent.environment, **self.spec["env"], WARDIAN_SERVICE=self.name)
        try:
            fds = {0: dev_null(), 1: self._write_end, 2: self._write_end}
            self.pid = spawn(self.spec["command"], env, self.spec["cwd"] or home(), fds)
        except OSError as error:
            # a program or folder that is not there will not come by trying again
            self._write(b"cannot be started: %s\n" % str(error).encode())
            self.exit_code = 127
            self._become("failed")
            return
        self.agent.sessions.add(self.pid)
        self.agent.loop.child(self.pid, self._exited)
        ready = self.spec["ready"]
        self._become("starting" if ready else "ready")
        if ready and "log" not in ready:
            self._check(0.005)

    def wait(self, request: Request, timeout: float) -> None:
        """Answer once it is ready, has failed, or the time is up."""
        if self.state in ("starting", "restarting"):
            self._waiting.append((request, self.agent.loop.later(timeout, lambda: self._give_up(request, timeout))))
        else:
            self._answer(request)

    def stop(self, done: Callable[[], None]) -> None:
        """End it and everything it started, then call `done`."""
        if self._stopping is not None:
            self._stopping.append(done)
            return
        self._stopping = [done]
        self._cancel_check()
        if self.pid is None:
            self._stopped()
        else:
            self.agent.sessions.end(self.pid, self.agent.loop, self._stopped)

    def close(self) -> None:
        """Let go of its log and its pipe."""
        self.agent.loop.unwatch(self._output)
        for fd in (self._output, self._write_end, self._log):
            os.close(fd)
        self._output = -1

    def last_lines(self, count: int) -> str:
        """The end of its log."""
        self._collect()
        text = b""
        for path in (self.path + ".1", self.path):
            try:
                with open(path, "rb") as file:
                    file.seek(0, os.SEEK_END)
                    file.seek(max(0, file.tell() - MIB))
                    text += file.read()
            except OSError:
                continue
        lines = text.decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-count:]) if count > 0 else ""

    def _exited(self, code: int) -> None:
        session, self.pid = self.pid, None
        self._cancel_check()
        self._collect()
        self.exit_code = code if code >= 0 else 128 - code
        if self._stopping is not None:
            return
        if session:
            signal_session(session, signal.SIGKILL)
            self.agent.sessions.forget(session)
        policy = self.spec["restart"]
        if policy == "always" or (policy == "on-failure" and code):
            if time.monotonic() - self._started >= self.HEALTHY:
                self._pause = self.FIRST_PAUSE
            self._become("restarting")
            self._timer = self.agent.loop.later(self._pause, self._restart)
            self._pause = min(self._pause * 2, self.LONGEST_PAUSE)
        else:
            self._become("failed" if code else "stopped")

    def _restart(self) -> None:
        self.restarts += 1
        self.start()

    def _stopped(self) -> None:
        self.pid = None
        done, self._stopping = self._stopping or [], None
        self._become("stopped")
        for callback in done:
            callback()

    def _check(self, pause: float) -> None:
        ready = self.spec["ready"]
        if "port" in ready:
            if listening(ready["port"]):
                self._become("ready")
            else:
                self._timer = self.agent.loop.later(pause, lambda: self._check(min(pause * 1.5, 0.1)))
            return
        fds = {0: dev_null(), 1: self._write_end, 2: self._write_end}
        try:
            env = dict(self.agent.environment, **self.spec["env"])
            pid = self._check_pid = spawn(ready["command"], env, self.spec["cwd"] or home(), fds)
        except OSError as error:
            self._write(b"the readiness command cannot be started: %s\n" % str(error).encode())
            self._timer = self.agent.loop.later(1.0, lambda: self._check(1.0))
            return

        def checked(code: int) -> None:
            if self._check_pid != pid:
                return
            self._check_pid = None
            if code == 0:
                self._become("ready")
            else:
                self._timer = self.agent.loop.later(pause, lambda: self._check(min(pause * 2, 0.5)))

        self.agent.loop.child(pid, checked)

    def _cancel_check(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._check_pid:
            signal_session(self._check_pid, signal.SIGKILL)
            self._check_pid = None

    def _said(self, events: int) -> None:
        data = read_some(self._output, 64 * KIB)
        if data:
            self._write(data)
            if self._pattern and self.state == "starting":
                *lines, rest = (self._line + data).split(b"\n")
                self._line = rest[-64 * KIB :]
                if any(self._pattern.search(line) for line in [*lines, rest]):
                    self._become("ready")

    def _collect(self) -> None:
        left = waiting(self._output) if self._output >= 0 else 0
        if left:
            for _ in range(0, left, 64 * KIB):
                self._said(0)

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._log, data)
            if os.fstat(self._log).st_size > LOG_LIMIT:
                os.replace(self.path, self.path + ".1")
                os.close(self._log)
                self._log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log(f"service {self.name}: {error}")

    def _become(self, state: str) -> None:
        if state != self.state:
            self.since = time.time()
        self.state = state
        self._line = b""
        self.agent.broadcast(dict(self.describe(), event="service.state", service=self.name))
        if state not in ("starting", "restarting"):
            waiting_requests, self._waiting = self._waiting, []
            for request, timer in waiting_requests:
                timer.cancel()
                self._answer(request)

    def describe(self) -> dict[str, Any]:
        """What `service.list` says of it."""
        return {"state": self.state, "pid": self.pid, "restarts": self.restarts, "exit_code": self.exit_code, "since": self.since}

    def _answer(self, request: Request) -> None:
        if self.state == "ready":
            request.succeed({"state": "ready"})
        else:
            how = "" if self.exit_code is None else f" with exit code {self.exit_code}"
            request.refuse(Refused("service", f"service {self.name} {self.state}{how}{self._log_tail()}"))

    def _give_up(self, request: Request, timeout: float) -> None:
        self._waiting = [item for item in self._waiting if item[0] is not request]
        what = f"is not ready after {timeout:g} s ({self.state})"
        if self.restarts:
            what += f", and was restarted {self.restarts} times, the last exit code being {self.exit_code}"
        request.refuse(Refused("timeout", f"service {self.name} {what}{self._log_tail()}"))

    def _log_tail(self) -> str:
        text = self.last_lines(20)
        return "; the end of its log:\n" + text if text else "; its log is empty"


def listening(port: int) -> bool:
    """Whether a TCP port accepts connections here.

    Read from the kernel's table, not by connecting: a probe would be a client to servers that serve one, and noise in their logs.
    """
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as file:
                for line in file:
                    fields = line.split()
                    if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                        return True
        except OSError:
            continue
    return False


def home() -> str:
    """The user's home, or / where there is none."""
    path = os.environ.get("HOME") or "/"
    return path if os.path.isdir(path) else "/"


# ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Request:
    """One request of a client, to be answered once."""

    def __init__(self, client: Client, value: dict[str, Any]) -> None:
        self.client, self.value = client, value
        self.id, self.op = value.get("id"), value.get("op")
        if not isinstance(self.id, int) or not isinstance(self.op, str):
            raise BadFrame("a request needs a number `id` and a text `op`")

    def succeed(self, value: Mapping[str, Any]) -> None:
        """The answer."""
        self.client.send(pack_json(REPLY, {"id": self.id, "ok": value}))

    def refuse(self, error: Refused) -> None:
        """Why there is none."""
        value = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
        self.client.send(pack_json(REPLY, {"id": self.id, "error": value}))

    def text(self, name: str, default: str | None = None) -> str:
        """An argument that is a text without NUL."""
        value = self.value.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or "\0" in value:
            raise Refused("argument", f"`{name}` has to be a text")
        return value

    def name(self, name: str) -> str:
        """An argument that names a kernel or a service, and becomes part of a path."""
        value = self.text(name)
        if not 1 <= len(value) <= 64 or value[0] == "." or not all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
            raise Refused("argument", f"`{name}` has to be 1 to 64 letters, digits, dots, dashes or underscores, not {value!r}")
        return value

    def folder(self, name: str) -> str:
        """An argument that is a folder; the user's home when it is not given."""
        value = self.text(name, "") or home()
        if not os.path.isdir(value):
            raise Refused("argument", f"there is no folder {value}")
        return value

    def number(self, name: str, default: float) -> float:
        """An argument that is a number, not negative."""
        value = self.value.get(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1e9:
            raise Refused("argument", f"`{name}` has to be a number that is not negative")
        return value

    def variables(self, name: str) -> dict[str, str]:
        """An argument that is a mapping of environment variables."""
        value = self.value.get(name) or {}
        if not isinstance(value, dict) or not all(isinstance(item, str) and "\0" not in item for pair in value.items() for item in pair):
            raise Refused("argument", f"`{name}` has to map names to texts")
        if any(not key or "=" in key for key in value):
            raise Refused("argument", f"`{name}` holds a name that no variable can have")
        return value

    def command(self, name: str, value: object) -> list[str]:
        """An argument that is a command."""
        if not isinstance(value, list) or not value or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise Refused("argument", f"`{name}` has to be a list of texts")
        return value


class Client:
    """One connection. Its two descriptors are the standard input and output of the process that reached us.

    keeper: the connection of that process where it stays to keep the streams alive.
    """

    def __init__(self, agent: Agent, keeper: socket.socket | None, reading: int, writing: int) -> None:
        self.agent, self.keeper, self.reading, self.writing = agent, keeper, reading, writing
        self.id: str | None = None
        self.kernels: dict[str, Kernel] = {}
        self.open = True
        self._decoder = Decoder()
        self._outgoing: collections.deque[bytes | memoryview] = collections.deque()
        self._outgoing_bytes = 0
        self._blocked = False
        self._owed: set[str] = set()
        for fd in (reading, writing):
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)
        agent.loop.watch(reading, self._readable)
        if keeper:
            agent.loop.watch(keeper.fileno(), lambda events: self.close())

    def send(self, frame: bytes) -> None:
        """Queue a frame that is not part of a store."""
        if self.open:
            self._outgoing.append(frame)
            self._outgoing_bytes += len(frame)
            self.agent.dirty.add(self)

    def owe(self, kernel: Kernel) -> None:
        """Tell of the kernel's death once everything that it said was sent."""
        self._owed.add(kernel.id)
        self.agent.dirty.add(self)

    def pump(self) -> None:
        """Send what can be sent now; the rest stays in the stores."""
        if not self.open:
            return
        while True:
            self._fill()
            if not self._outgoing or self._blocked or not self._flush():
                break
        if self._outgoing_bytes > 4 * OUTGOING_LIMIT:
            self.agent.loop.unwatch(self.reading)

    def detach(self, kernel: Kernel) -> None:
        """Another client has taken the kernel, or it is gone."""
        self.kernels.pop(kernel.id, None)
        self._owed.discard(kernel.id)

    def close(self, reason: str | None = None) -> None:
        """End the connection; its kernels stay."""
        if not self.open:
            return
        if reason is not None:
            self.send(pack_json(ERROR, {"message": reason}))
            self._flush()
        self.open = False
        for kernel in self.kernels.values():
            kernel.client = None
        self.agent.clients.discard(self)
        self.agent.dirty.discard(self)
        if self.keeper:
            self.agent.loop.unwatch(self.keeper.fileno())
            self.keeper.close()
        for fd in (self.reading, self.writing):
            self.agent.loop.unwatch(fd)
            os.close(fd)

    def _fill(self) -> None:
        kernels = list(self.kernels.values())
        while kernels and self._outgoing_bytes < OUTGOING_LIMIT:
            for kernel in list(kernels):
                frame = kernel.store.take()
                if frame is None:
                    kernels.remove(kernel)
                    if kernel.id in self._owed and kernel.death and kernel.store.exhausted:
                        self._owed.discard(kernel.id)
                        self.send(pack_json(EVENT, kernel.death))
                else:
                    self._outgoing.append(frame)
                    self._outgoing_bytes += len(frame)

    def _flush(self) -> bool:
        """Write once; whether to go on."""
        chunks = [self._outgoing[index] for index in range(min(len(self._outgoing), 64))]
        try:
            written = os.writev(self.writing, chunks)
        except (BlockingIOError, InterruptedError):
            self._blocked = True
            self.agent.loop.watch(self.writing, self._writable, select.EPOLLOUT)
            return False
        except OSError:
            self.close()
            return False
        self._outgoing_bytes -= written
        while written:
            chunk = self._outgoing[0]
            if len(chunk) > written:
                self._outgoing[0] = memoryview(chunk)[written:]
                break
            written -= len(chunk)
            self._outgoing.popleft()
        return True

    def _writable(self, events: int) -> None:
        self.agent.loop.unwatch(self.writing)
        self._blocked = False
        self.agent.dirty.add(self)
        self.agent.loop.watch(self.reading, self._readable)

    def _readable(self, events: int) -> None:
        data = read_some(self.reading)
        if data is None:
            return
        if data:
            self._take(data)
        else:
            self.close()

    def _take(self, data: bytes) -> None:
        if not self.open:
            return
        try:
            for kind, payload in self._decoder.feed(data):
                self._handle(kind, payload)
                if not self.open:
                    return
        except BadFrame as error:
            self.close(str(error))
        except BaseException:
            # what is behind a frame that could not be handled is there already: nothing would bring us back to it
            self.agent.loop.soon(lambda: self._take(b""))
            raise

    def _handle(self, kind: int, payload: bytes) -> None:
        if self.id is None:
            self._hello(kind, payload)
        elif kind == INPUT:
            self._input(*unpack_message(payload))
        elif kind == ACK:
            self._acknowledge(payload)
        elif kind == REQUEST:
            self.agent.handle(Request(self, unpack_json(payload)))
        elif kind == ERROR:
            log("client {}: {}".format(self.id, payload[:1000].decode("utf-8", "replace")))
            self.close()
        else:
            raise BadFrame(f"a frame of type {kind} is not for the agent")

    def _hello(self, kind: int, payload: bytes) -> None:
        if kind != HELLO:
            raise BadFrame("the first frame has to be HELLO")
        value = unpack_json(payload)
        theirs = value.get("protocol")
        if theirs != PROTOCOL:
            raise BadFrame(f"this agent speaks protocol {PROTOCOL}, not {theirs!r}")
        name = value.get("client")
        if not isinstance(name, str) or not 1 <= len(name) <= 128:
            raise BadFrame("HELLO needs a client id of 1 to 128 characters")
        self.id = name
        self.send(pack_json(HELLO, dict(self.agent.hello, inputs=self.agent.inputs.get(name, 0))))

    def _input(self, sequence: int, channel: int, name: str, parts: list[bytes]) -> None:
        last = self.agent.inputs.get(self.id or "", 0)
        if sequence <= last:
            return
        if sequence != last + 1:
            raise BadFrame(f"input {sequence} follows input {last}")
        self.agent.count_input(self.id or "", sequence)
        kernel = self.agent.kernels.get(name)
        if kernel is None:
            lost = {"event": "kernel.died", "kernel": name, "exit_code": None, "signal": None, "last": "there is no such kernel"}
            self.send(pack_json(EVENT, lost))
        elif kernel.death:
            self.send(pack_json(EVENT, kernel.death))
        else:
            if channel == SHELL and b'"execute_request"' in parts[0]:
                kernel.executing[header_id(parts[0])] = None
            kernel.input(channel, parts)

    def _acknowledge(self, payload: bytes) -> None:
        if len(payload) < 9 or len(payload) != 9 + payload[8]:
            raise BadFrame("malformed acknowledgement")
        kernel = self.kernels.get(payload[9:].decode("ascii", "replace"))
        if kernel:
            kernel.store.acknowledge(struct.unpack_from(">Q", payload)[0])
            self.agent.dirty.add(self)


# ── the agent ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Agent:
    """Kernels, services and clients of one node, and the requests on them."""

    def __init__(self, directory: str, listener: socket.socket, version: str) -> None:
        self.directory = directory
        self.loop = Loop()
        self.loop.before_wait = self._pump
        self.kernels: dict[str, Kernel] = {}
        self.services: dict[str, Service] = {}
        self.clients: set[Client] = set()
        self.dirty: set[Client] = set()
        self.inputs: collections.OrderedDict[str, int] = collections.OrderedDict()
        self.hello = {"protocol": PROTOCOL, "version": version, "pid": os.getpid(), "python": sys.executable, "agent": os.urandom(8).hex()}
        self.environment = dict(os.environ, WARDIAN_AGENT=directory)
        self.spool_limit = int(os.environ.get("WARDIAN_SPOOL_LIMIT", SPOOL_LIMIT))
        spool = os.environ.get("WARDIAN_SPOOL_DIR", "/var/tmp")  # noqa: S108
        self.spool_directory = spool if os.access(spool, os.W_OK) else directory
        self.sessions = Sessions(os.path.join(directory, "sessions"))
        self.sessions.clean()
        for name in os.listdir(self._folder("kernels")):
            remove_folder(os.path.join(directory, "kernels", name))
        self.stem: Stem | None = None
        self._listener = listener
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), self._accept)

    def run(self) -> None:
        """Until `agent.stop`."""
        self.loop.run()

    def handle(self, request: Request) -> None:
        """Do what a request asks."""
        operation = self.OPERATIONS.get(request.op)
        try:
            if operation is None:
                raise Refused("argument", f"there is no operation {request.op!r}")
            operation(self, request)
        except Refused as error:
            request.refuse(error)
        except OSError as error:
            request.refuse(Refused("system", str(error)))
        except BaseException as error:
            request.refuse(Refused("internal", f"the agent failed: {error!r}", "its log is agent.log in its folder in /run"))
            raise

    def broadcast(self, event: Mapping[str, Any], but: Sequence[Client | None] = ()) -> None:
        """Tell every client but these."""
        frame = pack_json(EVENT, event)
        for client in self.clients:
            if client.id is not None and client not in but:
                client.send(frame)

    def count_input(self, client: str, sequence: int) -> None:
        """Remember how far a client's inputs have come, so that one that is sent again is not done again."""
        self.inputs[client] = sequence
        self.inputs.move_to_end(client)
        if len(self.inputs) > 1024:
            self.inputs.popitem(last=False)

    # requests on kernels

    def _kernel_start(self, request: Request) -> None:
        name, language = request.name("kernel"), request.text("language", "python")
        kernel = self.kernels.get(name)
        if kernel and kernel.state != "dead":
            if kernel.language != language:
                raise Refused("kernel", f"kernel {name} runs {kernel.language}, not {language}")
            if kernel.state == "starting":
                kernel.starting.append(request)
            else:
                request.succeed(kernel.described(new=False))
            return
        if language == "bash" and find_program("bash", self.environment) is None:
            request.succeed({"needs": {"program": "bash"}})
            return
        new = self._new_kernel(request, name, language)
        if kernel:
            # what the dead one said may not have been fetched yet
            new.store.close()
            new.archive.close()
            new.store, new.client, new.sessions = kernel.store, kernel.client, kernel.sessions
            new.archive, kernel.archive = kernel.archive, new.archive
            kernel.store = MessageStore(name, self.spool_directory)
            kernel.close()
        new.starting.append(request)
        try:
            new.start()
        except (OSError, Refused) as error:
            new.starting.clear()
            new.died(127, str(error))
            new.close()
            self.kernels.pop(name, None)
            if new.client:
                new.client.detach(new)
            raise error if isinstance(error, Refused) else Refused("kernel", f"{language} could not be started: {error}") from None
        self.kernels[name] = new
        if new.client:
            new.client.kernels[name] = new

    def _new_kernel(self, request: Request, name: str, language: str) -> Kernel:
        env, cwd = request.variables("env"), request.folder("cwd")
        if language == "bash":
            return BashKernel(self, name, env, cwd)
        if language == "python":
            packages = request.name("packages") if request.value.get("packages") else ""
            return PythonKernel(self, name, env, cwd, packages)
        return SpecKernel(self, name, env, cwd, language)

    def _kernel_specs(self, request: Request) -> None:
        """The kernels that cells can name besides python and bash."""
        found = {name: spec for name, (_, spec) in kernelspecs(self.environment).items()}
        shown = {name: {key: spec.get(key) for key in ("language", "display_name")} for name, spec in found.items()}
        request.succeed({"specs": shown})

    def _kernel_attach(self, request: Request) -> None:
        kernel, after = self._kernel(request), request.value.get("after")
        self.broadcast({"event": "kernel.attached", "kernel": kernel.id, "by": request.client.id}, but=(request.client, kernel.client))
        if after is not None and (not isinstance(after, int) or after < 0):
            raise Refused("argument", "`after` has to be the number of a message, or null")
        if kernel.client and kernel.client is not request.client:
            kernel.client.send(pack_json(EVENT, {"event": "kernel.taken", "kernel": kernel.id, "by": request.client.id}))
            kernel.client.detach(kernel)
        kernel.client = request.client
        request.client.kernels[kernel.id] = kernel
        store = kernel.store
        answer = {"next": store.rewind(after), "dropped": store.dropped, "store": store.id, "end": store.next - 1}
        request.succeed(dict(answer, executing=[] if kernel.death else list(kernel.executing)))
        if kernel.death:
            request.client.owe(kernel)
        self.dirty.add(request.client)

    def _kernel_list(self, request: Request) -> None:
        kernels = {
            kernel.id: {
                "language": kernel.language,
                "pid": kernel.pid,
                "state": kernel.state,
                "attached": kernel.client.id if kernel.client else None,
                "store": kernel.store.id,
            }
            for kernel in self.kernels.values()
        }
        request.succeed({"kernels": kernels})

    def _kernel_output(self, request: Request) -> None:
        cell, offset = request.text("cell"), request.value.get("offset", 0)
        if not isinstance(offset, int) or not 0 <= offset < 1 << 53:
            raise Refused("argument", "`offset` has to be a number of bytes")
        try:
            data, kept, lost = self._kernel(request).archive.read(cell, offset, MIB)
        except KeyError:
            raise Refused("argument", "the output of this cell is not kept there (any more)") from None
        request.succeed({"text": data.decode("latin-1"), "kept": kept, "lost": lost})

    def _kernel_interrupt(self, request: Request) -> None:
        self._kernel(request).interrupt()
        request.succeed({})

    def _kernel_stop(self, request: Request) -> None:
        kernel = self._kernel(request)
        del self.kernels[kernel.id]
        owner, kernel.client = kernel.client, None
        if owner:
            owner.detach(kernel)
        kernel.failed(Refused("kernel", f"kernel {kernel.id} was stopped while it started"))
        left = set(kernel.sessions)

        def ended(session: int) -> None:
            left.discard(session)
            if not left:
                kernel.close()
                request.succeed({})
                if owner and owner.open and owner is not request.client:
                    # not before all of it is gone: its owner may start another of that name
                    owner.send(pack_json(EVENT, {"event": "kernel.stopped", "kernel": kernel.id, "by": request.client.id}))

        if not left:
            ended(0)
        for session in list(left):
            self.sessions.end(session, self.loop, partial(ended, session))

    def _kernel(self, request: Request) -> Kernel:
        name = request.text("kernel")
        kernel = self.kernels.get(name)
        if kernel is None:
            raise Refused("kernel", f"there is no kernel {name}")
        return kernel

    # requests on services

    def _service_start(self, request: Request) -> None:
        name = request.name("service")
        spec = {
            "command": request.command("command", request.value.get("command")),
            "env": request.variables("env"),
            "cwd": request.text("cwd", ""),
            "restart": request.text("restart", "on-failure"),
            "ready": self._readiness(request),
        }
        if spec["restart"] not in ("no", "on-failure", "always"):
            raise Refused("argument", "`restart` has to be no, on-failure or always, not {!r}".format(spec["restart"]))
        old = self.services.get(name)
        if old and old.spec == spec and old.state not in ("stopped", "failed"):
            request.succeed({})
            return

        def begin() -> None:
            if old:
                old.close()
            service = self.services[name] = Service(self, name, spec)
            service.start()
            request.succeed({})

        if old:
            old.stop(begin)
        else:
            begin()

    def _readiness(self, request: Request) -> dict[str, Any] | None:
        ready = request.value.get("ready")
        if ready is None:
            return None
        checks = {"port", "command", "log"}.intersection(ready) if isinstance(ready, dict) else set()
        ready = {key: value for key, value in ready.items() if value is not None and key in checks} if checks else {}
        if len(ready) != 1:
            raise Refused("argument", "`ready` needs exactly one of port, command and log")
        if "port" in ready and not (isinstance(ready["port"], int) and 0 < ready["port"] < 65536):
            raise Refused("argument", "`ready.port` has to be a port number")
        if "command" in ready:
            request.command("ready.command", ready["command"])
        if "log" in ready:
            import re

            try:
                re.compile(ready["log"])
            except (re.error, TypeError) as error:
                raise Refused("argument", f"`ready.log` has to be a regular expression ({error})") from None
        return ready

    def _service_wait(self, request: Request) -> None:
        self._service(request).wait(request, request.number("timeout", 30.0))

    def _service_stop(self, request: Request) -> None:
        service = self.services.get(request.text("service"))
        if service is None:
            request.succeed({})
        else:
            service.stop(lambda: request.succeed({}))

    def _service_list(self, request: Request) -> None:
        request.succeed({"services": {name: service.describe() for name, service in self.services.items()}})

    def _service_log(self, request: Request) -> None:
        request.succeed({"text": self._service(request).last_lines(int(request.number("lines", 100)))})

    def _service(self, request: Request) -> Service:
        name = request.text("service")
        service = self.services.get(name)
        if service is None:
            raise Refused("service", f"there is no service {name}")
        return service

    def _agent_clock(self, request: Request) -> None:
        """The time here, nanoseconds since the epoch."""
        request.succeed({"time": time.time_ns()})

    def _agent_stop(self, request: Request) -> None:
        """End every kernel and service, then this process."""
        remove_file(os.path.join(self.directory, "agent.sock"))
        self.loop.unwatch(self._listener.fileno())
        self._listener.close()
        sessions = [session for kernel in self.kernels.values() for session in kernel.sessions]
        services = [service for service in self.services.values() if service.pid is not None]
        left = len(sessions) + len(services)

        def ended() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                for kernel in self.kernels.values():
                    kernel.close()
                request.succeed({})
                self._pump()
                for client in list(self.clients):
                    client.close()
                self.loop.running = False

        for session in sessions:
            self.sessions.end(session, self.loop, ended)
        for service in services:
            service.stop(ended)
        if not sessions and not services:
            ended()

    OPERATIONS: Mapping[str | None, Callable[[Agent, Request], None]] = {
        "kernel.start": _kernel_start,
        "kernel.attach": _kernel_attach,
        "kernel.list": _kernel_list,
        "kernel.specs": _kernel_specs,
        "kernel.output": _kernel_output,
        "kernel.interrupt": _kernel_interrupt,
        "kernel.stop": _kernel_stop,
        "service.start": _service_start,
        "service.wait": _service_wait,
        "service.stop": _service_stop,
        "service.list": _service_list,
        "service.log": _service_log,
        "agent.clock": _agent_clock,
        "agent.stop": _agent_stop,
    }

    def _pump(self) -> None:
        while self.dirty:
            self.dirty.pop().pump()

    def _accept(self, events: int) -> None:
        try:
            connection = self._listener.accept()[0]
        except OSError:
            return
        connection.setblocking(False)
        self.loop.watch(connection.fileno(), lambda events: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        """The two descriptors of a new client, and maybe a stem's."""
        self.loop.unwatch(connection.fileno())
        fds = array.array("i")
        try:
            how, ancillary = connection.recvmsg(1, socket.CMSG_LEN(3 * fds.itemsize))[:2]
        except OSError:
            how, ancillary = KEPT, []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        try:
            if len(fds) not in (2, 3):
                raise OSError(errno.EPROTO, "expected two descriptors or three")
            if how == FREE:
                connection.close()
            self.clients.add(Client(self, None if how == FREE else connection, fds[0], fds[1]))
            for fd in fds[2:]:
                self._take_stem(fd)
        except OSError as error:
            log(f"a client could not be served: {error}")
            connection.close()
            for fd in fds:
                os.close(fd)

    def _take_stem(self, fd: int) -> None:
        """Keep the first stem that is offered as long as it lives; another one ends as its descriptor is closed."""
        if self.stem is not None and self.stem.open:
            os.close(fd)
        else:
            self.stem = Stem(self.loop, fd)

    def _folder(self, name: str) -> str:
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path


# ── how it comes to life ─────────────────────────────────────────────────────────────────────────────────────────────────────


def run_directory() -> str:
    """Where the agent's socket, log and kernels are: a folder that only this user can enter."""
    path = os.environ.get("WARDIAN_RUN_DIR")
    if not path and os.getuid() == 0:
        path = "/run/wardian"
    elif not path:
        base = os.environ.get("XDG_RUNTIME_DIR")
        path = os.path.join(base, "wardian") if base else f"/tmp/wardian-{os.getuid()}"  # noqa: S108
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.getuid() or status.st_mode & 0o170077 != 0o040000:
        sys.exit(f"{path} has to be a folder that only user {os.getuid()} can enter")
    return path


def connect(path: str) -> socket.socket | None:
    """A connection to the agent, or None where none answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def bootstrap(source: bytes) -> None:
    """Reach the agent, starting it first where there is none; give it our standard streams, and stay while it uses them."""
    directory = run_directory()
    path = os.path.join(directory, "agent.sock")
    connection = connect(path)
    if connection is None:
        with open(os.path.join(directory, "agent.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection = connect(path)
            if connection is None:
                start_agent(directory, path, source, lock.fileno())
                connection = connect(path)
    if connection is None:
        sys.exit(f"the agent cannot be reached at {path}")
    fds = array.array("i", [0, 1] if STEM is None else [0, 1, STEM])
    connection.sendmsg([KEPT if STEM is None else FREE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    stay(connection)


def stay(connection: socket.socket) -> None:
    """End when the agent lets go of the connection; until then be the smallest program that can wait for that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if STEM is None:
        os.dup2(connection.fileno(), 0)
        with contextlib.suppress(OSError):
            # what is left of this is a tenth of an interpreter; the rest of the descriptors goes by itself
            os.execv("/bin/sh", ["sh", "-c", "read nothing; exit 0"])  # noqa: S606 - the program is ours
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(0)


def start_agent(directory: str, path: str, source: bytes, lock: int) -> None:
    """Fork the agent. It can be connected to from the moment this returns, since we listen before it runs."""
    remove_file(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        listener.close()
        return
    os.close(lock)
    if STEM is not None:
        os.close(STEM)
    os.setsid()
    if os.fork():
        os._exit(0)
    import hashlib

    os.chdir("/")
    # not at 0, so that what is logged stays where another agent's is
    logged = os.open(os.path.join(directory, "agent.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for fd, target in ((null, 0), (null, 1), (logged, 2)):
        os.dup2(fd, target)
    os.close(null)
    os.close(logged)
    for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    log(f"started, pid {os.getpid()}, {sys.version.split()[0]}")
    Agent(directory, listener, hashlib.sha256(source).hexdigest()[:16]).run()
    log("stopped")
    os._exit(0)


STEM = globals().get("STEM")

if "SOURCE" in globals():
    bootstrap(globals()["SOURCE"])
