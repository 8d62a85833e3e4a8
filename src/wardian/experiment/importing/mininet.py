"""Mininet's topologies: Python scripts that add hosts, switches and links, as far as they can be followed without being run."""

from __future__ import annotations

import ast
import ipaddress
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ExperimentFileError, Problem
from ..model import Access, Link
from . import standard
from .draft import Draft
from .following import Script
from .objects import UNKNOWN, Class, Element, External, Instance, TooLong
from .report import Spot

WHAT = "a Mininet topology: a Python script with a class that derives from Topo, or with Mininet()"

LONGEST = 2**20
"""Longest script that is followed, bytes."""

_HOSTS = ("addHost", "addDocker", "addStation", "addNode")
_SWITCHES = ("addSwitch", "addAccessPoint", "addHub")
_GROWING = {*_HOSTS, *_SWITCHES, "addLink", "addNAT", "addCable"}
_SHAPE = ("bw", "delay", "jitter", "loss", "max_queue_size")
_OF_LINKS = {*_SHAPE, "cls", "port1", "port2", "params1", "params2", "intfName1", "intfName2", "fast", "use_htb", "use_hfsc", "use_tbf"}
_OF_HOSTS = {"ip", "cls", "mac", "defaultRoute", "cpu", "inNamespace", "isSwitch", "dpid", "dimage", "cores", "sched", "period_us"}


@dataclass(slots=True)
class _Node:
    name: str
    spot: Spot
    options: dict[str, Any]
    switch: bool


@dataclass(slots=True)
class _Wire:
    ends: tuple[str, str]
    spot: Spot
    options: dict[str, Any]


@dataclass(slots=True)
class _Topology:
    """What one topology is made of.

    line: where it is made.
    of_links, of_hosts: the parameters of links and hosts that say nothing else.
    """

    name: str
    line: int
    nodes: dict[str, _Node] = field(default_factory=dict)
    wires: list[_Wire] = field(default_factory=list)
    of_links: dict[str, Any] = field(default_factory=dict)
    of_hosts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Preset:
    """A class of links or hosts with parameters set beforehand."""

    options: dict[str, Any]


def draft(draft: Draft, text: bytes) -> None:
    """Fill a draft with what a script makes. Raises ExperimentFileError when that is no topology, or cannot be followed."""
    tree = parse(text, draft.source)
    reader = _Reader(draft)
    script = Script(tree, reader)
    try:
        script.run()
        _others(script, reader)
    except (TooLong, RecursionError):
        raise ExperimentFileError([Problem("", "the script does more than is followed", draft.source, 1, 1, WHAT)]) from None
    found = [topology for topology in reader.topologies if topology.nodes]
    if not found:
        problems = [Problem("", note.message, draft.source, note.spot.line, 1, WHAT) for note in draft.notes if note.spot.line]
        raise ExperimentFileError(problems[:1] or [Problem("", "no topology is made here that can be followed", draft.source, 1, 1, WHAT)])
    chosen = max(found, key=lambda topology: topology is found[0])
    for other in found[1:]:
        draft.left(Spot(draft.source, other.line, other.name), f"another topology: {chosen.name} is taken, as the first")
    _Mapping(draft, chosen).take()


def parse(text: bytes, source: str) -> ast.Module:
    """The syntax tree of a script. Raises ExperimentFileError where it is no Python, or too long for a topology."""
    if len(text) > LONGEST:
        raise ExperimentFileError([Problem("", "the script is too long", source, 1, 1, f"at most {LONGEST:,} bytes", f"{len(text):,}")])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, source)
    except SyntaxError as error:
        said = f"not valid Python: {error.msg}"
        raise ExperimentFileError([Problem("", said, source, error.lineno or 1, error.offset or 1, WHAT)]) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExperimentFileError([Problem("", f"not a Python script: {error or 'too deep'}", source, 1, 1, WHAT)]) from None


def _others(script: Script, reader: _Reader) -> None:
    """Where running the script makes no topology: what `topos` offers to `mn --custom`, the classes, and at last the functions."""
    offered = script.scope.get("topos")
    if not reader.topologies and isinstance(offered, dict):
        for item in offered.values():
            if isinstance(item, Class):
                script.make(item, [], {}, item.node.lineno)
            elif hasattr(item, "node"):
                script.call(item, [], {})
    classes = [item for item in script.scope.values() if isinstance(item, Class) and "Topo" in item.ancestors()]
    if not any(topology.nodes for topology in reader.topologies):
        for item in classes:
            script.make(item, [], {}, item.node.lineno)
    if not any(topology.nodes for topology in reader.topologies):
        for item in list(script.scope.values()):
            if hasattr(item, "node") and isinstance(item.node, ast.FunctionDef) and _grows(item.node):
                script.call(item, [], {})


