"""An Engine whose disk is full: what cannot be made says so with what to do, leaves nothing behind, and is made once there is room."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from wardian.errors import ProviderError
from wardian.providers.docker import DockerProvider, DockerSettings
from wardian.providers.testing import quiet

from .. import images
from ..engine import BARE, Daemon
from .containers import Grown, node

pytestmark = [pytest.mark.root, pytest.mark.slow]

SIZE, TOO_MUCH = 48 * 2**20, 64 * 2**20
"""Bytes of the Engine's disk, and what does not fit there."""


@pytest.fixture(scope="module")
def small() -> Iterator[Daemon]:
    """An Engine with little room."""
    root = images.without_python(bash=False)
    daemon = Daemon(size=SIZE)
    try:
        daemon.start()
        daemon.load(BARE, root)
        yield daemon
    finally:
        daemon.close()


@pytest_asyncio.fixture
async def grown(small: Daemon, state_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Grown]:
    """An environment on it; fails a test after which more containers are there than before."""
    monkeypatch.setenv("WARDIAN_STATE", str(state_folder))
    monkeypatch.setenv("DOCKER_HOST", small.address)
    grown = Grown(DockerProvider(DockerSettings(image=BARE)), tmp_path)
    yield grown
    await grown.provider.destroy(grown.id, quiet)
    assert await grown.left() == []
    assert await asyncio.to_thread(small.containers) == []


async def refusal(grown: Grown, **spec: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await grown.create(node("a", **spec))
    assert "no space left on device" in caught.value.message.lower()
    assert "docker system df" in (caught.value.remedy or "")
    assert caught.value.resource == "node a"
    return caught.value


def build(context: Path, dockerfile: str) -> dict[str, Any]:
    """What a node has that is built from this."""
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    return {"context": f"./{context.name}", "dockerfile": None, "target": None, "args": {}, "sha256": os.urandom(8).hex()}


def hole(path: Path) -> None:
    """A file that is large for whoever copies it."""
    with open(path, "wb") as file:
        file.truncate(TOO_MUCH)


def fill_up(path: Path) -> None:
    """Write to a file until there is no room."""
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


async def test_a_build_that_writes_too_much(grown: Grown) -> None:
    """A step of a build that finds no room is an error with its words and the way to make room; a smaller one is built then."""
    await grown.grow()
    await refusal(grown, build=build(grown.folder / "image", f"FROM {BARE}\nRUN dd if=/dev/zero of=/large bs=1M count={TOO_MUCH >> 20}\n"))
    await grown.create(node("a", build=build(grown.folder / "image", f"FROM {BARE}\nRUN echo fern > /plant\n")))
    assert await grown.sh("a", "cat /plant") == "fern"


async def test_a_folder_to_build_from_that_is_too_large(grown: Grown) -> None:
    """What a build is made from may be too much for the Engine already."""
    await grown.grow()
    spec = build(grown.folder / "image", f"FROM {BARE}\nCOPY large /\n")
    hole(grown.folder / "image" / "large")
    await refusal(grown, build=spec)


async def test_a_root_file_system_that_is_too_large(grown: Grown) -> None:
    """A tar with more than the Engine has room for is no image, and is not taken for one afterwards."""
    (grown.folder / "root").mkdir()
    hole(grown.folder / "root" / "large")
    with tarfile.open(grown.folder / "root.tar", "w") as archive:
        archive.add(grown.folder / "root", ".")
    await grown.grow()
    for _ in range(2):
        await refusal(grown, image="./root.tar")


async def test_a_setup_that_writes_too_much(grown: Grown) -> None:
    """A setup script that finds no room fails with its last lines and the way to make room, and its container goes."""
    await grown.grow()
    await refusal(grown, setup=f"dd if=/dev/zero of=/large bs=1M count={TOO_MUCH >> 20}")


async def test_a_full_disk_and_then_room(grown: Grown, small: Daemon) -> None:
    """Where nothing fits any more nodes are not made, and are once there is room; those there are go on, and can be removed."""
    await grown.grow(node("b", "10.74.0.3"))
    fill = small.disk / "fill"
    fill_up(fill)
    try:
        await refusal(grown)
        assert await grown.sh("b", "echo alive") == "alive"
    finally:
        fill.unlink()
    states = await grown.states()
    assert states["node", "b"] == ("ready", "")
    await grown.provider.delete(grown.id, [("node", "a")], quiet)
    await grown.create(node("a"))
    assert await grown.sh("a", "echo grown") == "grown"
