"""What one field of an experiment alone cannot show to be wrong: names that must exist, addresses that must fit together."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import SelectorError
from . import places, selectors
from .document import Path
from .links import Delays
from .model import Experiment, Link
from .topology import IMPLICIT_NETWORK, members, references
from .wording import Finding, findings

_LISTED = 12

Providers = Mapping[str, type[BaseModel]]


@dataclass(frozen=True, slots=True)
class Names:
    """What is written in the file, also where the entry itself is wrong and so is missing from the experiment."""

    networks: Collection[str]
    nodes: Collection[str]
    roles: Collection[str]
    sites: Collection[str]

    @staticmethod
    def of(experiment: Experiment) -> Names:
        """Those of a whole experiment."""
        roles = dict.fromkeys(role for node in experiment.nodes.values() for role in node.roles)
        return Names(list(experiment.networks), list(experiment.nodes), list(roles), list(experiment.sites))


def check(experiment: Experiment, names: Names | None = None, providers: Providers | None = None) -> Iterator[Finding]:
    """Everything in `experiment` that does not fit together.

    names: those written in the file, where the experiment lacks some of its entries because they are wrong.
    providers: {name: model of its settings}; without it providers and their settings are not checked.
    """
    names = names or Names.of(experiment)
    if providers is not None:
        yield from _providers(experiment, names, providers)
    yield from _subnets(experiment)
    yield from _links(experiment, names)
    yield from _nodes(experiment, names)
    yield from _places(experiment, names)
    yield from _addresses(experiment)
    yield from _ambiguities(experiment)
    yield from _selectors(experiment, names)


def _providers(experiment: Experiment, names: Names, providers: Providers) -> Iterator[Finding]:
    if experiment.provider not in names.sites:
        yield from _provider(("provider",), experiment.provider, ("settings",), experiment.settings, providers, names.sites)
    elif experiment.settings:
        yield Finding(("settings",), f"the settings of site {experiment.provider} belong to it", f"them under sites.{experiment.provider}")
    for name, site in experiment.sites.items():
        yield from _provider(("sites", name, "provider"), site.provider, ("sites", name, "settings"), site.settings, providers, ())


def _provider(
    path: Path, provider: str, settings_path: Path, settings: Mapping[str, Any], providers: Providers, sites: Collection[str]
) -> Iterator[Finding]:
    if provider not in providers:
        yield _unknown(path, "provider", provider, [*providers, *sites])
        return
    try:
        providers[provider].model_validate(settings)
    except ValidationError as error:
        yield from findings(providers[provider], error.errors(), settings_path)


def _subnets(experiment: Experiment) -> Iterator[Finding]:
    earlier: dict[str, ipaddress.IPv4Network] = {}
    for name, network in experiment.networks.items():
        if network.subnet is None:
            continue
        path = ("networks", name, "subnet")
        for other, subnet in earlier.items():
            if network.subnet.overlaps(subnet):
                yield Finding(path, f"overlaps the subnet of network {other}, {subnet}", "a range that shares no address with the others")
                break
        earlier[name] = network.subnet


def _links(experiment: Experiment, names: Names) -> Iterator[Finding]:
    joined: dict[frozenset[str], str] = {}
    for name, link in experiment.links.items():
        field = "between" if link.between else "among"
        path, ends = ("links", name, field), link.between or link.among or ()
        unknown = [position for position, network in enumerate(ends) if network not in names.networks]
        for position in unknown:
            yield _unknown((*path, position), "network", ends[position], names.networks)
        if isinstance(link.delays, dict):
            yield from delay_findings(link, link.delays, ("links", name, "delays"))
        if unknown:
            continue
        for own, first, second in link.named(name):
            pair = frozenset((first, second))
            if len(pair) < 2:
                yield Finding(path, "joins a network to itself", "two different networks")
            elif pair in joined:
                yield Finding(path, f"joins the same two networks as link {joined[pair]}", "at most one link between two networks")
            elif own != name and own in experiment.links:
                yield Finding(path, f"makes a link {own}, as another entry does", "another name for one of them")
            joined.setdefault(pair, own)


def delay_findings(link: Link, delays: Delays, path: Path) -> Iterator[Finding]:
    """What is wrong with the matrix of delays of a link, which stands at a path."""
    among = link.among or []
    for network, row in delays.items():
        for name, where in ((network, (*path, network)), *((other, (*path, network, other)) for other in row)):
            if name not in among:
                yield _unknown(where, "network of this link", name, among, at_key=True)
    lacking = [pair for pair in link.pairs if delays.get(pair[0], {}).get(pair[1], delays.get(pair[1], {}).get(pair[0])) is None]
    if lacking and link.delay is None:
        first, second = lacking[0]
        more = f" and {len(lacking) - 1} more pairs" if len(lacking) > 1 else ""
        yield Finding(path, f"says nothing of {first} and {second}{more}", "a delay for each pair, or a `delay` for those left out")


def _nodes(experiment: Experiment, names: Names) -> Iterator[Finding]:
    for name, node in experiment.nodes.items():
        path: Path = ("nodes", name)
        if node.site is not None and node.site not in names.sites:
            yield _unknown((*path, "site"), "site", node.site, names.sites)
        if node.networks is None:
            if len(names.networks) > 1:
                yield Finding(
                    (*path, "networks"), "names no network: this file has several", f"some of {', '.join(names.networks)}", missing=True
                )
        else:
            known = names.networks or [IMPLICIT_NETWORK]
            for network in node.networks:
                if network not in known:
                    yield _unknown((*path, "networks", network), "network", network, known, at_key=True)
        for position, port in enumerate(node.ports):
            if port.host is not None and node.count is not None and node.count > 1:
                said = f"one port for the {node.count} members of a group"
                yield Finding((*path, "ports", position), said, "the node's port alone, for one that is free, or a node without count")
        if node.routes and len(node.networks or ()) < 2:
            yield Finding((*path, "routes"), "a node that routes joins networks", "two or more networks of the node")


def _places(experiment: Experiment, names: Names) -> Iterator[Finding]:
    """Networks and links that would have to reach from one place to another."""
    wrong = {node.site for node in experiment.nodes.values() if node.site} | ({experiment.provider} & set(names.sites))
    if wrong - experiment.sites.keys():
        return
    remedy = "networks of one site: no network or link reaches from one to another"
    groups = places.of_groups(experiment)
    first: dict[str, str] = {}
    for group, networks in places.networks(experiment).items():
        place = groups[group].name
        for network in networks:
            other = first.setdefault(network, group)
            if groups[other].name != place:
                path: Path = ("nodes", group, "site") if experiment.nodes[group].site else ("nodes", group)
                yield Finding(path, f"is at {place}, and its network {network} at {groups[other].name}, with node {other}", remedy)
                return
    found = places.spread({network: groups[group].name for network, group in first.items()}, places.joined(experiment))
    for name, link in experiment.links.items():
        for _, *ends in link.named(name):
            here, there = (found.get(network) for network in ends)
            if here != there:
                said = f"joins network {ends[0]} at {here} to {ends[1]} at {there}"
                yield Finding(("links", name, "between" if link.between else "among"), said, remedy)
                return


def _addresses(experiment: Experiment) -> Iterator[Finding]:
    users: dict[tuple[str, ipaddress.IPv4Address], str] = {}
    for name, node in experiment.nodes.items():
        for network, access in (node.networks or {}).items():
            address, path = access.address, ("nodes", name, "networks", network, "address")
            if address is None:
                continue
            subnet = experiment.networks[network].subnet if network in experiment.networks else None
            if node.count is not None and node.count > 1:
                yield Finding(path, f"one address for the {node.count} members of a group", "no address, or a node without count")
            elif subnet is None:
                yield Finding(path, f"network {network} names no subnet for it to lie in", f"a subnet at networks.{network}")
            elif address not in subnet:
                yield Finding(path, f"lies outside of network {network}", f"an address in {subnet}")
            elif address in (subnet.network_address, subnet.broadcast_address):
                yield Finding(path, f"is the {'network' if address == subnet.network_address else 'broadcast'} address", "another one")
            elif address == subnet.network_address + 1:
                yield Finding(path, f"is kept for the gateway of network {network}", "another than the first address")
            elif (network, address) in users:
                yield Finding(path, f"is used by node {users[network, address]} already", "an address for each node")
            users.setdefault((network, address), name)


def _ambiguities(experiment: Experiment) -> Iterator[Finding]:
    for name, node in experiment.nodes.items():
        for position, role in enumerate(node.roles):
            if role in experiment.nodes:
                yield Finding(
                    ("nodes", name, "roles", position), f"the role {role} is the name of a node too", "a role that no node is called"
                )
        group, _, index = name.rpartition("-")
        size = experiment.nodes[group].count if group in experiment.nodes else None
        if size and node.count is None and index.isdecimal() and str(int(index)) == index and int(index) < size:
            message = f"has the hostname of {group}[{index}]"
            yield Finding(("nodes", name), message, f"a name that the group {group} does not use", at_key=True)


def _selectors(experiment: Experiment, names: Names) -> Iterator[Finding]:
    nodes = references(members(experiment))
    known = dict.fromkeys([*names.nodes, *names.roles])
    for name, service in experiment.services.items():
        yield from _selector(("services", name, "on"), service.on, nodes, known)
    for position, collect in enumerate(experiment.collect):
        yield from _selector(("collect", position, "on"), collect.on, nodes, known)


def _selector(path: Path, text: str, nodes: Sequence[selectors.NodeRef], known: Collection[str]) -> Iterator[Finding]:
    try:
        selector = selectors.parse(text)
    except SelectorError as error:
        yield Finding(path, error.message, "names with commas between, such as client, client[0:4], all or !server")
        return
    unknown = [term.name for term in selector.terms if term.name != "all" and term.name not in known]
    for name in unknown:
        yield _unknown(path, "node, group or role", name, known)
    if not unknown:
        try:
            selector.pick(nodes, set(known) - {name for node in nodes for name in (node.group, *node.roles)})
        except SelectorError as error:
            yield Finding(path, error.message)


def _unknown(path: Path, kind: str, name: str, known: Collection[str], *, at_key: bool = False) -> Finding:
    listed = f"one of {', '.join(sorted(known))}" if 0 < len(known) <= _LISTED else f"a {kind} that the file declares"
    return Finding(path, f"no {kind} is called {name[:60]!r}", listed, selectors.nearest(name, known), at_key=at_key)
