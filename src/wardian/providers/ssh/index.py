"""Where environments are, as this machine knows: the record of each, what of it is no machine, and the host of each node.

The truth about a node is on its host (`marker.py`); this says where to look, and is made again from there when it is lost.

    ssh/environments/ID.json    {"record", "resources": [{"kind", "name", "spec"}], "nodes": {name: {"host", "address", "spec", …}}}
    ssh/leftovers/ID.json       {"hosts"}: hosts that could not be reached when something of an environment was to be removed there
    ssh/locks/HASH.lock
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...experiment.resources import EnvironmentRecord, Resource
from ..local.state import State, read_json, write_json
from .inventory import Host
from .routes import Routes


@dataclass(frozen=True, slots=True)
class Placed:
    """A node on its host.

    address: that of the host, as we reach it. spec: the node's, as last written there. able: queueing disciplines that its kernel
    lets us use, none where we may not. wired: whether the host has an interface on each of the node's networks, with the address that the
    spec says.
    """

    host: Host
    address: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    able: tuple[str, ...] = ()
    wired: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the other nodes reach it: one address, unless it is wired."""
        if self.wired:
            return tuple(part["address"].partition("/")[0] for part in self.spec.get("interfaces", ()))
        return (self.address,) if self.address else ()


@dataclass(slots=True)
class Entry:
    """What is known of one environment."""

    record: EnvironmentRecord
    resources: dict[tuple[str, str], Resource] = field(default_factory=dict)
    nodes: dict[str, Placed] = field(default_factory=dict)

    def routes(self) -> Routes:
        """The ways between its nodes."""
        return Routes(self.resources.values(), {name: (placed.spec, placed.addresses) for name, placed in self.nodes.items()})

    def behind(self, host: Host) -> list[tuple[str, int]]:
        """Address and port of the SSH servers of nodes that are reached through this host."""
        found = []
        for placed in self.nodes.values():
            jump = placed.host.jump
            while jump is not None:
                if (jump.name, jump.address) == (host.name, host.address):
                    found.append((placed.address, placed.host.port or 22))
                jump = jump.jump
        return found


class Index:
    """The folder of all entries. Changes are made by who holds the environment's lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.locks = State(root)

    def read(self, environment: str) -> Entry | None:
        """The entry of an environment, or None."""
        value = read_json(self._path(environment))
        if value is None:
            return None
        resources = [Resource(item["kind"], item["name"], item["spec"]) for item in value["resources"]]
        nodes = {
            name: Placed(Host.of_json(item["host"]), item["address"], item["spec"], tuple(item.get("able", ())), item.get("wired", False))
            for name, item in value["nodes"].items()
        }
        return Entry(EnvironmentRecord(**value["record"]), {item.key: item for item in resources}, nodes)

    def write(self, entry: Entry) -> None:
        """Keep an entry."""
        path = self._path(entry.record.id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = {**asdict(entry.record), "spec": dict(entry.record.spec)}
        resources = [{"kind": item.kind, "name": item.name, "spec": dict(item.spec)} for item in entry.resources.values()]
        nodes = {
            name: {
                "host": item.host.to_json(),
                "address": item.address,
                "spec": dict(item.spec),
                "able": list(item.able),
                "wired": item.wired,
            }
            for name, item in entry.nodes.items()
        }
        write_json(path, {"record": record, "resources": resources, "nodes": nodes})

    def remove(self, environment: str) -> None:
        """Forget an environment."""
        self._path(environment).unlink(missing_ok=True)

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        for environment in self._names("environments"):
            if entry := self.read(environment):
                yield entry

    def find(self, file: str, instance: str) -> Entry | None:
        """The entry of the environment that was grown from a file under an instance name, or None."""
        return next((entry for entry in self.entries() if (entry.record.file, entry.record.instance) == (file, instance)), None)

    def leave(self, environment: str, host: Host) -> None:
        """Remember that something of an environment is left on a host."""
        hosts = {item.name: item for item in (*self.left().get(environment, ()), host)}
        path = self._root / "leftovers" / f"{environment}.json"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(path, {"hosts": [item.to_json() for item in hosts.values()]})

    def left(self) -> dict[str, list[Host]]:
        """{environment: hosts on which something of it is left}."""
        values = {name: read_json(self._root / "leftovers" / f"{name}.json") for name in self._names("leftovers")}
        return {name: [Host.of_json(item) for item in value["hosts"]] for name, value in values.items() if value}

    def clear(self, environment: str, host: Host) -> None:
        """Nothing of it is left on the host any more."""
        hosts = [item for item in self.left().get(environment, ()) if item.name != host.name]
        path = self._root / "leftovers" / f"{environment}.json"
        if hosts:
            write_json(path, {"hosts": [item.to_json() for item in hosts]})
        else:
            path.unlink(missing_ok=True)

    def _path(self, environment: str) -> Path:
        return self._root / "environments" / f"{environment}.json"

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(name.removesuffix(".json") for name in os.listdir(self._root / folder) if name.endswith(".json"))
        except FileNotFoundError:
            return []
