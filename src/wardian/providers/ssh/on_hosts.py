"""What is alike for all providers whose nodes are on hosts that are reached by SSH, whoever made these."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

from ...errors import NotUpError
from ...experiment.resources import EnvironmentRecord
from ..base import Channel, Fault, Provider, ProviderSettings
from . import faults as afflictions
from . import marker
from .channel import SshChannel
from .index import Index
from .inventory import Host
from .spawning import Spawners


class OnHosts(Provider):
    """Nodes on hosts."""

    faults: ClassVar[frozenset[str]] = afflictions.KINDS

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        self._spawners = Spawners()

    @property
    @abstractmethod
    def index(self) -> Index:
        """Where this machine knows environments to be."""

    async def environments(self) -> list[EnvironmentRecord]:
        return [entry.record for entry in self.index.entries()]

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        with self.index.locks.lock(file, instance, purpose):
            yield

    def channel(self, environment: str, node: str) -> Channel:
        return SshChannel(node, marker.place(environment, node), lambda: self._host(environment, node), self._spawners)

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        if entry := self.index.read(environment):
            await afflictions.inflict(entry, kind, targets, faults)

    async def kill(self, environment: str, nodes: Sequence[str]) -> None:
        entry = self.index.read(environment)
        if entry is None:
            raise NotUpError(f"there is no environment {environment}")
        await afflictions.kill(entry, nodes)

    def _host(self, environment: str, node: str) -> Host | None:
        """The host that a node is on; None where there is no such node."""
        entry = self.index.read(environment)
        placed = entry.nodes.get(node) if entry else None
        return placed.host if placed else None
