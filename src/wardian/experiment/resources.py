"""What an environment is made of, as plain values: the vocabulary that plans and providers share.

A *resource* is one thing that a provider (or, for files and services, the environment) makes. Its `spec` is a plain JSON
value; its digest is the drift check. The kinds, in the order in which they are made:

environment   {"name", "instance", "file", "user", "host", "provider", "settings", "parameters": {...},
               "collect": [{"on", "path"}], "names": [group or role of the file],
               "lease": {"duration": seconds, "at_end": "down" | "keep"} | None}
site          {"provider", "settings"}      only where an environment grows at several; what else is at one then says so: "site": its name
lease         {"start": "now" | "first-free" | "2026-12-01 09:00" (UTC), "duration": seconds,
               "reservations": [{"type": "host", "on", "properties"} | {"type": "instance", …} | {"type": "floating_ip", "network"}
               | {"type": "network", "network": name of one, "properties", "description"}],
               "counts": [how many of each]}                                   only where a site has reservations; named like the site
network       {"subnet": "10.1.0.0/24", "gateway": "10.1.0.1", "mtu": bytes,
               "routes": [{"to": "10.2.0.0/24", "link": "wan"} | {"to": ..., "via": "10.1.0.9"}]}
              `routes` are those of the network's gateway; a network joined by no link has gateway None and no routes
              that is reserved, only there: "lease": its name
link          {"networks": ["east", "west"], "there": SHAPE, "back": SHAPE, "mtu": bytes}       there: first to second
node          {"hostname", "group", "index": int | None, "roles": [...], "site": str | None, "image": str | None, "cpus": float | None,
               "memory": bytes | None, "env": {...}, "setup": script | None, "internet": bool, "routes_between": bool,
               "interfaces": [{"name": "eth0", "network": "east", "address": "10.1.0.2/24"}],
               "routes": [{"to": "10.2.0.0/24", "via": "10.1.0.1"}]}
              of a reservation, only there: "lease": its name, "reservation": which of it
              of containers, only where written: "build": {"context", "dockerfile", "target", "args", "sha256"}, "volumes":
              [{"source", "target", "read_only"}], "ports": [{"node", "host", "address", "protocol"}], "capabilities", "gpus"
access        {"node": "client[0]", "network": "west", "up": SHAPE, "down": SHAPE, "mtu": bytes}
              named "client[0]/west"; up: from the node. An `mtu`, of any kind, is there only where it is written
names         {"tables": {"east,west": [["10.1.0.2", "server"], ...]}}   named "hosts", or like its site; keyed by a node's networks, sorted
files         {"node", "items": [{"source": absolute path, "target", "mode", "sha256"}]}   named like its node
service       {"node", "service", "command": [argv] | {"image": [arguments] | None}, "env", "directory", "ready": {...} | None, "restart",
               "files": digest of its node's files}   named "dash@server"

SHAPE is, each key optional, {"delay": seconds, "jitter": seconds, "distribution": "uniform" | "normal" | "pareto", "loss": fraction,
"loss_burst": packets in a row, "duplicate": fraction, "reorder": fraction, "rate": bits a second,
"queue": {"packets": n or "bytes": n, "discipline": name unless fifo},
"trace": {"file", "repeat": bool, "length": seconds, "steps": [[seconds, {part: value}], …]}}; a trace's values go before those beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .selectors import natural_order

SHAPE = ("delay", "jitter", "distribution", "loss", "loss_burst", "duplicate", "reorder", "rate", "queue", "trace")
"""The parts of a SHAPE, in the order in which people read them."""

DISTRIBUTIONS = ("uniform", "normal", "pareto")
"""Of a jitter."""

KINDS = ("environment", "site", "lease", "network", "node", "link", "access", "names", "files", "service")


def digest(spec: Mapping[str, Any]) -> str:
    """Hash of a spec: sixteen hexadecimal digits of the SHA-256 of its canonical JSON."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that is wanted: its kind, its name within the environment, and its spec."""

    kind: str
    name: str
    spec: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name

    @property
    def digest(self) -> str:
        return digest(self.spec)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class ObservedResource:
    """One thing that exists, read back from the provider.

    spec: what it was made from; empty where its making was cut short before that was written.
    state: "ready", "incomplete" (its making was cut short), "stopped" (it was ready, and no longer runs), or "unreachable" (it was
        ready, may well run, and does not answer now).
    detail: the provider's own words about its state.
    addresses: of a node, {network: address} where those are others than its spec says.
    """

    kind: str
    name: str
    spec: Mapping[str, Any]
    state: str = "ready"
    detail: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


@dataclass(frozen=True, slots=True)
class EnvironmentRecord:
    """What identifies an environment, as kept with its resources.

    created: seconds since the epoch. held_until: likewise, when its site takes it away, as observed; None where no site does.
    """

    id: str
    name: str
    instance: str
    file: str
    provider: str
    user: str
    host: str
    created: float
    spec: Mapping[str, Any] = field(default_factory=dict)
    held_until: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that exists of one environment; `environment` is None where there is none."""

    environment: EnvironmentRecord | None = None
    resources: Mapping[tuple[str, str], ObservedResource] = field(default_factory=dict)

    def of(self, kind: str) -> Iterator[ObservedResource]:
        """Those of one kind."""
        return (item for key, item in self.resources.items() if key[0] == kind)

    @staticmethod
    def collect(environment: EnvironmentRecord | None, resources: Iterable[ObservedResource]) -> Observed:
        """An Observed from resources, in the order of their names."""
        found = sorted(resources, key=lambda item: natural_order(item.name))
        return Observed(environment, {item.key: item for item in found})


@dataclass(frozen=True, slots=True)
class Caveat:
    """Something the file asks for that a provider cannot honour here as written.

    stand_in: what is done in its place, or None when nothing is. `--strict` refuses both.
    """

    resource: str
    field: str
    message: str
    stand_in: str | None = None

    def __str__(self) -> str:
        stand_in = f"; {self.stand_in}" if self.stand_in else ""
        return f"{self.resource}: {self.field}: {self.message}{stand_in}"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do for this experiment here.

    in_place: the (kind, spec key) pairs that it can change without making the resource anew.
    caveats: what it cannot honour.
    at: {site: as in_place} of what is at that site, where there are several.
    """

    in_place: frozenset[tuple[str, str]] = frozenset()
    caveats: tuple[Caveat, ...] = ()
    at: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)

    def changes(self, resource: Resource, key: str) -> bool:
        """Whether this key of this resource can change in place."""
        return (resource.kind, key) in self.at.get(resource.spec.get("site") or "", self.in_place)
