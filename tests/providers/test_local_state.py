"""The state folder of the local provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from wardian.experiment.resources import EnvironmentRecord
from wardian.providers.local.state import EnvironmentFolder, State

RECORD = EnvironmentRecord(
    id="t-1", name="t", instance="default", file="/t/experiment.yaml", provider="local", user="u", host="h", created=0.0
)


def test_a_maker_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had begun of an environment's folder is no environment, stays while its lock is held, and is gone at the next look."""
    state = State(tmp_path)
    with state.lock(RECORD.file, RECORD.instance, "wardian up"):
        with monkeypatch.context() as patched:
            patched.setattr(EnvironmentFolder, "_fill", lambda self, *_: (self.path.mkdir(parents=True), exit("killed")))
            with pytest.raises(SystemExit):
                state.environment(RECORD.id).begin(RECORD)
        (left,) = (tmp_path / "environments").iterdir()
        assert state.environments() == []
        assert left.exists()
    assert state.environments() == []
    assert not left.exists()
    with state.lock(RECORD.file, RECORD.instance, "wardian up"):
        state.environment(RECORD.id).begin(RECORD)
    assert [folder.record() for folder in state.environments()] == [RECORD]
