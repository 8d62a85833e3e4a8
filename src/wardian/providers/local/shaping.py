"""Segments: what stands between a port and a bridge, or between two ports, so that a link has its rate, queue, delay and loss.

A port is the end of a veth in the environment's fabric namespace; its other end is in a node. All that a segment is made of stands in
the fabric, out of reach of what runs on nodes. A direction's rate and queue come first (`tbf`), then its delay and loss. Four forms:

    plain   port ─ far bridge                                        nothing is shaped, or one direction towards the port
            port ─ b1 ─ far port                                     likewise; rate and queue stand on the ports
    rate    port ─ b1 ─ u0⇄v0 ─ far bridge                           tbf on u0 and v0
    netem   port ─ b1 ─ u0⇄v0 ─ b2 ─ u1⇄v1 ─ far bridge              there: tbf on u0, netem on u1; back: tbf on v1, netem on v0
            port ─ b1 ─ u0⇄v0 ─ b2 ─ far port                        there: tbf on u0, netem on far port; back: tbf on v0, netem on port
    relay   port ─ b1 ─ t0 ~relay~ t1 ─ far bridge, or b2 ─ far port tbf on t0 and t1

Everything is read back from the kernel: interfaces are named after the segment's hash and carry `segment ID FORM` as their alias, the
TAPs also what the relay has to do with the frames that leave by them. So `apply` makes, changes or repairs, whatever is there.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import ProviderError
from . import netlink
from .netlink import Link, Netlink, Request

HEADER = 14
"""Bytes of an Ethernet header, which count against a rate."""
DEFAULT_QUEUE = 0.1
"""Seconds that the queue in front of a rate holds where none is written, at least ten frames."""
BURST = 0.001
"""Seconds of a rate that may pass at once after a pause; a timer that fires this late costs no throughput."""
SMALLEST_BURST, LARGEST_BURST = 2, 43
"""The same in full frames. A kernel's large segments are cut to frames where they exceed the burst."""
TAP_QUEUE = 5000
"""Frames that wait for the relay before any is dropped."""

RELAY_RATE = 300e6
"""Bits a second of full frames that the relay carries on a modest processor while the environment works, both directions together."""
RELAY_FRAMES = 40_000
"""Frames a second, likewise."""
RELAY_DELAY = 0.0003
"""Seconds that the relay adds to a one-way delay, typically."""
RELAY_STAND_IN = (
    f"a user-space relay, good for about {RELAY_RATE / 1e6:.0f} Mbit/s or {RELAY_FRAMES:,} frames a second in all, "
    f"whose delays come out up to {RELAY_DELAY * 1e3:.1f} ms longer"
)
"""What stands in for netem, for the caveat of a plan."""

RELAY_SLACK = 4 * 2**20
UNLIMITED = 10e9
NETEM_LARGEST = 2**31 - 1
CLONE_NEWNET = 0x40000000
DOOMED = 0x77617264
"""The group that interfaces are put in to be removed."""
ENOENT, ENODEV, EOPNOTSUPP = 2, 19, 95

