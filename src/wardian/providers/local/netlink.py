"""A small rtnetlink client: just what building networks of namespaces takes.

Requests are values (`Request`), made by the functions below and handed to `Netlink.send`, many in one system call. Every
acknowledgement is checked; a refusal is an OSError that says what was attempted and the kernel's own reason.

Why not pyroute2: its import alone takes 0.2 to 0.3 s, a third of what growing fifty nodes may take altogether.
Layouts are those of rtnetlink(7), <linux/if_link.h> and <linux/pkt_sched.h>.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_DUMP_INTERRUPTED = 0x10
_NESTED = 0x8000

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH = 28
_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_NEWCLASS, _DELCLASS = 40, 41
_NEWFILTER, _DELFILTER = 44, 45
_PROTOCOLS: dict[int, int] = {socket.AF_INET: 0x0800, socket.AF_INET6: 0x86DD}

_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_QDISC, _IFLA_MASTER = 1, 3, 4, 5, 6, 10
_IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP, _IFLA_NET_NS_FD = 13, 18, 20, 27, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_BR_AGEING_TIME, _BR_STP_STATE, _BR_MCAST_SNOOPING = 4, 5, 23

ROOT = 0xFFFFFFFF
"""The parent of a device's outermost queueing discipline."""

TICK = 64e-9
"""What the kernel counts time in for queueing disciplines, in seconds (PSCHED_SHIFT 6)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One rtnetlink message to be sent; `what` says in words what it is for."""

    what: str
    type: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface as the kernel shows it. `master` and `link` are interface indexes, 0 for none.

    carrier: whether something is at its other end; of a TAP device, whether a process has it open.
    """

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    master: int
    link: int
    alias: str
    qdisc: str
    carrier: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One IPv4 route; `to` is "0.0.0.0/0" for the default, `via` empty for a directly connected one."""

    to: str
    via: str
    index: int
    table: int


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One queueing discipline of an interface. `options` are the raw attributes of its kind."""

    index: int
    kind: str
    handle: int
    parent: int
    options: bytes


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of kind u32 that puts packets into a class, `target`.

    keys: (value, mask, offset of the word from the IP header on), all of which match.
    """

    family: int
    priority: int
    keys: tuple[tuple[int, int, int], ...]
    target: int


def enter_namespace(namespace: int) -> None:
    """Move the calling thread into the network namespace behind this file descriptor."""
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, f"entering a network namespace: {os.strerror(error)}")


