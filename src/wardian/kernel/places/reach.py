"""The kernels on nodes: which nodes a selector picks now, the links to their agents, and the kernels there as places."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ...errors import NodeDownError, NotUpError, SelectorError, WardianError
from ...providers.base import Channel
from ..record.recording import Recorder
from ..record.recovery import Recovery, cell_of
from ..wire import Message
from . import alignment
from .connection import Connection, Link
from .place import Listener, Place
from .shell import ShellPlace

log = logging.getLogger("wardian.kernel")

_FRESH = 1.0
"""How long what was read of the environment is taken for true, seconds. A dead node is noticed at once, by its link."""


_RESTART = 8.0
"""How long a node's agent may take to end a kernel, seconds."""


class NodeState(Protocol):
    """What is needed of an `environment.live.NodeView`."""

    @property
    def group(self) -> str: ...
    @property
    def index(self) -> int | None: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def state(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Environment(Protocol):
    """What is needed of an `environment.live.LiveEnvironment`."""

    @property
    def nodes(self) -> Mapping[str, NodeState]: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def lease(self) -> Mapping[str, Any] | None: ...
    def select(self, selector: str) -> list[str]: ...
    def channel(self, node: str) -> Channel: ...
    def secrets(self) -> set[str]: ...
    async def refresh(self) -> None: ...


Find = Callable[[], Awaitable[Environment]]
OpenLink = Callable[[Channel, str, str], Awaitable[Link]]
"""Opens a link over a channel: to the agent of this node, for a client of this id."""


class NodePlace(Place):
    """One kernel on a node."""

    def __init__(self, name: str, language: str, listener: Listener, kernel: str, reach: Reach, connection: Connection) -> None:
        super().__init__(name, language, listener)
        self.kernel = kernel
        self._reach = reach
        self._connection = connection

    def send(self, channel: int, message: Message) -> None:
        """Give the kernel a message."""
        self._connection.send(self.kernel, channel, message)

    def _interrupt(self) -> None:
        self._reach.spawn(self._connection.request("kernel.interrupt", kernel=self.kernel))

    def received(self, channel: int, message: Message) -> None:
        """Take a message from the kernel to whom it concerns. A cell that we know nothing of was begun by an earlier kernel."""
        if not self.knows(message.parent_id):
            item = self._reach.recovery.item(message.parent_id)
            if item is not None:
                self.adopt(item)
            elif message.kind == "execute_input":
                self.adopt(self._reach.recovery.found(self, message))
        super().received(channel, message)

    async def stop(self) -> None:
        """End the kernel and forget its variables."""
        await self._connection.request("kernel.stop", kernel=self.kernel)
        self._connection.detach(self.kernel)


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

    find: finds the environment; raises NotUpError. open_link: `AgentLink.open`. recorder: who records what comes from nodes.
    notebook: what tells this notebook's kernels from those of others, the same for a kernel that is started after this one died.
    """

    def __init__(
        self, find: Find, open_link: OpenLink, notebook: str, session: str, listener: Listener, recorder: Recorder | None = None
    ) -> None:
        self._recorder = recorder or Recorder(None)
        self.recovery = Recovery(session, notebook, self._recorder)
        self._recorder.on_recorded = self._recorded
        self._recorder.on_full = self._hold
        self._full = False
        self._left: asyncio.Task[None] | None = None
        self._notebook = notebook
        self._find = find
        self._open_link = open_link
        self._suffix = hashlib.sha256(notebook.encode()).hexdigest()[:10]
        self._session = session
        self._listener = listener
        self.on_read: Callable[[], None] = lambda: None
        """Called when it was read anew which nodes there are, and when a kernel there was opened."""
        self.on_stale: Callable[[], None] = lambda: None
        """Called when a link has ended, so that what was read may no longer be true."""
        self.lacking: WardianError | None = None
        """Why no environment is known."""
        self._environment: Environment | None = None
        self._read = 0.0
        self._reading = asyncio.Lock()
        self._connections: dict[str, asyncio.Task[Connection]] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[NodePlace | ShellPlace]] = {}
        self._places: dict[tuple[str, str], NodePlace | ShellPlace] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._notes: list[tuple[Sequence[str], Callable[[str], None]]] = []

    @property
    def known(self) -> Environment | None:
        """The environment as it was read last; None where none is up, or none was looked for."""
        return self._environment

    def languages(self) -> dict[str, dict[str, Any]]:
        """What the kernels on nodes that were used say of their languages, by the names that those have here."""
        return {language: place.language_info for (_, language), place in self._places.items() if place.language_info}

    async def look(self) -> None:
        """Read which nodes there are; `known` and `lacking` say."""
        with suppress(WardianError):
            await self._current(anew=True)

    def ready(self, selector: str, language: str) -> list[Place] | None:
        """The places that `selector` picks, if what we know is fresh and all of them are open."""
        if self._environment is None or time.monotonic() - self._read > _FRESH:
            return None
        try:
            names = self._environment.select(selector)
        except SelectorError:
            return None
        places: list[Place] = [self._places[name, language] for name in names if (name, language) in self._places]
        return places if names and len(places) == len(names) else None

    async def places(self, selector: str, language: str, note: Callable[[str], None] | None = None) -> list[Place]:
        """The places that `selector` picks, opened where they are not. One that cannot be opened carries its `error`.

        note: told, in lines, what is done on the nodes while this takes its time.

        Raises NotUpError, SelectorError.
        """
        environment, names = await self._select(selector)
        notes = (names, note or (lambda text: None))
        self._notes.append(notes)
        try:
            found = await asyncio.gather(*(self._open(environment, name, language) for name in names), return_exceptions=True)
        finally:
            self._notes.remove(notes)
        return [self._place(name, language, item) for name, item in zip(names, found, strict=True)]

    async def nodes(self, selector: str) -> list[str]:
        """The names of the nodes that `selector` picks now. Raises NotUpError, SelectorError."""
        return (await self._select(selector))[1]

    async def channel(self, node: str) -> Channel:
        """The way to a node that places have been opened on."""
        return (await self._current()).channel(node)

    async def output(self, node: str, language: str, request: str, offset: int) -> dict[str, Any]:
        """What a node keeps of the text of a cell (known by its request) from an offset on. Raises NodeError."""
        await self._select(node)
        connection = await self._connect(node)
        return await connection.request("kernel.output", kernel=f"{language}-{self._suffix}", cell=request, offset=offset)

    async def execute(self, place: Place, code: str) -> dict[str, Any]:
        """Run code of our own there, unseen, and give the reply's content. Raises NodeError if the place is lost.

        Cancelled, it interrupts the code.
        """
        silent = Silent(code, self._session)
        place.execute(silent)
        try:
            return await silent.done
        except asyncio.CancelledError:
            place.interrupt(silent)
            raise

    async def recall(self) -> None:
        """Learn, once, which cells an earlier kernel of this notebook left on nodes."""
        if self._left is None:
            self._left = asyncio.create_task(self._left_behind(self._notebook))
        await asyncio.shield(self._left)

    async def take_up(self) -> None:
        """Attach the kernels on nodes where cells of an earlier kernel of this notebook still run or have ended unheard."""
        await self.recall()
        if not self.recovery.cells:
            return
        try:
            environment = await self._current()
        except WardianError as error:
            log.info("earlier cells are not taken up: %s", error.message)
            for cell in self.recovery.cells.values():
                for node in cell.missing:
                    cell.unreachable(node, error)
            return
        places = self.recovery.places(environment.select)
        await asyncio.gather(*(self._take_up(environment, node, language) for node, language in places))

    async def _take_up(self, environment: Environment, node: str, language: str) -> None:
        try:
            view = environment.nodes.get(node)
            if view is None:
                raise _none(node)
            if view.state != "ready":
                raise _down(node, view)
            connection = await self._connect(node)
            kernels = (await connection.request("kernel.list"))["kernels"]
            if f"{language}-{self._suffix}" in kernels:
                await self._open(environment, node, language)
                return
        except WardianError as error:
            log.info("earlier cells on %s are not taken up: %s", node, error.message)
            for cell in self.recovery.on(node, language):
                cell.unreachable(node, error)
            return
        place = self.stand_in(node, language)
        for cell in self.recovery.on(node, language):
            cell.over(place)

    async def restart(self, selector: str, language: str | None) -> dict[str, list[str]]:
        """Give nodes new kernels in place of this notebook's, whatever those are doing. language: only of this one, or None for all.

        Gives the languages by node. Raises NotUpError, SelectorError, NodeError.
        """
        environment, names = await self._select(selector)
        done = await asyncio.gather(*(self._restart(environment, name, language) for name in names))
        return dict(zip(names, done, strict=True))

    async def _restart(self, environment: Environment, node: str, language: str | None) -> list[str]:
        error = NodeDownError(node, "its kernel was restarted", remedy="run the cell again")
        shell = self._places.get((node, "bash"))
        if isinstance(shell, ShellPlace) and language in (None, "bash"):
            await shell.stop()
            self._forget(shell, error)
            await self._open(environment, node, "bash")
            return ["bash"]
        try:
            async with asyncio.timeout(_RESTART):
                connection = await self._connect(node)
                kernels = (await connection.request("kernel.list"))["kernels"]
                ours = {name: name.removesuffix(f"-{self._suffix}") for name in kernels if name.endswith(f"-{self._suffix}")}
                for kernel, its in ours.items():
                    if language in (None, its):
                        await connection.request("kernel.stop", kernel=kernel)
                        connection.detach(kernel)
                        place = self._places.get((node, its))
                        if place is not None:
                            self._forget(place, error)
        except TimeoutError:
            remedy = f"see what it does: `wardian exec {node} -- ps -ef`; `kill -CONT` continues what was stopped"
            raise NodeDownError(node, f"its agent does not answer within {_RESTART:g} s", remedy=remedy) from None
        new = [language] if language is not None else sorted(ours.values()) or ["python"]
        for its in new:
            await self._open(environment, node, its)
        return new

    async def stop(self) -> None:
        """End this notebook's kernels on the nodes that were used, and close the links. Errors of nodes that are gone do not matter."""
        await asyncio.gather(*(place.stop() for place in self._places.values()), return_exceptions=True)
        await self.close()

    async def close(self) -> None:
        """Close the links; kernels go on, and keep their output."""
        for task in (*self._opening.values(), *self._tasks):
            task.cancel()
        connections = self._open_connections()
        for opening in self._connections.values():
            opening.cancel()
        shells = [place.stop() for place in self._places.values() if isinstance(place, ShellPlace)]
        await asyncio.gather(*(connection.close() for connection in connections), *shells, return_exceptions=True)

    def stand_in(self, node: str, language: str) -> Place:
        """A place without a kernel."""
        return Place(node, language, self._listener)

    def interrupt_earlier(self) -> None:
        """Interrupt the cells of an earlier kernel that are shown on, now or as soon as their nodes are reached."""
        for cell in self.recovery.cells.values():
            cell.unwanted = cell.shown is not None
        for place in self._places.values():
            self._interrupt_unwanted(place)

    def _interrupt_unwanted(self, place: Place) -> None:
        resumed = place.resumed
        if resumed is not None and (cell := cell_of(resumed)) is not None and cell.unwanted:
            place.interrupt(resumed)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a request to an agent whose only possible failure is that the node is gone, which its link tells by itself."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("%s", task.exception())

    def _place(self, name: str, language: str, found: Place | BaseException) -> Place:
        if isinstance(found, Place):
            return found
        if not isinstance(found, WardianError):
            raise found
        place = self.stand_in(name, language)
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
                try:
                    self._environment = await self._find()
                except WardianError as error:
                    self.lacking = error
                    self.on_read()
                    raise
            self.lacking = None
            self._recorder.hide(self._environment.secrets())
            self._read = time.monotonic()
            self.on_read()
            return self._environment

    async def _open(self, environment: Environment, name: str, language: str) -> NodePlace | ShellPlace:
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

    async def _start(self, environment: Environment, name: str, language: str) -> NodePlace | ShellPlace:
        view = environment.nodes[name]
        if view.state != "ready":
            environment = await self._current(anew=True)
            view = environment.nodes[name]
        if view.state != "ready":
            raise _down(name, view)
        # imported at first use: a kernel starts sooner without them, and many notebooks begin at home
        from ...nodes.kernels import NoBashError, start_kernel
        from ...nodes.link import NoPythonError

        kernel, channel = f"{language}-{self._suffix}", environment.channel(name)
        try:
            connection = await self._connect(name)
            started = await start_kernel(connection, channel, name, kernel, language, lambda text: self._note(name, text))
        except (NoBashError, NoPythonError) as error:
            if language != "bash":
                raise
            return await self._open_shell(channel, name, "Python" if isinstance(error, NoPythonError) else "bash")
        if started.get("end"):
            await self.recall()
        place = NodePlace(name, language, self._listener, kernel, self, connection)
        place.language_info = started.get("language_info") or {}
        await connection.attach(place, started, lambda: self.recovery.on(name, language))
        if language == "python":
            place.execute(Silent(alignment.SOURCE, self._session))
        place.opened()
        if place.error is not None:
            raise place.error
        self._places[name, language] = place
        self._interrupt_unwanted(place)
        self.on_read()
        return place

    async def _open_shell(self, channel: Channel, name: str, lacking: str) -> ShellPlace:
        """A shell without an agent, on a node without Python or bash."""
        place = ShellPlace(name, self._listener, channel, self._session, self._forget)
        await place.start()
        self._note(name, f"[{name} has no {lacking}: its shell runs without an agent, and what it prints while nobody is there is lost]\n")
        self._places[name, "bash"] = place
        return place

    def _note(self, node: str, text: str) -> None:
        for nodes, note in self._notes:
            if node in nodes:
                note(text)

    async def _connect(self, name: str) -> Connection:
        task = self._connections.get(name)
        if task is None:
            task = self._connections[name] = asyncio.create_task(self._connection(name))
        try:
            return await asyncio.shield(task)
        except WardianError:
            self._connections.pop(name, None)
            raise

    async def _connection(self, name: str) -> Connection:
        async def open_link(client: str) -> Link:
            return await self._open_link((await self._current()).channel(name), name, client)

        async def missing() -> WardianError | None:
            try:
                view = (await self._current(anew=True)).nodes.get(name)
            except WardianError as error:
                return error
            if view is None:
                return _none(name)
            return _down(name, view) if view.state not in ("ready", "unreachable") else None

        connection = Connection(name, open_link, missing, self._recorder, self._forget, lambda: self._ended(name), self._restarted)
        await connection.open()
        connection.hold(self._full)
        return connection

    def _ended(self, node: str) -> None:
        self._connections.pop(node, None)
        self._read = 0.0
        self.on_stale()

    def _restarted(self, place: NodePlace) -> None:
        """Somebody restarted a kernel of ours, in the panel say: the next cell finds a new one."""

        async def open_again() -> None:
            await self._open(await self._current(), place.name, place.language)

        self.spawn(open_again())

    def _forget(self, place: NodePlace | ShellPlace, error: WardianError) -> None:
        if self._places.get((place.name, place.language)) is place:
            del self._places[place.name, place.language]
        place.lose(error)

    def _open_connections(self) -> list[Connection]:
        return [task.result() for task in self._connections.values() if task.done() and not task.cancelled() and not task.exception()]

    def _recorded(self, store: str, sequence: int) -> None:
        for connection in self._open_connections():
            if connection.recorded(store, sequence):
                return

    def _hold(self, full: bool) -> None:
        self._full = full
        for connection in self._open_connections():
            connection.hold(full)

    async def _left_behind(self, notebook: str) -> None:
        self.recovery.add(await self._recorder.unfinished(notebook))


def _none(name: str) -> NodeDownError:
    return NodeDownError(name, "there is no such node any more", remedy="`wardian up` makes what the experiment asks for")


def _down(name: str, view: NodeState) -> NodeDownError:
    detail = f" ({view.detail})" if view.detail else ""
    return NodeDownError(name, f"the node is {view.state}{detail}", remedy="`wardian status` tells more; `wardian up` brings it back")
