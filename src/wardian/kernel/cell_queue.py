"""The notebook's cells, one after the other: each is bound, given to its places, answered, and followed by the next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import WardianError
from .binding import Binding, Bound, bind
from .cells import Cell, Output, Run, error_content, interrupted, make_run
from .clients import Clients
from .jobs import JobError, Jobs
from .places import Place
from .reach import Reach
from .recording import Recorder
from .sockets import Client
from .wire import Message

log = logging.getLogger("wardian.kernel")


class NotebookOutput:
    """A cell's output in the notebook."""

    def __init__(self, clients: Clients, cell: Cell) -> None:
        self._clients = clients
        self._cell = cell

    def publish(self, kind: str, content: dict[str, Any], node: str | None) -> None:
        """Send a message of ours."""
        message = self._clients.publish(kind, content, self._cell.parent)
        if self._cell.record is not None:
            self._cell.record.output(node, kind, message.content_bytes)

    def forward(self, message: Message, node: str | None) -> None:
        """Send a message of the kernel's."""
        if message.parent_id != self._cell.request.id:
            message.parent_bytes = self._cell.parent
        if self._cell.record is not None:
            self._cell.record.output(node, message.kind, message.content_bytes)
        self._clients.forward(message)

    def ask(self, place: Place, message: Message) -> None:
        """Ask whoever sent the cell."""
        self._clients.ask(self._cell.client, place, message)


class CellQueue:
    """Runs cells in the order in which they were sent. `sticky` is the binding of cells that say nothing else."""

    def __init__(self, clients: Clients, home: Place, reach: Reach, jobs: Jobs, recorder: Recorder, notebook: str, run: str | None) -> None:
        """notebook, run: what the journal names as the cells' notebook and run."""
        self.sticky: Binding | None = None
        self.on_values: Callable[[Run], None] = lambda run: None
        self._clients = clients
        self._home = home
        self._reach = reach
        self._jobs = jobs
        self._recorder = recorder
        self._notebook = notebook
        self._run_id = run
        self._count = 0
        self._queue: deque[Cell] = deque()
        self._current: Cell | None = None
        self._beginning = False

    def add(self, client: Client, message: Message) -> None:
        """Take an execute request."""
        self._queue.append(Cell(client, message))
        self._next()

    def interrupt(self) -> None:
        """Interrupt the cell that runs, wherever it runs."""
        cell = self._current
        if cell is None:
            return
        if cell.opening is not None and not cell.opening.done():
            cell.opening.cancel()
            self._fail(cell, interrupted())
        elif cell.run is not None:
            cell.run.interrupt()

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
        self._clients.status("busy", cell.request)
        if not cell.silent:
            self._clients.publish("execute_input", {"code": cell.code, "execution_count": cell.number}, cell.parent)
        try:
            bound = self.bind(cell.request, cell.request.metadata)
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
            cell.run = make_run(cell, bound.code, binding, places, NotebookOutput(self._clients, cell), self._ended)
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
            self.on_values(run)
        if run.cell.record is not None:
            run.cell.record.done(content)
        self._finish(run.cell, content)

    def _fail(self, cell: Cell, content: dict[str, Any]) -> None:
        if not cell.silent:
            NotebookOutput(self._clients, cell).publish("error", content, None)
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
            self._clients.drain()
        self._clients.reply(cell.client, cell.request, {**content, "execution_count": cell.number}, metadata)
        self._clients.status("idle", cell.request)
        self._current = None
        if failed:
            while self._queue:
                self._abort(self._queue.popleft())
        self._next()

    def _abort(self, cell: Cell) -> None:
        self._clients.status("busy", cell.request)
        self._clients.reply(cell.client, cell.request, {"status": "aborted"})
        self._clients.status("idle", cell.request)

    def bind(self, message: Message, metadata: Mapping[str, Any]) -> Bound:
        sticky = self.sticky
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
            session=self._clients.session,
        )

    def _view(self, cell: Cell, kind: str, content: dict[str, Any]) -> None:
        self._clients.publish(kind, content, cell.parent)

    def replay(self, replay: Callable[[Output], None]) -> None:
        """Let a job's output appear in the cell that runs now: the one that waits for it."""
        if self._current is not None:
            replay(NotebookOutput(self._clients, self._current))
