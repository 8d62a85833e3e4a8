"""The local provider as an ordinary user has it: in a user namespace, with the same promises as root's."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from .. import ordinary
from ..ordinary import ROOT, User

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """An ordinary user, with ids granted."""
    with ordinary.user() as user:
        yield user


def suite(user: User, *files: str) -> str:
    """What pytest says of these files' tests, run as this user: all have to pass, and none may be left out."""
    places = [str(ROOT / "tests" / "providers" / file) for file in files]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", str(ROOT), "--basetemp", str(user.folder / "tests")]
    done = user.run(sys.executable, "-m", "pytest", *options, *places, cwd=ROOT, groups=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout
    return done.stdout


def test_the_contract(user: User) -> None:
    """An ordinary user's nodes keep every promise of the contract that root's keep."""
    assert " passed" in suite(user, "test_local_contract.py")
