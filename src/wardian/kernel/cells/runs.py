"""A cell on several nodes: on all at once, one after the other, or as a race; with its output grouped by node."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..places.place import Place
from ..record.recording import RECORDED
from ..wire import Message
from .binding import Binding
from .cell import Cell, Ended, Output, Run, SingleRun, as_the_cells_own, own_reply
from .fanout import Lanes

NOT_RUN = {"ename": "NotRun", "evalue": "", "traceback": []}
"""The error of a node that was never given the cell, because it had failed before."""


class FanOut(Run):
    """On several nodes at once."""

    grouped = True

    def __init__(self, cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended) -> None:
        super().__init__(cell, code, binding, places, output, ended)
        names = [place.name for place in places] if self.grouped else []
        self._lanes = Lanes(names, self._emit, asyncio.get_running_loop().call_later, grouped=self.grouped)

    def _emit(self, kind: str, content: dict[str, Any]) -> None:
        if not self.cell.silent:
            self.output.publish(kind, content, None)

    def _show(self, place: Place, message: Message) -> None:
        self._show_in(place.name, place, message)

    def _show_in(self, lane: str, place: Place, message: Message) -> None:
        kind = message.kind
        if kind == "stream":
            self._lanes.stream(lane, message.content)
        elif kind == "execute_result":
            self._lanes.result(lane, message.content)
        elif kind in ("display_data", "update_display_data"):
            self._lanes.rich(lane, kind, message.content)
        elif kind == "error":
            self._lanes.error(lane, message.content)
        elif kind == "clear_output":
            self._lanes.clear(lane, bool(message.content.get("wait")))
        else:
            self.output.forward(message, place.name)

    def _failed(self, place: Place, content: dict[str, Any]) -> None:
        self._lanes.error(place.name, content)

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        self._judge(place.name, place, content, metadata)
        self._lanes.ended(place.name)
        if not self._open:
            self._close()

    def _judge(self, lane: str, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        """Note the error of an ending that the kernel itself has sent none for."""
        if content.get("status") == "error" and (place.name in self._overdue or not self._lanes.failed(lane)):
            self._lanes.error(lane, content)
        for entry in content.get("payload") or ():
            if entry.get("source") == "page":
                self._lanes.result(lane, {"data": entry.get("data", {})})

    def _close(self) -> None:
        error = self._lanes.finish()
        reply: dict[str, Any] = {"status": "error", **error} if error else {"status": "ok", "payload": [], "user_expressions": {}}
        self._ended(self, {**reply, "metadata": {"wardian": self.where}})


class Serial(FanOut):
    """On one node after the other, in order, until one fails."""

    def _begin(self) -> None:
        self._todo = deque(self.places)
        self._next()

    def _next(self) -> None:
        place = self._now = self._todo.popleft()
        self._lanes.open(place.name, live=True)
        place.execute(self)

    def _at_work(self) -> list[Place]:
        return [self._now] if self._now.name in self._open else []

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        if content.get("status") != "ok":
            while self._todo:
                name = self._todo.popleft().name
                del self._open[name]
                self._lanes.error(name, NOT_RUN)
                self._lanes.ended(name, 0.0)
        super()._place_ended(place, content, metadata)
        if self._open:
            self._next()


class First(FanOut):
    """On all at once: what the first node that ends without error sends is the cell's, and the others are interrupted."""

    def __init__(self, cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended) -> None:
        super().__init__(cell, code, binding, places, output, ended)
        self._begun = time.monotonic()
        self._held: dict[str, list[Message]] = {place.name: [] for place in places}
        self._seconds: dict[str, float] = {}
        self._winner: Place | None = None
        self._won: dict[str, Any] = {}

    @property
    def where(self) -> dict[str, Any]:
        """What outputs and the reply say of where it ran, and of who was the first."""
        return {**super().where, "first": self._winner.name} if self._winner is not None else super().where

    def _show(self, place: Place, message: Message) -> None:
        if message.kind not in RECORDED:
            self.output.forward(message, place.name)
        elif place is self._winner:
            as_the_cells_own(self, place, message)
        elif self._winner is None:
            self._held[place.name].append(message)

    def _failed(self, place: Place, content: dict[str, Any]) -> None:
        if self._winner is None:
            super()._failed(place, content)
        elif content.get("ename") == "NodeStuckError":
            self._emit("stream", {"name": "stderr", "text": f"{place.name}: {content['evalue']}\n"})

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        self._seconds[place.name] = time.monotonic() - self._begun
        if self._winner is None and content.get("status") == "ok":
            self._winner = place
            self._won = own_reply(self, place, content, metadata)
            for message in self._held.pop(place.name):
                as_the_cells_own(self, place, message)
            self._held.clear()
            if self._open and self._grace is None:
                self.interrupt()
                return
        elif self._winner is None:
            self._judge(place.name, place, content, metadata)
        if not self._open:
            self._close()

    def _close(self) -> None:
        if self._winner is not None:
            if self._won:
                won, self._won = self._won, {}
                self.endings = {name: ending for name, ending in self.endings.items() if name == self._winner.name}
                self._ended(self, won)
            return
        for place in self.places:
            for message in self._held[place.name]:
                super()._show(place, message)
        for place in self.places:
            self._lanes.ended(place.name, self._seconds[place.name])
        super()._close()


def make_run(cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended) -> Run:
    """The run of a cell on these places, as its binding asks. (One that deals items is made with them: `scatter.Each`.)"""
    kind: type[Run] = SingleRun
    if len(places) > 1:
        kind = First if binding.first else Serial if binding.serial else FanOut
    return kind(cell, code, binding, places, output, ended)
