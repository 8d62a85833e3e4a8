"""ZeroMQ sockets on the event loop, and the five that a kernel has towards its clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import zmq
import zmq.backend

from ..wire import CONTROL, SHELL, STDIN, MalformedMessage, Message, Signer

log = logging.getLogger("wardian.kernel")

# Straight to the library, with numbers for its enumerations: the layer between would be a fifth of a cell's time here.
_send, _get = zmq.backend.Socket.send, zmq.backend.Socket.get
_NOBLOCK, _NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)

_BATCH = 200
"""Messages taken from one socket before the others have their turn."""


class Socket:
    """A ZeroMQ socket that calls back for each message that arrives, and never blocks.

    The descriptor that ZeroMQ gives signals changes only, so it is drained until nothing is left, and looked at after each send.
    """

    def __init__(self, socket: zmq.Socket[bytes], received: Callable[[list[bytes]], None]) -> None:
        self._socket = socket
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._descriptor = socket.getsockopt(zmq.FD)
        self._loop.add_reader(self._descriptor, self.drain)
        self._schedule()

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message. With no high-water mark nothing is dropped and nothing waits."""
        socket = self._socket
        for frame in frames[:-1]:
            _send(socket, frame, _NOBLOCK_MORE)
        _send(socket, frames[-1], _NOBLOCK)
        if not self._scheduled and _get(socket, _EVENTS) & _POLLIN:
            self._schedule()

    def drain(self) -> None:
        """Take what has arrived."""
        self._scheduled = False
        for _ in range(_BATCH):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            try:
                self._received(frames)
            except BaseException:
                # nothing would signal again what waits behind it
                self._schedule()
                raise
        self._schedule()

    def close(self, linger: int = 0) -> None:
        """Close it; what was sent is still delivered for `linger` milliseconds."""
        if not self._socket.closed:
            self._loop.remove_reader(self._descriptor)
            self._socket.close(linger)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.drain)


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a request: the channel that it came on and the identities to answer to."""

    channel: int
    identities: list[bytes]


class Front:
    """The sockets of our connection file. Requests are given to `received(client, message)`."""

    def __init__(self, connection: dict[str, Any], session: str, received: Callable[[Client, Message], None]) -> None:
        self._signer = Signer(connection["key"].encode())
        self._session = session
        self._received = received
        self._context = zmq.Context()
        self._context.sndhwm = self._context.rcvhwm = 0
        self._sockets: dict[int, Socket] = {}
        for channel, port in ((SHELL, "shell_port"), (CONTROL, "control_port"), (STDIN, "stdin_port")):
            socket = self._bind(connection, zmq.ROUTER, port)
            self._sockets[channel] = Socket(socket, lambda frames, channel=channel: self._request(channel, frames))  # type: ignore[misc]
        self._iopub = Socket(self._bind(connection, zmq.XPUB, "iopub_port"), self._subscribed)
        self._heartbeat = Socket(self._bind(connection, zmq.ROUTER, "hb_port"), self._beat)

    def reply(self, client: Client, message: Message) -> None:
        """Answer a request on the channel that it came on."""
        self._sockets[client.channel].send(self._signer.wrap(client.identities, message.parts()))

    def ask(self, client: Client, message: Message) -> None:
        """Send a request for input to a client."""
        self._sockets[STDIN].send(self._signer.wrap(client.identities, message.parts()))

    def publish(self, message: Message) -> None:
        """Send to everybody who listens."""
        topic = f"kernel.{self._session}.{message.kind}".encode()
        self._iopub.send(self._signer.wrap([topic], message.parts()))

    def drain(self) -> None:
        """Take the requests that have arrived on shell already."""
        self._sockets[SHELL].drain()

    def close(self) -> None:
        """Close them all; the last messages are still delivered."""
        for socket in (*self._sockets.values(), self._iopub, self._heartbeat):
            socket.close(linger=1000)
        self._context.term()

    def _bind(self, connection: dict[str, Any], kind: int, port: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        if kind == zmq.ROUTER:
            socket.router_handover = 1
        if connection.get("curve_secretkey"):
            socket.curve_secretkey = connection["curve_secretkey"].encode()
            socket.curve_publickey = connection["curve_publickey"].encode()
            socket.curve_server = True
        separator = ":" if connection["transport"] == "tcp" else "-"
        socket.bind(f"{connection['transport']}://{connection['ip']}{separator}{connection[port]}")
        return socket

    def _request(self, channel: int, frames: list[bytes]) -> None:
        try:
            identities, parts = self._signer.unwrap(frames)
            self._received(Client(channel, identities), Message(parts))
        except MalformedMessage as error:
            log.warning("dropped what is no message: %s", error)

    def _subscribed(self, frames: list[bytes]) -> None:
        if frames[0][:1] == b"\x01":
            topic = frames[0][1:]
            welcome = Message.new("iopub_welcome", {"subscription": topic.decode("utf-8", "replace")}, self._session)
            self._iopub.send(self._signer.wrap([topic] if topic else [], welcome.parts()))

    def _beat(self, frames: list[bytes]) -> None:
        self._heartbeat.send(frames)
