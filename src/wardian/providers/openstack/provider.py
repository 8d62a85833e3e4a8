"""The provider `openstack`: one site, whose servers are an environment's nodes."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

from ...errors import NodeDownError, ProviderError
from ...experiment.plan import Plan
from ...experiment.resources import Capabilities, EnvironmentRecord, Observed, ObservedResource, Resource
from ...paths import state_folder
from .. import registry
from ..base import Channel, Finding, Progress, ProviderSettings, Slots
from ..ssh import marker
from ..ssh import observation as hosts
from ..ssh.channel import SshChannel
from ..ssh.index import Entry
from ..ssh.inventory import Host
from ..ssh.on_hosts import OnHosts
from ..ssh.refusals import HostError
from ..ssh.tending import Tending
from . import budget, choice, foresight, images, leases
from .choice import checksum
from .cloud import Cloud
from .garbage import collect
from .growth import Growth
from .index import Index
from .names import name as called
from .names import node_of
from .observation import Look, Snapshot, has_key, observed, servers, snapshot
from .reach import LateError, Reach
from .settings import OpenStackSettings

IN_PLACE = frozenset(
    {("environment", key) for key in ("lease", "collect", "parameters", "names", "user", "host", "settings")}
    | {("names", "tables"), ("access", "up"), ("access", "down"), ("link", "there"), ("link", "back")}
    | {("node", key) for key in ("env", "group", "index", "roles", "site", "internet")}
    | leases.IN_PLACE
)


class OpenStackProvider(OnHosts):
    """Nodes that are servers of a cloud, in a reservation where the settings ask for one."""

    name: ClassVar[str] = "openstack"
    treatments: ClassVar[frozenset[str]] = frozenset({"snapshot", "reboot", "rebuild"})
    Settings: ClassVar[type[ProviderSettings]] = OpenStackSettings

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        self._chosen = self.settings if isinstance(self.settings, OpenStackSettings) else OpenStackSettings()
        self._clouds: dict[tuple[str | None, str | None], Cloud] = {}
        self._gates: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._looks: dict[str, Look] = {}
        self._begun: dict[str, Snapshot] = {}
        """What there is of an environment that was begun here, under its lock, until its first servers are made."""

    @functools.cached_property
    def index(self) -> Index:
        """What is written down here."""
        return Index((state_folder() / self.name).absolute())

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        environment = next(item.spec for item in desired if item.kind == "environment")
        entry = self.index.find(environment["file"], environment["instance"])
        settings = self._settings(entry.record.id) if entry else self._chosen
        caveats = await foresight.foresee(self._reached(settings), settings, desired, entry)
        return Capabilities(IN_PLACE, tuple(caveats))

    async def complete(self, desired: Sequence[Resource], observed: Observed) -> Sequence[Resource]:
        return leases.planned(self._chosen.reserve, self.site or self._chosen.cloud or "site", desired, observed)

    async def estimate(self, desired: Sequence[Resource], plan: Plan) -> Sequence[str]:
        return await budget.estimate(self._reached(self._chosen), self._chosen, desired, plan)

    async def slots(self, desired: Sequence[Resource], days: int) -> Slots | None:
        return await leases.slots_of(self._reached(self._chosen), self._chosen.reserve, desired, days)

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        async with super().lock(file, instance, purpose):
            try:
                yield
            finally:
                self._begun.clear()

    async def observe(self, environment: str) -> Observed:
        entry, cloud = self.index.read(environment), self._cloud(environment)
        kept = entry.resources if entry else {}
        asked = snapshot(cloud, environment), leases.read(cloud, environment, kept), has_key(cloud, environment)
        seen, lease, key = await asyncio.gather(*asked)
        key = key and self.index.key(environment).exists()
        # what is on the cloud was written down here before
        entry = entry or self.index.read(environment)
        found = leases.held(observed(environment, seen, entry, key=key), lease)
        if entry is None or self._settings(environment).ready == "active":
            return found
        self._reach(environment).renewed(entry, seen)
        active = {item.name for item in found.of("node") if item.state == "ready"}
        within = await hosts.observe(replace(entry, nodes={node: placed for node, placed in entry.nodes.items() if node in active}))

        def joined(item: ObservedResource) -> ObservedResource:
            if item.kind == "node" and item.state == "ready":
                there = within.resources.get(item.key)
                # what a server carries is what the cloud was asked for; its host has it from us, later
                return (
                    replace(there, spec=item.spec) if there else replace(item, state="incomplete", detail="nobody has logged in to it yet")
                )
            return within.resources.get(item.key, item) if item.kind in ("link", "access") else item

        return Observed.collect(found.environment, [joined(item) for item in found.resources.values()])

    async def glance(self, environment: str) -> Observed:
        entry = self.index.read(environment)
        return hosts.glance(entry) if entry and entry.nodes else await self.observe(environment)

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        kind = resources[0].kind
        if kind == "environment":
            again = self.index.read(environment) is not None
            self.index.write(Entry(_record(environment, resources[0].spec)))
            begun = await self._growth(environment, progress).create_environment()
            if not again:
                self._begun[environment] = begun
        elif kind in ("lease", "network"):
            # written down first: of what is begun, the spec is known however this ends
            self._remember(environment, resources)
            growth = self._growth(environment, progress)
            if kind == "lease":
                await growth.leases.create(resources[0])
            else:
                await growth.leases.started(resources, self._entry(environment).resources)
                joined = any(resource.spec["gateway"] for resource in resources)
                seen = self._begun.get(environment) or (await snapshot(self._cloud(environment), environment) if joined else Snapshot())
                await growth.wiring.create_networks(resources, seen)
        elif kind == "node":
            self._entry(environment)
            await self._create_nodes(environment, resources, progress)
        else:
            await self._tending(environment).create(resources, progress)
            return
        for resource in resources:
            progress(resource.name, "ready")

    async def _create_nodes(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        growth = self._growth(environment, progress)
        seen = await growth.create_nodes(resources, self._begun.pop(environment, None))
        await self._log_in(environment, resources, growth, seen, progress)

    async def _log_in(self, environment: str, resources: Sequence[Resource], growth: Growth, seen: Snapshot, progress: Progress) -> None:
        """Have servers that are ACTIVE be nodes, as soon as they can be logged in to."""
        if self._settings(environment).ready == "active":
            return
        reach = self._reach(environment)
        names = [resource.name for resource in resources]
        try:
            await reach.wait(names, seen, progress)
        except LateError as error:
            console = "".join([await growth.console(server) for server in seen.servers_of(error.node)[:1]])
            raise ProviderError(
                error.message.removeprefix(f"node {error.node}: ") + console, resource=f"node {error.node}", remedy=error.remedy
            ) from None
        reach.renewed(self._entry(environment), seen)
        await Tending(self.index, reach.settings(seen), environment, wired=True).create(resources, progress)

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        growth = self._growth(environment, progress)
        if resources[0].kind == "lease":
            before = self._entry(environment).resources[resources[0].key].spec
            await growth.leases.update(resources[0], before)
        elif resources[0].kind == "node":
            await growth.update_nodes(resources)
        await self._tending(environment).update(resources, progress)

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        entry = self.index.read(environment)
        if not resources or entry is None:
            return
        kind, names = resources[0][0], [what for _, what in resources]
        growth, cloud = self._growth(environment, progress), self._cloud(environment)
        if kind in ("node", "lease"):
            reach = self._reach(environment)
            if kind == "node":
                await reach.leave(entry, names)
                await growth.delete_nodes(names, await snapshot(cloud, environment))
            else:
                await growth.leases.delete(f"lease {names[0]}")
            # with a node or a lease the floating IP may be gone
            reach.renewed(entry, await growth.choose_bastion())
        elif kind == "network":
            doomed, reserved = [called(environment, what) for what in names], leases.networks(environment, entry.resources)
            await growth.wiring.delete_networks(doomed, await snapshot(cloud, environment), reserved)
        elif kind == "environment":
            await growth.delete_environment(await snapshot(cloud, environment))
            self.index.remove(environment)
        await self._tending(environment).delete(resources, progress)

    async def destroy(self, environment: str, progress: Progress) -> None:
        entry = self.index.read(environment)
        if entry is not None:
            await self._reach(environment).leave(entry, entry.nodes)
        await self._growth(environment, progress).destroy()
        self.index.remove(environment)

    async def reboot(self, environment: str, resources: Sequence[Resource], progress: Progress, *, hard: bool = False) -> None:
        growth = self._growth(environment, progress)
        await self._reach(environment).leave(self._entry(environment), [resource.name for resource in resources])
        await self._log_in(environment, resources, growth, await growth.reboot_nodes(resources, hard=hard), progress)

    async def rebuild(self, environment: str, resources: Sequence[Resource], progress: Progress, *, image: str | None = None) -> None:
        growth = self._growth(environment, progress)
        await self._reach(environment).leave(self._entry(environment), [resource.name for resource in resources])
        await self._log_in(environment, resources, growth, await growth.rebuild_nodes(resources, image), progress)

    async def image_digest(self, environment: str, image: str, progress: Progress) -> str:
        listed = await self._cloud(environment).images()
        return str(choice.image("", {"image": image}, self._settings(environment), listed).id)

    async def snapshot(self, environment: str, node: str, name: str, progress: Progress) -> str:
        return await images.snapshot(self._cloud(environment), self._settings(environment), environment, node, name, progress)

    async def own_clocks(self, environment: str) -> bool:
        return self._settings(environment).ready == "ssh"

    async def images(self, environment: str) -> dict[str, dict[str, str]]:
        cloud = self._cloud(environment)
        there = await servers(cloud, environment)
        listed = {item.id: item for item in await cloud.all("images", lambda connection: connection.image.images())}
        made = {node[0]: listed[server.image.id] for server in there if (node := node_of(server.metadata)) and server.image.id in listed}
        return {node: {"name": str(image.name), "digest": checksum(image)} for node, image in made.items() if checksum(image)}

    # Notes

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        host = self._host(environment, node)
        try:
            if host is not None and await marker.note(host, environment, node, name, value):
                return None
        except HostError as error:
            raise NodeDownError(node, f"its server cannot be logged in to: {error.bare}", remedy=error.remedy) from None
        if host is None and self._settings(environment).ready == "active":
            for server in await servers(self._cloud(environment), environment):
                if (node_of(server.metadata) or ("",))[0] == node:
                    return self.index.note(environment, node, name, value, server.id)
        raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        entry = self.index.read(environment)
        found = await hosts.notes(entry) if entry else {}
        if kept := self.index.notes(environment):
            there = {server.id for server in await servers(self._cloud(environment), environment)}
            for node, values in kept.items():
                if current := {name: value for name, (server, value) in values.items() if server in there}:
                    found[node] = current
        return found

    # Working on nodes

    def channel(self, environment: str, node: str) -> Channel:
        def find() -> Host | None:
            if self.index.read(environment) and self._settings(environment).ready == "active":
                remedy = "Set `ready: ssh`, and `wardian up` makes them anew."
                raise NodeDownError(node, "nobody logs in to servers that count as ready once they are ACTIVE", remedy=remedy)
            return self._host(environment, node)

        return SshChannel(node, marker.place(environment, node), find, self._spawners)

    # Looking after it

    async def collect_garbage(self, progress: Progress) -> list[str]:
        if not self.index.used:
            return []
        used = {(item.cloud, item.region): item for item in (self._settings(entry.record.id) for entry in self.index.entries())}
        removed = []
        for place, settings in ({(self._chosen.cloud, self._chosen.region): self._chosen} | used).items():
            removed += await collect(self._reached(settings), self.index, settings, progress, required=place in used)
        return removed

    async def diagnose(self) -> list[Finding]:
        return await foresight.diagnose(self._reached(self._chosen))

    # Where it is

    def _settings(self, environment: str) -> OpenStackSettings:
        """Those that we are given, or else those that the environment was grown with. Raises ProviderError."""
        entry = self.index.read(environment)
        if entry is None or self._chosen != OpenStackSettings():
            return self._chosen
        with registry.as_grown(environment):
            return OpenStackSettings.model_validate(entry.record.spec.get("settings") or {})

    def _cloud(self, environment: str) -> Cloud:
        return self._reached(self._settings(environment))

    def _reached(self, settings: OpenStackSettings) -> Cloud:
        site = (settings.cloud, settings.region)
        if site not in self._clouds:
            self._clouds[site] = Cloud(settings)
        return self._clouds[site]

    def _growth(self, environment: str, progress: Progress) -> Growth:
        cloud = self._cloud(environment)
        look = self._looks.setdefault(environment, Look(cloud, environment))
        return Growth(cloud, self.index, self._settings(environment), environment, progress, self._gates[environment], look)

    def _reach(self, environment: str) -> Reach:
        return Reach(self.index, self._settings(environment), environment)

    def _tending(self, environment: str) -> Tending:
        return Tending(self.index, self._reach(environment).settings(Snapshot()), environment, wired=True)

    def _entry(self, environment: str) -> Entry:
        entry = self.index.read(environment)
        if entry is None:
            raise ProviderError("there is no such environment", resource=f"environment {environment}")
        return entry

    def _remember(self, environment: str, resources: Sequence[Resource]) -> None:
        entry = self._entry(environment)
        entry.resources |= {resource.key: resource for resource in resources}
        self.index.write(entry)


def _record(environment: str, spec: Mapping[str, Any]) -> EnvironmentRecord:
    said: dict[str, Any] = {key: str(spec.get(key, "")) for key in ("name", "instance", "file", "user", "host")}
    return EnvironmentRecord(environment, **said, provider="openstack", created=time.time(), spec=dict(spec))