def in_namespaces(namespaces: Sequence[int], make: Callable[[], _T]) -> list[_T]:
    """What `make` gives when called inside each of these network namespaces (file descriptors).

    A thread of its own enters them and ends there, so that no other code ever runs in the wrong namespace.
    """
    results: list[_T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            for namespace in namespaces:
                enter_namespace(namespace)
                results.append(make())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=work, name="wardian-netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return results


def in_namespace(namespace: int, make: Callable[[], _T]) -> _T:
    """What `make` gives when called inside one network namespace (a file descriptor)."""
    return in_namespaces([namespace], make)[0]


def interface_changes(namespace: int) -> socket.socket:
    """A socket that becomes readable whenever an interface of this namespace (a file descriptor) changes."""

    def listen() -> socket.socket:
        heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        link_group = 1
        heard.bind((0, link_group))
        return heard

    return in_namespace(namespace, listen)


class Netlink:
    """An rtnetlink socket, in the caller's network namespace. Use `Netlink.into` for another one."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        for option in (10, 11):  # NETLINK_CAP_ACK, NETLINK_EXT_ACK: short acknowledgements that give the reason in words
            self._socket.setsockopt(270, option, 1)
        self._sequence = 0

    @classmethod
    def into(cls, namespace: int) -> Netlink:
        """One whose requests act in the network namespace behind this file descriptor."""
        return in_namespace(namespace, cls)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, requests: Iterable[Request], *, ignore: Sequence[int] = ()) -> None:
        """Have the kernel carry out these, in order; those that come after a refused one are tried nevertheless.

        ignore: error numbers that are no failure here, such as ENODEV for the removal of what may be gone.
        Raises OSError for the first refusal.
        """
        pending = list(requests)
        # the kernel queues one acknowledgement a message in a socket buffer that holds a few hundred
        for start in range(0, len(pending), 100):
            self._exchange(pending[start : start + 100], ignore)

    def links(self) -> list[Link]:
        """Every interface of the namespace."""
        return [link_of(body) for kind, body in self._dump(_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)) if kind == _NEWLINK]

    def link(self, name: str) -> Link | None:
        """The interface of this name, or None."""
        try:
            body = self._get(_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, name))
        except OSError as error:
            if error.errno == 19:
                return None
            raise
        return link_of(body)

    def index(self, name: str) -> int:
        """The index of the interface of this name. Raises OSError (ENODEV) if there is none."""
        link = self.link(name)
        if link is None:
            raise OSError(19, f"interface {name}: no such device")
        return link.index

    def addresses(self) -> list[tuple[int, str]]:
        """Every IPv4 address as (interface index, "10.0.0.1/24")."""
        found = []
        for kind, body in self._dump(_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            if kind == _NEWADDR:
                length, index = body[1], struct.unpack_from("=I", body, 4)[0]
                attributes = dict(_attributes(body[8:]))
                raw = attributes.get(2) or attributes.get(1)
                if raw:
                    found.append((index, f"{socket.inet_ntoa(raw)}/{length}"))
        return found

    def routes(self) -> list[Route]:
        """Every IPv4 route of every table."""
        found = []
        for kind, body in self._dump(_GETROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            if kind == _NEWROUTE:
                attributes = dict(_attributes(body[12:]))
                to = socket.inet_ntoa(attributes.get(1, bytes(4)))
                via = socket.inet_ntoa(attributes[5]) if 5 in attributes else ""
                index = struct.unpack("=i", attributes[4])[0] if 4 in attributes else 0
                table = struct.unpack("=I", attributes[15])[0] if 15 in attributes else body[4]
                found.append(Route(f"{to}/{body[1]}", via, index, table))
        return found

    def qdiscs(self) -> list[Qdisc]:
        """Every queueing discipline of the namespace."""
        return [qdisc_of(body) for kind, body in self._dump(_GETQDISC, struct.pack("=BxxxiIII", 0, 0, 0, 0, 0)) if kind == _NEWQDISC]

    def _exchange(self, requests: list[Request], ignore: Sequence[int]) -> None:
        waiting = {}
        packet = []
        for request in requests:
            self._sequence += 1
            waiting[self._sequence] = request
            packet.append(_message(request, self._sequence))
        self._socket.send(b"".join(packet))
        failure: OSError | None = None
        while waiting:
            for kind, _flags, sequence, body in _messages(self._socket.recv(1 << 17)):
                request_ = waiting.pop(sequence, None) if kind == _NLMSG_ERROR else None
                if request_ is not None:
                    error = _refusal(request_.what, _flags, body)
                    if error is not None and error.errno not in ignore:
                        failure = failure or error
        if failure is not None:
            raise failure

    def _get(self, kind: int, body: bytes) -> bytes:
        self._sequence += 1
        self._socket.send(_message(Request("reading", kind, _REQUEST, body), self._sequence))
        for type_, flags, _sequence, answer in _messages(self._socket.recv(1 << 17)):
            if type_ == _NLMSG_ERROR:
                raise _refusal("reading an interface", flags, answer) or OSError(71, "reading an interface: no answer")
            return answer
        raise OSError(71, "reading an interface: no answer")

    def _dump(self, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        # a dump that was interrupted by a change may miss entries, so it is taken again
        for _attempt in range(20):
            answers, whole = self._dump_once(kind, body)
            if whole:
                break
        yield from answers

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        self._sequence += 1
        self._socket.send(_message(Request("reading", kind, _REQUEST | _DUMP, body), self._sequence))
        answers: list[tuple[int, bytes]] = []
        whole = True
        while True:
            for type_, flags, sequence, answer in _messages(self._socket.recv(1 << 17)):
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & _DUMP_INTERRUPTED
                if type_ == _NLMSG_DONE:
                    return answers, whole
                if type_ == _NLMSG_ERROR:
                    raise _refusal("reading the network's state", flags, answer) or OSError(71, "reading the network's state")
                answers.append((type_, answer))


def bridge(name: str, *, up: bool = True, mtu: int | None = None) -> Request:
    """Make a bridge that forwards from the first packet on: no spanning tree, no multicast snooping."""
    data = _u32(_BR_STP_STATE, 0) + _attribute(_BR_MCAST_SNOOPING, b"\0")
    info = _nest(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, "bridge") + _nest(_IFLA_INFO_DATA, data))
    body = _interface(0, up) + _text(_IFLA_IFNAME, name) + _mtu(mtu) + info
    return Request(f"making bridge {name}", _NEWLINK, _CREATE | _EXCLUSIVE, body)


def veth(
    name: str,
    peer: str,
    *,
    peer_namespace: int | None = None,
    peer_index: int = 0,
    peer_mac: str | None = None,
    up: bool = True,
    master: int = 0,
    mtu: int | None = None,
) -> Request:
    """Make a pair of virtual Ethernet interfaces, `name` here and `peer` in another namespace (a file descriptor) or here.

    peer_index: interface index of the peer, chosen freely in a namespace of its own; 0 lets the kernel choose.
    master: index of the bridge that `name` joins, or 0.

    The peer is down at first: the kernel opens no end before both exist.
    """
    inner = _interface(peer_index, False) + _text(_IFLA_IFNAME, peer) + _mtu(mtu)
    if peer_mac is not None:
        inner += _attribute(_IFLA_ADDRESS, bytes.fromhex(peer_mac.replace(":", "")))
    if peer_namespace is not None:
        inner += _u32(_IFLA_NET_NS_FD, peer_namespace)
    info = _nest(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, "veth") + _nest(_IFLA_INFO_DATA, _nest(_VETH_INFO_PEER, inner)))
    body = _interface(0, up) + _text(_IFLA_IFNAME, name) + _mtu(mtu) + (_u32(_IFLA_MASTER, master) if master else b"") + info
    return Request(f"making veth {name} with {peer}", _NEWLINK, _CREATE | _EXCLUSIVE, body)


def change(
    link: str | int,
    *,
    up: bool | None = None,
    master: int | None = None,
    alias: str | None = None,
    mtu: int | None = None,
    namespace: int | None = None,
    name: str | None = None,
    mac: str | None = None,
    queue: int | None = None,
    group: int | None = None,
) -> Request:
    """Change an interface, given by name or index; what is None stays.

    master: index of the bridge to join, 0 to leave. namespace: file descriptor of the network namespace to move to.
    queue: length of its transmit queue, packets. group: number that `remove_group` removes it by.
    """
    body = struct.pack("=BxHiII", 0, 0, link if isinstance(link, int) else 0, _IFF_UP if up else 0, 0 if up is None else _IFF_UP)
    if isinstance(link, str):
        body += _text(_IFLA_IFNAME, link)
    elif name is not None:
        body += _text(_IFLA_IFNAME, name)
    if master is not None:
        body += _u32(_IFLA_MASTER, master)
    if alias is not None:
        body += _attribute(_IFLA_IFALIAS, alias.encode()[:255])
    if mac is not None:
        body += _attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if namespace is not None:
        body += _u32(_IFLA_NET_NS_FD, namespace)
    if queue is not None:
        body += _u32(_IFLA_TXQLEN, queue)
    if group is not None:
        body += _u32(_IFLA_GROUP, group)
    return Request(f"changing interface {link}", _SETLINK, 0, body + _mtu(mtu))


def isolate(index: int) -> Request:
    """Have a bridge's member of this index reach only members that are not isolated."""
    body = struct.pack("=BxHiII", 7, 0, index, 0, 0) + _nest(12, _attribute(33, b"\1"))  # AF_BRIDGE, IFLA_PROTINFO, IFLA_BRPORT_ISOLATED
    return Request(f"isolating interface {index}", _SETLINK, 0, body)


def remove(link: str | int) -> Request:
    """Remove an interface, given by name or index; a veth's peer goes with it."""
    if isinstance(link, int):
        return Request(f"removing interface {link}", _DELLINK, 0, _interface(link, False))
    return Request(f"removing interface {link}", _DELLINK, 0, _interface(0, False) + _text(_IFLA_IFNAME, link))


def remove_group(group: int) -> Request:
    """Remove all interfaces of a group at once; one by one each waits for every processor, some 20 ms."""
    return Request(f"removing the interfaces of group {group}", _DELLINK, 0, _interface(0, False) + _u32(_IFLA_GROUP, group))


def address(index: int, address_: str, *, delete: bool = False) -> Request:
    """Give the interface of this index the IPv4 address "10.0.0.1/24" (or take it away)."""
    host, _, length = address_.partition("/")
    raw = socket.inet_aton(host)
    body = struct.pack("=BBBBI", socket.AF_INET, int(length or 32), 0, 0, index) + _attribute(2, raw) + _attribute(1, raw)
    kind, flags = (_DELADDR, 0) if delete else (_NEWADDR, _CREATE | _EXCLUSIVE)
    return Request(f"{'removing' if delete else 'setting'} address {address_}", kind, flags, body)


def neighbour(index: int, address_: str, mac: str) -> Request:
    """Tell the interface of this index for good which MAC address an IPv4 address on its link has."""
    permanent = 0x80
    body = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, permanent, 0, 0)
    body += _attribute(1, socket.inet_aton(address_)) + _attribute(2, bytes.fromhex(mac.replace(":", "")))
    return Request(f"setting the neighbour {address_}", _NEWNEIGH, _CREATE | _REPLACE, body)


