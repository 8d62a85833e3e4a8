"""What the nodes were that packed runs ran on, as a page of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from ...environment.facts import IMAGE, MACHINE, PYTHON
from ...journal.records import PACKAGES, RunRecord
from ..facts import PLAN


def environment_report(records: Sequence[RunRecord]) -> str:
    """The environments of runs, in Markdown: a table of nodes each, what could not be honoured, and packages, equal lists once."""
    lines = ["# What the recorded runs ran on", ""]
    packages: dict[str, tuple[dict[str, str], list[str]]] = {}
    for record in records:
        lines += [*_run(record), ""]
        for fact in record.facts:
            if fact.name.startswith(PACKAGES):
                where = f"{fact.node or 'here'} ({record.run.id[-8:]})"
                packages.setdefault(fact.sha256 + fact.name, (fact.value, []))[1].append(f"{where}: {fact.name.removeprefix(PACKAGES)}")
    if packages:
        lines += ["## Packages", ""]
    for installed, places in packages.values():
        lines += [f"### {', '.join(places)}", "", *(f"- {name} {version}" for name, version in sorted(installed.items())), ""]
    return "\n".join(lines)


def _run(record: RunRecord) -> Iterator[str]:
    run = record.run
    started = datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds")
    yield f"## Run {run.id[-8:]}: {run.detail['notebook'].rpartition('/')[2]} on {run.detail['provider']}, {started}"
    yield ""
    yield from _row(("node", "system", "kernel", "processor", "memory", "Python", "image"))
    yield from _row(["---"] * 7)
    for node in (None, *record.nodes()):
        machine, python, image = (record.fact(name, node) or {} for name in (MACHINE, PYTHON, IMAGE))
        processor = f"{machine.get('processors', '?')} × {machine.get('processor', 'unknown')}" if machine else ""
        memory = f"{machine['memory'] / 2**30:.1f} GiB" if "memory" in machine else ""
        whole = " ".join(filter(None, (image.get("name"), image.get("digest"))))
        yield from _row([node or "here", machine.get("system"), machine.get("kernel"), processor, memory, python.get("version"), whole])
    for caveat in (record.fact(PLAN) or {}).get("caveats", ()):
        yield f"\nNot honoured: {caveat['resource']}: {caveat['field']}: {caveat['message']}"


def _row(cells: Iterable[Any]) -> Iterator[str]:
    yield "| " + " | ".join(str(cell or "-").replace("|", r"\|") for cell in cells) + " |"
