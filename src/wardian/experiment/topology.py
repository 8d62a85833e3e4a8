"""From an experiment to the flat list of resources that it asks for: members, addresses, routes, names.

Pure. Addresses are given in the order of the file, but a node that exists keeps the one it has, so that changing one group's count
changes nothing for the others.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PlanError
from . import containers, selectors
from .model import IMAGE, Access, Experiment, Link, Network, Node, Service
from .resources import Observed, Resource
from .tables import Tables, Trace

POOL = ipaddress.IPv4Network("10.64.0.0/12")
"""Where subnets come from that the file does not name."""

IMPLICIT_NETWORK = "net"
"""The network of a file that declares none."""

HOP = 1e-4
"""Cost of one hop, seconds, so that among equal delays the path with fewer hops is taken."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node that the experiment asks for, and the entry it comes from."""

    name: str
    group: str
    index: int | None
    node: Node
    networks: Mapping[str, Access]

    @property
    def hostname(self) -> str:
        return self.group if self.index is None else f"{self.group}-{self.index}"

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(self.node.roles)


def members(experiment: Experiment) -> list[Member]:
    """Every node, in file order: `server`, `client[0]`, `client[1]`, …"""
    default = next(iter(experiment.networks), IMPLICIT_NETWORK)
    result = []
    for group, node in experiment.nodes.items():
        networks = {default: Access()} if node.networks is None else node.networks
        indices: Iterable[int | None] = [None] if node.count is None else range(node.count)
        for index in indices:
            name = group if index is None else f"{group}[{index}]"
            result.append(Member(name, group, index, node, networks))
    return result


def references(nodes: Sequence[Member]) -> list[selectors.NodeRef]:
    """What selectors pick from."""
    return [selectors.NodeRef(node.name, node.group, node.index, node.roles) for node in nodes]


def names_known(experiment: Experiment) -> list[str]:
    """Groups and roles of the file, which a selector may name although they have no member just now."""
    return [*experiment.nodes, *(role for node in experiment.nodes.values() for role in node.roles)]


def expand(
    experiment: Experiment, observed: Observed | None = None, digests: Mapping[str, str] | None = None, tables: Tables | None = None
) -> list[Resource]:
    """The resources that `experiment` asks for, in the order in which they are made (without the environment itself).

    observed: what exists; its nodes keep their addresses and its networks their subnets.
    digests: SHA-256 of each source file or folder named under `files:`, by the path as written.
    tables: what the CSV files hold that links name, likewise.
    Raises PlanError when the addresses do not suffice or subnets overlap.
    """
    return _Expansion(experiment, observed or Observed(), digests or {}, tables or {}).resources()


@dataclass(frozen=True, slots=True)
class _Joint:
    """One link between two networks. direct: what goes from one to the other takes it, however long it takes."""

    name: str
    networks: tuple[str, str]
    there: dict[str, Any]
    back: dict[str, Any]
    mtu: int | None
    direct: bool


def _joints(links: Mapping[str, Link], tables: Tables) -> list[_Joint]:
    result = []
    for entry, link in links.items():
        matrix = tables.get(link.delays) if isinstance(link.delays, str) else None
        delays = None if isinstance(matrix, Trace) else matrix
        for name, first, second in link.named(entry):
            there, back = (_with_trace(shape, tables) for shape in link.directions(first, second, delays))
            result.append(_Joint(name, (first, second), there, back, link.mtu, direct=link.among is not None))
    return result


def _with_trace(shape: dict[str, Any], tables: Tables) -> dict[str, Any]:
    """A shape whose trace is there with all its steps."""
    named = shape.get("trace")
    if named is None:
        return shape
    trace = tables.get(named["file"])
    if not isinstance(trace, Trace):
        raise PlanError(f"the trace {named['file']} was not read", remedy="plan and grow it from its file: `wardian up`")
    return {**shape, "trace": {"file": named["file"], "repeat": named.get("repeat", True), **trace.spec}}


