"""Memory of nodes and of a notebook's kernel: proportional set sizes, so that shared pages count once in all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from wardian import aio
from wardian.nodes.link import AgentLink

from .ground import ground
from .kernels import kernel
from .mininet import mininet
from .results import Goal, Row, Table

NODES = 10


def measure(quick: bool) -> Table:
    """The same nodes idle, with agents, with bash and with Python kernels, one sample a node."""
    rows = []
    with mininet() as peer:
        theirs = peer.round(NODES)["memory"]
    with ground() as place, place.up(NODES) as folder:
        rows.append(Row("a node, idle", "MiB", _nodes(folder), peer.name, [theirs]))
        asyncio.run(_start_agents(folder))
        rows.append(Row("a node with its agent", "MiB", _nodes(folder)))
        with kernel("python3", folder) as plain, kernel("wardian", folder) as wardian:
            plain.run("pass")
            wardian.run("pass")
            python = [sum(map(_size, _family(plain.pid)))]
            ours = [sum(map(_size, _family(wardian.pid)))]
            before = _size(wardian.pid)
            wardian.run("%%on all --lang bash\n:")
            rows.append(Row("a node with its agent and a bash kernel", "MiB", _nodes(folder)))
            wardian.run("%%on all\npass")
            bound = max(_size(wardian.pid) - before, 0) / NODES
            rows.append(Row("a node with its agent, bash and Python kernels", "MiB", _nodes(folder), "ipykernel", python))
            rows.append(Row("a notebook's router and home", "MiB", ours, "ipykernel", python))
            rows.append(Row("here, for each node that the notebook is bound to", "MiB", [bound], goal=Goal(2.0 * 2**20)))
    note = f"Of {NODES} nodes; pages that processes share are divided among them. What the kernel itself holds of a namespace is not in it."
    return Table("memory", "memory of processes", note, rows)


async def _start_agents(folder: Path) -> None:
    live = await aio.find(folder / "experiment.yaml")
    for node, channel in live.channels(live.nodes).items():
        link = await AgentLink.open(channel, node)
        await link.close()


def _nodes(folder: Path) -> list[float]:
    """Bytes of each node of the environment: of all processes in its PID namespace."""
    state = os.environ["WARDIAN_STATE"].encode()
    here = os.readlink("/proc/self/ns/pid")
    spaces: dict[str, list[int]] = {}
    ours = set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            space = os.readlink(f"/proc/{pid}/ns/pid")
            spaces.setdefault(space, []).append(pid)
            if state in Path(f"/proc/{pid}/environ").read_bytes():
                ours.add(space)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    sizes = [float(sum(map(_size, spaces[space]))) for space in ours - {here}]
    if len(sizes) != NODES:
        raise RuntimeError(f"{len(sizes)} nodes were found in {folder}, not {NODES}")
    return sizes


def _family(pid: int) -> list[int]:
    """A process and all that descend from it, of our own PID namespace."""
    members = [pid]
    for member in members:
        for thread in Path(f"/proc/{member}/task").iterdir():
            members += map(int, (thread / "children").read_text().split())
    return members


def _size(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
