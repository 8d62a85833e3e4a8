"""Jupyter messages as frames: read as little as routing needs, change only headers, sign anew."""

from __future__ import annotations

import hmac
import json
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any

DELIMITER = b"<IDS|MSG>"
PROTOCOL = "5.4"
SHELL, IOPUB, STDIN, CONTROL = range(4)
CHANNELS = ("shell", "iopub", "stdin", "control")
"""The channels, and their names."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

_process = uuid.uuid4().hex
_counter = 0


class MalformedMessage(ValueError):
    """Frames that are no Jupyter message, or whose signature is wrong."""


def dump(value: object) -> bytes:
    """`value` as JSON bytes."""
    return _encode(value).encode("utf-8", "surrogateescape")


def new_header(kind: str, session: str) -> dict[str, Any]:
    """A header for a new message of type `kind`."""
    global _counter
    _counter += 1
    return {
        "msg_id": f"{_process}_{os.getpid()}_{_counter}",
        "msg_type": kind,
        "username": "wardian",
        "session": session,
        "date": datetime.now(UTC).isoformat(),
        "version": PROTOCOL,
    }


@lru_cache(maxsize=64)
def _parse_parent(raw: bytes) -> Any:
    """The header of a request, as all messages that answer it carry it. Shared among them, and so never changed in place."""
    return json.loads(raw)


def item_request(request: str, index: int) -> str:
    """The id of the request that runs one item of a cell, from that of the cell."""
    return f"{request}-item{index}"


def whole_request(request: str) -> str:
    """The id of the cell's request that one is or belongs to."""
    return request.rpartition("-item")[0] or request


class Message:
    """One message. `header` and `parent` are read; metadata and content stay bytes until somebody asks for them."""

    __slots__ = ("_content", "buffers", "content_bytes", "header", "metadata_bytes", "parent", "parent_bytes")

    def __init__(self, parts: Sequence[bytes]) -> None:
        """parts: header, parent header, metadata, content, buffers. Raises MalformedMessage."""
        try:
            self.header: dict[str, Any] = json.loads(parts[0])
            self.parent: dict[str, Any] = _parse_parent(bytes(parts[1]))
            self.parent_bytes, self.metadata_bytes, self.content_bytes = parts[1], parts[2], parts[3]
        except (IndexError, ValueError) as error:
            raise MalformedMessage(str(error)) from None
        if not isinstance(self.header, dict) or not isinstance(self.parent, dict) or not isinstance(self.header.get("msg_type"), str):
            raise MalformedMessage("the header is not one of a message")
        self.buffers = list(parts[4:])
        self._content: dict[str, Any] | None = None

    @classmethod
    def new(
        cls,
        kind: str,
        content: dict[str, Any],
        session: str,
        *,
        parent: bytes = b"{}",
        metadata: dict[str, Any] | None = None,
    ) -> Message:
        """A message of our own; `parent` is the header of the one that it answers, as JSON."""
        message = cls.__new__(cls)
        message.header = new_header(kind, session)
        message.parent_bytes = parent
        message.parent = {}
        message.metadata_bytes = dump(metadata) if metadata else b"{}"
        message.content_bytes = dump(content)
        message.buffers = []
        message._content = content
        return message

    @property
    def kind(self) -> str:
        """Its message type."""
        return str(self.header["msg_type"])

    @property
    def id(self) -> str:
        """Its message id."""
        return str(self.header.get("msg_id", ""))

    @property
    def parent_id(self) -> str:
        """The id of the message that caused it, or an empty string."""
        return str(self.parent.get("msg_id", ""))

    @property
    def content(self) -> dict[str, Any]:
        """Its content. Assign to change it; changes made in place are not sent."""
        if self._content is None:
            try:
                content = json.loads(self.content_bytes)
            except (ValueError, RecursionError) as error:
                raise MalformedMessage(str(error)) from None
            if not isinstance(content, dict):
                raise MalformedMessage("its content is no object")
            self._content = content
        return self._content

    @content.setter
    def content(self, value: dict[str, Any]) -> None:
        self._content = value
        self.content_bytes = dump(value)

    @property
    def metadata(self) -> dict[str, Any]:
        """Its metadata. Assign to change it."""
        try:
            value = json.loads(self.metadata_bytes)
        except ValueError as error:
            raise MalformedMessage(str(error)) from None
        return value if isinstance(value, dict) else {}

    @metadata.setter
    def metadata(self, value: dict[str, Any]) -> None:
        self.metadata_bytes = dump(value)

    def parts(self) -> list[bytes]:
        """Header, parent header, metadata, content and buffers."""
        return [dump(self.header), self.parent_bytes, self.metadata_bytes, self.content_bytes, *self.buffers]

    def copy(self) -> Message:
        """Another message with the same parts, to be changed on its own."""
        other = Message.__new__(Message)
        other.header = dict(self.header)
        other.parent, other.parent_bytes = self.parent, self.parent_bytes
        other.metadata_bytes, other.content_bytes, other._content = self.metadata_bytes, self.content_bytes, self._content
        other.buffers = self.buffers
        return other


class Signer:
    """Signs and checks the messages of one connection. An empty key means that nothing is signed."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=sha256) if key else None

    def signature(self, parts: Sequence[bytes]) -> bytes:
        """The signature of the first four parts."""
        if self._mac is None:
            return b""
        mac = self._mac.copy()
        for part in parts[:4]:
            mac.update(part)
        return mac.hexdigest().encode()

    def wrap(self, identities: Sequence[bytes], parts: Sequence[bytes]) -> list[bytes]:
        """What to send: identities, delimiter, signature, parts."""
        return [*identities, DELIMITER, self.signature(parts), *parts]

    def unwrap(self, frames: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """The identities and the parts of what came. Raises MalformedMessage."""
        try:
            at = frames.index(DELIMITER)
        except ValueError:
            raise MalformedMessage("there is no delimiter") from None
        parts = list(frames[at + 2 :])
        if len(parts) < 4:
            raise MalformedMessage(f"there are {len(parts)} parts, and at least 4 are needed")
        if self._mac is not None and not hmac.compare_digest(self.signature(parts), frames[at + 1]):
            raise MalformedMessage("the signature is wrong")
        return list(frames[:at]), parts
