"""The keeper: one small process an environment, which acts when no command runs.

It restarts what the provider needs running (relays), undoes faults, and ends the lease. It holds no truth: everything it acts on is
read from the environment, and any command starts it again when it is gone. It has a Unix socket (0600) that answers `{"op": "look"}`
(something may have changed) and `{"op": "stop"}`, one JSON line each.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ..errors import BusyError, WardianError
from ..experiment.resources import EnvironmentRecord
from ..paths import state_folder
from ..providers import registry
from ..providers.base import Provider

RETRY, LONGEST_RETRY = 5.0, 300.0
"""Seconds until what failed at the end of a lease is tried again; twice as long each time, up to the second."""

NOTICE = 600.0
"""How long before the end of a lease the journal says so, seconds; of a short one in its last quarter."""

LEAD = 300.0
"""How long before a site takes an environment away what is to be collected is, seconds; of a short lease in its last tenth."""

ENDING = 10.0
"""Longest that a keeper which was told to stop may take over it, seconds."""


async def ensure(provider: Provider, environment: str, lease: bool) -> None:
    """Start the keeper of an environment unless it is not needed; have one that runs look again. Starts what the provider needs running."""
    # every command imports this module, and few need what faults take
    from . import faults

    needed = bool(await provider.keep(environment)) or lease or bool(await faults.in_force(provider, environment))
    if not needed and not _held(environment):
        return
    lock = _lock(environment)
    if lock is None:
        await request(environment, {"op": "look"})
        return
    with (_folder() / f"{environment}.log").open("ab") as log:
        settings = provider.settings.model_dump_json()
        # asyncio's own subprocesses end with the loop that started them; this one outlives us
        subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", __name__, environment, provider.name, settings, str(lock)],
            pass_fds=[lock],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            # it may outlive the run that started it
            env={
                **{name: value for name, value in os.environ.items() if name != "WARDIAN_RUN"},
                "WARDIAN_ENVIRONMENT": environment,
                "WARDIAN_STATE": str(state_folder()),
            },
        )
    os.close(lock)


async def revive(provider: Provider, record: EnvironmentRecord) -> None:
    """Start the keeper again where there was one and it died. Does nothing while another command holds the environment."""
    if not (_folder() / f"{record.id}.log").exists() or _held(record.id):
        return
    # whoever holds the lock starts the keeper itself, or is about to end the environment
    with suppress(BusyError):
        async with provider.lock(record.file, record.instance, "restarting the keeper"):
            await ensure(provider, record.id, bool(record.spec.get("lease")))


async def request(environment: str, message: dict[str, Any]) -> dict[str, Any] | None:
    """The keeper's answer, or None when there is no keeper."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(_folder() / f"{environment}.sock"))
    except OSError:
        return None
    try:
        writer.write(json.dumps(message).encode() + b"\n")
        line = await reader.readline()
        answer: dict[str, Any] | None = json.loads(line) if line else None
        return answer
    except OSError:
        return None
    finally:
        writer.close()


async def stop(environment: str) -> None:
    """End the keeper, if there is one, and remove what it leaves. Does nothing when called by the keeper itself."""
    answer = await request(environment, {"op": "stop"})
    if answer is None:
        # one that does not listen yet looks for its lock as soon as it does: either it misses the lock, or it hears the second request
        (_folder() / f"{environment}.lock").unlink(missing_ok=True)
        answer = await request(environment, {"op": "stop"})
    if answer and answer["pid"] == os.getpid():
        return
    if answer:
        # it may be just about to start a relay, which must not happen behind the back of who tears down
        await _ended(answer["pid"])
    _forget(environment)


