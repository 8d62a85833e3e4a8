"""What is left on a cloud of environments that nobody knows any more: made from this folder, and not in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

from ...errors import ProviderError
from ..base import Progress
from .cloud import Cloud
from .growth import Growth
from .index import Index
from .names import OWNER, PREFIX
from .settings import OpenStackSettings

_IDENTITY = re.compile(rf"{PREFIX}(.+?-[0-9a-f]{{8}})(?:[.-].*)?")


async def collect(cloud: Cloud, index: Index, settings: OpenStackSettings, progress: Progress, *, required: bool) -> list[str]:
    """Remove it, and give one line for each environment.

    required: whether the cloud has to be asked, since there are environments on it; else, where it cannot be, there is nothing to remove.
    """
    known = {entry.record.id for entry in index.entries()}
    try:
        asked = (
            cloud.all("servers", lambda connection: connection.compute.servers(details=True, name=f"^{PREFIX}")),
            cloud.all("networks", lambda connection: connection.network.networks()),
            cloud.all("routers", lambda connection: connection.network.routers()),
            cloud.all("security groups", lambda connection: connection.network.security_groups()),
        )
        servers, *others = await asyncio.gather(*asked)
    except ProviderError:
        if required:
            raise
        return []
    said = f"wardian {index.owner}"
    ours = [item.name for item in servers if item.metadata.get(OWNER) == index.owner]
    ours += [item.name for items in others for item in items if item.description == said]
    removed = []
    for environment in sorted(set(_environments(ours)) - known):
        await Growth(cloud, index, settings, environment, progress).destroy()
        removed.append(f"what was left of {environment} on the cloud")
    return removed


def _environments(names: list[Any]) -> Iterator[str]:
    for item in names:
        if found := _IDENTITY.fullmatch(item):
            yield found[1]
