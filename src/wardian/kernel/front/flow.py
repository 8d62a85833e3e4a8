"""What a front end can take: long output is cut to its beginning and end, fast output is gathered and sent at a steady rate.

Everything that a cell sends passes here in order. Nothing is changed while little comes.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..places.place import Place
from ..wire import Message

VIEW = int(os.environ.get("WARDIAN_VIEW_LIMIT", 4 * 2**20))
"""How much of what a cell prints the notebook shows, bytes; its places share it."""
LEAST = 64 * 2**10
"""How much each place may show however many there are, bytes."""
TAIL = 32 * 2**10
"""How much of the end of longer output is shown, characters."""
GATHER = 0.03
"""For so long fast output is gathered, seconds."""
PIECE = 2**16
"""How large gathered pieces become, characters."""

# jupyter_server drops what exceeds 1 MB/s or 1000 messages/s within 3 s: burst and three seconds' rate have to stay below that
RATE, BURST = 550_000, 1_100_000
MESSAGES, MESSAGE_BURST = 550, 1_100
_WINDOW = 3.0

LEFT_OUT = "left_out"
"""In a stream's content, where it is a mark of an agent or of the journal: what it stands for."""
_COUNTS = ("bytes", "lines", "dropped")


class LeftOut(NamedTuple):
    """What a mark in a cell's text stands for. dropped: how many of its bytes a node's agent dropped, because its store was full."""

    size: int
    lines: int
    dropped: int


class Printed(NamedTuple):
    """A piece of a stream. name: of the stream. left_out: what was there, where the text is a mark for it."""

    name: str
    text: str
    left_out: LeftOut | None = None

    @classmethod
    def of(cls, content: dict[str, Any]) -> Printed:
        """A stream message's content."""
        mark = content.get(LEFT_OUT)
        left_out = None
        if isinstance(mark, dict):
            left_out = LeftOut(*(count if isinstance(count := mark.get(key), int) else 0 for key in _COUNTS))
        return cls(str(content.get("name", "stdout")), str(content.get("text", "")), left_out)

    @property
    def content(self) -> dict[str, Any]:
        """As a stream message's content."""
        content: dict[str, Any] = {"name": self.name, "text": self.text}
        return {**content, LEFT_OUT: dict(zip(_COUNTS, self.left_out, strict=True))} if self.left_out else content


@dataclass(frozen=True)
class Omission:
    """What was left out of a stream, and what comes after it."""

    left_out: LeftOut
    tail: list[Printed]

    @property
    def what(self) -> str:
        """Its size in words."""
        size, lines, dropped = self.left_out
        by_the_node = f"; the node, whose store was full, dropped {dropped:,} bytes of them" if dropped else ""
        return f"{size:,} bytes ({lines:,} lines{by_the_node})"


class Excerpt:
    """The beginning and the end of what one place prints. What is between is counted and not kept."""

    def __init__(self, limit: int, tail: int = TAIL) -> None:
        """limit: bytes that pass. tail: characters that are kept of the end."""
        self._room = limit
        self._tail = tail
        self._held: deque[Printed] = deque()
        self._kept = 0
        self._size = self._lines = self._dropped = 0

    def passes(self, size: int) -> bool:
        """Whether a piece of so many bytes passes as it is. What does not has to be given to `take`."""
        if size > self._room:
            return False
        self._room -= size
        return True

    def take(self, piece: Printed) -> str:
        """The beginning of a piece, as far as it passes; the rest is held, and so is everything after it."""
        room, self._room = self._room, 0
        text = piece.text
        if piece.left_out:
            self.hold(piece)
            return ""
        cut = len(text)
        if cut > room:
            # at the end of a line, if there is one
            cut = text.rfind("\n", 0, room) + 1 or room
            self.hold(Printed(piece.name, text[cut:]))
        return text[:cut]

    def hold(self, piece: Printed) -> None:
        """Take a piece that does not pass."""
        self._held.append(piece)
        self._kept += len(piece.text)
        while self._kept > self._tail:
            name, text, left_out = self._held.popleft()
            over = self._kept - self._tail
            cut = len(text)
            if left_out:
                # not the mark is left out, but what it stands for
                self._kept -= cut
                self._size += left_out.size
                self._lines += left_out.lines
                self._dropped += left_out.dropped
                continue
            if over < cut:
                # at the end of a line, if there is one
                cut = text.find("\n", over) + 1 or over
                self._held.appendleft(Printed(name, text[cut:]))
            self._kept -= cut
            self._size += cut if text.isascii() else len(text[:cut].encode("utf-8", "replace"))
            self._lines += text.count("\n", 0, cut)

    def release(self) -> Omission | None:
        """What was left out since the last call, and the end that was kept; None where everything passed."""
        if not self._held and not self._size:
            return None
        omission = Omission(LeftOut(self._size, self._lines, self._dropped), list(self._held))
        self._held.clear()
        self._kept = self._size = self._lines = self._dropped = 0
        return omission


