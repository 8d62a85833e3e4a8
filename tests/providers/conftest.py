"""What tests of providers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def state_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of the test's own."""
    folder = tmp_path / "state"
    if os.geteuid() != 0:
        # the layer of this host's folders has thousands of them: once is enough
        shared = tmp_path_factory.getbasetemp() / "layers"
        shared.mkdir(exist_ok=True)
        folder.mkdir(mode=0o700)
        (folder / "layers").symlink_to(shared)
    return folder
