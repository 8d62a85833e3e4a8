"""From what is wanted and what exists to what has to be done: pure, and printed for people to read.

`reconcile` compares resources by kind and name. A plan is a small DAG of operations, each of which does one thing to a set of like
resources, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from . import units
from .policy import Share
from .resources import KINDS, SHAPE, Capabilities, Caveat, Observed, ObservedResource, Resource, digest

Action = Literal["create", "update", "delete", "reboot", "rebuild"]
"""The last two are of nodes alone, and of no plan that follows from the file."""

NEEDS = {
    "environment": (),
    "site": ("environment",),
    "lease": ("environment", "site"),
    "network": ("environment", "site", "lease"),
    "node": ("environment", "site", "lease", "network"),
    "link": ("network",),
    "access": ("node",),
    "names": ("node",),
    "files": ("node",),
    "service": ("node", "link", "access", "names", "files"),
}
"""{kind: kinds that stand before it}. Deletion goes the other way round."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to do to a set of like resources.

    before: their specs as they are, by name (for update and delete).
    after: ids of the operations that must have ended well before this one starts.
    how: more about it, as `Provider.reboot` and `Provider.rebuild` take it.
    """

    id: int
    action: Action
    kind: str
    targets: tuple[Resource, ...]
    reason: str
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    after: tuple[int, ...] = ()
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [target.name for target in self.targets]

    def __str__(self) -> str:
        return f"{_SIGNS[self.action]} {self.kind:<11} {compact(self.names)}  ({self.reason})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be done, in an order that works, and what cannot be honoured here.

    quota: what its user has then of what a policy allows, if there is one. costs: what it takes of a site, in words.
    """

    operations: tuple[Operation, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    quota: tuple[Share, ...] = ()
    costs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.operations)

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """As people read it: one line an operation, then the caveats, then what it takes, then a count."""
        lines = [str(operation) for operation in self.operations]
        if self.caveats:
            lines += ["Cannot be honoured as written here:"] if not lines else ["", "Cannot be honoured as written here:"]
            lines += [f"! {caveat}" for caveat in self.caveats]
        if self.costs:
            lines += ["", "Takes:", *(f"  {cost}" for cost in self.costs)]
        lines += ["", self.summary()] if lines else [self.summary()]
        return "\n".join(lines)

    def summary(self) -> str:
        """`4 to create, 1 to change, 0 to delete`, counting resources, and what is used of quotas then."""
        return "\n".join([self._counts(), *([f"Of your quota then: {', '.join(map(str, self.quota))}"] if self.quota else [])])

    def _counts(self) -> str:
        if not self.operations:
            return "Nothing to do: the environment is as the file says."
        counts = {action: sum(len(item.targets) for item in self.operations if item.action == action) for action in _SIGNS}
        renewed = "".join(f", {counts[action]} to {action}" for action in ("reboot", "rebuild") if counts[action])
        return f"{counts['create']} to create, {counts['update']} to change, {counts['delete']} to delete{renewed}"

    @property
    def digest(self) -> str:
        """Hash of all that it would do, and to what: equal ones do the same."""
        steps = [
            {"action": item.action, "kind": item.kind, "targets": {target.name: target.spec for target in item.targets},
             "before": {name: dict(spec) for name, spec in item.before.items()}, "after": list(item.after)}
            for item in self.operations
        ]  # fmt: skip
        return digest({"operations": steps})

    def to_json(self) -> dict[str, Any]:
        """As scripts read it."""
        return {
            "operations": [
                {
                    "id": item.id,
                    "action": item.action,
                    "kind": item.kind,
                    "targets": item.names,
                    "reason": item.reason,
                    "after": list(item.after),
                }
                for item in self.operations
            ],
            "caveats": [asdict(caveat) for caveat in self.caveats],
            "quota": [asdict(share) for share in self.quota],
            "costs": list(self.costs),
        }


_SIGNS = {"create": "+", "update": "~", "delete": "-", "reboot": "~", "rebuild": "~"}


