"""containerlab's topologies (`*.clab.yml`): nodes that are containers, and links between two interfaces each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ExperimentFileError, Problem
from . import quantities
from .draft import Draft
from .reading import Layers, Text, Value, variables

WHAT = "a containerlab topology: a mapping with `name` and `topology`"
MANAGEMENT = "mgmt"
MANAGEMENT_SUBNET = "172.20.20.0/24"

_BRIDGES = ("bridge", "ovs-bridge")
_ELSEWHERE = {
    "host": "is the machine itself, which is no node",
    "ext-container": "is a container that others made, which is no node",
    "k8s-kind": "is a Kubernetes cluster, which no node is",
}
_SPECIAL = ("host", "mgmt-net", "macvlan", "vxlan", "vxlan-stitch", "dummy")
_TAKEN = {"kind", "image", "exec", "binds", "env", "env-files", "ports", "cpu", "memory", "group", "cmd", "entrypoint", "mgmt-ipv4",
          "mgmt_ipv4", "network-mode", "cap-add", "sysctls", "healthcheck", "restart-policy"}  # fmt: skip
_SILENT = {"labels", "position", "type"}
_SAID = {
    "startup-config": "the configuration is not loaded: no software of the image is driven from outside",
    "license": "the licence is not installed",
    "startup-delay": "nodes start at once",
    "stages": "nodes start at once, in no order",
    "mgmt-ipv6": "nodes have IPv4 addresses only",
}


def draft(draft: Draft, text: bytes, values: Mapping[str, str]) -> None:
    """Fill a draft with what a topology says. Raises ExperimentFileError when it is none."""
    _Topology(draft, Text(text, draft.source, WHAT, values)).take()


@dataclass(slots=True)
class _Wires:
    """What leads to one node: {interface: (network, its address there if one is written)}, in the order of the file."""

    interfaces: dict[str, tuple[str, Value]] = field(default_factory=dict)


class _Topology:
    def __init__(self, draft: Draft, text: Text) -> None:
        self.draft = draft
        self.text = text
        self.root = text.root
        self.topology = self.root["topology"]
        self.layers: dict[str, Layers] = {}
        self.bridges: set[str] = set()
        self.wires: dict[str, _Wires] = {}
        self.sizes: dict[str, dict[str, Any]] = {}

    def take(self) -> None:
        nodes = self.topology["nodes"]
        if not isinstance(nodes.data, dict) or not nodes.data:
            spot = nodes.spot
            expected = "a mapping from names to nodes"
            raise ExperimentFileError([Problem("topology.nodes", "missing", spot.file, spot.line, 1, expected)])
        self.draft.head["name"] = self.root["name"].text
        for node in nodes.entries():
            self._node(node)
        for link in self.topology["links"].items():
            self._link(link)
        self._management()
        for name in self.layers:
            self._connect(name)
        self._rest()

    def _rest(self) -> None:
        if self.draft.containers:
            said = "are privileged there; here they have the capability NET_ADMIN, and those that are written"
            self.draft.changed(self.topology["nodes"].spot, said)
        for key in self.root.data:
            if key not in ("name", "topology", "mgmt", "prefix") and not key.startswith("x-"):
                self.draft.left(self.root[key].spot, "has no counterpart")
        for name, path in self.text.unset.items():
            self.draft.changed(Value(self.text, path, None).spot, f"the variable {name} has no value, and counts as empty")

    # Nodes

    def _node(self, node: Value) -> None:
        layers = self._layers_of(node)
        kind = layers["kind"].text or "linux"
        if kind in _BRIDGES:
            self.bridges.add(node.key)
            self.draft.add("networks", node.key)
            self.draft.changed(
                node.spot, "a bridge of the host is a network here", ("networks", self.draft.known("networks", node.key) or "")
            )
            return
        if kind in _ELSEWHERE:
            self.draft.left(node.spot, f"kind {kind} {_ELSEWHERE[kind]}")
            return
        name = self.draft.add("nodes", node.key)
        self.layers[node.key] = layers
        self.wires[node.key] = _Wires()
        if kind not in ("linux", "cjunosevolved") and self.draft.containers:
            said = "grown as an ordinary container of its image, without what containerlab does for that system (configuration, licence, \
start command, disks)"
            self.draft.changed(layers["kind"].spot, f"kind {kind}: {said}", ("nodes", name))
        self._properties(node, name, layers)

    def _layers_of(self, node: Value) -> Layers:
        """defaults, then the kind's, then the group's, then the node's own: the later say more."""
        defaults = self.topology["defaults"]
        group = node["group"] or defaults["group"]
        shared = self.topology["groups"][group.text]
        kind = node["kind"] or shared["kind"] or defaults["kind"]
        return Layers([defaults, self.topology["kinds"][kind.text or "linux"], shared, node])

    def _properties(self, node: Value, name: str, layers: Layers) -> None:
        draft, at = self.draft, ("nodes", name)
        if layers["image"]:
            draft.image(name, layers["image"].text, layers["image"].spot)
        if layers["group"]:
            role = re.sub("[^a-z0-9-]", "-", layers["group"].text.lower())
            draft.append(name, "roles", role, layers["group"].spot)
        for key, field_, read in (("cpu", "cpus", float), ("memory", "memory", quantities.memory)):
            quantities.put(draft, name, field_, layers[key].data, read, layers[key].spot)
        for value in layers.all("env"):
            for variable, text, where in value.pairs():
                draft.variable(name, variable, text or "", where.spot)
        for value in layers.all("env-files"):
            for item in value.items():
                self._variables(name, item)
        for value in layers.all("binds"):
            for item in value.items():
                self._bind(name, item)
        if draft.containers:
            for value in layers.all("ports"):
                for item in value.items():
                    quantities.port(draft, name, item.text, item.spot)
            for value in layers.all("cap-add"):
                for item in value.items():
                    draft.capabilities(name, item.text, spot=item.spot)
            draft.capabilities(name, "NET_ADMIN", spot=node.spot)
        for value in layers.all("sysctls"):
            for key, _, where in value.pairs():
                if not key.endswith("ip_forward"):
                    draft.left(where.spot, "kernel settings of a node are not set", at)
        self._commands(name, layers)
        for key in layers.names():
            if key in _SAID:
                draft.left(layers[key].spot, _SAID[key], at)
            elif key not in _TAKEN | _SILENT:
                draft.left(layers[key].spot, f"`{key}` has no counterpart", at)

    def _variables(self, name: str, item: Value) -> None:
        place = self.draft.place(item.text)
        text = self.draft.folder.read(place) if place else None
        if text is None:
            self.draft.left(item.spot, f"there is no {item.text}", ("nodes", name))
            return
        for variable, value in variables(text):
            self.draft.variable(name, variable, value, item.spot)

    def _bind(self, name: str, item: Value) -> None:
        source, _, rest = item.text.partition(":")
        target, _, mode = rest.partition(":")
        if source.startswith("__"):
            self.draft.left(item.spot, "files that containerlab makes are not there", ("nodes", name))
        else:
            self.draft.bind(name, source, target or source, read_only="ro" in mode.split(","), spot=item.spot)

    def _commands(self, name: str, layers: Layers) -> None:
        main, lead = layers["cmd"], layers["entrypoint"]
        if main or lead:
            try:
                command = [*shlex.split(lead.text), *shlex.split(main.text)]
            except ValueError as error:
                self.draft.left((main or lead).spot, f"no command that can be read: {error}", ("nodes", name))
                command = []
            if command and self.draft.service(name, name, command, (main or lead).spot):
                self.draft.kept["commands"] += 1
        elif self.draft.containers and layers["image"]:
            self.draft.left(layers["image"].spot, "what the image starts by itself is not started: write it as a service", ("nodes", name))
        lines = [item for value in layers.all("exec") for item in value.items()]
        if lines:
            self.draft.script(f"{name}-exec", name, [item.text for item in lines], lines[0].spot)

    # Links

    def _link(self, link: Value) -> None:
        ends = link["endpoints"]
        kind = link["type"].text or "veth"
        if kind != "veth":
            self.draft.left(link.spot, f"a link of type {kind} has no counterpart")
            return
        endpoints = [self._end(ends, position) for position in range(len(ends.data))] if isinstance(ends.data, list) else []
        if len(endpoints) != 2:
            self.draft.left(link.spot, "a link without two endpoints")
            return
        for key in link.data:
            if key not in ("endpoints", "type", "mtu", "ipv4"):
                self.draft.left(link[key].spot, f"`{key}` of a link has no counterpart")
        (first, _, _), (second, _, _) = endpoints
        bridges = [end for end in (first, second) if end in self.bridges]
        if len(bridges) == 2:
            between = [self.draft.known("networks", end) for end in bridges]
            self.draft.add("links", f"{first}-{second}", {"between": between})
            self.draft.changed(link.spot, "two bridges that are joined are networks with a routed link between them here")
            return
        unknown = [end for end in (first, second) if end not in self.layers and end not in bridges]
        for end in unknown:
            said = f"leads to {end}, which is no node here" if end in _SPECIAL or self.topology["nodes"][end] else f"there is no node {end}"
            self.draft.left(link.spot, said)
        if len(unknown) == 2:
            return
        network = self.draft.known("networks", bridges[0]) if bridges else self.draft.add("networks", f"{first}-{second}")
        assert network is not None  # noqa: S101 (a bridge has its network)
        if link["mtu"]:
            self.draft.kept["link mtus"] += self.draft.put("networks", network, "mtu", link["mtu"].data, link["mtu"].spot)
        addresses = [*link["ipv4"].items(), link["none"], link["none"]]
        for (end, interface, where), address in zip(endpoints, addresses, strict=False):
            if end in self.layers:
                self.wires[end].interfaces[interface] = (network, where["ipv4"] or address)

    def _end(self, ends: Value, position: int) -> tuple[str, str, Value]:
        """(node, interface, where it is written) of one endpoint, brief or in full."""
        end = Value(ends.source, (*ends.path, position), ends.data[position])
        if isinstance(end.data, dict):
            return end["node"].text, end["interface"].text, end
        node, _, interface = end.text.partition(":")
        return node, interface, end

    def _connect(self, key: str) -> None:
        """The interfaces of a node in the order of their numbers, after that of the management network."""
        name = self.draft.known("nodes", key) or ""
        node = self.topology["nodes"][key]
        numbered: dict[int, tuple[str, Mapping[str, Any]]] = {}
        managed = self.draft.known("networks", MANAGEMENT)
        if managed and self._is_managed(key):
            numbered[0] = (managed, {})
        others = []
        for interface, (network, _) in self.wires[key].interfaces.items():
            match = re.fullmatch(r"eth([0-9]{1,3})", interface)
            if match and int(match[1]) not in numbered:
                numbered[int(match[1])] = (network, {})
            else:
                others.append((_numbers(interface), interface, network))
        free = 1
        renamed = []
        for _, interface, network in sorted(others):
            while free in numbered:
                free += 1
            numbered[free] = (network, {})
            renamed.append(f"{interface} is eth{free}")
        if renamed:
            self.draft.changed(node.spot, f"interfaces are called otherwise: {', '.join(renamed)}", ("nodes", name))
        self.draft.wire(name, numbered, node.spot)
        for network, where in self.wires[key].interfaces.values():
            if where:
                self.draft.address(name, network, where.text, where.spot)
        if len(self.wires[key].interfaces) > 1:
            self.draft.entries["nodes"][name]["routes"] = True
        address = self.layers[key]["mgmt-ipv4"] or self.layers[key]["mgmt_ipv4"]
        if managed and numbered.get(0, ("", {}))[0] == managed and address:
            self.draft.address(name, managed, address.text, address.spot)

    # The management network

    def _is_managed(self, key: str) -> bool:
        return self.layers[key]["network-mode"].text in ("", "bridge")

    def _management(self) -> None:
        if not any(self._is_managed(key) for key in self.layers):
            return
        network = self.draft.add("networks", MANAGEMENT)
        self.draft.names["networks", MANAGEMENT] = network
        settings = self.root["mgmt"]
        subnet = settings["ipv4-subnet"] or settings["ipv4_subnet"]
        if subnet and subnet.text != "auto":
            self.draft.subnet(network, subnet.text, subnet.spot)
        elif any(self.layers[key]["mgmt-ipv4"] or self.layers[key]["mgmt_ipv4"] for key in self.layers):
            self.draft.subnet(network, MANAGEMENT_SUBNET, self.topology.spot)
        if settings["mtu"]:
            self.draft.put("networks", network, "mtu", settings["mtu"].data, settings["mtu"].spot)
        said = "the management network is an ordinary one, and eth0 of each node, as there"
        self.draft.changed((settings or self.topology).spot, f"{said}; `internet: yes` at a node leads out of it", ("networks", network))


def _numbers(interface: str) -> tuple[int, ...]:
    return tuple(int(number[:9]) for number in re.findall("[0-9]+", interface))
