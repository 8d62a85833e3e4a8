"""How the notebook's cells fare, as pages that watch are told it. Nothing is done while nobody does."""

from __future__ import annotations

from typing import Any

from ..front.watching import Watching
from ..places.place import Place
from .binding import HERE, Binding
from .cell import Cell, Run
from .summary import state_of


class Told:
    """Tells pages of cells, and of what is sticky."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    def sticky(self, binding: Binding | None) -> None:
        """Cells that say nothing else run there from now on."""
        self._watching.changed("sticky", sticky_as_told(binding))

    def cell(self, cell: Cell, state: str, reason: str = "") -> None:
        """A cell is queued, starting (its places are looked for), running, done, failed, interrupted, timed out or aborted."""
        if self._watching.active and cell.shown_in:
            self._watching.cell({**as_told(cell, None), "state": state, "reason": reason})

    def begins(self, cell: Cell, run: Run) -> None:
        """A cell has its places; from now on they tell how it fares there."""
        run.on_progress = self._progressed
        if self._watching.active and cell.shown_in:
            self._watching.cell({**as_told(cell, run), "state": "running"})

    def ended(self, cell: Cell, content: dict[str, Any]) -> None:
        """A cell has ended with this reply."""
        if content.get("status") == "ok":
            self.cell(cell, "done")
        else:
            self.cell(cell, state_of(content), f"{content.get('ename')}: {content.get('evalue')}")

    def _progressed(self, run: Run, place: Place) -> None:
        if self._watching.active and run.cell.shown_in:
            self._watching.cell({**as_told(run.cell, None), "nodes": {place.name: run.progress[place.name].as_told()}})


def as_told(cell: Cell, run: Run | None) -> dict[str, Any]:
    """A cell: on which nodes it runs, and how it fares on each."""
    told: dict[str, Any] = {"cell": cell.shown_in, "execution": cell.request.id, "nodes": {}}
    if run is not None:
        told["on"] = run.binding.selector or HERE
        told["nodes"] = {place.name: {"state": "queued"} for place in run.places}
        told["nodes"].update({name: progress.as_told() for name, progress in run.progress.items()})
    return told


def sticky_as_told(binding: Binding | None) -> dict[str, Any] | None:
    """A sticky binding in the form of a cell's metadata, or None."""
    return None if binding is None else {"on": binding.selector, "lang": binding.language}
