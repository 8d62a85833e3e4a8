"""The provider `openstack`: one site, whose servers are an environment's nodes."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

from ...errors import NodeDownError, ProviderError
from ...experiment.resources import Capabilities, Caveat, EnvironmentRecord, Observed, Resource
from ...paths import state_folder
from ..base import Channel, Finding, Progress, Provider, ProviderSettings
from .cloud import Cloud
from .growth import Growth
from .index import Entry, Index
from .names import belongs, node_of
from .observation import observed, servers, snapshot
from .settings import OpenStackSettings

IN_PLACE = frozenset({("environment", key) for key in ("lease", "collect", "parameters", "names", "user", "host")} | {("names", "tables")})


class OpenStackProvider(Provider):
    """Nodes that are servers of a cloud."""

    name: ClassVar[str] = "openstack"
    Settings: ClassVar[type[ProviderSettings]] = OpenStackSettings

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        self._chosen = self.settings if isinstance(self.settings, OpenStackSettings) else OpenStackSettings()

    @functools.cached_property
    def index(self) -> Index:
        """What is written down here."""
        return Index((state_folder() / self.name).absolute())

    @functools.cached_property
    def cloud(self) -> Cloud:
        """The cloud that the settings name."""
        return Cloud(self._chosen)

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        shaped = [
            item
            for item in desired
            if item.kind in ("link", "access") and any(item.spec.get(way) for way in ("there", "back", "up", "down"))
        ]
        caveats = [Caveat(str(item), "shape", "links are not shaped here", "packets pass as the cloud lets them") for item in shaped]
        return Capabilities(IN_PLACE, tuple(caveats))

    async def environments(self) -> list[EnvironmentRecord]:
        return [entry.record for entry in self.index.entries()]

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        with self.index.locks.lock(file, instance, purpose):
            yield

    async def observe(self, environment: str) -> Observed:
        return observed(environment, await snapshot(self._cloud(environment), environment), self.index.read(environment))

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        kind = resources[0].kind
        if kind == "environment":
            self.index.write(Entry(_record(environment, resources[0].spec)))
            await self._growth(environment, progress).create_environment(resources[0])
        elif kind == "network":
            # written down first: of what is begun, the spec is known however this ends
            self._remember(environment, resources)
            await self._growth(environment, progress).create_networks(resources)
        elif kind == "node":
            await self._growth(environment, progress).create_nodes(resources)
        else:
            self._remember(environment, resources)
        for resource in resources:
            progress(resource.name, "ready")

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        if resources[0].kind == "environment":
            entry = self._entry(environment)
            entry.record = replace(entry.record, spec=dict(resources[0].spec))
            self.index.write(entry)
        else:
            self._remember(environment, resources)
        for resource in resources:
            progress(resource.name, "ready")

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        if not resources:
            return
        kind, names = resources[0][0], [what for _, what in resources]
        growth, cloud = self._growth(environment, progress), self._cloud(environment)
        if kind == "node":
            await growth.delete_nodes(names, await snapshot(cloud, environment))
        elif kind == "network":
            await growth.delete_networks(names, await snapshot(cloud, environment))
        elif kind == "environment":
            await growth.delete_environment(await snapshot(cloud, environment))
            self.index.remove(environment)
        if entry := self.index.read(environment):
            for key in resources:
                entry.resources.pop(key, None)
                entry.notes.pop(key[1], None)
            self.index.write(entry)

    async def destroy(self, environment: str, progress: Progress) -> None:
        growth, seen = self._growth(environment, progress), await snapshot(self._cloud(environment), environment)
        nodes = [item.name for item in observed(environment, seen, None).of("node")]
        await growth.delete_nodes(nodes, seen)
        await growth.delete_ports([port for port in seen.ports if belongs(environment, port.name)])
        await growth.delete_networks([item.name for item in observed(environment, seen, None).of("network")], seen)
        await growth.delete_environment(seen)
        self.index.remove(environment)

    async def own_clocks(self, environment: str) -> bool:
        return True

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        server = await self._server(environment, node)
        entry = self._entry(environment)
        known, values = entry.notes.get(node, (server, {}))
        kept = {**(values if known == server else {}), name: dict(value)} if value is not None else {**values}
        if value is None:
            kept.pop(name, None)
        entry.notes[node] = (server, kept)
        self.index.write(entry)

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        entry = self.index.read(environment)
        if entry is None or not entry.notes:
            return {}
        there = {server.id for server in await servers(self._cloud(environment), environment)}
        return {node: values for node, (server, values) in entry.notes.items() if server in there and values}

    def channel(self, environment: str, node: str) -> Channel:
        return Unreachable(node)

    async def collect_garbage(self, progress: Progress) -> list[str]:
        return []

    async def diagnose(self) -> list[Finding]:
        try:
            who = await self.cloud.ask("the cloud", lambda connection: connection.current_project.name)
        except ProviderError as error:
            return [Finding("openstack", "missing", error.message, error.remedy)]
        return [Finding("openstack", "ok", f"project {who}")]

    def _cloud(self, environment: str) -> Cloud:
        """The cloud that an environment is on, which need not be the one that the settings name now."""
        entry = self.index.read(environment)
        settings = OpenStackSettings.model_validate(entry.record.spec.get("settings") or {}) if entry else self._chosen
        return self.cloud if settings == self._chosen or not (settings.cloud or settings.region) else Cloud(settings)

    def _growth(self, environment: str, progress: Progress) -> Growth:
        return Growth(self._cloud(environment), self.index, self._chosen, environment, progress)

    def _entry(self, environment: str) -> Entry:
        entry = self.index.read(environment)
        if entry is None:
            raise ProviderError("there is no such environment", resource=f"environment {environment}")
        return entry

    def _remember(self, environment: str, resources: Sequence[Resource]) -> None:
        entry = self._entry(environment)
        entry.resources |= {resource.key: resource for resource in resources}
        self.index.write(entry)

    async def _server(self, environment: str, node: str) -> str:
        for server in await servers(self._cloud(environment), environment):
            if (node_of(server.metadata) or ("",))[0] == node:
                return str(server.id)
        raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")


class Unreachable(Channel):
    """The way to a node that there is none to."""

    def __init__(self, node: str) -> None:
        self._node = node

    async def start(self, argv: Sequence[str], **_: Any) -> NoReturn:
        raise NodeDownError(self._node, "servers cannot be logged in to")


def _record(environment: str, spec: Mapping[str, Any]) -> EnvironmentRecord:
    said = {key: str(spec.get(key, "")) for key in ("name", "instance", "file", "user", "host")}
    return EnvironmentRecord(environment, **said, provider="openstack", created=time.time(), spec=dict(spec))
