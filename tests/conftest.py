"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .stage import Stage, make_stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A folder to use the `wardian` command in; fails a test that leaves anything of its environments behind."""
    stage = make_stage(tmp_path)
    yield stage
    stage.close()
