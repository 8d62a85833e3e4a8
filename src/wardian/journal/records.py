"""What reading the journal gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("operation", "run", "cell", "transfer", "event")

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
class RunRecord:
    """A run with all that belongs to it: `entries` in the order in which they started, outputs by the id of their cell's entry."""

    run: LogEntry
    entries: tuple[LogEntry, ...]
    outputs: Mapping[str, tuple[Output, ...]]
