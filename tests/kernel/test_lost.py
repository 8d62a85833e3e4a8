"""Nothing is lost and nothing comes twice when a link, an agent or the notebook's kernel dies under a cell."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from wardian.journal import Journal, LogEntry

from .conftest import TIMEOUT, Notebook, Result, lanes, write_nodes

pytestmark = pytest.mark.slow

LINES = 4000
COUNT = f"""
import time
for number in range({LINES}):
    print(number, flush=number % 7 == 0)
    if number % 40 == 0: time.sleep(0.01)
"""
BASH = f"for ((i = 0; i < {LINES}; i++)); do echo $i; ((i % 40)) || sleep 0.01; done"
EXPECTED = "".join(f"{number}\n" for number in range(LINES))
GATED = """
import os, pathlib, time
gate = pathlib.Path(os.environ["WARDIAN_RUN_DIR"], "GATE")
print("begun", flush=True)
while not gate.exists(): time.sleep(0.01)
"""


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def bridges(notebook: Notebook, node: str) -> list[int]:
    """The processes that carry the router's connection to a node's agent."""
    mark = f"WARDIAN_TEST_NODE={node}\0".encode()
    found = []
    for child in children(notebook.manager.provisioner.process.pid):
        # one that was killed just now may be gone
        with suppress(FileNotFoundError, ProcessLookupError):
            if mark in Path(f"/proc/{child}/environ").read_bytes():
                found.append(child)
    return found


def agent(notebook: Notebook, node: str) -> int:
    """The agent of a node: the parent of the kernels there."""
    return int(notebook.run(f"%%on {node}\nimport os; os.getppid()").value)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def own(start: Callable[..., Notebook]) -> Notebook:
    return start()


@pytest.mark.parametrize(("code", "language"), [(COUNT, "python"), (BASH, "bash")], ids=["python", "bash"])
def test_a_cut_link_is_replaced(own: Notebook, code: str, language: str) -> None:
    """Killing what carries the connection, again and again while a cell prints, loses no line and repeats none, and the cell succeeds."""
    own.run(f"%%on server --lang {language}\ntrue = 1")
    number = own.send(f"%%on server --lang {language}\n{code}")
    messages, text, cuts = [], "", 0
    while True:
        message = own.client.get_iopub_msg(timeout=TIMEOUT)
        if message["parent_header"].get("msg_id") != number:
            continue
        messages.append(message)
        if message["msg_type"] == "stream":
            text += message["content"]["text"]
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
        if cuts < 5 and text.count("\n") > (cuts + 1) * LINES // 8:
            for bridge in bridges(own, "server"):
                os.kill(bridge, signal.SIGKILL)
                cuts += 1
    result = Result(own.reply(number), messages)
    assert cuts >= 3
    assert result.status == "ok", result.traceback
    assert result.text() == EXPECTED


def test_inputs_survive_a_cut_link(own: Notebook) -> None:
    """A cell that is sent just when the connection dies is run, once."""
    own.run("%%on server\ncount = 0")
    for _ in range(5):
        for bridge in bridges(own, "server"):
            os.kill(bridge, signal.SIGKILL)
        assert own.run("%%on server\ncount += 1").status == "ok"
    assert own.run("%%on server\ncount").value == "5"


def test_an_interrupt_survives_a_cut_link(own: Notebook) -> None:
    """An interrupt that is asked for just when the connection dies is done over the next one."""
    own.run("%%on server\nkept = 1")
    number = own.send("%%on server\nimport time\nprint('begun', flush=True)\ntime.sleep(60)")
    own.printed(number, "begun")
    for bridge in bridges(own, "server"):
        os.kill(bridge, signal.SIGKILL)
    own.interrupt()
    assert own.result(number).reply["ename"] == "KeyboardInterrupt"
    assert own.run("%%on server\nkept").value == "1"


def test_a_killed_agent_is_told_at_once(own: Notebook) -> None:
    """When an agent is killed its cell is an error that says so, and the next cell gets a new agent and kernel."""
    own.run("%%on client[0]\nkept = 1")
    killed = agent(own, "client[0]")
    number = own.send("%%on client\nimport os, time\nprint(os.environ['WARDIAN_TEST_NODE'], flush=True)\ntime.sleep(1)")
    own.printed(number, "client[0]")
    os.kill(killed, signal.SIGKILL)
    result = own.result(number)
    assert "client[0]: AgentError: the agent there has died" in result.error
    assert "client[1]:" not in result.error
    assert own.run("%%on client[0]\n'kept' in dir()").value == "False"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def recorded(start: Callable[..., Notebook], journal: Path) -> Callable[[], Notebook]:
    """Starts kernels of one notebook, whose cells are in one journal."""
    return lambda: start(f"lost-{journal}", WARDIAN_TEST_JOURNAL=str(journal))


def printed(journal: Path, entry: LogEntry, node: str) -> str:
    with Journal.open(journal) as opened:
        outputs = opened.outputs(entry.id)
    return "".join(str(output.content["text"]) for output in outputs if output.message_type == "stream" and output.node == node)


def cells_on_nodes(journal: Path) -> list[LogEntry]:
    with Journal.open(journal) as opened:
        return [entry for entry in opened.entries(kinds=["cell"]) if entry.nodes]


def ended(journal: Path, source: str) -> LogEntry | None:
    """The cell with a text in its source, if its end is recorded."""
    return next((entry for entry in cells_on_nodes(journal) if source in entry.detail["source"] and entry.ended is not None), None)


def test_a_killed_kernel_loses_no_output(recorded: Callable[[], Notebook], journal: Path) -> None:
    """What a cell printed before, while and after its notebook had no kernel is in the journal, each line once, and how it ended."""
    first = recorded()
    number = first.send(f"%%on client\n{COUNT}\nprint('ended', flush=True)")
    first.until(number, lambda message: message["msg_type"] == "stream" and message["content"]["text"].count("\n") > 3)
    first.kill()
    second = recorded()
    wait_until(lambda: ended(journal, "ended") is not None)
    (entry,) = cells_on_nodes(journal)
    assert entry.status == "ok"
    for node in ("client[0]", "client[1]"):
        assert printed(journal, entry, node) == EXPECTED + "ended\n"
    said = second.run("1").text("stderr")
    assert f"%output {entry.id[-8:]}" in said
    assert "has ended well" in said
    assert second.run("1").text("stderr") == ""


def test_a_cell_waits_for_what_an_earlier_kernel_left(recorded: Callable[[], Notebook], host_nodes: Path, journal: Path) -> None:
    """A node still busy with a cell of the killed kernel: a new cell there says so, can be taken back, and runs once that has ended."""
    gate = f"gate-{time.time()}"
    first = recorded()
    number = first.send(f"%%on server\n{GATED.replace('GATE', gate)}\nprint('after')\nkept = 'kept'")
    first.printed(number, "begun")
    first.kill()
    second = recorded()
    waiting = second.send("%%on server\nkept")
    second.until(
        waiting, lambda message: message["msg_type"] == "stream" and "still busy with an earlier cell" in message["content"]["text"]
    )
    second.interrupt()
    assert second.result(waiting).reply["ename"] == "KeyboardInterrupt"
    again = second.send("%%on server\nkept")
    (host_nodes / "server" / gate).touch()
    assert second.result(again).value == "'kept'"
    wait_until(lambda: ended(journal, gate) is not None)
    entry = ended(journal, gate)
    assert entry is not None
    assert entry.status == "ok"
    assert printed(journal, entry, "server") == "begun\nafter\n"


def followed(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """What a page that opens now is told of each cell, by the cell's id."""
    request = notebook.client.session.msg("wardian_follow_request", {"since": 0})
    notebook.client.shell_channel.send(request)
    cells = notebook.reply(request["header"]["msg_id"])["content"]["cells"]
    # what came before is in the reply
    rest(notebook, request["header"]["msg_id"])
    return {told["cell"]: told for told in cells}


