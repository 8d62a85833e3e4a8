"""What an earlier cell printed, from the journal, and where that is not all of it, from the nodes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import AgentError, WardianError
from ..cells.ansi import plain
from ..cells.summary import compact
from ..front.flow import LEFT_OUT, VIEW, Excerpt, Printed, left_out
from ..places.reach import Reach
from .recording import Recorder

if TYPE_CHECKING:
    from ...journal import Journal, LogEntry, Output

Shown = tuple[str, dict[str, Any]]
"""A message type and its content."""


async def find(recorder: Recorder, notebook: str, cell: str) -> tuple[LogEntry, Sequence[Output]]:
    """A cell's entry and its output. cell: as for `Journal.find_cell`. Raises JournalError."""

    def read(journal: Journal) -> tuple[LogEntry, Sequence[Output]]:
        entry = journal.find_cell(cell, notebook)
        return entry, journal.outputs(entry.id)

    return await recorder.ask(read)


def title(entry: LogEntry) -> str:
    """One line that says which cell it is and how it ended."""
    took = f", {entry.seconds:.1f} s" if entry.seconds is not None else ""
    where = f" on {compact(entry.nodes)}" if entry.nodes else ""
    return f"── cell {entry.id[-8:]}{where}: {entry.status}{took} ──"


def shown(entry: LogEntry, outputs: Sequence[Output], limit: int = VIEW) -> Iterator[Shown]:
    """Its output as a cell shows it: text by node, together cut to `limit` bytes, and displays."""
    several = len(entry.nodes) > 1
    width = max((len(node) for node in entry.nodes), default=0)
    excerpts = {output.node: Excerpt(limit // max(1, len(entry.nodes))) for output in outputs}
    begun: dict[tuple[str | None, str], bool] = {}

    def text(node: str | None, name: str, piece: str) -> Shown:
        if not several or node is None:
            return "stream", {"name": name, "text": piece}
        # a piece may go on with a line that an earlier one began: it is not begun anew
        lines = piece.splitlines(keepends=True)
        prefix = f"{node:<{width}} │ "
        whole = "".join(line if begun.get((node, name)) and not number else prefix + line for number, line in enumerate(lines))
        begun[node, name] = not piece.endswith("\n")
        return "stream", {"name": name, "text": whole}

    def rest(node: str | None) -> Iterator[Shown]:
        omission = excerpts[node].release()
        if omission is not None:
            if omission.left_out.size:
                yield text(node, "stderr", left_out(omission, entry.id[-8:]))
            for piece in omission.tail:
                yield text(node, piece.name, piece.text)

    for output in outputs:
        content, kind = dict(output.content), output.message_type
        if kind == "stream":
            piece = Printed.of(content)
            if excerpts[output.node].passes(len(piece.text)):
                yield text(output.node, piece.name, piece.text)
            elif head := excerpts[output.node].take(piece):
                yield text(output.node, piece.name, head)
            continue
        yield from rest(output.node)
        if kind == "error":
            yield text(output.node, "stderr", "\n".join(content.get("traceback") or [str(content.get("evalue"))]) + "\n")
        elif kind in ("display_data", "execute_result"):
            if several and output.node is not None:
                yield text(output.node, "stdout", "\n")
            yield "display_data", {"data": content.get("data", {}), "metadata": content.get("metadata", {}), "transient": {}}
    for node in excerpts:
        yield from rest(node)


def as_text(entry: LogEntry, outputs: Sequence[Output]) -> Iterator[str]:
    """Its output for a terminal: all text that is recorded, and of displays their plain form."""
    for kind, content in shown(entry, outputs, sys.maxsize):
        yield content["text"] if kind == "stream" else _plain_form(content["data"])


async def save(reach: Reach, entry: LogEntry, outputs: Sequence[Output], target: Path) -> list[str]:
    """Write the whole text that a cell printed to a file, of several nodes to a folder with a file for each; gives a line for each.

    What the journal left out comes from the node, where it is kept until newer output needs the space. Raises WardianError.
    """
    told = []
    nodes: Sequence[str | None] = entry.nodes or (None,)
    if len(nodes) > 1:
        target.mkdir(parents=True, exist_ok=True)
    for node in nodes:
        path = target / f"{(node or 'here').replace('[', '-').rstrip(']')}.txt" if len(nodes) > 1 else target
        mine = [output for output in outputs if output.node == node and output.message_type == "stream"]
        complete = not any(output.content.get(LEFT_OUT) for output in mine)
        note = ""
        if node is not None and not complete:
            try:
                note = await _fetch(reach, entry, node, path)
                told.append(f"{node} │ {path}: {path.stat().st_size:,} bytes, from the node{note}")
                continue
            except WardianError as error:
                note = f"; it is not complete: {error.message}"
        path.write_text("".join(str(output.content.get("text", "")) for output in mine), errors="replace")
        told.append(f"{node or 'here'} │ {path}: {path.stat().st_size:,} bytes, from the journal{note}")
    return told


async def _fetch(reach: Reach, entry: LogEntry, node: str, path: Path) -> str:
    offset, kept, lost = 0, 1, 0
    with path.open("wb") as file:
        while offset < kept:
            answer = await reach.output(node, str(entry.detail["language"]), str(entry.detail["request"]), offset)
            data = str(answer["text"]).encode("latin-1")
            kept, lost = int(answer["kept"]), int(answer["lost"])
            if not data and offset < kept:
                raise AgentError(node, "its output ended early")
            file.write(data)
            offset += len(data)
    return f"; {lost:,} bytes more were not kept there" if lost else ""


def _plain_form(data: dict[str, Any]) -> str:
    text = data.get("text/plain", "")
    return plain("".join(text) if isinstance(text, list) else str(text)) + "\n"
