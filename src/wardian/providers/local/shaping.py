"""Segments: what stands between a port and a bridge, or between two ports, so that a link has its rate, queue, delay and loss.

A port is the end of a veth in the environment's fabric namespace; its other end is in a node. All that a segment is made of stands in
the fabric, out of reach of what runs on nodes. A direction's rate and queue come first (`tbf`), then all the rest. Four forms:

    plain   port ─ far bridge                                        nothing is shaped, or one direction towards the port
            port ─ b1 ─ far port                                     likewise; rate and queue stand on the ports
    rate    port ─ b1 ─ u0⇄v0 ─ far bridge                           tbf on u0 and v0
    netem   port ─ b1 ─ u0⇄v0 ─ b2 ─ u1⇄v1 ─ far bridge              there: tbf on u0, netem on u1; back: tbf on v1, netem on v0
            port ─ b1 ─ u0⇄v0 ─ b2 ─ far port                        there: tbf on u0, netem on far port; back: tbf on v0, netem on port
    relay   port ─ b1 ─ t0 ~relay~ t1 ─ far bridge, or b2 ─ far port tbf on t0 and t1

Everything is read back from the kernel: interfaces are named after the segment's hash and carry `segment ID FORM` as their alias, the
TAPs also what the relay has to do with the frames that leave by them. So `apply` makes, changes or repairs, whatever is there.

A fabric is any network namespace, by its file descriptor. For containers of another engine it is the host's: `near` is the host's end
of the container's veth, `far_bridge` the engine's bridge, and `relay_config` with `relays.serve` has the frames relayed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import ProviderError
from ...experiment.resources import DISTRIBUTIONS
from . import netlink, qdiscs, traces
from .netlink import Link, Netlink, Request
from .qdiscs import Qdisc, Shape

TAP_QUEUE = 5000
"""Frames that wait for the relay before any is dropped."""

RELAY_RATE = 300e6
"""Bits a second of full frames that the relay carries on a modest processor while the environment works, both directions together."""
RELAY_FRAMES = 40_000
"""Frames a second, likewise."""
RELAY_DELAY = 0.0003
"""Seconds that the relay adds to a one-way delay, typically."""

RELAY_SLACK = 4 * 2**20
CLONE_NEWNET = 0x40000000
DOOMED = 0x77617264
"""The group that interfaces are put in to be removed."""
ENOENT, ENODEV, EOPNOTSUPP = 2, 19, 95

_WORDS = {"delay": "d", "jitter": "j", "distribution": "t", "loss": "l", "loss_burst": "b", "duplicate": "c", "reorder": "r"}
"""Short, since an alias has 255 characters."""
_DISTRIBUTIONS = {name[0]: name for name in DISTRIBUTIONS}


@dataclass(frozen=True, slots=True)
class Segment:
    """One access link, or one link between networks.

    id: its name within the environment, no spaces. near: the port it begins at.
    far_bridge, far_port: where it ends, exactly one of them.
    there, back: SHAPEs (see `experiment.resources`) from near to far and from far to near.
    began: when their traces began, seconds since the epoch.
    """

    id: str
    near: str
    far_bridge: str | None = None
    far_port: str | None = None
    there: Shape = field(default_factory=dict)
    back: Shape = field(default_factory=dict)
    began: float = 0.0

    def at(self, moment: float) -> Segment:
        """This with its shapes as they are at a moment, seconds since the epoch."""
        elapsed = moment - self.began
        return replace(self, there=traces.at(self.there, elapsed), back=traces.at(self.back, elapsed))

    @property
    def far(self) -> str:
        return self.far_bridge or self.far_port or ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a segment is made of.

    kinds: {interface to be made: "bridge", "veth" (the first of a pair) or "tap"}; pairs: {veth: its peer}.
    masters: {interface or port: the bridge it is in}. aliases: {made interface: alias}. qdiscs: {interface or port: its queueing
    discipline}; inner: what waits in it, where it is a token bucket. whole_frames: which must carry no large segments.
    """

    form: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)
    masters: Mapping[str, str] = field(default_factory=dict)
    qdiscs: Mapping[str, Qdisc] = field(default_factory=dict)
    inner: Mapping[str, Qdisc] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    whole_frames: tuple[str, ...] = ()

    @property
    def interfaces(self) -> set[str]:
        """The names of all that is made for it, ports and far bridge excluded."""
        return {*self.kinds, *self.pairs.values()}


