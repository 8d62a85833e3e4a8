"""What differs between two runs as they are recorded: what was asked for, where it ran, and what came of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .records import LogEntry, Output, RunRecord

PARTS = (
    "run", "experiment", "parameters", "settings", "plan", "links", "measured", "faults", "versions",
    "commit", "files", "home", "node", "cell", "duration",
)  # fmt: skip
"""In the order in which they are told."""

LONGER = 1.5
"""A duration is told where one is so many times the other, and they are more than `MOMENT` apart."""
MOMENT = 0.5
"""Seconds."""

_STREAMS = ("stdout", "stderr")
# of a reply's or a result's content: what counts the executions of a kernel
_VOLATILE = ("execution_count", "transient")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is otherwise. part: of PARTS. where: which node or cell, several nodes as one selector; empty where that is plain.

    before, after: JSON values; None where there is nothing. Durations are never the same, so they are no reason to call runs different.
    """

    part: str
    where: str
    what: str
    before: Any
    after: Any

    @property
    def matters(self) -> bool:
        """Whether it makes the runs different."""
        return self.part != "duration"


def differences(before: RunRecord, after: RunRecord) -> list[Difference]:
    """All that differs, in the order of PARTS."""
    found = [*_heads(before, after), *_facts(before, after), *_nodes(before, after), *_cells(before, after)]
    return sorted(found, key=lambda item: PARTS.index(item.part))


def _heads(before: RunRecord, after: RunRecord) -> Iterator[Difference]:
    one, other = before.run, after.run
    for name in ("status", "error"):
        yield from _plain("run", "", name, getattr(one, name), getattr(other, name))
    for name in ("notebook", "provider", "host", "user", "python"):
        yield from _plain("run", "", name, one.detail.get(name), other.detail.get(name))
    yield from _mappings("parameters", "", one.detail.get("parameters") or {}, other.detail.get("parameters") or {})
    yield from _durations("", "the whole run", one, other)


def _facts(before: RunRecord, after: RunRecord) -> Iterator[Difference]:
    yield from _plain("experiment", "", "file", *((run.fact("experiment") or {}).get("text") for run in (before, after)))
    for name, part in (("settings", "settings"), ("links", "links"), ("versions", "versions"), ("read", "files")):
        yield from _mappings(part, "", before.fact(name) or {}, after.fact(name) or {})
    yield from _measured(before.fact("measured") or {}, after.fact("measured") or {})
    yield from _plain("faults", "", "in force at the start", before.fact("faults"), after.fact("faults"))
    yield from _plain("faults", "", "inflicted", _inflicted(before), _inflicted(after))
    yield from _plain("plan", "", "caveats", _caveats(before), _caveats(after))
    yield from _mappings("commit", "", _commit(before), _commit(after))


