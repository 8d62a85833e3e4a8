"""The router: every message of the notebook's clients goes through here to the place that it is for, and back."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import WardianError
from ..providers.preloaded import Preloaded
from .cells.binding import HOME, Bound
from .cells.cell_queue import CellQueue
from .cells.earlier import Earlier
from .cells.jobs import Jobs
from .front.clients import Clients
from .front.sockets import Client
from .overview import Overview, Written
from .places.comms import WIDGETS, WIDGETS_AT_ONCE, Comms
from .places.home import HomePlace
from .places.place import Place
from .places.reach import Find, OpenLink, Reach, Silent
from .places.subshells import Subshells
from .record.recording import Recorder
from .session.forward import Forwards
from .session.magics import Magics
from .session.private import VARIABLE, listen
from .values.exchange import Exchange
from .wire import CONTROL, IOPUB, SHELL, STDIN, Message

log = logging.getLogger("wardian.kernel")

_REMEMBERED = 1000
"""Requests whose client and place are remembered, for replies and for late messages."""
_TYPES = "_jupyter_types_experimental"
"""Where IPython's completions tell, in their metadata, what each match is."""
_PATIENCE = 1.0
"""How long a busy kernel may take to begin to answer a completion or inspection, seconds: then the answer is that it knows nothing."""
_WORKING = 10.0
"""How long a kernel may work on such an answer, seconds: the first completion of a kernel loads a good deal."""
_NOTED = 0.5
"""How long home may take, at the end, to note the last cells in its history, seconds."""
_STOPPING = 3.0
"""How long nodes may take to stop their kernels when this one is shut down, seconds."""


@dataclass
class Request:
    """A request that is no cell, on its way. shift: how far the cursor was moved in its code."""

    client: Client
    message: Message
    place: Place
    shift: int = 0
    answered: bool = False
    timer: asyncio.TimerHandle | None = None


