"""The contract between Wardian and whatever grows environments.

A provider turns resources (`experiment.resources`) into real things and reads real things back. It holds no state of its own:
every call finds what it needs from the environment's id, because each thing it makes carries that id, its name and its spec from
the moment it exists. `testing.ProviderContract` is the suite that every provider passes.

Who calls what: `environment.apply` calls `create`, `update` and `delete` with the resources of one operation, all of one kind, and
never two calls at once on one resource; it holds `lock` all along. `observe` and `channel` may be called by anyone at any time.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from ..errors import ProviderError
from ..experiment.resources import Capabilities, EnvironmentRecord, Observed, Resource
from .preloaded import Preloaded

if TYPE_CHECKING:
    from ..experiment.plan import Plan

Progress = Callable[[str, str], None]
"""Called with a resource's name and the state that it is in now, in the provider's own words."""


class ProviderSettings(BaseModel):
    """Base of a provider's settings; its schema becomes part of the experiment file's."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `wardian doctor` tried.

    state: "ok", "limited" (works, with a stand-in) or "missing". remedy: what the user can do, exactly, or None.
    """

    what: str
    state: str
    detail: str
    remedy: str | None = None

    @property
    def page(self) -> str:
        """Where the documentation says more: a page and the heading there."""
        return "docs/doctor.md#" + re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", self.what).strip().lower())


@dataclass(frozen=True, slots=True)
class Usage:
    """What a node uses. cpu_seconds: of processors, in all by what runs there now; memory: bytes."""

    cpu_seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that an experiment inflicts on what exists, to be undone later.

    kind, targets, values, by kind:
        pause      nodes, of which every process stands still; {}
        slow       nodes; {"cpu": fraction of the processors' time that they otherwise have}
        partition  nodes; {"deaf": {node: [addresses that it hears nothing from]}}, both sides of it being in there
        flap       links, "wan" or "client[0]/west", which have no carrier; {}
    """

    id: str
    kind: str
    targets: tuple[str, ...]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Slots:
    """When a site could hold an experiment.

    needs: what it is to hold, in words. there: how many hosts of that kind the site has at all.
    windows: from when until when the experiment may start, seconds since the epoch, both included; the earliest first.
    """

    needs: str
    there: int
    windows: tuple[tuple[float, float], ...]


class Process(Protocol):
    """A process that a channel started. Its streams are None where they were not asked for as pipes."""

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    async def wait(self) -> int:
        """Its exit code; 128 + n when signal n ended it. Raises NodeDownError if the node went away before it ended."""
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to it and to its process group. Does nothing once it ended."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the new size. Only for a process started with a terminal."""
        ...

    async def close(self) -> None:
        """Let go of it: its streams are closed and, if it still runs, it is hung up on (SIGHUP, then SIGKILL)."""
        ...


class Channel(ABC):
    """How one node is reached: start a process there with streams. Nothing else."""

    @abstractmethod
    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Process:
        """Start `argv` on the node, in a session of its own.

        env: variables added to the node's own (its PATH, HOME and those of its spec).
        cwd: working directory; the user's home on the node when None.
        stdin, stdout, stderr: None for a pipe to us, `asyncio.subprocess.DEVNULL`, or for stderr `asyncio.subprocess.STDOUT`.
        terminal: (rows, columns) to give it a pseudo-terminal: then stdin and stdout are its two directions, stderr is None.

        Raises NodeDownError when the node is not running, CommandError when `argv[0]` cannot be executed there.
        """

    async def fork(self, preloaded: Preloaded, program: str) -> Process | None:
        """Have a process forked from the preloaded one that enters the node and calls `program` ("module:function") there.

        It is in all as if `start` had started that interpreter with pipes as its streams, but that it has loaded its modules already.
        The pipes outlive it for whoever it gave them to. None where such a process would not be the same, or cannot be had: another
        file system, another Python, another machine. Then the caller uses `start`. The default is None.
        """
        return None


@dataclass(frozen=True, slots=True)
class ImageCommand:
    """What the image of a node starts by itself: its ENTRYPOINT, CMD, WORKDIR and USER, each empty where the image says nothing."""

    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...]
    directory: str
    user: str