class _Expansion:
    def __init__(self, experiment: Experiment, observed: Observed, digests: Mapping[str, str], tables: Tables) -> None:
        self.experiment = experiment
        self.observed = observed
        self.digests = digests
        self.tables = tables
        self.joints = _joints(experiment.links, tables)
        self.members = members(experiment)
        self.networks = dict(experiment.networks)
        if not self.networks and any(IMPLICIT_NETWORK in member.networks for member in self.members):
            self.networks = {IMPLICIT_NETWORK: Network()}
        self.subnets = self._allocate_subnets()
        self.addresses = self._allocate_addresses()
        self.paths = self._routes()

    def resources(self) -> list[Resource]:
        return [
            *self._networks(),
            *self._nodes(),
            *self._links(),
            *self._accesses(),
            *self._names(),
            *self._files(),
            *self._services(),
        ]

    # Addresses

    def _allocate_subnets(self) -> dict[str, ipaddress.IPv4Network]:
        sizes = dict.fromkeys(self.networks, 0)
        for member in self.members:
            for joined in member.networks:
                sizes[joined] += 1
        result: dict[str, ipaddress.IPv4Network] = {}
        for name, network in self.networks.items():
            existing = self.observed.resources.get(("network", name))
            if network.subnet is not None:
                result[name] = network.subnet
            elif existing is not None and existing.spec:
                subnet = ipaddress.IPv4Network(existing.spec["subnet"])
                if subnet.num_addresses - 3 >= sizes[name]:
                    result[name] = subnet
        for name in self.networks:
            if name not in result:
                result[name] = _free_subnet(sizes[name], result.values())
        named = list(result.items())
        for position, (name, subnet) in enumerate(named):
            for other, other_subnet in named[position + 1 :]:
                if subnet.overlaps(other_subnet):
                    raise PlanError(
                        f"networks {name} ({subnet}) and {other} ({other_subnet}) overlap",
                        remedy="give them subnets that share no address, or leave subnet out to have them chosen",
                    )
        return {name: result[name] for name in self.networks}

    def _allocate_addresses(self) -> dict[tuple[str, str], ipaddress.IPv4Address]:
        """{(node, network): address}."""
        kept: dict[tuple[str, str], ipaddress.IPv4Address] = {}
        wanted = {member.name: member for member in self.members}
        for resource in self.observed.of("node"):
            for interface in resource.spec.get("interfaces", ()):
                member, network = wanted.get(resource.name), interface["network"]
                address = ipaddress.IPv4Interface(interface["address"]).ip
                if member and network in member.networks and address in self.subnets[network]:
                    kept[resource.name, network] = address
        for member in self.members:
            for network, access in member.networks.items():
                if access.address is not None:
                    kept[member.name, network] = access.address
        taken: dict[str, set[ipaddress.IPv4Address]] = {name: {self._gateway(name)} for name in self.networks}
        for (_, network), address in kept.items():
            taken[network].add(address)
        free = {name: iter(subnet.hosts()) for name, subnet in self.subnets.items()}
        result = {}
        for member in self.members:
            for network in member.networks:
                given = kept.get((member.name, network))
                chosen = given or next((candidate for candidate in free[network] if candidate not in taken[network]), None)
                if chosen is None:
                    raise PlanError(
                        f"network {network} ({self.subnets[network]}) has too few addresses for its members",
                        remedy="write a larger subnet, such as /22, or leave subnet out to have one chosen",
                    )
                result[member.name, network] = chosen
        return result

    def _gateway(self, network: str) -> ipaddress.IPv4Address:
        return self.subnets[network].network_address + 1

    # Routes

    def _routes(self) -> dict[str, dict[str, _Path]]:
        """{network: {every other network that is reached from it: the path of least delay}}."""
        edges: dict[str, list[_Edge]] = {name: [] for name in self.networks}
        direct: dict[tuple[str, str], _Path] = {}
        for joint in self.joints:
            for (near, far), shape in ((joint.networks, joint.there), (joint.networks[::-1], joint.back)):
                edge = _Edge(far, shape.get("delay", 0.0) + HOP, link=joint.name)
                edges[near].append(edge)
                if joint.direct:
                    direct[near, far] = _Path(edge, edge.cost)
        for member in self.members:
            if not member.node.routes:
                continue
            for near, access in member.networks.items():
                for far, far_access in member.networks.items():
                    if near != far:
                        cost = access.directions()[1].get("delay", 0.0) + far_access.directions()[0].get("delay", 0.0) + HOP
                        edges[near].append(_Edge(far, cost, via=str(self.addresses[member.name, near]), node=member.name))
        paths = {name: _shortest_paths(name, edges) for name in self.networks}
        for (near, far), path in direct.items():
            paths[near][far] = path
        return paths

    def _linked(self, network: str) -> bool:
        return any(network in joint.networks for joint in self.joints)

    def _gateway_routes(self, network: str) -> list[dict[str, str]]:
        routes = []
        for other, path in self.paths[network].items():
            target = str(self.subnets[other])
            routes.append({"to": target, "link": path.first.link} if path.first.link else {"to": target, "via": path.first.via})
        return routes

    def _node_routes(self, member: Member) -> list[dict[str, str]]:
        best: dict[str, tuple[float, dict[str, str]]] = {}
        for network in member.networks:
            for other, path in self.paths[network].items():
                if other in member.networks or path.first.node == member.name:
                    continue
                via = str(self._gateway(network)) if path.first.link else path.first.via
                if other not in best or path.cost < best[other][0]:
                    best[other] = (path.cost, {"to": str(self.subnets[other]), "via": via})
        return [route for _, route in best.values()]

    # Resources

    def _networks(self) -> list[Resource]:
        result = []
        for name, subnet in self.subnets.items():
            linked = self._linked(name)
            spec = {
                "subnet": str(subnet),
                "gateway": str(self._gateway(name)) if linked else None,
                "routes": self._gateway_routes(name) if linked else [],
                **_mtu(self.networks[name].mtu),
            }
            result.append(Resource("network", name, spec))
        return result

    def _nodes(self) -> list[Resource]:
        result = []
        for member in self.members:
            node = member.node
            interfaces = [
                {
                    "name": f"eth{position}",
                    "network": network,
                    "address": f"{self.addresses[member.name, network]}/{self.subnets[network].prefixlen}",
                }
                for position, network in enumerate(member.networks)
            ]
            spec = {
                "hostname": member.hostname,
                "group": member.group,
                "index": member.index,
                "roles": list(node.roles),
                "site": node.site,
                "image": node.image,
                "cpus": node.cpus,
                "memory": node.memory,
                "env": {**node.env, **({"WARDIAN_PYTHON": node.python} if node.python else {})},
                "setup": node.setup,
                "internet": node.internet,
                "routes_between": node.routes,
                "interfaces": interfaces,
                "routes": self._node_routes(member),
            }
            result.append(Resource("node", member.name, spec | self._container(node)))
        return result

    def _container(self, node: Node) -> dict[str, Any]:
        """What is written of a node that only containers have."""
        written = {key: value for key in containers.KEYS if (value := node.model_dump(mode="json", include={key})[key])}
        if "build" in written:
            written["build"]["sha256"] = self.digests.get(containers.build_key(node.build), "") if node.build else ""
        return written

    def _links(self) -> list[Resource]:
        result = []
        for joint in self.joints:
            spec = {"networks": list(joint.networks), "there": joint.there, "back": joint.back, **_mtu(joint.mtu)}
            result.append(Resource("link", joint.name, spec))
        return result

    def _accesses(self) -> list[Resource]:
        result = []
        for member in self.members:
            for network, access in member.networks.items():
                half = _half(self.networks[network])
                up, down = (_compose(_with_trace(shape, self.tables), half) for shape in access.directions())
                mtu = _mtu(access.mtu or self.networks[network].mtu)
                if up or down or mtu:
                    spec = {"node": member.name, "network": network, "up": up, "down": down, **mtu}
                    result.append(Resource("access", f"{member.name}/{network}", spec))
        return result

    def _names(self) -> list[Resource]:
        """One table for each set of networks that some node has, since a name resolves to what both can reach best."""
        tables: dict[str, list[list[str]]] = {}
        for asker in self.members:
            key = ",".join(sorted(asker.networks))
            if key in tables or not asker.networks:
                continue
            tables[key] = []
            for member in self.members:
                if not member.networks:
                    continue
                shared = next((network for network in member.networks if network in asker.networks), next(iter(member.networks)))
                tables[key].append([str(self.addresses[member.name, shared]), member.hostname])
        return [Resource("names", "hosts", {"tables": tables})] if tables else []

    def _files(self) -> list[Resource]:
        result = []
        for member in self.members:
            items = [
                {"source": item.source, "target": item.target, "mode": item.mode, "sha256": self.digests.get(item.source, "")}
                for item in member.node.files
            ]
            if items:
                result.append(Resource("files", member.name, {"node": member.name, "items": items}))
        return result

    def _services(self) -> list[Resource]:
        """A service is started anew when files of its node change, since it may have read them."""
        nodes, known = references(self.members), names_known(self.experiment)
        files = {resource.name: resource.digest for resource in self._files()}
        result = []
        for name, service in self.experiment.services.items():
            for node in selectors.resolve(service.on, nodes, known):
                result.append(Resource("service", f"{name}@{node}", _service(name, node, service, files.get(node))))
        return result


