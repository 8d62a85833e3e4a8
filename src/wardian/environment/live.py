"""An environment that exists: its nodes, how selectors pick them, and the way to each."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NotUpError
from ..experiment import selectors
from ..experiment.resources import EnvironmentRecord, Observed
from ..journal.redact import secrets_in
from ..providers import registry
from ..providers.base import Channel, Provider
from . import keeper

FILE = "experiment.yaml"

FOLDER = ".wardian"
"""Beside the experiment file: the journal and what was collected."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as it is now. `addresses` are {network: address}; state is "ready", "stopped" or "incomplete"."""

    name: str
    group: str
    index: int | None
    roles: tuple[str, ...]
    hostname: str
    state: str
    detail: str
    addresses: dict[str, str]


class LiveEnvironment:
    """An environment that exists, as it was when last read; `refresh` reads it again."""

    def __init__(self, record: EnvironmentRecord, provider: Provider) -> None:
        self.record = record
        self.provider = provider
        self.observed = Observed(record)
        self.nodes: dict[str, NodeView] = {}

    async def refresh(self, *, glance: bool = False) -> None:
        """Read what exists from the provider, with `glance` no more than `Provider.glance` gives. Raises NotUpError if it is gone."""
        self.observed = await (self.provider.glance if glance else self.provider.observe)(self.record.id)
        if self.observed.environment is None:
            raise not_up(self.record.file, self.record.instance)
        views = (
            NodeView(
                name=item.name,
                group=item.spec["group"],
                index=item.spec["index"],
                roles=tuple(item.spec["roles"]),
                hostname=item.spec["hostname"],
                state=item.state,
                detail=item.detail,
                addresses={part["network"]: part["address"].partition("/")[0] for part in item.spec["interfaces"]} | dict(item.addresses),
            )
            for item in self.observed.of("node")
            if item.spec
        )
        self.nodes = {view.name: view for view in views}

    def select(self, selector: str) -> list[str]:
        """The names of the nodes that `selector` picks. Raises SelectorError naming what exists."""
        return selectors.resolve(selector, self.references(), self.names)

    @property
    def names(self) -> Sequence[str]:
        """The groups and roles of the file, also those that no node has now."""
        names: Sequence[str] = self._latest().spec.get("names", ())
        return names

    @property
    def lease(self) -> dict[str, Any] | None:
        """How long it is held: {"end": seconds since the epoch, "at_end": "down" or "keep"}; None without a lease."""
        end = keeper.lease_end(self._latest())
        return None if end is None else {"end": end, "at_end": self._latest().spec["lease"]["at_end"]}

    def _latest(self) -> EnvironmentRecord:
        return self.observed.environment or self.record

    def references(self) -> list[selectors.NodeRef]:
        """What selectors pick from."""
        return [selectors.NodeRef(view.name, view.group, view.index, view.roles) for view in self.nodes.values()]

    def secrets(self) -> set[str]:
        """The values of variables with secret names that nodes and services were given, and of such parameters."""
        given = [item.spec.get("env") or {} for kind in ("node", "service") for item in self.observed.of(kind)]
        return set().union(*map(secrets_in, [*given, self.record.spec.get("parameters") or {}]))

    def channel(self, node: str) -> Channel:
        """The way to a node."""
        return self.provider.channel(self.record.id, node)

    def channels(self, nodes: Iterable[str]) -> dict[str, Channel]:
        """The ways to several."""
        return {node: self.channel(node) for node in nodes}


def experiment_file(start: Path) -> Path | None:
    """The experiment file of a folder: `$WARDIAN_EXPERIMENT`, else its experiment.yaml, else that of the nearest folder above."""
    chosen = os.environ.get("WARDIAN_EXPERIMENT")
    if chosen:
        return Path(chosen).resolve()
    start = start.resolve()
    return next((folder / FILE for folder in (start, *start.parents) if (folder / FILE).is_file()), None)


def journal_target(file: Path) -> Path | str:
    """Where the journal of an experiment file is kept: `$WARDIAN_JOURNAL`, a path or the address of a database, else in its folder.

    A path there that is not absolute starts from the folder of the experiment file.
    """
    chosen = os.environ.get("WARDIAN_JOURNAL")
    if chosen and "://" in chosen:
        return chosen
    return file.parent / (Path(chosen).expanduser() if chosen else Path(FOLDER) / "journal.db")


def experiment_of(notebook: Path) -> Path | None:
    """The experiment file of a notebook: `$WARDIAN_EXPERIMENT`, else what its metadata names (`wardian.experiment`), else its folder's."""
    if not os.environ.get("WARDIAN_EXPERIMENT"):
        try:
            named = json.loads(notebook.read_bytes())["metadata"]["wardian"]["experiment"]
        except (OSError, ValueError, KeyError, TypeError):
            # a notebook that names none, or is none: whoever runs it says so
            named = None
        if isinstance(named, str):
            return (notebook.resolve().parent / named).resolve()
    return experiment_file(notebook.resolve().parent)


def default_instance() -> str:
    """`$WARDIAN_INSTANCE`, else "default"."""
    return os.environ.get("WARDIAN_INSTANCE") or "default"


async def environments() -> list[tuple[EnvironmentRecord, Provider]]:
    """Every environment that any provider holds for this user here; one that grows at several sites is one."""
    providers = [registry.make(name) for name in registry.holders()]
    found = await asyncio.gather(*(provider.environments() for provider in providers))
    covered = set[str]().union(*(provider.covered() for provider in providers))
    pairs = ((record, provider) for provider, records in zip(providers, found, strict=True) for record in records)
    return [(record, provider) for record, provider in pairs if record.id not in covered]


async def holder(file: str, instance: str) -> tuple[EnvironmentRecord, Provider] | None:
    """The environment of a file and the provider that holds it; the providers after that one are neither loaded nor asked."""
    for name in registry.nearest_first():
        provider = registry.make(name)
        for record in await provider.environments():
            if (record.file, record.instance) == (file, instance):
                return record, provider
    return None


async def find(file: Path | None, instance: str = "default", *, glance: bool = False) -> LiveEnvironment:
    """The environment grown from `file` under that instance name. Raises NotUpError if there is none.

    glance: nodes far away are not asked how they are.
    """
    if file is None:
        raise NotUpError(f"there is no {FILE} in this folder or above it", remedy=f"write one (`wardian init`), or name it with -f {FILE}")
    path = str(file.resolve())
    held = await holder(path, instance)
    if held is None:
        raise not_up(path, instance)
    record, provider = held
    await keeper.revive(provider, record)
    live = LiveEnvironment(record, provider)
    await live.refresh(glance=glance)
    return live


def not_up(file: str, instance: str) -> NotUpError:
    """The error for an environment that does not exist."""
    option = "" if instance == "default" else f" -e {instance}"
    return NotUpError(
        f"the environment of {file}" + (f" (instance {instance})" if option else "") + " is not up",
        remedy=f"grow it with `wardian up{option} -f {file}`",
    )