class Provider(ABC):
    """Grows environments. Constructed with validated settings; cheap to construct (no I/O)."""

    name: ClassVar[str]
    """As written in the experiment file."""

    Settings: ClassVar[type[ProviderSettings]] = ProviderSettings
    """What `settings:` may hold."""

    faults: ClassVar[frozenset[str]] = frozenset()
    """The kinds of `Fault` that `inflict` knows, and "kill" where `kill` works."""

    treatments: ClassVar[frozenset[str]] = frozenset()
    """Which of `snapshot`, `reboot` and `rebuild` nodes here can have."""

    still: ClassVar[bool] = False
    """Whether a node has to stand still while `snapshot` reads its disk, and does not so by itself."""

    image_commands: ClassVar[bool] = False
    """Whether images of nodes have a command of their own, see `image_command`."""

    def __init__(self, settings: ProviderSettings | None = None) -> None:
        self.settings = settings or self.Settings()
        self.pins: Mapping[str, str] = {}
        """{node: digest of the image that `create` makes it from, whatever the name of its image means by now}."""
        self.site: str | None = None
        """What the experiment file calls this place, where an environment grows at several."""

    @abstractmethod
    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        """What can be done for these resources here; nothing is created. Raises ProviderError if nothing can be done at all."""

    async def complete(self, desired: Sequence[Resource], observed: Observed) -> Sequence[Resource]:
        """The resources of an experiment with those that only this site needs for them, such as a lease. The default needs none.

        Called before each plan, with what there is. Creates nothing. Raises PlanError where what the settings ask for cannot be.
        """
        return desired

    async def estimate(self, desired: Sequence[Resource], plan: Plan) -> Sequence[str]:
        """What carrying out a plan takes of this site, a line each: hours, money. Raises PlanError where that is over a quota.

        The default knows of nothing.
        """
        return ()

    async def slots(self, desired: Sequence[Resource], days: int) -> Slots | None:
        """When these could be held within so many days; None where nothing is reserved there. Raises ProviderError."""
        return None

    def parts(self, desired: Sequence[Resource]) -> Mapping[str, tuple[Provider, Sequence[Resource]]]:
        """{site: what grows there, by which provider}, where an environment grows at several; the default is one without a name."""
        return {"": (self, desired)}

    @abstractmethod
    async def environments(self) -> list[EnvironmentRecord]:
        """Every environment of this user that this provider holds anything of, however little is left of it."""

    def covered(self) -> set[str]:
        """The ids of environments, of other providers, that are parts of this one's. The default has none."""
        return set()

    @abstractmethod
    def lock(self, file: str, instance: str, purpose: str) -> AbstractAsyncContextManager[None]:
        """Exclusive right to change the environment of (file, instance), also before it exists.

        Held by at most one process of the host, and let go when that process dies. Raises BusyError naming the holder and its
        purpose when another has it.
        """

    @abstractmethod
    async def observe(self, environment: str) -> Observed:
        """What exists of the environment with this id, read from the things themselves. Empty if there is nothing."""

    async def glance(self, environment: str) -> Observed:
        """As `observe`, without asking anything that is far away: what only shows there is as it was when last known.

        For who wants to know which nodes there are; whether one of them can be used shows at its channel. The default observes.
        """
        return await self.observe(environment)

    async def changed(self, environment: str) -> None:
        """Return as soon as something of it may have changed that no command did: a node that died. Who waits observes again then.

        What has changed before the call need not be told. The default never returns; who waits observes now and then all the same.
        """
        await asyncio.get_running_loop().create_future()

    async def image_command(self, environment: str, node: str) -> ImageCommand:
        """What the image of a node starts by itself, where `image_commands`. Raises NodeDownError if there is no such node."""
        raise ProviderError(f"images of {self.name} have no command of their own", resource=f"node {node}")

    async def usage(self, environment: str) -> Mapping[str, Usage]:
        """What the nodes use now, as far as that is known without asking them. The default knows of none."""
        return {}

    async def traffic(self, environment: str) -> Mapping[str, Mapping[str, int]]:
        """Bytes that links have carried so far, by name ("wan", "client[0]/west") and way, as far as that is known without asking nodes.

        A count begins anew with its link or node. The default knows of none.
        """
        return {}

    async def traffic_matrix(self, environment: str, *, counting: bool = True) -> Mapping[tuple[str, str], int]:
        """Bytes that each node has sent to each other one, by sender and receiver, as far as that is known without asking nodes.

        Counting begins with the first call, and ends with one that says that it shall; a count may begin anew. The default knows of none.
        """
        return {}

    @abstractmethod
    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        """Make these, which do not exist. One that is `ready` to `observe` afterwards is complete.

        Safe to be killed at any point: what it leaves is seen by `observe` as "incomplete", and removed by `delete` or `destroy`.
        Raises ProviderError naming the resource; the others of the call may or may not have been made.
        """

    @abstractmethod
    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        """Bring existing ones to a new spec that differs only in keys declared in `Capabilities.in_place`.

        Of the environment itself (its record) everything but who it is may change: lease, collect, parameters.
        """

    @abstractmethod
    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        """Remove these (kind, name) in whatever state they are; those that are gone already are no error."""

    @abstractmethod
    async def destroy(self, environment: str, progress: Progress) -> None:
        """Remove everything that carries this environment's id. The record goes last. Safe to repeat."""

    @abstractmethod
    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        """Keep a small JSON value with a node, bound to its life (None removes it). Survives any process of ours."""

    @abstractmethod
    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        """All notes: {node: {name: value}}. Those of nodes that are gone are gone."""

    @abstractmethod
    def channel(self, environment: str, node: str) -> Channel:
        """The way to a node. No I/O; an error shows at `Channel.start`."""

    async def images(self, environment: str) -> dict[str, dict[str, str]]:
        """What nodes were made from, of those where that can be told for certain: {node: {"name": as written, "digest": …}}.

        Asked once a run, for the record. The default knows none.
        """
        return {}

    async def fetch_images(
        self, environment: str | None, images: Sequence[Mapping[str, str]], folder: Path, report: Callable[[str], None]
    ) -> dict[str, str]:
        """See to it that these images, as `images` gives them, can be pinned here, and give {digest: why one cannot, and what to do}.

        environment: the one that they are for, if it exists. folder: what paths of images are relative to. report: told what takes long.
        Nothing is grown.
        """
        return {image["digest"]: f"{self.name} makes no nodes from images by their digests" for image in images}

    async def own_clocks(self, environment: str) -> bool:
        """Whether nodes may have other clocks than this host's; then how far they are off is measured. The default says no."""
        return False

    async def save_images(self, images: Sequence[Mapping[str, str]], target: Path) -> dict[str, str]:
        """Write images, as `images` gives them, into one file, and give {name: digest} of what is in it. The default has none."""
        return {}

    async def load_images(self, archive: Path, names: Mapping[str, str]) -> list[str]:
        """Take the images of a file of `save_images` that are not here, and give their names. What is here stays as it is."""
        return []

    def vantage(self, environment: str, link: str) -> tuple[Channel, str]:
        """A channel to where the packets of a link pass, and the interface there that they pass. No I/O but looking it up."""
        raise ProviderError(
            f"{self.name} cannot look into links", resource=f"link {link}", remedy="Name a node, or NODE/NETWORK for its interface there."
        )

    async def keep(self, environment: str) -> list[int]:
        """Start what must run on while the environment lives (relays), unless it runs. Safe to repeat.

        Gives the process ids of all that must run; the keeper calls again as soon as one of them ends. An empty list: no keeper is
        needed for them.
        """
        return []

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
        """Have these targets suffer the faults of this kind that are given, and no others of it; so none given undoes them all.

        Safe to repeat and to be cut short: the next call sets it right. Called by one process at a time. A target that is gone, or does
        not run, is no error. `delete` and `destroy` work under any faults; what is made anew is under none.
        """
        raise ProviderError(f"{self.name} cannot inflict {kind}")

    async def kill(self, environment: str, nodes: Sequence[str]) -> None:
        """End all that runs on these nodes at once, as a power cut does. They are observed as "stopped" as soon as this returns."""
        raise ProviderError(f"{self.name} cannot kill nodes")

    def of_node(self, environment: str, node: str) -> tuple[Provider, str]:
        """The provider that has a node, and its id of the environment; the default is this one. Raises NodeDownError."""
        return self, environment

    async def snapshot(self, environment: str, node: str, name: str, progress: Progress) -> str:
        """Make a node's disk an image of this name, which `image:` can name from then on, and give its digest.

        Whole or not there: what a killed process leaves is finished or removed by the next call. Raises ProviderError where there is an
        image of that name, or none can be made of this node; NodeDownError.
        """
        raise ProviderError(f"{self.name} makes no images of nodes", resource=f"node {node}")

    async def reboot(self, environment: str, resources: Sequence[Resource], progress: Progress, *, hard: bool = False) -> None:
        """End all that runs on these nodes, and have them run again with the disks that they have; they may be stopped.

        hard: as a power cut does. What hangs on them is taken off before, and put on again after. Raises ProviderError.
        """
        raise ProviderError(f"{self.name} does not reboot nodes", resource=str(resources[0]))

    async def rebuild(self, environment: str, resources: Sequence[Resource], progress: Progress, *, image: str | None = None) -> None:
        """Make these nodes anew from their image; what was on their disks is lost. Otherwise as `reboot`.

        image: in place of theirs, as `image_digest` gives it. The default removes and makes them.
        """
        if image is not None:
            self.pins = {**self.pins, **{resource.name: image for resource in resources}}
        await self.delete(environment, [resource.key for resource in resources], progress)
        await self.create(environment, resources, progress)

    async def image_digest(self, environment: str, image: str, progress: Progress) -> str:
        """What tells an image that is written so from any other, got if need be. Raises ProviderError."""
        raise ProviderError(f"{self.name} makes no nodes from images", resource=f"image {image}")

    @abstractmethod
    async def collect_garbage(self, progress: Progress) -> list[str]:
        """Remove what dead processes left and no environment owns, and environments none of whose nodes can come back.

        Gives one line for each thing removed.
        """

    @abstractmethod
    async def diagnose(self) -> list[Finding]:
        """Try what this provider needs, really, and say what works here."""
