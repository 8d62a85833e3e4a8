"""What a page that watches is told: nodes, what is sticky, and how cells fare on their nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import NODES, TIMEOUT, Notebook

pytestmark = pytest.mark.slow


class Watcher:
    """A client that keeps what it was told, as a page does."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.environment: dict[str, Any] | None = None
        self.sticky: dict[str, Any] | None = None
        self.cells: dict[str, dict[str, Any]] = {}
        message = notebook.client.session.msg("wardian_watch_request", {})
        notebook.client.shell_channel.send(message)
        told = notebook.reply(message["header"]["msg_id"])["content"]
        assert told["status"] == "ok"
        self.sequence = told["sequence"]
        self._take(told)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Listen until something holds."""
        while not (found := condition()):
            message = self.notebook.client.get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] == "wardian_update" and message["content"]["sequence"] > self.sequence:
                assert message["content"]["sequence"] == self.sequence + 1
                self.sequence = message["content"]["sequence"]
                self._take(message["content"])
        return found

    def state(self, cell: str) -> str | None:
        """The state of a cell."""
        return self.cells.get(cell, {}).get("state")

    def nodes(self, cell: str) -> dict[str, str]:
        """The states of a cell's nodes."""
        return {name: node["state"] for name, node in self.cells.get(cell, {}).get("nodes", {}).items()}

    def _take(self, told: dict[str, Any]) -> None:
        self.environment = told.get("environment", self.environment)
        self.sticky = told.get("sticky", self.sticky)
        for entry in told.get("cells", []):
            known = self.cells.get(entry["cell"])
            if known is None or known["execution"] != entry["execution"]:
                self.cells[entry["cell"]] = entry
            else:
                self.cells[entry["cell"]] = {**known, **entry, "nodes": {**known["nodes"], **entry["nodes"]}}


def test_nodes_are_told_and_their_changes(start: Callable[..., Notebook]) -> None:
    """A page learns the nodes with groups, roles and states, and what is otherwise when the kernel has read it anew."""
    notebook = start("watching-nodes")
    watcher = Watcher(notebook)
    watcher.until(lambda: watcher.environment)
    assert watcher.environment is not None
    known = {node["name"]: node for node in watcher.environment["nodes"]}
    assert {name: {key: node[key] for key in ("group", "index", "roles", "state")} for name, node in known.items()} == NODES
    assert watcher.environment["languages"]["python"]["name"] == "python"
    notebook.write_nodes({"server": NODES["server"]})
    later = Watcher(notebook)
    later.until(lambda: later.environment and len(later.environment["nodes"]) == 1)
    notebook.write_nodes(None)
    later = Watcher(notebook)
    later.until(lambda: later.environment and "lacking" in later.environment)
    assert later.environment is not None
    assert later.environment["nodes"] == []
    assert "wardian up" in later.environment["lacking"]["remedy"]
    notebook.write_nodes(NODES)


def test_what_is_sticky_is_told(notebook: Notebook) -> None:
    """`%on` shows in pages, with its language, and so does its end."""
    watcher = Watcher(notebook)
    notebook.send("%on client --lang bash")
    watcher.until(lambda: watcher.sticky)
    assert watcher.sticky == {"on": "client", "lang": "bash"}
    assert Watcher(notebook).sticky == watcher.sticky
    notebook.send("%on here")
    watcher.until(lambda: watcher.sticky is None)


def test_cells_are_told_by_node(notebook: Notebook, tmp_path: Path) -> None:
    """Of a cell on several nodes a page learns where it runs, has ended and failed, with times and reasons; also one that asks later."""
    gate = tmp_path / "gate"
    watcher = Watcher(notebook)
    failing = "import os, time\nif os.environ['WARDIAN_TEST_NODE'] == 'client[1]': 1 / 0"
    code = f"{failing}\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    first = notebook.send(code, {"wardian": {"on": "client"}, "cellId": "one"})
    second = notebook.send("1", {"cellId": "two"}, stop_on_error=False)
    watcher.until(lambda: watcher.nodes("one") == {"client[0]": "running", "client[1]": "failed"})
    assert watcher.state("one") == "running"
    assert watcher.state("two") == "queued"
    assert watcher.cells["one"]["nodes"]["client[1]"]["reason"] == "ZeroDivisionError: division by zero"
    later = Watcher(notebook)
    assert later.nodes("one") == watcher.nodes("one")
    assert (later.state("one"), later.state("two")) == ("running", "queued")
    assert later.cells["one"]["on"] == "client"
    gate.touch()
    watcher.until(lambda: watcher.state("two") == "aborted")
    assert watcher.state("one") == "failed"
    assert watcher.nodes("one") == {"client[0]": "done", "client[1]": "failed"}
    assert all(node["seconds"] >= 0 for node in watcher.cells["one"]["nodes"].values())
    for number in (first, second):
        notebook.reply(number)


def test_background_cells_and_home(notebook: Notebook) -> None:
    """A background cell goes on being told after its reply, and a cell at home is told as one on `here`."""
    watcher = Watcher(notebook)
    notebook.send("%%on server --bg as told\nimport time\ntime.sleep(0.3)", {"cellId": "job"})
    watcher.until(lambda: watcher.nodes("job") == {"server": "done"})
    watcher.until(lambda: watcher.state("job") == "done")
    notebook.send("1", {"cellId": "home"})
    watcher.until(lambda: watcher.state("home") == "done")
    assert watcher.nodes("home") == {"here": "done"}


def test_nothing_is_told_unasked(start: Callable[..., Notebook]) -> None:
    """A kernel that no page watches sends none of these messages."""
    notebook = start("unwatched")
    result = notebook.run("%%on server\n1", {"cellId": "quiet"})
    notebook.client.kernel_info()
    messages = result.messages
    while not (messages[-1]["msg_type"] == "status" and messages[-1]["parent_header"]["msg_type"] == "kernel_info_request"):
        messages.append(notebook.client.get_iopub_msg(timeout=TIMEOUT))
    assert not [message for message in messages if message["msg_type"] == "wardian_update"]


def test_once(notebook: Notebook) -> None:
    """`once` in a request's metadata decides where that request runs, whatever line, metadata or `%on` say."""
    code = "import os\nprint(os.environ.get('WARDIAN_TEST_NODE'))"
    metadata = {"wardian": {"on": "client[0]", "once": {"on": "client[1]"}}}
    assert notebook.run(f"%%on server\n{code}", metadata).text() == "client[1]\n"
    assert notebook.run(code, metadata).text() == "client[1]\n"
    assert notebook.run("echo $WARDIAN_TEST_NODE", {"wardian": {"once": {"on": "server", "lang": "bash"}}}).text() == "server\n"
    assert notebook.run(f"%%on server\n{code}", {"wardian": {"once": {"on": "here"}}}).text() == "None\n"


def test_completion_knows_the_metadata(notebook: Notebook) -> None:
    """A completion whose metadata is that of a bound cell is answered by that node's kernel, and so is inspection."""
    notebook.run("%%on server\nonly_on_the_server = 1")
    for request, code, found in (("complete", "only_on_the_ser", "matches"), ("inspect", "only_on_the_server", "found")):
        assert notebook.knows(request, code, {"wardian": {"on": "server"}})[found]
        assert not notebook.knows(request, code, {})[found]