def _measured(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    """What links were measured to do, where one value is outside of what was accepted of the other."""
    for name in sorted({*before, *after} if before and after else ()):
        one, other = before.get(name), after.get(name)
        if one is None or other is None or not (_within(one, other) and _within(other, one)):
            yield Difference("measured", "", name, one and one["text"], other and other["text"])


def _within(value: Mapping[str, Any], bounds: Mapping[str, Any]) -> bool:
    if value["value"] is None or bounds["value"] is None:
        return value["value"] is bounds["value"]
    low, high = bounds["low"], bounds["high"]
    return (low is None or value["value"] >= low) and (high is None or value["value"] <= high)


def _inflicted(run: RunRecord) -> list[str]:
    return sorted(entry.summary for entry in run.of("event") if entry.summary.startswith("fault.begun"))


def _caveats(run: RunRecord) -> list[str]:
    return [f"{item['resource']}: {item['field']}: {item['message']}" for item in (run.fact("plan") or {}).get("caveats", ())]


def _commit(run: RunRecord) -> dict[str, Any]:
    return {name: value for name, value in (run.fact("git") or {}).items() if name in ("commit", "changed")}


def _nodes(before: RunRecord, after: RunRecord) -> Iterator[Difference]:
    from ..experiment.plan import compact

    names = list(dict.fromkeys([*before.nodes(), *after.nodes()]))
    here, there = ([name for name in names if name not in run.nodes()] for run in (after, before))
    for gone, pair in ((here, ("there", None)), (there, (None, "there"))):
        if gone:
            yield Difference("node", compact(gone), "exists", *pair)
    known = [{(fact.node, fact.name): fact.value for fact in run.facts} for run in (before, after)]
    alike: dict[str, tuple[Difference, list[str]]] = {}
    for node in (None, *(name for name in names if name not in here + there)):
        about = sorted({name for run in known for place, name in run if place == node and (node or _of_home(name))})
        for name in about:
            # an image without a name has none, as no image has
            one, other = ({key: value for key, value in (run.get((node, name)) or {}).items() if value != ""} for run in known)
            for item in _mappings("node" if node else "home", "", one, other, f"{name}: " if name != "machine" else ""):
                if node is None:
                    yield item
                else:
                    # the same on many nodes is told once
                    alike.setdefault(repr(item), (item, []))[1].append(node)
    for item, nodes in alike.values():
        yield replace(item, where=compact(nodes))


def _of_home(name: str) -> bool:
    return name in ("machine", "python", "image") or name.startswith("packages.")


def _cells(before: RunRecord, after: RunRecord) -> Iterator[Difference]:
    one, other = _numbered(before), _numbered(after)
    for key in dict.fromkeys([*one, *other]):
        first, second = one.get(key), other.get(key)
        title = _title(second or first)
        if first is None or second is None:
            yield Difference("cell", title, "ran", first and _source(first), second and _source(second))
            continue
        # the digest is of the source before secrets were taken out of it
        if first.detail["source_digest"] != second.detail["source_digest"]:
            one_source, other_source = _source(first), _source(second)
            if one_source == other_source:
                one_source, other_source = (f"sha256 {entry.detail['source_digest']}" for entry in (first, second))
            yield Difference("cell", title, "source", one_source, other_source)
        yield from _plain("cell", title, "nodes", list(first.nodes), list(second.nodes))
        yield from _plain("cell", title, "status", first.status, second.status)
        yield from _plain("cell", title, "error", first.error, second.error)
        yield from _outputs(title, before.outputs.get(first.id, ()), after.outputs.get(second.id, ()))
        yield from _durations(title, "took", first, second)
    first_order, second_order = ([key for key in run if key in one and key in other] for run in (one, other))
    if first_order != second_order:
        yield Difference("cell", "", "order", *([_title(other[key]) for key in order] for order in (first_order, second_order)))


def _numbered(run: RunRecord) -> dict[tuple[str, int], LogEntry]:
    """The cells by their id in the notebook, else their source, and the how manyeth time each ran."""
    found: dict[tuple[str, int], LogEntry] = {}
    for entry in run.of("cell"):
        name, times = str(entry.detail.get("cell") or entry.detail["source_digest"]), 1
        while (name, times) in found:
            times += 1
        found[name, times] = entry
    return found


def _outputs(title: str, before: Sequence[Output], after: Sequence[Output]) -> Iterator[Difference]:
    one, other = _by_node(before), _by_node(after)
    for node in dict.fromkeys([*one, *other]):
        where = f"{title} on {node}" if node else title
        first, second = one.get(node, {}), other.get(node, {})
        for name in dict.fromkeys([*first, *second]):
            if name in _STREAMS:
                yield from _plain("cell", where, name, first.get(name), second.get(name))
            else:
                yield from _plain("cell", where, name, first.get(name), second.get(name))


def _by_node(outputs: Sequence[Output]) -> dict[str | None, dict[str, Any]]:
    """What a cell sent by node: the text of each stream as a whole, however it came in pieces, and the rest numbered."""
    found: dict[str | None, dict[str, Any]] = {}
    for output in outputs:
        content = {name: value for name, value in output.content.items() if name not in _VOLATILE}
        mine = found.setdefault(output.node, {})
        if output.message_type == "stream":
            name = str(content.get("name", "stdout"))
            mine[name] = mine.get(name, "") + str(content.get("text", ""))
        else:
            number = sum(name.startswith(output.message_type) for name in mine) + 1
            mine[output.message_type + (f" {number}" if number > 1 else "")] = content
    return found


def _plain(part: str, where: str, what: str, before: Any, after: Any) -> Iterator[Difference]:
    if before != after:
        yield Difference(part, where, what, before, after)


def _mappings(part: str, where: str, before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    for name in sorted({*before, *after}):
        yield from _plain(part, where, f"{prefix}{name}", before.get(name), after.get(name))


def _durations(where: str, what: str, before: LogEntry, after: LogEntry) -> Iterator[Difference]:
    one, other = before.seconds, after.seconds
    if one is not None and other is not None and abs(one - other) > MOMENT and max(one, other) > LONGER * min(one, other):
        yield Difference("duration", where, what, round(one, 3), round(other, 3))


def lines(before: str, after: str, most: int = 20) -> list[str]:
    """How a text changed, line by line, as `diff -u` shows it; at most so many."""
    changed = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1))[2:]
    return changed[:most] + ([f"… and {len(changed) - most} lines more"] if len(changed) > most else [])


def _source(entry: LogEntry) -> str:
    return str(entry.detail["source"])


def _title(entry: LogEntry | None) -> str:
    if entry is None:
        return ""
    first = next((line.strip() for line in _source(entry).splitlines() if line.strip() and not line.startswith("%%")), "empty")
    name = entry.detail.get("cell")
    return f"{name}: {first[:50]}" if name else first[:50]
