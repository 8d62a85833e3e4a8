"""Mininet in a process of its own, because it needs the system's Python, where Debian puts it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("mininet_peer.py")
PYTHON = ["/usr/bin/python3", "-I"]
"""Isolated, or the modules beside the script, this one first, would stand before those of the same name that are installed."""


class Mininet:
    """A process that grows a network, uses it and removes it each time it is told to."""

    def __init__(self, process: subprocess.Popen[str], version: str) -> None:
        self._process = process
        self.name = f"Mininet {version}"

    def round(self, nodes: int) -> dict[str, float]:
        """Grow `nodes` hosts, run a command on all, stop: {"up", "command", "down": seconds, "memory": bytes a host}."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both streams were asked for as pipes")
        self._process.stdin.write(f"{nodes}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Mininet ended with code {self._process.wait()}; does `mn --switch lxbr --controller none` work?")
        result: dict[str, float] = json.loads(line)
        return result


@contextmanager
def mininet() -> Iterator[Mininet]:
    """Mininet, imported and waiting. Raises RuntimeError when it is not installed."""
    if missing := [tool for tool in ("mn", "brctl") if shutil.which(tool) is None]:
        raise RuntimeError(f"{' and '.join(missing)} not found: apt-get install --no-install-recommends mininet bridge-utils")
    version = subprocess.run(command("--version"), check=True, capture_output=True, text=True)
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen([*PYTHON, str(SCRIPT)], stdin=pipe, stdout=pipe, stderr=null, text=True) as process:
        try:
            yield Mininet(process, (version.stdout + version.stderr).strip())
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


def command(*arguments: str) -> list[str]:
    """The `mn` command."""
    return [*PYTHON, str(shutil.which("mn")), *arguments]