def leave(notebook: Notebook, code: str, cell: str, journal: Path) -> None:
    """Run a cell until it has printed "begun" and is recorded, and kill the kernel."""
    number = notebook.send(code, {"cellId": cell})
    notebook.printed(number, "begun")
    wait_until(lambda: any(entry.detail["request"] == number for entry in cells_on_nodes(journal)))
    notebook.kill()


def rest(notebook: Notebook, number: str) -> list[dict[str, Any]]:
    """The messages of a cell from now to its end."""
    messages = []
    notebook.until(number, lambda message: messages.append(message) or message["content"].get("execution_state") == "idle")
    return messages


def texts(messages: list[dict[str, Any]]) -> str:
    return "".join(message["content"]["text"] for message in messages if message["header"]["msg_type"] == "stream")


def test_a_killed_kernel_shows_its_cells_on(recorded: Callable[[], Notebook], host_nodes: Path, journal: Path) -> None:
    """A page finds the cell of a killed kernel in that kernel's successor: what it printed, all that it prints on, its result, its end."""
    gate = f"gate-{time.time()}"
    leave(recorded(), f"%%on client\n{GATED.replace('GATE', gate)}\n{COUNT}\n6 * 7", "counts", journal)
    second = recorded()
    told = followed(second)["counts"]
    assert told["ended"] is None
    assert told["code"].startswith("%%on client")
    for node in ("client-0", "client-1"):
        (host_nodes / node / gate).touch()
    came = rest(second, told["header"]["msg_id"])
    shown = lanes(texts([*told["messages"], *came]))
    assert shown == {"client[0]": f"begun\n{EXPECTED}", "client[1]": f"begun\n{EXPECTED}"}
    assert any("client[0:2] │ 42" in message["content"].get("data", {}).get("text/plain", "") for message in came)
    assert second.run("1").text("stderr") == ""


