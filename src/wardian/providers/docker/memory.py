"""Which Engine each of our environments is on, written down here: settings and `DOCKER_HOST` may change while it lives.

It decides nothing about what exists. While an Engine does not answer, its environments are known by it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from ...experiment.resources import EnvironmentRecord


class Memory:
    """One file an environment in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remember(self, address: str, record: EnvironmentRecord) -> None:
        """The environment is on the Engine at this address."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(record.id)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"engine": address, "record": asdict(record)}))
        part.rename(path)

    def forget(self, environment: str) -> None:
        """It is gone."""
        self._path(environment).unlink(missing_ok=True)

    def engine(self, environment: str) -> str | None:
        """The address of the Engine that has it, if that was written down."""
        known = _read(self._path(environment))
        return known[0] if known else None

    def all(self) -> list[tuple[str, EnvironmentRecord]]:
        """Every (address, record)."""
        return [known for path in sorted(self._folder.glob("*.json")) if (known := _read(path))]

    def _path(self, environment: str) -> Path:
        return self._folder / f"{quote(environment, safe='')}.json"


def _read(path: Path) -> tuple[str, EnvironmentRecord] | None:
    try:
        value = json.loads(path.read_bytes())
        return value["engine"], EnvironmentRecord(**value["record"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