def route(
    to: str, *, via: str | None = None, index: int = 0, source: str | None = None, onlink: bool = False, delete: bool = False
) -> Request:
    """Set the IPv4 route to a subnet ("0.0.0.0/0" for the default), replacing an earlier one to it (or take it away).

    source: the address that packets of this namespace's own carry when they go there.
    onlink: `via` counts as reachable through the interface `index` although no address there says so.
    """
    host, _, length = to.partition("/")
    bits = int(length or 32)
    scope = 0 if via or delete else 253
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, bits, 0, 0, 254, 0 if delete else 4, scope, 0 if delete else 1, 4 if onlink else 0)
    body = header + (_attribute(1, socket.inet_aton(host)) if bits else b"")
    if via:
        body += _attribute(5, socket.inet_aton(via))
    if index:
        body += _u32(4, index)
    if source:
        body += _attribute(7, socket.inet_aton(source))
    kind, flags = (_DELROUTE, 0) if delete else (_NEWROUTE, _CREATE | _REPLACE)
    return Request(f"{'removing' if delete else 'setting'} the route to {to}" + (f" via {via}" if via else ""), kind, flags, body)


def qdisc(index: int, kind: str, options: bytes = b"", *, handle: int = 0, parent: int = ROOT, replace: bool = True) -> Request:
    """Set a queueing discipline; `options` come from `tbf`, `netem`, `fifo` or `htb`.

    replace: put it in the place of what is there, or change it where the kind is the same; else there must be none.
    """
    body = struct.pack("=BxxxiIII", 0, index, handle, parent, 0) + _text(1, kind) + (_attribute(2, options) if options else b"")
    return Request(f"setting queueing discipline {kind}", _NEWQDISC, _CREATE | (_REPLACE if replace else _EXCLUSIVE), body)


