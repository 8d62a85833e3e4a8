"""When a keeper acts on a lease: without processes, by records alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from wardian.environment.environment import open_journal
from wardian.environment.keeper import LEAD, NOTICE, Keeper, lease_end
from wardian.experiment.resources import EnvironmentRecord
from wardian.providers.memory import MemoryProvider

HOUR = 3600.0


def record(folder: Path, left: float, at_end: str = "down", *, held: bool = False, duration: float = 2 * HOUR) -> EnvironmentRecord:
    """One of which so many seconds are left, by its own count or by its site's."""
    end = time.time() + left
    spec = {"lease": {"duration": duration, "at_end": at_end}}
    created = end - duration - (HOUR if held else 0.0)
    who = {"id": "study-1", "name": "study", "instance": "default", "provider": "memory", "user": "me", "host": "here"}
    return EnvironmentRecord(**who, file=str(folder / "experiment.yaml"), created=created, spec=spec, held_until=end if held else None)


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """One that does not run."""
    monkeypatch.delenv("WARDIAN_JOURNAL", raising=False)
    return Keeper("study-1", MemoryProvider(), -1)


def told(folder: Path) -> list[str]:
    journal = open_journal(folder / "experiment.yaml")
    found = [item.summary for item in journal.entries(kinds=["event"])]
    journal.close()
    return found


def test_the_journal_is_told_once_before_the_end(keeper: Keeper, tmp_path: Path) -> None:
    """Ten minutes before the end, or in the last quarter of a short lease, there is one event; a lease that was extended has another."""
    early = record(tmp_path, HOUR)
    assert keeper._due(early) == (lease_end(early), pytest.approx(early.created + 2 * HOUR - NOTICE))
    short = record(tmp_path, 60.0, duration=160.0)
    assert keeper._due(short)[1] == pytest.approx(short.created + 120.0)
    late = record(tmp_path, NOTICE / 2)
    for _ in range(2):
        assert keeper._due(late) == (lease_end(late), None)
    assert len(told(tmp_path)) == 1
    assert "lease.ending" in told(tmp_path)[0]
    keeper._due(record(tmp_path, NOTICE / 3))
    assert len(told(tmp_path)) == 2


def test_what_a_site_takes_away_is_collected_before(keeper: Keeper, tmp_path: Path) -> None:
    """The end is the site's, and the keeper acts before it where files may have to be collected; where only told of it, at the end."""
    held = record(tmp_path, HOUR, held=True)
    assert lease_end(held) == held.held_until
    assert keeper._due(held)[0] == pytest.approx((held.held_until or 0.0) - LEAD)
    assert keeper._due(record(tmp_path, HOUR, held=True, duration=HOUR / 2))[0] == pytest.approx(time.time() + HOUR - 180.0, abs=60.0)
    kept = record(tmp_path, HOUR, "keep", held=True)
    assert keeper._due(kept)[0] == kept.held_until
