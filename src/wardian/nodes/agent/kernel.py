"""What all kinds of kernel share."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod

from .files import remove_folder
from .processes import spawn
from .protocol import IOPUB, SHELL, STREAM_LIMIT, header_id, split_stream
from .store import Archive, MessageStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .agent import Agent
    from .client import Client, Request
    from .protocol import Refused


class Kernel(ABC):
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

    @abstractmethod
    def start(self) -> None:
        """Start its process; `ready` or `died` follows."""

    @abstractmethod
    def input(self, channel: int, parts: list[bytes]) -> None:
        """A message from the client."""

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
