"""The frames between us and an agent (`docs/protocol.md`): bytes in, values out, and back. No I/O."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

PROTOCOL = 1
FRAME_LIMIT = 64 << 20
CHANNELS = ("shell", "iopub", "stdin", "control")


class Kind(IntEnum):
    """The type of a frame."""

    HELLO = 0
    REQUEST = 1
    REPLY = 2
    MESSAGE = 3
    INPUT = 4
    ACK = 5
    EVENT = 6
    ERROR = 7


class FrameError(ValueError):
    """The bytes are no frame of this protocol."""


class Message(NamedTuple):
    """A Jupyter message under way: its number, its channel by name, its kernel, and its parts from the header on."""

    sequence: int
    channel: str
    kernel: str
    parts: list[bytes]


class Decoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Add bytes, and give each frame that is whole. Raises FrameError; the stream is of no use after that."""
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while len(buffer) - position >= 4:
                (length,) = struct.unpack_from(">I", buffer, position)
                if not 1 <= length <= FRAME_LIMIT:
                    raise FrameError(f"a frame of {length} bytes; at most {FRAME_LIMIT} are allowed")
                if len(buffer) - position - 4 < length:
                    break
                kind = buffer[position + 4]
                if kind > Kind.ERROR:
                    raise FrameError(f"unknown frame type {kind}")
                payload = bytes(memoryview(buffer)[position + 5 : position + 4 + length])
                position += 4 + length
                yield Kind(kind), payload
        finally:
            del buffer[:position]


def encode(kind: Kind, payload: bytes) -> bytes:
    """A frame. Raises FrameError if it is longer than the protocol allows."""
    if len(payload) >= FRAME_LIMIT:
        raise FrameError(f"a frame of {len(payload) + 1} bytes; at most {FRAME_LIMIT} are allowed")
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def encode_json(kind: Kind, value: Mapping[str, Any]) -> bytes:
    """A frame whose payload is a JSON object."""
    return encode(kind, json.dumps(value).encode())


def encode_message(kind: Kind, message: Message) -> bytes:
    """A MESSAGE or INPUT frame. Raises FrameError for more than 255 parts, and for what is too long."""
    kernel = message.kernel.encode("ascii")
    if len(message.parts) > 255:
        raise FrameError(f"a message of {len(message.parts)} parts; at most 255 are allowed")
    head = struct.pack(">QBB", message.sequence, CHANNELS.index(message.channel), len(kernel))
    body = [head, kernel, bytes([len(message.parts)])]
    for part in message.parts:
        body += struct.pack(">I", len(part)), part
    return encode(kind, b"".join(body))


def encode_acknowledgement(kernel: str, sequence: int) -> bytes:
    """An ACK frame."""
    name = kernel.encode("ascii")
    return encode(Kind.ACK, struct.pack(">QB", sequence, len(name)) + name)


def decode_json(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"malformed JSON: {error}") from None
    if not isinstance(value, dict):
        raise FrameError("expected a JSON object")
    return value


def decode_message(payload: bytes) -> Message:
    """The message of a MESSAGE or INPUT payload."""
    try:
        sequence, channel, length = struct.unpack_from(">QBB", payload)
        kernel = payload[10 : 10 + length].decode("ascii")
        count = payload[10 + length]
        position = 11 + length
        parts: list[bytes] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">I", payload, position)
            parts.append(payload[position + 4 : position + 4 + size])
            position += 4 + size
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise FrameError(f"malformed message: {error}") from None
    if position != len(payload) or channel >= len(CHANNELS) or count < 4:
        raise FrameError("malformed message")
    return Message(sequence, CHANNELS[channel], kernel, parts)


def encode_parts(parts: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Header, parent header, metadata and content of a Jupyter message as the bytes that a frame carries."""
    return [json.dumps(part).encode() for part in parts]
