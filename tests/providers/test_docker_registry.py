"""Images from a registry that asks for a password: a real one, on the loopback interface of the tests' Engine."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from wardian.errors import ProviderError
from wardian.providers.docker import DockerProvider, DockerSettings, credentials
from wardian.providers.docker.engine import Engine
from wardian.providers.testing import quiet

from ..engine import BARE, IMAGE, Daemon
from ..stage import require
from .containers import Grown, node

pytestmark = [pytest.mark.root, pytest.mark.slow]

REGISTRY = "127.0.0.1:5000"
PRIVATE = f"{REGISTRY}/garden/bare"
USER, PASSWORD = "grower", "moss:and fern"
HASHED = "grower:$2y$04$Um.dIh/0N6GlxmSZyios/.9t77xATZjlkXvqUv341CHi18ZTX0u0a\n"
"""As `htpasswd -Bbn -C 4` writes it."""

SETTINGS = """
version: 0.1
storage: {filesystem: {rootdirectory: FOLDER/data}}
http: {addr: REGISTRY, secret: unused}
auth: {htpasswd: {realm: garden, path: FOLDER/htpasswd}}
"""


@pytest.fixture(scope="module")
def registry(engine: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A registry that the Engine reaches, with one image, for one user."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(HASHED)
    (folder / "settings.yml").write_text(SETTINGS.replace("FOLDER", str(folder)).replace("REGISTRY", REGISTRY))
    program = require("docker-registry")
    argv = ["nsenter", f"--net=/proc/{engine.pid}/ns/net", program, "serve", str(folder / "settings.yml")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("listening on" in line for line in process.stderr)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("DOCKER_CONFIG", str(folder))
                log_in(folder)
                asyncio.run(push(Engine(engine.address)))
            yield
        finally:
            process.kill()


async def push(engine: Engine) -> None:
    await engine.post(f"/images/{BARE}/tag", repo=PRIVATE, tag="1")
    async for _ in engine.lines("POST", f"/images/{PRIVATE}/push", query={"tag": "1"}, headers=credentials.for_image(PRIVATE).header):
        pass


def log_in(folder: Path, password: str = PASSWORD, registry: str = REGISTRY) -> None:
    """Write what `docker login` writes."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Docker's own configuration, empty."""
    folder = tmp_path / "docker-config"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


@pytest_asyncio.fixture
async def grown(engine: Daemon, registry: None, config: Path, state_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An environment on an Engine that does not have the registry's image."""
    monkeypatch.setenv("WARDIAN_STATE", str(state_folder))
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    grown = Grown(DockerProvider(DockerSettings(image=IMAGE)), tmp_path)
    await grown.provider.engine.delete(f"/images/{PRIVATE}:1")
    yield grown
    await grown.provider.destroy(grown.id, quiet)
    assert await grown.left() == []


async def refusal(grown: Grown, image: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await grown.grow(node("a", image=image))
    assert caught.value.resource == "node a"
    return caught.value


@pytest.mark.parametrize("written", [REGISTRY, f"http://{REGISTRY}", f"https://{REGISTRY}/v1/"])
async def test_a_private_image_is_pulled_with_what_docker_login_wrote(grown: Grown, config: Path, written: str) -> None:
    """A node's image comes from a private registry with the password in Docker's configuration, however the registry is written there."""
    log_in(config, registry=written)
    await grown.grow(node("a", image=f"{PRIVATE}:1"))
    assert await grown.sh("a", "echo grown") == "grown"
    assert any(state.startswith(f"pulling {PRIVATE}:1") for _, state in grown.told)


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
async def test_a_private_image_is_pulled_with_what_a_helper_keeps(
    grown: Grown, config: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The password may be kept by a helper program, for one registry or for all."""
    helper = config / "docker-credential-jar"
    answer = json.dumps({"ServerURL": REGISTRY, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f'#!/bin/sh\n[ "$1 $(cat)" = "get {REGISTRY}" ] && echo \'{answer}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{config}:{os.environ['PATH']}")
    (config / "config.json").write_text(json.dumps({key: "jar" if key == "credsStore" else {REGISTRY: "jar"}}))
    await grown.grow(node("a", image=f"{PRIVATE}:1"))


async def test_an_image_is_built_from_a_private_one(grown: Grown, config: Path) -> None:
    """What a Dockerfile begins with may be private, too."""
    log_in(config)
    (grown.folder / "image").mkdir()
    (grown.folder / "image" / "Dockerfile").write_text(f"FROM {PRIVATE}:1\nRUN echo fern > /plant\n")
    await grown.grow(node("a", build={"context": "./image", "dockerfile": None, "target": None, "args": {}, "sha256": grown.id}))
    assert await grown.sh("a", "cat /plant") == "fern"


async def test_without_a_password_it_is_said_how_to_give_one(grown: Grown) -> None:
    """Who is not known to the registry is told so, and to log in there."""
    error = await refusal(grown, f"{PRIVATE}:1")
    assert "no basic auth credentials" in error.message
    assert f"docker login {REGISTRY}" in (error.remedy or "")


async def test_a_wrong_password_is_told_from_none(grown: Grown, config: Path) -> None:
    """A password that the registry refuses is named with where it comes from, and is not shown."""
    log_in(config, "mould")
    error = await refusal(grown, f"{PRIVATE}:1")
    assert "unauthorized" in error.message
    assert str(config / "config.json") in (error.remedy or "")
    assert "mould" not in f"{error.message} {error.remedy}"


async def test_a_helper_that_fails_is_named(grown: Grown, config: Path) -> None:
    """A helper that is not installed is named where its password was needed."""
    (config / "config.json").write_text('{"credsStore": "lost"}')
    assert "docker-credential-lost" in ((await refusal(grown, f"{PRIVATE}:1")).remedy or "")


async def test_an_image_that_the_registry_does_not_have(grown: Grown, config: Path) -> None:
    """An image or a tag that is not in the registry is an error about its name."""
    log_in(config)
    for image in (f"{PRIVATE}:2", f"{REGISTRY}/garden/weed"):
        error = await refusal(grown, image)
        assert image in error.message
        assert "unknown" in error.message
        assert "name" in (error.remedy or "")
        await grown.provider.destroy(grown.id, quiet)


async def test_a_registry_that_is_not_there(grown: Grown) -> None:
    """A registry where nobody listens is an error about reaching it."""
    error = await refusal(grown, "127.0.0.1:5001/garden/bare:1")
    assert "connection refused" in error.message
    assert "127.0.0.1:5001" in (error.remedy or "")
