"""Everybody who listens to this kernel, as one: what we tell them, whichever place it comes from."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..places.place import Place
from ..wire import STDIN, Message, dump, new_header
from .flow import Pace, left_out
from .following import Following
from .sockets import Client, Front
from .watching import Watching

_FOLLOWERS = 8
"""Clients that are asked what a cell of another client asks: pages that were opened while it ran."""


class Clients:
    """The notebook's clients. To them there is one kernel, with one session, whatever places there are behind it."""

    def __init__(self, connection: Mapping[str, Any], received: Callable[[Client, Message], None], front: Front | None = None) -> None:
        """connection: the connection file's content. received: called with each request. front: in place of sockets of our own."""
        self.session: str = new_header("", "")["msg_id"]
        self._front = front or Front(dict(connection), self.session, received)
        # Only Jupyter's server drops what comes too fast; it names itself to the kernels that it starts.
        limited = bool(os.environ.get("WARDIAN_PACE") or os.environ.get("JPY_SESSION_NAME")) and os.environ.get("WARDIAN_PACE") != "0"
        self._pace = Pace(self._publish, asyncio.get_running_loop().call_later, limited=limited)
        self._asking: dict[str, Place] = {}
        self._asked: Place | None = None
        self._followers: deque[Client] = deque(maxlen=_FOLLOWERS)
        self.following = Following()
        self.watching = Watching(lambda content: self._front.publish(Message.new("wardian_update", content, self.session)))

    def held(self) -> AbstractContextManager[None]:
        """What everybody is told within is sent at the end: a kernel that is given a cell within has it sooner."""
        return self._pace.held()

    def publish(self, kind: str, content: dict[str, Any], parent: bytes) -> Message:
        """Send a message of ours to everybody. parent: the header of the request that caused it, as JSON."""
        message = Message.new(kind, content, self.session, parent=parent)
        self._pace.publish(message)
        return message

    def forward(self, message: Message) -> None:
        """Send a kernel's message to everybody."""
        message.header["session"] = self.session
        self._pace.publish(message)

    def status(self, state: str, request: Message) -> None:
        """Say that we are busy with a request, or idle again."""
        self.publish("status", {"execution_state": state}, dump(request.header))

    def reply(self, client: Client, request: Message, content: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        """Answer a request ourselves."""
        kind = request.kind.replace("_request", "_reply")
        reply = Message.new(kind, content, self.session, parent=dump(request.header), metadata=metadata)
        if kind == "execute_reply":
            self._pace.then(lambda: self._front.reply(client, reply))
        else:
            self._front.reply(client, reply)

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
        self._pace.then(lambda: self._ask(client, message))

    def answered(self, message: Message) -> None:
        """Take a client's input to the kernel that asked for it; clients that do not say which question they answer mean the last."""
        self.following.answered(message.parent_id)
        place = self._asking.pop(message.parent_id, self._asked)
        if place is not None:
            place.send(STDIN, message)

    def hurry(self, parent: bytes, name: str | None) -> None:
        """A cell was interrupted: of its output that still waits only the end is shown. name: what `%output` knows it by."""
        self._pace.hurry(parent, lambda omission: left_out(omission, name))

    def follow(self, client: Client, request: Message) -> None:
        """Tell a client that came later what cells have sent, and ask it, too, what they ask."""
        # Straight to the sockets: between the two states nothing else is published, so that who hears one knows what the report lacks.
        self._front.publish(self._status("busy", request))
        since = request.content.get("since")
        cells = self.following.report(since if isinstance(since, int | float) else 0.0)
        self.reply(client, request, {"status": "ok", "cells": cells})
        self._front.publish(self._status("idle", request))
        self._followers = deque((other for other in self._followers if other.identities != client.identities), maxlen=_FOLLOWERS)
        self._followers.append(client)
        for question in self.following.questions():
            self._front.ask(client, question)

    def _ask(self, client: Client, question: Message) -> None:
        self.following.asked(question)
        for asked in (client, *(other for other in self._followers if other.identities != client.identities)):
            self._front.ask(asked, question)

    def _status(self, state: str, request: Message) -> Message:
        return Message.new("status", {"execution_state": state}, self.session, parent=dump(request.header))

    def _publish(self, message: Message) -> None:
        self.following.published(message)
        self._front.publish(message)

    def drain(self) -> None:
        """Take the requests that have arrived already."""
        self._front.drain()

    def close(self) -> None:
        """Close the sockets; the last messages are still delivered."""
        self._pace.close()
        self._front.close()
