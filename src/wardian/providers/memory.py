"""A provider whose resources are entries in memory, for tests of everything that stands on a provider.

A `MemoryCloud` is where they live; every provider object given the same cloud sees the same things, as several processes see those
of one host. Commands on its nodes really run, as ordinary processes of this host in a folder of the node's own. The cloud can be
told to fail, to leave things half made, to be slow, and to stop nodes.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from ..errors import BusyError, CommandError, NodeDownError, ProviderError
from ..experiment.resources import Capabilities, EnvironmentRecord, Observed, ObservedResource, Resource
from . import base
from .base import Channel, Finding, Progress, Provider
from .base import Fault as Affliction

IN_PLACE = frozenset(
    {("environment", key) for key in ("lease", "collect", "parameters", "user", "host")}
    | {("network", "routes"), ("network", "mtu"), ("names", "tables")}
    | {("node", key) for key in ("env", "cpus", "memory", "group", "index", "roles", "site", "routes", "routes_between")}
    | {("access", "up"), ("access", "down"), ("access", "mtu"), ("link", "there"), ("link", "back"), ("link", "mtu")}
)
REFUSED = "the cloud refused"
RUN = "run"
"""What is in a node's folder for its agent, as long as the node lives."""

STREAM_LIMIT = 2**20
HANG_UP_GRACE = 1.0
"""Seconds that a process has between SIGHUP and SIGKILL when it is let go of."""

Key = tuple[str, str]


@dataclass
class Fault:
    """A failure to come: the `nth` matching call from now fails.

    operation: "create", "update", "delete" or "destroy".
    kind: count only calls about this kind of resource.
    share: how much of the call's resources is dealt with before it fails, 0 to 1. The one that it fails at is left incomplete by
        create, and as it was by the others.
    """

    operation: str
    nth: int = 1
    kind: str | None = None
    share: float = 0.0
    message: str = REFUSED


@dataclass
class _Environment:
    record: EnvironmentRecord | None = None
    resources: dict[Key, ObservedResource] = field(default_factory=dict)
    notes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


class MemoryCloud:
    """What exists, and what shall go wrong.

    capabilities: what its providers say they can do.
    gate: while it is an Event that is not set, every operation waits for it before each resource.
    operations: what was asked of it so far, as (operation, kind, names).
    suffered: the faults in force, {(environment, kind, target): faults}. Only pauses do anything.
    """

    def __init__(self, capabilities: Capabilities | None = None) -> None:
        self.capabilities = capabilities or Capabilities(in_place=IN_PLACE)
        self.gate: asyncio.Event | None = None
        self.operations: list[tuple[str, str, tuple[str, ...]]] = []
        self.suffered: dict[tuple[str, str, str], list[Affliction]] = {}
        self._faults: list[Fault] = []
        self._environments: dict[str, _Environment] = {}
        self._holders: dict[tuple[str, str], str] = {}
        self._processes: dict[tuple[str, str], set[HostProcess]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="wardian-memory-")

    def fail(self, operation: str, *, nth: int = 1, kind: str | None = None, share: float = 0.0, message: str = REFUSED) -> None:
        """Let the `nth` such call from now fail, see `Fault`."""
        self._faults.append(Fault(operation, nth, kind, share, message))

    def stop(self, environment: str, node: str) -> None:
        """Let a node die, with all that runs on it."""
        self._change(environment, ("node", node), "stopped", "it was stopped")
        self._kill(environment, node)

    def cut(self, environment: str, kind: str, name: str) -> None:
        """Leave a resource as if its making had been cut short."""
        self._change(environment, (kind, name), "incomplete", "its making was cut short")

    def folder(self, environment: str, node: str) -> Path:
        """The folder in which a node's commands run."""
        path = Path(self._folder.name) / environment / node
        path.mkdir(parents=True, exist_ok=True)
        return path

    def close(self) -> None:
        """End everything that runs on its nodes and remove their folders."""
        for environment, node in list(self._processes):
            self._kill(environment, node)
        self._folder.cleanup()

    def __enter__(self) -> MemoryCloud:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _change(self, environment: str, key: Key, state: str, detail: str) -> None:
        resources = self._environments[environment].resources
        resources[key] = replace(resources[key], state=state, detail=detail)

    def _kill(self, environment: str, node: str) -> None:
        for process in self._processes.pop((environment, node), set()):
            process.lose()
        run = self.folder(environment, node) / RUN
        # the node's agent and what that started are no children of ours
        while run.exists() and (left := _started_with(f"WARDIAN_RUN_DIR={run}")):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(run, ignore_errors=True)
        for key in [key for key in self.suffered if key[0] == environment and key[2] == node]:
            del self.suffered[key]

    def _inflict(self, environment: str, kind: str, target: str, faults: list[Affliction]) -> None:
        key = (environment, kind, target)
        self.suffered.pop(key, None)
        if faults:
            self.suffered[key] = faults
        if kind == "pause":
            for process in self._processes.get((environment, target), set()):
                process.stop(bool(faults))

    def _failing_at(self, operation: str, kind: str, count: int) -> tuple[int, str] | None:
        """At which of `count` resources this call shall fail, and why."""
        failing = None
        for fault in list(self._faults):
            if fault.operation != operation or fault.kind not in (None, kind):
                continue
            fault.nth -= 1
            if fault.nth == 0:
                self._faults.remove(fault)
                failing = min(int(count * fault.share), max(count - 1, 0)), fault.message
        return failing