def _service(name: str, node: str, service: Service, files: str | None) -> dict[str, Any]:
    command = ["/bin/sh", "-c", service.command] if isinstance(service.command, str) else list(service.command)
    return {
        "node": node,
        "service": name,
        "command": {"image": service.arguments} if service.command == IMAGE else command,
        "env": dict(service.env),
        "directory": service.directory,
        "ready": service.ready.model_dump(exclude_none=True) if service.ready else None,
        "restart": service.restart,
        "files": files,
    }


def _half(network: Network) -> dict[str, float]:
    """What each member's access link takes of a delay and loss between every pair."""
    result = {}
    if network.delay:
        result["delay"] = network.delay / 2
    if network.loss:
        result["loss"] = 1 - (1 - network.loss) ** 0.5
    return result


def _mtu(value: int | None) -> dict[str, int]:
    return {} if value is None else {"mtu": value}


def _compose(shape: dict[str, Any], other: Mapping[str, float]) -> dict[str, Any]:
    """Two stretches of one way, one after the other: delays add, losses compound."""
    result = dict(shape)
    if "delay" in other:
        result["delay"] = round(result.get("delay", 0.0) + other["delay"], 9)
    if "loss" in other:
        result["loss"] = round(1 - (1 - result.get("loss", 0.0)) * (1 - other["loss"]), 12)
    return result


