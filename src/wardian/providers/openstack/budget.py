"""What a plan takes of a site: hours of nodes, money by the site's rates, and whether its quotas allow it."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...errors import PlanError
from ...experiment.plan import Plan
from ...experiment.resources import Resource
from ...experiment.units import format_duration
from . import choice
from .cloud import Cloud
from .reserve import Rates, reserved
from .settings import OpenStackSettings
from .slots import words

COMPUTE = {"servers": "instances", "cpus": "total_cores", "MiB of memory": "total_ram", "key pairs": "keypairs"}
"""{what: its name among Nova's limits}; how much is used is told of all but key pairs, which are counted by user."""

NETWORK = {
    "networks": "network",
    "subnets": "subnet",
    "ports": "port",
    "routers": "router",
    "security groups": "security_group",
    "floating IPs": "floatingip",
}
"""{what: its name among Neutron's quotas}"""


def costs(desired: Sequence[Resource], flavors: Mapping[str, str], rates: Rates | None) -> list[str]:
    """What holding these takes, a line for each kind of thing, then the sum where there are rates.

    flavors: {node: name of its flavour}; nodes in a reservation have none.
    """
    held = next((item.spec.get("lease") for item in desired if item.kind == "environment"), None)
    hours = held["duration"] / 3600 if held else None
    lines, total = [], 0.0
    lease = next((item for item in desired if item.kind == "lease"), None)
    if lease is not None:
        kinds = [item["type"] for item in lease.spec["reservations"]]
        many = Counter[str]()
        for kind, count in zip(kinds, lease.spec["counts"], strict=True):
            many[kind] += count
        price = _price(many, rates)
        lines.append(f"{words(lease.spec)}: {_time(many['host'] + many['instance'], hours)}{_money(price, hours, rates)}")
        total += price
    for chosen, nodes in sorted(Counter(flavors.values()).items()):
        price = nodes * (rates.flavors.get(chosen, rates.server) if rates else 0.0)
        lines.append(f"{nodes} server{'s' * (nodes != 1)} ({chosen}): {_time(nodes, hours)}{_money(price, hours, rates)}")
        total += price
    if rates and len(lines) > 1:
        lines.append(f"in all{_money(total, hours, rates).replace(', ', ' ', 1)}")
    return lines


def _price(many: Mapping[str, int], rates: Rates | None) -> float:
    if rates is None:
        return 0.0
    return many["host"] * rates.host + many["floating_ip"] * rates.floating_ip + many["instance"] * rates.server


def _time(nodes: int, hours: float | None) -> str:
    if hours is None:
        return f"{nodes} node-hour{'s' * (nodes != 1)} an hour, until `wardian down`"
    return f"{nodes * hours:.4g} node-hour{'s' * (nodes * hours != 1)} in {format_duration(hours * 3600)}"


def _money(price: float, hours: float | None, rates: Rates | None) -> str:
    if rates is None:
        return ""
    return f", {price:.4g} {rates.currency} an hour" if hours is None else f", {price * hours:.4g} {rates.currency}"


def needed(plan: Plan, settings: OpenStackSettings, size: Callable[[Resource], tuple[int, int]]) -> Counter[str]:
    """What a plan makes more than it removes. size: processors, and memory in MiB, of a node."""
    result = Counter[str]()
    if _created(plan, "environment"):
        result.update({"key pairs": 1, "security groups": 2})
        result["routers"] += any(item.spec["gateway"] for item in _created(plan, "network"))
        if _created(plan, "node"):
            # a reserved one is the project's, too, and the bastion's where it is of the network that it needs
            result["floating IPs"] += max(int(settings.floating), _addresses(plan))
            if not settings.access:
                result.update(dict.fromkeys(("networks", "subnets", "routers", "ports"), 1))
    for operation in plan.operations:
        sign = {"create": 1, "update": 0, "delete": -1}[operation.action]
        for item in operation.targets:
            if not item.spec or not sign:
                continue
            if item.kind == "node":
                cpus, memory = size(item)
                result.update({"servers": sign, "cpus": sign * cpus, "MiB of memory": sign * memory})
                result["ports"] += sign * (1 + len(item.spec["interfaces"]))
            elif item.kind == "network":
                result.update({"networks": sign, "subnets": sign, "ports": sign * bool(item.spec["gateway"])})
    return result


def _addresses(plan: Plan) -> int:
    """Floating IPs of a lease that is asked for."""
    specs = [item.spec for item in _created(plan, "lease")]
    parts = [part for spec in specs for part in zip(spec["reservations"], spec["counts"], strict=True)]
    return sum(count for item, count in parts if item["type"] == "floating_ip")


def _created(plan: Plan, kind: str) -> list[Resource]:
    made = (operation.targets for operation in plan.operations if operation.action == "create" and operation.kind == kind)
    return list(itertools.chain.from_iterable(made))


async def limits(cloud: Cloud) -> dict[str, tuple[int, int]]:
    """{what: (how many the project may have, how many it has)}, of what is limited."""

    def network(connection: Any) -> Any:
        answer = connection.network.get(f"/quotas/{connection.current_project_id}/details.json")
        # not every cloud tells how much is used, or its users at all; then it says so when something is asked for
        return answer.json()["quota"] if answer.status_code == 200 else {}

    compute, networks = await asyncio.gather(
        cloud.ask("quota", lambda connection: connection.compute.get_limits().absolute), cloud.ask("quota", network)
    )
    found = {}
    for what, key in COMPUTE.items():
        most = getattr(compute, key)
        found[what] = (-1 if most is None else most, getattr(compute, f"{key}_used", None) or 0)
    for what, key in NETWORK.items():
        said = networks.get(key) or {"limit": -1}
        found[what] = (said["limit"], said.get("used", 0) + said.get("reserved", 0))
    return {what: (most, used) for what, (most, used) in found.items() if most >= 0}


def check(needs: Mapping[str, int], allowed: Mapping[str, tuple[int, int]], site: str) -> None:
    """Raises PlanError with the figures of all that is over a quota."""
    over: Iterable[str] = [
        f"  {what}: {needs[what]} more are needed, {max(0, most - used)} are left of {most}"
        for what, (most, used) in allowed.items()
        if needs.get(what, 0) > max(0, most - used)
    ]
    if over:
        raise PlanError(
            "\n".join([f"the quota on {site} does not allow it:", *over]),
            remedy="Ask for less, end what is not needed (`wardian ls`), or ask the site for a larger quota.",
        )


async def estimate(cloud: Cloud, settings: OpenStackSettings, desired: Sequence[Resource], plan: Plan) -> list[str]:
    """What a plan takes, in words. Raises PlanError where that is over a quota, and where no flavour fits."""
    room = reserved(desired)
    allowed, flavors = await asyncio.gather(limits(cloud), cloud.flavors())

    def size(node: Resource) -> tuple[int, int]:
        if held := room(node.spec):
            return held["cpus"], math.ceil(held["memory"] / 2**20)
        found = choice.flavor(node.name, node.spec, settings, flavors)
        return found.vcpus, found.ram

    check(needed(plan, settings, size), allowed, settings.cloud or "this cloud")
    on_demand = [item for item in desired if item.kind == "node" and "reservation" not in item.spec]
    named = {item.name: choice.flavor(item.name, item.spec, settings, flavors).name for item in on_demand}
    return costs(desired, named, settings.rates)
