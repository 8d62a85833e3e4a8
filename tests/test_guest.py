"""What only another kernel shows, run on one: netem, queueing disciplines, and limits by control groups of version 2."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .guest import guest

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[1]
QUIET = "PYTHONDONTWRITEBYTECODE=1 WARDIAN_STATE=/tmp/state"


def passed(*arguments: str) -> int:
    """How many tests passed there; every one of them has to, and none may be skipped."""
    pytest_ = f"{sys.executable} -m pytest -p no:cacheprovider -q --timeout=600 {' '.join(arguments)}"
    done = guest().run(f"cd {ROOT} && {QUIET} {pytest_}", timeout=1500)
    found = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert found, done.stdout[-6000:]
    assert not re.search(r"\d+ skipped", done.stdout), done.stdout[-6000:]
    return int(found[1])


def test_netem() -> None:
    """Every part of a shape does what it says where the kernel's own netem carries it out."""
    assert passed("tests/providers/test_netem.py") >= 6


def test_netem_on_ssh_hosts() -> None:
    """Hosts whose kernels have netem do to packets all that links between them ask for."""
    assert passed("tests/providers/test_ssh_netem.py") >= 3


def test_limits_by_control_groups_of_version_2() -> None:
    """A memory limit kills what takes more, and limits change and go while a node runs."""
    assert passed("tests/providers/test_local.py", "-k", "limit") >= 2


def test_limits_of_ssh_hosts_by_control_groups_of_version_2() -> None:
    """A node's processes on a host are limited and slowed there, and all of it goes with the node."""
    assert passed("tests/providers/test_ssh_faults.py", "-k", "'limits_of or slow'") >= 2
