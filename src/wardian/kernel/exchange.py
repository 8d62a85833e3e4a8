"""Moves values between nodes' kernels and files at home: a kernel writes or reads a file on its node, the channel carries it."""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import NodeDownError, TransferError
from ..providers.base import Channel, Process
from .places import Place
from .reach import Reach

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_CHUNK = 2**20
_FOLDER = """
for folder in "${WARDIAN_RUN_DIR:-/run/wardian}/values" "/tmp/wardian-values-$(id -u)"; do
    mkdir -p "$folder" 2>/dev/null && [ -O "$folder" ] && chmod 700 "$folder" && echo "$folder" && exit
done
exit 1
"""
_FETCH = 'cat -- "$1" && rm -f -- "$1"'
_STORE = 'umask 077 && cat > "$1"'


class Exchange:
    """Values to and from the kernels of nodes. folder: where they arrive, private to us."""

    def __init__(self, reach: Reach, folder: Path) -> None:
        self._reach = reach
        self._folder = folder
        self._folders: dict[str, str] = {}
        self._codec = files("wardian.kernel").joinpath("values.py").read_text()

    async def get(self, place: Place, name: str) -> dict[str, Any]:
        """Bring the variable `name` of a place home: {"path", "text"}; text says that it is text and no value file. Raises NodeError."""
        if place.language == "bash":
            return await self._get(place, f'if [ -z "${{{name}+x}}" ]; then (exit 3); else printf %s "${name}" > PATH; fi', name)
        return await self._get(place, self._python("dump", f"get_ipython().user_ns[{name!r}], PATH"), name)

    async def result(self, place: Place, number: int) -> dict[str, Any]:
        """Bring a Python kernel's `Out[number]` home, None where there is none."""
        return await self._get(place, self._python("dump", f'get_ipython().user_ns["Out"].get({number}), PATH'), f"Out[{number}]")

    async def put(self, place: Place, name: str, path: Path) -> None:
        """Make the value in a file at home the variable `name` of a place. For bash the file is plain text. Raises NodeError."""
        remote = await self._path(place.name)
        await self._store(place.name, path, remote)
        try:
            if place.language == "bash":
                # The x keeps the line ends that $( ) would take away.
                code = f"{name}=$(cat {_quoted(remote)}; printf x) && {name}=${{{name}%x}}"
            else:
                code = f"get_ipython().user_ns[{name!r}] = " + self._python("load", repr(remote))
            await self._run(place, code, name)
        finally:
            with suppress(NodeDownError):
                await self._command(place.name, 'rm -f -- "$1"', remote)

    async def _get(self, place: Place, code: str, name: str) -> dict[str, Any]:
        remote = await self._path(place.name)
        quoted = _quoted(remote) if place.language == "bash" else repr(remote)
        await self._run(place, code.replace("PATH", quoted), name)
        path = self._folder / secrets.token_hex(8)
        process = await self._start(place.name, _FETCH, remote)
        try:
            with path.open("xb") as file:
                while process.stdout and (chunk := await process.stdout.read(_CHUNK)):
                    file.write(chunk)
            await self._ended(place.name, process, f"cannot read {name}")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            await process.close()
        return {"path": str(path), "text": place.language == "bash"}

    async def _store(self, node: str, path: Path, remote: str) -> None:
        process = await self._start(node, _STORE, remote)
        try:
            if process.stdin:
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        process.stdin.write(chunk)
                        await process.stdin.drain()
                process.stdin.close()
            await self._ended(node, process, "cannot store a value")
        except ConnectionError:
            await self._ended(node, process, "cannot store a value")
            raise TransferError(node, "cannot store a value: the node closed the stream") from None
        finally:
            await process.close()

    async def _run(self, place: Place, code: str, name: str) -> None:
        reply = await self._reach.execute(place, code)
        if reply.get("status") == "ok":
            return
        kind, reason = reply.get("ename"), reply.get("evalue", "")
        if kind == "KeyError" or (place.language == "bash" and reason == "3"):
            message = f"there is no variable {name!r} in its {place.language} kernel"
            raise TransferError(place.name, message, remedy="set it in a cell bound there")
        raise TransferError(place.name, f"{name}: {reason}" if kind == "UnmovableValue" else f"{name}: {kind}: {reason}")

    def _python(self, function: str, arguments: str) -> str:
        return f'(lambda codec: (exec({self._codec!r}, codec), codec[{function!r}]({arguments}))[1])({{"__name__": "wardian_values"}})'

    async def _path(self, node: str) -> str:
        if node not in self._folders:
            process = await self._start(node, _FOLDER)
            try:
                folder = (await process.stdout.read()).decode().strip() if process.stdout else ""
                await self._ended(node, process, "there is no folder for values")
            finally:
                await process.close()
            self._folders[node] = folder
        return f"{self._folders[node]}/{secrets.token_hex(8)}"

    async def _command(self, node: str, script: str, *arguments: str) -> None:
        process = await self._start(node, script, *arguments)
        try:
            await process.wait()
        finally:
            await process.close()

    async def _start(self, node: str, script: str, *arguments: str) -> Process:
        channel: Channel = await self._reach.channel(node)
        return await channel.start(["/bin/sh", "-c", script, "sh", *arguments], stderr=asyncio.subprocess.DEVNULL)

    async def _ended(self, node: str, process: Process, what: str) -> None:
        code = await process.wait()
        if code != 0:
            raise TransferError(node, f"{what}: exit code {code}", remedy="see whether the node's disk is full: `df -h /run /tmp`")


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