Shape = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """One access link, or one link between networks.

    id: its name within the environment, no spaces. near: the port it begins at.
    far_bridge, far_port: where it ends, exactly one of them.
    there, back: SHAPEs (see `experiment.resources`) from near to far and from far to near.
    """

    id: str
    near: str
    far_bridge: str | None = None
    far_port: str | None = None
    there: Shape = field(default_factory=dict)
    back: Shape = field(default_factory=dict)

    @property
    def far(self) -> str:
        return self.far_bridge or self.far_port or ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a segment is made of.

    kinds: {interface to be made: "bridge", "veth" (the first of a pair) or "tap"}; pairs: {veth: its peer}.
    masters: {interface or port: the bridge it is in}. qdiscs: {interface or port: (kind, options)}. aliases: {made interface: alias}.
    """

    form: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)
    masters: Mapping[str, str] = field(default_factory=dict)
    qdiscs: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    whole_frames: tuple[str, ...] = ()

    @property
    def interfaces(self) -> set[str]:
        """The names of all that is made for it, ports and far bridge excluded."""
        return {*self.kinds, *self.pairs.values()}


@functools.cache
def netem_available() -> bool:
    """Whether this kernel delays and loses packets itself; tried once in a namespace that nobody sees."""

    def attempt() -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, f"making a network namespace: {os.strerror(error)}")
        with Netlink() as socket:
            try:
                socket.send([netlink.qdisc(socket.index("lo"), "netem", netlink.netem(limit=10, delay=0.001))])
            except OSError as error:
                if error.errno in (ENOENT, EOPNOTSUPP):
                    return False
                raise
        return True

    # only a thread that ends afterwards may leave the namespace of its process
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return netlink.in_namespace(own, attempt)
    finally:
        os.close(own)


def layout(segment: Segment, mtu: int = 1500, *, netem: bool) -> Layout:
    """What `segment` has to be made of; netem: whether the kernel has it. Pure."""
    delayed = any(shape.get("delay") or shape.get("loss") for shape in (segment.there, segment.back))
    if delayed:
        return _netem(segment, mtu) if netem else _relay(segment, mtu)
    if segment.far_bridge and segment.there.get("rate"):
        return _rate(segment, mtu)
    return _plain(segment, mtu)


def apply(namespace: int, segments: Sequence[Segment], *, netem: bool | None = None) -> None:
    """Make these segments, or bring those that exist to what is asked for.

    namespace: file descriptor of the fabric's network namespace. netem: use it; None for when the kernel has it.
    Ports and far bridges exist. What needs no change stays as it is, and ports keep their interfaces in nodes whatever changes.
    Raises ProviderError when the kernel refuses.
    """
    use_netem = netem_available() if netem is None else netem
    try:
        with Netlink.into(namespace) as socket:
            _Work(namespace, socket, segments, use_netem).do()
    except OSError as error:
        names = ", ".join(segment.id for segment in segments[:3]) + (", …" if len(segments) > 3 else "")
        raise ProviderError(str(error), resource=f"shaping {names}") from error


def remove(namespace: int, ids: Iterable[str]) -> None:
    """Remove all that was made for these segments; their ports stay, joined to nothing if they led into it. Safe to repeat."""
    prefixes = tuple(_prefix(identity) for identity in ids)
    with Netlink.into(namespace) as socket:
        _remove(socket, [link.index for link in socket.links() if link.name.startswith(prefixes)] if prefixes else [])


def differences(namespace: int, segments: Sequence[Segment], *, netem: bool | None = None) -> dict[str, list[str]]:
    """What in the kernel is not as these segments ask for: {id: [in words, …]}; those that are as they should be are not in it."""
    with Netlink.into(namespace) as socket:
        state = _State(socket)
        use_netem = netem_available() if netem is None else netem
        found = {segment.id: list(_differences(segment, state, use_netem)) for segment in segments}
    return {identity: words for identity, words in found.items() if words}


def describe(links: Iterable[Link]) -> dict[str, str]:
    """The segments that stand in a fabric, by the aliases of its interfaces: {id: form}.

    A plain one between port and bridge has no interface of its own and is not among them.
    """
    found = {}
    for link in links:
        words = link.alias.split(" ")
        if len(words) >= 3 and words[0] == "segment":
            found[words[1]] = words[2]
    return found


def relay_config(links: Iterable[Link], *, counters: str, seed: str = "", netns: str | None = None) -> dict[str, Any]:
    """What the relay of a fabric with these interfaces must do, see `relay.py`; no pairs when it is not needed.

    counters: path of the file it counts into. seed: what its losses are drawn from, with the segment's id and direction.
    netns: path of the namespace that it shall enter, None when it is started there.
    """
    directions: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
    for link in links:
        words = link.alias.split(" ")
        if len(words) == 7 and words[0] == "segment" and words[2] == "relay":
            identity, way, delay, loss, limit = words[1], words[3], float(words[4]), float(words[5]), int(words[6])
            asked = {"delay": delay, "loss": loss, "limit": limit, "seed": f"{seed}/{identity}/{way}"}
            directions.setdefault(identity, {})[way] = link.name, asked
    pairs = [
        {"id": identity, "near": ways["there"][0], "far": ways["back"][0], "there": ways["there"][1], "back": ways["back"][1]}
        for identity, ways in sorted(directions.items())
        if len(ways) == 2
    ]
    return {"netns": netns, "counters": counters, "pairs": pairs}


# The forms


def _plain(segment: Segment, mtu: int) -> Layout:
    if segment.far_bridge:
        return Layout("plain", masters={segment.near: segment.far_bridge}, qdiscs=_tbf({segment.near: segment.back}, mtu))
    return _aliased(
        segment,
        Layout(
            "plain",
            kinds={_name(segment, "b1"): "bridge"},
            masters=dict.fromkeys((segment.near, segment.far), _name(segment, "b1")),
            qdiscs=_tbf({segment.far: segment.there, segment.near: segment.back}, mtu),
        ),
    )


def _rate(segment: Segment, mtu: int) -> Layout:
    b1, u0, v0 = (_name(segment, part) for part in ("b1", "u0", "v0"))
    return _aliased(
        segment,
        Layout(
            "rate",
            kinds={b1: "bridge", u0: "veth"},
            pairs={u0: v0},
            masters={segment.near: b1, u0: b1, v0: segment.far},
            qdiscs=_tbf({u0: segment.there, v0: segment.back}, mtu),
            whole_frames=(u0, v0),
        ),
    )


def _netem(segment: Segment, mtu: int) -> Layout:
    b1, b2, u0, v0, u1, v1 = (_name(segment, part) for part in ("b1", "b2", "u0", "v0", "u1", "v1"))
    kinds, pairs, masters = {b1: "bridge", b2: "bridge", u0: "veth"}, {u0: v0}, {segment.near: b1, u0: b1, v0: b2}
    if segment.far_bridge:
        kinds[u1], pairs[u1] = "veth", v1
        masters |= {u1: b2, v1: segment.far}
        stages = {"there": (u0, u1), "back": (v1, v0)}
    else:
        masters[segment.far] = b2
        stages = {"there": (u0, segment.far), "back": (v0, segment.near)}
    qdiscs = _tbf({stages["there"][0]: segment.there, stages["back"][0]: segment.back}, mtu)
    for way, shape in (("there", segment.there), ("back", segment.back)):
        if shape.get("delay") or shape.get("loss"):
            options = netlink.netem(limit=netem_limit(shape, mtu), delay=shape.get("delay", 0.0), loss=shape.get("loss", 0.0))
            qdiscs[stages[way][1]] = "netem", options
    # netem counts, loses and delays what it is given: frames, not the kernel's larger segments
    return _aliased(segment, Layout("netem", kinds, pairs, masters, qdiscs, whole_frames=(stages["there"][0], stages["back"][0])))


def _relay(segment: Segment, mtu: int) -> Layout:
    b1, b2, t0, t1 = (_name(segment, part) for part in ("b1", "b2", "t0", "t1"))
    kinds, masters = {b1: "bridge", t0: "tap", t1: "tap"}, {segment.near: b1, t0: b1}
    if segment.far_bridge:
        masters[t1] = segment.far_bridge
    else:
        kinds[b2] = "bridge"
        masters |= {t1: b2, segment.far: b2}
    made = _aliased(segment, Layout("relay", kinds, {}, masters, _tbf({t0: segment.there, t1: segment.back}, mtu)))
    aliases = dict(made.aliases)
    for tap, way, shape in ((t0, "there", segment.there), (t1, "back", segment.back)):
        aliases[tap] += f" {way} {shape.get('delay', 0.0)!r} {shape.get('loss', 0.0)!r} {relay_limit(shape)}"
    return replace(made, aliases=aliases)


def _aliased(segment: Segment, made: Layout) -> Layout:
    return replace(made, aliases=dict.fromkeys(sorted(made.interfaces), f"segment {segment.id} {made.form}"))


# What a shape comes to in numbers


def queue_bytes(shape: Shape, mtu: int) -> int:
    """How many bytes wait in front of a direction's rate before frames are dropped."""
    frame, queue = mtu + HEADER, shape.get("queue") or {}
    if "packets" in queue:
        return int(queue["packets"]) * frame
    if "bytes" in queue:
        return max(int(queue["bytes"]), frame)
    return max(int(shape["rate"] / 8 * DEFAULT_QUEUE), 10 * frame)


