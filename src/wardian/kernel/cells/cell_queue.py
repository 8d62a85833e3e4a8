"""The notebook's cells, in order: each is bound, given to its places, answered, and followed by the next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ...descriptors import explained
from ...errors import WardianError
from ..front.clients import Clients
from ..front.sockets import Client
from ..places.place import Place
from ..places.reach import Reach
from ..record.recording import Recorder
from ..record.recovery import cell_of
from ..wire import Message
from .binding import HELP, Binding, Bound, bind
from .cell import Cell, Ended, Output, Run, error_content, interrupted
from .jobs import JobError, Jobs
from .runs import make_run
from .scatter import Each, Item, Question, literal_items
from .told import Told, as_told

log = logging.getLogger("wardian.kernel")


class NotebookOutput:
    """A cell's output in the notebook. What its places send is recorded before it comes here, so only our own errors are recorded here."""

    def __init__(self, clients: Clients, cell: Cell, *, recording: bool = False) -> None:
        """recording: whether everything is recorded here, because it is that of another cell, shown once more."""
        self._clients = clients
        self._cell = cell
        self._recording = recording

    def publish(self, kind: str, content: dict[str, Any], node: str | None) -> None:
        """Send a message of ours."""
        message = self._clients.publish(kind, content, self._cell.parent)
        if self._cell.record is not None and (self._recording or kind == "error"):
            self._cell.record.output(node, kind, message.content_bytes)

    def forward(self, message: Message, node: str | None) -> None:
        """Send a message of the kernel's."""
        if message.parent_id != self._cell.request.id:
            message.parent_bytes = self._cell.parent
        if self._cell.record is not None and self._recording:
            self._cell.record.output(node, message.kind, message.content_bytes)
        self._clients.forward(message)

    def ask(self, place: Place, message: Message) -> None:
        """Ask whoever sent the cell."""
        self._clients.ask(self._cell.client, place, message)


