"""The provider `docker`: nodes that are containers of a Docker Engine, here or elsewhere. See `docs/docker.md`."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...errors import NodeDownError, ProviderError
from ...experiment.resources import Capabilities, EnvironmentRecord, Observed, Resource
from ...paths import state_folder
from .. import base
from ..base import Channel, Fault, Finding, ImageCommand, Progress, Provider, Usage
from ..concurrency import all_of
from ..local.state import State
from . import observation, records
from .address import engine_address
from .channel import DockerChannel
from .engine import Engine
from .memory import Memory
from .names import ENVIRONMENT, OWNER, Identity, filters, identity_of, owner, uplink_name
from .observation import Snapshot, list_containers, snapshot
from .records import Records
from .wiring import EngineWiring, HostWiring, Wiring

if TYPE_CHECKING:
    # what every command imports is kept small; the rest is imported where it is used
    from .growth import Growth

DEFAULT_IMAGE = "python:3.12"

PATIENCE = 5.0
"""Longest that listing environments waits for an Engine, seconds: every command lists those of all providers."""

CHANGES = ("start", "die", "oom", "pause", "unpause", "destroy")
"""What the Engine tells of containers whose state becomes another."""

IN_PLACE = frozenset(
    {("environment", key) for key in ("lease", "collect", "parameters", "user", "host")}
    | {("node", key) for key in ("cpus", "memory", "group", "index", "roles", "site")}
    | {("names", "tables")}
)


class DockerSettings(base.ProviderSettings):
    """What `settings:` may hold for `docker`."""

    host: str | None = Field(None, description="the Engine: unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST; DOCKER_HOST when not given")
    image: str | None = Field(None, description="image of nodes that name none; $WARDIAN_DOCKER_IMAGE, then python:3.12 when not given")
    wiring: Literal["auto", "host", "engine"] = Field(
        "auto", description="what joins the nodes: this host's kernel, with links, or the Engine's networks; auto: the first where possible"
    )


class DockerProvider(Provider):
    """Nodes that are containers."""

    name: ClassVar[str] = "docker"
    Settings: ClassVar[type[base.ProviderSettings]] = DockerSettings
    settings: DockerSettings
    faults: ClassVar[frozenset[str]] = frozenset({"pause", "slow", "partition", "flap", "kill"})
    treatments: ClassVar[frozenset[str]] = frozenset({"snapshot", "reboot", "rebuild"})
    image_commands: ClassVar[bool] = True

    @functools.cached_property
    def folder(self) -> Path:
        """Where this provider writes things down: locks, where Engines are, what the host's wiring needs."""
        return (state_folder() / "docker").absolute()

    @functools.cached_property
    def memory(self) -> Memory:
        """Which Engine has which environment."""
        return Memory(self.folder / "known")

    @functools.cached_property
    def engine(self) -> Engine:
        """The Engine that new environments are made on."""
        return Engine(engine_address(self.settings.host))

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        wiring = self._wiring(self.engine, await self._choice())
        return Capabilities(IN_PLACE | wiring.in_place, tuple(await wiring.caveats(desired)))

    async def complete(self, desired: Sequence[Resource], observed: Observed) -> Sequence[Resource]:
        # written at the node, so that another one is seen, and whoever makes the node anew knows it
        default = self.settings.image or default_image()
        return [
            replace(item, spec={**item.spec, "image": default})
            if item.kind == "node" and item.spec["image"] is None and not item.spec.get("build")
            else item
            for item in desired
        ]

    async def environments(self) -> list[EnvironmentRecord]:
        known: dict[str, list[EnvironmentRecord]] = {address: [] for address in self._addresses()}
        for address, record in self.memory.all():
            known.setdefault(address, []).append(record)
        found = await asyncio.gather(*(self._environments_at(address) for address in known))
        return [record for address, listed in zip(known, found, strict=True) for record in (known[address] if listed is None else listed)]

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        with State(self.folder).lock(file, instance, purpose):
            yield

    async def observe(self, environment: str) -> Observed:
        engine = self._engine(environment)
        seen, images = await asyncio.gather(snapshot(engine, environment), observation.image_numbers(engine))
        if seen.identity is None:
            return Observed()
        wiring = self._wiring(engine, seen.identity.wiring)
        return observation.observed(seen, await wiring.observe(environment), images)

    async def glance(self, environment: str) -> Observed:
        return observation.observed(await snapshot(self._engine(environment), environment))

    async def changed(self, environment: str) -> None:
        # another way to an Engine that is gone for now may be there at the next call
        with suppress(ProviderError):
            told = self._engine(environment).lines("GET", "/events", query={"filters": filters(f"{ENVIRONMENT}={environment}")})
            async with aclosing(told):
                async for event in told:
                    # a command run in a container is one, too
                    if event.get("Action") in CHANGES:
                        return
        await asyncio.sleep(PATIENCE)

    async def usage(self, environment: str) -> Mapping[str, Usage]:
        from . import usage

        engine = self._engine(environment)
        return await usage.of(engine, (await snapshot(engine, environment)).containers)

    async def traffic(self, environment: str) -> Mapping[str, Mapping[str, int]]:
        # what the Engine wires, on another machine say, has no counters here
        return await HostWiring(self.folder).traffic(environment)

    async def traffic_matrix(self, environment: str, *, counting: bool = True) -> Mapping[tuple[str, str], int]:
        return await HostWiring(self.folder).traffic_matrix(environment, counting=counting)

    async def images(self, environment: str) -> dict[str, dict[str, str]]:
        engine = self._engine(environment)
        seen = await snapshot(engine, environment)
        numbers = {item.image for item in seen.containers}
        known = dict(zip(numbers, await asyncio.gather(*(observation.image_digest(engine, number) for number in numbers)), strict=True))
        return {item.node: {"name": str(item.spec.get("image") or "")} | known[item.image] for item in seen.containers}

    async def fetch_images(
        self, environment: str | None, images: Sequence[Mapping[str, str]], folder: Path, report: Callable[[str], None]
    ) -> dict[str, str]:
        from .images import Images

        wanted = {image["digest"]: image for image in images}
        at_hand = Images(self._engine(environment) if environment else self.engine, folder, default_image())
        found = await asyncio.gather(*(at_hand.fetched(image, report) for image in wanted.values()))
        return {digest: problem for digest, problem in zip(wanted, found, strict=True) if problem}

    async def image_command(self, environment: str, node: str) -> ImageCommand:
        engine = self._engine(environment)
        item = (await snapshot(engine, environment)).container(node)
        if item is None:
            raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
        config = (await engine.get(f"/images/{item.image}/json")).get("Config") or {}
        entrypoint, arguments = (tuple(config.get(key) or ()) for key in ("Entrypoint", "Cmd"))
        return ImageCommand(entrypoint, arguments, config.get("WorkingDir") or "", config.get("User") or "")

    async def own_clocks(self, environment: str) -> bool:
        return not await _is_here(self._engine(environment))

    async def save_images(self, images: Sequence[Mapping[str, str]], target: Path) -> dict[str, str]:
        from . import archives

        return await archives.save(self.engine, images, target)

    async def load_images(self, archive: Path, names: Mapping[str, str]) -> list[str]:
        from . import archives

        return await archives.load(self.engine, archive, names)

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        engine = self._engine(environment)
        for kind, group in groupby(resources, key=lambda resource: resource.kind):
            items = list(group)
            if kind == "environment":
                await self._create_environment(environment, items[0], progress)
                continue
            identity = await self._identity(engine, environment)
            if kind == "node":
                await self._growth(engine, identity, progress).create(items)
            elif kind == "names":
                await self._put_names(engine, identity, items, progress)
            else:
                await self._wiring(engine, identity.wiring).create(identity, items, progress)
                await self._put_unmade(engine, identity, items)

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        engine = self._engine(environment)
        for kind, group in groupby(resources, key=lambda resource: resource.kind):
            items, identity = list(group), await self._identity(engine, environment)
            if kind == "environment":
                spec = items[0].spec
                renewed = Identity(_record(environment, spec, identity.record.created), identity.wiring)
                await Records(engine, environment).put(renewed, "environment", items[0].name, spec)
                self.memory.remember(engine.address, renewed.record)
            elif kind == "node":
                await self._growth(engine, identity, progress).update(items)
            elif kind == "names":
                await self._put_names(engine, identity, items, progress)
            else:
                await self._wiring(engine, identity.wiring).update(identity, items, progress)
                await self._put_unmade(engine, identity, items)

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        engine = self._engine(environment)
        seen = await snapshot(engine, environment)
        if seen.identity is None:
            return
        wiring, entries = self._wiring(engine, seen.identity.wiring), Records(engine, environment)
        for kind, group in groupby(resources, key=lambda key: key[0]):
            keys = list(group)
            if kind == "node":
                await self._growth(engine, seen.identity, progress).delete([name for _, name in keys])
                continue
            if kind == "environment":
                await engine.delete(f"/networks/{uplink_name(environment)}")
            await wiring.delete(environment, keys, progress)
            await all_of(entries.remove(kind, name) for _, name in keys)

    async def destroy(self, environment: str, progress: Progress) -> None:
        engine = self._engine(environment)
        seen = await snapshot(engine, environment)
        if seen.identity is not None:
            await self._growth(engine, seen.identity, progress).delete([item.node for item in seen.containers])
            await engine.delete(f"/networks/{uplink_name(environment)}")
            await self._wiring(engine, seen.identity.wiring).destroy(environment, progress)
            await Records(engine, environment).clear()
        self.memory.forget(environment)

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        engine = self._engine(environment)
        seen = await snapshot(engine, environment)
        item = seen.container(node)
        if item is None or seen.identity is None:
            raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
        await self._growth(engine, seen.identity, _quiet).note(item, name, value)

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        return (await snapshot(self._engine(environment), environment)).notes()

    def channel(self, environment: str, node: str) -> Channel:
        process = HostWiring(self.folder).process(environment, node) if os.geteuid() == 0 else None
        return DockerChannel(self._engine(environment), environment, node, process)

    async def keep(self, environment: str) -> list[int]:
        return await HostWiring(self.folder).keep(environment) if (self.folder / "environments").is_dir() else []

    def vantage(self, environment: str, link: str) -> tuple[Channel, str]:
        return HostWiring(self.folder).vantage(environment, link)

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        from . import faults as afflictions

        engine = self._engine(environment)
        if kind in ("pause", "slow"):
            await afflictions.inflict(engine, environment, kind, targets, faults)
        else:
            identity = await self._identity(engine, environment)
            await self._wiring(engine, identity.wiring).inflict(environment, kind, targets, faults)

    async def kill(self, environment: str, nodes: Sequence[str]) -> None:
        from . import faults as afflictions

        await afflictions.kill(self._engine(environment), environment, nodes)

    async def snapshot(self, environment: str, node: str, name: str, progress: Progress) -> str:
        from . import snapshots

        engine = self._engine(environment)
        item = (await snapshot(engine, environment)).container(node)
        if item is None:
            raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
        progress(node, f"becoming image {name}")
        return await snapshots.commit(engine, item, name, environment)

    async def reboot(self, environment: str, resources: Sequence[Resource], progress: Progress, *, hard: bool = False) -> None:
        engine = self._engine(environment)
        await self._growth(engine, await self._identity(engine, environment), progress).reboot(resources)

    async def image_digest(self, environment: str, image: str, progress: Progress) -> str:
        from .images import Images

        engine = self._engine(environment)
        folder = Path((await self._identity(engine, environment)).record.file).parent
        found = await Images(engine, folder, default_image()).named(image, lambda state: progress(image, state))
        return str(found["Id"])

    async def collect_garbage(self, progress: Progress) -> list[str]:
        from . import garbage

        return await garbage.collect(self, progress)

    async def diagnose(self) -> list[Finding]:
        from . import doctor

        return await doctor.diagnose(self.settings.host, self.settings.image or default_image())

    async def _create_environment(self, environment: str, resource: Resource, progress: Progress) -> None:
        identity = Identity(_record(environment, resource.spec, time.time()), await self._choice())
        self.memory.remember(self.engine.address, identity.record)
        await Records(self.engine, environment).put(identity, "environment", resource.name, resource.spec)
        await self._wiring(self.engine, identity.wiring).create(identity, [resource], progress)
        progress(resource.name, "ready")

    async def _put_names(self, engine: Engine, identity: Identity, resources: Sequence[Resource], progress: Progress) -> None:
        growth = self._growth(engine, identity, progress)
        for resource in resources:
            # a node made anew meanwhile takes them from the record
            await Records(engine, identity.record.id).put(identity, "names", resource.name, resource.spec)
            await growth.write_names(resource.spec["tables"])
            progress(resource.name, "ready")

    async def _put_unmade(self, engine: Engine, identity: Identity, resources: Sequence[Resource]) -> None:
        """Write down what the Engine's own networks have nothing for: the plan said so, and it is to be said once."""
        if identity.wiring == "engine":
            entries = Records(engine, identity.record.id)
            await all_of(entries.put(identity, item.kind, item.name, item.spec) for item in resources if item.kind in ("link", "access"))

    def _addresses(self) -> list[str]:
        """That of our own Engine, where asking it costs nothing: every command lists what all providers have, and few are about Docker.

        What is on another machine's is remembered here.
        """
        try:
            return [self.engine.address] if self.engine.address.startswith("unix:") else []
        except ProviderError:
            return []

    async def _environments_at(self, address: str) -> list[EnvironmentRecord] | None:
        """The environments there; None where nobody answers as an Engine should."""
        engine = Engine(address)
        try:
            async with asyncio.timeout(PATIENCE):
                entries, containers = await asyncio.gather(records.entries(engine), list_containers(engine, f"{OWNER}={owner()}"))
        except (ProviderError, TimeoutError):
            return None
        found = {item.identity.record.id: item.identity.record for item in records.latest(entries) if item.kind == "environment"}
        for labels in (*(item.labels for item in entries), *(item.labels for item in containers)):
            record = identity_of(labels).record
            found.setdefault(record.id, record)
        return list(found.values())

    async def _choice(self) -> str:
        """How the networks of a new environment are made."""
        wanted = self.settings.wiring
        possible = wanted != "engine" and os.geteuid() == 0 and await _is_here(self.engine)
        if wanted == "host" and not possible:
            remedy = "Run as root on the Engine's machine, or leave out `wiring:`."
            raise ProviderError("this host's kernel cannot join the containers: the Engine is elsewhere, or we are not root", remedy=remedy)
        if wanted == "engine":
            await self.engine.get("/version")
        return "host" if possible else "engine"

    async def _identity(self, engine: Engine, environment: str) -> Identity:
        seen: Snapshot = await snapshot(engine, environment)
        if seen.identity is None:
            raise ProviderError("it does not exist", resource=f"environment {environment}", remedy="Run `wardian up` again to make it.")
        return seen.identity

    def _engine(self, environment: str) -> Engine:
        address = self.memory.engine(environment)
        return Engine(address) if address else self.engine

    def _wiring(self, engine: Engine, kind: str) -> Wiring:
        return HostWiring(self.folder) if kind == "host" else EngineWiring(engine)

    def _growth(self, engine: Engine, identity: Identity, progress: Progress) -> Growth:
        from .growth import Growth

        default = self.settings.image or default_image()
        return Growth(engine, identity, self._wiring(engine, identity.wiring), default, progress, self.pins)


def default_image() -> str:
    """The image of nodes that name none, where the settings name none either."""
    return os.environ.get("WARDIAN_DOCKER_IMAGE") or DEFAULT_IMAGE


async def _is_here(engine: Engine) -> bool:
    """Whether the Engine's containers are processes of this machine."""
    facts = await engine.get("/info")
    here = os.uname()
    return engine.peer() is not None and (facts["Name"], facts["KernelVersion"]) == (here.nodename, here.release)


def _record(environment: str, spec: Mapping[str, Any], created: float) -> EnvironmentRecord:
    fields = {name: spec[name] for name in ("name", "instance", "file", "user", "host")}
    return EnvironmentRecord(id=environment, provider="docker", created=created, spec=dict(spec), **fields)


def _quiet(name: str, state: str) -> None:
    """Nobody is told."""
