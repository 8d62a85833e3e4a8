"""What no cloud has a place for: the record of an environment, links and names, notes. It says where to look, and what exists only there.

openstack/environments/ID.json     {"record", "resources": [{"kind", "name", "spec"}], "notes": {node: {"server", "values"}}}
openstack/keys/ID                  the private key that logs in to its servers
openstack/locks/HASH.lock
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...experiment.resources import EnvironmentRecord, Resource
from ..local.state import State, read_json, write_json


@dataclass(slots=True)
class Entry:
    """What is written down of one environment. notes: {node: (id of its server, {name: value})}."""

    record: EnvironmentRecord
    resources: dict[tuple[str, str], Resource] = field(default_factory=dict)
    notes: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)


class Index:
    """The folder of all entries. Changes are made by who holds the environment's lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.locks = State(root)

    def key(self, environment: str) -> Path:
        """Where an environment's private key is."""
        return self._root / "keys" / environment

    def read(self, environment: str) -> Entry | None:
        """The entry of an environment, or None."""
        value = read_json(self._path(environment))
        if value is None:
            return None
        resources = [Resource(item["kind"], item["name"], item["spec"]) for item in value["resources"]]
        notes = {node: (item["server"], item["values"]) for node, item in value["notes"].items()}
        return Entry(EnvironmentRecord(**value["record"]), {item.key: item for item in resources}, notes)

    def write(self, entry: Entry) -> None:
        """Keep an entry."""
        path = self._path(entry.record.id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = {**asdict(entry.record), "spec": dict(entry.record.spec)}
        resources = [{"kind": item.kind, "name": item.name, "spec": dict(item.spec)} for item in entry.resources.values()]
        notes = {node: {"server": server, "values": values} for node, (server, values) in entry.notes.items()}
        write_json(path, {"record": record, "resources": resources, "notes": notes})

    def remove(self, environment: str) -> None:
        """Forget an environment."""
        self.key(environment).unlink(missing_ok=True)
        self._path(environment).unlink(missing_ok=True)

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        folder = self._root / "environments"
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if entry := self.read(path.stem):
                yield entry

    def _path(self, environment: str) -> Path:
        return self._root / "environments" / f"{environment}.json"