class CellQueue:
    """Runs cells in the order in which they were sent, one at a time. `sticky` is the binding of cells that say nothing else.

    Where `concurrent` is set, a cell begins as soon as no earlier one that has not ended uses any of its nodes. A cell at home still
    waits for all before it, and all after it wait for it: it may use what they made, or change what they will find.
    """

    def __init__(self, clients: Clients, home: Place, reach: Reach, jobs: Jobs, recorder: Recorder, notebook: str, run: str | None) -> None:
        """notebook, run: what the journal names as the cells' notebook and run."""
        self._sticky: Binding | None = None
        self.concurrent = False
        self.host: Cell | None = None
        """The cell that runs, where it is no cell of ours but asks for something that is shown in it."""
        self.on_values: Callable[[Run], None] = lambda run: None
        self._clients = clients
        self.told = Told(clients.watching)
        self._home = home
        self._reach = reach
        self._jobs = jobs
        self.recorder = recorder
        self.notebook = notebook
        self._run_id = run
        self._count = 0
        self._queue: deque[Cell] = deque()
        self._active: list[Cell] = []
        self._unwritten: list[tuple[int, str]] = []
        self._beginning = False

    @property
    def sticky(self) -> Binding | None:
        """Where cells run that say nothing else."""
        return self._sticky

    @sticky.setter
    def sticky(self, binding: Binding | None) -> None:
        self._sticky = binding
        self.told.sticky(binding)

    def add(self, client: Client, message: Message) -> None:
        """Take an execute request."""
        cell = Cell(client, message)
        self._queue.append(cell)
        self.told.cell(cell, "queued")
        self._next()

    def count_from(self, number: int) -> None:
        """The next cell has this number."""
        self._count = number - 1

    def interrupt(self) -> None:
        """Interrupt the cells that run, wherever they run; where there is none, those of an earlier kernel that are shown on."""
        if not self._active:
            self._reach.interrupt_earlier()
        for cell in list(self._active):
            if cell.opening is not None and not cell.opening.done():
                cell.opening.cancel()
                self._fail(cell, interrupted())
            elif cell.run is not None:
                cell.run.interrupt()
                self._hurry(cell)

    def next_number(self) -> int:
        """The number of a cell that begins."""
        self._count += 1
        return self._count

    def tell_busy(self) -> None:
        """Say so again if cells run, after it was said that one has ended."""
        if self._active:
            # The last status that a front end hears is the one that it shows.
            self._clients.status("busy", self._active[-1].request)

    def history(self) -> list[tuple[int, str]]:
        """Number and source of the cells on nodes that home's history lacks; whoever asks has to give them to it."""
        unwritten, self._unwritten = self._unwritten, []
        return unwritten

    def _next(self) -> None:
        # A cell may end while it begins; then the loop that began it goes on, so that a thousand such cells need no thousand frames.
        if self._beginning:
            return
        self._beginning = True
        try:
            while (cell := self._free()) is not None:
                self._queue.remove(cell)
                with self._clients.held():
                    self._begin(cell)
        finally:
            self._beginning = False

    def _free(self) -> Cell | None:
        """The first cell that may begin."""
        if not self._active:
            return self._queue[0] if self._queue else None
        if not self.concurrent:
            return None
        taken: set[str] = set()
        for cell in self._active:
            nodes = self._nodes(cell)
            if nodes is None:
                return None
            taken |= nodes
        for cell in self._queue:
            nodes = self._nodes(cell)
            if nodes is None:
                return None
            if taken.isdisjoint(nodes):
                return cell
            taken |= nodes
        return None

    def _nodes(self, cell: Cell) -> frozenset[str] | None:
        """The nodes that a cell uses; None for one at home, for one that is mistaken, and where it is not known yet."""
        if cell.nodes is None and cell.finding is None:
            try:
                selector = self.bind(cell.request, cell.request.metadata).binding.selector
            except WardianError:
                return None
            if selector is not None:
                cell.finding = asyncio.create_task(self._find(cell, selector))
        return cell.nodes

    async def _find(self, cell: Cell, selector: str) -> None:
        try:
            cell.nodes = frozenset(await self._reach.nodes(selector))
        except WardianError:
            # It waits for its turn, and its error will be found again.
            return
        self._next()

    def _begin(self, cell: Cell) -> None:
        self._active.append(cell)
        self.told.cell(cell, "starting")
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
        if bound.help:
            NotebookOutput(self._clients, cell).publish("stream", {"name": "stdout", "text": HELP}, None)
            self._finish(cell, {"status": "ok", "payload": [], "user_expressions": {}})
            return
        binding = bound.binding
        if not cell.silent:
            self._record(cell, binding)
        if binding.selector is None:
            cell.earlier = self.history()
            self._launch(cell, bound, [self._home])
            return
        if cell.store_history and not cell.silent:
            self._unwritten.append((cell.number, cell.code))
        places = self._reach.ready(binding.selector, binding.language) if binding.each is None else None
        if places is not None:
            self._launch(cell, bound, places)
            return
        cell.opening = asyncio.create_task(self._open(cell, bound, binding.selector))
        cell.opening.add_done_callback(lambda task: self._opened(cell, task))

    async def _open(self, cell: Cell, bound: Bound, selector: str) -> None:
        each = bound.binding.each
        items = await self._items(each[1]) if each is not None else None
        places = await self._reach.places(selector, bound.binding.language, lambda text: self._note(cell, text))
        self._launch(cell, bound, places, items)

    async def _items(self, expression: str) -> list[Item]:
        """The items of a list: written out, or known at home."""
        items = literal_items(expression)
        if items is not None:
            return items
        question = Question(expression, self._clients.session)
        self._home.execute(question)
        try:
            return await question.items
        except asyncio.CancelledError:
            self._home.interrupt(question)
            raise

    def _opened(self, cell: Cell, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        error = explained(error)
        if not isinstance(error, WardianError):
            log.error("a cell could not be started", exc_info=error)
        self._fail(cell, error_content(error))

    def _note(self, cell: Cell, text: str) -> None:
        """Say what takes its time before the cell can run."""
        if not cell.silent:
            NotebookOutput(self._clients, cell, recording=True).publish("stream", {"name": "stderr", "text": text}, None)

    def _tell(self, cell: Cell, places: list[Place]) -> None:
        """Say what the user should know of cells that an earlier kernel of this notebook left on nodes."""
        if cell.silent:
            return
        text = self._reach.recovery.tell()
        for place in places:
            if (old := cell_of(place.resumed)) is not None:
                text += f"[{place.name} is still busy with an earlier cell ({old.title}): this one waits for it]\n"
        if text:
            NotebookOutput(self._clients, cell, recording=True).publish("stream", {"name": "stderr", "text": text}, None)

    def _launch(self, cell: Cell, bound: Bound, places: list[Place], items: list[Item] | None = None) -> None:
        self._tell(cell, places)
        binding = bound.binding

        def make(output: Output, ended: Ended) -> Run:
            if items is not None:
                return Each(cell, bound.code, binding, places, output, ended, items)
            return make_run(cell, bound.code, binding, places, output, ended)

        if binding.selector is not None:
            cell.nodes = frozenset(place.name for place in places)
        if not binding.background:
            cell.run = make(NotebookOutput(self._clients, cell), self._ended)
            self.told.begins(cell, cell.run)
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
            self.told.ended(cell, content)
            if cell.record is not None:
                cell.record.done(content)

        run = make(job, ended)
        self.told.begins(cell, run)
        if cell.record is not None:
            cell.record.nodes(run.nodes)
        cell.in_background = True
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
        if cell not in self._active:
            return
        if not cell.in_background:
            self.told.ended(cell, content)
        failed = content.get("status") == "error" and cell.stop_on_error and not cell.silent
        if failed:
            # As ipykernel does: what has been sent by now is aborted, also if we have not looked at it yet.
            self._clients.drain()
        if "KeyboardInterrupt" in f"{content.get('ename')} {content.get('evalue')}":
            self._hurry(cell)
        self._clients.reply(cell.client, cell.request, {**content, "execution_count": cell.number}, metadata)
        self._clients.status("idle", cell.request)
        self._active.remove(cell)
        self.tell_busy()
        if failed:
            while self._queue:
                self._abort(self._queue.popleft())
        self._next()

    def _hurry(self, cell: Cell) -> None:
        self._clients.hurry(cell.parent, cell.record.name if cell.record is not None else None)

    def _abort(self, cell: Cell) -> None:
        self.told.cell(cell, "aborted")
        self._clients.status("busy", cell.request)
        self._clients.reply(cell.client, cell.request, {"status": "aborted"})
        self._clients.status("idle", cell.request)

    def unfinished(self) -> list[dict[str, Any]]:
        """The cells that have not ended, as a page is told them."""
        running = [(job.cell, job.run, "running") for job in self._jobs.running()]
        running += [(cell, cell.run, "starting" if cell.run is None else "running") for cell in self._active]
        cells = running + [(cell, None, "queued") for cell in self._queue]
        return [{**as_told(cell, run), "state": state} for cell, run, state in cells if cell.shown_in]

    def bind(self, message: Message, metadata: Mapping[str, Any]) -> Bound:
        sticky = self.sticky
        # What a front end asks behind the user's back is meant for home, which it knows, and not for wherever the user is.
        if message.content.get("silent"):
            sticky = None
        return bind(str(message.content.get("code", "")), metadata, sticky)

    def _record(self, cell: Cell, binding: Binding) -> None:
        metadata = cell.request.metadata
        cell_id = metadata.get("cellId") or metadata.get("cell_id")
        cell.record = self.recorder.cell(
            source=cell.code,
            cell=str(cell_id) if cell_id else None,
            notebook=self.notebook,
            selector=binding.selector,
            language=binding.language,
            background=binding.background,
            run=self._run_id,
            session=self._clients.session,
            request=cell.request.id,
        )

    def _view(self, cell: Cell, kind: str, content: dict[str, Any]) -> None:
        self._clients.publish(kind, content, cell.parent)

    def replay(self, replay: Callable[[Output], None]) -> None:
        """Let a job's output appear in the cell that runs now: the one that waits for it."""
        cell = self._active[-1] if self._active else self.host
        if cell is not None:
            replay(NotebookOutput(self._clients, cell, recording=True))
