"""A run in words, for readers: who ran what and where, and what each node was. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from .records import LogEntry, RunRecord

NODE = ["NODE", "SYSTEM", "KERNEL", "PROCESSOR", "MEMORY", "PYTHON", "PACKAGES", "IMAGE"]
"""What `node` gives."""


def head(record: RunRecord) -> Iterator[tuple[str, str]]:
    """What is known of the run as a whole: names and values, those that are empty left out."""
    return ((name, value) for name, value in _head(record) if value)


def _head(record: RunRecord) -> Iterator[tuple[str, str]]:
    run, detail, git = record.run, record.run.detail, record.fact("git") or {}
    yield "error", run.error or ""
    yield "notebook", detail["notebook"]
    yield "experiment", f"{detail['experiment']}  {(detail['experiment_digest'] or '')[:12]}" if detail["experiment"] else ""
    yield "started", f"{when(run.started)} by {detail['user']} on {detail['host']}"
    settings = {name: value for name, value in (record.fact("settings") or {}).items() if value is not None}
    yield "provider", f"{detail['provider'] or ''} {assignments(settings)}".strip()
    yield "environment", run.environment or ""
    yield "parameters", assignments(detail["parameters"])
    changed = f", {len(git['changed'])} files changed since" if git.get("changed") else ""
    yield "commit", f"{git['commit'][:12]} ({git.get('branch')}){changed}" if git else ""
    yield "wardian", f"{detail['wardian']}, Python {detail['python']}"
    yield "faults", ", ".join(record.fact("faults") or ())
    for caveat in (record.fact("plan") or {}).get("caveats", ()):
        yield "not honoured", f"{caveat['resource']}: {caveat['field']}: {caveat['message']}"
    for name, found in (record.fact("measured") or {}).items():
        yield "measured", f"{name}: {found['text'] or 'nothing'}"


def node(record: RunRecord, name: str | None) -> list[str]:
    """What a node, or home (None), was: a row for a table."""
    machine, python, image = (record.fact(fact, name) or {} for fact in ("machine", "python", "image"))
    packages = sorted({fact.name for fact in record.facts if fact.node == name and fact.name.startswith("packages.")})
    counts = ", ".join(f"{len(record.fact(fact, name))} {fact.removeprefix('packages.')}" for fact in packages)
    memory = f"{machine['memory'] / 2**30:.1f} GiB" if "memory" in machine else "-"
    processor = f"{machine.get('processors', '?')} × {machine.get('processor', 'unknown')}" if machine else "-"
    digest = str(image.get("digest", "-")).removeprefix("sha256:")[:12]
    system = machine.get("error") or machine.get("system", "-")
    return [name or "here", system, machine.get("kernel", "-"), processor, memory, python.get("version", "-"), counts or "-", digest]


def assignments(values: Mapping[str, Any]) -> str:
    """Names and values as one writes them."""
    return " ".join(f"{name}={value}" for name, value in values.items())


def when(moment: float) -> str:
    """A moment in the time of this machine."""
    return time.strftime("%F %T", time.localtime(moment))


def took(entry: LogEntry) -> str:
    """How long an entry took."""
    return "-" if entry.seconds is None else f"{entry.seconds:.1f} s"
