"""The router's side of the magics: what the home kernel asks over the private socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import TransferError, WardianError
from ...nodes import files
from ..cells.binding import BindingError, check_language, sticky_binding
from ..cells.cell import Ending, Output, Run
from ..cells.cell_queue import CellQueue
from ..cells.jobs import Jobs
from ..cells.scatter import STORE, Each, ItemEnding
from ..places.place import Place
from ..places.reach import Reach
from ..record import playback
from ..values.exchange import NAME, Exchange


class Magics:
    """Serves the magics. Holds the last results."""

    def __init__(self, reach: Reach, exchange: Exchange, jobs: Jobs, cells: CellQueue) -> None:
        self._cells = cells
        self._reach = reach
        self._exchange = exchange
        self._jobs = jobs
        self._last: dict[str, Ending] = {}
        self._places: dict[str, Place] = {}
        self._items: list[ItemEnding] = []
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "on": self._on,
            "jobs": self._list,
            "wait": self._wait,
            "stop": self._stop,
            "restart": self._restart,
            "concurrent": self._concurrent,
            "nodes": self._nodes,
            "delete": self._delete,
            "get": self._get,
            "put": self._put,
            "fetch": self._fetch,
            "send": self._send,
            "output": self._output,
            "results": self._results,
            "result": self._result,
            "items": self._list_items,
            "item": self._item,
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
        self._items = run.items if isinstance(run, Each) else []
        self._last = {name: run.endings[name] for name in self._places if name in run.endings}

    async def _on(self, request: dict[str, Any]) -> dict[str, Any]:
        """Set the sticky binding to what the arguments of an `%on` line say ("here" ends it), or say what it is (None)."""
        if request.get("line") is not None:
            binding = sticky_binding(str(request["line"]))
            if binding.selector is not None:
                await self._reach.nodes(binding.selector)
            self._cells.sticky = binding if binding.selector is not None else None
        sticky = self._cells.sticky
        if sticky is None or sticky.selector is None:
            return {"selector": None, "language": "python", "nodes": []}
        nodes = await self._reach.nodes(sticky.selector)
        return {"selector": sticky.selector, "language": sticky.language, "nodes": nodes, "options": sticky.options}

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

    async def _restart(self, request: dict[str, Any]) -> dict[str, Any]:
        language = request.get("language")
        selector = str(request["selector"])
        return {"nodes": await self._reach.restart(selector, None if language is None else check_language(language))}

    async def _concurrent(self, request: dict[str, Any]) -> dict[str, Any]:
        """Whether cells on different nodes run at once; `on` changes it."""
        if request.get("on") is not None:
            self._cells.concurrent = bool(request["on"])
        return {"on": self._cells.concurrent}

    async def _nodes(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"nodes": await self._reach.nodes(str(request["selector"]))}

    async def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        """The text of a bash variable by node. Values of Python kernels go another way: see `Exchange.lenders`."""
        name = _variable(request["name"])
        places = await self._reach.places(str(request["selector"]), "bash")
        found = await _all(self._exchange.get_text(_usable(place), name) for place in places)
        return {"values": {place.name: value for place, value in zip(places, found, strict=True)}}

    async def _put(self, request: dict[str, Any]) -> dict[str, Any]:
        """Set a bash variable."""
        name, text = _variable(request["name"]), str(request["text"])
        places = await self._reach.places(str(request["selector"]), "bash")
        await _all(self._exchange.put_text(_usable(place), name, text) for place in places)
        return {"nodes": [place.name for place in places]}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Delete a variable of Python kernels."""
        name = _variable(request["name"])
        places = await self._reach.places(str(request["selector"]), "python")
        await _all(self._exchange.delete(_usable(place), name) for place in places)
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

    async def _output(self, request: dict[str, Any]) -> dict[str, Any]:
        """Show the output of an earlier cell in the one that runs now, or write it to a file."""
        entry, outputs = await playback.find(self._cells.recorder, self._cells.notebook, str(request["cell"]))
        if request.get("save"):
            return {"lines": [playback.title(entry), *await playback.save(self._reach, entry, outputs, Path(request["save"]))]}

        def show(output: Output) -> None:
            output.publish("stream", {"name": "stderr", "text": playback.title(entry) + "\n"}, None)
            for kind, content in playback.shown(entry, outputs):
                output.publish(kind, content, None)

        self._cells.replay(show)
        return {"lines": []}

    async def _results(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"nodes": {name: ending.status for name, ending in self._last.items()}}

    async def _result(self, request: dict[str, Any]) -> dict[str, Any]:
        node = str(request["node"])
        ending = self._last.get(node)
        if ending is None:
            raise TransferError(node, "the last cell on nodes did not run there", remedy=f"it ran on {', '.join(self._last) or 'none'}")
        if self._items:
            remedy = "wardian.results.each has the values, in the order of the list"
            raise TransferError(node, "the last cell ran there once for each item", remedy=remedy)
        if ending.status != "ok":
            raise TransferError(node, "the last cell failed there, so there is no value", remedy="correct the cell and run it again")
        if ending.language != "python":
            return {"text": "".join(ending.text)}
        _usable(self._places[node])
        return {"number": ending.number}

    async def _list_items(self, request: dict[str, Any]) -> dict[str, Any]:
        """The items of the last cell with `--each`."""
        return {"items": [{"label": item.label, "node": item.node, "status": item.status} for item in self._items]}

    async def _item(self, request: dict[str, Any]) -> dict[str, Any]:
        """Where the value of one item is, or what it printed."""
        item = self._items[int(request["index"])]
        if item.status != "ok":
            message = f"item {item.label}: {item.status}, so there is no value"
            raise TransferError(item.node, message, remedy="correct the cell and run it again")
        if item.language == "bash":
            return {"text": item.text}
        _usable(self._places[item.node])
        return {"node": item.node, "name": f"{STORE}{item.index}"}


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
