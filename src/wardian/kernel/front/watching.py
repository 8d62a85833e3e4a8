"""What a page that asked for it is told as it changes: the nodes, what is sticky, and how cells fare on their nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_TOGETHER = 0.02
"""Changes within this time go out as one message, seconds."""


class Watching:
    """Tells of changes once somebody has asked. Until then nothing is done: whoever has something to tell looks at `active` first.

    A message carries the number of its `sequence`; a page that asks is answered with the number from which on it has to listen.
    """

    def __init__(self, publish: Callable[[dict[str, Any]], None]) -> None:
        """publish: sends the content of a message to everybody."""
        self.active = False
        self._publish = publish
        self._sequence = 0
        self._changes: dict[str, Any] = {}
        self._cells: dict[str, dict[str, Any]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> int:
        """Somebody listens from now on. What has not been told is told first; gives the last number."""
        self._tell()
        self.active = True
        return self._sequence

    def changed(self, name: str, value: Any) -> None:
        """Something is now `value`."""
        if self.active:
            self._changes[name] = value
            self._soon()

    def cell(self, changes: dict[str, Any]) -> None:
        """A cell of the notebook fares otherwise: `cell` and `execution` name it, `nodes` are those that fare otherwise."""
        if not self.active:
            return
        entry = self._cells.get(changes["cell"])
        if entry is None or entry["execution"] != changes["execution"]:
            self._cells[changes["cell"]] = changes
        else:
            entry.update({**changes, "nodes": {**entry["nodes"], **changes["nodes"]}})
        self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TOGETHER, self._tell)

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        changes, self._changes = self._changes, {}
        cells, self._cells = self._cells, {}
        if cells:
            changes["cells"] = list(cells.values())
        if changes:
            self._sequence += 1
            self._publish({"sequence": self._sequence, **changes})
