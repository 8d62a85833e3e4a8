"""An environment that is up, shared by the tests that only look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..stage import Stage, make_stage

TEXT = """
name: NAME
parameters: {clients: 2, delay: 5ms}
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west], delay: "${delay}", rate: 50mbit, queue: 100}
nodes:
  server: {networks: [east], roles: [origin]}
  client: {count: "${clients}", networks: [west]}
services:
  web: {on: server, command: python3 -m http.server 8000, directory: /tmp, ready: {port: 8000}}
"""


@pytest.fixture(scope="package")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server behind a link and two clients, up; tests that use it leave it as it is."""
    stage = make_stage(tmp_path_factory.mktemp("grown"))
    stage.write(TEXT)
    stage.run("up")
    yield stage
    stage.close()
