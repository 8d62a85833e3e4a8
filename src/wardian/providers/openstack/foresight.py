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
from .names import name
from .observation import servers
from .reserve import Room, reserved
from .settings import OpenStackSettings

ABLE = frozenset({"netem", "tbf", "codel", "fq_codel", "pie"})
"""Queueing disciplines that the kernels of images for clouds have."""


async def foresee(cloud: Cloud, settings: OpenStackSettings, desired: Sequence[Resource], entry: Entry | None) -> list[Caveat]:
    """What will not be as the file says. Raises ProviderError where an image or a flavour is not to be had."""
    nodes = [item for item in desired if item.kind == "node"]
    there = {server.name for server in await servers(cloud, entry.record.id)} if entry else set()
    if missing := [item for item in nodes if entry is None or name(entry.record.id, item.spec["hostname"]) not in there]:
        await _require(cloud, settings, missing, reserved(desired))
    return [*_caveats(settings, desired, nodes)]


async def _require(cloud: Cloud, settings: OpenStackSettings, nodes: Sequence[Resource], room: Room) -> None:
    flavors, images = await asyncio.gather(cloud.flavors(), cloud.images())
    for item in nodes:
        image = choice.image(item.name, item.spec, settings, images)
        if room(item.spec):
            continue
        flavor = choice.flavor(item.name, item.spec, settings, flavors)
        if (image.min_ram or 0) > flavor.ram or (flavor.disk and (image.min_disk or 0) > flavor.disk):
            needs = f"{image.min_ram or 0} MiB of memory and {image.min_disk or 0} GiB of disk"
            raise ProviderError(f"image {image.name} needs {needs}, more than flavour {flavor.name} has", resource=str(item))


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