class Timer(Protocol):
    """What `call_later` gives."""

    def cancel(self) -> None: ...


class _Piece:
    """A stream message that others of the same cell and stream are added to."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.parent, self.metadata = message.parent_bytes, message.metadata_bytes
        self.name, text, self.left_out = Printed.of(message.content)
        self.texts = [text]
        self.size = len(text)

    def takes(self, message: Message) -> bool:
        """Add a message if it goes on with this; whether it does."""
        if message.parent_bytes != self.parent or message.metadata_bytes != self.metadata or self.size > PIECE:
            return False
        name, text, left_out = Printed.of(message.content)
        if name != self.name or left_out or self.left_out:
            return False
        self.texts.append(text)
        self.size += len(text)
        return True

    def whole(self) -> Message:
        """The message that stands for all."""
        if len(self.texts) > 1:
            self.message.content = {"name": self.name, "text": "".join(self.texts)}
        return self.message


class Pace:
    """Sends messages in order, at once where little comes.

    A stream that comes fast is gathered for a moment. With `limited`, what exceeds the rates that Jupyter's server lets through waits,
    instead of being dropped there.
    """

    def __init__(self, send: Callable[[Message], None], later: Callable[[float, Callable[[], None]], Timer], *, limited: bool) -> None:
        """send: sends one message. later: calls back after some seconds."""
        self._send = send
        self._later = later
        self._limited = limited
        self._queue: deque[_Piece | Message | Callable[[], None]] = deque()
        self._timer: Timer | None = None
        self._held = False
        self._streamed = 0.0
        self._filled = 0.0
        self._bytes = float(BURST)
        self._messages = float(MESSAGE_BURST)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is given within is sent at the end."""
        outermost, self._held = not self._held, True
        try:
            yield
        finally:
            if outermost:
                self._held = False
                self._flush()

    def publish(self, message: Message) -> None:
        """Send a message after what was given before."""
        if message.kind == "stream":
            self._stream(message)
            return
        self._queue.append(message)
        self._flush()

    def then(self, call: Callable[[], None]) -> None:
        """Call after what was given before has been sent."""
        if not self._queue and not self._held:
            call()
            return
        self._queue.append(call)
        self._flush()

    def hurry(self, parent: bytes, shown: Callable[[Omission], str]) -> None:
        """Of what waits of one cell's streams keep only the end; `shown` says in words what is left out."""
        waiting, self._queue = self._queue, deque()
        excerpt = Excerpt(0)
        mark: _Piece | None = None
        for item in waiting:
            if isinstance(item, _Piece) and item.parent == parent:
                mark = mark or item
                excerpt.hold(Printed(item.name, "".join(item.texts), item.left_out))
                if mark is item:
                    self._queue.append(item)
            else:
                self._queue.append(item)
        omission = excerpt.release()
        if mark is not None and omission is not None:
            text = [shown(omission)] if omission.left_out.size else []
            mark.left_out = None
            mark.texts = [*text, *(piece.text for piece in omission.tail)]
            mark.texts.append("")
        self._flush()

    def close(self) -> None:
        """Send what waits, at once."""
        self._limited = False
        self._flush()

    def _stream(self, message: Message) -> None:
        now = time.monotonic()
        if not self._queue and not self._held and now - self._streamed >= GATHER and self._may_send(now):
            self._streamed = now
            self._pass(message)
            return
        last = self._queue[-1] if self._queue else None
        if not (isinstance(last, _Piece) and last.takes(message)):
            self._queue.append(_Piece(message))
        self._schedule(max(0.0, self._streamed + GATHER - now))

    def _flush(self) -> None:
        """Send everything that the rates allow now."""
        if self._held:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        while self._queue:
            item = self._queue[0]
            if callable(item):
                self._queue.popleft()
                item()
                continue
            if not self._may_send(now):
                self._schedule(max(-self._bytes / RATE, -self._messages / MESSAGES, GATHER))
                return
            self._queue.popleft()
            if isinstance(item, _Piece):
                self._streamed = now
                item = item.whole()
            self._pass(item)

    def _schedule(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self._flush()

    def _may_send(self, now: float) -> bool:
        if not self._limited:
            return True
        passed, self._filled = now - self._filled, now
        self._bytes = min(BURST, max(self._bytes, -RATE * _WINDOW) + passed * RATE)
        self._messages = min(MESSAGE_BURST, self._messages + passed * MESSAGES)
        return self._bytes > 0 and self._messages > 0

    def _pass(self, message: Message) -> None:
        if message.kind == "stream":
            self._bytes -= len(message.content_bytes) + len(message.parent_bytes) + 400
            self._messages -= 1
        elif message.kind not in ("status", "comm_open", "execute_input"):
            self._messages -= 1
        self._send(message)


def stream(name: str, text: str) -> bytes:
    """The content of a stream message."""
    return json.dumps({"name": name, "text": text}).encode()


class Cut:
    """What the places of a cell print, each cut to its share of what a notebook shows."""

    def __init__(self, places: int, show: Callable[[Place, Message], None], name: Callable[[], str | None]) -> None:
        """show: shows a place's message. name: what `%output` knows the cell by, if it is recorded."""
        self._limit = max(LEAST, VIEW // places)
        self._show = show
        self._name = name
        self._excerpts: dict[str, Excerpt] = {}
        self._last: dict[str, Message] = {}

    def received(self, place: Place, message: Message) -> None:
        """Show a message of a place, or keep it for the end."""
        if message.kind != "stream":
            self.ended(place)
            self._show(place, message)
            return
        excerpt = self._excerpts.get(place.name) or self._excerpts.setdefault(place.name, Excerpt(self._limit))
        if excerpt.passes(len(message.content_bytes)):
            self._show(place, message)
            return
        piece = Printed.of(message.content)
        head = excerpt.take(piece)
        # what the rest is made from
        self._last[place.name] = rest = message.copy()
        rest.content = {"name": piece.name, "text": ""}
        if head:
            message.content = {"name": piece.name, "text": head}
            self._show(place, message)

    def ended(self, place: Place) -> None:
        """Show the end of what was cut, with a line that says what is missing before it."""
        excerpt = self._excerpts.get(place.name)
        omission = excerpt.release() if excerpt is not None else None
        if omission is None:
            return
        pieces = [Printed("stderr", left_out(omission, self._name())), *omission.tail] if omission.left_out.size else omission.tail
        for number, piece in enumerate(pieces):
            message = self._last[place.name].copy()
            message.header["msg_id"] = f"{message.id}-{number}"
            message.content = piece.content
            self._show(place, message)


def left_out(omission: Omission, name: str | None) -> str:
    """The line that stands for what a notebook does not show. name: what `%output` knows the cell by."""
    everything = "what is kept of it" if omission.left_out.dropped else "all of it"
    whole = f"; %output {name} --save FILE writes {everything}" if name else ""
    return f"[{omission.what} are not shown here{whole}]\n"
