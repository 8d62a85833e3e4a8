"""Whoever is connected: requests, and what is sent to it."""

from __future__ import annotations

import collections
import os
import select
import struct

from .files import home, log
from .processes import read_some
from .protocol import (
    ACK,
    ERROR,
    EVENT,
    HELLO,
    INPUT,
    KIB,
    PROTOCOL,
    REPLY,
    REQUEST,
    SHELL,
    BadFrame,
    Decoder,
    Refused,
    header_id,
    pack_json,
    unpack_json,
    unpack_message,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Any

    from .agent import Agent
    from .kernel import Kernel

OUTGOING_LIMIT = 512 * KIB


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
