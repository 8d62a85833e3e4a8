"""What a kernel said and nobody acknowledged yet: in memory, then on disk, and bounded."""

from __future__ import annotations

import collections
import json
import os
import struct

from .files import log, unlinked_file
from .protocol import FRAME_LIMIT, IOPUB, KIB, MESSAGE, MIB, message_parts, pack_message, stream_text, too_large, unpack_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW = 8 * MIB
MEMORY_LIMIT = 16 * MIB
SPOOL_LIMIT = 1024 * MIB
SPOOL_SEGMENT = 32 * MIB
TAIL_LIMIT = 1 * MIB
ARCHIVE_FROM = 256 * KIB


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