def remove_qdisc(index: int, *, handle: int = 0, parent: int = ROOT) -> Request:
    """Remove a queueing discipline; the interface falls back to the kernel's default."""
    return Request("removing a queueing discipline", _DELQDISC, 0, struct.pack("=BxxxiIII", 0, index, handle, parent, 0))


def traffic_class(index: int, kind: str, options: bytes, *, handle: int, parent: int, replace: bool = True) -> Request:
    """Set a class of a classful queueing discipline; `options` come from `htb_class`."""
    body = struct.pack("=BxxxiIII", 0, index, handle, parent, 0) + _text(1, kind) + _attribute(2, options)
    return Request(f"setting a class of {kind}", _NEWCLASS, _CREATE | (_REPLACE if replace else _EXCLUSIVE), body)


def remove_class(index: int, handle: int, parent: int) -> Request:
    """Remove a class with all that is in it; no filter may name it any more."""
    return Request("removing a class", _DELCLASS, 0, struct.pack("=BxxxiIII", 0, index, handle, parent, 0))


def classify(index: int, parent: int, chosen: Filter) -> Request:
    """Have a classful queueing discipline put the packets that match into a class; one filter has one priority."""
    selector = struct.pack("=BBBxHHhhI", 1, 0, len(chosen.keys), 0, 0, 0, 0, 0)
    selector += b"".join(struct.pack(">II", mask, value) + struct.pack("=ii", offset, 0) for value, mask, offset in chosen.keys)
    options = _u32(1, chosen.target) + _attribute(5, selector)
    body = struct.pack("=BxxxiIII", 0, index, 0, parent, _filter_word(chosen)) + _text(1, "u32") + _attribute(2, options)
    return Request("setting a filter", _NEWFILTER, _CREATE | _EXCLUSIVE, body)