def burst_bytes(shape: Shape, mtu: int) -> int:
    """How many bytes pass at once after a pause."""
    frame = mtu + HEADER
    return min(max(int(shape["rate"] / 8 * BURST), SMALLEST_BURST * frame), max(LARGEST_BURST * 1514, SMALLEST_BURST * frame))


def netem_limit(shape: Shape, mtu: int) -> int:
    """Packets that netem must hold so that it never drops one: the rate's packets under way, as if all were small, and their burst."""
    octets = (shape.get("rate") or UNLIMITED) / 8 * shape.get("delay", 0.0)
    smallest = 64 if shape.get("rate") else mtu
    waiting = queue_bytes(shape, mtu) // smallest if shape.get("rate") else 0
    return min(int(octets / smallest * 1.25) + waiting + 1000, NETEM_LARGEST)


def relay_limit(shape: Shape) -> int:
    """Bytes that the relay may hold for a direction: what is under way at its rate, or at the relay's own, and some."""
    return int(min(shape.get("rate") or 4 * RELAY_RATE, 4 * RELAY_RATE) / 8 * shape.get("delay", 0.0) * 1.25) + RELAY_SLACK


def _tbf(shapes: Mapping[str, Shape], mtu: int) -> dict[str, tuple[str, bytes]]:
    return {
        name: ("tbf", netlink.tbf(shape["rate"], burst=burst_bytes(shape, mtu), limit=queue_bytes(shape, mtu)))
        for name, shape in shapes.items()
        if shape.get("rate")
    }