def test_a_killed_kernel_deals_no_more_items(recorded: Callable[[], Notebook], host_nodes: Path, journal: Path) -> None:
    """The item that a node runs of a killed kernel's `--each` cell is shown and recorded to its end; the cell says that no more came."""
    gate = f"gate-{time.time()}"
    code = f"%%on server --each n=[1, 2, 3]\n{GATED.replace('GATE', gate)}\nprint('item', n)"
    leave(recorded(), code, "items", journal)
    second = recorded()
    told = followed(second)["items"]
    assert told["ended"] is None
    (host_nodes / "server" / gate).touch()
    came = rest(second, told["header"]["msg_id"])
    assert texts([*told["messages"], *came]) == "begun\nitem 1\n"
    (error,) = [message["content"] for message in came if message["msg_type"] == "error"]
    assert "no more items came" in error["evalue"]
    wait_until(lambda: ended(journal, gate) is not None)
    (entry,) = cells_on_nodes(journal)
    assert entry.status == "failed"
    assert printed(journal, entry, "server") == "begun\nitem 1\n"
    assert second.run("%%on server\n1").text("stderr") == ""


def test_a_shown_cell_is_interrupted_or_out_of_reach(recorded: Callable[[], Notebook], host_nodes: Path, journal: Path) -> None:
    """A cell of a killed kernel that is shown on can be interrupted; where the environment is down it ends with an error that says so."""
    code = f"%%on server\n{GATED.replace('GATE', 'never')}"
    leave(recorded(), code, "waits", journal)
    second = recorded()
    request = followed(second)["waits"]["header"]["msg_id"]
    second.interrupt()
    assert [message["content"]["ename"] for message in rest(second, request) if message["msg_type"] == "error"] == ["KeyboardInterrupt"]
    leave(second, code, "waits", journal)
    known = json.loads((host_nodes / "nodes.json").read_text())
    write_nodes(host_nodes, None)
    try:
        third = recorded()
        told = followed(third)["waits"]
        messages = told["messages"] if told["ended"] else [*told["messages"], *rest(third, told["header"]["msg_id"])]
        assert "NotUpError" in [message["content"].get("ename") for message in messages]
    finally:
        write_nodes(host_nodes, known)


def test_a_cell_whose_node_kernel_is_gone(recorded: Callable[[], Notebook], journal: Path) -> None:
    """A cell whose node's kernel died while no kernel of the notebook was there has its output up to then, and is not left running."""
    first = recorded()
    kernel = int(first.run("%%on server\nimport os; os.getpid()").value)
    number = first.send("%%on server\nimport time\nprint('begun', flush=True)\ntime.sleep(6000)")
    first.printed(number, "begun")
    first.kill()
    os.kill(kernel, signal.SIGKILL)
    assert recorded().run("%%on server\n1").value == "1"
    wait_until(lambda: ended(journal, "sleep(6000)") is not None)
    entry = ended(journal, "sleep(6000)")
    assert entry is not None
    assert entry.status == "failed"
    assert printed(journal, entry, "server") == "begun\n"


def test_output_shows_an_earlier_cell(recorded: Callable[[], Notebook], journal: Path, tmp_path: Path) -> None:
    """`%output` shows what a cell printed, by node, with its error; `--save` writes it; a cell that does not exist is an error."""
    own = recorded()
    own.run("%%on server\nprint('one'); 1/0")
    own.run("%%on client\nimport os\nprint(os.environ['WARDIAN_TEST_NODE'], 'says')")
    last = own.run("%output")
    assert last.lanes == {"client[0]": "client[0] says\n", "client[1]": "client[1] says\n"}
    failed = cells_on_nodes(journal)[0]
    shown = own.run(f"%output {failed.id[-8:]}")
    assert shown.text() == "one\n"
    assert "ZeroDivisionError" in shown.text("stderr")
    assert shown.status == "ok"
    own.run(f"%output --save {tmp_path}/saved")
    assert (tmp_path / "saved" / "client-1.txt").read_text() == "client[1] says\n"
    assert "there is no cell 'nothing'" in own.run("%output nothing").reply["evalue"]


def test_a_killed_kernel_that_had_nothing_to_do(recorded: Callable[[], Notebook]) -> None:
    """Where everything was handled before the kernel was killed, its successor finds the node's variables, and has nothing to tell."""
    first = recorded()
    first.run("%%on server\nkept = 'kept'\nprint('done')")
    first.run("%output")
    first.kill()
    second = recorded()
    result = second.run("%%on server\nkept")
    assert result.value == "'kept'"
    assert result.text("stderr") == ""
