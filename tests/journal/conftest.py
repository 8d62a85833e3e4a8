"""The two databases that a journal may be in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wardian.journal import Journal


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a journal that does not exist yet may be made: a path, and the address of a database."""
    if request.param == "sqlite":
        return tmp_path / ".wardian" / "journal.db"
    server = request.getfixturevalue("server")
    return str(server.url(server.database()))


@pytest.fixture
def journal(target: Path | str) -> Iterator[Journal]:
    """A journal there, open."""
    with Journal.open(target) as journal:
        yield journal
