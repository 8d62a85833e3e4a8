"""Watching an environment for everybody who looks at it: one document, kept true, whose differences readers fetch in their own time.

What happened shows in the journal, whoever did it: its database is a file that is watched (inotify(7)), or a server that tells (NOTIFY),
so that a command in another terminal is noticed when it commits. A node that dies is the provider's to notice (`Provider.changed`).
Whatever shows in neither is found by looking again after LONGEST seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from asyncinotify import Inotify, Mask

from ...environment import view
from ...environment.environment import FOLDER, Environment
from ...environment.live import journal_target
from ...environment.view import View
from ...errors import WardianError
from ...journal import LogEntry, journal_changes
from ...providers.base import Provider, Usage
from .handler import error_json
from .merge import difference
from .traffic import Traffic

LONGEST = 10.0
"""Seconds after which is looked again when nothing has told of a change."""

SHORTEST = 0.2
"""Seconds from the end of one look to the next, however much happens."""

LINGER = 30.0
"""Seconds that it goes on when the last reader has left, so that a page that is loaded again goes on where it was."""

KEPT_PATCHES, KEPT_BYTES, KEPT_ENTRIES = 256, 1 << 20, 500
"""How many differences, of how many bytes in all, and how many entries of the journal are kept for readers who lag behind or come back."""

MARGIN = 5.0
"""Seconds: entries that began so long before the last look may be written only now."""

ABOUT_RESOURCES = ("operation", "event")
"""The kinds of entries after which resources may be others."""

Entry = dict[str, Any]


class Watch:
    """The watch over one environment. Runs while it has readers."""

    def __init__(
        self,
        environment: Environment,
        path: str,
        entries: Callable[..., Any],
        told: Callable[[LogEntry], Entry],
        own: Callable[[], dict[str, Any]],
        over: Callable[[], None],
    ) -> None:
        """entries: reads the journal; told: an entry for readers; own: what the server does; over: called when it has ended."""
        self.environment = environment
        self.path = path
        self.epoch = secrets.token_hex(6)
        self.number = 0
        self.state: dict[str, Any] = {}
        self.patches: deque[tuple[int, str]] = deque()
        self.sequence = 0
        self.entries: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self.readers: set[Reader] = set()
        self._read_entries, self._told, self._own, self._over = entries, told, own, over
        self._view: View | None = None
        self._found: tuple[Any, Provider] | None = None
        self._usage: tuple[float, dict[str, Usage]] = (0.0, {})
        self._shares: dict[str, dict[str, Any]] = {}
        self._traffic = Traffic()
        self._seen: dict[str, tuple[str, float | None]] = {}
        self._running: dict[str, Entry] = {}
        self._since, self._looked = 0.0, 0.0
        self._ours: set[str] = set()
        """The ids under which this instance is, or was, known."""
        self._stirred, self._resources, self._journal = asyncio.Event(), True, True
        self._first = asyncio.Event()
        self.broken = False
        self._tending = [asyncio.create_task(self._run()), asyncio.create_task(self._watch_files())]
        self._target = journal_target(environment.file)
        if isinstance(self._target, str):
            self._tending.append(asyncio.create_task(self._listen(self._target)))
        for task in self._tending:
            task.add_done_callback(self._ended)
        self._leaving: asyncio.TimerHandle | None = None

    async def join(self) -> Reader:
        """A new reader, once there is something to read."""
        reader = Reader(self)
        self.readers.add(reader)
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        try:
            await self._first.wait()
        except asyncio.CancelledError:
            self.leave(reader)
            raise
        return reader

    def leave(self, reader: Reader) -> None:
        """A reader has gone."""
        self.readers.discard(reader)
        if not self.readers and self._leaving is None and not self.broken:
            self._leaving = asyncio.get_running_loop().call_later(LINGER, self._give_up)

    def look(self) -> None:
        """Something may have changed: look again now."""
        self._resources = self._journal = True
        self._stirred.set()

    def touch(self) -> None:
        """What the server itself does has changed."""
        self._stirred.set()

    def _give_up(self) -> None:
        self._over()
        for task in self._tending:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.broken:
            return
        # nothing that can be told to readers; those that come back have another watch
        logging.getLogger("wardian.lab").error("the watch over %s ended", self.path, exc_info=task.exception())
        self.broken = True
        self._give_up()
        self._first.set()
        for reader in self.readers:
            reader.ready.set()

    # keeping it true

    async def _run(self) -> None:
        dying: asyncio.Task[None] | None = None
        try:
            while True:
                self._stirred.clear()
                if self._journal:
                    self._journal = False
                    await self._take_entries()
                if self._resources:
                    self._resources, self._looked = False, time.monotonic()
                    # begun before the look, so that nothing happens between the two
                    dying = await self._await_change(dying)
                    await self._observe()
                self._publish()
                self._first.set()
                await asyncio.sleep(SHORTEST)
                try:
                    # whatever stirs meanwhile puts off no look at what nobody tells of
                    await asyncio.wait_for(self._stirred.wait(), max(0.0, self._looked + LONGEST - time.monotonic()))
                except TimeoutError:
                    self.look()
        finally:
            if dying is not None:
                dying.cancel()
            if self._found is not None:
                with suppress(WardianError):
                    await self._traffic.end(self._found[1], self._found[0].id)

    async def _await_change(self, before: asyncio.Task[None] | None) -> asyncio.Task[None] | None:
        if before is not None:
            before.cancel()
        if self._found is None:
            return None

        async def wait(provider: Provider, identity: str) -> None:
            await provider.changed(identity)
            self.look()

        record, provider = self._found
        task = asyncio.create_task(wait(provider, record.id))
        # it runs up to where it waits
        await asyncio.sleep(0)
        return task

    async def _observe(self) -> None:
        try:
            if self._found is not None:
                self._view = await view.look_at(self.environment, *self._found)
                if self._view.observed.environment is None:
                    self._found = None
            if self._found is None:
                self._found = await view.find(self.environment)
                self._view = await (view.look_at(self.environment, *self._found) if self._found else view.look(self.environment))
                if self._found:
                    # there are nodes now whose end has to be noticed
                    self.look()
            await self._measure()
            await self._measure_traffic()
            self._trouble = None
        except WardianError as error:
            self._trouble = error_json(error)

    _trouble: dict[str, Any] | None = None

    async def _measure(self) -> None:
        """What the nodes use, from time to time: shares of so little time would say nothing."""
        now, (then, before) = time.monotonic(), self._usage
        if self._found is None:
            self._usage, self._shares = (0.0, {}), {}
            return
        if before and now - then < LONGEST / 2:
            return
        usage = await self._found[1].usage(self._found[0].id)
        self._usage = now, dict(usage)
        self._shares = {
            name: {
                "cpu_seconds": round(item.cpu_seconds, 2),
                "memory": item.memory,
                **({"cpu": round(max(0.0, item.cpu_seconds - before[name].cpu_seconds) / (now - then), 3)} if name in before else {}),
            }
            for name, item in usage.items()
        }

    async def _measure_traffic(self) -> None:
        """What flows where, while somebody wants to know."""
        if self._found is None:
            self._traffic.forget()
            return
        record, provider = self._found
        if any(reader.traffic for reader in self.readers):
            await self._traffic.measure(provider, record.id)
        else:
            await self._traffic.end(provider, record.id)

    async def _take_entries(self) -> None:
        """Read what is new in the journal, and what of that which was running has ended."""
        first = not self._since
        asked = time.time()
        found: list[LogEntry] = []
        with suppress(WardianError):
            if first:
                found = await self._read_entries(limit=KEPT_ENTRIES)
            else:
                found = await self._read_entries(since=self._since - MARGIN, limit=KEPT_ENTRIES)
                if self._running:
                    found += await self._read_entries(ids=list(self._running))
        self._since = asked
        if self._found:
            self._ours.add(self._found[0].id)
        self._ours |= {str(entry.environment) for entry in found if entry.detail.get("instance") == self.environment.instance}
        for entry in sorted({entry.id: entry for entry in found}.values(), key=lambda entry: (entry.started, entry.id)):
            mark = entry.status, entry.ended
            if self._seen.get(entry.id) == mark:
                continue
            self._seen[entry.id] = mark
            if entry.kind in ABOUT_RESOURCES and not first:
                self._resources = True
            if entry.environment is not None and entry.environment not in self._ours:
                continue
            told = self._told(entry)
            if entry.status == "running":
                self._running[entry.id] = told
            else:
                self._running.pop(entry.id, None)
            if not first:
                self.sequence += 1
                self.entries.append(told)
        # what began long ago and has ended cannot come again
        old = asked - 2 * MARGIN
        recent = {entry.id for entry in found if entry.started >= old}
        self._seen = {id_: mark for id_, mark in self._seen.items() if id_ in recent or id_ in self._running}

    async def _watch_files(self) -> None:
        """Notice when the experiment file or the journal changes."""
        folder, name = self.environment.folder, self.environment.file.name
        journal = folder / FOLDER
        with Inotify() as inotify:
            inotify.add_watch(folder, Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.ONLYDIR)
            watched = _add(inotify, journal)
            async for event in _events(inotify):
                what = str(event.name or "")
                if what.startswith("journal.db"):
                    self._journal = True
                    self._stirred.set()
                elif what == FOLDER and not watched:
                    watched = _add(inotify, journal)
                    self.look()
                elif what == name:
                    self.look()
                if event.mask & Mask.Q_OVERFLOW:
                    self.look()
                if event.mask & Mask.IGNORED:
                    watched = False

    async def _listen(self, address: str) -> None:
        """Notice what is written to a journal in a database; where that is not told, looking finds it."""
        while True:
            async for _ in journal_changes(address):
                self._journal = True
                self._stirred.set()
            await asyncio.sleep(LONGEST)

    # what readers get

    def _publish(self) -> None:
        if self._view is None and self._trouble is None:
            return
        state = {"path": self.path, **(self._view.to_json() if self._view else {"instance": self.environment.instance})}
        for name, share in self._shares.items():
            if name in state.get("nodes", {}):
                state["nodes"][name]["usage"] = share
        state |= self._traffic.to_json() | {"running": self._running.copy(), **self._own()}
        if self._trouble is not None:
            state["trouble"] = self._trouble
        patch = difference(self.state, state)
        self.state = state
        if patch:
            self.number += 1
            self.patches.append((self.number, _message("patch", number=self.number, **{"from": self.number - 1, "patch": patch})))
            while len(self.patches) > KEPT_PATCHES or sum(len(text) for _, text in self.patches) > KEPT_BYTES:
                self.patches.popleft()
        for reader in self.readers:
            reader.ready.set()


class Reader:
    """One who looks on. Holds two numbers and little else, however slowly it reads. traffic: whether it wants to know what links carry."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.number = -1
        self.sequence = watch.sequence
        self.traffic = False
        self.ready = asyncio.Event()

    def resume(self, epoch: str, number: int, sequence: int) -> None:
        """Go on where another connection ended, if that can be done."""
        watch = self.watch
        if epoch == watch.epoch and self._has(number) and 0 <= sequence <= watch.sequence:
            self.number, self.sequence = number, sequence

    async def next(self) -> list[str]:
        """The messages that bring it up to date; waits until there are some. None where the watch has ended."""
        while not self.watch.broken:
            self.ready.clear()
            if messages := [*self._changes(), *self._happened()]:
                return messages
            await self.ready.wait()
        return []

    def _has(self, number: int) -> bool:
        """Whether all differences from there on are kept."""
        watch = self.watch
        return number == watch.number or (0 <= number < watch.number and bool(watch.patches) and watch.patches[0][0] <= number + 1)

    def _changes(self) -> Iterable[str]:
        watch = self.watch
        if self._has(self.number):
            found = [text for number, text in watch.patches if number > self.number]
        else:
            found = [_message("snapshot", epoch=watch.epoch, number=watch.number, sequence=self.sequence, state=watch.state)]
        self.number = watch.number
        return found

    def _happened(self) -> Iterable[str]:
        watch, behind = self.watch, self.watch.sequence - self.sequence
        if not behind:
            return
        kept = min(behind, len(watch.entries))
        entries = list(itertools.islice(watch.entries, len(watch.entries) - kept, None))
        self.sequence = watch.sequence
        yield _message("entries", sequence=watch.sequence, missed=behind - kept, entries=entries)


def _message(kind: str, **values: Any) -> str:
    return json.dumps({"type": kind, **values}, separators=(",", ":"), default=str)


def _add(inotify: Inotify, journal: Path) -> bool:
    try:
        inotify.add_watch(journal, Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.ONLYDIR)
    except OSError:
        return False
    return True


async def _events(inotify: Inotify) -> Any:
    async for event in inotify:
        yield event