def netem_available() -> bool:
    """Whether this kernel delays and loses packets itself; tried once."""
    return qdisc_available("netem")


@functools.cache
def qdisc_available(kind: str) -> bool:
    """Whether this kernel has a queueing discipline; tried once in a namespace that nobody sees."""
    options = {"netem": netlink.netem(limit=10, delay=0.001)}.get(kind, netlink.managed(10))

    def attempt() -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, f"making a network namespace: {os.strerror(error)}")
        with Netlink() as socket:
            try:
                socket.send([netlink.qdisc(socket.index("lo"), kind, options)])
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
    """What `segment`, its shapes as they are at a moment, has to be made of; netem: whether the kernel has it. Pure."""
    if qdiscs.impairs(segment.there) or qdiscs.impairs(segment.back):
        return _netem(segment, mtu) if netem else _relay(segment, mtu)
    if segment.far_bridge and qdiscs.limits(segment.there):
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
            _Work(namespace, socket, [current(segment) for segment in segments], use_netem).do()
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
        found = {segment.id: list(_differences(current(segment), state, use_netem)) for segment in segments}
    return {identity: words for identity, words in found.items() if words}


def current(segment: Segment, moment: float | None = None) -> Segment:
    """A segment as it is on this kernel: its traces at a moment (now, unless given), and first in, first out where a discipline lacks."""
    now = segment.at(time.time() if moment is None else moment)
    return replace(now, there=_possible(now.there), back=_possible(now.back))


def _possible(shape: Shape) -> Shape:
    queue = shape.get("queue") or {}
    if "discipline" not in queue or qdisc_available(queue["discipline"]):
        return shape
    return {**shape, "queue": {key: value for key, value in queue.items() if key != "discipline"}}


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


def relay_config(
    links: Iterable[Link], *, counters: str, seed: str = "", netns: str | None = None, segments: Iterable[Segment] = ()
) -> dict[str, Any]:
    """What the relay of a fabric with these interfaces must do, see `relay.py`; no pairs when it is not needed.

    counters: path of the file it counts into. seed: what its losses are drawn from, with the segment's id and direction.
    netns: path of the namespace that it shall enter, None when it is started there.
    segments: those with a trace, for what an alias has no room for.
    """
    words = {word: part for part, word in _WORDS.items()}
    traced = {segment.id: segment for segment in segments}
    directions: dict[str, dict[str, dict[str, Any]]] = {}
    for link in links:
        head, *rest = link.alias.split(" ")
        if head != "segment" or len(rest) < 4 or rest[1] != "relay":
            continue
        identity, _, way, *parts = rest
        given = dict(part.split("=", 1) for part in parts)
        asked: dict[str, Any] = {
            words[word]: _DISTRIBUTIONS[value] if word == "t" else float(value) for word, value in given.items() if word in words
        }
        asked |= {"limit": int(given["q"]), "seed": f"{seed}/{identity}/{way}"}
        if "x" in given and identity in traced:
            asked["trace"] = _relayed_trace(traced[identity], way)
        directions.setdefault(identity, {})[way] = {"tap": link.name, "mtu": link.mtu, "asked": asked}
    pairs = [
        {
            "id": identity,
            "near": ways["there"]["tap"],
            "far": ways["back"]["tap"],
            "mtu": ways["there"]["mtu"],
            "there": ways["there"]["asked"],
            "back": ways["back"]["asked"],
        }
        for identity, ways in sorted(directions.items())
        if len(ways) == 2
    ]
    return {"netns": netns, "counters": counters, "pairs": pairs}


