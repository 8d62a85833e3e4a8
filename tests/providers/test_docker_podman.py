"""Podman in the place of a Docker Engine: the suite that every provider passes, and cells on its containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .. import engine as engines
from ..engine import Daemon, Podman
from ..stage import Stage
from .containers import Grown, node
from .test_docker import empty, provider  # noqa: F401 - fixtures
from .test_docker_contract import TestDockerProvider as _Contract
from .test_docker_contract import keep
from .test_docker_notebook import docker  # noqa: F401 - a fixture
from .test_docker_notebook import test_cells_run_on_containers as _cells_run

pytestmark = [pytest.mark.root, pytest.mark.slow]


TELLING = frozenset(
    f"test_{name}"
    for name in (
        *("notes_are_kept_with_the_node", "update_changes_just_that", "destroy_is_complete_and_repeatable", "a_killed_node"),
        *("two_environments_do_not_see_each_other", "faults_can_be_repeated_and_undone", "a_paused_node_stands_still_and_goes_on"),
    )
)
"""Tests of the contract that ask something of Podman that it does in its own way."""

CHANNEL = frozenset(f"test_{name}" for name in ("exit_code_and_streams", "standard_input", "signals", "close_ends_it", "a_terminal"))
"""Those of the channel in which Podman's way of attaching could show; the long tier has the others."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Daemon]:
    """Podman's service with the tests' images, in the place of the Engine."""
    daemon = engines.start(Podman)
    yield daemon
    daemon.close()


class TestPodman(_Contract):
    """What is particular to Podman, and what concerns the channel."""


keep(TestPodman, CHANNEL | TELLING)


@pytest.mark.long
class TestWholePodman(_Contract):
    """Every promise of the contract, kept by Podman's containers."""


async def test_ways_out(empty: Grown) -> None:  # noqa: F811
    """What leads out of a node stands beside the interfaces that the file gives it, also on nodes that come later."""
    port = {"node": 8080, "host": None, "address": "127.0.0.1", "protocol": "tcp"}
    await empty.grow(node("a", ports=[port]))
    await empty.create(node("b", "10.74.0.3", internet=True))
    for name in ("a", "b"):
        assert "dev inet0" in await empty.sh(name, "ip route show default")
    await empty.sh("b", "ping -c 1 -W 5 -I eth0 10.74.0.2")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_cells_run_on_podmans_containers(docker: Stage, engine: Daemon) -> None:  # noqa: F811
    """What cells do on the Engine's containers they do on Podman's, with the same experiment."""
    _cells_run(docker, engine)
