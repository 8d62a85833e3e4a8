"""The journal as a timeline: operations, runs, cells, transfers and events on one axis."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tornado import web

from .handler import Handler
from .operation import MOMENT, TEXT, WHOLE, Operation, Route, each, operation, query, ref, shape
from .shapes import PATH

RESOURCE = "wardian:journal"

LARGEST_OUTPUT = 1 << 20
"""Of a cell's output, bytes; what is more is left out, with a count."""

_OPTIONAL = {"x-optional": True}

_PAGE = shape(
    "Entries, oldest first. `before` names the page of what came earlier, where there may be more.",
    {"entries": each(ref("Entry"))},
    {"before": TEXT},
)

_OUTPUT = shape(
    "What a cell sent, in order: Jupyter messages by type and content, each from a node (or from home, without one). `left_out` counts "
    "messages that were too much.",
    {
        "entry": ref("Entry"),
        "outputs": each(shape("", {"message_type": TEXT, "content": {"type": "object"}, "time": MOMENT}, {"node": TEXT})),
    },
    {"left_out": WHOLE},
)


class Timeline(Handler):
    """A page of the journal."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "A page of the journal of an experiment, the latest unless it says otherwise",
            query={
                "path": PATH,
                "environment": query(TEXT, "the id of an environment; all of the experiment's without one", maxLength=200, **_OPTIONAL),
                "node": query(TEXT, "only what concerns this node", maxLength=200, **_OPTIONAL),
                "run": query(TEXT, "only what belongs to this run", maxLength=64, **_OPTIONAL),
                "kind": query(
                    each({"enum": ["operation", "run", "cell", "transfer", "event"]}, maxItems=5), "kinds of entries", **_OPTIONAL
                ),
                "since": query(MOMENT, "what began or lasted after this moment, seconds since the epoch", **_OPTIONAL),
                "until": query(MOMENT, "what began before this moment, seconds since the epoch", **_OPTIONAL),
                "before": query(TEXT, "`before` of another page", pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?_[0-9a-f-]{36}$", **_OPTIONAL),
                "limit": query(WHOLE, "how many entries, at most", default=200, minimum=1, maximum=1000),
            },
            gives={200: _PAGE},
        )
    )
    async def get(self) -> None:
        """Read it."""
        asked = self.query
        file = self.experiment_file(asked["path"])
        entries = await self.work(
            self.desk.entries(
                file,
                kinds=asked["kind"],
                node=asked["node"],
                environment=asked["environment"],
                run=asked["run"],
                since=asked["since"],
                until=asked["until"],
                ongoing=True,
                before=_cursor(asked["before"]),
                limit=asked["limit"],
            )
        )
        page: dict[str, Any] = {"entries": [self.desk.entry(entry) for entry in entries]}
        if len(entries) == asked["limit"]:
            page["before"] = f"{entries[0].started!r}_{entries[0].id}"
        self.answer(page)


class Outputs(Handler):
    """What a cell sent."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "What a cell sent, also when its notebook does not show it",
            query={"path": PATH, "entry": query(TEXT, "the id of the cell's entry", minLength=1, maxLength=64)},
            gives={200: _OUTPUT},
        )
    )
    async def get(self) -> None:
        """Read it."""
        file = self.experiment_file(self.query["path"])
        self.answer(await asyncio.to_thread(self._outputs, file, self.query["entry"]))

    def _outputs(self, file: Path, entry: str) -> dict[str, Any]:
        journal = self.desk.journal(file)
        found = journal.entries(kinds=["cell"], ids=[entry]) if journal else []
        if journal is None or not found:
            raise web.HTTPError(404, f"the journal has no cell's entry {entry!r}")
        outputs, size, left_out = [], 0, 0
        for item in journal.outputs(entry):
            size += len(str(item.content))
            if size > LARGEST_OUTPUT:
                left_out += 1
                continue
            told = {"message_type": item.message_type, "content": dict(item.content), "time": item.time}
            outputs.append({**told, "node": item.node} if item.node else told)
        return {"entry": self.desk.entry(found[0]), "outputs": outputs, **({"left_out": left_out} if left_out else {})}


ROUTES = [Route("journal", Timeline), Route("journal/outputs", Outputs)]


def _cursor(text: str | None) -> tuple[float, str] | None:
    if text is None:
        return None
    moment, _, entry = text.partition("_")
    return float(moment), entry
