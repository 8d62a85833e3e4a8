"""Background cells: their output is kept, shown live where they were started, and whole where they are waited for."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable
from typing import Any

from ...errors import WardianError
from ..places.place import Place
from ..wire import Message, dump
from .ansi import plain, to_html
from .cell import Cell, Output, Run
from .summary import compact

_KEPT = 64 * 2**20
"""How much of a job's output is kept here, bytes."""
_TAIL = 4000
"""How much of it is shown live, characters."""
_REDRAW = 0.25
"""Seconds between two redraws of the live view."""


class JobError(WardianError):
    """There is no such job, its name is taken, or waiting for it took too long."""


class Job:
    """A background cell. As an `Output` it keeps what its run sends. `publish_update` redraws its live view."""

    def __init__(self, name: str, cell: Cell, view: Callable[[str, dict[str, Any]], None]) -> None:
        """view: publishes a message in the cell where the job was started."""
        self.name = name
        self.cell = cell
        self.run: Run | None = None
        self.reply: dict[str, Any] | None = None
        self.done = asyncio.Event()
        self._view = view
        self._started = time.monotonic()
        self._seconds: float | None = None
        self._kept: list[tuple[Message | str, dict[str, Any], str | None]] = []
        self._size = 0
        self._dropped = 0
        self._tail = ""
        self._redraw: asyncio.TimerHandle | None = None

    @property
    def state(self) -> str:
        """running, done, failed or stopped."""
        if self.reply is None:
            return "running"
        if self.reply.get("status") == "ok":
            return "done"
        return "stopped" if "KeyboardInterrupt" in f"{self.reply.get('ename')} {self.reply.get('evalue')}" else "failed"

    def summary(self) -> dict[str, Any]:
        """What `%jobs` shows."""
        seconds = self._seconds if self._seconds is not None else time.monotonic() - self._started
        return {"name": self.name, "nodes": compact(self.run.nodes) if self.run else "", "state": self.state, "seconds": round(seconds, 1)}

    def start(self, run: Run) -> None:
        """Begin, and show it."""
        self.run = run
        self._view("display_data", self._picture())
        run.start()

    def end(self, reply: dict[str, Any]) -> None:
        """It has ended with this reply."""
        self.reply = reply
        self._seconds = time.monotonic() - self._started
        if self._redraw is not None:
            self._redraw.cancel()
        self._draw()
        self.done.set()

    def publish(self, kind: str, content: dict[str, Any], node: str | None) -> None:
        """Keep a message of ours."""
        self._keep(kind, content, node, len(str(content)))

    def forward(self, message: Message, node: str | None) -> None:
        """Keep a message of the kernel's."""
        self._keep(message, message.content, node, len(message.content_bytes))

    def ask(self, place: Place, message: Message) -> None:
        """Nobody is there to answer: such a cell may not ask, and the kernel knows."""

    def replay(self, output: Output) -> None:
        """Send what was kept to another cell, and bring the live view up to date for good."""
        for message, content, node in self._kept:
            if isinstance(message, Message):
                output.forward(message.copy(), node)
            else:
                output.publish(message, content, node)
        if self._dropped:
            text = f"[{self._dropped} later messages of {self.name} were not kept: its output is larger than {_KEPT // 2**20} MiB]\n"
            output.publish("stream", {"name": "stderr", "text": text}, None)
        # headless runners heed only what answers the cell that they run now
        output.publish("update_display_data", self._picture(), None)

    def _keep(self, message: Message | str, content: dict[str, Any], node: str | None, size: int) -> None:
        if self.cell.record is not None and message == "error":
            self.cell.record.output(node, "error", dump(content))
        kind = message.kind if isinstance(message, Message) else message
        if kind == "stream":
            self._tail = (self._tail + str(content.get("text", "")))[-_TAIL:]
        if self._size + size > _KEPT:
            self._dropped += 1
        else:
            self._size += size
            self._kept.append((message, content, node))
        if self._redraw is None and self.reply is None:
            self._redraw = asyncio.get_running_loop().call_later(_REDRAW, self._draw)

    def _draw(self) -> None:
        self._redraw = None
        self._view("update_display_data", self._picture())

    def _picture(self) -> dict[str, Any]:
        summary = self.summary()
        nodes = f" on {summary['nodes']}" if summary["nodes"] else ""
        title = f"{self.name} │ {summary['state']}{nodes}" + (f", {summary['seconds']} s" if self.reply is not None else "")
        coloured = self._tail.rstrip("\n")
        tail = plain(coloured)
        text = f"{title}\n{tail}" if tail else title
        markup = f"<b>{html.escape(self.name)}</b> {html.escape(title.partition('│ ')[2])}"
        if tail:
            markup += f"<pre>{to_html(coloured)}</pre>"
        return {
            "data": {"text/plain": text, "text/html": markup},
            "metadata": {"wardian": {"job": self.name}},
            "transient": {"display_id": f"wardian-job-{self.cell.request.id}"},
        }


class Jobs:
    """The jobs of this session, by name."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._count = 0

    def add(self, name: str | None, cell: Cell, view: Callable[[str, dict[str, Any]], None]) -> Job:
        """A new job. Raises JobError if a job of that name still runs."""
        if name is None:
            self._count += 1
            name = f"job{self._count}"
        if name in self._jobs and self._jobs[name].state == "running":
            remedy = f"wait for it (%wait {name}), stop it (%stop {name}), or name this one otherwise"
            raise JobError(f"a job named {name!r} is running", remedy=remedy)
        job = self._jobs[name] = Job(name, cell, view)
        return job

    def find(self, name: str) -> Job:
        """The job of that name. Raises JobError naming those that there are."""
        job = self._jobs.get(name)
        if job is None:
            raise JobError(f"there is no job named {name!r}", remedy=f"there are: {', '.join(self._jobs) or 'none'}")
        return job

    def running(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self._jobs.values() if job.reply is None]

    def summaries(self) -> list[dict[str, Any]]:
        """What `%jobs` shows of each."""
        return [job.summary() for job in self._jobs.values()]

    async def wait(self, name: str, timeout: float | None) -> Job:
        """The job once it has ended. Raises JobError when that takes longer than `timeout` seconds."""
        job = self.find(name)
        try:
            async with asyncio.timeout(timeout):
                await job.done.wait()
        except TimeoutError:
            raise JobError(f"{name} still runs after {timeout:g} s", remedy=f"wait longer, or stop it (%stop {name})") from None
        return job

    def stop(self, name: str) -> Job:
        """Interrupt a job."""
        job = self.find(name)
        if job.run is not None and job.reply is None:
            job.run.interrupt()
        return job
