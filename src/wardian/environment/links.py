"""Links of an environment that exists: what each does now, and how to change it while everything goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ExperimentFileError, PlanError, Problem, SelectorError
from ..experiment.links import LARGEST_MTU, SMALLEST_MTU, Shape, bad_burst, lacking
from ..experiment.plan import Plan, reconcile, shape_text
from ..experiment.resources import SHAPE, Capabilities, Observed, ObservedResource, Resource
from ..experiment.tables import Trace
from ..experiment.wording import findings
from .live import LiveEnvironment
from .sources import read_trace

WAYS = {"link": ("there", "back"), "access": ("up", "down")}
"""{kind: its two directions}: from the first network to the second and back; from the node to the network and to the node."""


@dataclass(frozen=True, slots=True)
class LinkView:
    """One link or access link as it is now.

    kind: "link" or "access". ends: the two networks; or the node and the network. ways: {direction: its SHAPE}.
    mtu: largest packet, bytes; None where nothing is set.
    """

    name: str
    kind: str
    ends: tuple[str, str]
    ways: Mapping[str, Mapping[str, Any]]
    mtu: int | None
    state: str

    @property
    def plain(self) -> bool:
        """Whether nothing is set."""
        return not any(self.ways.values()) and self.mtu is None

    def text(self, way: str) -> str:
        """What one direction does, in words."""
        parts = [f"{part} {shape_text(part, self.ways[way][part])}" for part in SHAPE if part in self.ways[way]]
        if self.mtu is not None:
            parts.append(f"mtu {self.mtu}")
        return ", ".join(parts) or "-"


def views(observed: Observed) -> list[LinkView]:
    """All links, then every node's access links, with those of which nothing is set."""
    return [view(item, "ready" if item.state == "absent" else item.state) for item in _every(observed).values()]


def view(item: Resource | ObservedResource, state: str) -> LinkView:
    """A link or access link whose spec is known."""
    spec = item.spec
    first, second = spec["networks"] if item.kind == "link" else (spec["node"], spec["network"])
    return LinkView(item.name, item.kind, (first, second), {way: spec[way] for way in WAYS[item.kind]}, spec.get("mtu"), state)


def pick(live: LiveEnvironment, name: str) -> list[ObservedResource]:
    """The links that a name picks.

    name: of a link, with `*` for any letters; of a matrix, for all its links; or SELECTOR/NETWORK for access links, as in
    `client[0]/west` or `all/*`. Raises SelectorError naming what exists.
    """
    every = _every(live.observed)
    selector, slash, network = name.rpartition("/")
    if slash:
        nodes = live.select(selector)
        found = [item for item in every.values() if item.kind == "access" and item.spec["node"] in nodes and _is(network, item)]
    else:
        found = [item for item in every.values() if item.kind == "link" and _is_called(name, item)]
    if not found:
        known = [item.name for item in every.values()]
        listed = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
        raise SelectorError(
            f"no link is called {name!r}", remedy=f"there are {listed}" if known else "the file has neither links nor networks"
        )
    return found


def changed(item: ObservedResource, changes: Mapping[str, object], way: str | None, folder: Path) -> Resource:
    """What a link becomes with other values for some parts of its shape, or its MTU.

    changes: {part: value as the experiment file has it, or None to have it no more}. way: one of its directions; None for both.
    folder: where the files of traces are. Raises ExperimentFileError saying what is wrong with a value.
    """
    ways = WAYS[item.kind]
    if way is not None and way not in ways:
        raise PlanError(f"{item.name} has no direction {way!r}", remedy=f"its directions are {' and '.join(ways)}")
    given, mtu = dict(changes), item.spec.get("mtu")
    if "mtu" in given:
        mtu = _mtu(item, given.pop("mtu"), way)
    values = _values(item, {part: value for part, value in given.items() if value is not None}, folder)
    removed = {part for part, value in given.items() if value is None}
    spec = {key: value for key, value in item.spec.items() if key != "mtu"} | ({} if mtu is None else {"mtu": mtu})
    for each in ways if way is None else (way,):
        shape = {key: value for key, value in item.spec[each].items() if key not in removed} | values
        if idle := [(part, wanted) for part, wanted in lacking(shape) if part in values]:
            raise _refused(item, *idle[0])
        if wanted := bad_burst(shape):
            raise _refused(item, "loss_burst", wanted)
        spec[each] = {part: shape[part] for part in SHAPE if part in shape and part not in dict(lacking(shape))}
    return Resource(item.kind, item.name, spec)


