"""What a cloud can do for an experiment, before anything is made there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from ...errors import ProviderError
from ...experiment import containers
from ...experiment.plan import compact
from ...experiment.resources import Caveat, Resource
from ..base import Finding
from ..ssh import caveats
from ..ssh.index import Entry, Placed
from ..ssh.inventory import Host
from ..ssh.routes import WAYS, Routes
from ..ssh.shaping import Look
from . import choice
from .cloud import Cloud
from .observation import servers
from .settings import OpenStackSettings

ABLE = frozenset({"netem", "tbf", "codel", "fq_codel", "pie"})
"""Queueing disciplines that the kernels of images for clouds have."""


async def foresee(cloud: Cloud, settings: OpenStackSettings, desired: Sequence[Resource], entry: Entry | None) -> list[Caveat]:
    """What will not be as the file says. Raises ProviderError where image, flavour or quota are not to be had."""
    nodes = [item for item in desired if item.kind == "node"]
    if nodes:
        await _require(cloud, settings, nodes, entry)
    return [*_caveats(settings, desired, nodes)]


async def _require(cloud: Cloud, settings: OpenStackSettings, nodes: Sequence[Resource], entry: Entry | None) -> None:
    there: set[str] = set()
    if entry is not None:
        there = {server.name for server in await servers(cloud, entry.record.id)}
    missing = [item for item in nodes if entry is None or f"wardian-{entry.record.id}-{item.spec['hostname']}" not in there]
    if not missing:
        return
    flavors, images, limits = await asyncio.gather(
        cloud.all("flavours", lambda connection: connection.compute.flavors()),
        cloud.all("images", lambda connection: connection.image.images(status="active")),
        cloud.ask("quota", lambda connection: connection.compute.get_limits().absolute),
    )
    chosen = []
    for item in missing:
        made_from = choice.image(item.name, item.spec, settings, images)
        flavor = choice.flavor(item.name, item.spec, settings, flavors)
        if (made_from.min_ram or 0) > flavor.ram or (flavor.disk and (made_from.min_disk or 0) > flavor.disk):
            needs = f"{made_from.min_ram or 0} MiB of memory and {made_from.min_disk or 0} GiB of disk"
            raise ProviderError(f"image {made_from.name} needs {needs}, more than flavour {flavor.name} has", resource=str(item))
        chosen.append(flavor)
    wanted = {
        "servers": (len(chosen), limits.instances, limits.instances_used),
        "processors": (sum(item.vcpus for item in chosen), limits.total_cores, limits.total_cores_used),
        "MiB of memory": (sum(item.ram for item in chosen), limits.total_ram, limits.total_ram_used),
    }
    short = [
        f"{needed} {what}, and {max(limit - used, 0)} of {limit} are left"
        for what, (needed, limit, used) in wanted.items()
        if limit is not None and limit >= 0 and needed > limit - (used or 0)
    ]
    if short:
        remedy = "Remove what is not needed (`wardian ls`, `wardian gc`), choose smaller flavours, or ask the site for a larger quota."
        raise ProviderError(f"the quota is too small: it needs {'; '.join(short)}", resource="the cloud", remedy=remedy)


def _caveats(settings: OpenStackSettings, desired: Sequence[Resource], nodes: Sequence[Resource]) -> Iterator[Caveat]:
    for field in containers.KEYS:
        if asking := [item.name for item in nodes if field in item.spec]:
            yield Caveat(f"node {compact(asking)}", field, "means something to nodes of the provider docker only")
    if asking := [item.name for item in nodes if item.spec["routes_between"]]:
        yield Caveat(f"node {compact(asking)}", "routes", "clouds drop what a server forwards")
    shaped = [item for item in desired if item.kind in WAYS and any(item.spec.get(way) for way in WAYS[item.kind])]
    if settings.ready == "active":
        for item in shaped:
            yield Caveat(
                str(item), "shape", "nobody logs in to servers that count as ready once they are ACTIVE", "as the cloud lets packets pass"
            )
        return
    places = {item.name: Placed(Host(item.name), spec=item.spec, wired=True) for item in nodes}
    routes = Routes(desired, {node: (placed.spec, placed.addresses) for node, placed in places.items()})
    yield from caveats.links(desired, routes, {node: Look(node, ABLE) for node in places})


async def diagnose(cloud: Cloud) -> list[Finding]:
    """Whether a cloud is named, and lets us in."""
    try:
        who = await cloud.ask("the cloud", lambda connection: connection.current_project.name)
    except ProviderError as error:
        # who uses no cloud lacks nothing
        remedy = error.remedy or "Have credentials: `source openrc.sh`, or a clouds.yaml and OS_CLOUD."
        return [Finding("OpenStack", "limited", f"no cloud can be used: {error.message}", remedy)]
    return [Finding("OpenStack", "ok", f"project {who}")]
