"""What of an environment's resources is at which site: pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...experiment.resources import Resource
from .index import instance_at

if TYPE_CHECKING:
    # every command imports this, and few plan anything
    from ...experiment.plan import Plan

WHOLE = ("environment", "site")
"""Kinds of what is at no site."""

ON_NODES = ("files", "service")
"""Kinds of what the environment puts on nodes by itself: they say where they are by their node alone."""


def shares(desired: Sequence[Resource], sites: Iterable[str]) -> dict[str, list[Resource]]:
    """{site: what is there, with the environment as its provider knows it}, in the order of the sites, then of what names another one.

    What does not say at which site it is follows what it hangs on; a network that nothing tells of is at the first one.
    """
    environment = next((item for item in desired if item.kind == "environment"), None)
    result: dict[str, list[Resource]] = {site: [] for site in sites}
    for item, site in _placed(desired, next(iter(result), "")):
        result.setdefault(site, []).append(item)
    if environment is not None:
        result = {site: [part_of(environment, site), *items] for site, items in result.items()}
    return result


def part_of(environment: Resource, site: str) -> Resource:
    """The resource that stands for what is at one site."""
    return replace(environment, spec={**environment.spec, "instance": instance_at(environment.spec["instance"], site)})


def at(site: str, item: Resource) -> Resource:
    """The same, saying at which site it is."""
    return item if item.kind in ON_NODES or item.spec.get("site") == site else replace(item, spec={**item.spec, "site": site})


def plan_at(plan: Plan, site: str) -> Plan:
    """What a plan does at one site: to begin there is to make an environment."""
    operations = []
    for operation in plan.operations:
        targets = tuple(target for target in operation.targets if target.spec.get("site") == site)
        if targets:
            kind = "environment" if operation.kind == "site" else operation.kind
            operations.append(replace(operation, kind=kind, targets=targets))
    return replace(plan, operations=tuple(operations))


def _placed(desired: Sequence[Resource], default: str) -> Iterator[tuple[Resource, str]]:
    from ...experiment.places import spread

    nodes = {item.name: item.spec["site"] for item in desired if item.kind == "node"}
    interfaces = [
        (part, site) for item in desired if item.kind == "node" for site in [nodes[item.name]] for part in item.spec["interfaces"]
    ]
    links = [tuple(item.spec["networks"]) for item in desired if item.kind == "link"]
    networks = spread({part["network"]: site for part, site in interfaces}, links)
    for item in desired:
        if item.kind in WHOLE:
            continue
        if item.spec.get("site"):
            yield item, item.spec["site"]
        elif item.kind == "names":
            yield from _names(item, networks, {str(ipaddress.IPv4Interface(part["address"]).ip): site for part, site in interfaces})
        else:
            site = networks.get(item.spec["networks"][0] if item.kind == "link" else item.name, default)
            if "node" in item.spec:
                site = nodes[item.spec["node"]]
            yield at(site, item), site


def _names(item: Resource, networks: Mapping[str, str], addresses: Mapping[str, str]) -> Iterator[tuple[Resource, str]]:
    """A table for each site, of the names that can be reached there."""
    tables: dict[str, dict[str, Any]] = {}
    for key, rows in item.spec["tables"].items():
        site = networks[key.partition(",")[0]]
        tables.setdefault(site, {})[key] = [row for row in rows if addresses.get(row[0]) == site]
    for site, there in tables.items():
        yield at(site, Resource("names", site, {"tables": there})), site
