"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import engine as engines
from . import postgres
from .stage import Stage, make_stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files whose tests use real nodes or take their time first, so that several workers end at about the same moment."""
    slow = {item.path for item in items if item.get_closest_marker("root") or item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A folder to use the `wardian` command in; fails a test that leaves anything of its environments behind."""
    stage = make_stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[engines.Daemon]:
    """A Docker Engine with the tests' images."""
    daemon = engines.start()
    yield daemon
    daemon.close()


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server."""
    server = postgres.start()
    yield server
    server.close()