def remove_filter(index: int, parent: int, chosen: Filter) -> Request:
    """Remove the filters of this one's priority."""
    return Request("removing a filter", _DELFILTER, 0, struct.pack("=BxxxiIII", 0, index, 0, parent, _filter_word(chosen)))


def asking_qdiscs() -> tuple[int, bytes]:
    """Type and body of the request for all queueing disciplines."""
    return _GETQDISC, struct.pack("=BxxxiIII", 0, 0, 0, 0, 0)


def asking_links() -> tuple[int, bytes]:
    """Type and body of the request for all interfaces."""
    return _GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)


def asking_route(packed: bytes) -> tuple[int, bytes]:
    """Type and body of the request for the way to an address, 4 or 16 bytes."""
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return _GETROUTE, struct.pack("=BBBBBBBBI", family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0) + _attribute(1, packed)


def interface_of_route(body: bytes) -> int:
    """The index of the interface that a route leaves by, from the body of a message about it; 0 where it has none."""
    found = dict(_attributes(body[12:]))
    return int(struct.unpack("=i", found[4])[0]) if 4 in found else 0


def qdisc_of(body: bytes) -> Qdisc:
    """A queueing discipline from the body of a message about it."""
    index, handle, parent = struct.unpack_from("=iII", body, 4)
    attributes = dict(_attributes(body[20:]))
    return Qdisc(index, _string(attributes.get(1, b"")), handle, parent, attributes.get(2, b""))


def filter_of(body: bytes) -> Filter | None:
    """A filter from the body of a message about it; None for what is none of kind u32 that names a class."""
    (word,) = struct.unpack_from("=I", body, 16)
    attributes = dict(_attributes(body[20:]))
    options = dict(_attributes(attributes.get(2, b"")))
    protocol = socket.ntohs(word & 0xFFFF)
    family = next((family for family, number in _PROTOCOLS.items() if number == protocol), 0)
    if _string(attributes.get(1, b"")) != "u32" or 1 not in options or 5 not in options:
        return None
    keys = []
    for number in range(options[5][2]):
        mask, value = struct.unpack_from(">II", options[5], 16 + 16 * number)
        keys.append((value, mask, struct.unpack_from("=i", options[5], 24 + 16 * number)[0]))
    return Filter(family, word >> 16, tuple(keys), struct.unpack("=I", options[1])[0])


