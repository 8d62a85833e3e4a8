"""What tests of providers share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    """A state folder of the test's own."""
    return tmp_path / "state"
