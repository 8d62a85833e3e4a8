"""`setup:` as a layer: its script runs once, on a build node with the host's network, and what it wrote is kept for all nodes like it."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ProviderError
from ..images.store import Store, cleared, making
from . import images, processes, skeleton
from .channel import LocalChannel
from .internet import resolver
from .mounts import layer_name
from .spawner import spawn
from .state import State

TAIL = 20
"""Lines of a failing script's output that its error shows."""

_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


class Stop:
    """Says from one thread to another that work shall end early."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self.is_set = False

    def set(self) -> None:
        with self._lock:
            self.is_set = True
            for callback in self._callbacks:
                callback()

    @contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have `callback` called, in whatever thread, if it is set meanwhile or was before."""
        with self._lock:
            self._callbacks.append(callback)
            if self.is_set:
                callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


class Builder:
    """Builds the layers that nodes of one environment need.

    variables: those of the spawner. report: told about each line of output, as the state of the node it is for.
    """

    def __init__(self, state: State, given: Mapping[str, str], report: Callable[[str, str], None], stop: Stop) -> None:
        self._state = state
        self._given = given
        self._report = report
        self._stop = stop

    def layer(self, node: str, base: str, identity: str, script: str, env: Mapping[str, str], groups: Iterable[Mapping[str, Any]]) -> Path:
        """The folder of the layer, made if it is not there. Raises ProviderError with the end of the output when the script fails."""
        target = images.layer_path(self._state.root, identity, script)
        with making(target) as part:
            if part is not None:
                part.mkdir(mode=0o700)
                self._build(node, part, base, script, env, groups)
                for name in _FILES:
                    (part / "upper" / layer_name("/") / name).unlink(missing_ok=True)
                (part / "upper").rename(target)
        return target

    def _build(self, node: str, part: Path, base: str, script: str, env: Mapping[str, str], groups: Iterable[Mapping[str, Any]]) -> None:
        child: dict[str, Any] = {
            "key": f"node {node}",
            "kind": "node",
            "directory": str(part),
            "hostname": "setup",
            "base": base,
            "layers": skeleton.layers(self._state.root, base),
            "hidden": [str(self._state.root)],
            "shown": [],
            "host_network": True,
            "sysctls": {},
            "cgroups": list(groups),
            "env": {**env, "HOSTNAME": "setup", "DEBIAN_FRONTEND": "noninteractive"},
            "files": {
                "/etc/hosts": "127.0.0.1 localhost setup\n::1 localhost\n",
                "/etc/hostname": "setup\n",
                "/etc/resolv.conf": resolver(),
            },
        }
        self._report(node, "running setup")
        pids: set[int] = set()
        try:
            failures = spawn(self._given, [child], self._state.held, lambda answers: pids.update(answer["pid"] for answer in answers))
            if failures:
                raise ProviderError(failures[child["key"]], resource=f"node {node}")
            code, tail = asyncio.run(self._run(node, part, script))
        finally:
            processes.end(pids)
        if self._stop.is_set:
            raise ProviderError("setup was interrupted", resource=f"node {node}")
        if code:
            (self._state.root / "logs").mkdir(exist_ok=True, mode=0o700)
            log = self._state.root / "logs" / "setup.log"
            (part / "setup.log").replace(log)
            shown = "".join(f"\n    {line}" for line in tail)
            said = f"setup ended with exit code {code}; its last lines:{shown}"
            raise ProviderError(said, resource=f"node {node}", remedy=f"All of its output is in {log}.")

    async def _run(self, node: str, part: Path, script: str) -> tuple[int, list[str]]:
        process = await LocalChannel(node, part).start(
            ["/bin/sh", "-e", "-c", script], stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.STDOUT
        )
        tail: deque[str] = deque(maxlen=TAIL)
        loop = asyncio.get_running_loop()
        kill = functools.partial(loop.call_soon_threadsafe, process.kill)
        try:
            with open(part / "setup.log", "wb") as log, self._stop.calling(kill):
                while process.stdout is not None and (chunk := await process.stdout.read(1 << 16)):
                    log.write(chunk)
                    lines = [line for line in chunk.decode(errors="replace").splitlines() if line.strip()]
                    tail.extend(lines)
                    if lines:
                        self._report(node, f"setup: {lines[-1][:200]}")
            return await process.wait(), list(tail)
        finally:
            await process.close()


def forget_unfinished(state: State) -> list[str]:
    """Remove what interrupted builds left; one line for each."""
    return [*["an unfinished layer"] * cleared(state.root / "layers"), *Store().unfinished()]
