"""The router: every message of the notebook's clients goes through here to the place that it is for, and back."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import WardianError
from .binding import HOME, Bound
from .cell_queue import CellQueue
from .clients import Clients
from .exchange import Exchange
from .home import HomePlace
from .jobs import Jobs
from .magics import Magics
from .places import Place
from .private import VARIABLE, listen
from .reach import Find, OpenLink, Reach
from .recording import Recorder
from .sockets import Client
from .wire import CONTROL, IOPUB, SHELL, STDIN, Message

_REMEMBERED = 1000
"""Requests whose client and place are remembered, for replies and for late messages."""
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
        journal: Path | None = None,
        run: str | None = None,
    ) -> None:
        """folder: private to us, with a short path. journal: the file of the journal, or None. run: the run that our cells belong to."""
        self._connection = connection
        self._folder = folder
        self._clients = Clients(connection, self._request)
        session = self._clients.session
        self._home = HomePlace(self, session, folder)
        self._reach = Reach(find, open_link, notebook, session, self)
        self._recorder = Recorder(journal)
        jobs = Jobs()
        self._cells = CellQueue(self._clients, self._home, self._reach, jobs, self._recorder, notebook, run)
        self._magics = Magics(self._reach, Exchange(self._reach, folder), jobs, self._cells)
        self._cells.on_values = self._magics.ended
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._comms: dict[str, Place] = {}
        self._infos: list[tuple[Client, Message]] = []
        self._stopping: asyncio.Task[None] | None = None
        self.stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start the home kernel. `stopped` gives our exit code when all is over."""
        path = self._folder / "router"
        self._server = await listen(path, self._magics.serve)
        self._home.on_open = self._home_opened
        await self._home.start({VARIABLE: str(path)}, self._home_ended)

    def stop(self, *, nodes: bool = False, code: int = 0) -> None:
        """End. nodes: whether this notebook's kernels on nodes end too, or wait for the next of its kernels."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(nodes, code))

    # --- what the clients send

    def _request(self, client: Client, message: Message) -> None:
        handler = self._HANDLERS.get(message.kind, Router._for_home)
        handler(self, client, message)

    def _execute(self, client: Client, message: Message) -> None:
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
            bound = self._cells.bind(message, {})
        except WardianError:
            bound = Bound(HOME, "")
        position = int(message.content.get("cursor_pos", 0))
        selector = bound.binding.selector
        in_the_line = bound.start is not None and "\n" not in str(message.content["code"])[bound.start : position]
        if selector is None or in_the_line:
            self._for_home(client, message)
            return
        shift = bound.removed
        moved = message.copy()
        moved.content = {**message.content, "code": bound.code, "cursor_pos": position - shift}
        places = self._reach.ready(selector, bound.binding.language)
        if places:
            self._send(places[0], client, moved, shift)
            return
        task = asyncio.create_task(self._reach.places(selector, bound.binding.language))

        def opened(task: asyncio.Task[list[Place]]) -> None:
            if task.cancelled():
                return
            error = task.exception() or task.result()[0].error
            if error is None:
                self._send(task.result()[0], client, moved, shift)
                return
            nothing: dict[str, Any] = {"status": "ok", "matches": [], "cursor_start": position, "cursor_end": position, "metadata": {}}
            if message.kind == "inspect_request":
                nothing = {"status": "ok", "found": False, "data": {}, "metadata": {}}
            self._clients.answer(client, message, nothing)

        task.add_done_callback(opened)

    def _is_complete(self, client: Client, message: Message) -> None:
        sticky = self._cells.sticky
        if sticky is not None and sticky.language != "python":
            self._clients.answer(client, message, {"status": "unknown"})
        else:
            self._for_home(client, message)

    def _comm(self, client: Client, message: Message) -> None:
        place = self._comms.get(str(message.content.get("comm_id")), self._home)
        if place.error is None:
            self.comm(place, message)
            self._send(place, client, message)

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
        "comm_open": _comm,
        "comm_msg": _comm,
        "comm_close": _comm,
        "input_reply": _input,
    }

    # --- what the places send

    def comm(self, place: Place, message: Message) -> None:
        """A kernel opens or closes a comm: what clients send to it is for that kernel."""
        comm = str(message.content.get("comm_id"))
        if message.kind == "comm_open":
            self._comms[comm] = place
        elif message.kind == "comm_close":
            self._comms.pop(comm, None)

    def unclaimed(self, place: Place, channel: int, message: Message) -> None:
        """A message that belongs to no cell."""
        request = self._requests.get(message.parent_id)
        kind = message.kind
        if channel == STDIN:
            if request is not None:
                self._clients.ask(request.client, place, message)
        elif channel != IOPUB:
            if request is not None and not request.answered:
                request.answered = True
                self._answer(request, message)
        elif kind != "status" or request is not None:
            self._clients.forward(message)

    def _send(self, place: Place, client: Client, message: Message, shift: int = 0) -> None:
        self._requests[message.id] = Request(client, message, place, shift)
        if len(self._requests) > _REMEMBERED:
            self._requests.popitem(last=False)
        place.send(CONTROL if client.channel == CONTROL else SHELL, message)

    def _answer(self, request: Request, message: Message) -> None:
        if request.shift and message.kind == "complete_reply":
            content = message.content
            message.content = {**content, **{key: content[key] + request.shift for key in ("cursor_start", "cursor_end") if key in content}}
        self._clients.pass_reply(request.client, message)

    # --- beginning and end

    def _home_opened(self) -> None:
        waiting, self._infos = self._infos, []
        for client, message in waiting:
            self._kernel_info(client, message)

    def _home_ended(self, code: int) -> None:
        """Without home there is no kernel: whoever started us sees it die, and starts it anew."""
        self.stop(nodes=False, code=code if code > 0 else int(code != 0))

    async def _stop(self, nodes: bool, code: int) -> None:
        leaving = self._reach.stop() if nodes else self._reach.close()
        await asyncio.gather(self._home.stop(), asyncio.wait_for(leaving, _STOPPING), return_exceptions=True)
        self._server.close()
        self._recorder.close()
        self._clients.close()
        self.stopped.set_result(code)