def _relayed_trace(segment: Segment, way: str) -> dict[str, Any] | None:
    shape = segment.there if way == "there" else segment.back
    if traces.columns(shape).isdisjoint(qdiscs.IMPAIRMENTS):
        return None
    trace = shape["trace"]
    steps = [[moment, {part: values[part] for part in qdiscs.IMPAIRMENTS if part in values}] for moment, values in trace["steps"]]
    return {"began": segment.began, "length": trace["length"], "repeat": trace["repeat"], "steps": steps}


# The forms


def _plain(segment: Segment, mtu: int) -> Layout:
    if segment.far_bridge:
        return _limited(Layout("plain", masters={segment.near: segment.far_bridge}), {segment.near: segment.back}, mtu)
    b1 = _name(segment, "b1")
    made = Layout("plain", kinds={b1: "bridge"}, masters=dict.fromkeys((segment.near, segment.far), b1))
    return _aliased(segment, _limited(made, {segment.far: segment.there, segment.near: segment.back}, mtu))


def _rate(segment: Segment, mtu: int) -> Layout:
    b1, u0, v0 = (_name(segment, part) for part in ("b1", "u0", "v0"))
    made = Layout(
        "rate",
        kinds={b1: "bridge", u0: "veth"},
        pairs={u0: v0},
        masters={segment.near: b1, u0: b1, v0: segment.far},
        whole_frames=(u0, v0),
    )
    return _aliased(segment, _limited(made, {u0: segment.there, v0: segment.back}, mtu))


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
    # netem counts, loses and delays what it is given: frames, not the kernel's larger segments
    made = Layout("netem", kinds, pairs, masters, whole_frames=(stages["there"][0], stages["back"][0]))
    limited = _limited(made, {stages["there"][0]: segment.there, stages["back"][0]: segment.back}, mtu)
    seconds = {stages["there"][1]: segment.there, stages["back"][1]: segment.back}
    impaired = {name: qdiscs.impairment(shape, mtu) for name, shape in seconds.items() if qdiscs.impairs(shape)}
    return _aliased(segment, replace(limited, qdiscs={**limited.qdiscs, **impaired}))


def _relay(segment: Segment, mtu: int) -> Layout:
    b1, b2, t0, t1 = (_name(segment, part) for part in ("b1", "b2", "t0", "t1"))
    kinds, masters = {b1: "bridge", t0: "tap", t1: "tap"}, {segment.near: b1, t0: b1}
    if segment.far_bridge:
        masters[t1] = segment.far_bridge
    else:
        kinds[b2] = "bridge"
        masters |= {t1: b2, segment.far: b2}
    made = _aliased(segment, _limited(Layout("relay", kinds, {}, masters), {t0: segment.there, t1: segment.back}, mtu))
    aliases = dict(made.aliases)
    for tap, way, shape in ((t0, "there", segment.there), (t1, "back", segment.back)):
        aliases[tap] += f" {way} {_relay_words(shape, segment.began)}"
    return replace(made, aliases=aliases)


def _relay_words(shape: Shape, began: float) -> str:
    # what a trace changes is told from its beginning, so that the alias stays as it is all the while
    first = traces.at(shape, 0.0)
    given = {word: value for part, word in _WORDS.items() if (value := first.get(part))}
    words = [f"{word}={value[0] if isinstance(value, str) else format(value, '.6g')}" for word, value in given.items()]
    if not traces.columns(shape).isdisjoint(qdiscs.IMPAIRMENTS):
        words.append(f"x={traces.digest(shape['trace'], began)}")
    return " ".join([*words, f"q={relay_limit(shape)}"])


def _limited(made: Layout, shapes: Mapping[str, Shape], mtu: int) -> Layout:
    """A layout with the token buckets of these interfaces."""
    wanted = {name: shape for name, shape in shapes.items() if qdiscs.limits(shape)}
    return replace(
        made,
        qdiscs={name: qdiscs.bucket(shape, mtu) for name, shape in wanted.items()},
        inner={name: qdiscs.waiting(shape, mtu) for name, shape in wanted.items()},
    )


