"""What hosts use and carry, by what their kernels count for anybody: the whole host's, whoever it is that uses it."""

from __future__ import annotations

from collections.abc import Mapping

from ..base import Usage
from ..local.traffic import counters_in
from .hosts import each
from .index import Entry
from .refusals import HostError
from .remote import run

_USED = """
getconf CLK_TCK 2>/dev/null || echo 100
head -n 1 /proc/stat
cat /proc/meminfo
"""
"""How many parts a second of processor time has, its sums, and memory."""

_CARRIED = """
while [ $# -gt 1 ]; do
  echo "$1" "$(ip route get "$2" 2>/dev/null | head -n 1)"
  shift 2
done
cat /proc/net/dev
"""
"""Pairs of a network and an address there. A line for each with the way there, as ip(8) says it, and the counters of all interfaces."""

_IDLE = (3, 4, 8, 9)
"""The sums of proc_stat(5) that are no work: idle, iowait, and those of guests, which others contain."""


async def used(entry: Entry) -> dict[str, Usage]:
    """What the hosts that answer use, by node."""
    nodes = list(entry.nodes)
    answers = await each(nodes, lambda node: run(entry.nodes[node].host, _USED))
    return {
        node: _usage(answer.output.splitlines())
        for node, answer in zip(nodes, answers, strict=True)
        if not isinstance(answer, HostError) and answer.code == 0
    }


async def carried(entry: Entry) -> dict[str, dict[str, int]]:
    """Bytes by access link and way, as `Provider.traffic` says: those of the interface by which a host reaches a network's other nodes.

    Nothing where it reaches two networks by one interface, for nobody knows which of them a packet is for.
    """
    wanted = {node: ways for node in entry.nodes if (ways := _neighbours(entry, node))}
    answers = await each(
        wanted, lambda node: run(entry.nodes[node].host, _CARRIED, *(word for way in wanted[node].items() for word in way))
    )
    found: dict[str, dict[str, int]] = {}
    for (node, ways), answer in zip(wanted.items(), answers, strict=True):
        if isinstance(answer, HostError) or answer.code:
            continue
        lines = answer.output.splitlines()
        leads = {network: interface for line in lines[: len(ways)] if (interface := _interface(line)) for network in line.split()[:1]}
        counters = counters_in(lines[len(ways) :])
        for network, interface in leads.items():
            if list(leads.values()).count(interface) == 1 and interface in counters:
                received, sent = counters[interface]
                found[f"{node}/{network}"] = {"up": sent, "down": received}
    return found


def _neighbours(entry: Entry, node: str) -> Mapping[str, str]:
    """{network: an address of another node in it}; of any other node, where nobody else is in the only one."""
    own = {part["network"] for part in entry.nodes[node].spec.get("interfaces", ())}
    inside: dict[str, str] = {}
    outside: dict[str, str] = {}
    for other, placed in entry.nodes.items():
        for part in placed.spec.get("interfaces", ()) if other != node else ():
            address = part["address"].partition("/")[0] if placed.wired else placed.address
            if address and part["network"] in own:
                inside.setdefault(part["network"], address)
            elif address and len(own) == 1:
                outside = dict.fromkeys(own, address)
    return outside | inside


def _interface(line: str) -> str | None:
    words = line.split()
    name = words[words.index("dev") + 1] if "dev" in words[:-1] else None
    return None if name == "lo" else name


def _usage(lines: list[str]) -> Usage:
    parts, (_, *sums) = int(lines[0]), lines[1].split()
    memory = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines[2:])}
    busy = sum(int(value) for place, value in enumerate(sums) if place not in _IDLE)
    return Usage(busy / parts, memory["MemTotal"] - memory.get("MemAvailable", memory["MemFree"]))
