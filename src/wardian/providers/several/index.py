"""Which sites each environment has, and what of it is where.

several/environments/ID.json    {"record", "sites": {site: {"provider", "settings"}}, "where": [[kind, name, site]]}
several/locks/HASH.lock

What is at a site is known to its own provider, under an id of its own that follows from ours. So an entry says where to look, and
nothing of what exists: written before anything is made at a site, and removed once nothing is left there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...experiment.resources import EnvironmentRecord
from ..local.state import State, read_json, write_json

Key = tuple[str, str]


@dataclass(slots=True)
class Entry:
    """One environment. sites: {site: {"provider", "settings"}}. where: {(kind, name): site}."""

    record: EnvironmentRecord
    sites: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    where: dict[Key, str] = field(default_factory=dict)

    @property
    def ids(self) -> dict[str, str]:
        """{site: the id under which its provider knows what is there}."""
        return {site: id_at(self.record.id, site) for site in self.sites}


class Index:
    """The folder of all entries. Changes are made by who holds the environment's lock."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "environments"
        self.locks = State(root)

    def read(self, environment: str) -> Entry | None:
        """The entry of an environment, or None."""
        value = read_json(self._path(environment))
        if value is None:
            return None
        return Entry(EnvironmentRecord(**value["record"]), value["sites"], {(kind, name): site for kind, name, site in value["where"]})

    def write(self, entry: Entry) -> None:
        """Keep an entry."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        where = [[*key, site] for key, site in entry.where.items()]
        write_json(self._path(entry.record.id), {"record": asdict(entry.record), "sites": entry.sites, "where": where})

    def remove(self, environment: str) -> None:
        """Forget an environment."""
        self._path(environment).unlink(missing_ok=True)

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(".json") and (entry := self.read(name.removesuffix(".json"))):
                yield entry

    def _path(self, environment: str) -> Path:
        return self._folder / f"{environment}.json"


def id_at(environment: str, site: str) -> str:
    """The id of what an environment has at a site. It does not begin like any other: names on a cloud are told apart by how they begin."""
    return f"{environment.rpartition('-')[0] or environment}-{hashlib.sha256(f'{site}@{environment}'.encode()).hexdigest()[:8]}"


def instance_at(instance: str, site: str) -> str:
    """Under which instance name a site's provider keeps its part: two parts may be with one provider."""
    return f"{instance}@{site}"
