"""What an environment's things cannot carry themselves, as empty volumes with labels.

Labels are for good, and not everything has a thing of its own: the environment itself, names, notes, a container's spec that changed in
place. Each is a volume with nothing in it. Changing one makes a volume with the next number, and then removes the one before, so that a
reader meets the old or the new. What belongs to a container names it, and counts no more once that one is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .engine import Engine
from .names import ENVIRONMENT, KIND, NAME, OWNER, PREFIX, SPEC, Identity, carries, filters, identity_of, labels, owner

REVISION, OF = PREFIX + "revision", PREFIX + "of"


@dataclass(frozen=True, slots=True)
class Entry:
    """One of them. of: the container that it belongs to, "" where it belongs to none. volume: its name."""

    kind: str
    name: str
    value: Mapping[str, Any]
    of: str
    volume: str
    revision: int
    labels: Mapping[str, str]

    @property
    def identity(self) -> Identity:
        """What it says of its environment; all of it, for the entry that is about the environment."""
        return identity_of(self.labels, self.value if self.kind == "environment" else None)


class Records:
    """Those of one environment."""

    def __init__(self, engine: Engine, environment: str) -> None:
        self._engine = engine
        self._environment = environment

    async def read(self) -> list[Entry]:
        """The latest of each."""
        return latest(await self._volumes())

    async def put(self, identity: Identity, kind: str, name: str, value: Mapping[str, Any], of: str = "") -> None:
        """Write one down in place of what there was under its kind, name and container."""
        before = await self._volumes(kind, name, of)
        revision = max((entry.revision for entry in before), default=0) + 1
        number = hashlib.sha256("\0".join((kind, name, of)).encode()).hexdigest()[:16]
        given = {**labels(identity, kind, name, value), REVISION: str(revision), OF: of}
        await self._engine.post("/volumes/create", {"Name": f"{self._environment}.{number}.{revision}", "Labels": given})
        await self._remove(before)

    async def remove(self, kind: str, name: str, of: str | None = None) -> None:
        """Forget one. of: only that of this container."""
        await self._remove(await self._volumes(kind, name, of))

    async def clear(self) -> None:
        """Forget all, the environment's own last."""
        entries = await self._volumes()
        await self._remove(entry for entry in entries if entry.kind != "environment")
        await self._remove(entry for entry in entries if entry.kind == "environment")

    async def _volumes(self, kind: str | None = None, name: str | None = None, of: str | None = None) -> list[Entry]:
        wanted = [f"{ENVIRONMENT}={self._environment}"]
        wanted += [f"{label}={value}" for label, value in ((KIND, kind), (NAME, name), (OF, of)) if value is not None]
        return await entries(self._engine, *wanted)

    async def _remove(self, gone: Iterable[Entry]) -> None:
        for entry in gone:
            await self._engine.delete(f"/volumes/{entry.volume}")


async def entries(engine: Engine, *wanted: str) -> list[Entry]:
    """All that carry these labels, of whichever environments of ours."""
    wanted = (f"{OWNER}={owner()}", *wanted)
    found = (await engine.get("/volumes", filters=filters(*wanted))).get("Volumes") or []
    return [_entry(volume["Name"], volume["Labels"]) for volume in found if carries(volume["Labels"], REVISION, *wanted)]


def latest(found: Iterable[Entry]) -> list[Entry]:
    """The latest of each."""
    newest: dict[tuple[str, ...], Entry] = {}
    for entry in sorted(found, key=lambda entry: entry.revision):
        newest[entry.labels[ENVIRONMENT], entry.kind, entry.name, entry.of] = entry
    return list(newest.values())


def _entry(volume: str, given: Mapping[str, str]) -> Entry:
    value = json.loads(given[SPEC])
    return Entry(given[KIND], given[NAME], value, given[OF], volume, int(given[REVISION]), given)