def _aliased(segment: Segment, made: Layout) -> Layout:
    return replace(made, aliases=dict.fromkeys(sorted(made.interfaces), f"segment {segment.id} {made.form}"))


def relay_limit(shape: Shape) -> int:
    """Bytes that the relay may hold for a direction: what is under way at its rate, or at the relay's own, and some."""
    rate = min(traces.largest(shape, "rate") or 4 * RELAY_RATE, 4 * RELAY_RATE)
    return int(rate / 8 * qdiscs.longest(shape) * 1.25) + RELAY_SLACK


# Bringing the kernel there


class _State:
    """What is in the fabric: its interfaces by name and by index, and their queueing disciplines by index: outermost, and next inner."""

    def __init__(self, socket: Netlink) -> None:
        self.links = {link.name: link for link in socket.links()}
        self.names = {link.index: link.name for link in self.links.values()}
        # the kernel's own choice has no handle
        found = [qdisc for qdisc in socket.qdiscs() if qdisc.handle]
        self.qdiscs = {qdisc.index: qdisc for qdisc in found if qdisc.parent == netlink.ROOT}
        self.inner = {qdisc.index: qdisc for qdisc in found if qdisc.parent == qdiscs.BUCKET + 1}

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
            yield from self._queueing(name, made)
            if state.mtu(name) != state.mtu(segment.near):
                yield netlink.change(state.links[name].index, mtu=state.mtu(segment.near))
        for name, alias in made.aliases.items():
            if state.links[name].alias != alias:
                queue = TAP_QUEUE if made.kinds.get(name) == "tap" else None
                yield netlink.change(state.links[name].index, alias=alias, queue=queue)
        for name, bridge in made.masters.items():
            if state.master(name) != bridge:
                yield netlink.change(state.links[name].index, master=state.links[bridge].index)
        for name in sorted(made.interfaces):
            if not state.links[name].up:
                yield netlink.change(state.links[name].index, up=True)

    def _queueing(self, name: str, made: Layout) -> Iterator[Request]:
        index = self.state.links[name].index
        wanted, there = made.qdiscs.get(name), self.state.qdiscs.get(index)
        if wanted is None:
            if there is not None:
                yield netlink.remove_qdisc(index)
            return
        if there is not None and there.kind != wanted[0]:
            yield netlink.remove_qdisc(index)
        if not _is(there, wanted) or _is_unreadable(wanted):
            yield netlink.qdisc(index, *wanted, handle=qdiscs.BUCKET)
        elif _is(self.state.inner.get(index), made.inner.get(name)):
            return
        if name in made.inner:
            # always after the bucket, which gives a queue of packets its own limit in bytes
            yield inner_request(index, made.inner[name])


def inner_request(index: int, wanted: Qdisc) -> Request:
    """Put this into the token bucket of an interface."""
    return netlink.qdisc(index, *wanted, handle=qdiscs.WAITING[wanted[0]], parent=qdiscs.BUCKET + 1)


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
        index = state.links[name].index
        for wanted, there in ((made.qdiscs.get(name), state.qdiscs.get(index)), (made.inner.get(name), state.inner.get(index))):
            if not _is(there, wanted):
                yield f"{name} has {there.kind if there else 'no queueing discipline'}, not {wanted[0] if wanted else 'none'} as asked for"


def _is(there: netlink.Qdisc | None, wanted: Qdisc | None) -> bool:
    """Whether a queueing discipline is what is wanted, as far as the kernel tells."""
    return (qdiscs.essence(there.kind, there.options) if there else None) == (qdiscs.essence(*wanted) if wanted else None)


def _is_unreadable(wanted: Qdisc) -> bool:
    """Whether the kernel does not tell all of it: netem keeps its tables to itself."""
    return wanted[0] == "netem" and len(wanted[1]) > 2 * qdiscs.QUANTILES


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
