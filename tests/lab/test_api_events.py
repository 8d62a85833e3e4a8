"""The websocket of events: that everybody who looks sees the same truth, whoever changes it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stage import make_stage

from .rest import Listener, Rest

pytestmark = pytest.mark.root

TEXT = """
name: NAME
parameters: {clients: 1}
networks: {east: {}, west: {}}
links: {wan: {between: [east, west], delay: 5ms}}
nodes:
  server: {networks: [east]}
  client: {count: "${clients}", networks: [west]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A Jupyter server beside an experiment."""
    stage = make_stage(tmp_path_factory.mktemp("events"))
    rest = Rest(stage)
    yield rest
    rest.close()
    stage.close()


@pytest.fixture
def rest(server: Rest) -> Iterator[Rest]:
    """The same, with nothing of the experiment up before or after."""
    server.stage.write(TEXT)
    yield server
    server.stage.run("down")


def states(listener: Any) -> dict[str, str]:
    """The state of each node."""
    return {name: node["state"] for name, node in listener.state["nodes"].items()}


def test_what_the_command_line_does_is_seen_by_every_client(rest: Rest) -> None:
    """From growing over a link's change to tearing down, two clients follow what another process does, in differences of one snapshot."""
    first, second = rest.listen(), rest.listen()
    for listener in (first, second):
        listener.read()
        assert listener.state["state"] == "absent"
        assert set(states(listener).values()) == {"absent"}
    rest.stage.run("up")
    for listener in (first, second):
        listener.until(lambda seen: seen.state["state"] == "ready" and not seen.state["running"])
        assert set(states(listener).values()) == {"ready"}
        # the journal may be read after the resources
        listener.until(lambda seen: "ok" in {entry["status"] for entry in seen.entries if entry["kind"] == "operation"})
    usage = first.until(lambda seen: seen.state["nodes"]["server"].get("usage"))
    assert usage["memory"] > 0
    rest.stage.run("link", "set", "wan", "--delay", "80ms")
    for listener in (first, second):
        listener.until(lambda seen: seen.state["links"]["wan"]["ways"]["there"]["delay"] == 0.08)
    rest.stage.run("fault", "pause", "server")
    first.until(lambda seen: seen.state["faults"])
    rest.stage.run("down")
    for listener in (first, second):
        listener.until(lambda seen: seen.state["state"] == "absent" and not seen.state["running"])
        assert "record" not in listener.state
        assert listener.kinds.count("snapshot") == 1
        listener.close()


def test_a_node_that_dies_is_noticed(rest: Rest) -> None:
    """A node whose init is killed is shown as stopped without anybody's asking, and without an entry in the journal."""
    rest.stage.run("up")
    listener = rest.listen()
    listener.until(lambda seen: seen.state.get("state") == "ready")
    killed = time.time()
    os.kill(rest.stage.pid("client[0]"), signal.SIGKILL)
    listener.until(lambda seen: states(seen)["client[0]"] == "stopped")
    assert listener.state["state"] == "partial"
    # what `up` wrote may come after what it made
    assert [entry for entry in listener.entries if entry["started"] >= killed] == []
    rest.stage.run("up", "-y")
    listener.until(lambda seen: seen.state["state"] == "ready")
    listener.close()


def test_an_edit_of_the_file_is_noticed(rest: Rest) -> None:
    """What is wrong with the file shows as soon as it is saved, and goes when it is mended."""
    listener = rest.listen()
    listener.read()
    rest.stage.edit("delay: 5ms", "delay: soon")
    listener.until(lambda seen: seen.state["problems"])
    assert listener.state["problems"][0]["field"] == "links.wan.delay"
    rest.stage.edit("delay: soon", "delay: 9ms")
    listener.until(lambda seen: not seen.state["problems"])
    assert listener.state["links"]["wan"]["ways"]["there"]["delay"] == 0.009
    listener.close()


def test_a_journal_that_is_removed_is_found_again(rest: Rest) -> None:
    """Where the folder of the journal was removed and a command made another, its entries are told as those of the first were."""
    rest.stage.run("up")
    rest.stage.run("down")
    listener = rest.listen()
    listener.read()
    shutil.rmtree(rest.stage.folder / ".wardian")
    removed = time.time()
    rest.stage.run("up")

    def told(seen: Listener) -> set[str]:  # those of the first journal may come late
        return {entry["id"] for entry in seen.entries if entry["started"] >= removed}

    listener.until(lambda seen: seen.state["state"] == "ready" and told(seen))
    assert told(listener) <= {entry["id"] for entry in rest.get("journal")["entries"]}
    listener.close()


def test_coming_back_goes_on_by_number(rest: Rest) -> None:
    """Who comes back with the number of its last difference gets those that it missed; with another server's number, a snapshot."""
    listener = rest.listen()
    snapshot = listener.read()
    listener.close()
    rest.stage.edit("delay: 5ms", "delay: 9ms")
    witness = rest.listen()
    witness.until(lambda seen: seen.state["links"]["wan"]["ways"]["there"]["delay"] == 0.009)
    again = rest.listen(epoch=snapshot["epoch"], number=snapshot["number"], sequence=snapshot["sequence"])
    again.state, again.number = listener.state, listener.number
    assert again.read()["type"] == "resumed"
    again.until(lambda seen: seen.state == witness.state)
    assert "snapshot" not in again.kinds
    other = rest.listen(epoch="another", number=snapshot["number"], sequence=0)
    assert other.read()["type"] == "snapshot"
    assert other.state == witness.state
    for client in (witness, again, other):
        client.close()