class Router:
    """One kernel of a notebook.

    connection: the connection file's content. find, open_link: how the environment and its nodes are reached.
    notebook: tells this notebook from others, and stays the same when its kernel is started anew.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        folder: Path,
        *,
        find: Find,
        open_link: OpenLink,
        notebook: str,
        journal: Path | str | None = None,
        run: str | None = None,
        preloaded: Preloaded | None = None,
        written: Written | None = None,
    ) -> None:
        """folder: private to us, with a short path. journal: where it is kept, or None. run: the run that our cells belong to.

        preloaded: what the home kernel is forked from; without it that is started. written: reads the experiment file for pages.
        """
        self._connection = connection
        self._folder = folder
        self._clients = self._make_clients(connection)
        session = self._clients.session
        self._home = self._make_home(session, folder, preloaded)
        self._recorder = Recorder(journal)
        self._reach = Reach(find, open_link, notebook, session, self, self._recorder)
        jobs = Jobs()
        self._cells = CellQueue(self._clients, self._home, self._reach, jobs, self._recorder, notebook, run)
        self._earlier = Earlier(self._clients, self._reach, self._cells)
        self._reach.recovery.on_left = self._earlier.take_over
        self._overview = Overview(self._clients, self._home, self._reach, self._cells, self._earlier, written)
        self._exchange = Exchange(self._reach)
        self._forwards = Forwards(self._reach)
        self._magics = Magics(self._reach, self._exchange, jobs, self._cells)
        self._cells.on_values = self._magics.ended
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._subshells = Subshells(session)
        self._comms = Comms()
        self._infos: list[tuple[Client, Message]] = []
        self._stopping: asyncio.Task[None] | None = None
        self.stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def _make_clients(self, connection: Mapping[str, Any]) -> Clients:
        return Clients(connection, self._request)

    def _make_home(self, session: str, folder: Path, preloaded: Preloaded | None) -> HomePlace:
        return HomePlace(self, session, folder, preloaded)

    async def start(self) -> None:
        """Start the home kernel. `stopped` gives our exit code when all is over."""
        path = self._folder / "router"
        self._server = await listen(path, self._magics.serve, {**self._exchange.lenders, **self._forwards.operations})
        self._home.on_open = self._home_opened
        await self._home.start({VARIABLE: str(path)}, self._home_ended)

    def stop(self, *, nodes: bool = False, code: int = 0) -> None:
        """End. nodes: whether this notebook's kernels on nodes end too, or wait for the next of its kernels."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(nodes, code))

    # --- what the clients send

    def _request(self, client: Client, message: Message) -> None:
        handler = self._HANDLERS.get(message.kind, Router._for_home)
        try:
            handler(self, client, message)
        except WardianError as error:
            # a node whose end is not noticed yet, or that no frame can carry it to
            log.warning("a message (%s) was not passed on: %s", message.kind, error.message)

    def _execute(self, client: Client, message: Message) -> None:
        self._clients.following.requested(message)
        self._cells.add(client, message)

    def _interrupt(self, client: Client, message: Message) -> None:
        self._clients.answer(client, message, {"status": "ok"})
        self._cells.interrupt()

    def _shutdown(self, client: Client, message: Message) -> None:
        content = {"status": "ok", "restart": bool(message.content.get("restart", False))}
        self._clients.answer(client, message, content)
        self._clients.publish("shutdown_reply", content, message.parts()[0])
        self.stop(nodes=True)

    def _kernel_info(self, client: Client, message: Message) -> None:
        if self._home.info is None:
            self._infos.append((client, message))
            return
        ours = version("wardian")
        banner = self._home.info.get("banner", "")
        info = {
            **self._home.info,
            "implementation": "wardian",
            "implementation_version": ours,
            "banner": f"Wardian {ours}: a cell runs on the nodes that it is bound to, and else here, in\n{banner}",
            "supported_features": [],
        }
        self._clients.answer(client, message, info)

    def _connect(self, client: Client, message: Message) -> None:
        ports = {key: value for key, value in self._connection.items() if key.endswith("_port")}
        self._clients.answer(client, message, {"status": "ok", **ports})

    def _cursor(self, client: Client, message: Message) -> None:
        """Completion and inspection are answered by the place that the code's cell would run on, if that is one place."""
        try:
            bound = self._cells.bind(message, message.metadata)
        except WardianError:
            bound = Bound(HOME, "")
        position = int(message.content.get("cursor_pos", 0))
        selector = bound.binding.selector
        in_the_line = bound.start is not None and "\n" not in str(message.content["code"])[bound.start : position]
        if selector is None or in_the_line:
            self._ask(self._home, client, message)
            return
        shift = bound.removed
        moved = message.copy()
        moved.content = {**message.content, "code": bound.code, "cursor_pos": position - shift}
        places = self._reach.ready(selector, bound.binding.language)
        if places:
            self._ask(places[0], client, moved, shift)
            return
        task = asyncio.create_task(self._reach.places(selector, bound.binding.language))

        def opened(task: asyncio.Task[list[Place]]) -> None:
            if task.cancelled():
                return
            error = task.exception() or task.result()[0].error
            if error is None:
                self._ask(task.result()[0], client, moved, shift)
            else:
                self._clients.answer(client, message, _nothing(message))

        task.add_done_callback(opened)

    def _is_complete(self, client: Client, message: Message) -> None:
        sticky = self._cells.sticky
        if sticky is not None and sticky.language != "python":
            self._clients.answer(client, message, {"status": "unknown"})
        else:
            self._ask(self._home, client, message)

    def _history(self, client: Client, message: Message) -> None:
        told = message.copy()
        told.metadata = {**message.metadata, "wardian": {"cells": self._cells.history()}}
        self._send(self._home, client, told)

    def _comm(self, client: Client, message: Message) -> None:
        if message.content.get("target_name") == WIDGETS_AT_ONCE and self._comms.on_nodes(WIDGETS):
            # One kernel's answer would pass for all: a page that gets none asks for each widget.
            self._clients.status("busy", message)
            self._clients.publish("comm_close", {"comm_id": message.content.get("comm_id"), "data": {}}, message.parts()[0])
            self._clients.status("idle", message)
            return
        place = self._comms.place(message) or self._home
        if place.error is None:
            self.comm(place, message)
            self._send(place, client, message)

    def _follow(self, client: Client, message: Message) -> None:
        async def follow() -> None:
            # What an earlier kernel left is what the page of a kernel that was killed has missed.
            await self._reach.recall()
            self._clients.follow(client, message)

        self._reach.spawn(follow())

    def _watch(self, client: Client, message: Message) -> None:
        self._overview.watch(client, message)

    def _input(self, client: Client, message: Message) -> None:
        self._clients.answered(message)

    def _for_home(self, client: Client, message: Message) -> None:
        self._send(self._home, client, message)

    _HANDLERS: Mapping[str, Callable[[Router, Client, Message], None]] = {
        "execute_request": _execute,
        "interrupt_request": _interrupt,
        "shutdown_request": _shutdown,
        "kernel_info_request": _kernel_info,
        "connect_request": _connect,
        "complete_request": _cursor,
        "inspect_request": _cursor,
        "is_complete_request": _is_complete,
        "history_request": _history,
        "comm_open": _comm,
        "comm_msg": _comm,
        "comm_close": _comm,
        "input_reply": _input,
        "wardian_follow_request": _follow,
        "wardian_watch_request": _watch,
    }

    # --- what the places send

    def comm(self, place: Place, message: Message) -> None:
        """A kernel opens or closes a comm: what clients send to it is for that kernel."""
        self._comms.passed(place, message)

    def unclaimed(self, place: Place, channel: int, message: Message) -> None:
        """A message that belongs to no cell."""
        if self._subshells.received(message):
            return
        request = self._requests.get(message.parent_id)
        kind = message.kind
        if channel == STDIN:
            if request is not None:
                self._clients.ask(request.client, place, message)
        elif channel != IOPUB:
            if request is not None and not request.answered:
                request.answered = True
                if request.timer is not None:
                    request.timer.cancel()
                self._answer(request, message)
        elif kind != "status" or request is not None:
            self._clients.forward(message)

    def _send(self, place: Place, client: Client, message: Message) -> None:
        self._remember(Request(client, message, place))
        place.send(CONTROL if client.channel == CONTROL else SHELL, message)

    def _ask(self, place: Place, client: Client, message: Message, shift: int = 0) -> None:
        """Ask a kernel what it knows; it need not be idle, and has to answer soon."""
        request = Request(client, message, place, shift)
        self._remember(request)
        later = asyncio.get_running_loop().call_later
        if place.error is not None or place.stuck is not None:
            self._give_up(request)
        elif place.busy:
            request.timer = later(_PATIENCE, self._give_up, request)
            if place.language == "bash":
                place.send(SHELL, message)
            else:
                self._subshells.of(place, lambda subshell: self._ask_subshell(request, subshell))
        else:
            request.timer = later(_WORKING, self._give_up, request)
            place.send(SHELL, message)

    def _ask_subshell(self, request: Request, subshell: str) -> None:
        if request.answered:
            return
        if request.timer is not None:
            request.timer.cancel()
            request.timer = asyncio.get_running_loop().call_later(_WORKING, self._give_up, request)
        message = request.message.copy()
        message.header["subshell_id"] = subshell
        request.place.send(SHELL, message)

    def _give_up(self, request: Request) -> None:
        if not request.answered:
            request.answered = True
            self._clients.answer(request.client, request.message, _nothing(request.message, request.shift))

    def _remember(self, request: Request) -> None:
        self._requests[request.message.id] = request
        if len(self._requests) > _REMEMBERED:
            self._requests.popitem(last=False)

    def _answer(self, request: Request, message: Message) -> None:
        if request.shift and message.kind == "complete_reply":
            metadata = message.content.get("metadata", {})
            types = [_moved(item, request.shift) for item in metadata.get(_TYPES, ())]
            message.content = {**_moved(message.content, request.shift), "metadata": {**metadata, _TYPES: types} if types else metadata}
        if message.kind == "comm_info_reply":
            ours = self._comms.on_nodes(request.message.content.get("target_name"))
            message.content = {**message.content, "comms": {**message.content.get("comms", {}), **ours}}
        self._clients.pass_reply(request.client, message)

    # --- beginning and end

    def _home_opened(self) -> None:
        self._reach.spawn(self._reach.take_up())
        waiting, self._infos = self._infos, []
        for client, message in waiting:
            self._kernel_info(client, message)

    def _home_ended(self, code: int) -> None:
        """Without home there is no kernel: whoever started us sees it die, and starts it anew."""
        self.stop(nodes=False, code=code if code > 0 else int(code != 0))

    async def _stop(self, nodes: bool, code: int) -> None:
        await self._note_history()
        leaving = self._reach.stop() if nodes else self._reach.close()
        left = asyncio.wait_for(asyncio.gather(leaving, self._forwards.close()), _STOPPING)
        await asyncio.gather(self._home.stop(), left, return_exceptions=True)
        self._server.close()
        self._recorder.close()
        self._clients.close()
        self.stopped.set_result(code)

    async def _note_history(self) -> None:
        earlier = self._cells.history()
        if earlier and self._home.error is None and not self._home.busy:
            note = Silent("", self._clients.session)
            note.request.metadata = {"wardian": {"cells": earlier}}
            self._home.execute(note)
            await asyncio.wait({note.done}, timeout=_NOTED)


def _moved(item: dict[str, Any], shift: int) -> dict[str, Any]:
    """A match, or a reply, whose positions in the code are moved."""
    return {**item, **{key: item[key] + shift for key in ("cursor_start", "cursor_end", "start", "end") if key in item}}


def _nothing(message: Message, shift: int = 0) -> dict[str, Any]:
    """The answer of a kernel that knows nothing."""
    position = int(message.content.get("cursor_pos", 0)) + shift
    if message.kind == "inspect_request":
        return {"status": "ok", "found": False, "data": {}, "metadata": {}}
    if message.kind == "is_complete_request":
        return {"status": "unknown"}
    return {"status": "ok", "matches": [], "cursor_start": position, "cursor_end": position, "metadata": {}}