class MemoryProvider(Provider):
    """The provider "memory". cloud: where its resources live; a new, empty one when None."""

    name: ClassVar[str] = "memory"
    faults: ClassVar[frozenset[str]] = frozenset({"pause", "slow", "partition", "flap", "kill"})
    treatments: ClassVar[frozenset[str]] = frozenset({"rebuild"})

    def __init__(self, settings: base.ProviderSettings | None = None, *, cloud: MemoryCloud | None = None) -> None:
        super().__init__(settings)
        self.cloud = cloud or MemoryCloud()

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        return self.cloud.capabilities

    async def environments(self) -> list[EnvironmentRecord]:
        lost = EnvironmentRecord("", "", "", "", self.name, "", "", 0.0)
        return [item.record or replace(lost, id=environment) for environment, item in self.cloud._environments.items()]

    @asynccontextmanager
    async def lock(self, file: str, instance: str, purpose: str) -> AsyncIterator[None]:
        holders, key = self.cloud._holders, (file, instance)
        if key in holders:
            raise BusyError(
                f"the environment of {file} (instance {instance}) is held by {holders[key]}", remedy="Wait for it to end, then try again."
            )
        holders[key] = f"process {os.getpid()}: {purpose}"
        try:
            yield
        finally:
            del holders[key]

    async def observe(self, environment: str) -> Observed:
        item = self.cloud._environments.get(environment, _Environment())
        return Observed.collect(item.record, [_copy(resource) for resource in item.resources.values()])

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        for resource, failure in self._steps("create", resources):
            if resource.kind == "environment":
                item = self.cloud._environments.setdefault(environment, _Environment())
                item.record = item.record or _record(environment, resource.spec)
            elif environment not in self.cloud._environments:
                raise ProviderError(f"there is no environment {environment} to put it in", resource=str(resource))
            made = self.cloud._environments[environment].resources
            if resource.key in made:
                raise ProviderError("it exists already", resource=str(resource), remedy="Delete it first.")
            made[resource.key] = _copy(
                ObservedResource(resource.kind, resource.name, resource.spec, "incomplete", "its making was cut short")
            )
            progress(resource.name, "creating")
            await self._pause()
            if failure:
                raise ProviderError(failure, resource=str(resource))
            made[resource.key] = replace(made[resource.key], state="ready", detail="")
            progress(resource.name, "ready")

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        for resource, failure in self._steps("update", resources):
            item = self.cloud._environments.get(environment, _Environment())
            if resource.key not in item.resources:
                raise ProviderError("it does not exist", resource=str(resource))
            fixed = [key for key in _differing(item.resources[resource.key].spec, resource.spec) if not self._in_place(resource.kind, key)]
            if fixed:
                raise ProviderError(f"{', '.join(fixed)} cannot change in place", resource=str(resource), remedy="Make it anew.")
            progress(resource.name, "updating")
            await self._pause()
            if failure:
                raise ProviderError(failure, resource=str(resource))
            item.resources[resource.key] = _copy(replace(item.resources[resource.key], spec=resource.spec))
            if resource.kind == "environment" and item.record:
                item.record = replace(_record(environment, resource.spec), created=item.record.created)
            progress(resource.name, "ready")

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        for key, failure in self._steps("delete", resources):
            await self._remove(environment, key, failure, progress)

    async def destroy(self, environment: str, progress: Progress) -> None:
        item = self.cloud._environments.get(environment, _Environment())
        for key, failure in self._steps("destroy", sorted(item.resources, key=lambda key: key[0] == "environment")):
            await self._remove(environment, key, failure, progress)
        self.cloud._environments.pop(environment, None)

    async def note(self, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> None:
        item = self.cloud._environments.get(environment, _Environment())
        if ("node", node) not in item.resources:
            raise NodeDownError(node, "there is no such node")
        notes = item.notes.setdefault(node, {})
        if value is None:
            notes.pop(name, None)
        else:
            notes[name] = _plain(value)

    async def notes(self, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
        notes: dict[str, dict[str, dict[str, Any]]] = _plain(self.cloud._environments.get(environment, _Environment()).notes)
        return {node: values for node, values in notes.items() if values}

    def channel(self, environment: str, node: str) -> Channel:
        return MemoryChannel(self.cloud, environment, node)

    async def inflict(self, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Affliction]) -> None:
        item = self.cloud._environments.get(environment, _Environment())
        for target in targets:
            mine = [fault for fault in faults if target in fault.targets]
            node = item.resources.get(("node", target))
            if kind == "flap" or (node is not None and node.state == "ready"):
                self.cloud._inflict(environment, kind, target, mine)

    async def kill(self, environment: str, nodes: Sequence[str]) -> None:
        item = self.cloud._environments.get(environment, _Environment())
        for node in nodes:
            known = item.resources.get(("node", node))
            if known is None or known.state != "ready":
                raise NodeDownError(node, "the node is not running", remedy="`wardian up` makes it anew.")
            self.cloud.stop(environment, node)

    async def collect_garbage(self, progress: Progress) -> list[str]:
        dead = []
        for environment, item in list(self.cloud._environments.items()):
            nodes = [resource for key, resource in item.resources.items() if key[0] == "node"]
            if item.record is None or (nodes and all(node.state == "stopped" for node in nodes)):
                await self.destroy(environment, progress)
                dead.append(f"environment {environment}")
        return dead

    async def diagnose(self) -> list[Finding]:
        return [Finding("memory", "ok", "needs nothing")]

    def _steps(self, operation: str, items: Sequence[Any]) -> Iterator[tuple[Any, str | None]]:
        """Each of an operation's resources or keys, with the reason why it shall fail at that one."""
        keys = [item.key if isinstance(item, Resource) else item for item in items]
        kind = keys[0][0] if keys else ""
        self.cloud.operations.append((operation, kind, tuple(name for _, name in keys)))
        failing = self.cloud._failing_at(operation, kind, len(keys))
        for index, item in enumerate(items):
            yield item, failing[1] if failing and failing[0] == index else None

    async def _pause(self) -> None:
        if self.cloud.gate is not None:
            await self.cloud.gate.wait()
        await asyncio.sleep(0)

    async def _remove(self, environment: str, key: Key, failure: str | None, progress: Progress) -> None:
        kind, name = key
        progress(name, "deleting")
        await self._pause()
        if failure:
            raise ProviderError(failure, resource=f"{kind} {name}")
        item = self.cloud._environments.get(environment, _Environment())
        item.resources.pop(key, None)
        if kind == "node":
            item.notes.pop(name, None)
            self.cloud._kill(environment, name)
        if kind == "environment":
            item.record = None
        if not item.resources:
            self.cloud._environments.pop(environment, None)
        progress(name, "gone")

    def _in_place(self, kind: str, key: str) -> bool:
        return (kind, key) in self.cloud.capabilities.in_place


class MemoryChannel(Channel):
    """Starts processes of this host, with the node's variables, in the node's folder."""

    def __init__(self, cloud: MemoryCloud, environment: str, node: str) -> None:
        self._cloud = cloud
        self._environment = environment
        self._node = node

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
    ) -> HostProcess:
        node = self._running()
        home = self._cloud.folder(self._environment, self._node)
        variables = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "USER": "root", "LANG": "C.UTF-8"}
        variables |= {"WARDIAN_RUN_DIR": str(home / RUN), **node.spec.get("env", {}), **(env or {})}
        ends = _Ends()
        try:
            if terminal:
                ends.terminal(*terminal)
            else:
                ends.pipes(stdin, stdout, stderr)
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=variables,
                cwd=cwd or home,
                stdin=ends.theirs[0],
                stdout=ends.theirs[1],
                stderr=ends.theirs[2],
                start_new_session=True,
                preexec_fn=_take_terminal if terminal else None,
            )
        except OSError as error:
            ends.close()
            if error.filename == cwd:
                raise CommandError(self._node, f"there is no folder {cwd}") from error
            raise CommandError(self._node, f"{argv[0]} cannot be executed: {error.strerror}") from error
        running = self._cloud._processes.setdefault((self._environment, self._node), set())
        return await HostProcess.attach(self._node, process, ends, running)

    def _running(self) -> ObservedResource:
        environment = self._cloud._environments.get(self._environment, _Environment())
        node = environment.resources.get(("node", self._node))
        if node is None:
            raise NodeDownError(self._node, "there is no such node", remedy="`wardian up` makes it.")
        if node.state != "ready":
            raise NodeDownError(self._node, f"the node is {node.state}", remedy="`wardian up` makes it anew.")
        return node


