"""Cells of a kernel of this notebook that was killed: nodes went on with them, and what they still say belongs in the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import SelectorError, WardianError
from ..cells.summary import compact
from ..places.place import Place
from ..wire import IOPUB, SHELL, STDIN, Message, whole_request
from .recording import Record, Recorder, Unfinished

if TYPE_CHECKING:
    from ..cells.cell import Run

_GONE = "the kernel there does not run it any more"
GONE = {"status": "error", "ename": "Lost", "evalue": _GONE, "traceback": [f"\x1b[0;31mLost\x1b[0m: {_GONE}"]}
_UNDEALT = "no more items came: the kernel that dealt them out is gone"
UNDEALT = {"status": "error", "ename": "Lost", "evalue": _UNDEALT, "traceback": [f"\x1b[0;31mLost\x1b[0m: {_UNDEALT}"]}


class OldCell:
    """A cell that an earlier kernel began. As an `Execution` it records what comes.

    shown: where it is shown in its notebook cell, the run that is given all that comes, and records it. unwanted: it is to be interrupted.
    """

    def __init__(self, request: Message, source: str, language: str, record: Record, ended: Callable[[OldCell], None]) -> None:
        """ended: called once it has ended everywhere. Where it runs is added with `on`, and how it ended with `replies`."""
        self.request = request
        self.language = language
        self.record = record
        self.selector: str | None = None
        self.nodes: list[str] = []
        self.replies: dict[str, dict[str, Any]] = {}
        self.reply: dict[str, Any] | None = None
        self.shown: Run | None = None
        self.unwanted = False
        self.items: dict[str, tuple[str, dict[str, Any]]] = {}
        """The last item that ended on a node since, as its request and its reply, by node."""
        self._unreachable: set[str] = set()
        self._source = source
        self._done = ended

    @property
    def title(self) -> str:
        """Its first line."""
        lines = (line.strip() for line in self._source.splitlines())
        return next((line for line in lines if line and not line.lstrip("# ").startswith("%%on")), "empty")[:60]

    @property
    def missing(self) -> list[str]:
        """The nodes where its end is not known."""
        return [node for node in self.nodes if node not in self.replies]

    def settle(self) -> None:
        """Record its end if nothing of it is missing."""
        if self.reply is not None or self.missing or not self.nodes:
            return
        failed = [node for node in self.nodes if self.replies[node].get("status") != "ok"]
        self.reply = {"status": "ok"}
        if failed:
            first = self.replies[failed[0]]
            self.reply = {"status": "error", "ename": first.get("ename"), "evalue": f"{compact(failed)}: {first.get('evalue')}"}
        self.record.done(self.reply)
        self._done(self)

    def unreachable(self, node: str, error: WardianError) -> None:
        """What it still does there is not heard for now: whoever is shown it is told so. Nothing is recorded: it may be heard yet."""
        run = self.shown
        if run is None or node not in self.missing or node in self._unreachable:
            return
        self._unreachable.add(node)
        record, run.cell.record = run.cell.record, None
        run.lost(next(place for place in run.places if place.name == node), error)
        run.cell.record = record

    def over(self, place: Place) -> None:
        """The place's kernel runs nothing of it (any more)."""
        _, reply = self.items.get(place.name, ("", None))
        if reply is not None and reply.get("status") == "ok":
            reply = UNDEALT
        self._end(place, reply or GONE)

    def part(self, request: str) -> OldCell | OldItem:
        """What a request of the cell's runs: all of it, or an item."""
        return self if request == self.request.id else OldItem(self, request)

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Record its output."""
        run = self._shown(place)
        if run is not None and channel == IOPUB:
            run.received(place, channel, message)
        elif channel == IOPUB and message.kind == "execute_input":
            self.record.begun()
        elif channel == IOPUB:
            self.record.output(place.name, message.kind, message.content_bytes)
        elif channel == SHELL and message.kind == "execute_reply":
            self._end(place, message.content)
        elif channel == STDIN:
            # Whoever it asks is gone.
            place.interrupt(self)

    def finished(self, place: Place, reply: Message) -> None:
        """It ended there."""
        self._end(place, reply.content)

    def lost(self, place: Place, error: WardianError) -> None:
        """Its kernel is gone."""
        self._end(place, {"status": "error", "ename": type(error).__name__, "evalue": error.message})

    def _end(self, place: Place, reply: dict[str, Any]) -> None:
        if place.name not in self.replies:
            self.replies[place.name] = reply
            run = self._shown(place)
            if run is not None:
                run.finished(place, Message.new("execute_reply", reply, ""))
            else:
                self.record.ended(place.name, reply)
            self.settle()

    def _shown(self, place: Place) -> Run | None:
        return None if place.name in self._unreachable else self.shown


class OldItem:
    """An item of an old `--each` cell, as an `Execution`: what it prints is the cell's, and nobody deals out another one after it."""

    def __init__(self, cell: OldCell, request: str) -> None:
        self.cell = cell
        self.request = cell.request.copy()
        self.request.header = {**cell.request.header, "msg_id": request}

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Record its output. Its end alone is not that of the cell there: another item may run by now."""
        if channel == SHELL and message.kind == "execute_reply":
            self.cell.items[place.name] = self.request.id, message.content
        else:
            self.cell.received(place, channel, message)

    def finished(self, place: Place, reply: Message) -> None:
        """It ended, and was the last one there."""
        self.cell.items[place.name] = self.request.id, reply.content
        self.cell.over(place)

    def lost(self, place: Place, error: WardianError) -> None:
        """Its kernel is gone."""
        self.cell.lost(place, error)


def cell_of(execution: object) -> OldCell | None:
    """The old cell that an execution runs, or runs an item of."""
    if isinstance(execution, OldItem):
        return execution.cell
    return execution if isinstance(execution, OldCell) else None


class Recovery:
    """What an earlier kernel of this notebook left on nodes."""

    def __init__(self, session: str, notebook: str, recorder: Recorder) -> None:
        self.cells: dict[str, OldCell] = {}
        self._session = session
        self._notebook = notebook
        self._recorder = recorder
        self._news: list[str] = []
        self.on_left: Callable[[OldCell, Unfinished], None] = lambda cell, left: None
        """Called with each cell of the notebook that an earlier kernel left, the last of them where it was run more than once."""

    def add(self, unfinished: list[Unfinished]) -> None:
        """Take what the journal knows."""
        latest = {item.entry.detail["cell"]: item for item in unfinished}
        for item in unfinished:
            detail = item.entry.detail
            cell = self._cell(str(detail["request"]), str(detail["source"]), str(detail["language"]), item.record, detail["cell"])
            cell.selector = detail["selector"]
            cell.nodes = list(item.entry.nodes)
            cell.replies.update(item.replies)
            if latest[detail["cell"]] is item:
                self.on_left(cell, item)
            cell.settle()

    def found(self, place: Place, begun: Message) -> OldCell:
        """A cell that a node's kernel says to have begun, and that is not ours."""
        request = begun.parent_id
        cell = self.cells.get(request)
        if cell is None:
            source = str(begun.content.get("code", ""))
            values = {"notebook": self._notebook, "selector": place.name, "language": place.language, "request": request}
            cell = self._cell(request, source, place.language, self._recorder.cell(source=source, **values))
        if place.name not in cell.nodes:
            cell.nodes.append(place.name)
            cell.record.nodes(cell.nodes)
        return cell

    def item(self, request: str) -> OldItem | None:
        """The item of an old cell that a request is; None where it is none."""
        cell = self.cells.get(whole_request(request))
        return OldItem(cell, request) if cell is not None and cell.request.id != request else None

    def on(self, node: str, language: str) -> list[OldCell]:
        """Those that may still run on a kernel of a node."""
        return [cell for cell in self.cells.values() if cell.language == language and node in cell.missing]

    def places(self, select: Callable[[str], Sequence[str]]) -> list[tuple[str, str]]:
        """The nodes and languages of all that is not known to have ended. select: the nodes that a selector picks."""
        found: dict[tuple[str, str], None] = {}
        for cell in self.cells.values():
            nodes: Sequence[str] = cell.missing
            if not cell.nodes and cell.selector is not None:
                try:
                    nodes = select(cell.selector)
                except SelectorError:
                    nodes = []
            found.update(((node, cell.language), None) for node in nodes)
        return list(found)

    def tell(self) -> str:
        """What the user has not been told yet, once; empty where there is nothing."""
        text = "".join(f"{line}\n" for line in self._news)
        self._news.clear()
        return text

    def _cell(self, request: str, source: str, language: str, record: Record, cell_id: str | None = None) -> OldCell:
        metadata = {"cellId": cell_id} if cell_id else None
        message = Message.new("execute_request", {"code": source, "silent": False}, self._session, metadata=metadata)
        message.header["msg_id"] = request
        cell = self.cells[request] = OldCell(message, source, language, record, self._ended)
        return cell

    def _ended(self, cell: OldCell) -> None:
        if cell.shown is not None:
            return
        how = "well" if cell.reply and cell.reply["status"] == "ok" else f"with {(cell.reply or {}).get('ename')}"
        shown = f"; %output {cell.record.name} shows what it printed" if cell.record.name else ""
        self._news.append(f"[an earlier cell on {compact(cell.nodes)} ({cell.title}) has ended {how}{shown}]")
