"""The docker provider, against the suite that every provider passes, with either wiring."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from wardian.experiment.resources import Resource
from wardian.providers.docker import DockerProvider, DockerSettings
from wardian.providers.docker.names import container_name
from wardian.providers.testing import ProviderContract, create, new_id, quiet, small_environment

from ..engine import BARE, IMAGE, Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

HARMLESS = frozenset(
    f"test_{name}"
    for name in (
        *("created_resources_are_observed_ready", "the_record_identifies_the_environment", "a_fresh_provider_finds_everything"),
        *("exit_code_and_streams", "standard_input", "no_standard_input", "stderr_merged", "environment_variables", "a_missing_program"),
        *("our_variables_stay_here", "working_directory", "signals", "much_output", "streams_are_live", "close_ends_it", "a_terminal"),
        *("a_session_of_its_own", "many_commands_at_once", "keep_and_diagnose", "garbage_collection_spares_what_lives"),
    )
)
"""Tests of the contract that change nothing of the environment: they share one, which takes a second to grow."""


def keep(suite: type[ProviderContract], names: Collection[str]) -> None:
    """Have a suite run no other tests of the contract than these."""
    for name in dir(ProviderContract):
        if name.startswith("test_") and name not in names:
            setattr(suite, name, None)


class TestDockerProvider(ProviderContract):
    """Every promise of the contract, kept by containers that this host's kernel joins."""

    wiring = "host"
    image = IMAGE

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, engine: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
        """A state folder and the id of an environment that tests share which change nothing of it."""
        folder, environment = tmp_path_factory.mktemp("state"), new_id()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WARDIAN_STATE", str(folder))
            patch.setenv("DOCKER_HOST", engine.address)
            provider = DockerProvider(DockerSettings(image=cls.image, wiring=cls.wiring))
            asyncio.run(create(provider, environment, cls().resources()))
            yield folder, environment
            patch.setenv("WARDIAN_STATE", str(folder))
            asyncio.run(DockerProvider().destroy(environment, quiet))

    @pytest.fixture
    def provider(self, engine: Daemon, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DockerProvider:
        """A provider on the tests' Engine, with a state folder of its own unless the environment is shared."""
        harmless = request.function.__name__ in HARMLESS
        folder = request.getfixturevalue("shared")[0] if harmless else request.getfixturevalue("state_folder")
        monkeypatch.setenv("WARDIAN_STATE", str(folder))
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        return DockerProvider(DockerSettings(image=self.image, wiring=self.wiring))

    @pytest_asyncio.fixture
    async def grown(self, provider: DockerProvider, environment: str, request: pytest.FixtureRequest) -> str:
        """The id of an environment that exists."""
        if request.function.__name__ in HARMLESS:
            shared: str = request.getfixturevalue("shared")[1]
            return shared
        await create(provider, environment, self.resources())
        return environment

    def resources(self, instance: str = "default") -> list[Resource]:
        return small_environment(instance, "docker")

    async def stop_node(self, provider: DockerProvider, environment: str, node: str) -> None:
        await provider.engine.post(f"/containers/{container_name(environment, node)}/kill")
        await provider.engine.post(f"/containers/{container_name(environment, node)}/wait")


class TestWithoutPython(TestDockerProvider):
    """What concerns the channel alone, kept by nodes that have nothing but a shell, where the Engine starts each process."""

    image = BARE


keep(TestWithoutPython, HARMLESS)


@pytest.mark.long
class TestDockerNetworks(TestDockerProvider):
    """The same, kept by networks of the Engine's, where subnets of two environments have to differ."""

    wiring = "engine"

    def resources(self, instance: str = "default") -> list[Resource]:
        made = super().resources(instance)
        if instance != "default":
            made = [replace(item, spec=json.loads(json.dumps(item.spec).replace('"10.6', '"10.7'))) for item in made]
        return made
