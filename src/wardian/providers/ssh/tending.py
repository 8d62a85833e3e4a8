"""Bringing nodes onto hosts, changing them, and taking them off again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import ProviderError
from ...experiment.resources import EnvironmentRecord, Resource
from ..base import Progress
from . import limits, marker, masters, scripts, shaping
from .hosts import each
from .index import Entry, Index, Placed
from .inventory import Host
from .placement import Placement
from .refusals import HostError
from .settings import SshSettings


class Tending:
    """Work on one environment, by who holds its lock. wired: see `Placed`."""

    def __init__(self, index: Index, settings: SshSettings, environment: str, *, wired: bool = False) -> None:
        self._index = index
        self._settings = settings
        self._environment = environment
        self._wired = wired

    async def create(self, resources: Sequence[Resource], progress: Progress) -> None:
        """Make these, all of one kind. Raises ProviderError, PlanError."""
        kind = resources[0].kind
        if kind == "environment":
            self._index.write(Entry(_record(self._environment, resources[0].spec)))
        elif kind == "node":
            await self._create_nodes(resources, progress)
        else:
            await self._remember(resources, progress)
        for resource in resources:
            progress(resource.name, "ready")

    async def update(self, resources: Sequence[Resource], progress: Progress) -> None:
        """Bring these, all of one kind, to a new spec. Raises ProviderError."""
        kind = resources[0].kind
        if kind == "environment":
            entry = self._entry()
            entry.record = replace(entry.record, spec=dict(resources[0].spec))
            self._index.write(entry)
            await self._write_nodes({name: placed.spec for name, placed in entry.nodes.items()}, progress, strict=False)
        elif kind == "node":
            before = self._entry()
            await self._write_nodes({resource.name: resource.spec for resource in resources}, progress, strict=True)
            await self._shape(before, self._entry(), progress)
        else:
            await self._remember(resources, progress)
        for resource in resources:
            progress(resource.name, "ready")

    async def delete(self, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        """Remove these, all of one kind."""
        entry = self._index.read(self._environment)
        if entry is None:
            return
        # a wired host is made for its node, and goes with it
        nodes = [name for kind, name in resources if kind == "node" and name in entry.nodes and not entry.nodes[name].wired]
        await self._clean({entry.nodes[name].host.name: entry.nodes[name].host for name in nodes}.values(), progress)
        entry = self._entry()
        for kind, name in resources:
            entry.resources.pop((kind, name), None)
            if kind == "node":
                entry.nodes.pop(name, None)
        await self._shape(self._entry(), entry, progress)
        if any(kind == "names" for kind, _ in resources):
            await self._write_names()

    async def destroy(self, progress: Progress) -> None:
        """Remove everything of the environment; what is on a host that cannot be reached is left for `collect_garbage`."""
        entry = self._index.read(self._environment)
        if entry is None:
            return
        hosts = {placed.host.name: placed.host for placed in entry.nodes.values()}
        await self._clean(hosts.values(), progress)
        self._index.remove(self._environment)
        used = {masters.control_socket(placed.host) for other in self._index.entries() for placed in other.nodes.values()}
        for host in hosts.values():
            if masters.control_socket(host) not in used:
                await masters.disconnect(host)

    # Nodes

    async def _create_nodes(self, resources: Sequence[Resource], progress: Progress) -> None:
        entry = self._entry()
        record = entry.record
        specs = {resource.name: resource.spec for resource in resources}
        unfinished = {name for name, spec in specs.items() if spec["setup"] or limits.asked(spec)}

        async def take(node: str, host: Host) -> Host:
            progress(node, f"going to {host}")
            await self._clear_left(host)
            # written down first: what is begun there is found again however this ends
            self._place(node, Placed(host, "", specs[node], wired=self._wired))
            try:
                complete, alone = node not in unfinished, not self._settings.shared
                facts = await marker.put(host, record, node, specs[node], complete=complete, alone=alone)
            except HostError as error:
                if error.begun:
                    self._index.leave(self._environment, host)
                self._forget(node)
                raise
            self._place(node, Placed(replace(host, shell=facts.shell), facts.address, specs[node], wired=self._wired))
            return host

        taken = {placed.host.name for name, placed in entry.nodes.items() if name not in specs}
        placement = Placement(self._settings, (record.file, record.instance), entry, self._index.left())
        try:
            hosts = await placement.settle(specs, taken, take)
        except HostError as error:
            raise ProviderError(error.message, remedy=error.remedy) from None

        async def finish(item: tuple[str, Host]) -> None:
            node, host = item
            await self._limit(node, host, specs[node], progress)
            if specs[node]["setup"]:
                progress(node, f"running setup on {host}")
                await marker.setup(host, self._environment, specs[node]["setup"])
            await marker.put(host, record, node, specs[node], complete=True)

        _raise_first(await each([item for item in hosts.items() if item[0] in unfinished], finish))
        await self._write_names()
        await self._shape(Entry(record), self._entry(), progress)

    async def _limit(self, node: str, host: Host, spec: Mapping[str, Any], progress: Progress) -> None:
        answer = await limits.bring(host, self._environment, node, spec)
        if answer.code in limits.REASONS:
            progress(node, f"has no limits: {limits.REASONS[answer.code]}")
        elif answer.code not in (0, scripts.NOT_THERE):
            message = f"its limits cannot be set: {answer.last_error or 'the kernel refuses them'}"
            remedy = "A memory limit below what is in use is refused; stop something on the node or ask for more."
            raise ProviderError(message, resource=f"node {node}", remedy=remedy)

    async def _clear_left(self, host: Host) -> None:
        """Remove what is still there of ours from when the host could not be reached."""
        for environment, left in self._index.left().items():
            if any(item.name == host.name for item in left):
                await marker.clean(host, environment)
                self._index.clear(environment, host)

    async def _write_nodes(self, specs: Mapping[str, Mapping[str, Any]], progress: Progress, *, strict: bool) -> None:
        entry = self._entry()

        async def write(name: str) -> None:
            host = entry.nodes[name].host
            if any(specs[name][field] != entry.nodes[name].spec[field] for field in limits.CONTROLLERS):
                await self._limit(name, host, specs[name], progress)
            facts = await marker.put(host, entry.record, name, specs[name], complete=True)
            self._place(name, Placed(replace(host, shell=facts.shell), facts.address, specs[name], entry.nodes[name].able, self._wired))

        outcomes = await each([name for name in specs if name in entry.nodes], write)
        if strict:
            _raise_first(outcomes)

    async def _clean(self, hosts: Any, progress: Progress) -> None:
        hosts = list(hosts)
        for host, outcome in zip(hosts, await each(hosts, lambda host: marker.clean(host, self._environment)), strict=True):
            if isinstance(outcome, HostError):
                progress(host.name, f"cannot be cleaned now ({outcome.bare}); `wardian gc` does so once it can be reached")
                self._index.leave(self._environment, host)

    async def _write_names(self) -> None:
        """Have the nodes' names resolve on each host, as far as that may be."""
        entry = self._entry()
        names = next((item for item in entry.resources.values() if item.kind == "names"), None)
        addresses = {
            part["address"].partition("/")[0]: part["address"].partition("/")[0] if placed.wired else placed.address
            for placed in entry.nodes.values()
            for part in placed.spec.get("interfaces", ())
        }

        async def write(placed: Placed) -> None:
            networks = ",".join(sorted(part["network"] for part in placed.spec.get("interfaces", ())))
            rows = names.spec["tables"].get(networks, []) if names else []
            table = {name: addresses[address] for address, name in rows if addresses.get(address)}
            await marker.names(placed.host, self._environment, table)

        if names:
            await each(entry.nodes.values(), write)

    # Links

    async def _shape(self, before: Entry, after: Entry, progress: Progress) -> None:
        """Have hosts shape what they send as the links that are now ask for, where that changed, and keep the entry.

        In this order: cut short, the index tells of links that the hosts do not have as it says, and that is seen.
        """
        was, wanted = before.routes().wanted(), after.routes().wanted()
        concerned = [name for name in after.nodes if was.get(name) != wanted.get(name)]

        async def bring(name: str) -> None:
            placed, shapes = after.nodes[name], wanted.get(name, {})
            seen = await shaping.look(placed.host, marker.place(self._environment, name), list(shapes))
            after.nodes[name] = replace(placed, able=tuple(sorted(seen.able)))
            if seen.able:
                spared = [(address, port, False) for address, port in after.behind(placed.host)]
                await shaping.bring(placed.host, seen, shapes, spared)

        for name, outcome in zip(concerned, await each(concerned, bring), strict=True):
            if isinstance(outcome, HostError):
                progress(name, f"its links cannot be shaped now: {outcome.bare}")
        self._index.write(after)

    # The index

    def _entry(self) -> Entry:
        entry = self._index.read(self._environment)
        if entry is None:
            raise ProviderError("there is no such environment", resource=f"environment {self._environment}")
        return entry

    async def _remember(self, resources: Sequence[Resource], progress: Progress) -> None:
        before, after = self._entry(), self._entry()
        after.resources |= {resource.key: resource for resource in resources}
        await self._shape(before, after, progress)
        if resources[0].kind == "names":
            await self._write_names()

    def _place(self, node: str, placed: Placed) -> None:
        entry = self._entry()
        entry.nodes[node] = placed
        self._index.write(entry)

    def _forget(self, node: str) -> None:
        entry = self._entry()
        entry.nodes.pop(node, None)
        self._index.write(entry)


def _record(environment: str, spec: Mapping[str, Any]) -> EnvironmentRecord:
    said: dict[str, Any] = {key: str(spec.get(key, "")) for key in ("name", "instance", "file", "user", "host")}
    return EnvironmentRecord(environment, **said, provider="ssh", created=time.time(), spec=dict(spec))


def _raise_first(outcomes: Sequence[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