class HostProcess:
    """A process of this host, as `base.Process` promises."""

    def __init__(self, node: str, process: asyncio.subprocess.Process, running: set[HostProcess]) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._node = node
        self._process = process
        self._running = running
        self._lost = False
        self._terminal: int | None = None
        self._transports: list[asyncio.BaseTransport] = []
        running.add(self)

    @classmethod
    async def attach(cls, node: str, process: asyncio.subprocess.Process, ends: _Ends, running: set[HostProcess]) -> HostProcess:
        """Give a started process the streams of our ends of its pipes."""
        self = cls(node, process, running)
        loop = asyncio.get_running_loop()
        ends.close_theirs()
        stdin, stdout, stderr = ends.ours
        self._terminal = stdin if ends.is_terminal else None
        if stdin is not None:
            transport, protocol = await loop.connect_write_pipe(_Stream, os.fdopen(stdin, "wb", 0))
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
            self._transports.append(transport)
        self.stdout, self.stderr = await self._reader(stdout), await self._reader(stderr)
        return self

    async def wait(self) -> int:
        code = await self._process.wait()
        self._running.discard(self)
        if self._lost:
            raise NodeDownError(self._node, "the node went away while a command ran")
        return code if code >= 0 else 128 - code

    async def signal(self, number: int) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def resize(self, rows: int, columns: int) -> None:
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        self._terminal = None
        for transport in self._transports:
            transport.close()
        await self.signal(signal.SIGHUP)
        try:
            await asyncio.wait_for(self._process.wait(), HANG_UP_GRACE)
        except TimeoutError:
            await self.signal(signal.SIGKILL)
            await self._process.wait()
        self._running.discard(self)

    def stop(self, stopped: bool) -> None:
        """Have it stand still, or go on."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    def lose(self) -> None:
        """Kill it because its node went away."""
        if self._process.returncode is None:
            self._lost = True
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _reader(self, end: int | None) -> asyncio.StreamReader | None:
        if end is None:
            return None
        reader = asyncio.StreamReader(STREAM_LIMIT)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _Stream(reader), os.fdopen(end, "rb", 0))
        self._transports.append(transport)
        return reader


class _Stream(asyncio.StreamReaderProtocol):
    """One direction of a pipe or of a terminal."""

    def __init__(self, reader: asyncio.StreamReader | None = None) -> None:
        super().__init__(reader or asyncio.StreamReader())

    def connection_lost(self, exc: Exception | None) -> None:
        # Linux reports the end of a terminal as an input/output error
        ended = isinstance(exc, OSError) and exc.errno == errno.EIO
        super().connection_lost(None if ended else exc)


class _Ends:
    """The file descriptors of a process's standard streams: those it gets, and ours at their other ends."""

    def __init__(self) -> None:
        self.theirs: list[int] = []
        self.ours: list[int | None] = []
        self.is_terminal = False

    def pipes(self, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        for number, wish in enumerate((stdin, stdout, stderr)):
            if wish is None:
                read, write = os.pipe()
                self.theirs.append(read if number == 0 else write)
                self.ours.append(write if number == 0 else read)
            else:
                self.theirs.append(wish)
                self.ours.append(None)

    def terminal(self, rows: int, columns: int) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.theirs += [theirs, theirs, theirs]
        self.ours += [ours, os.dup(ours), None]
        self.is_terminal = True

    def close_theirs(self) -> None:
        for end in {end for end in self.theirs if end >= 0}:
            os.close(end)

    def close(self) -> None:
        self.close_theirs()
        for end in self.ours:
            if end is not None:
                os.close(end)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _started_with(variable: str) -> list[int]:
    """The processes of this host that were started with a variable, NAME=VALUE."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if variable.encode() in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def _record(environment: str, spec: Mapping[str, Any]) -> EnvironmentRecord:
    said: dict[str, Any] = {key: str(spec.get(key, "")) for key in ("name", "instance", "file", "user", "host")}
    return EnvironmentRecord(environment, **said, provider=MemoryProvider.name, created=time.time(), spec=_plain(spec))


def _plain(value: Any) -> Any:
    """A copy that shares nothing with `value`, as if it had been written down and read back."""
    return json.loads(json.dumps(value))


def _copy(resource: ObservedResource) -> ObservedResource:
    return replace(resource, spec=_plain(resource.spec))


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    missing = object()
    return sorted(key for key in {*old, *new} if old.get(key, missing) != new.get(key, missing))
