"""Shapes towards the other nodes as a tree of queueing disciplines on a host's interface: pure.

    htb, handle ROOT ─┬─ class OTHERS ─ fq_codel                  whatever no filter picks: it has all that the interface has
                      └─ class of peers ─ tbf ─ netem ─ tbf ─ queue

The first bucket of a class holds nothing up: it cuts the kernel's large segments to frames, which netem counts. It is there only with
netem, and the second one only with a rate. What comes first on links of `local`, the rate, is last here: one interface has no other.

Peers that share the queue of a link and are treated alike share a class, by whose number its handles are known. Which one a peer has is
read back from the filter that picks it.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..local import netlink, qdiscs
from ..local.netlink import Filter, Request
from ..local.qdiscs import Shape
from .routes import Way

ROOT = 0x3744 << 16
"""The handle of a root that is ours."""
OTHERS = ROOT | 1
MOST = 1000
"""Classes of a host."""
_SPARING = 1
"""The priority of what is spared; peers come after it."""
_FIRST = 2
_BASE = 0x4000
_CUT, _IMPAIR, _LIMIT = 1, 2, 3
_WAITING = {"pfifo": 4, "bfifo": 5, "codel": 6, "fq_codel": 7, "pie": 8}
_ALONE = 6
"""Added to the level of a bucket without netem before it, and of its queue: the kernel moves none to another parent."""

FAST = 100e9
"""Bits a second of a class that holds nothing up."""
BURST = 4 * 2**20
QUANTUM = 60_000

CLASSLESS = frozenset({"fq", "fq_codel", "codel", "pie", "fq_pie", "pfifo", "bfifo", "pfifo_fast", "sfq", "cake", "noqueue"})
"""Roots that somebody has chosen and that can be put back as they were."""

DOUBLES = "netem that duplicates beside another"
"""What newer kernels refuse, as if it were a discipline."""

Spared = tuple[str, int, bool]
"""What goes to this address over SSH, whose port is the host's own (a client is there) or the other's (a server is)."""
Step = tuple[int, int, str, bytes]
"""Parent, handle, kind and options of a queueing discipline."""


@dataclass(slots=True)
class Standing:
    """What is on an interface. root: its outermost discipline; chosen: whether somebody chose that; ours: whether it is ours.

    below: {parent: discipline}. peers: {address: (number of its class, priority of its filter)}. spared: what has a filter that spares it.
    """

    index: int
    name: str
    mtu: int
    root: netlink.Qdisc | None = None
    below: dict[int, netlink.Qdisc] = field(default_factory=dict)
    peers: dict[str, tuple[int, int]] = field(default_factory=dict)
    spared: set[Spared] = field(default_factory=set)

    @property
    def ours(self) -> bool:
        return self.root is not None and (self.root.kind, self.root.handle) == ("htb", ROOT)

    @property
    def foreign(self) -> bool:
        """Whether somebody has chosen a root that could not be put back."""
        return not self.ours and self.root is not None and bool(self.root.handle) and self.root.kind not in CLASSLESS

    def read(self, filters: Iterable[Filter]) -> None:
        """Take in the filters of a root of ours."""
        for item in filters:
            address = _address(item)
            if address and item.target == OTHERS:
                value, mask, _ = item.keys[-1]
                self.spared.add((address, value >> 16 or value, mask > 0xFFFF))
            elif address:
                self.peers[address] = (item.target & 0xFFFF) - _FIRST, item.priority


def standing(link: netlink.Link, found: Iterable[netlink.Qdisc]) -> Standing:
    """What is on this interface, of all disciplines of the host."""
    here = [item for item in found if item.index == link.index]
    result = Standing(link.index, link.name, link.mtu, next((item for item in here if item.parent == netlink.ROOT), None))
    result.below = {item.parent: item for item in here if item.handle and item.parent != netlink.ROOT}
    return result


def requests(there: Standing, wanted: Mapping[str, Way], able: frozenset[str], spared: Collection[Spared] = ()) -> Iterator[Request]:
    """What brings an interface to shape packets to these addresses, and no others, like this; none where it does so already.

    able: disciplines that the kernel has.
    """
    if not there.ours:
        yield netlink.qdisc(there.index, "htb", netlink.htb(default=1), handle=ROOT)
        yield netlink.traffic_class(there.index, "htb", _free(), handle=OTHERS, parent=ROOT)
    if "fq_codel" in able and OTHERS not in there.below:
        yield netlink.qdisc(there.index, "fq_codel", handle=_BASE - 1 << 16, parent=OTHERS)
    # several filters of one priority: they are removed with the root only
    yield from (netlink.classify(there.index, ROOT, _sparing(*one)) for one in spared if one[0] in wanted and one not in there.spared)
    numbers = numbered(there, wanted)
    used = {number for number, _ in there.peers.values()}
    for address, (number, priority) in there.peers.items():
        if numbers.get(address) != number:
            yield netlink.remove_filter(there.index, ROOT, _picking(address, number, priority))
    for parent in there.below:
        number = (parent & 0xFFFF) - _FIRST
        if parent >> 16 == ROOT >> 16 and number >= 0 and number not in numbers.values():
            yield netlink.remove_class(there.index, parent, ROOT)
    ways = {numbers[address]: way for address, way in wanted.items()}
    # one that duplicates comes once no other is there any more, and goes before another comes
    for number in sorted(ways, key=lambda number: ("duplicate" in ways[number].shape, number not in used)):
        yield from _settle(there, number, chain(ways[number].shape, there.mtu, number), fresh=number not in used)
    taken = {priority for _, priority in there.peers.values()}
    free = (priority for priority in range(_SPARING + 1, 0xFFFF) if priority not in taken)
    for address, number in numbers.items():
        if address not in there.peers or there.peers[address][0] != number:
            # last: nothing goes this way before all of it stands
            yield netlink.classify(there.index, ROOT, _picking(address, number, next(free)))


def numbered(there: Standing, wanted: Mapping[str, Way]) -> dict[str, int]:
    """{address: number of its class}: one for all that share a queue and are treated alike; where one has its number, that stays."""
    groups: dict[str, list[str]] = {}
    for address, way in wanted.items():
        groups.setdefault(json.dumps([way.over, way.shape], sort_keys=True), []).append(address)
    chosen: dict[str, int] = {}
    for key, addresses in groups.items():
        known = Counter(there.peers[address][0] for address in addresses if address in there.peers)
        for number, _ in known.most_common():
            if number not in chosen.values():
                chosen[key] = number
                break
    used = {*chosen.values(), *(number for number, _ in there.peers.values())}
    free = (number for number in range(MOST) if number not in used)
    return {
        address: number
        for key, addresses in groups.items()
        for number in [chosen[key] if key in chosen else next(free)]
        for address in addresses
    }


def differences(there: Standing, wanted: Mapping[str, Way]) -> dict[str, str]:
    """What is not as wanted: {address: in words}."""
    if not there.ours:
        return dict.fromkeys(wanted, f"{there.name} is not shaped")
    found = {address: f"{there.name} shapes what goes there, and should not" for address in there.peers if address not in wanted}
    for address, number in numbered(there, wanted).items():
        if address not in there.peers or there.peers[address][0] != number:
            found[address] = f"{there.name} does not shape what goes there as it should"
            continue
        steps = chain(wanted[address].shape, there.mtu, number)
        if any(not _stands(there, step) for step in steps) or _surplus(there, steps):
            found[address] = f"{there.name} shapes what goes there in another way"
    return found


def chain(shape: Shape, mtu: int, number: int) -> list[Step]:
    """The disciplines for one peer, the outermost first."""
    parent = ROOT | (_FIRST + number)
    steps: list[Step] = []

    def add(level: int, kind: str, options: bytes) -> None:
        handle = _BASE + 16 * number + level << 16
        steps.append((steps[-1][1] | 1 if steps else parent, handle, kind, options))

    if qdiscs.impairs(shape):
        frame = mtu + qdiscs.HEADER
        add(_CUT, "tbf", netlink.tbf(FAST, burst=BURST, limit=BURST, mtu=frame, peak=qdiscs.PEAK))
        add(_IMPAIR, *qdiscs.impairment({part: value for part, value in shape.items() if part != "rate"}, mtu))
    if qdiscs.limits(shape):
        place = 0 if steps else _ALONE
        add(_LIMIT + place, *qdiscs.bucket(shape, mtu))
        kind, options = qdiscs.waiting(shape, mtu)
        add(_WAITING[kind] + place, kind, options)
    return steps


def possible(shape: Shape, able: frozenset[str]) -> dict[str, Any]:
    """What a kernel with these disciplines can do of a shape."""
    result = dict(shape)
    if "netem" not in able:
        for part in (*qdiscs.IMPAIRMENTS, "distribution", "loss_burst"):
            result.pop(part, None)
    if "tbf" not in able:
        result.pop("rate", None)
    queue = dict(result.get("queue") or {})
    if "rate" not in result or not queue:
        result.pop("queue", None)
    elif queue.get("discipline", "fifo") not in (*able, "fifo"):
        result["queue"] = {key: value for key, value in queue.items() if key != "discipline"}
    return result


def compatible(ways: Mapping[str, Way], able: frozenset[str]) -> dict[str, Way]:
    """What one interface can do of these at once: without duplicates where the kernel has none beside another netem."""
    impaired = {json.dumps([way.over, way.shape], sort_keys=True) for way in ways.values() if qdiscs.impairs(way.shape)}
    if DOUBLES in able or len(impaired) < 2:
        return dict(ways)
    single = {address: {part: value for part, value in way.shape.items() if part != "duplicate"} for address, way in ways.items()}
    return {address: Way(shape, ways[address].over) for address, shape in single.items() if shape}


def _settle(there: Standing, number: int, steps: list[Step], *, fresh: bool) -> Iterator[Request]:
    first = next((place for place, step in enumerate(steps) if not _stands(there, step)), None)
    if fresh:
        yield netlink.traffic_class(there.index, "htb", _free(), handle=ROOT | (_FIRST + number), parent=ROOT)
    # what comes after one that is set is set too: a bucket gives its queue a length of its own
    for parent, handle, kind, options in steps[first:] if first is not None else ():
        yield netlink.qdisc(there.index, kind, options, handle=handle, parent=parent)
    stays = all((found := there.below.get(parent)) and (found.handle, found.kind) == (handle, kind) for parent, handle, kind, _ in steps)
    if stays and _surplus(there, steps):
        # what a discipline had below it stays with it when it is changed
        yield netlink.remove_qdisc(there.index, handle=there.below[steps[-1][1] | 1].handle, parent=steps[-1][1] | 1)


def _stands(there: Standing, step: Step) -> bool:
    parent, handle, kind, options = step
    found = there.below.get(parent)
    return found is not None and found.handle == handle and qdiscs.essence(found.kind, found.options) == qdiscs.essence(kind, options)


def _surplus(there: Standing, steps: list[Step]) -> bool:
    """Whether there is more below the last step than belongs there."""
    return bool(steps) and (steps[-1][1] | 1) in there.below


def _free() -> bytes:
    return netlink.htb_class(FAST, burst=BURST, quantum=QUANTUM)


def _picking(address: str, number: int, priority: int) -> Filter:
    packed = ipaddress.ip_address(address).packed
    start = 16 if len(packed) == 4 else 24
    keys = tuple((int.from_bytes(packed[place : place + 4], "big"), 0xFFFFFFFF, start + place) for place in range(0, len(packed), 4))
    return Filter(_family(packed), priority, keys, ROOT | (_FIRST + number))


def _sparing(address: str, port: int, own: bool) -> Filter:
    """What no shape may hold up."""
    picked = _picking(address, 0, _SPARING)
    tcp = 6
    protocol, ports = ((tcp << 16, 0xFF << 16, 8), 20) if picked.family == socket.AF_INET else ((tcp << 8, 0xFF << 8, 4), 40)
    shift = 16 if own else 0
    return Filter(picked.family, _SPARING, (*picked.keys, protocol, (port << shift, 0xFFFF << shift, ports)), OTHERS)


def _address(item: Filter) -> str:
    """The address that a filter of ours picks."""
    start, size = (16, 1) if item.family == socket.AF_INET else (24, 4)
    words = [value for place in range(size) for value, _, offset in item.keys if offset == start + 4 * place]
    return str(ipaddress.ip_address(b"".join(word.to_bytes(4, "big") for word in words))) if len(words) == size else ""


def _family(packed: bytes) -> int:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6
