"""The provider `local`: nodes made of Linux namespaces on this host. See `docs/architecture.md` for how the parts hang together."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from ...errors import MissingToolError, NodeDownError
from ...experiment.resources import Capabilities, EnvironmentRecord, Observed, Resource
from ...paths import state_folder
from .. import base
from ..base import Channel, Fault, Finding, Progress, Provider, Usage
from .channel import LocalChannel
from .state import State

if TYPE_CHECKING:
    # every command imports this, whichever provider it is about, so that the rest is imported where it is used
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

    state: Path | None = Field(None, description="folder for what is not the user's own; /var/lib/wardian when not given")


class LocalProvider(Provider):
    """Nodes of namespaces on this host, which has to be Linux, and the user root."""

    name: ClassVar[str] = "local"
    Settings: ClassVar[type[base.ProviderSettings]] = LocalSettings
    faults: ClassVar[frozenset[str]] = frozenset({"pause", "slow", "partition", "flap", "kill"})

    @functools.cached_property
    def state(self) -> State:
        """Where this provider writes things down."""
        chosen = getattr(self.settings, "state", None)
        return State((chosen or state_folder()).absolute())

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        from . import limits

        _require_root()
        return Capabilities(IN_PLACE, tuple(await self._work(lambda _: limits.caveats(desired, self.state.root))))

    async def environments(self) -> list[EnvironmentRecord]:
        return await self._work(lambda _: [record for folder in self.state.environments() if (record := folder.record())])

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        _require_root()
        with self.state.lock(file, instance, purpose):
            yield

    async def observe(self, environment: str) -> Observed:
        from . import observation

        return await self._work(lambda _: observation.observe(self.state.environment(environment)))

    async def changed(self, environment: str) -> None:
        from . import processes

        await processes.death(self.state.environment(environment).processes())

    async def usage(self, environment: str) -> Mapping[str, Usage]:
        from . import usage

        return await self._work(lambda _: usage.of(self.state.environment(environment)))

    async def traffic(self, environment: str) -> Mapping[str, Mapping[str, int]]:
        from . import traffic

        return await self._work(lambda _: traffic.of(self.state.environment(environment)))

    async def traffic_matrix(self, environment: str, *, counting: bool = True) -> Mapping[tuple[str, str], int]:
        from . import matrix

        folder = self.state.environment(environment)
        return await self._work(lambda _: matrix.of(folder) if counting else matrix.end(folder)) or {}

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        from .growth import Growth
        from .layers import Stop

        _require_root()
        stop = Stop()
        await self._work(lambda report: Growth(self.state, environment, report, stop).create(resources), progress, stop)

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        from .growth import Growth

        _require_root()
        await self._work(lambda report: Growth(self.state, environment, report).update(resources), progress)

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        from .growth import Growth

        await self._work(lambda report: Growth(self.state, environment, report).delete(resources), progress)

    async def destroy(self, environment: str, progress: Progress) -> None:
        from .growth import Growth

        await self._work(lambda report: Growth(self.state, environment, report).destroy(), progress)

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        folder = self.state.environment(environment).resource("node", node)
        if not folder.path.is_dir():
            raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
        folder.note(name, value)

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        nodes = self.state.environment(environment).resources("node")
        return {folder.name: notes for folder in nodes if (notes := folder.notes())}

    def channel(self, environment: str, node: str) -> Channel:
        return LocalChannel(node, self.state.environment(environment).resource("node", node).path, environment)

    async def images(self, environment: str) -> dict[str, dict[str, str]]:
        from . import images

        folder = self.state.environment(environment)
        record = folder.record()
        beside = Path(record.file).parent if record else Path("/")
        named = {item.name: known["spec"]["image"] for item in folder.resources("node") if (known := item.read())}

        def digests(_: Progress) -> dict[str, str]:
            tars = {image for image in named.values() if image and (beside / Path(image).expanduser()).is_file()}
            return {tar: images.base(self.state.root, tar, beside)[1] for tar in tars}

        found = await self._work(digests)
        return {node: {"name": image, "digest": f"sha256:{found[image]}"} for node, image in named.items() if image in found}

    def vantage(self, environment: str, link: str) -> tuple[Channel, str]:
        from . import vantage

        return vantage.of_link(self.state.environment(environment), self.state, link)

    async def keep(self, environment: str) -> list[int]:
        from . import relays

        return await self._work(lambda _: relays.keep(self.state.environment(environment), self.state))

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        from . import faults as afflictions

        _require_root()
        await self._work(lambda _: afflictions.inflict(self.state.environment(environment), kind, targets, faults))

    async def kill(self, environment: str, nodes: Sequence[str]) -> None:
        from . import faults as afflictions

        _require_root()
        await self._work(lambda _: afflictions.kill(self.state.environment(environment), nodes))

    async def collect_garbage(self, progress: Progress) -> list[str]:
        from . import garbage

        return await self._work(lambda report: garbage.collect(self.state, report), progress)

    async def diagnose(self) -> list[Finding]:
        from . import doctor

        return await self._work(lambda _: doctor.diagnose(self.state))

    async def _work(self, work: Callable[[Progress], _T], progress: Progress | None = None, stop: Stop | None = None) -> _T:
        """Do blocking work in a thread. Cancelled, it is finished all the same before the cancellation goes on."""
        loop = asyncio.get_running_loop()

        def report(name: str, state: str) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, name, state)

        task = loop.run_in_executor(None, work, report)
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


def _require_root() -> None:
    if os.geteuid() != 0:
        raise MissingToolError("the provider local has to be run by root", remedy="Use sudo, or choose another provider in the file.")