# Bringing the kernel there


class _State:
    """What is in the fabric: its interfaces by name and by index, and their outermost queueing disciplines by index."""

    def __init__(self, socket: Netlink) -> None:
        self.links = {link.name: link for link in socket.links()}
        self.names = {link.index: link.name for link in self.links.values()}
        # the kernel's own choice has no handle
        self.qdiscs = {qdisc.index: qdisc for qdisc in socket.qdiscs() if qdisc.parent == netlink.ROOT and qdisc.handle}

    def master(self, name: str) -> str | None:
        link = self.links.get(name)
        return self.names.get(link.master) if link and link.master else None

    def mtu(self, name: str) -> int:
        link = self.links.get(name)
        return link.mtu if link else 1500


class _Work:
    """Making or changing segments: what is new, then what is in the way, then how it hangs together."""

    def __init__(self, namespace: int, socket: Netlink, segments: Sequence[Segment], netem: bool) -> None:
        self.namespace = namespace
        self.socket = socket
        self.segments = segments
        self.state = _State(socket)
        for segment in segments:
            for name in (segment.near, segment.far):
                if name not in self.state.links:
                    raise OSError(ENODEV, f"segment {segment.id}: there is no interface {name} in the fabric")
        self.layouts = {segment.id: layout(segment, self.state.mtu(segment.near), netem=netem) for segment in segments}

    def do(self) -> None:
        if self._make():
            self.state = _State(self.socket)
        # two ways between the same bridges would be a loop, so the old one goes before the new one is joined
        if _remove(self.socket, list(self._stale())):
            self.state = _State(self.socket)
        self.socket.send(request for segment in self.segments for request in self._settle(segment))

    def _make(self) -> bool:
        requests: list[Request] = []
        taps: list[str] = []
        whole: list[str] = []
        for segment in self.segments:
            made, mtu = self.layouts[segment.id], self.state.mtu(segment.near)
            for name, kind in made.kinds.items():
                if name in self.state.links:
                    continue
                if kind == "bridge":
                    requests.append(netlink.bridge(name, mtu=mtu))
                elif kind == "veth":
                    requests.append(netlink.veth(name, made.pairs[name], mtu=mtu, up=False))
                else:
                    taps.append(name)
            whole += made.whole_frames
        self.socket.send(requests)
        if taps or whole:
            netlink.in_namespace(self.namespace, lambda: _prepare(taps, whole))
        return bool(requests or taps)

    def _stale(self) -> Iterator[int]:
        prefixes = {_prefix(segment.id): self.layouts[segment.id].interfaces for segment in self.segments}
        for name, link in self.state.links.items():
            wanted = prefixes.get(name[:-2])
            if wanted is not None and name not in wanted:
                yield link.index

    def _settle(self, segment: Segment) -> Iterator[Request]:
        made, state = self.layouts[segment.id], self.state
        ports = {segment.near, *([segment.far_port] if segment.far_port else [])}
        # shaped before it is joined, so that nothing crosses it unshaped
        for name in sorted(made.interfaces | ports):
            index = state.links[name].index
            wanted, there = made.qdiscs.get(name), state.qdiscs.get(index)
            if wanted is None and there is not None:
                yield netlink.remove_qdisc(index)
            elif wanted is not None and (there is None or _essence(there.kind, there.options) != _essence(*wanted)):
                if there is not None and there.kind != wanted[0]:
                    yield netlink.remove_qdisc(index)
                yield netlink.qdisc(index, *wanted, handle=0x10000)
        for name, alias in made.aliases.items():
            if state.links[name].alias != alias:
                queue = TAP_QUEUE if made.kinds.get(name) == "tap" else None
                yield netlink.change(state.links[name].index, alias=alias, queue=queue, mtu=state.mtu(segment.near))
        for name, bridge in made.masters.items():
            if state.master(name) != bridge:
                yield netlink.change(state.links[name].index, master=state.links[bridge].index)
        for name in sorted(made.interfaces):
            if not state.links[name].up:
                yield netlink.change(state.links[name].index, up=True)


