"""The router's side of the magics: what the home kernel asks over the private socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import TransferError, WardianError
from ..nodes import files
from .binding import Binding, BindingError, check_language
from .cell_queue import CellQueue
from .cells import Ending, Run
from .exchange import NAME, Exchange
from .jobs import Jobs
from .places import Place
from .reach import Reach


class Magics:
    """Serves the magics. Holds the last results."""

    def __init__(self, reach: Reach, exchange: Exchange, jobs: Jobs, cells: CellQueue) -> None:
        self._cells = cells
        self._reach = reach
        self._exchange = exchange
        self._jobs = jobs
        self._last: dict[str, Ending] = {}
        self._places: dict[str, Place] = {}
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "on": self._on,
            "jobs": self._list,
            "wait": self._wait,
            "stop": self._stop,
            "get": self._get,
            "put": self._put,
            "fetch": self._fetch,
            "send": self._send,
            "results": self._results,
            "result": self._result,
        }

    async def serve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request. Raises WardianError."""
        operation = self._operations.get(str(request.get("operation")))
        if operation is None:
            raise WardianError(f"the router knows no operation {request.get('operation')!r}")
        return await operation(request)

    def ended(self, run: Run) -> None:
        """A cell on nodes has ended: its values are now the last ones."""
        self._places = {place.name: place for place in run.places}
        self._last = {name: run.endings[name] for name in self._places if name in run.endings}

    async def _on(self, request: dict[str, Any]) -> dict[str, Any]:
        """Set the sticky binding to a selector, end it ("here"), or say what it is (None)."""
        selector, language = request["selector"], check_language(request.get("language", "python"))
        if selector == "here":
            self._cells.sticky = None
        elif selector is not None:
            nodes = await self._reach.nodes(selector)
            self._cells.sticky = Binding(selector=selector, language=language, source="sticky")
            return {"selector": selector, "language": language, "nodes": nodes}
        sticky = self._cells.sticky
        if sticky is None or sticky.selector is None:
            return {"selector": None, "language": "python", "nodes": []}
        return {"selector": sticky.selector, "language": sticky.language, "nodes": await self._reach.nodes(sticky.selector)}

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"jobs": self._jobs.summaries()}

    async def _wait(self, request: dict[str, Any]) -> dict[str, Any]:
        job = await self._jobs.wait(str(request["name"]), request.get("timeout"))
        self._cells.replay(job.replay)
        if job.run is not None:
            self.ended(job.run)
        return {**job.summary(), "reply": {key: (job.reply or {}).get(key) for key in ("status", "ename", "evalue")}}

    async def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._jobs.stop(str(request["name"])).summary()

    async def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        name = _variable(request["name"])
        places = await self._reach.places(str(request["selector"]), check_language(request.get("language", "python")))
        found = await _all(self._exchange.get(_usable(place), name) for place in places)
        return {"values": {place.name: value for place, value in zip(places, found, strict=True)}}

    async def _put(self, request: dict[str, Any]) -> dict[str, Any]:
        name, path = _variable(request["name"]), Path(request["path"])
        places = await self._reach.places(str(request["selector"]), check_language(request.get("language", "python")))
        await _all(self._exchange.put(_usable(place), name, path) for place in places)
        return {"nodes": [place.name for place in places]}

    async def _fetch(self, request: dict[str, Any]) -> dict[str, Any]:
        """Copy a file or folder from nodes; from several, each into a folder named like the node."""
        nodes, target = await self._reach.nodes(str(request["selector"])), Path(request["target"])
        places = {node: target / node if len(nodes) > 1 else target for node in nodes}
        if len(nodes) > 1:
            for place in places.values():
                place.mkdir(parents=True, exist_ok=True)
        channels = [await self._reach.channel(node) for node in nodes]
        work = (files.get(channel, node, str(request["source"]), places[node]) for node, channel in zip(nodes, channels, strict=True))
        return {"transfers": [asdict(done) for done in await _all(work)]}

    async def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        """Copy a file or folder of home to nodes."""
        source, target = Path(request["source"]), str(request["target"])
        nodes = await self._reach.nodes(str(request["selector"]))
        channels = [await self._reach.channel(node) for node in nodes]
        work = (files.put(channel, node, source, target) for node, channel in zip(nodes, channels, strict=True))
        return {"transfers": [asdict(done) for done in await _all(work)]}

    async def _results(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"nodes": {name: ending.status for name, ending in self._last.items()}}

    async def _result(self, request: dict[str, Any]) -> dict[str, Any]:
        node = str(request["node"])
        ending = self._last.get(node)
        if ending is None:
            raise TransferError(node, "the last cell on nodes did not run there", remedy=f"it ran on {', '.join(self._last) or 'none'}")
        if ending.status != "ok":
            raise TransferError(node, "the last cell failed there, so there is no value", remedy="correct the cell and run it again")
        if ending.language == "bash":
            return {"text": "".join(ending.text)}
        return await self._exchange.result(_usable(self._places[node]), ending.number)


async def _all(work: Any) -> list[Any]:
    """The results of all; when one fails the others are not left running."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(item) for item in work]
    except* WardianError as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _usable(place: Place) -> Place:
    if place.error is not None:
        raise place.error
    return place


def _variable(name: object) -> str:
    if not isinstance(name, str) or not NAME.match(name):
        raise BindingError(f"{name!r} is no name of a variable", remedy="use letters, digits and _")
    return name
