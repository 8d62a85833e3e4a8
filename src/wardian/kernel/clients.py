"""Everybody who listens to this kernel, as one: what we tell them, whichever place it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .places import Place
from .sockets import Client, Front
from .wire import STDIN, Message, dump, new_header


class Clients:
    """The notebook's clients. To them there is one kernel, with one session, whatever places there are behind it."""

    def __init__(self, connection: Mapping[str, Any], received: Callable[[Client, Message], None]) -> None:
        """connection: the connection file's content. received: called with each request."""
        self.session: str = new_header("", "")["msg_id"]
        self._front = Front(dict(connection), self.session, received)
        self._asking: dict[str, Place] = {}
        self._asked: Place | None = None

    def publish(self, kind: str, content: dict[str, Any], parent: bytes) -> Message:
        """Send a message of ours to everybody. parent: the header of the request that caused it, as JSON."""
        message = Message.new(kind, content, self.session, parent=parent)
        self._front.publish(message)
        return message

    def forward(self, message: Message) -> None:
        """Send a kernel's message to everybody."""
        message.header["session"] = self.session
        self._front.publish(message)

    def status(self, state: str, request: Message) -> None:
        """Say that we are busy with a request, or idle again."""
        self.publish("status", {"execution_state": state}, dump(request.header))

    def reply(self, client: Client, request: Message, content: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        """Answer a request ourselves."""
        kind = request.kind.replace("_request", "_reply")
        self._front.reply(client, Message.new(kind, content, self.session, parent=dump(request.header), metadata=metadata))

    def answer(self, client: Client, request: Message, content: dict[str, Any]) -> None:
        """Answer a request that is done at once: busy, reply, idle."""
        self.status("busy", request)
        self.reply(client, request, content)
        self.status("idle", request)

    def pass_reply(self, client: Client, reply: Message) -> None:
        """Give a client the reply of a kernel."""
        reply.header["session"] = self.session
        self._front.reply(client, reply)

    def ask(self, client: Client, place: Place, message: Message) -> None:
        """Take a kernel's question to the client whose request it serves."""
        self._asking[message.id] = self._asked = place
        message.header["session"] = self.session
        self._front.ask(client, message)

    def answered(self, message: Message) -> None:
        """Take a client's input to the kernel that asked for it; clients that do not say which question they answer mean the last."""
        place = self._asking.pop(message.parent_id, self._asked)
        if place is not None:
            place.send(STDIN, message)

    def drain(self) -> None:
        """Take the requests that have arrived already."""
        self._front.drain()

    def close(self) -> None:
        """Close the sockets; the last messages are still delivered."""
        self._front.close()
