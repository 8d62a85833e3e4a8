"""Snapshot, reboot and rebuild on the testbed that runs: `scripts/openstack-testbed start`.

Nova's fake driver stores nothing in the image that it was asked for; the test does so in its place.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import openstack
import pytest
from openstack_testbed.layout import Layout

from wardian.aio import Environment
from wardian.errors import ProviderError

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


async def _stored(cloud: Any, name: str) -> None:
    """Store something in an image as soon as Nova made it."""
    while not (found := await asyncio.to_thread(lambda: list(cloud.image.images(name=name)))):
        await asyncio.sleep(1)
    await asyncio.to_thread(cloud.image.update_image, found[0].id, disk_format="raw", container_format="bare")
    headers = {"Content-Type": "application/octet-stream"}
    await asyncio.to_thread(cloud.image.put, f"/images/{found[0].id}/file", data=b"moss", headers=headers)


async def test_nodes_as_machines(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is one image that says whose it is, and is the image of nodes made from it in place; a reboot and a rebuild keep the
    server with its addresses; the plan has nothing to do; an image that was interrupted is gone, and a name that is taken is an error."""
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(layout.clouds))
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    cloud, name = openstack.connect(cloud="testbed"), f"machines-{secrets.token_hex(2)}"
    settings = {"cloud": "testbed", "image": "tiny", "flavor": "small", "external": "public", "ready": "active"}
    said = {"name": name, "provider": "openstack", "settings": settings, "networks": ["lab"], "nodes": {"a": {"networks": ["lab"]}}}
    file = tmp_path / f"{name}.yaml"
    file.write_text(json.dumps(said))
    up = Environment(file)

    def server() -> Any:
        return next(item for item in cloud.compute.servers(name=f"^wardian-{name}-"))

    def fixed(found: Any) -> dict[str, str]:
        # Nova tells of a floating IP some time after it is there
        return {name: item["addr"] for name, listed in found.addresses.items() for item in listed if item["OS-EXT-IPS:type"] == "fixed"}

    def images(called: str) -> list[Any]:
        return list(cloud.image.images(name=called))

    try:
        await up.up()
        before = await asyncio.to_thread(server)
        storing = asyncio.create_task(_stored(cloud, name))
        told: list[str] = []
        made = await up.snapshot("a", name, report=lambda node, state: told.append(state))
        await storing
        assert told[-1] == "its image is active"
        (image,) = await asyncio.to_thread(images, name)
        kept = {key: image.properties[key] for key in ("wardian-server", "wardian-node")}
        assert (kept, made.digest) == ({"wardian-server": before.id, "wardian-node": "a"}, f"sha512:{image.hash_value}")
        with pytest.raises(ProviderError, match=f"there is an image {name}, made at"):
            await up.snapshot("a", name)

        seen = asyncio.Event()
        waiting = asyncio.create_task(up.snapshot("a", f"{name}-cut", report=lambda node, state: seen.set()))
        await seen.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asyncio.to_thread(images, f"{name}-cut") == []

        for hard in (False, True):
            plan = await up.reboot("a", hard=hard)
            assert [(item.action, item.names) for item in plan.operations] == [("reboot", ["a"])]
        await up.rebuild("a", image=name)
        after = await asyncio.to_thread(server)
        assert (after.id, fixed(after), after.metadata) == (before.id, fixed(before), before.metadata)
        assert after.image.id == image.id
        assert not await up.plan()
        await up.rebuild("a")
        assert (await asyncio.to_thread(server)).image.id == before.image.id
        assert not await up.plan()
    finally:
        await up.down(force=True)
        up.close()
        for called in (name, f"{name}-cut"):
            for image in await asyncio.to_thread(images, called):
                await asyncio.to_thread(cloud.image.delete_image, image.id)
        cloud.close()