def reconcile(desired: Sequence[Resource], observed: Observed, capabilities: Capabilities | None = None) -> Plan:
    """What turns `observed` into `desired`.

    desired: every resource, with unique (kind, name).
    capabilities: what the provider can change in place; everything else that changed is made anew, and so is what hangs on it.
    """
    capabilities = capabilities or Capabilities()
    steps = _Steps()
    remade: set[tuple[str, str]] = set()
    for resource in sorted(desired, key=lambda item: KINDS.index(item.kind)):
        existing = observed.resources.get(resource.key)
        holder = _holder(resource, remade)
        if existing is None:
            steps.create(resource, f"remade with {holder}" if holder else "new")
            if holder is None:
                continue
        elif holder is not None:
            steps.remake(resource, existing, f"remade with {holder}")
        elif existing.state != "ready":
            words = _STATES.get(existing.state, "no longer running")
            detail = f": {existing.detail}" if existing.detail and existing.detail != words else ""
            steps.remake(resource, existing, words + detail)
        elif changed := _changed(resource, existing):
            reason = ", ".join(_change_text(key, existing.spec.get(key), resource.spec.get(key)) for key in changed)
            if resource.kind in CHANGEABLE or all(capabilities.changes(resource, key) for key in changed):
                steps.update(resource, existing, reason)
                continue
            steps.remake(resource, existing, reason)
        else:
            continue
        remade.add(resource.key)
    wanted = {resource.key for resource in desired}
    for existing in observed.resources.values():
        if existing.key not in wanted and existing.kind != "environment":
            steps.delete(existing, "no longer in the file")
    return Plan(steps.operations(), capabilities.caveats)


def renewing(action: Action, nodes: Collection[str], observed: Observed, reason: str, how: Mapping[str, Any]) -> Plan:
    """What reboots or rebuilds these nodes, and makes anew what hangs on them, all of it as it is; nothing else is touched."""
    steps = _Steps()
    for existing in observed.resources.values():
        resource = Resource(existing.kind, existing.name, existing.spec)
        if existing.kind == "node" and existing.name in nodes:
            steps.renew(action, resource, existing, reason)
        elif existing.spec.get("node") in nodes:
            again = f"{action} of node {existing.spec['node']}"
            if how.get("hard") and existing.kind == "service":
                # it ends with its node, and nobody asks it to
                steps.create(resource, again)
            else:
                steps.remake(resource, existing, again)
    return Plan(tuple(replace(item, how=how) if item.action == action else item for item in steps.operations()))


def compact(names: Sequence[str], most: int = 6) -> str:
    """`client[0:4], server` for client[0] … client[3] and server; long lists are cut with a count."""
    runs: list[str] = []
    position = 0
    while position < len(names):
        group, bracket, rest = names[position].partition("[")
        index, suffix = rest.split("]", 1) if bracket else ("", "")
        end = position + 1
        if bracket:
            while end < len(names) and names[end] == f"{group}[{int(index) + end - position}]{suffix}":
                end += 1
        runs.append(names[position] if end - position < 2 else f"{group}[{index}:{int(index) + end - position}]{suffix}")
        position = end
    shown = runs[:most]
    return ", ".join(shown) + (f" and {len(runs) - most} more" if len(runs) > most else "")


def _holder(resource: Resource, remade: set[tuple[str, str]]) -> str | None:
    """What `resource` hangs on and is made anew: its site, its lease, a node's and a link's networks, the node of the rest."""
    spec = resource.spec
    hangs: list[tuple[str, str]] = [("site", spec["site"])] if spec.get("site") else []
    if resource.kind in ("network", "node") and "lease" in spec:
        hangs += [("lease", spec["lease"])]
    if resource.kind == "node":
        hangs += [("network", interface["network"]) for interface in spec["interfaces"]]
    elif resource.kind == "link":
        hangs += [("network", network) for network in spec["networks"]]
    elif "node" in spec:
        hangs += [("node", spec["node"])]
    return next((f"{kind} {name}" for kind, name in hangs if (kind, name) in remade), None)