def _filter_word(chosen: Filter) -> int:
    return chosen.priority << 16 | socket.htons(_PROTOCOLS[chosen.family])


def tbf(rate: float, *, burst: int, limit: int, mtu: int = 0, peak: float | None = None) -> bytes:
    """Options of a token bucket, tc-tbf(8): rate and peak in bits a second; burst, limit and mtu in bytes."""
    slow, slow64 = _rate(rate, _TBF_RATE64)
    fast, fast64 = _rate(peak, _TBF_PRATE64) if peak else (bytes(12), b"")
    parameters = slow + fast + struct.pack("=III", limit, _ticks(burst, rate), _ticks(mtu, peak) if peak else 0)
    options = _attribute(1, parameters) + slow64 + fast64 + _u32(6, burst)
    return options + (_u32(7, mtu) if peak else b"")


def netem(
    *,
    limit: int,
    delay: float = 0.0,
    jitter: float = 0.0,
    distribution: Sequence[int] = (),
    loss: float = 0.0,
    burst: float | None = None,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    rate: float | None = None,
) -> bytes:
    """Options of tc-netem(8): limit in packets, delay and jitter in seconds, the others as fractions, rate in bits a second.

    distribution: quantiles of the jitter at equal steps, in 8192ths of it. burst: how many packets in a row are lost on average
    (the simple Gilbert model); None for independent losses.
    """
    ticks = [min(round(value / TICK), 0xFFFFFFFF) for value in (delay, jitter)]
    independent = loss if burst is None else 0.0
    head = struct.pack("=IIIIII", ticks[0], limit, _share(independent), 1 if reorder else 0, _share(duplicate), ticks[1])
    options = head + _attribute(10, struct.pack("=q", round(delay * 1e9))) + _attribute(11, struct.pack("=q", round(jitter * 1e9)))
    # always told, since it keeps an earlier one
    options += _attribute(3, struct.pack("=II", _share(reorder), 0))
    if distribution:
        options += _attribute(2, struct.pack(f"={len(distribution)}h", *distribution))
    if loss and burst is not None:
        begin, end = gilbert(loss, burst)
        options += _nest(5, _attribute(2, struct.pack("=IIII", _share(begin), _share(end), 0, 0)))
    if rate:
        octets = int(rate / 8)
        options += _attribute(6, struct.pack("=IiIi", min(octets, 0xFFFFFFFF), 0, 0, 0))
        options += _attribute(8, struct.pack("=Q", octets)) if octets > 0xFFFFFFFF else b""
    return options


def gilbert(loss: float, burst: float) -> tuple[float, float]:
    """The chances that a run of losses begins and ends at a packet, for a share of losses and their mean number in a row."""
    end = 0.0 if loss == 1 else 1 / burst
    return (1.0 if loss == 1 else min(loss * end / (1 - loss), 1.0)), end


def managed(limit: int) -> bytes:
    """Options of `codel`, `fq_codel` and `pie`: limit in packets; the rest is the kernel's choice."""
    return _u32(2, limit)


def fifo(limit: int) -> bytes:
    """Options of `bfifo` (limit in bytes) and `pfifo` (in packets), tc-bfifo(8)."""
    return struct.pack("=I", limit)


def htb(default: int = 0) -> bytes:
    """Options of tc-htb(8) itself; default: minor number of the class for what no filter picks."""
    return _attribute(2, struct.pack("=IIIII", 3, 10, default, 0, 0))


def htb_class(rate: float, *, ceiling: float | None = None, burst: int = 15000, quantum: int = 0) -> bytes:
    """Options of a class of tc-htb(8): rate and ceiling in bits a second, burst and quantum in bytes; the kernel chooses a quantum of 0."""
    most = ceiling or rate
    slow, slow64 = _rate(rate, 6)
    fast, fast64 = _rate(most, 7)
    return _attribute(1, slow + fast + struct.pack("=IIIII", _ticks(burst, rate), _ticks(burst, most), quantum, 0, 0)) + slow64 + fast64


