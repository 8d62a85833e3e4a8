"""Starting kernels on nodes; what a Python kernel needs and the node's Python lacks is put beside it first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AgentError
from ..providers.base import Channel

if TYPE_CHECKING:
    from .wheels import Wheel

Note = Callable[[str], None]
"""Called with a line for whoever waits."""

# what arrives is put into a folder of its own and gets its name when it is whole; the lock is let go by the end of the process
UNPACK = """
import fcntl, hashlib, io, os, shutil, sys, zipfile
folder, key = sys.argv[1:]
target, part = os.path.join(folder, key), os.path.join(folder, ".new-" + key)
lock = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
if os.path.isdir(target):
    sys.exit(0)
for name in os.listdir(folder):
    if name.startswith(".new-"):
        shutil.rmtree(os.path.join(folder, name))
os.umask(0o022)
os.mkdir(part)
hashes = []
while True:
    words = sys.stdin.buffer.readline().split()
    if words == [b"end"]:
        break
    if len(words) != 2:
        sys.exit("it was cut short")
    data = sys.stdin.buffer.read(int(words[0]))
    hashes.append(words[1].decode())
    if hashlib.sha256(data).hexdigest() != hashes[-1]:
        sys.exit("it was damaged on the way")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            steps = entry.filename.split("/")
            if steps[0].endswith(".data"):
                steps = steps[2:] if steps[1:2] in (["purelib"], ["platlib"]) else []
            if entry.is_dir() or not steps:
                continue
            if any(step in ("", ".", "..") for step in steps):
                sys.exit("%r is no path within a package" % entry.filename)
            path = os.path.join(part, *steps)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(entry) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file)
if hashlib.sha256("\\n".join(sorted(hashes)).encode()).hexdigest()[:32] != key:
    sys.exit("it is not what was announced")
os.rename(part, target)
"""


class Link(Protocol):
    """What is needed of a `link.AgentLink`."""

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]: ...


class NoBashError(AgentError):
    """The node has no bash, so its agent has no shell to run."""


async def start_kernel(link: Link, channel: Channel, node: str, kernel: str, language: str, note: Note) -> dict[str, Any]:
    """Start a kernel unless it runs, and wait until it is ready; gives the agent's reply to `kernel.start`.

    kernel: its id. language: "python", "bash", or what a kernelspec of the node is called. note: told what takes its time.

    Raises NoBashError, or AgentError when the node has no such kernel, or its Python lacks what cannot be had here either.
    """
    arguments: dict[str, Any] = {"kernel": kernel, "language": language, "env": {}, "cwd": None}
    reply = await link.request("kernel.start", **arguments)
    if "needs" not in reply:
        return reply
    if "program" in reply["needs"]:
        raise NoBashError(node, "there is no bash", remedy="Install it there.")
    packages = await _provide(channel, node, reply["needs"], note)
    reply = await link.request("kernel.start", **arguments, packages=packages)
    if "needs" in reply:
        raise _unfit(node, reply["needs"], f"cannot run a kernel: {reply['needs'].get('error')}")
    return reply


async def _provide(channel: Channel, node: str, needs: Mapping[str, Any], note: Note) -> str:
    """See to it that the node has a folder with what its Python lacks, and give the folder's name."""
    # imported where it is needed: most nodes have everything, and a kernel starts sooner without
    from . import wheels
    from .wheels import Interpreter, Unavailable

    try:
        interpreter = Interpreter.read(needs)
        if interpreter.version < wheels.OLDEST:
            raise _unfit(node, needs, "is too old: cells need Python 3.8 or newer")
        found = await asyncio.to_thread(wheels.cached, interpreter)
        if found is None:
            note(f"fetching what a kernel for {_name(needs)} needs, once for all nodes that have it …\n")
            found = await asyncio.to_thread(wheels.fetch, interpreter)
    except Unavailable as error:
        remedy = f"Connect this machine to the internet once, or install it on the node: {needs.get('python')} -m pip install ipykernel."
        raise AgentError(node, f"{_name(needs)} has no ipykernel, and it cannot be fetched here: {error}", remedy=remedy) from None
    chosen = wheels.lacking(found, interpreter)
    key = wheels.digest(chosen)
    there = needs.get("there")
    if not isinstance(there, list) or key not in there:
        note(f"node {node}: adding what a Python kernel needs ({sum(wheel.size for wheel in chosen) / 1e6:.0f} MB) …\n")
        await _send(channel, node, interpreter.python, str(needs.get("folder")), key, chosen)
    return key


async def _send(channel: Channel, node: str, python: str, folder: str, key: str, chosen: Sequence[Wheel]) -> None:
    process = await channel.start([python, "-c", UNPACK, folder, key], stdout=asyncio.subprocess.DEVNULL)
    try:
        if process.stdin is None or process.stderr is None:
            raise ValueError("the process has to have its streams")
        said = asyncio.ensure_future(process.stderr.read())
        # where another has just put them there, the program reads nothing and ends well
        with suppress(BrokenPipeError, ConnectionResetError):
            for wheel in chosen:
                process.stdin.write(b"%d %s\n" % (wheel.size, wheel.sha256.encode()))
                process.stdin.write(await asyncio.to_thread(wheel.path.read_bytes))
                await process.stdin.drain()
            process.stdin.write(b"end\n")
            process.stdin.close()
        code = await process.wait()
        if code:
            reason = (await said).decode(errors="replace").strip().splitlines()[-1:]
            message = f"what a Python kernel needs could not be put into {folder}: {''.join(reason) or f'exit code {code}'}"
            raise AgentError(node, message, remedy="See to it that the folder can be written to and has room.")
    finally:
        await process.close()


def _unfit(node: str, needs: Mapping[str, Any], why: str) -> AgentError:
    return AgentError(node, f"{_name(needs)} {why}", remedy="Name another interpreter by `python:` of the node in the experiment file.")


def _name(needs: Mapping[str, Any]) -> str:
    version = ".".join(map(str, needs.get("version", ())))
    return f"Python {version} ({needs.get('python')})"
