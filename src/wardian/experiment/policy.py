"""What whoever runs a host allows each of its users, and how much of it an experiment takes: pure.

A policy has limits by default, for groups and for users. For each of them a user's own entry counts, else the most that one of his
groups has, else the default; one that is nowhere bounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from ..errors import ExperimentFileError, PlanError, Problem
from . import document, units
from .document import Document, Path, Scalar
from .fields import Duration, Model, Size, at_least
from .resources import Resource
from .wording import findings


def _some_time(value: float) -> float:
    if value <= 0:
        raise ValueError("more than 0")
    return value


class Limits(Model):
    """The most that one user may hold at once, in all environments together; of a lease, the longest of each."""

    nodes: Annotated[int, Field(ge=0)] | None = Field(default=None, description="nodes")
    memory: Annotated[Size, at_least(1, "1 byte")] | None = Field(default=None, description="sum of the memory limits of nodes")
    disk: Annotated[Size, at_least(1, "1 byte")] | None = Field(default=None, description="bytes below the state folder")
    lease: Annotated[Duration, AfterValidator(_some_time)] | None = Field(default=None, description="from `up` to the lease's end")


class Policy(Model):
    """A policy file. groups and users are those of the host."""

    default: Limits = Field(default=Limits(), description="of everybody")
    groups: dict[str, Limits] = Field(default={}, description="of who is in a group")
    users: dict[str, Limits] = Field(default={}, description="of one user")


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, and the field of the policy that it is from."""

    most: float
    field: str


@dataclass(frozen=True, slots=True)
class Held:
    """What a user holds. memory, disk: bytes."""

    nodes: int = 0
    memory: int = 0
    disk: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """How much of one limit is used once a plan is carried out. what: "nodes", "memory", "disk" or "lease", in its unit."""

    what: str
    used: float
    most: float

    def __str__(self) -> str:
        write = _WORDS[self.what]
        return f"{self.what} {write(self.used)} of {write(self.most)}"


_WORDS: Mapping[str, Callable[[Any], str]] = {
    "nodes": str,
    "memory": units.approximate_size,
    "disk": units.approximate_size,
    "lease": units.format_duration,
}


def loads(text: str | bytes, source: str) -> Policy:
    """The policy that a text is. Raises ExperimentFileError naming what is wrong, and where."""
    read = document.read(text, source, "a policy", "default, groups and users")
    try:
        policy = Policy.model_validate(read.data(_value))
    except ValidationError as error:
        raise ExperimentFileError([*read.problems, *_problems(read, error)]) from None
    if read.problems:
        raise ExperimentFileError(read.problems)
    return policy


def limits(policy: Policy, user: str, groups: Collection[str]) -> dict[str, Limit]:
    """What bounds a user who is in these groups: {"nodes", "memory", "disk" or "lease": its limit}."""
    own = {f"users.{user}": policy.users[user]} if user in policy.users else {}
    shared = {f"groups.{name}": entry for name, entry in policy.groups.items() if name in groups}
    found = {}
    for what in Limits.model_fields:
        for entries in (own, shared, {"default": policy.default}):
            said = [Limit(most, f"{at}.{what}") for at, entry in entries.items() if (most := getattr(entry, what)) is not None]
            if said:
                found[what] = max(said, key=lambda limit: limit.most)
                break
    return found


def shares(bounds: Mapping[str, Limit], desired: Sequence[Resource], held: Held, source: str) -> tuple[Share, ...]:
    """What is used of each limit once these resources are there beside what is held otherwise.

    Raises PlanError naming every limit that is exceeded, with its field in the policy `source`.
    """
    nodes = [item for item in desired if item.kind == "node"]
    unlimited = [node.name for node in nodes if node.spec.get("memory") is None]
    if "memory" in bounds and unlimited:
        raise PlanError(
            f"memory is shared out here ({source}: {bounds['memory'].field}), and {_some(unlimited)} may take any amount of it",
            remedy="write how much each node may have, such as `memory: 256MiB`",
        )
    used: dict[str, float] = {
        "nodes": held.nodes + len(nodes),
        "memory": held.memory + sum(node.spec["memory"] or 0 for node in nodes),
        "disk": held.disk,
    }
    if "lease" in bounds:
        used["lease"] = _lease(bounds["lease"], desired, source)
    found = tuple(Share(what, used[what], limit.most) for what, limit in bounds.items())
    if over := [share for share in found if share.used > share.most]:
        said = "\n".join(f"  {share} ({source}: {bounds[share.what].field})" for share in over)
        raise PlanError(f"this is more than you may have here:\n{said}", remedy=_remedy(share.what for share in over))
    return found


def _lease(limit: Limit, desired: Iterable[Resource], source: str) -> float:
    lease = next((item.spec["lease"] for item in desired if item.kind == "environment"), None)
    if lease is None:
        most = units.format_duration(limit.most)
        raise PlanError(
            f"environments are held for {most} at most here ({source}: {limit.field}), and this one has no lease",
            remedy=f"write one into the file, such as `lease: {{duration: {most}}}`",
        )
    return round(float(lease["duration"]), 3)


def _remedy(what: Iterable[str]) -> str:
    ways = {
        "nodes": "ask for fewer nodes, or tear down another environment (`wardian ls`, `wardian down ID`)",
        "memory": "give nodes less, or tear down another environment (`wardian ls`, `wardian down ID`)",
        "disk": "tear down what is not needed (`wardian ls`, `wardian down ID`), then run `wardian gc`",
        "lease": "hold it for a shorter time",
    }
    return "; ".join(dict.fromkeys(ways[item] for item in what))


def _some(names: Sequence[str]) -> str:
    return f"node {names[0]}" if len(names) == 1 else f"{len(names)} nodes ({names[0]} and others)"


def _value(path: Path, scalar: Scalar) -> object:
    return scalar.value


def _problems(read: Document, error: ValidationError) -> list[Problem]:
    found = []
    for finding in findings(Policy, error.errors()):
        place = read.place(finding.path)
        mark = place.key if finding.at_key else place.start
        path = document.dotted(finding.path)
        found.append(Problem(path, finding.message, read.source, mark.line, mark.column, finding.expected, suggestion=finding.suggestion))
    return found
