"""An environment's networks in the kernel.

The *fabric* is a network namespace of the environment's own. In it each network is a bridge, and each interface of a node, each
gateway and each end of a link comes in as a *port*, the near end of a veth pair. A network that is joined by a link has a *gateway*: one
more namespace, with the network's first address, that routes into its links. Nothing of this shows in the host's own namespace.

Interfaces are named after hashes of what they stand for, since the kernel leaves them fifteen characters; their alias says it in words.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from . import netlink, shaping
from .netlink import Netlink, Request
from .shaping import Segment

GATEWAY_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
FABRIC_SYSCTLS = {**GATEWAY_SYSCTLS, "net/ipv4/ip_forward": "0"}

MTU = 1500
"""The largest packet where nothing is written, bytes."""

INSIDE = "eth0"
"""The interface of a gateway towards its own network."""

_INDEX = 2
"""Interface index of the first interface beside lo in a namespace of ours; the others follow."""

ENODEV, ESRCH = 19, 3
"""What the kernel says of an interface, and of a route, that is gone."""


class Fabric:
    """The network namespace behind this process, for as long as the `with` lasts."""

    def __init__(self, pid: int) -> None:
        self._stack = ExitStack()
        self.namespace = _open_namespace(pid, self._stack)
        self.socket = self._netlink = self._stack.enter_context(Netlink.into(self.namespace))

    def __enter__(self) -> Fabric:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def interfaces(self) -> list[netlink.Link]:
        """Everything that stands in the fabric."""
        return self._netlink.links()

    def add_networks(self, names: Sequence[str]) -> None:
        """Make the bridges of networks."""
        requests = []
        for name in names:
            requests += [netlink.bridge(bridge(name)), netlink.change(bridge(name), alias=f"network {name}")]
        self._netlink.send([netlink.change("lo", up=True), *requests])

    def add_gateway(self, network: str, pid: int, spec: Mapping[str, Any]) -> None:
        """Join the namespace of this process to the network, under the network's gateway address, with its routes that need no link."""
        with ExitStack() as stack:
            namespace = _open_namespace(pid, stack)
            inside = stack.enter_context(Netlink.into(namespace))
            port = gateway_port(network)
            length = ipaddress.ip_network(spec["subnet"]).prefixlen
            self._netlink.send(
                [
                    netlink.veth(
                        port,
                        INSIDE,
                        peer_namespace=namespace,
                        peer_index=_INDEX,
                        peer_mac=mac(spec["gateway"]),
                        master=self._bridge(network),
                    ),
                    netlink.change(port, alias=f"gateway {network}"),
                ]
            )
            inside.send(
                [
                    netlink.change("lo", up=True),
                    netlink.change(_INDEX, up=True),
                    netlink.address(_INDEX, f"{spec['gateway']}/{length}"),
                    *(netlink.route(route["to"], via=route["via"]) for route in spec["routes"] if "via" in route),
                ]
            )

    def add_nodes(self, nodes: Iterable[tuple[str, int, Mapping[str, Any]]], *, fresh: bool = True) -> None:
        """Give nodes (name, process number of their init, spec) their interfaces, addresses and routes.

        fresh: whether they have no interface but lo yet; then it is known which indexes these get.
        """
        bridges = {link.name: link.index for link in self._netlink.links() if link.kind == "bridge"}
        with ExitStack() as stack:
            prepared = [(name, _open_namespace(pid, stack), spec) for name, pid, spec in nodes]
            sockets = netlink.in_namespaces([namespace for _, namespace, _ in prepared], Netlink)
            for socket in sockets:
                stack.enter_context(socket)
            outside: list[Request] = []
            for name, namespace, spec in prepared:
                for index, interface in enumerate(spec["interfaces"], _INDEX):
                    port = node_port(name, interface["network"])
                    if bridge(interface["network"]) not in bridges:
                        raise OSError(ENODEV, f"node {name}: there is no network {interface['network']}")
                    outside += [
                        netlink.veth(
                            port,
                            interface["name"],
                            peer_namespace=namespace,
                            peer_index=index if fresh else 0,
                            peer_mac=mac(interface["address"]),
                            master=bridges[bridge(interface["network"])],
                        ),
                        netlink.change(port, alias=f"node {name} {interface['network']}"),
                    ]
            self._netlink.send(outside)
            for (_, _, spec), socket in zip(prepared, sockets, strict=True):
                inside = [netlink.change("lo", up=True)]
                for known, interface in enumerate(spec["interfaces"], _INDEX):
                    index = known if fresh else socket.index(interface["name"])
                    inside += [netlink.change(index, up=True), netlink.address(index, interface["address"])]
                socket.send(inside + [netlink.route(route["to"], via=route["via"]) for route in spec["routes"]])

    def add_uplinks(self, nodes: Iterable[tuple[str, int, str, str]], bridge_: str, interface: str) -> None:
        """Give nodes (name, process number, address, gateway) an interface on the bridge that leads out, and their default route."""
        index = self._netlink.index(bridge_)
        with ExitStack() as stack:
            for name, pid, address, gateway in nodes:
                namespace = _open_namespace(pid, stack)
                inside = stack.enter_context(Netlink.into(namespace))
                port = uplink_port(name)
                self._netlink.send([netlink.veth(port, interface, peer_namespace=namespace, peer_mac=mac(address), master=index)])
                self._netlink.send([netlink.isolate(self._netlink.index(port)), netlink.change(port, alias=f"uplink {name}")])
                number = inside.index(interface)
                inside.send([netlink.change(number, up=True), netlink.address(number, address), netlink.route("0.0.0.0/0", via=gateway)])

    def change_routes(self, pid: int, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
        """Bring the routes {"to", "via"} of a node or gateway from one list to another."""
        old = {route["to"]: route["via"] for route in before if "via" in route}
        new = {route["to"]: route["via"] for route in after if "via" in route}
        with ExitStack() as stack:
            socket = stack.enter_context(Netlink.into(_open_namespace(pid, stack)))
            socket.send([netlink.route(to, delete=True) for to in old.keys() - new.keys()], ignore=(ESRCH,))
            socket.send([netlink.route(to, via=via) for to, via in new.items() if old.get(to) != via])

    def add_link(self, name: str, number: int, networks: Sequence[str], gateways: Sequence[int]) -> None:
        """Make the two ends of a link, in the gateways (process numbers) of its two networks. number: its own within the environment."""
        with ExitStack() as stack:
            for side, (network, pid) in enumerate(zip(networks, gateways, strict=True)):
                namespace = _open_namespace(pid, stack)
                inside = stack.enter_context(Netlink.into(namespace))
                port, interface = link_ports(name)[side], link_interface(name)
                address = link_addresses(number)[side]
                self._netlink.send(
                    [
                        netlink.veth(port, interface, peer_namespace=namespace, peer_mac=mac(address)),
                        netlink.change(port, alias=f"link {name} {network}"),
                    ]
                )
                index, other = inside.index(interface), link_addresses(number)[1 - side]
                inside.send(
                    [
                        netlink.change(interface, up=True),
                        netlink.address(index, f"{address}/31"),
                        # asked for by ARP, it would cost the first packet the link's delay twice over
                        netlink.neighbour(index, other, mac(other)),
                    ]
                )

    def route_links(self, pid: int, spec: Mapping[str, Any], links: Mapping[str, tuple[int, int]], gone: Iterable[str] = ()) -> None:
        """Set a gateway's routes that lead into links: {link: (its number, the side that this gateway is on)}.

        gone: subnets that were reached through links before and are no longer.
        """
        with ExitStack() as stack:
            inside = stack.enter_context(Netlink.into(_open_namespace(pid, stack)))
            inside.send([netlink.route(to, delete=True) for to in gone], ignore=(ESRCH,))
            requests = []
            for route in spec["routes"]:
                if "link" in route and route["link"] in links:
                    number, side = links[route["link"]]
                    via, index = link_addresses(number)[1 - side], inside.index(link_interface(route["link"]))
                    requests.append(netlink.route(route["to"], via=via, index=index, source=spec["gateway"], onlink=True))
            inside.send(requests)

    def set_mtu(self, port: str, pid: int, interface: str, mtu: int) -> None:
        """Have a port, and the interface at its other end in this process's namespace, carry packets of this size at most."""
        self._netlink.send([netlink.change(port, mtu=mtu)])
        with ExitStack() as stack:
            inside = stack.enter_context(Netlink.into(_open_namespace(pid, stack)))
            inside.send([netlink.change(interface, mtu=mtu)])

    def shape(self, segments: Sequence[Segment]) -> None:
        """Make these segments what they are asked to be."""
        shaping.apply(self.namespace, segments)

    def remove(self, ports: Iterable[str], segments: Iterable[str] = ()) -> None:
        """Remove ports or bridges, and what shapes these segments; those that are gone are no error."""
        shaping.remove(self.namespace, segments)
        self._netlink.send([netlink.remove(port) for port in ports], ignore=(ENODEV,))

    def _bridge(self, network: str) -> int:
        return self._netlink.index(bridge(network))


def bridge(network: str) -> str:
    """The interface name of a network's bridge."""
    return _short("b", network)


def gateway_port(network: str) -> str:
    """The interface name of the port of a network's gateway."""
    return _short("g", network)


def node_port(node: str, network: str) -> str:
    """The interface name of the port of a node on a network."""
    return _short("n", node, network)


def uplink_port(node: str) -> str:
    """The interface name of the port by which a node reaches the internet."""
    return _short("u", node)


def link_ports(link: str) -> tuple[str, str]:
    """The interface names of the two ports of a link."""
    return _short("l", link, "0"), _short("l", link, "1")


def link_interface(link: str) -> str:
    """The name of a link's interfaces in the two gateways: its own, where it is short enough."""
    return f"l-{link}" if len(link) <= 13 else _short("l-", link)


def link_addresses(number: int) -> tuple[str, str]:
    """The addresses of a link's two ends, of the range that is for use on one link only (RFC 3927, RFC 3021)."""
    first = int(ipaddress.IPv4Address("169.254.0.0")) + 2 * number
    return str(ipaddress.IPv4Address(first)), str(ipaddress.IPv4Address(first + 1))


def access_segment(name: str, spec: Mapping[str, Any], began: float = 0.0) -> Segment:
    """The segment between a node's port and its network. began: when its traces began."""
    near = node_port(spec["node"], spec["network"])
    return Segment(f"access:{name}", near, far_bridge=bridge(spec["network"]), there=spec["up"], back=spec["down"], began=began)


def link_segment(name: str, spec: Mapping[str, Any], began: float = 0.0) -> Segment:
    """The segment between the two ports of a link. began: when its traces began."""
    near, far = link_ports(name)
    return Segment(f"link:{name}", near, far_port=far, there=spec["there"], back=spec["back"], began=began)


def mac(address: str) -> str:
    """A hardware address made from an IPv4 address: locally administered, and the same in every growth of an environment."""
    return "02:57:" + ipaddress.ip_interface(address).ip.packed.hex(":")


def _short(prefix: str, *parts: str) -> str:
    return prefix + hashlib.sha256("\0".join(parts).encode()).hexdigest()[: 13 - len(prefix)]


def _open_namespace(pid: int, stack: ExitStack) -> int:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
