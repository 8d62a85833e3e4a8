"""Cells that a kernel of this notebook began before it was killed, shown on in their notebook: what is recorded, and what still comes."""

from __future__ import annotations

import time
from typing import Any

from ..front.clients import Clients
from ..front.sockets import Client
from ..places.reach import Reach
from ..record.recording import REPLY, Unfinished
from ..record.recovery import OldCell
from ..wire import IOPUB, SHELL, Message
from .binding import Binding
from .cell import Cell, Progress, Run
from .cell_queue import CellQueue, NotebookOutput
from .runs import make_run
from .told import as_told


class Earlier:
    """Shows the cells that nodes went on with to pages that ask for what they have missed."""

    def __init__(self, clients: Clients, reach: Reach, cells: CellQueue) -> None:
        self._clients = clients
        self._reach = reach
        self._cells = cells
        self._running: list[Run] = []

    def take_over(self, old: OldCell, left: Unfinished) -> None:
        """Show a cell, if it is known where, and no newer execution is shown there."""
        if not old.nodes or left.entry.detail["background"] or not self._clients.following.taken_over(old.request):
            return
        cell = Cell(Client(SHELL, []), old.request)
        cell.number = self._cells.next_number()
        self._clients.publish("execute_input", {"code": cell.code, "execution_count": cell.number}, cell.parent)
        places = {name: self._reach.stand_in(name, old.language) for name in old.nodes}
        binding = Binding(selector=old.selector, language=old.language)
        run = make_run(cell, cell.code, binding, list(places.values()), NotebookOutput(self._clients, cell), self._ended)
        self._running.append(run)
        begun = time.monotonic() - (time.time() - left.entry.started)
        run.progress = {name: Progress(begun) for name in places}
        self._cells.told.begins(cell, run)
        for output in left.outputs:
            message = Message.new(output.message_type, dict(output.content), self._clients.session, parent=cell.parent)
            if output.node is None:
                self._clients.publish(message.kind, message.content, cell.parent)
            elif message.kind == REPLY:
                run.finished(places[output.node], message)
            else:
                run.received(places[output.node], IOPUB, message)
        # only now: all this is recorded
        cell.record = old.record
        old.shown = run

    def unfinished(self) -> list[dict[str, Any]]:
        """Those that have not ended, as a page is told them."""
        return [{**as_told(run.cell, run), "state": "running"} for run in self._running]

    def _ended(self, run: Run, content: dict[str, Any]) -> None:
        self._running.remove(run)
        self._cells.told.ended(run.cell, content)
        self._clients.status("idle", run.cell.request)
        self._cells.tell_busy()
