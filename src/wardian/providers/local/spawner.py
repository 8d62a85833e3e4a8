"""Starts the spawner (`spawn.py`) and follows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from ...errors import ProviderError

# The spawner imports this folder under a name of its own: so nothing of Wardian or its libraries is loaded into a node's init.
_BOOT = (
    "import sys, types; package = types.ModuleType('spawner'); package.__path__ = [sys.argv[1]]; "
    "sys.modules['spawner'] = package; from spawner.spawn import main; main()"
)


def spawn(
    variables: Mapping[str, str],
    children: Iterable[Mapping[str, Any]],
    locks: Iterable[int],
    ready: Callable[[list[dict[str, Any]]], None],
) -> dict[str, str]:
    """Have processes made that outlive this one, see `spawn.py`.

    variables: those of the spawner and all its children, see `processes.variables`.
    locks: descriptors that the spawner holds open until it is done.
    ready: called with the answers {"key", "pid", "start", "boot"} of those that got ready, as many at once as there are.

    Gives {key: reason} of those that failed.
    """
    path = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=variables,
        pass_fds=tuple(locks),
        start_new_session=True,
    )
    failures: dict[str, str] = {}
    with process, _pipe(process.stdin) as stdin, _pipe(process.stdout) as stdout, _pipe(process.stderr) as stderr:
        try:
            stdin.write(json.dumps({"children": [dict(child) for child in children]}).encode())
            stdin.close()
        except BrokenPipeError:
            pass
        rest = b""
        while chunk := os.read(stdout.fileno(), 1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            answers = [json.loads(line) for line in lines]
            failures |= {answer["key"]: answer["error"] for answer in answers if "error" in answer}
            made = [answer for answer in answers if "error" not in answer]
            if made:
                ready(made)
        complaint = stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise ProviderError(f"making namespaces failed: {complaint.splitlines()[-1] if complaint else f'code {process.returncode}'}")
    return failures


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise AssertionError("every stream was asked for as a pipe")
    return stream
