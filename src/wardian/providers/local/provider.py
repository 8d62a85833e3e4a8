"""The provider `local`: nodes of Linux namespaces on this host, or of processes alone where it refuses them. See `docs/architecture.md`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from ...errors import NodeDownError
from ...experiment.resources import Capabilities, EnvironmentRecord, Observed, Resource
from ...paths import state_folder
from .. import base
from ..base import Channel, Fault, Finding, Progress, Provider, Usage
from . import work
from .channel import LocalChannel
from .state import State

if TYPE_CHECKING:
    # every command imports this, whichever provider it is about, so that the rest is imported where it is used
    from .ground import Ground
    from .layers import Stop

_T = TypeVar("_T")

IN_PLACE = frozenset(
    {("environment", key) for key in ("lease", "collect", "parameters", "user", "host")}
    | {("network", "routes"), ("network", "mtu"), ("names", "tables")}
    | {("node", key) for key in ("env", "cpus", "memory", "group", "index", "roles", "site", "routes", "routes_between")}
    | {("access", "up"), ("access", "down"), ("access", "mtu"), ("link", "there"), ("link", "back"), ("link", "mtu")}
)


class LocalSettings(base.ProviderSettings):
    """What `settings:` may hold for `local`."""

    state: Path | None = Field(
        None, description="folder for what is kept; /var/lib/wardian when not given, or ~/.local/state/wardian of an ordinary user"
    )
    isolation: Literal["namespaces", "processes"] | None = Field(
        None, description="what nodes are made of; when not given, namespaces where this host allows them, else processes alone"
    )


class LocalProvider(Provider):
    """Nodes of namespaces on this host, which has to be Linux."""

    name: ClassVar[str] = "local"
    Settings: ClassVar[type[base.ProviderSettings]] = LocalSettings
    faults: ClassVar[frozenset[str]] = frozenset({"pause", "slow", "partition", "flap", "kill"})
    treatments: ClassVar[frozenset[str]] = frozenset({"snapshot", "reboot", "rebuild"})
    still: ClassVar[bool] = True

    @functools.cached_property
    def _ground(self) -> Ground:
        """That of what is to be made."""
        from . import ground

        return ground.choose(self.state, getattr(self.settings, "isolation", None))

    def _ground_of(self, environment: str | None) -> Ground:
        """That of an environment: which it is made on, where it exists."""
        if environment is None or not (folder := self.state.environment(environment)).path.exists():
            return self._ground
        from . import ground

        return ground.PlainGround(self.state, "as it is") if folder.plain else ground.of_namespaces(self.state)

    @functools.cached_property
    def state(self) -> State:
        """Where this provider writes things down."""
        chosen = getattr(self.settings, "state", None)
        return State((chosen or state_folder()).absolute())

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        whole = await self._work(lambda _: self._ground.caveats(desired))
        return Capabilities(IN_PLACE, (*whole, *await self._do(None, work.caveats, desired)))

    async def environments(self) -> list[EnvironmentRecord]:
        return await self._work(lambda _: [record for folder in self.state.environments() if (record := folder.record())])

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        with self.state.lock(file, instance, purpose):
            yield

    async def observe(self, environment: str) -> Observed:
        if not self.state.environment(environment).path.exists():
            return Observed.collect(None, [])
        return await self._do(environment, work.observe, environment)

    async def changed(self, environment: str) -> None:
        from . import processes

        await processes.death(self.state.environment(environment).processes())

    async def usage(self, environment: str) -> Mapping[str, Usage]:
        return await self._do(environment, work.usage, environment)

    async def traffic(self, environment: str) -> Mapping[str, Mapping[str, int]]:
        return await self._do(environment, work.traffic, environment)

    async def traffic_matrix(self, environment: str, *, counting: bool = True) -> Mapping[tuple[str, str], int]:
        if self.state.environment(environment).fabric_pid() is None:
            return {}
        return await self._do(environment, work.traffic_matrix, environment, counting)

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        if any(resource.kind == "node" and (resource.spec["internet"] or resource.spec["setup"]) for resource in resources):
            await self._work(lambda _: self._ground_of(environment).lead_out(environment))
        await self._do(environment, work.create, environment, resources, self.pins, progress=progress)

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        await self._do(environment, work.update, environment, resources, progress=progress)

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        await self._do(environment, work.delete, environment, resources, progress=progress)

    async def destroy(self, environment: str, progress: Progress) -> None:
        ground = await self._work(lambda _: self._ground_of(environment))
        await self._do(environment, work.destroy, environment, progress=progress)
        ground.forget(environment)

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        folder = self.state.environment(environment).resource("node", node)
        if not folder.path.is_dir():
            raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
        folder.note(name, value)

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        nodes = self.state.environment(environment).resources("node")
        return {folder.name: notes for folder in nodes if (notes := folder.notes())}

    def channel(self, environment: str, node: str) -> Channel:
        folder = self.state.environment(environment)
        # what enters namespaces has none to enter on a plain node
        return LocalChannel(node, folder.resource("node", node).path, None if folder.plain else environment)

    async def images(self, environment: str) -> dict[str, dict[str, str]]:
        found = {}
        for folder in self.state.environment(environment).resources("node"):
            known = folder.read() or {}
            if image := known.get("facts", {}).get("image"):
                found[folder.name] = {"name": known["spec"]["image"], "digest": image["digest"]}
        return found

    async def fetch_images(
        self, environment: str | None, images: Sequence[Mapping[str, str]], folder: Path, report: Callable[[str], None]
    ) -> dict[str, str]:
        def told(image: str, said: str) -> None:
            report(f"{said} {image}")

        return await self._do(None, work.fetch_images, images, folder, progress=told)

    def vantage(self, environment: str, link: str) -> tuple[Channel, str]:
        if self.state.environment(environment).plain:
            return super().vantage(environment, link)
        from . import vantage

        return vantage.of_link(self.state.environment(environment), self.state, link)

    async def keep(self, environment: str) -> list[int]:
        if self.state.environment(environment).fabric_pid() is None:
            return []
        return [*await self._do(environment, work.keep, environment), *await self._work(lambda _: self._kept_way(environment))]

    def _kept_way(self, environment: str) -> list[int]:
        return self._ground_of(environment).lead_out(environment) if self.state.environment(environment).has_way() else []

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        await self._do(environment, work.inflict, environment, kind, targets, faults)

    async def kill(self, environment: str, nodes: Sequence[str]) -> None:
        await self._do(environment, work.kill, environment, nodes)

    async def snapshot(self, environment: str, node: str, name: str, progress: Progress) -> str:
        return await self._do(environment, work.snapshot, environment, node, name, progress=progress)

    async def reboot(self, environment: str, resources: Sequence[Resource], progress: Progress, *, hard: bool = False) -> None:
        await self._do(environment, work.reboot, environment, resources, progress=progress)

    async def rebuild(self, environment: str, resources: Sequence[Resource], progress: Progress, *, image: str | None = None) -> None:
        await self._do(environment, work.forget_disks, environment, [resource.name for resource in resources])
        await super().rebuild(environment, resources, progress, image=image)

    async def image_digest(self, environment: str, image: str, progress: Progress) -> str:
        return await self._do(environment, work.image_digest, environment, image, progress=progress)

    async def collect_garbage(self, progress: Progress) -> list[str]:
        from .layers import Stop

        stop = Stop()
        return await self._work(lambda report: self._ground.collect_garbage(report, stop), progress, stop)

    async def diagnose(self) -> list[Finding]:
        return await self._work(lambda _: self._ground.diagnose())

    async def _do(self, about: str | None, function: Callable[..., _T], *arguments: Any, progress: Progress | None = None) -> _T:
        """Have a function of `work.py` done where this ground does it. about: the environment that it is about, if any."""
        from .layers import Stop

        stop = Stop()
        return await self._work(lambda report: self._ground_of(about).do(about, function, arguments, report, stop), progress, stop)

    async def _work(self, blocking: Callable[[Progress], _T], progress: Progress | None = None, stop: Stop | None = None) -> _T:
        """Do blocking work in a thread. Cancelled, it is finished all the same before the cancellation goes on."""
        loop = asyncio.get_running_loop()

        def report(name: str, state: str) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, name, state)

        task = loop.run_in_executor(None, blocking, report)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if stop is not None:
                stop.set()
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            raise
