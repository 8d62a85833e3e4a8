"""What tests of providers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    """A state folder of the test's own; skips where there is no root to use it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return tmp_path / "state"
