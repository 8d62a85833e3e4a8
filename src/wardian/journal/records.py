"""What reading the journal gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..experiment.selectors import natural_order

KINDS = ("operation", "run", "cell", "transfer", "event")

PACKAGES = "packages."
"""How the names of those facts begin that have the packages of a node, {name: version}; a package manager's name follows."""

DOUBT = "run.doubt"
"""The kind of events that put the numbers of a run in doubt."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that happened.

    kind: one of KINDS. started, ended: seconds since the epoch; `ended` is None while it goes on.
    status: "running", "ok", "failed", "cancelled", or "interrupted" when the process that did it died; an event is always "ok".
    nodes: the nodes, or for an operation the names of the resources, that it was about.
    summary: one line for a reader. detail: everything else that was recorded about it.
    """

    kind: str
    id: str
    started: float
    ended: float | None
    status: str
    environment: str | None
    run: str | None
    nodes: tuple[str, ...]
    summary: str
    error: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long it took, or None while it goes on."""
        return None if self.ended is None else self.ended - self.started


@dataclass(frozen=True, slots=True)
class Output:
    """One message that a cell sent: `content` is that of the Jupyter message of type `message_type`; node None is home."""

    sequence: int
    node: str | None
    message_type: str
    content: Mapping[str, Any]
    sha256: str
    time: float


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing known about a run: `value` is JSON. node: which of its nodes it is about; None is home, or the run as a whole."""

    name: str
    node: str | None
    value: Any
    sha256: str
    time: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run with all that belongs to it.

    entries: in the order in which they started; with them is what happened in its environment meanwhile without being a part of it.
    outputs: by the id of their cell's entry. facts: in the order in which they were found.
    """

    run: LogEntry
    entries: tuple[LogEntry, ...]
    outputs: Mapping[str, tuple[Output, ...]]
    facts: tuple[Fact, ...] = ()

    def of(self, kind: str) -> list[LogEntry]:
        """Its entries of one kind."""
        return [entry for entry in self.entries if entry.kind == kind]

    def fact(self, name: str, node: str | None = None) -> Any:
        """What is known under this name, as it was found last; None where nothing is."""
        return next((fact.value for fact in reversed(self.facts) if fact.name == name and fact.node == node), None)

    def nodes(self) -> list[str]:
        """The nodes that it is known of that they took part, in the order of their names."""
        named = {fact.node for fact in self.facts if fact.node} | {node for cell in self.of("cell") for node in cell.nodes}
        return sorted(named, key=natural_order)