_STATES = {"incomplete": "its making was cut short", "unreachable": "cannot be reached"}

CHANGEABLE = ("environment", "files")
"""Kinds that any environment changes in place, whatever its provider can do."""

ENVIRONMENT_KEYS = ("lease", "collect", "parameters", "names")
"""What of an environment may change; the rest says who it is."""


def _changed(resource: Resource, existing: ObservedResource) -> list[str]:
    keys = ENVIRONMENT_KEYS if resource.kind == "environment" else {**existing.spec, **resource.spec}
    return [key for key in keys if existing.spec.get(key) != resource.spec.get(key)]


def _change_text(key: str, before: Any, after: Any) -> str:
    if key in ("there", "back", "up", "down"):
        before, after = before or {}, after or {}
        parts = [
            f"{part} {shape_text(part, before.get(part))} -> {shape_text(part, after.get(part))}"
            for part in SHAPE
            if before.get(part) != after.get(part)
        ]
        return f"{key}: {', '.join(parts)}"
    if isinstance(before, dict | list) or isinstance(after, dict | list) or "\n" in f"{before}{after}":
        return f"{key} changed"
    return f"{key} {'none' if before is None else before} -> {'none' if after is None else after}"


def shape_text(part: str, value: Any) -> str:
    """One part of a shape in words."""
    if value is None:
        return "none"
    if part == "queue":
        size = f"{value['packets']} packets" if "packets" in value else units.format_size(value["bytes"]) if "bytes" in value else ""
        return " ".join(filter(None, (value.get("discipline"), size)))
    if part == "trace":
        return f"{value['file']} ({value['length']:g} s, {len(value['steps'])} steps{'' if value['repeat'] else ', once'})"
    return _WORDS[part](value)


_WORDS: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys(("delay", "jitter"), units.format_duration),
    **dict.fromkeys(("loss", "duplicate", "reorder"), units.format_fraction),
    "distribution": str,
    "loss_burst": "{:g}".format,
    "rate": units.format_rate,
}


class _Steps:
    """Collects single steps, and puts like ones together into operations."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Action, str, str], list[tuple[Resource, Mapping[str, Any] | None]]] = {}

    def create(self, resource: Resource, reason: str) -> None:
        self._groups.setdefault(("create", resource.kind, reason), []).append((resource, None))

    def update(self, resource: Resource, existing: ObservedResource, reason: str) -> None:
        self.renew("update", resource, existing, reason)

    def renew(self, action: Action, resource: Resource, existing: ObservedResource, reason: str) -> None:
        self._groups.setdefault((action, resource.kind, reason), []).append((resource, existing.spec))

    def delete(self, existing: ObservedResource, reason: str) -> None:
        gone = Resource(existing.kind, existing.name, existing.spec)
        self._groups.setdefault(("delete", existing.kind, reason), []).append((gone, existing.spec))

    def remake(self, resource: Resource, existing: ObservedResource, reason: str) -> None:
        self.delete(existing, reason)
        self.create(resource, reason)

    def operations(self) -> tuple[Operation, ...]:
        """Deletions from the last kind to the first, then what is made and changed from the first to the last."""

        def order(group: tuple[Action, str, str]) -> tuple[bool, int]:
            action, kind, _ = group
            rank = KINDS.index(kind)
            return (False, -rank) if action == "delete" else (True, rank)

        result: list[Operation] = []
        for group in sorted(self._groups, key=order):
            action, kind, reason = group
            steps = self._groups[group]
            before = {resource.name: spec for resource, spec in steps if spec is not None}
            after = tuple(earlier.id for earlier in result if _waits(action, kind, earlier))
            result.append(Operation(len(result) + 1, action, kind, tuple(resource for resource, _ in steps), reason, before, after))
        return tuple(result)


def _waits(action: Action, kind: str, earlier: Operation) -> bool:
    if action == "delete":
        return earlier.action == "delete" and kind in NEEDS[earlier.kind]
    return earlier.action == "delete" or earlier.kind in NEEDS[kind]
