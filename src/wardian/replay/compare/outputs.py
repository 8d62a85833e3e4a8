"""What a cell showed on one node, put together from the messages that it sent, and compared. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...kernel.cells.ansi import plain
from ...kernel.cells.fanout import redrawn
from ..rows import MIME
from . import images, structures, tables, text
from .results import Finding, Place, Verdict
from .rules import Rules

RESOURCE, JSON, SVG = "application/vnd.dataresource+json", "application/json", "image/svg+xml"
_PLOTS = ("application/vnd.plotly.v1+json", "application/geo+json")
_NOTES = re.compile(r"^(?:node \S+: adding what a Python kernel needs .*|.* → .* │ [0-9,]+ of [0-9,]+ MiB, [0-9,]+ MiB/s)\n", re.MULTILINE)
"""What Wardian itself says while it makes a node ready or a transfer takes long, which is no output of the cell."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that a cell sent: the type and content of the Jupyter message. node: None is home."""

    node: str | None
    kind: str
    content: Mapping[str, Any]


@dataclass
class Shown:
    """What a cell showed on one node: its streams with the pieces put together, its displays, and the error that ended it."""

    stdout: str = ""
    stderr: str = ""
    displays: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    error: tuple[str, str, str] | None = None

    def __bool__(self) -> bool:
        return bool(self.stdout or self.stderr or self.displays or self.error)


def by_node(messages: Iterable[Message]) -> dict[str | None, Shown]:
    """What was shown on each node, as a notebook shows it in the end: cleared is gone, redrawn is as it was last."""
    found: dict[str | None, _Gathered] = {}
    for message in messages:
        found.setdefault(message.node, _Gathered()).take(message)
    return {node: shown for node, gathered in found.items() if (shown := gathered.shown())}


def compare(old: Shown, new: Shown, node: str | None, rules: Rules) -> list[Finding]:
    """What differs between what two executions showed on one node."""
    found: list[Finding] = []
    for part, one, other in (("stdout", old.stdout, new.stdout), ("stderr", old.stderr, new.stderr)):
        found += _text(one, other, Place(node, part), rules)
    for index in range(max(len(old.displays), len(new.displays))):
        if index >= len(new.displays):
            name, data = old.displays[index]
            found.append(Finding(_named(node, name, index), "missing", Verdict.DIFFERENT, _said(data), "", f"the {name} is missing"))
        elif index >= len(old.displays):
            name, data = new.displays[index]
            found.append(Finding(_named(node, name, index), "extra", Verdict.DIFFERENT, "", _said(data), f"the {name} is extra"))
        else:
            name, data = old.displays[index]
            found += _bundle(data, new.displays[index][1], _named(node, name, index), rules)
    return found + _error(old.error, new.error, Place(node, "error"), rules)


class _Gathered:
    def __init__(self) -> None:
        self._streams: dict[str, list[str]] = {}
        self._displays: list[tuple[str, dict[str, Any], str | None]] = []
        self._error: tuple[str, str, str] | None = None
        self._to_clear = False

    def take(self, message: Message) -> None:
        content = message.content
        if message.kind == "clear_output":
            self._to_clear = True
            if not content.get("wait"):
                self._clear()
            return
        if message.kind not in ("stream", "display_data", "update_display_data", "execute_result", "error"):
            return
        if message.kind == "update_display_data":
            name = _display_id(content)
            self._displays = [
                (kind, dict(content.get("data", {})), id_) if name is not None and id_ == name else (kind, data, id_)
                for kind, data, id_ in self._displays
            ]
            return
        self._clear()
        if message.kind == "stream":
            self._streams.setdefault(str(content.get("name", "stdout")), []).append(str(content.get("text", "")))
        elif message.kind == "error":
            trace = "\n".join(str(line) for line in content.get("traceback", ()))
            self._error = (str(content.get("ename", "")), str(content.get("evalue", "")), plain(trace))
        else:
            name = "result" if message.kind == "execute_result" else "display"
            self._displays.append((name, dict(content.get("data", {})), _display_id(content)))

    def shown(self) -> Shown:
        streams = {name: _seen("".join(pieces)) for name, pieces in self._streams.items()}
        stdout, stderr = (_NOTES.sub("", streams.get(name, "")) for name in ("stdout", "stderr"))
        return Shown(stdout, stderr, [(name, data) for name, data, _ in self._displays], self._error)

    def _clear(self) -> None:
        if self._to_clear:
            self._streams, self._displays, self._error, self._to_clear = {}, [], None, False


def _display_id(content: Mapping[str, Any]) -> str | None:
    name = (content.get("transient") or {}).get("display_id")
    return str(name) if name is not None else None


