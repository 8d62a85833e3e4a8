"""The provider `ssh`: places nodes on machines that are there already. It grows nothing, marks what it owns, and cleans up after itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ...errors import NodeDownError
from ...experiment.resources import Capabilities, Observed, Resource
from ...paths import state_folder
from ..base import Finding, Progress, ProviderSettings, Usage
from . import adoption, caveats, doctor, limits, marker, shaping, use
from .hosts import each
from .index import Entry, Index
from .inventory import hosts
from .observation import glance, notes, observe
from .on_hosts import OnHosts
from .placement import LostError, Placement
from .refusals import HostError
from .routes import Routes
from .settings import SshSettings
from .shaping import Look
from .tending import Tending

IN_PLACE = frozenset(
    {("environment", key) for key in ("lease", "collect", "parameters", "names", "user", "host", "settings")}
    | {("network", "routes"), ("names", "tables"), ("access", "up"), ("access", "down"), ("link", "there"), ("link", "back")}
    | {(kind, "mtu") for kind in ("network", "link", "access")}
    | {("node", key) for key in ("env", "cpus", "memory", "image", "hostname", "group", "index", "roles", "site", "internet")}
    | {("node", key) for key in ("routes", "routes_between", "interfaces")}
)


class SshProvider(OnHosts):
    """Nodes on machines that are there already."""

    name: ClassVar[str] = "ssh"
    Settings: ClassVar[type[ProviderSettings]] = SshSettings

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        self._places = self.settings if isinstance(self.settings, SshSettings) else SshSettings()

    @functools.cached_property
    def index(self) -> Index:
        """Where this machine knows environments to be."""
        return Index((state_folder() / self.name).absolute())

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        environment = next(item.spec for item in desired if item.kind == "environment")
        nodes = {item.name: item.spec for item in desired if item.kind == "node"}
        entry = self.index.find(environment["file"], environment["instance"])
        placement = Placement(self._places, (environment["file"], environment["instance"]), entry, self.index.left())
        try:
            places = await placement.foresee(nodes)
        except LostError:
            await adoption.adopt(self.index, self._places, Path(environment["file"]).parent)
            raise
        facts = {node: said for node, (_, said) in places.items()}
        routes = Routes(desired, {node: (nodes[node], (said.address,)) for node, said in facts.items()})
        wanted = list(routes.wanted().items())
        identity = entry.record.id if entry else "none"

        async def look(item: tuple[str, Mapping[str, Any]]) -> Look:
            return await shaping.look(places[item[0]][0], marker.place(identity, item[0]), list(item[1]))

        looks = zip(wanted, await each(wanted, look), strict=True)
        seen = {node: found for (node, _), found in looks if isinstance(found, Look)}
        limited = [node for node, spec in nodes.items() if limits.asked(spec) and node in places]
        answers = zip(limited, await each(limited, lambda node: limits.look(places[node][0])), strict=True)
        unlimited = {node: reasons for node, reasons in answers if isinstance(reasons, dict)}
        return Capabilities(IN_PLACE, tuple(caveats.of(desired, facts, routes, seen, unlimited)))

    async def observe(self, environment: str) -> Observed:
        entry = self.index.read(environment)
        if entry is None:
            return Observed()
        self._renew(entry)
        return await observe(entry)

    async def glance(self, environment: str) -> Observed:
        entry = self.index.read(environment)
        return Observed() if entry is None else glance(entry)

    async def usage(self, environment: str) -> Mapping[str, Usage]:
        entry = self.index.read(environment)
        return await use.used(entry) if entry else {}

    async def traffic(self, environment: str) -> Mapping[str, Mapping[str, int]]:
        entry = self.index.read(environment)
        return await use.carried(entry) if entry else {}

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        await self._tending(environment).create(resources, progress)

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        await self._tending(environment).update(resources, progress)

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        await self._tending(environment).delete(resources, progress)

    async def destroy(self, environment: str, progress: Progress) -> None:
        await self._tending(environment).destroy(progress)

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        host = self._host(environment, node)
        try:
            if host is not None and await marker.note(host, environment, node, name, value):
                return
        except HostError as error:
            raise NodeDownError(node, f"its host {host} cannot be used: {error.bare}", remedy=error.remedy) from None
        raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        entry = self.index.read(environment)
        return await notes(entry) if entry else {}

    async def own_clocks(self, environment: str) -> bool:
        return True

    async def collect_garbage(self, progress: Progress) -> list[str]:
        removed = []
        for environment, left in self.index.left().items():
            for host, outcome in zip(left, await each(left, lambda host: marker.clean(host, environment)), strict=True):  # noqa: B023
                if isinstance(outcome, HostError):
                    progress(host.name, f"still has something of {environment}: {outcome.bare}")
                    continue
                self.index.clear(environment, host)
                removed.append(f"what was left of {environment} on host {host}")
        return removed

    async def diagnose(self) -> list[Finding]:
        return await doctor.diagnose()

    def _tending(self, environment: str) -> Tending:
        return Tending(self.index, self._places, environment)

    def _renew(self, entry: Entry) -> None:
        """Reach hosts in the way that the settings say now: an address, a user or a key may be another than when the node was made."""
        if not (self._places.hosts or self._places.inventory):
            return
        listed = {host.name: host for host in hosts(self._places, Path(entry.record.file).parent)}
        renewed = {
            name: replace(placed, host=replace(listed.get(placed.host.name, placed.host), shell=placed.host.shell))
            for name, placed in entry.nodes.items()
        }
        if renewed != entry.nodes:
            entry.nodes = renewed
            self.index.write(entry)
