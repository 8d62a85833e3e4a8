"""A memory provider in the place of every other, and an experiment file to use it with."""

import asyncio

import pytest

from wardian.environment.environment import Environment
from wardian.providers import registry
from wardian.providers.memory import MemoryCloud, MemoryProvider

TEXT = """
name: study
provider: memory
parameters: {clients: 2, delay: 30ms}
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west], delay: "${delay}", rate: 10mbit, queue: 100}
nodes:
  server: {networks: [east], roles: [origin], files: {serve.py: /tmp/serve.py}}
  client: {count: "${clients}", networks: [west]}
"""


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """What the provider `memory` holds; every environment of the test is grown there."""
    cloud = MemoryCloud()
    make = registry.make
    monkeypatch.setattr(
        registry, "make", lambda name, settings=None: make(name, settings) if name == registry.SEVERAL else MemoryProvider(cloud=cloud)
    )
    monkeypatch.setattr(registry, "names", lambda: ["memory"])
    monkeypatch.setattr(registry, "settings_models", lambda: {"memory": MemoryProvider.Settings})
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    yield cloud
    cloud.close()


@pytest.fixture
def folder(tmp_path):
    """A folder with an experiment."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "experiment.yaml").write_text(TEXT.replace(", files: {serve.py: /tmp/serve.py}", ""))
    (folder / "serve.py").write_text("print('hello')\n")
    return folder


@pytest.fixture
def environment(cloud, folder):
    """The environment of that experiment, not yet up."""
    environment = Environment(folder / "experiment.yaml")
    yield environment
    environment.close()


@pytest.fixture
def rewrite(folder):
    """Change the experiment file: `rewrite(old, new)`."""

    def change(old: str, new: str) -> None:
        path = folder / "experiment.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


@pytest.fixture
def gate(cloud):
    """Hold the cloud's operations until the event is set."""
    cloud.gate = asyncio.Event()
    return cloud.gate