def tap(name: str, *, persistent: bool = False) -> int:
    """Make a TAP interface in the calling thread's network namespace and give its file descriptor, non-blocking.

    The interface lives as long as the descriptor is open; a persistent one until it is removed.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # TUNSETIFF with IFF_TAP | IFF_NO_PI: whole Ethernet frames, nothing in front of them
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000))
        if persistent:
            fcntl.ioctl(descriptor, 0x400454CB, 1)  # TUNSETPERSIST
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def disable_offloads(names: Iterable[str], *, checksums: bool = False) -> None:
    """Have these interfaces of the calling thread's namespace carry packets of wire size: no TSO, GSO or GRO.

    checksums: also have checksums computed in software, for what leaves the kernel as bytes.
    """
    commands = [0x1F, 0x24, 0x2C] + ([0x17] if checksums else [])  # ETHTOOL_STSO, _SGSO, _SGRO, _STXCSUM
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        for name in names:
            for command in commands:
                value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
                request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
                try:
                    fcntl.ioctl(control, 0x8946, request)
                except OSError as error:
                    if error.errno != 95:  # EOPNOTSUPP: an interface without it has nothing to turn off
                        raise OSError(error.errno, f"turning offloads of {name} off: {error.strerror}") from None


_TBF_RATE64, _TBF_PRATE64 = 4, 5


def _rate(bits: float, wide: int) -> tuple[bytes, bytes]:
    octets = max(int(bits / 8), 1)
    # link layer 1 is Ethernet: with it the kernel computes transmission times itself and needs no table
    narrow = struct.pack("=BBHhHI", 0, 1, 0, 0, 0, min(octets, 0xFFFFFFFF))
    return narrow, _attribute(wide, struct.pack("=Q", octets)) if octets > 0xFFFFFFFF else b""


def _ticks(octets: int, bits: float) -> int:
    return min(int(octets * 8 / bits / TICK), 0xFFFFFFFF)


def _share(fraction: float) -> int:
    return min(round(fraction * 0xFFFFFFFF), 0xFFFFFFFF)


def _interface(index: int, up: bool) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, _IFF_UP if up else 0, _IFF_UP if up else 0)


def _mtu(mtu: int | None) -> bytes:
    return b"" if mtu is None else _u32(_IFLA_MTU, mtu)


def _attribute(kind: int, value: bytes) -> bytes:
    length = len(value) + 4
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _message(request: Request, sequence: int) -> bytes:
    flags = request.flags | _REQUEST | (_ACK if not request.flags & _REQUEST else 0)
    padding = bytes(-len(request.body) % 4)
    return struct.pack("=IHHII", len(request.body) + 16, request.type, flags, sequence, 0) + request.body + padding


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence = struct.unpack_from("=IHHI", data, offset)
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _refusal(what: str, flags: int, body: bytes) -> OSError | None:
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return None
    reason = os.strerror(number)
    if flags & 0x200:
        explained = dict(_attributes(body[20:])).get(1)
        reason += f" ({_string(explained)})" if explained else ""
    return OSError(number, f"{what}: {reason}")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def link_of(body: bytes) -> Link:
    """An interface from the body of a message about it."""
    index, flags = struct.unpack_from("=iI", body, 4)
    found = dict(_attributes(body[16:]))
    info = dict(_attributes(found.get(_IFLA_LINKINFO, b"")))

    def number(kind: int) -> int:
        return int(struct.unpack("=I", found[kind])[0]) if kind in found else 0

    return Link(
        index=index,
        name=_string(found.get(_IFLA_IFNAME, b"")),
        kind=_string(info.get(_IFLA_INFO_KIND, b"")),
        up=bool(flags & _IFF_UP),
        mtu=number(_IFLA_MTU),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        master=number(_IFLA_MASTER),
        link=number(_IFLA_LINK),
        alias=_string(found.get(_IFLA_IFALIAS, b"")),
        qdisc=_string(found.get(_IFLA_QDISC, b"")),
        carrier=bool(flags & _IFF_LOWER_UP),
    )
