"""Processes started by a node's own process 1 (`init.py`), which is much quicker than having the Engine start them: a few milliseconds in
place of some thirty. It is there where the node has Python, and reached where the node is one of this machine's and we are root.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import CommandError, NodeDownError
from ..local.channel import answer_of
from ..local.kernel import is_running
from ..local.state import read_json
from .init import SOCKET

PATIENCE = 0.5
"""Seconds until a node that does not answer is taken for one that stands still."""


async def connection(node: str, process: Path) -> socket.socket | None:
    """A connection to the init of a node, whose identity is written down in a file; None where another way has to do."""
    identity = read_json(process)
    if identity is None or not is_running(identity):
        return None
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE: a command's arguments travel in one packet
        made.connect(f"/proc/{identity['pid']}/root{SOCKET}")
        # what runs on the node can put anything at that path
        if _listener(made) == identity["pid"]:
            async with asyncio.timeout(PATIENCE):
                await answer_of(node, made)
            return made
    except (OSError, NodeDownError):
        pass
    except BaseException:
        made.close()
        raise
    made.close()
    return None


def request(node: str, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, terminal: tuple[int, int] | None) -> bytes:
    """What an init is told, see `init.py`. Raises CommandError for what no process can be given."""
    rows, columns = terminal or ("", "")
    variables = [f"{name}={value}" for name, value in env.items()]
    fields = [str(rows), str(columns), "0" if cwd is None else "1", cwd or "", str(len(variables)), *variables, *argv]
    if any("\0" in field for field in fields):
        raise CommandError(node, f"{argv[0]!r} cannot be executed: what it is given has a zero byte")
    return b"".join(os.fsencode(field) + b"\0" for field in fields)


def _listener(made: socket.socket) -> int:
    """The number, here, of the process that listens where a connection leads."""
    return int.from_bytes(made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