def _free_subnet(size: int, taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    prefix = min(24, 32 - (size + 3).bit_length())
    step = 1 << (32 - prefix)
    found = int(POOL.network_address)
    for first, last in sorted((int(other.network_address), int(other.broadcast_address)) for other in taken):
        if found + step <= first:
            break
        if last >= found:
            found = -(-(last + 1) // step) * step
    if found + step - 1 <= int(POOL.broadcast_address):
        return ipaddress.IPv4Network((found, prefix))
    raise PlanError("no subnet is left for another network", remedy="write smaller subnets in the file")


@dataclass(frozen=True, slots=True)
class _Edge:
    """One way from a network to the next: over a link's gateway, or by the routing node that has `via` there."""

    to: str
    cost: float
    link: str = ""
    via: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class _Path:
    first: _Edge
    cost: float


def _shortest_paths(start: str, edges: Mapping[str, Sequence[_Edge]]) -> dict[str, _Path]:
    """Dijkstra's algorithm: {every reached network: its path}."""
    result: dict[str, _Path] = {}
    queue: list[tuple[float, int, str, _Edge | None]] = [(0.0, 0, start, None)]
    order = 0
    while queue:
        cost, _, network, first = heapq.heappop(queue)
        if network in result or (network == start and first is not None):
            continue
        if first is not None:
            result[network] = _Path(first, cost)
        for edge in edges[network]:
            if edge.to not in result and edge.to != start:
                order += 1
                heapq.heappush(queue, (cost + edge.cost, order, edge.to, first or edge))
    return result
