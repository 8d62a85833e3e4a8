"""What is said to clients: frames, Jupyter messages in them, and refusals. `docs/protocol.md` describes it."""

from __future__ import annotations

import json
import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

PROTOCOL = 1
HELLO, REQUEST, REPLY, MESSAGE, INPUT, ACK, EVENT, ERROR = range(8)
SHELL, IOPUB, STDIN, CONTROL = range(4)
KEPT, FREE = b"\0", b"\1"
KIB, MIB = 1 << 10, 1 << 20
FRAME_LIMIT = 64 * MIB
STREAM_LIMIT = 2 * MIB


class BadFrame(Exception):
    """The peer broke the protocol; its connection ends."""


class Refused(Exception):
    """A request cannot be done; the reply says why."""

    def __init__(self, kind: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.remedy = kind, message, remedy


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


def header_id(header: bytes) -> str:
    """The id in the header of a message, or nothing."""
    try:
        return str(json.loads(header)["msg_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