def _grows(node: ast.AST) -> bool:
    """Whether a part of a script adds to a topology."""
    return any(isinstance(item, ast.Attribute) and item.attr in _GROWING for item in ast.walk(node))


class _Reader:
    """Notes what the script makes."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.topologies: list[_Topology] = []

    def made(self, cls: Class | External, arguments: list[Any], named: dict[str, Any], line: int) -> Any:
        if isinstance(cls, Class):
            if "Topo" not in cls.ancestors() and not any(name.endswith(("Topo", "Mininet")) for name in cls.ancestors()):
                return None
            return self._new(cls.name, line)
        if cls.name in ("partial", "custom"):
            return _Preset(named)
        if not cls.name.endswith("net") or not cls.name[0].isupper():
            return self._standard(cls.name, arguments, named, line)
        # Mininet, Containernet and their like
        subjects = [item.subject for item in (*arguments, named.get("topo")) if isinstance(item, Instance)]
        topology: _Topology = next((item for item in subjects if isinstance(item, _Topology)), None) or self._new(cls.name, line)
        topology.of_links |= _preset(named.get("intf")) | _preset(named.get("link"))
        topology.of_hosts |= _preset(named.get("host"))
        return topology

    def _new(self, name: str, line: int) -> _Topology:
        self.topologies.append(_Topology(name, line))
        return self.topologies[-1]

    def _standard(self, name: str, arguments: list[Any], named: dict[str, Any], line: int) -> _Topology | None:
        """Topologies that Mininet brings along."""
        spot = Spot(self.draft.source, line, name)
        if name not in standard.NAMES:
            if name.endswith("Topo") and name != "Topo":
                self.draft.left(spot, "a topology of a library, which is not read")
            return None
        links = standard.links(name, arguments, named)
        if links is None:
            self.draft.left(spot, "its size is only known when the script runs, or is too large")
            return None
        topology = self._new(name, line)
        shape = named["lopts"] if isinstance(named.get("lopts"), dict) else {}
        for end in sorted({end for link in links for end in link}, key=lambda end: (len(end), end)):
            topology.nodes[end] = _Node(end, spot, {}, switch=end.startswith("s"))
        topology.wires += [_Wire(link, spot, dict(shape)) for link in links]
        return topology

    def called(self, subject: Any, method: str, arguments: list[Any], named: dict[str, Any], line: int) -> Any:
        if not isinstance(subject, _Topology):
            return UNKNOWN
        topology, spot = subject, Spot(self.draft.source, line, method)
        if method in _HOSTS or method in _SWITCHES:
            return self._node(topology, method, arguments, named, spot)
        if method == "addLink":
            self._wire(topology, arguments, named, spot)
        elif method in ("get", "getNodeByName", "nodeInfo"):
            names = [topology.nodes[str(item)].name for item in arguments if str(item) in topology.nodes]
            return Element(names[0]) if len(names) == len(arguments) == 1 else [Element(name) for name in names] or UNKNOWN
        elif method in ("hosts", "switches", "nodes"):
            return [Element(item.name) for item in topology.nodes.values() if method == "nodes" or item.switch == (method == "switches")]
        elif method == "addNAT":
            self.draft.left(spot, "no node translates addresses: write `internet: yes` at nodes that reach out")
        elif method in ("addController",):
            self.draft.left(spot, "networks are plain switches, which no controller programs")
        return UNKNOWN

    def _node(self, topology: _Topology, method: str, arguments: list[Any], named: dict[str, Any], spot: Spot) -> Any:
        name = arguments[0] if arguments else named.get("name")
        if not isinstance(name, str) or not name:
            self.draft.left(spot, "the name is only known when the script runs")
            return UNKNOWN
        options = {key: value for key, value in named.items() if key != "name"}
        switch = method in _SWITCHES or options.get("isSwitch") is True
        topology.nodes.setdefault(name, _Node(str(name), spot, options, switch))
        return Element(name)

    def _wire(self, topology: _Topology, arguments: list[Any], named: dict[str, Any], spot: Spot) -> None:
        options = dict(named)
        ends = [*arguments[:2], *(options.pop(key) for key in ("node1", "node2") if key in options)]
        if len(ends) != 2 or any(not isinstance(end, str) or end not in topology.nodes for end in ends):
            self.draft.left(spot, "what it joins is only known when the script runs")
            return
        options |= dict(zip(("port1", "port2"), arguments[2:4], strict=False))
        topology.wires.append(_Wire((str(ends[0]), str(ends[1])), spot, options))

    def element(self, element: Element, method: str, arguments: list[Any], line: int) -> Any:
        spot = Spot(self.draft.source, line, method)
        if method in ("cmd", "cmdPrint", "sendCmd", "popen", "pexec"):
            self.draft.left(spot, "commands of the script are not run: write a service, or a cell on the node")
        elif method.startswith("set") or method.startswith("add"):
            self.draft.left(spot, "what the script does to a node once it is there is not done")
        return UNKNOWN

    def assumed(self, node: ast.AST, name: str) -> None:
        spot = Spot(self.draft.source, getattr(node, "lineno", None), name)
        self.draft.changed(spot, "is only known when the script runs: its default is taken")

    def skipped(self, node: ast.AST, why: str) -> None:
        if _grows(node):
            line = getattr(node, "lineno", None)
            self.draft.left(Spot(self.draft.source, line, type(node).__name__.lower()), f"adds to the topology, but {why}")


class _Mapping:
    """Hosts as nodes; each switch as a network; links between switches as links."""

    def __init__(self, draft: Draft, topology: _Topology) -> None:
        self.draft = draft
        self.topology = topology
        for item in topology.nodes.values():
            item.options = {**({} if item.switch else topology.of_hosts), **item.options}
        for wire in topology.wires:
            wire.options = {**topology.of_links, **wire.options}
        self.pairs: set[frozenset[str]] = set()
        self.wires: dict[str, list[_Wire]] = {}
        for wire in topology.wires:
            for end in wire.ends:
                self.wires.setdefault(end, []).append(wire)

    def take(self) -> None:
        draft = self.draft
        for item in self.topology.nodes.values():
            if item.switch:
                draft.add("networks", item.name)
        for item in self.topology.nodes.values():
            if not item.switch:
                self._host(item)
        for wire in self.topology.wires:
            self._wire(wire)
        for item in self.topology.nodes.values():
            if not item.switch:
                self._addresses(item)
        joined = [wire for wire in self.topology.wires if self._is_switch(wire.ends[0]) and self._is_switch(wire.ends[1])]
        if joined:
            said = "switches that are joined are networks with a routed link between them, each with addresses of its own"
            draft.changed(joined[0].spot, said)
        draft.changed(Spot(draft.source, self.topology.line, self.topology.name), "interfaces are called eth0, eth1, … on every node")

    def _is_switch(self, name: str) -> bool:
        return self.topology.nodes[name].switch

    def _host(self, item: _Node) -> None:
        draft = self.draft
        name = draft.add("nodes", item.name, {"networks": {}})
        at = ("nodes", name)
        if _routes(item.options.get("cls")):
            draft.entries["nodes"][name]["routes"] = True
        if isinstance(item.options.get("dimage"), str):
            draft.image(name, item.options["dimage"], item.spot)
        share = item.options.get("cpu")
        if isinstance(share, int | float) and share > 0:
            draft.put("nodes", name, "cpus", float(share), item.spot)
            draft.changed(item.spot, "cpu is a share of the whole machine there, and processors here", at)
        if item.options.get("mac"):
            draft.left(item.spot, "interfaces have hardware addresses of their own", at)
        if item.options.get("defaultRoute"):
            draft.changed(item.spot, "routes are found from the networks, not written", at)
        for key in item.options:
            if key not in _OF_HOSTS:
                draft.left(item.spot, f"`{key}` of a host has no counterpart", at)

    # Links

    def _wire(self, wire: _Wire) -> None:
        draft = self.draft
        for key in wire.options:
            if key not in _OF_LINKS:
                draft.left(wire.spot, f"`{key}` of a link has no counterpart")
        first, second = wire.ends
        if first == second:
            draft.left(wire.spot, "joins a node to itself")
        elif self._is_switch(first) and self._is_switch(second):
            self._link(wire)
        elif self._is_switch(first) or self._is_switch(second):
            host, switch = (second, first) if self._is_switch(first) else (first, second)
            self._access(wire, host, draft.known("networks", switch) or "")
        else:
            network = draft.add("networks", f"{first}-{second}")
            self._access(wire, first, network)
            draft.join(draft.known("nodes", second) or "", network)

    def _link(self, wire: _Wire) -> None:
        between = [self.draft.known("networks", end) or "" for end in wire.ends]
        if frozenset(between) in self.pairs:
            self.draft.left(wire.spot, "a second link between the same two switches: there is one at most")
            return
        self.pairs.add(frozenset(between))
        name = self.draft.add("links", f"{wire.ends[0]}-{wire.ends[1]}")
        shape = self.draft.fitting(Link, {"between": between, **self._shape(wire)}, wire.spot, ("links", name))
        self.draft.entries["links"][name] = shape

    def _access(self, wire: _Wire, host: str, network: str) -> None:
        name = self.draft.known("nodes", host) or ""
        if network in self.draft.entries["nodes"][name]["networks"]:
            self.draft.left(wire.spot, "a second link to the same switch: one is enough here", ("nodes", name))
            return
        self.draft.join(name, network, self.draft.fitting(Access, self._shape(wire), wire.spot, ("nodes", name)))

    def _shape(self, wire: _Wire) -> dict[str, Any]:
        """What a TCLink does each way, in the experiment's words; what needs another part stands after it."""
        shape: dict[str, Any] = {}
        for key in _SHAPE:
            value = wire.options.get(key)
            if value is None or value == 0:
                continue
            if value is UNKNOWN or isinstance(value, bool) or not isinstance(value, int | float | str):
                self.draft.left(wire.spot, f"{key} is only known when the script runs")
                continue
            shape |= _part(key, value)
        for part, needed in (("queue", "rate"), ("jitter", "delay")):
            if part in shape and needed not in shape:
                del shape[part]
                self.draft.left(wire.spot, f"a {part} without a {needed} has no effect")
        self.draft.kept["link parameters"] += len(shape)
        return shape

    # Addresses

    def _addresses(self, item: _Node) -> None:
        draft = self.draft
        name = draft.known("nodes", item.name) or ""
        networks = list(draft.entries["nodes"][name]["networks"])
        if draft.entries["nodes"][name].get("routes") and len(networks) < 2:
            del draft.entries["nodes"][name]["routes"]
        written: dict[str, tuple[str, Spot]] = {}
        if networks and isinstance(item.options.get("ip"), str):
            written[networks[0]] = (item.options["ip"], item.spot)
        for wire in self.wires.get(item.name, []):
            for end, other, key in ((0, 1, "params1"), (1, 0, "params2")):
                parameters = wire.options.get(key)
                if wire.ends[end] == item.name and isinstance(parameters, Mapping) and isinstance(parameters.get("ip"), str):
                    network = draft.known("networks", wire.ends[other]) or draft.known("networks", f"{wire.ends[0]}-{wire.ends[1]}")
                    if network is not None and network in networks:
                        written[network] = (parameters["ip"], wire.spot)
        for network, (address, spot) in written.items():
            draft.address(name, network, _with_prefix(address), spot)


def _part(key: str, value: float | str) -> dict[str, Any]:
    """One parameter of a TCLink: Mbit/s, a time as tc(8) reads it, percent, packets."""
    match key:
        case "bw":
            return {"rate": f"{value}mbit"}
        case "loss":
            return {"loss": f"{value}%"}
        case "max_queue_size":
            return {"queue": value}
        case _:
            text = str(value).strip().lower().removesuffix("ecs").removesuffix("ec")
            return {key: f"{text}us" if text.replace(".", "", 1).isdecimal() else text}


def _preset(value: Any) -> dict[str, Any]:
    return value.subject.options if isinstance(value, Instance) and isinstance(value.subject, _Preset) else {}


def _with_prefix(address: str) -> str:
    """An address with the prefix that Mininet gives those without one."""
    try:
        return address if "/" in address else str(ipaddress.IPv4Interface(f"{address}/8"))
    except ValueError:
        return address


def _routes(cls: Any) -> bool:
    """Whether a class of nodes forwards between its networks, by its name or by what it sets."""
    name = cls.name if isinstance(cls, Class | External) else ""
    return "router" in name.lower() or (isinstance(cls, Class) and "ip_forward" in ast.dump(cls.node))
