"""Control groups of the local provider: what a kernel does that the one here may not do when it is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wardian.errors import ProviderError
from wardian.providers.local import cgroups


def kernel(monkeypatch: pytest.MonkeyPatch, gives_in_after: float) -> list[str]:
    """Put one in the place of this host's that freezes a group only when it is told so for the n-th time; gives what it was told."""
    told: list[str] = []

    def write(path: Path, value: str) -> None:
        told.append(value)
        path.write_text(value if value == "THAWED" or told.count(value) >= gives_in_after else "FREEZING\n")

    monkeypatch.setattr(cgroups, "_write", write)
    monkeypatch.setattr(cgroups.time, "sleep", lambda seconds: None)
    return told


def test_what_forks_is_frozen_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes that fork keep the kernel at it for good, the freezing is begun anew until it succeeds."""
    told = kernel(monkeypatch, 3)
    cgroups._stand_still(tmp_path / "freezer.state")
    assert told == ["THAWED", "FROZEN"] * 3


def test_what_cannot_be_frozen_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that does not stand still is an error with the state of its group, and its processes with what they do."""
    kernel(monkeypatch, float("inf"))
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n{2**22 + 1}\n")
    said = rf"control group is FREEZING, with .* \({os.getpid()}, [RSD], .*, one that has ended"
    with pytest.raises(ProviderError, match=said) as caught:
        cgroups._stand_still(tmp_path / "freezer.state")
    assert caught.value.resource == f"node {tmp_path.name}"