def _seen(printed: str) -> str:
    """Text without colours, and of lines that redraw themselves the last state."""
    lines = plain(printed).replace("\r\n", "\n").split("\n")
    return "\n".join(redrawn(line) for line in lines)


def _named(node: str | None, name: str, index: int) -> Place:
    return Place(node, name if name == "result" else f"{name} {index + 1}")


def _text(old: str, new: str, place: Place, rules: Rules) -> list[Finding]:
    if old == new:
        return []
    one, other = structures.parse(old), structures.parse(new)
    if one is not None and other is not None:
        found = structures.compare(one, other, place, rules)
        return found or [Finding(place, "format", Verdict.EQUAL, "", "", "the same JSON, written otherwise")]
    return text.compare(old, new, place, rules)


def _bundle(old: Mapping[str, Any], new: Mapping[str, Any], place: Place, rules: Rules) -> list[Finding]:
    """One display in the richest form that both have and that can be compared."""
    if old == new:
        return []
    found = _richest(old, new, place, rules)
    if found is None:
        one, other = (", ".join(sorted(data)) or "nothing" for data in (old, new))
        return [Finding(place, "type", Verdict.DIFFERENT, one, other, "shown as something else")]
    return found or [Finding(place, "format", Verdict.EQUAL, "", "", "the same, shown otherwise")]


def _richest(old: Mapping[str, Any], new: Mapping[str, Any], place: Place, rules: Rules) -> list[Finding] | None:
    both = [kind for kind in old if kind in new]
    for kind, read in ((MIME, tables.from_rows), (RESOURCE, tables.from_resource)):
        if kind in both:
            one, other = read(old[kind]), read(new[kind])
            if one is not None and other is not None:
                return tables.compare(one, other, place, rules)
    for kind in both:
        if kind == JSON or kind in _PLOTS or kind.startswith("application/vnd.vega"):
            return structures.compare(old[kind], new[kind], place, rules)
    for kind in both:
        if kind in images.RASTER:
            return images.compare(string(old[kind]), string(new[kind]), place, rules)
    if SVG in both:
        return images.compare_svg(string(old[SVG]), string(new[SVG]), place, rules)
    if any(kind.startswith("image/") for kind in {*old, *new}):
        # one has a picture and the other none: the words beside it say little
        return None
    for kind in ("text/markdown", "text/latex"):
        if kind in both:
            return _text(string(old[kind]), string(new[kind]), place, rules)
    if "text/html" in both:
        found = _html(string(old["text/html"]), string(new["text/html"]), place, rules)
        if found is not None:
            return found
    for kind in ("text/plain", *both):
        if kind in both:
            return _text(plain(string(old[kind])), plain(string(new[kind])), place, rules)
    return None


def _html(old: str, new: str, place: Place, rules: Rules) -> list[Finding] | None:
    """Tables as tables, the text beside them as text; None where there is neither."""
    (lefts, one), (rights, other) = tables.from_html(old), tables.from_html(new)
    if not (lefts or rights or one or other):
        return None
    if len(lefts) != len(rights):
        return [Finding(place, "type", Verdict.DIFFERENT, f"{len(lefts)} tables", f"{len(rights)} tables")]
    found = [item for pair in zip(lefts, rights, strict=True) for item in tables.compare(*pair, place, rules)]
    return found + text.compare(one, other, place, rules)


def _error(old: tuple[str, str, str] | None, new: tuple[str, str, str] | None, place: Place, rules: Rules) -> list[Finding]:
    if old is None:
        return [Finding(place, "error", Verdict.DIFFERENT, "", f"{new[0]}: {new[1]}", "it fails now, and did not then")] if new else []
    if new is None:
        return [Finding(place, "error", Verdict.DIFFERENT, f"{old[0]}: {old[1]}", "", "it failed then, and does not now")]
    if old[0] != new[0]:
        return [Finding(place, "error", Verdict.DIFFERENT, f"{old[0]}: {old[1]}", f"{new[0]}: {new[1]}", "it fails otherwise")]
    found = text.compare(plain(old[1]), plain(new[1]), place, rules)
    if not found and old[2] != new[2]:
        # line numbers and paths of libraries in a traceback are not the experiment's
        found.append(Finding(place, "format", Verdict.EQUAL, "", "", "the same error, by another way"))
    return found


def _said(data: Mapping[str, Any]) -> str:
    return string(data.get("text/plain", ", ".join(data)))


def string(value: Any) -> str:
    """A value of a display as text: notebooks have lists of lines, too."""
    if isinstance(value, list):
        return "".join(str(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)