def plan(items: Sequence[ObservedResource], wanted: Iterable[Resource], capabilities: Capabilities, reason: str) -> Plan:
    """What brings these links to what is wanted of them, without making anything anew. Raises PlanError where that cannot be."""
    existing = {item.key: item for item in items if item.state != "absent"}
    made = reconcile(list(wanted), Observed(None, existing), capabilities)
    if any(operation.action == "delete" for operation in made.operations):
        raise PlanError(
            f"{', '.join(item.name for item in items)} cannot be changed in place here", remedy="change the file and run `wardian up`"
        )
    return replace(made, operations=tuple(replace(item, reason=f"{reason}: {item.reason}") for item in made.operations))


def _every(observed: Observed) -> dict[tuple[str, str], ObservedResource]:
    found = {item.key: item for item in observed.of("link") if item.spec}
    for node in observed.of("node"):
        for interface in node.spec.get("interfaces", ()):
            network = interface["network"]
            name = f"{node.name}/{network}"
            plain = ObservedResource("access", name, {"node": node.name, "network": network, "up": {}, "down": {}}, "absent")
            existing = observed.resources.get(plain.key)
            found[plain.key] = existing if existing and existing.spec else plain
    return found


def _is(network: str, item: ObservedResource) -> bool:
    return fnmatchcase(item.spec["network"], network)


def _is_called(name: str, item: ObservedResource) -> bool:
    return fnmatchcase(item.name, name) or item.name == "-".join([name, *item.spec["networks"]])


def _values(item: ObservedResource, given: Mapping[str, object], folder: Path) -> dict[str, Any]:
    """The values of a shape's parts from how they are written."""
    try:
        shape = Shape.model_validate(dict(given)).shape
    except ValidationError as error:
        problems = [
            Problem(".".join(map(str, one.path)), one.message, f"link {item.name}", expected=one.expected, got=_got(given, one.path))
            for one in findings(Shape, error.errors())
        ]
        raise ExperimentFileError(problems) from None
    if "trace" in shape:
        trace: Trace = read_trace(folder, shape["trace"]["file"])
        shape["trace"] = {"file": shape["trace"]["file"], "repeat": shape["trace"].get("repeat", True), **trace.spec}
    return shape


def _got(given: Mapping[str, object], path: Sequence[object]) -> str | None:
    return repr(given[str(path[0])]) if path and str(path[0]) in given else None


def _mtu(item: ObservedResource, value: object, way: str | None) -> int | None:
    if way is not None:
        raise _refused(item, "mtu", "no direction: it is that of both")
    if value is None:
        return None
    text = str(value)
    if not text.isdecimal() or not SMALLEST_MTU <= int(text) <= LARGEST_MTU:
        raise _refused(item, "mtu", f"a number of bytes between {SMALLEST_MTU} and {LARGEST_MTU}", repr(value))
    return int(text)


def _refused(item: ObservedResource, field: str, wanted: str, got: str | None = None) -> ExperimentFileError:
    return ExperimentFileError([Problem(field, "wrong value", f"link {item.name}", expected=wanted, got=got)])


def without_traces(items: Iterable[ObservedResource]) -> Iterator[tuple[ObservedResource, Resource]]:
    """(a link that has a trace, the same without it) for each of these that has one."""
    for item in items:
        spec = dict(item.spec)
        for way in WAYS[item.kind]:
            spec[way] = {part: value for part, value in spec[way].items() if part != "trace"}
        if spec != dict(item.spec):
            yield item, Resource(item.kind, item.name, spec)
