"""The provider of environments that grow at several sites: it hands each resource to the provider of its site, and joins what they see."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from ...errors import BusyError, NodeDownError, ProviderError
from ...experiment.resources import Capabilities, EnvironmentRecord, Observed, ObservedResource, Resource
from ...paths import state_folder
from .. import registry
from ..base import Channel, Fault, Finding, ImageCommand, Process, Progress, Provider, ProviderSettings, Usage
from ..concurrency import all_of
from .index import Entry, Index, Key, id_at, instance_at
from .shares import at, part_of, plan_at, shares

if TYPE_CHECKING:
    from ...experiment.plan import Plan

T = TypeVar("T")
Member = tuple[Provider, str]
"""The provider of a site, and the id under which it knows what is there."""


class SiteSettings(ProviderSettings):
    """One site."""

    provider: str
    settings: dict[str, Any] = Field(default={})


class SeveralSettings(ProviderSettings):
    """The sites of an experiment, the one first that networks without nodes are at."""

    sites: dict[str, SiteSettings] = Field(default={})


class SeveralProvider(Provider):
    """Nodes at several sites."""

    name: ClassVar[str] = registry.SEVERAL
    Settings: ClassVar[type[ProviderSettings]] = SeveralSettings
    # what those of a site cannot do shows when it is asked of them
    faults: ClassVar[frozenset[str]] = frozenset({"pause", "slow", "partition", "flap", "kill"})
    image_commands: ClassVar[bool] = True

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        super().__init__(settings)
        chosen = self.settings if isinstance(self.settings, SeveralSettings) else SeveralSettings()
        self._given: dict[str, Mapping[str, Any]] = {name: site.model_dump(mode="json") for name, site in chosen.sites.items()}
        self._providers: dict[tuple[str, str], Provider] = {}

    @functools.cached_property
    def index(self) -> Index:
        """Which sites environments have."""
        return Index((state_folder() / "several").absolute())

    # Planning

    def parts(self, desired: Sequence[Resource]) -> Mapping[str, tuple[Provider, Sequence[Resource]]]:
        environment = next(item.spec for item in desired if item.kind == "environment")
        entry = self._find(environment["file"], environment["instance"])
        known = self._sites(entry) | self._given
        split = shares(desired, self._given or known)
        return {site: (self._provider(site, known[site], entry), items) for site, items in split.items()}

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        parts = self.parts(desired)
        able = dict(zip(parts, await all_of(provider.capabilities(items) for provider, items in parts.values()), strict=True))
        settings = ("environment", "settings")
        changes = {
            site: said.in_place - {("node", "site")} | ({("site", "settings")} if settings in said.in_place else set())
            for site, said in able.items()
        }
        caveats = (replace(caveat, message=f"at {site}: {caveat.message}") for site, said in able.items() for caveat in said.caveats)
        return Capabilities(frozenset.intersection(*changes.values()), tuple(caveats), changes)

    async def complete(self, desired: Sequence[Resource], observed: Observed) -> Sequence[Resource]:
        async def completed(site: str, provider: Provider, items: Sequence[Resource]) -> list[Resource]:
            there = {item.key: item for item in observed.resources.values() if item.spec.get("site") == site}
            record = observed.environment and replace(observed.environment, id=id_at(observed.environment.id, site))
            return [at(site, item) for item in await provider.complete(items, Observed(record, there)) if item.kind != "environment"]

        parts = self.parts(desired)
        made = await all_of(completed(site, *part) for site, part in parts.items())
        sites = [Resource("site", site, {"site": site, **self._given[site]}) for site in self._given]
        return [*(item for item in desired if item.kind == "environment"), *sites, *(item for items in made for item in items)]

    async def estimate(self, desired: Sequence[Resource], plan: Plan) -> Sequence[str]:
        async def lines(site: str, provider: Provider, items: Sequence[Resource]) -> list[str]:
            share = plan_at(plan, site)
            return [f"{site}: {line}" for line in await provider.estimate(items, share)] if share else []

        said = await all_of(lines(site, *part) for site, part in self.parts(desired).items())
        return [line for each in said for line in each]

    # What there is

    async def environments(self) -> list[EnvironmentRecord]:
        return [entry.record for entry in self.index.entries()]

    def covered(self) -> set[str]:
        """The ids under which the providers of sites know what is part of our environments."""
        return {identity for entry in self.index.entries() for identity in entry.ids.values()}

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        with self.index.locks.lock(file, instance, purpose):
            # so that nobody takes a part for what is left of something
            async with AsyncExitStack() as held:
                entry = self._find(file, instance)
                known = list(self._sites(entry).items())
                for site, place in [*known, *(item for item in self._given.items() if item not in known)]:
                    await held.enter_async_context(self._provider(site, place, entry).lock(file, instance_at(instance, site), purpose))
                yield

    async def observe(self, environment: str) -> Observed:
        return await self._seen(environment, lambda provider, identity: provider.observe(identity))

    async def glance(self, environment: str) -> Observed:
        return await self._seen(environment, lambda provider, identity: provider.glance(identity))

    async def _seen(self, environment: str, look: Callable[[Provider, str], Awaitable[Observed]]) -> Observed:
        entry = self.index.read(environment)
        if entry is None:
            return Observed()
        found = await self._ask(environment, look)
        resources = [ObservedResource("environment", entry.record.name, entry.record.spec)]
        for site, seen in found.items():
            own = next(seen.of("environment"), ObservedResource("environment", "", {}, "stopped", "nothing of it is left"))
            resources.append(ObservedResource("site", site, {"site": site, **entry.sites[site]}, own.state, own.detail))
            resources += [item for item in seen.resources.values() if item.kind != "environment"]
        ends = [seen.environment.held_until for seen in found.values() if seen.environment and seen.environment.held_until is not None]
        return Observed.collect(replace(entry.record, held_until=min(ends, default=None)), resources)

    async def changed(self, environment: str) -> None:
        members = self._members(self.index.read(environment)).values()
        waiting = [asyncio.ensure_future(provider.changed(identity)) for provider, identity in members]
        if not waiting:
            await super().changed(environment)
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        for task in done:
            task.result()

    async def usage(self, environment: str) -> Mapping[str, Usage]:
        return _joined(await self._ask(environment, lambda provider, identity: provider.usage(identity)))

    async def traffic(self, environment: str) -> Mapping[str, Mapping[str, int]]:
        return _joined(await self._ask(environment, lambda provider, identity: provider.traffic(identity)))

    async def traffic_matrix(self, environment: str, *, counting: bool = True) -> Mapping[tuple[str, str], int]:
        return _joined(await self._ask(environment, lambda provider, identity: provider.traffic_matrix(identity, counting=counting)))

    async def images(self, environment: str) -> dict[str, dict[str, str]]:
        async def images(provider: Provider, identity: str) -> dict[str, dict[str, str]]:
            return {node: {**image, "provider": provider.name} for node, image in (await provider.images(identity)).items()}

        return _joined(await self._ask(environment, images))

    async def own_clocks(self, environment: str) -> bool:
        return any((await self._ask(environment, lambda provider, identity: provider.own_clocks(identity))).values())

    # Changing it

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        if resources[0].kind == "environment":
            self.index.write(Entry(self._record(environment, resources[0].spec, time.time())))
            progress(resources[0].name, "ready")
            return
        entry = self._entry(environment)
        # written down first: whatever is begun is found, and whatever is found can be ended
        if resources[0].kind == "site":
            self._remember(entry, resources)
            await all_of(self._begin(entry, item.name, progress) for item in resources)
            return
        # of an access link that only `link set` knows, its node says where it is
        placed = [at(item.spec.get("site") or entry.where["node", item.spec["node"]], item) for item in resources]
        entry.where |= {item.key: item.spec["site"] for item in placed}
        self.index.write(entry)
        members = self._members(entry)
        split = _by(placed, lambda item: item.spec["site"])
        await all_of(members[site][0].create(members[site][1], items, progress) for site, items in split.items())

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        entry = self._entry(environment)
        if resources[0].kind == "environment":
            entry.record = self._record(environment, resources[0].spec, entry.record.created)
            self.index.write(entry)
            await all_of(self._renew(entry, site, progress) for site in entry.sites)
        elif resources[0].kind == "site":
            self._remember(entry, resources)
            await all_of(self._renew(entry, item.name, progress) for item in resources)
        else:
            members = self._members(entry)
            split = _by(resources, lambda item: item.spec["site"])
            await all_of(members[site][0].update(members[site][1], items, progress) for site, items in split.items())

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        entry = self.index.read(environment)
        if not resources or entry is None:
            return
        if resources[0][0] == "environment":
            self.index.remove(environment)
        elif resources[0][0] == "site":
            await all_of(self._end(entry, site, progress) for _, site in resources if site in entry.sites)
        else:
            members = self._members(entry)
            split = _by([key for key in resources if key in entry.where], lambda key: entry.where[key])
            await all_of(members[site][0].delete(members[site][1], keys, progress) for site, keys in split.items())
            self._forget(environment, lambda key, site: key in resources)

    async def destroy(self, environment: str, progress: Progress) -> None:
        entry = self.index.read(environment)
        if entry is not None:
            await all_of(self._end(entry, site, progress) for site in entry.sites)
            self.index.remove(environment)

    async def _begin(self, entry: Entry, site: str, progress: Progress) -> None:
        provider, identity = self._members(entry)[site]
        await provider.create(identity, [self._part(entry, site, provider)], lambda _, state: progress(site, state))

    async def _renew(self, entry: Entry, site: str, progress: Progress) -> None:
        provider, identity = self._members(entry)[site]
        if identity in {record.id for record in await provider.environments()}:
            await provider.update(identity, [self._part(entry, site, provider)], lambda _, state: progress(site, state))

    async def _end(self, entry: Entry, site: str, progress: Progress) -> None:
        # by the settings that it was made with
        await self._provider(site, entry.sites[site], entry).destroy(entry.ids[site], progress)
        self._forget(entry.record.id, lambda _, where: where == site)
        left = self._entry(entry.record.id)
        del left.sites[site]
        self.index.write(left)

    def _part(self, entry: Entry, site: str, provider: Provider) -> Resource:
        own = {"provider": provider.name, "settings": provider.settings.model_dump(mode="json")}
        return part_of(Resource("environment", entry.record.name, {**entry.record.spec, **own}), site)

    def _remember(self, entry: Entry, sites: Sequence[Resource]) -> None:
        entry.sites |= {item.name: {key: item.spec[key] for key in ("provider", "settings")} for item in sites}
        self.index.write(entry)

    def _forget(self, environment: str, gone: Callable[[Key, str], bool]) -> None:
        # read anew: other operations went on meanwhile
        entry = self._entry(environment)
        entry.where = {key: site for key, site in entry.where.items() if not gone(key, site)}
        self.index.write(entry)

    # Working on nodes

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        provider, identity = self.of_node(environment, node)
        await provider.note(identity, node, name, value)

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        return _joined(await self._ask(environment, lambda provider, identity: provider.notes(identity)))

    def channel(self, environment: str, node: str) -> Channel:
        try:
            provider, identity = self.of_node(environment, node)
        except NodeDownError as error:
            return _Nowhere(error)
        return provider.channel(identity, node)

    async def image_command(self, environment: str, node: str) -> ImageCommand:
        provider, identity = self.of_node(environment, node)
        return await provider.image_command(identity, node)

    async def fetch_images(
        self, environment: str | None, images: Sequence[Mapping[str, str]], folder: Path, report: Callable[[str], None]
    ) -> dict[str, str]:
        async def fetched(site: str, items: Sequence[Mapping[str, str]]) -> dict[str, str]:
            provider = self._provider(site, self._given[site])
            return await provider.fetch_images(environment and id_at(environment, site), items, folder, report)

        parts = _by(images, lambda image: image["site"])
        return _joined(dict(zip(parts, await all_of(fetched(*part) for part in parts.items()), strict=True)))

    def vantage(self, environment: str, link: str) -> tuple[Channel, str]:
        site = _site_of(self._entry(environment), link)
        if site is None:
            return super().vantage(environment, link)
        provider, identity = self._members(self._entry(environment))[site]
        return provider.vantage(identity, link)

    # Looking after it

    async def keep(self, environment: str) -> list[int]:
        found = await self._ask(environment, lambda provider, identity: provider.keep(identity))
        return [process for each in found.values() for process in each]

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        entry = self.index.read(environment)
        if entry is None:
            return
        members = self._members(entry)
        split = _by([target for target in targets if _site_of(entry, target)], lambda target: _site_of(entry, target) or "")
        shares = {
            site: (there, [replace(fault, targets=mine) for fault in faults if (mine := tuple(t for t in fault.targets if t in there))])
            for site, there in split.items()
        }
        for site, (_, suffered) in shares.items():
            if suffered:
                _require(kind, site, members[site][0])
        await all_of(
            members[site][0].inflict(members[site][1], kind, there, suffered)
            for site, (there, suffered) in shares.items()
            if kind in members[site][0].faults
        )

    async def kill(self, environment: str, nodes: Sequence[str]) -> None:
        entry = self._entry(environment)
        for node in nodes:
            self.of_node(environment, node)
        members, split = self._members(entry), _by(nodes, lambda node: entry.where["node", node])
        for site in split:
            _require("kill", site, members[site][0])
        await all_of(members[site][0].kill(members[site][1], there) for site, there in split.items())

    async def reboot(self, environment: str, resources: Sequence[Resource], progress: Progress, *, hard: bool = False) -> None:
        members, split = self._members(self._entry(environment)), _by(resources, lambda item: item.spec["site"])
        await all_of(members[site][0].reboot(members[site][1], items, progress, hard=hard) for site, items in split.items())

    async def rebuild(self, environment: str, resources: Sequence[Resource], progress: Progress, *, image: str | None = None) -> None:
        members, split = self._members(self._entry(environment)), _by(resources, lambda item: item.spec["site"])
        await all_of(members[site][0].rebuild(members[site][1], items, progress, image=image) for site, items in split.items())

    async def collect_garbage(self, progress: Progress) -> list[str]:
        removed = []
        for entry in list(self.index.entries()):
            record = entry.record
            if await self._lives(entry):
                continue
            try:
                async with self.lock(record.file, record.instance, "removing what is left of it"):
                    current = self.index.read(record.id)
                    if current is not None and not await self._lives(current):
                        await self.destroy(record.id, progress)
                        removed.append(f"environment {record.id}: none of its sites has anything of it")
            except BusyError:
                continue
        return removed

    async def _lives(self, entry: Entry) -> bool:
        known = await self._ask(entry.record.id, lambda provider, _: provider.environments())
        return any(record.id == entry.ids[site] for site, records in known.items() for record in records)

    async def diagnose(self) -> list[Finding]:
        return [Finding(self.name, "ok", "what their providers need is all that they need")]

    # Which provider has what

    def _find(self, file: str, instance: str) -> Entry | None:
        return next((entry for entry in self.index.entries() if (entry.record.file, entry.record.instance) == (file, instance)), None)

    def _entry(self, environment: str) -> Entry:
        entry = self.index.read(environment)
        if entry is None:
            raise ProviderError("there is no such environment", resource=f"environment {environment}")
        return entry

    def _sites(self, entry: Entry | None) -> dict[str, Mapping[str, Any]]:
        """Those of an environment, with the settings that we are given: an address or a key may be another by now."""
        kept = entry.sites if entry else {}
        given = {site: self._given.get(site, place) for site, place in kept.items()}
        return {site: given[site] if given[site]["provider"] == place["provider"] else place for site, place in kept.items()}

    def _provider(self, site: str, place: Mapping[str, Any], entry: Entry | None = None) -> Provider:
        key = site, json.dumps(place, sort_keys=True)
        if key not in self._providers:
            with registry.as_grown(entry.record.id) if entry and entry.sites.get(site) == place else nullcontext():
                self._providers[key] = registry.make(place["provider"], place["settings"])
        provider = self._providers[key]
        provider.site, provider.pins = site, self.pins
        return provider

    def _members(self, entry: Entry | None) -> dict[str, Member]:
        """{site: the provider there, and the id that it knows}."""
        return {site: (self._provider(site, place, entry), entry.ids[site]) for site, place in self._sites(entry).items()} if entry else {}

    def of_node(self, environment: str, node: str) -> Member:
        entry = self.index.read(environment)
        member = self._members(entry).get(entry.where.get(("node", node), "")) if entry else None
        if member is None:
            raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
        return member

    async def _ask(self, environment: str, question: Callable[[Provider, str], Awaitable[T]]) -> dict[str, T]:
        """{site: what its provider answers}, of an environment's sites."""

        async def answer(member: Member) -> T:
            return await question(*member)

        members = self._members(self.index.read(environment))
        return dict(zip(members, await all_of(answer(member) for member in members.values()), strict=True))

    def _record(self, environment: str, spec: Mapping[str, Any], created: float) -> EnvironmentRecord:
        said: dict[str, Any] = {key: str(spec.get(key, "")) for key in ("name", "instance", "file", "user", "host")}
        sites = spec["settings"].get("sites") or self._given
        providers = "+".join(sorted({place["provider"] for place in sites.values()}))
        return EnvironmentRecord(environment, **said, provider=providers, created=created, spec=dict(spec))


class _Nowhere(Channel):
    """The way to a node that is at no site."""

    def __init__(self, error: NodeDownError) -> None:
        self._error = error

    async def start(self, argv: Sequence[str], **_: Any) -> Process:
        raise self._error


def _require(kind: str, site: str, provider: Provider) -> None:
    if kind not in provider.faults:
        able = ", ".join(sorted(provider.faults)) or "none"
        raise ProviderError(f"{provider.name}, which is site {site}, knows no {kind}", remedy=f"the faults that it can inflict: {able}")


def _site_of(entry: Entry, target: str) -> str | None:
    """The site of a node, a link or an access link; one of which nothing is written is its node's."""
    keys: list[Key] = [("node", target), ("link", target), ("access", target), ("node", target.rpartition("/")[0])]
    return next((entry.where[key] for key in keys if key in entry.where), None)


def _by(items: Iterable[T], site: Callable[[T], str]) -> dict[str, list[T]]:
    result: defaultdict[str, list[T]] = defaultdict(list)
    for item in items:
        result[site(item)].append(item)
    return result


def _joined(answers: Mapping[str, Mapping[Any, T]]) -> dict[Any, T]:
    return {key: value for answer in answers.values() for key, value in answer.items()}