async def _ended(process: int) -> None:
    """Return once a process is dead; one that takes too long is killed."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    loop, dead = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, dead.set)
    try:
        await asyncio.wait_for(dead.wait(), ENDING)
    except TimeoutError:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        await dead.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _forget(environment: str) -> None:
    for suffix in ("sock", "log", "lock"):
        (_folder() / f"{environment}.{suffix}").unlink(missing_ok=True)


def lease_end(record: EnvironmentRecord) -> float | None:
    """When the lease of an environment ends, seconds since the epoch; None without one.

    That is when its site takes it away, where one does; else counted from its making.
    """
    if record.held_until is not None:
        return record.held_until
    lease = record.spec.get("lease")
    return record.created + float(lease["duration"]) if lease else None


async def end_overdue() -> list[str]:
    """Tear down what should have been at the end of its lease, and whose keeper is gone; gives one line for each.

    Raises the first error once all were tried.
    """
    from .environment import open_journal, tear_down
    from .live import environments

    lines: list[str] = []
    failed: WardianError | None = None
    for known, provider in await environments():
        if (known.spec.get("lease") or {}).get("at_end") != "down" or _held(known.id):
            continue
        try:
            observed = await provider.observe(known.id)
            record = observed.environment or known
            end = lease_end(record)
            if end is None or end > time.time():
                continue
            with closing(open_journal(Path(record.file))) as journal:
                async with provider.lock(record.file, record.instance, "wardian gc"):
                    # where no node runs any more nothing can be collected
                    gone = _taken(record) or all(item.state == "stopped" for item in observed.of("node"))
                    await tear_down(record, provider, journal, force=gone)
            lines.append(f"environment {record.id}, whose lease ended {time.strftime('%F %T', time.localtime(end))}")
        except BusyError:
            continue
        except WardianError as error:
            failed = failed or error
    if failed:
        raise failed
    return lines


def _taken(record: EnvironmentRecord) -> bool:
    """Whether its site has taken it away: then nothing is left to collect."""
    return record.held_until is not None and record.held_until <= time.time()


def _folder() -> Path:
    folder = state_folder() / "keepers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _held(environment: str) -> bool:
    """Whether a keeper has its lock."""
    try:
        descriptor = os.open(_folder() / f"{environment}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        (kind,) = struct.unpack_from("h", fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE))
        return bool(kind != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def _lock(environment: str) -> int | None:
    """A descriptor that holds the keeper's lock, or None when another has it. The lock goes with the last copy of the descriptor."""
    descriptor = os.open(_folder() / f"{environment}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    return descriptor


_WHOLE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""A `struct flock` for a whole file: this kind of lock can be asked about without taking it."""


class Keeper:
    """The process itself."""

    def __init__(self, environment: str, provider: Provider, lock: int) -> None:
        self.environment = environment
        self.provider = provider
        self.lock = lock
        self.wake = asyncio.Event()
        self.stopping = False
        self.retry = RETRY
        self.told: float | None = None
        """The end of the lease that the journal was told of."""
        self.warned: float | None = None
        """The end of which it was told beforehand."""
        self.started = time.time()

    async def run(self) -> None:
        """Keep until the environment is gone or we are told to stop."""
        path = _folder() / f"{self.environment}.sock"
        path.unlink(missing_ok=True)
        previous = os.umask(0o177)
        server = await asyncio.start_unix_server(self._serve, str(path))
        os.umask(previous)
        try:
            async with server:
                await self._keep()
        finally:
            path.unlink(missing_ok=True)

    async def _keep(self) -> None:
        while not self.stopping and self._locked():
            self.wake.clear()
            record = (await self.provider.observe(self.environment)).environment
            if record is None:
                _forget(self.environment)
                break
            moment, holders = await self._tend_faults(record)
            watched = self._watch([*await self.provider.keep(self.environment), *holders])
            end, notice = self._due(record)
            if end is not None and end <= time.time():
                if await self._end_lease(record, end):
                    _forget(self.environment)
                    break
                end = None
                if record.spec["lease"]["at_end"] == "down":
                    end = time.time() + self.retry
                    self.retry = min(2 * self.retry, LONGEST_RETRY)
            end = min((when for when in (end, notice, moment) if when is not None), default=None)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), None if end is None else max(0.0, end - time.time()))
            for descriptor in watched:
                asyncio.get_running_loop().remove_reader(descriptor)
                os.close(descriptor)

    def _locked(self) -> bool:
        """Whether the file that we hold is still the keeper's lock; it is gone when we were told to stop before we listened."""
        try:
            return os.path.samestat(os.fstat(self.lock), (_folder() / f"{self.environment}.lock").stat())
        except FileNotFoundError:
            return False

    def _due(self, record: EnvironmentRecord) -> tuple[float | None, float | None]:
        """When the lease is to be ended, and when the journal is to be told of that beforehand; None where that is not to come."""
        from .environment import open_journal

        end = lease_end(record)
        if end is None:
            return None, None
        whole = float((record.spec.get("lease") or {}).get("duration") or end - record.created)
        due = end if record.held_until is None or record.spec["lease"]["at_end"] != "down" else end - min(LEAD, whole / 10)
        notice = end - min(NOTICE, whole / 4)
        if self.warned == end:
            return due, None
        if notice > time.time():
            return due, notice
        if due > time.time():
            with closing(open_journal(Path(record.file))) as journal:
                journal.event(environment=record.id, kind="lease.ending", detail={**record.spec["lease"], "end": end})
            self.warned = end
        return due, None

    async def _tend_faults(self, record: EnvironmentRecord) -> tuple[float | None, list[int]]:
        """Undo faults that are over. Gives when to look again, and the processes with which others end."""
        from . import faults
        from .environment import open_journal

        try:
            return await faults.tend(self.provider, self.environment, lambda: open_journal(Path(record.file)))
        except (WardianError, OSError) as error:
            print(f"{time.strftime('%F %T')} a fault could not be undone: {error}", flush=True)
            return time.time() + RETRY, []

    def _watch(self, processes: list[int]) -> list[int]:
        """Wake as soon as one of these ends."""
        watched = []
        for process in processes:
            try:
                descriptor = os.pidfd_open(process)
            except ProcessLookupError:
                self.wake.set()
                continue
            asyncio.get_running_loop().add_reader(descriptor, self.wake.set)
            watched.append(descriptor)
        return watched

    async def _end_lease(self, record: EnvironmentRecord, end: float) -> bool:
        """Do what the lease says. True when the environment is gone."""
        from .environment import open_journal, tear_down

        try:
            with closing(open_journal(Path(record.file))) as journal:
                if self.told != end:
                    journal.event(environment=record.id, kind="lease.ended", detail=dict(record.spec["lease"]))
                    self.told = end
                if record.spec["lease"]["at_end"] != "down":
                    return False
                async with self.provider.lock(record.file, record.instance, "the end of the lease"):
                    await tear_down(record, self.provider, journal, force=_taken(record))
                return True
        except BusyError:
            return False
        except (WardianError, OSError) as error:
            print(f"{time.strftime('%F %T')} the lease ended, but: {error}", flush=True)
            return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):
            message = json.loads(await reader.readline())
            self.stopping = self.stopping or message.get("op") == "stop"
            self.wake.set()
            writer.write(json.dumps({"pid": os.getpid(), "started": self.started}).encode() + b"\n")
            await writer.drain()
        writer.close()


def main() -> None:
    """`python -m wardian.environment.keeper ENVIRONMENT PROVIDER SETTINGS LOCK`; LOCK is a descriptor, and held until we end."""
    environment, name, settings, lock = sys.argv[1:]
    os.set_inheritable(int(lock), False)
    asyncio.run(Keeper(environment, registry.make(name, json.loads(settings)), int(lock)).run())


if __name__ == "__main__":
    main()
