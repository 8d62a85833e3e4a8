"""Carrying a sweep out: each run a process of its own in an environment of its own, what is done kept in a folder."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...errors import RunError
from .grid import Point

MANIFEST = "sweep.json"
_MAIN = "from wardian.cli import main; main()"
_SAME = ("notebook", "notebook_sha256", "experiment_sha256", "provider")
"""Of the manifest, what has to be as it was for a folder's runs to count."""


class Progress(Protocol):
    """Who is told how a sweep goes on."""

    def started(self, point: Point) -> None:
        """A run begins."""
        ...

    def said(self, point: Point, line: str) -> None:
        """What a run does now."""
        ...

    def ended(self, run: Run) -> None:
        """A run ended."""
        ...


@dataclass
class Run:
    """One run that ended.

    status: "ok", "failed" or "cancelled". started: seconds since the epoch; seconds: how long all of it took. run: its id in the journal.
    notebook: as it was run, in the sweep's folder. files: all that it wrote. doubts: why its numbers are in doubt.
    """

    parameters: dict[str, str]
    repeat: int
    status: str
    started: float
    seconds: float
    run: str | None = None
    error: str | None = None
    notebook: str | None = None
    files: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def in_doubt(self) -> bool:
        """Whether its numbers are."""
        return bool(self.doubts)


class Sweep:
    """A sweep over a notebook, whose results are in `folder`.

    experiment: the experiment file. arguments: for every `wardian run`. Runs of earlier calls in this folder that succeeded count, as
    long as notebook, experiment file and provider are as they were; failed ones are run again.
    """

    def __init__(
        self,
        notebook: Path,
        experiment: Path,
        folder: Path,
        points: Sequence[Point],
        *,
        provider: str | None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.notebook, self.experiment, self.folder = notebook.resolve(), experiment.resolve(), folder.resolve()
        self.points = list(points)
        self.arguments = [*(["--provider", provider] if provider else []), *arguments]
        self._manifest = {
            "notebook": str(self.notebook),
            "notebook_sha256": _digest(self.notebook),
            "experiment": str(self.experiment),
            "experiment_sha256": _digest(self.experiment),
            "provider": provider,
        }

    def open(self) -> None:
        """Make the folder, or take up what is in it. Raises RunError when that is of another sweep."""
        path = self.folder / MANIFEST
        if path.exists():
            there = json.loads(path.read_text())
            if changed := [name.removesuffix("_sha256") for name in _SAME if there.get(name) != self._manifest[name]]:
                raise RunError(
                    f"{self.folder}: the runs in it are of another {' and another '.join(dict.fromkeys(changed))}",
                    remedy="choose another folder with -o, or say --fresh to run all of it again",
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(path, self._manifest)

    def forget(self) -> None:
        """Have all of it run again; what earlier runs left is overwritten when they are."""
        for path in [*self.folder.glob("runs/*/run.json"), self.folder / MANIFEST]:
            path.unlink(missing_ok=True)

    def done(self) -> dict[Point, Run]:
        """The runs that have ended, also those that failed."""
        found = {point: self._place(point) / "run.json" for point in self.points}
        return {point: Run(**json.loads(path.read_text())) for point, path in found.items() if path.exists()}

    async def run(self, progress: Progress, *, jobs: int = 1, fail_fast: bool = False) -> list[Run]:
        """Run what has not succeeded yet, `jobs` at once; gives all runs in order.

        fail_fast: begin nothing after a run has failed. A cancellation interrupts the runs under way, which tear their environments down.
        """
        done = self.done()
        left = [point for point in self.points if point not in done or done[point].status != "ok"][::-1]
        failed = False

        async def work() -> None:
            nonlocal failed
            while left and not (failed and fail_fast):
                point = left.pop()
                done[point] = ended = await self._run(point, progress)
                failed |= ended.status != "ok"

        async with asyncio.TaskGroup() as group:
            for _ in range(min(jobs, len(left))):
                group.create_task(work())
        return [done[point] for point in self.points if point in done]

    async def _run(self, point: Point, progress: Progress) -> Run:
        place = self._place(point)
        place.mkdir(parents=True, exist_ok=True)
        async with _held(place / "lock", lambda: progress.said(point, "waits for a run of an earlier sweep that goes on")) as lock:
            (place / "run.json").unlink(missing_ok=True)
            progress.started(point)
            begun, clock = time.time(), time.monotonic()
            output = place / self.notebook.name
            output.unlink(missing_ok=True)
            code, printed, last = await self._process(point, output, lock, progress)
            told: dict[str, Any] = json.loads(printed) if code == 0 else {}
            ended = Run(
                parameters=dict(point.parameters),
                repeat=point.repeat,
                status={0: "ok", 130: "cancelled"}.get(code, "failed"),
                started=begun,
                seconds=time.monotonic() - clock,
                error=None if code == 0 else last or f"exit code {code}",
                notebook=str(output.relative_to(self.folder)) if output.exists() else None,
                **{name: told[name] for name in ("run", "files", "doubts") if name in told},
            )
            _write(place / "run.json", asdict(ended))
        progress.ended(ended)
        return ended

    async def _process(self, point: Point, output: Path, lock: int, progress: Progress) -> tuple[int, bytes, str]:
        """Its exit code, what it printed, and the last error it told of."""
        given = [word for name, value in point.parameters for word in ("-p", f"{name}={value}")]
        words = ["run", str(self.notebook), "-f", str(self.experiment), "-e", self.instance(point), "-o", str(output), "--json"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, *words, *self.arguments, *given),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            # the lock ends with whoever holds it: with the run, and not with us
            pass_fds=(lock,),
            # Ctrl-C is ours to pass on
            start_new_session=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        reading = asyncio.ensure_future(self._read(process, point, output.with_name("log.txt"), progress))
        try:
            printed, last = await asyncio.shield(reading)
        except asyncio.CancelledError:
            process.send_signal(signal.SIGINT)
            await reading
            await process.wait()
            raise
        return await process.wait(), printed, last

    async def _read(self, process: asyncio.subprocess.Process, point: Point, log: Path, progress: Progress) -> tuple[bytes, str]:
        assert process.stdout is not None  # noqa: S101 (started with pipes)
        assert process.stderr is not None  # noqa: S101 (started with pipes)
        printing = asyncio.ensure_future(process.stdout.read())
        last = ""
        with log.open("wb") as file:
            while line := await process.stderr.readline():
                file.write(line)
                file.flush()
                text = line.decode(errors="replace").strip()
                last = text.removeprefix("error: ") if text.startswith("error: ") else last
                progress.said(point, text)
        return await printing, last

    def instance(self, point: Point) -> str:
        """The name of a run's environment, the same whenever it is run."""
        return "sweep-" + hashlib.sha256(f"{self.folder}\0{point.key}".encode()).hexdigest()[:10]

    def _place(self, point: Point) -> Path:
        return self.folder / "runs" / point.key


@asynccontextmanager
async def _held(path: Path, waits: Callable[[], None]) -> AsyncIterator[int]:
    """A lock file's descriptor, held; `waits` is called where another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            await _locked(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


async def _locked(descriptor: int) -> None:
    """Wait for a lock, in a thread that nobody has to wait for."""
    loop = asyncio.get_running_loop()
    got: asyncio.Future[None] = loop.create_future()

    def wait() -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if got.cancelled() else got.set_result(None))

    threading.Thread(target=wait, daemon=True).start()
    await got


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, value: Any) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    beside.replace(path)
