"""A server's disk made an image of its cloud, by Nova.

The image says in its properties whose it is. So a request that is sent again finds what the first one made, and a command that is run
again after it was killed waits on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ...errors import NodeDownError, ProviderError
from ..base import Progress
from ..concurrency import all_of
from .choice import checksum
from .cloud import Cloud, RefusedError
from .names import node_of
from .observation import INTERVAL, servers
from .settings import OpenStackSettings

SERVER, ENVIRONMENT, NODE = "wardian-server", "wardian-environment", "wardian-node"
"""Properties of such an image."""

COMING = ("queued", "saving", "uploading", "importing")
"""What an image is before it is active."""


async def snapshot(cloud: Cloud, settings: OpenStackSettings, environment: str, node: str, name: str, progress: Progress) -> str:
    """Make a node's server an image of this name, wait until it is active, and give its checksum.

    Interrupted, the image is removed. Raises ProviderError where there is one of that name already, and where Nova gives up.
    """
    about = f"node {node}"
    server = next((item for item in await servers(cloud, environment) if (node_of(item.metadata) or ("",))[0] == node), None)
    if server is None:
        raise NodeDownError(node, "it has no server", remedy="`wardian up` makes it.")

    def named(connection: Any) -> list[Any]:
        return list(connection.image.images(name=name))

    def ours(connection: Any) -> list[str]:
        return [item.id for item in named(connection) if _property(item, SERVER) == server.id]

    there = await cloud.all(about, named)
    begun = next((item.id for item in there if item.status in COMING and _property(item, SERVER) == server.id), None)
    if there and begun is None:
        when = f"made at {there[0].created_at} of {_property(there[0], NODE) or 'something else'}"
        remedy = f"Choose another name, or remove it: openstack image delete {there[0].id}"
        raise ProviderError(f"there is an image {name}, {when}", resource=about, remedy=remedy)
    properties = {SERVER: server.id, ENVIRONMENT: environment, NODE: node}
    try:
        made = begun or await cloud.make(about, lambda connection: server.create_image(connection.compute, name, properties), ours)
        return checksum(await _active(cloud, made, node, settings.patience, progress))
    except asyncio.CancelledError:
        await asyncio.shield(_remove(cloud, about, ours))
        raise


async def _active(cloud: Cloud, image: str, node: str, patience: float, progress: Progress) -> Any:
    end, told = time.monotonic() + patience, ""
    while True:
        try:
            found = await cloud.ask(f"node {node}", lambda connection: connection.image.get_image(image))
        except RefusedError as error:
            if error.status != 404:
                raise
            found = None
        status = str(found.status) if found is not None else "gone"
        if status != told:
            progress(node, f"its image is {status}")
            told = status
        if status == "active":
            return found
        if status not in COMING:
            remedy = "The cloud gave up: bare metal, for one, has no images made by Nova. `openstack server event list` says more."
            raise ProviderError(f"its image is {status}", resource=f"node {node}", remedy=remedy)
        if time.monotonic() > end:
            remedy = "Give `patience` more; the same command again waits on."
            raise ProviderError(f"its image is still {status}", resource=f"node {node}", remedy=remedy)
        await asyncio.sleep(INTERVAL)


async def _remove(cloud: Cloud, about: str, ours: Callable[[Any], list[str]]) -> None:
    def gone(image: str) -> Any:
        return cloud.gone(about, lambda connection: connection.image.delete_image(image))

    await all_of(gone(image) for image in await cloud.all(about, ours))


def _property(image: Any, key: str) -> Any:
    return (image.properties or {}).get(key)
