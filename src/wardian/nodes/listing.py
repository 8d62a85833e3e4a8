"""What is in a folder of a node, and a file of it as a stream. The node needs no more than a POSIX shell with stat, wc and head."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import TransferError
from .run import run

if TYPE_CHECKING:
    from ..providers.base import Channel

MOST = 5000
"""How many entries of a folder are listed."""

_CHUNK = 1 << 18

# Names end with NUL and may hold anything else; the lines of stat come in the same order, with none in them.
LIST = """
cd -- "$1" && pwd || exit
most=$2
set --
for name in * .[!.]* ..?*; do
  [ $# -lt "$most" ] || { echo more >&2; break; }
  if [ -e "$name" ] || [ -L "$name" ]; then set -- "$@" "./$name"; fi
done
[ $# -gt 0 ] || exit 0
printf '%s\\0' "$@"
stat -c '%f %s %Y' -- "$@"
"""

READ = """
if [ -d "$1" ]; then echo "$1: is a folder" >&2; exit 1; fi
if [ ! -e "$1" ]; then echo "$1: no such file, or no permission to reach it" >&2; exit 1; fi
if [ ! -f "$1" ]; then echo "$1: is no file" >&2; exit 1; fi
exec < "$1" || exit 1
size=$(stat -L -c %s -- "$1") && echo "$size" && exec head -c "$size"
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a folder. kind: "file", "folder", "link" or "other"; size: bytes; changed: seconds since the epoch."""

    name: str
    kind: str
    size: int
    changed: float
    mode: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder. path: where it is, absolute; whole: whether it has no more than `items`."""

    path: str
    items: tuple[Item, ...]
    whole: bool


async def entries(channel: Channel, node: str, path: str, most: int = MOST) -> Listing:
    """What is in a folder of a node; a path without a leading slash starts at the home directory. Raises TransferError, NodeDownError."""
    result = await run(channel, node, ["sh", "-c", LIST, "sh", path or ".", str(most)], timeout=30)
    where, _, rest = result.stdout.partition("\n")
    if not result.ok or not where:
        raise TransferError(node, _said(result.stderr) or f"cannot list {path}")
    *names, lines = rest.split("\0")
    facts = [line.split() for line in lines.splitlines()]
    if len(facts) != len(names):
        raise TransferError(node, f"{path} changed while it was read", remedy="try again")
    items = tuple(
        Item(name[2:], _kind(int(mode, 16)), int(size), float(changed), stat.S_IMODE(int(mode, 16)))
        for name, (mode, size, changed) in zip(names, facts, strict=True)
    )
    return Listing(where, tuple(sorted(items, key=lambda item: (item.kind != "folder", item.name))), "more" not in result.stderr.split())


@asynccontextmanager
async def reading(channel: Channel, node: str, path: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """A file of a node as (its size, its content as it comes): just so many bytes, also where it grows meanwhile.

    Raises TransferError, also from the content where the file ends early; NodeDownError.
    """
    process = await channel.start(["sh", "-c", READ, "sh", path if path.startswith("/") else f"./{path}"], stdin=asyncio.subprocess.DEVNULL)
    try:
        if process.stdout is None or process.stderr is None:
            raise ValueError("the process has to have its streams")
        first = await process.stdout.readline()
        if not first:
            raise TransferError(node, _said((await process.stderr.read(4096)).decode(errors="replace")) or f"cannot read {path}")
        size = int(first)
        yield size, _content(process.stdout, node, path, size)
    finally:
        await process.close()


async def _content(stream: asyncio.StreamReader, node: str, path: str, left: int) -> AsyncIterator[bytes]:
    while left:
        chunk = await stream.read(min(left, _CHUNK))
        if not chunk:
            raise TransferError(node, f"{path} ended {left} bytes early")
        left -= len(chunk)
        yield chunk


def _said(text: str) -> str:
    """The last line of what a shell said, without the shell's own name before it."""
    last = text.strip().rpartition("\n")[2]
    return last.removeprefix("sh: ").strip()


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "link" if stat.S_ISLNK(mode) else "other"
