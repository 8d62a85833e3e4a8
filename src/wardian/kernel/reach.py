"""The kernels on nodes: which nodes a selector picks now, the links to their agents, and the kernels there as places."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from ..errors import AgentError, NodeDownError, NodeError, NotUpError, SelectorError, WardianError
from ..providers.base import Channel
from . import alignment
from .places import Listener, Place
from .wire import CHANNELS, MalformedMessage, Message

log = logging.getLogger("wardian.kernel")

_FRESH = 1.0
"""How long what was read of the environment is taken for true, seconds. A dead node is noticed at once, by its link."""


_NUMBERS = {name: number for number, name in enumerate(CHANNELS)}


class NodeState(Protocol):
    """What is needed of an `environment.live.NodeView`."""

    @property
    def state(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Environment(Protocol):
    """What is needed of an `environment.live.LiveEnvironment`."""

    @property
    def nodes(self) -> Mapping[str, NodeState]: ...
    def select(self, selector: str) -> list[str]: ...
    def channel(self, node: str) -> Channel: ...
    async def refresh(self) -> None: ...


class Link(Protocol):
    """What is needed of a `nodes.link.AgentLink`."""

    on_message: Callable[[str, int, str, list[bytes]], None]
    on_event: Callable[[dict[str, Any]], None]
    closed: asyncio.Future[Any]

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]: ...
    def send(self, kernel: str, channel: str, parts: Sequence[bytes]) -> None: ...
    def acknowledge(self, kernel: str, sequence: int) -> None: ...
    async def close(self) -> None: ...


Find = Callable[[], Awaitable[Environment]]
OpenLink = Callable[[Channel, str], Awaitable[Link]]


class NodePlace(Place):
    """One kernel on a node."""

    def __init__(self, name: str, language: str, listener: Listener, kernel: str, reach: Reach, link: Link) -> None:
        super().__init__(name, language, listener)
        self.kernel = kernel
        self._reach = reach
        self._link = link

    def send(self, channel: int, message: Message) -> None:
        """Give the kernel a message."""
        self._link.send(self.kernel, CHANNELS[channel], message.parts())

    def _interrupt(self) -> None:
        self._reach.spawn(self._link.request("kernel.interrupt", kernel=self.kernel))

    async def stop(self) -> None:
        """End the kernel and forget its variables."""
        await self._link.request("kernel.stop", kernel=self.kernel)


class Silent:
    """An execution of our own that nobody sees. `done` gives the reply's content, or the error that the place was lost with."""

    def __init__(self, code: str, session: str) -> None:
        content = {
            "code": code,
            "silent": True,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        self.request = Message.new("execute_request", content, session)
        self.done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Its output concerns nobody."""

    def finished(self, place: Place, reply: Message) -> None:
        """Give the reply."""
        if not self.done.done():
            self.done.set_result(reply.content)

    def lost(self, place: Place, error: WardianError) -> None:
        """Give the error."""
        if not self.done.done():
            self.done.set_exception(error)


class Reach:
    """Opens places on nodes at first use and keeps them.

    find: finds the environment; raises NotUpError. open_link: `AgentLink.open`.
    notebook: what tells this notebook's kernels from those of others, the same for a kernel that is started after this one died.
    """

    def __init__(self, find: Find, open_link: OpenLink, notebook: str, session: str, listener: Listener) -> None:
        self._find = find
        self._open_link = open_link
        self._suffix = hashlib.sha256(notebook.encode()).hexdigest()[:10]
        self._session = session
        self._listener = listener
        self._environment: Environment | None = None
        self._read = 0.0
        self._reading = asyncio.Lock()
        self._links: dict[str, asyncio.Task[_Connection]] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[NodePlace]] = {}
        self._places: dict[tuple[str, str], NodePlace] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def ready(self, selector: str, language: str) -> list[Place] | None:
        """The places that `selector` picks, if what we know is fresh and all of them are open."""
        if self._environment is None or time.monotonic() - self._read > _FRESH:
            return None
        try:
            names = self._environment.select(selector)
        except SelectorError:
            return None
        places: list[Place] = [self._places[name, language] for name in names if (name, language) in self._places]
        return places if len(places) == len(names) else None

    async def places(self, selector: str, language: str) -> list[Place]:
        """The places that `selector` picks, opened where they are not. One that cannot be opened carries its `error`.

        Raises NotUpError, SelectorError.
        """
        environment, names = await self._select(selector)
        found = await asyncio.gather(*(self._open(environment, name, language) for name in names), return_exceptions=True)
        return [self._place(name, language, item) for name, item in zip(names, found, strict=True)]

    async def nodes(self, selector: str) -> list[str]:
        """The names of the nodes that `selector` picks now. Raises NotUpError, SelectorError."""
        return (await self._select(selector))[1]

    async def channel(self, node: str) -> Channel:
        """The way to a node that places have been opened on."""
        return (await self._current()).channel(node)

    async def execute(self, place: Place, code: str) -> dict[str, Any]:
        """Run code of our own there, unseen, and give the reply's content. Raises NodeError if the place is lost."""
        silent = Silent(code, self._session)
        place.execute(silent)
        return await silent.done

    async def stop(self) -> None:
        """End this notebook's kernels on the nodes that were used, and close the links. Errors of nodes that are gone do not matter."""
        await asyncio.gather(*(place.stop() for place in self._places.values()), return_exceptions=True)
        await self.close()

    async def close(self) -> None:
        """Close the links; kernels go on, and keep their output."""
        for task in (*self._opening.values(), *self._tasks):
            task.cancel()
        connections = [task.result() for task in self._links.values() if task.done() and not task.cancelled() and not task.exception()]
        for task in self._links.values():
            task.cancel()
        await asyncio.gather(*(connection.link.close() for connection in connections), return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a request to an agent whose only possible failure is that the node is gone, which its link tells by itself."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("%s", task.exception())

    def _place(self, name: str, language: str, found: NodePlace | BaseException) -> Place:
        if isinstance(found, NodePlace):
            return found
        if not isinstance(found, WardianError):
            raise found
        place = Place(name, language, self._listener)
        place.lose(found)
        return place

    async def _select(self, selector: str) -> tuple[Environment, list[str]]:
        environment = await self._current()
        try:
            names = environment.select(selector)
        except SelectorError:
            environment = await self._current(anew=True)
            names = environment.select(selector)
        if not names:
            there_are = ", ".join(environment.nodes) or "none"
            raise SelectorError(f"the selector {selector!r} picks no node", remedy=f"the nodes are: {there_are}")
        return environment, names

    async def _current(self, anew: bool = False) -> Environment:
        """The environment as it is now, or was less than a moment ago."""
        asked = time.monotonic()
        async with self._reading:
            if self._environment is not None and (self._read > asked or (not anew and asked - self._read < _FRESH)):
                return self._environment
            if self._environment is not None:
                try:
                    await self._environment.refresh()
                except NotUpError:
                    self._environment = None
            if self._environment is None:
                self._environment = await self._find()
            self._read = time.monotonic()
            return self._environment

    async def _open(self, environment: Environment, name: str, language: str) -> NodePlace:
        key = name, language
        place = self._places.get(key)
        if place is not None:
            return place
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.create_task(self._start(environment, name, language))
            task.add_done_callback(lambda _: self._opening.pop(key, None))
        # Shielded: an interrupted cell gives up waiting, and the next one finds the kernel further on.
        return await asyncio.shield(task)

    async def _start(self, environment: Environment, name: str, language: str) -> NodePlace:
        view = environment.nodes[name]
        if view.state != "ready":
            environment = await self._current(anew=True)
            view = environment.nodes[name]
        if view.state != "ready":
            detail = f" ({view.detail})" if view.detail else ""
            remedy = "`wardian status` tells more; `wardian up` brings it back"
            raise NodeDownError(name, f"the node is {view.state}{detail}", remedy=remedy)
        connection = await self._connect(environment, name)
        kernel = f"{language}-{self._suffix}"
        await connection.link.request("kernel.start", kernel=kernel, language=language, env={}, cwd=None)
        place = NodePlace(name, language, self._listener, kernel, self, connection.link)
        connection.places[kernel] = place
        await connection.link.request("kernel.attach", kernel=kernel, after=None)
        if language == "python":
            place.execute(Silent(alignment.SOURCE, self._session))
        place.opened()
        if place.error is not None:
            raise place.error
        self._places[name, language] = place
        return place

    async def _connect(self, environment: Environment, name: str) -> _Connection:
        task = self._links.get(name)
        if task is None:
            task = self._links[name] = asyncio.create_task(self._link(environment, name))
        try:
            return await asyncio.shield(task)
        except WardianError:
            self._links.pop(name, None)
            raise

    async def _link(self, environment: Environment, name: str) -> _Connection:
        link = await self._open_link(environment.channel(name), name)
        connection = _Connection(name, link, self._forget)
        link.closed.add_done_callback(lambda _: self._closed(connection))
        return connection

    def _closed(self, connection: _Connection) -> None:
        self._links.pop(connection.node, None)
        self._read = 0.0
        error = connection.link.closed.exception() if not connection.link.closed.cancelled() else None
        if not isinstance(error, NodeError):
            remedy = "`wardian status` tells whether it runs; run the cell again to reconnect"
            error = NodeDownError(connection.node, "the connection to the node has ended", remedy=remedy)
        for place in list(connection.places.values()):
            self._forget(place, error)

    def _forget(self, place: NodePlace, error: WardianError) -> None:
        if self._places.get((place.name, place.language)) is place:
            del self._places[place.name, place.language]
        place.lose(error)


class _Connection:
    """The link to one node's agent, and the places behind it."""

    def __init__(self, node: str, link: Link, forget: Callable[[NodePlace, WardianError], None]) -> None:
        self.node = node
        self.link = link
        self.places: dict[str, NodePlace] = {}
        self._forget = forget
        link.on_message = self._message
        link.on_event = self._event

    def _message(self, kernel: str, sequence: int, channel: str, parts: list[bytes]) -> None:
        place = self.places.get(kernel)
        if place is None:
            return
        try:
            message = Message(parts)
        except MalformedMessage as error:
            log.warning("%s sent what is no message: %s", self.node, error)
        else:
            place.received(_NUMBERS[channel], message)
        self.link.acknowledge(kernel, sequence)

    def _event(self, event: dict[str, Any]) -> None:
        place = self.places.pop(str(event.get("kernel")), None)
        if place is None:
            return
        if event.get("event") == "kernel.taken":
            self._forget(place, AgentError(self.node, f"its {place.language} kernel was taken over by another session of this notebook"))
        elif event.get("event") == "kernel.died":
            remedy = "run the cell again: it gets a new kernel, without the variables of the old one"
            self._forget(place, NodeDownError(self.node, f"its {place.language} kernel has died", remedy=remedy))
        else:
            self.places[place.kernel] = place
