"""Traffic control on hosts: what each can, what stands there, and bringing it to what is wanted.

What was on an interface before is written down in the node's folder (`SHAPED`) before anything is changed there, so that whoever
comes next can put it back.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ProviderError
from ..local import netlink
from . import netlink_program, traffic
from .command import CACHE
from .inventory import Host
from .remote import run
from .routes import Way
from .traffic import Spared, Standing

SHAPED = "shaped"
"""File in a node's folder, one line: {interface: {"kind", "handle", "options"} of its root before, or null for the kernel's own choice}."""

_LOOPBACK = 1
_LEAVES = {
    "tbf": netlink.tbf(1e6, burst=10000, limit=10000),
    "netem": netlink.netem(limit=10, delay=0.001),
    "codel": netlink.managed(10),
    "fq_codel": netlink.managed(10),
    "pie": netlink.managed(10),
}
_TRIES = [
    netlink.qdisc(_LOOPBACK, "htb", netlink.htb(), handle=0x10000),
    netlink.traffic_class(_LOOPBACK, "htb", netlink.htb_class(1e6), handle=0x10001, parent=0x10000),
    netlink.classify(_LOOPBACK, 0x10000, netlink.Filter(socket.AF_INET, 1, ((0, 0xFFFFFFFF, 16),), 0x10001)),
    *(item for kind, options in _LEAVES.items() for item in (netlink.remove_qdisc(_LOOPBACK), netlink.qdisc(_LOOPBACK, kind, options))),
    netlink.remove_qdisc(_LOOPBACK),
    netlink.qdisc(_LOOPBACK, "htb", netlink.htb(), handle=0x10000),
    *(netlink.traffic_class(_LOOPBACK, "htb", netlink.htb_class(1e6), handle=0x10000 + number, parent=0x10000) for number in (1, 2)),
    netlink.qdisc(_LOOPBACK, "netem", _LEAVES["netem"], handle=0x20000, parent=0x10001),
    netlink.qdisc(_LOOPBACK, "netem", netlink.netem(limit=10, duplicate=0.5), handle=0x30000, parent=0x10002),
]
"""Tried where nobody sees it: a class with a filter, each other discipline in its place, and one netem that duplicates beside another."""

_PROGRAM = Path(netlink_program.__file__)
_NO_PYTHON, _NO_RIGHTS = 7, 8

_SCRIPT = f"""
command -v "$2" >/dev/null 2>&1 || exit {_NO_PYTHON}
s=
if [ "$(id -u)" != 0 ]; then sudo -n true </dev/null >/dev/null 2>&1 || exit {_NO_RIGHTS}; s="sudo -n"; fi
echo "${{SSH_CONNECTION:-}}"
exec $s "$2" -I -S -c "$1" "$HOME/{CACHE}"
"""


class CannotError(Exception):
    """This host lets nobody of us control its traffic, for the reason given."""


@dataclass(frozen=True, slots=True)
class Look:
    """A host's traffic control. able: disciplines that its kernel has; empty where it lets us control nothing, for the `reason`.

    interfaces: {name: what is on it}, of those that lead to the addresses asked for or are shaped; leads: {address: name of its interface}.
    before: what is written down of them, in the folder `place`. ssh: our connection to it.
    """

    place: str
    able: frozenset[str] = frozenset()
    reason: str = ""
    interfaces: Mapping[str, Standing] = field(default_factory=dict)
    leads: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    ssh: tuple[Spared, ...] = ()

    def by_interface(self, wanted: Mapping[str, Way]) -> dict[str, dict[str, Way]]:
        """{interface: {address: what happens to what is sent there}}, as far as that can be had."""
        result: dict[str, dict[str, Way]] = {}
        for address, way in wanted.items():
            if address in self.leads and (possible := traffic.possible(way.shape, self.able)):
                result.setdefault(self.leads[address], {})[address] = Way(possible, way.over)
        return {name: ways for name, those in result.items() if (ways := traffic.compatible(those, self.able))}


async def look(host: Host, place: str, addresses: Collection[str] = (), able: frozenset[str] | None = None) -> Look:
    """What stands on a host. place: folder of its node below CACHE. able: what its kernel has, where that is known. Raises HostError."""
    steps: list[Any] = [["read", f"{place}/{SHAPED}"], ["try", _sent(_TRIES) if able is None else []]]
    steps += [_dump(netlink.asking_links()), _dump(netlink.asking_qdiscs()), ["filters", traffic.ROOT]]
    for address in addresses:
        kind, body = netlink.asking_route(ipaddress.ip_address(address).packed)
        steps.append(["ask", kind, 0, body.hex()])
    try:
        ssh, (text, tried, listed, standing, filters, *ways) = await _perform(host, steps)
        if able is None:
            able = _able([number for number, _ in tried])
        links = {link.index: link for link in (netlink.link_of(bytes.fromhex(body)) for body in listed)}
        qdiscs = [netlink.qdisc_of(bytes.fromhex(body)) for body in standing]
        leads = {}
        for address, bodies in zip(addresses, ways, strict=True):
            index = netlink.interface_of_route(bytes.fromhex(bodies[0])) if bodies else _LOOPBACK
            if index != _LOOPBACK and index in links:
                leads[address] = links[index].name
        before = json.loads(text) if text else {}
        found = [traffic.standing(link, qdiscs) for link in links.values() if link.name in {*before, *leads.values()}]
        for there in found:
            bodies = filters.get(str(there.index), []) if there.ours else []
            there.read([chosen for body in bodies if (chosen := netlink.filter_of(bytes.fromhex(body))) is not None])
    except CannotError as error:
        return Look(place, reason=str(error))
    reason = "" if able else "its kernel has no htb with u32 filters, or lets us try nothing"
    return Look(place, able, reason, {there.name: there for there in found}, leads, before, ssh)


async def bring(host: Host, seen: Look, wanted: Mapping[str, Way], spared: Sequence[Spared] = ()) -> None:
    """Have a host shape what it sends to these addresses like this, and nothing else. seen: what stands there. spared: never shaped.

    Raises HostError, and ProviderError where an interface is not ours to shape or the kernel refuses.
    """
    shapes = seen.by_interface(wanted)
    before, requests = dict(seen.before), []
    for name, those in shapes.items():
        there = seen.interfaces[name]
        if reason := taken(there, seen):
            remedy = f"Take it off there (tc qdisc del dev {name} root), or write no shapes for what goes over it."
            raise ProviderError(reason, resource=f"host {host}", remedy=remedy)
        before.setdefault(name, _chosen(there))
        requests += list(traffic.requests(there, those, seen.able, (*seen.ssh, *spared)))
    gone = [name for name in before if name not in shapes]
    for name in gone:
        requests += _put_back(seen.interfaces.get(name), before[name])
    if not requests and not gone:
        return
    path, left = f"{seen.place}/{SHAPED}", {name: before[name] for name in shapes}
    steps = [["write", path, _line(before)], ["send", _sent(requests)], ["write", path, _line(left)]]
    try:
        _, gave = await _perform(host, steps)
    except CannotError as error:
        raise ProviderError(f"its traffic cannot be controlled: {error}", resource=f"host {host}") from None
    number, reason, *place = gave[1]
    if number:
        remedy = "`wardian plan` says what its kernel can do."
        raise ProviderError(f"its kernel refuses {requests[place[0]].what}: {reason}", resource=f"host {host}", remedy=remedy)


async def clear(host: Host, place: str) -> None:
    """Have a host send everything as it did before. Raises HostError, ProviderError."""
    seen = await look(host, place, able=frozenset({"htb"}))
    if not seen.able:
        remedy = f"There: tc qdisc del dev INTERFACE root, and remove ~/{CACHE}/{place}/{SHAPED}."
        raise ProviderError(f"its traffic was shaped, and cannot be put back now: {seen.reason}", resource=f"host {host}", remedy=remedy)
    await bring(host, seen, {})


def drift(seen: Look, wanted: Mapping[str, Way]) -> dict[str, str]:
    """What on a host is not as wanted: {address: in words}."""
    shapes = seen.by_interface(wanted)
    found: dict[str, str] = {}
    for name, there in seen.interfaces.items():
        if name in shapes or name in seen.before:
            found |= traffic.differences(there, shapes.get(name, {}))
    return found


def taken(there: Standing, seen: Look) -> str:
    """Why an interface is not ours to shape; empty where it is."""
    if there.ours and there.name not in seen.before:
        return f"its interface {there.name} is shaped for another environment"
    if there.foreign and there.root is not None:
        return f"somebody has put {there.root.kind} on its interface {there.name}"
    return ""


async def _perform(host: Host, steps: Sequence[Any]) -> tuple[tuple[Spared, ...], list[Any]]:
    """Have the program take these steps: our connection, and what each gave. Raises HostError, CannotError."""
    data = json.dumps(steps).encode()
    answer = await run(host, _SCRIPT, _PROGRAM.read_text(), host.python or "python3", data=data)
    if answer.code == _NO_PYTHON:
        raise CannotError("it has no Python")
    if answer.code == _NO_RIGHTS:
        raise CannotError("we are not root there, and sudo asks for a password")
    connection, _, said = answer.output.partition("\n")
    if answer.code or not said:
        raise CannotError(f"its kernel cannot be talked to: {answer.last_error or f'exit code {answer.code}'}")
    gave = json.loads(said)
    if gave["order"] != sys.byteorder:
        raise CannotError("its numbers have another byte order than this machine's")
    words = connection.split()
    return ((words[0], int(words[3]), True),) if len(words) == 4 else (), gave["gave"]


def _able(errors: Sequence[int]) -> frozenset[str]:
    """Which disciplines there are, from what came of `_TRIES`."""
    if any(errors[:3]):
        return frozenset()
    able = {"htb"} | {kind for kind, number in zip(_LEAVES, errors[4 : 3 + 2 * len(_LEAVES) : 2], strict=True) if not number}
    return frozenset(able if errors[-1] else able | {traffic.DOUBLES})


def _put_back(there: Standing | None, root: Mapping[str, Any] | None) -> list[netlink.Request]:
    if there is None:
        return []
    result = [netlink.remove_qdisc(there.index)] if there.ours else []
    if root is not None and (there.ours or there.root is None or not there.root.handle):
        result.append(netlink.qdisc(there.index, root["kind"], bytes.fromhex(root["options"]), handle=root["handle"]))
    return result


def _chosen(there: Standing) -> dict[str, Any] | None:
    root = there.root
    if root is None or not root.handle:
        return None
    return {"kind": root.kind, "handle": root.handle, "options": root.options.hex()}


def _line(before: Mapping[str, Any]) -> str | None:
    return json.dumps(before) + "\n" if before else None


def _sent(requests: Sequence[netlink.Request]) -> list[Any]:
    return [[item.type, item.flags, item.body.hex()] for item in requests]


def _dump(asked: tuple[int, bytes]) -> list[Any]:
    return ["ask", asked[0], 0x300, asked[1].hex()]