def _differences(segment: Segment, state: _State, netem: bool) -> Iterator[str]:
    made = layout(segment, state.mtu(segment.near), netem=netem)
    missing = {segment.near, segment.far, *made.interfaces} - state.links.keys()
    yield from (f"{name} is missing" for name in sorted(missing))
    for name, bridge in made.masters.items():
        if name not in missing and state.master(name) != bridge:
            yield f"{name} is not in {bridge}"
    for name, alias in made.aliases.items():
        if name not in missing and state.links[name].alias != alias:
            yield f"{name} is marked {state.links[name].alias!r}, not {alias!r}"
    for name in sorted(made.interfaces - missing):
        if not state.links[name].up:
            yield f"{name} is down"
    ports = {segment.near, *([segment.far_port] if segment.far_port else [])}
    for name in sorted((made.interfaces | ports) - missing):
        wanted, there = made.qdiscs.get(name), state.qdiscs.get(state.links[name].index)
        if (_essence(*wanted) if wanted else None) != (_essence(there.kind, there.options) if there else None):
            yield f"{name} has {there.kind if there else 'no queueing discipline'}, not {wanted[0] if wanted else 'none'} as asked for"


def _essence(kind: str, options: bytes) -> tuple[Any, ...]:
    """What of a queueing discipline's options the kernel gives back as it was set."""
    if kind == "tbf":
        parameters = _attribute(options, 1)
        rate, limit = struct.unpack_from("=I", parameters, 8)[0], struct.unpack_from("=I", parameters, 24)[0]
        return kind, rate, limit
    if kind == "netem":
        latency, limit, loss = struct.unpack_from("=III", options)
        return kind, round(latency / 4), limit, loss
    return kind, options


def _attribute(options: bytes, wanted: int) -> bytes:
    offset = 0
    while offset + 4 <= len(options):
        length, kind = struct.unpack_from("=HH", options, offset)
        if kind & 0x3FFF == wanted:
            return options[offset + 4 : offset + length]
        offset += max((length + 3) & ~3, 4)
    return bytes(36)


def _remove(socket: Netlink, doomed: Sequence[int]) -> bool:
    """Remove these interfaces, all at once; whether there were any."""
    if doomed:
        requests = [netlink.change(index, group=DOOMED) for index in doomed]
        socket.send([*requests, netlink.remove_group(DOOMED)], ignore=(ENODEV,))
    return bool(doomed)


def _prepare(taps: Iterable[str], whole_frames: Iterable[str]) -> None:
    for name in taps:
        os.close(netlink.tap(name, persistent=True))
    netlink.disable_offloads(whole_frames)


def _prefix(identity: str) -> str:
    return "s" + hashlib.sha256(identity.encode()).hexdigest()[:10]


def _name(segment: Segment, part: str) -> str:
    return _prefix(segment.id) + part
