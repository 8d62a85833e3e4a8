"""The router: every message of the notebook's clients goes through here to the place that it is for, and back."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import WardianError
from .binding import HOME, Binding, Bound, bind
from .cells import Cell, Output, Run, error_content, interrupted, make_run
from .exchange import Exchange
from .home import HomePlace
from .jobs import JobError, Jobs
from .magics import Magics
from .places import Place
from .private import VARIABLE, listen
from .reach import Find, OpenLink, Reach
from .recording import Recorder
from .sockets import Client, Front
from .wire import CONTROL, IOPUB, SHELL, STDIN, Message, dump, new_header

log = logging.getLogger("wardian.kernel")

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


class NotebookOutput:
    """A cell's output in the notebook."""

    def __init__(self, router: Router, cell: Cell) -> None:
        self._router = router
        self._cell = cell

    def publish(self, kind: str, content: dict[str, Any], node: str | None) -> None:
        """Send a message of ours."""
        message = self._router.publish(kind, content, self._cell.parent)
        if self._cell.record is not None:
            self._cell.record.output(node, kind, message.content_bytes)

    def forward(self, message: Message, node: str | None) -> None:
        """Send a message of the kernel's."""
        if message.parent_id != self._cell.request.id:
            message.parent_bytes = self._cell.parent
        if self._cell.record is not None:
            self._cell.record.output(node, message.kind, message.content_bytes)
        self._router.forward(message)

    def ask(self, place: Place, message: Message) -> None:
        """Ask whoever sent the cell."""
        self._router.ask(self._cell.client, place, message)


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
        self._session = new_header("", "")["msg_id"]
        self._connection = dict(connection)
        self._folder = folder
        self._notebook = notebook
        self._run_id = run
        self._front = Front(self._connection, self._session, self._request)
        self._home = HomePlace(self, self._session, folder)
        self._reach = Reach(find, open_link, notebook, self._session, self)
        self._jobs = Jobs()
        self._recorder = Recorder(journal)
        self._magics = Magics(self._reach, Exchange(self._reach, folder), self._jobs, self._replay)
        self._count = 0
        self._queue: deque[Cell] = deque()
        self._current: Cell | None = None
        self._beginning = False
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._comms: dict[str, Place] = {}
        self._asking: dict[str, Place] = {}
        self._asked: Place | None = None
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
        self._queue.append(Cell(client, message))
        self._next()

    def _interrupt(self, client: Client, message: Message) -> None:
        self._status("busy", message)
        self._reply(client, message, {"status": "ok"})
        self._status("idle", message)
        cell = self._current
        if cell is None:
            return
        if cell.opening is not None and not cell.opening.done():
            cell.opening.cancel()
            self._fail(cell, interrupted())
        elif cell.run is not None:
            cell.run.interrupt()

    def _shutdown(self, client: Client, message: Message) -> None:
        content = {"status": "ok", "restart": bool(message.content.get("restart", False))}
        self._status("busy", message)
        self._reply(client, message, content)
        self.publish("shutdown_reply", content, message.parts()[0])
        self._status("idle", message)
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
        self._status("busy", message)
        self._reply(client, message, info)
        self._status("idle", message)

    def _connect(self, client: Client, message: Message) -> None:
        ports = {key: value for key, value in self._connection.items() if key.endswith("_port")}
        self._status("busy", message)
        self._reply(client, message, {"status": "ok", **ports})
        self._status("idle", message)

    def _cursor(self, client: Client, message: Message) -> None:
        """Completion and inspection are answered by the place that the code's cell would run on, if that is one place."""
        try:
            bound = self._bind(message, {})
        except WardianError:
            bound = Bound(HOME, "")
        position = int(message.content.get("cursor_pos", 0))
        selector = bound.binding.selector
        if selector is None or (bound.start is not None and position <= bound.start + bound.removed):
            self._for_home(client, message)
            return
        shift = bound.removed if bound.start is not None else 0
        moved = message.copy()
        moved.content = {**message.content, "code": bound.code, "cursor_pos": position - shift}
        places = self._reach.ready(selector, bound.binding.language)
        if places:
            self._send(places[0], client, moved, shift)
            return
        task = asyncio.create_task(self._reach.places(selector, bound.binding.language))

        def opened(task: asyncio.Task[list[Place]]) -> None:
            error = task.exception() or task.result()[0].error
            if error is None:
                self._send(task.result()[0], client, moved, shift)
                return
            self._status("busy", message)
            nothing: dict[str, Any] = {"status": "ok", "matches": [], "cursor_start": position, "cursor_end": position, "metadata": {}}
            if message.kind == "inspect_request":
                nothing = {"status": "ok", "found": False, "data": {}, "metadata": {}}
            self._reply(client, message, nothing)
            self._status("idle", message)

        task.add_done_callback(opened)

    def _is_complete(self, client: Client, message: Message) -> None:
        sticky = self._magics.sticky
        if sticky is not None and sticky.language != "python":
            self._status("busy", message)
            self._reply(client, message, {"status": "unknown"})
            self._status("idle", message)
        else:
            self._for_home(client, message)

    def _comm(self, client: Client, message: Message) -> None:
        place = self._comms.get(str(message.content.get("comm_id")), self._home)
        if place.error is None:
            self.comm(place, message)
            self._send(place, client, message)

    def _input(self, client: Client, message: Message) -> None:
        place = self._asking.pop(message.parent_id, self._asked)
        if place is not None:
            place.send(STDIN, message)

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

    # --- cells, one after the other

    def _next(self) -> None:
        # A cell may end while it begins; then the loop that began it goes on, so that a thousand such cells need no thousand frames.
        if self._beginning:
            return
        self._beginning = True
        try:
            while self._current is None and self._queue:
                self._begin(self._queue.popleft())
        finally:
            self._beginning = False

    def _begin(self, cell: Cell) -> None:
        self._current = cell
        cell.number = self._count + 1
        if cell.store_history and not cell.silent:
            self._count += 1
        self._status("busy", cell.request)
        if not cell.silent:
            self.publish("execute_input", {"code": cell.code, "execution_count": cell.number}, cell.parent)
        try:
            bound = self._bind(cell.request, cell.request.metadata)
        except WardianError as error:
            self._fail(cell, error_content(error))
            return
        binding = bound.binding
        if not cell.silent:
            self._record(cell, binding)
        if binding.selector is None:
            self._launch(cell, bound, [self._home])
            return
        places = self._reach.ready(binding.selector, binding.language)
        if places is not None:
            self._launch(cell, bound, places)
            return
        cell.opening = asyncio.create_task(self._open(cell, bound, binding.selector))
        cell.opening.add_done_callback(lambda task: self._opened(cell, task))

    async def _open(self, cell: Cell, bound: Bound, selector: str) -> None:
        self._launch(cell, bound, await self._reach.places(selector, bound.binding.language))

    def _opened(self, cell: Cell, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, WardianError):
            log.error("a cell could not be started", exc_info=error)
        self._fail(cell, error_content(error))

    def _launch(self, cell: Cell, bound: Bound, places: list[Place]) -> None:
        binding = bound.binding
        if not binding.background:
            cell.run = make_run(cell, bound.code, binding, places, NotebookOutput(self, cell), self._ended)
            if cell.record is not None:
                cell.record.nodes(cell.run.nodes)
            cell.run.start()
            return
        try:
            job = self._jobs.add(binding.job, cell, lambda kind, content: self._view(cell, kind, content))
        except JobError as error:
            self._fail(cell, error_content(error))
            return

        def ended(run: Run, content: dict[str, Any]) -> None:
            job.end(content)
            if cell.record is not None:
                cell.record.done(content)

        run = make_run(cell, bound.code, binding, places, job, ended)
        if cell.record is not None:
            cell.record.nodes(run.nodes)
        job.start(run)
        self._finish(cell, {"status": "ok", "payload": [], "user_expressions": {}, "metadata": {"wardian": run.where}})

    def _ended(self, run: Run, content: dict[str, Any]) -> None:
        if run.nodes and not run.cell.silent:
            self._magics.ended(run)
        if run.cell.record is not None:
            run.cell.record.done(content)
        self._finish(run.cell, content)

    def _fail(self, cell: Cell, content: dict[str, Any]) -> None:
        if not cell.silent:
            NotebookOutput(self, cell).publish("error", content, None)
        reply = {"status": "error", **content, "user_expressions": {}, "payload": []}
        if cell.record is not None:
            cell.record.done(reply)
        self._finish(cell, reply)

    def _finish(self, cell: Cell, content: dict[str, Any]) -> None:
        """Answer a cell, and go on with the next, or after an error abort those that were sent along with it."""
        metadata = content.pop("metadata", {})
        if cell is not self._current:
            return
        failed = content.get("status") == "error" and cell.stop_on_error and not cell.silent
        if failed:
            # As ipykernel does: what has been sent by now is aborted, also if we have not looked at it yet.
            self._front.drain()
        self._reply(cell.client, cell.request, {**content, "execution_count": cell.number}, metadata)
        self._status("idle", cell.request)
        self._current = None
        if failed:
            while self._queue:
                self._abort(self._queue.popleft())
        self._next()

    def _abort(self, cell: Cell) -> None:
        self._status("busy", cell.request)
        self._reply(cell.client, cell.request, {"status": "aborted"})
        self._status("idle", cell.request)

    def _bind(self, message: Message, metadata: Mapping[str, Any]) -> Bound:
        sticky = self._magics.sticky
        # What a front end asks behind the user's back is meant for home, which it knows, and not for wherever the user is.
        if message.content.get("silent"):
            sticky = None
        return bind(str(message.content.get("code", "")), metadata, sticky)

    def _record(self, cell: Cell, binding: Binding) -> None:
        metadata = cell.request.metadata
        cell_id = metadata.get("cellId") or metadata.get("cell_id")
        cell.record = self._recorder.cell(
            source=cell.code,
            cell=str(cell_id) if cell_id else None,
            notebook=self._notebook,
            selector=binding.selector,
            language=binding.language,
            background=binding.background,
            run=self._run_id,
            session=self._session,
        )

    def _view(self, cell: Cell, kind: str, content: dict[str, Any]) -> None:
        self.publish(kind, content, cell.parent)

    def _replay(self, replay: Callable[[Output], None]) -> None:
        """Let a job's output appear in the cell that runs now: the one that waits for it."""
        if self._current is not None:
            replay(NotebookOutput(self, self._current))

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
                self.ask(request.client, place, message)
        elif channel != IOPUB:
            if request is not None and not request.answered:
                request.answered = True
                self._answer(request, message)
        elif kind != "status" or request is not None:
            self.forward(message)

    def forward(self, message: Message) -> None:
        """Send a kernel's message to everybody, as if it came from the one kernel that they know."""
        message.header["session"] = self._session
        self._front.publish(message)

    def ask(self, client: Client, place: Place, message: Message) -> None:
        """Take a kernel's question to the client whose request it serves."""
        self._asking[message.id] = self._asked = place
        message.header["session"] = self._session
        self._front.ask(client, message)

    def publish(self, kind: str, content: dict[str, Any], parent: bytes) -> Message:
        """Send a message of ours to everybody."""
        message = Message.new(kind, content, self._session, parent=parent)
        self._front.publish(message)
        return message

    def _send(self, place: Place, client: Client, message: Message, shift: int = 0) -> None:
        self._requests[message.id] = Request(client, message, place, shift)
        if len(self._requests) > _REMEMBERED:
            self._requests.popitem(last=False)
        place.send(CONTROL if client.channel == CONTROL else SHELL, message)

    def _answer(self, request: Request, message: Message) -> None:
        message.header["session"] = self._session
        if request.shift and message.kind == "complete_reply":
            content = message.content
            message.content = {**content, **{key: content[key] + request.shift for key in ("cursor_start", "cursor_end") if key in content}}
        self._front.reply(request.client, message)

    def _reply(self, client: Client, request: Message, content: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        kind = request.kind.replace("_request", "_reply")
        self._front.reply(client, Message.new(kind, content, self._session, parent=dump(request.header), metadata=metadata))

    def _status(self, state: str, request: Message) -> None:
        self.publish("status", {"execution_state": state}, dump(request.header))

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
        self._front.close()
        self.stopped.set_result(code)
