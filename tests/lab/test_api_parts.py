"""The parts of the server's interface that need no server: differences, and what readers of them get."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import postgres
from wardian.journal import Journal
from wardian.lab.api import watch
from wardian.lab.api.desk import Desk
from wardian.lab.api.merge import difference
from wardian.lab.api.watch import Reader

from .rest import merged

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


# how long values take to make tells of the machine
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(OBJECTS, OBJECTS)
def test_a_difference_makes_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A patch makes the later document of the earlier, and is empty just where they are equal."""
    patch = difference(before, after)
    assert merged(before, patch) == after
    assert (not patch) == (json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True) or before == after)


def watched(number: int, kept: int, sequence: int, entries: int) -> Any:
    """A watch at a number, with its last differences and entries."""
    patches = deque((each, json.dumps({"type": "patch", "number": each})) for each in range(number - kept + 1, number + 1))
    return SimpleNamespace(
        epoch="e", number=number, sequence=sequence, patches=patches, broken=False, state={"now": number},
        entries=deque(({"id": each} for each in range(sequence - entries, sequence)), maxlen=watch.KEPT_ENTRIES),
    )  # fmt: skip


async def read(reader: Reader) -> list[dict[str, Any]]:
    """The messages that bring it up to date."""
    return [json.loads(text) for text in await reader.next()]


async def test_a_reader_that_lags_gets_a_snapshot() -> None:
    """Who is behind by no more than is kept gets each difference; who is further behind one snapshot, however far."""
    reader = Reader(watched(1000, 256, 0, 0))
    reader.resume("e", 990, 0)
    assert [message["number"] for message in await read(reader)] == list(range(991, 1001))
    for epoch, number in (("e", 1), ("other", 990), ("e", 5000)):
        reader = Reader(watched(1000, 256, 0, 0))
        reader.resume(epoch, number, 0)
        (message,) = await read(reader)
        assert (message["type"], message["state"]) == ("snapshot", {"now": 1000})


async def test_entries_that_are_too_many_are_counted() -> None:
    """Of entries that came while a reader did not read, it gets those that are kept, and the number of the others."""
    reader = Reader(watched(7, 0, 2000, watch.KEPT_ENTRIES))
    reader.resume("e", 7, 100)
    (message,) = await read(reader)
    assert message["missed"] == 1900 - watch.KEPT_ENTRIES
    assert [entry["id"] for entry in message["entries"]] == list(range(2000 - watch.KEPT_ENTRIES, 2000))


async def test_a_journal_in_a_database_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process writes to a journal in PostgreSQL comes to readers without being looked for."""
    database = postgres.start()
    try:
        url = database.url(database.database())
        monkeypatch.setenv("WARDIAN_JOURNAL", url)
        monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
        monkeypatch.setattr(watch, "LONGEST", 3600.0)
        file = tmp_path / "experiment.yaml"
        file.write_text("name: told\nnodes: [one]\n")
        desk = Desk(tmp_path)
        reader = await desk.join(file, "default", file.name)
        (message,) = await read(reader)
        assert message["type"] == "snapshot"
        coming = asyncio.create_task(read(reader))
        with Journal.open(url) as other:
            # again where nobody listened yet
            while not coming.done():
                other.event(kind="note")
                other.flush()
                await asyncio.wait([coming], timeout=0.5)
        assert [message["type"] for message in await coming] == ["entries"]
        desk.environment(file, "default").close()
    finally:
        database.close()


def test_a_server_starts_without_what_it_may_never_need() -> None:
    """Adding the routes to a server imports nothing that works on environments."""
    heavy = "{'pydantic', 'sqlalchemy', 'yaml', 'wardian.environment', 'asyncinotify'}"
    code = (
        f"import sys, jupyter_server.serverapp; had = set(sys.modules); import wardian.lab.api; print({heavy} & (set(sys.modules) - had))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
