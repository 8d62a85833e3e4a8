"""How a cell runs on several nodes, how it is stopped, and what goes on beside it: with real kernels and agents."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.conftest import HostChannel
from wardian.nodes.link import AgentLink

from .conftest import NODES, TIMEOUT, Notebook

pytestmark = pytest.mark.slow

ME = "import os, time; me = os.environ['WARDIAN_TEST_NODE']\n"
WAIT = "time.sleep(60)\n"
HEEDLESS = """
print("begun", flush=True)
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("not now", flush=True)
"""


GRACE = "4"
"""For so long nodes may leave interrupts unanswered here, seconds: a busy machine is no hung node."""


@pytest.fixture(scope="module")
def shared(host_nodes: Path) -> Iterator[Notebook]:
    """One kernel for these tests."""
    notebook = Notebook(host_nodes, "shared", WARDIAN_INTERRUPT_GRACE=GRACE)
    yield notebook
    notebook.close()


def replies(notebook: Notebook, numbers: Sequence[str]) -> list[str]:
    """How cells ended, in whatever order their replies come."""
    statuses: dict[str, str] = {}
    while len(statuses) < len(numbers):
        message = notebook.client.get_shell_msg(timeout=TIMEOUT)
        statuses[message["parent_header"]["msg_id"]] = message["content"]["status"]
    return [statuses[number] for number in numbers]


def ran(notebook: Notebook, number: str, times: int = 1) -> dict[str, Any]:
    """A cell's reply after it was interrupted so many times."""
    for _ in range(times):
        notebook.interrupt()
    return notebook.result(number).reply


# --- first, serial, each, timeout


def test_first(notebook: Notebook) -> None:
    """The first node that ends without error gives the cell's output and value; the others are interrupted and usable at once."""
    result = notebook.run(f"%%on all --first\n{ME}print('from', me)\nif me == 'server': 1 / 0\nif me == 'client[0]': {WAIT}me")
    assert result.status == "ok"
    assert result.text() == "from client[1]\n"
    assert result.value == "'client[1]'"
    assert result.message["metadata"]["wardian"]["first"] == "client[1]"
    assert notebook.run("import wardian; dict(wardian.results)").value == "{'client[1]': 'client[1]'}"
    assert notebook.run("%%on client[0]\n'usable'").value == "'usable'"


def test_first_when_all_fail(notebook: Notebook) -> None:
    """A race that nobody wins is an error with everybody's output and reason."""
    result = notebook.run(f"%%on client --first\n{ME}print('tried')\nraise ValueError(me)")
    assert result.lanes == {"client[0]": "tried\n", "client[1]": "tried\n"}
    assert result.error == "NodeErrors: client[0]: ValueError: client[0]; client[1]: ValueError: client[1]"


def test_first_many_times(notebook: Notebook) -> None:
    """Interrupting the losers of quick races, which hits kernels at every moment, leaves none of them hanging."""
    for _ in range(15):
        result = notebook.run("%%on all --first\n1")
        assert (result.status, result.text("stderr")) == ("ok", "")


def test_serial(notebook: Notebook) -> None:
    """Nodes take turns in order: one begins when the one before it has ended."""
    notebook.run("%%on all\nimport time")
    result = notebook.run("%%on all --serial\nbegun = time.monotonic(); time.sleep(0.05); (begun, time.monotonic())")
    assert result.status == "ok"
    values = notebook.run("import wardian; [wardian.results[node] for node in wardian.results]").value
    times = [moment for span in eval(values) for moment in span]
    assert times == sorted(times)
    assert len(times) == 6


def test_serial_stops_at_a_failure(notebook: Notebook) -> None:
    """After a failure the nodes that follow are not run, and the error says who they are."""
    notebook.run("%%on all\nran = False")
    result = notebook.run(f"%%on all --serial\n{ME}ran = True\nif me == 'client[1]': 1 / 0")
    assert result.error == "NodeErrors: client[1]: ZeroDivisionError: division by zero"
    assert "not run: server" in result.traceback
    assert notebook.run("%%on all\nran").contents("display_data")[0]["data"]["text/plain"] == "client[0:2] │ True\nserver      │ False"


def test_each(notebook: Notebook) -> None:
    """Every item is run once, with the variable set, on one of the nodes; values come back in the order of the list."""
    result = notebook.run("%%on all --each n=[3, 1, 2, 5, 4]\nprint('n is', n)\nn * n")
    assert result.status == "ok", result.traceback
    assert sorted(line.partition(" │ ")[2] for line in result.text().splitlines()) == [f"n is {n}" for n in (1, 2, 3, 4, 5)]
    rows = result.contents("display_data")[0]["data"]["text/plain"].splitlines()
    assert [row.partition(" │ ")[2] for row in rows] == ["9", "1", "4", "25", "16"]
    assert notebook.run("import wardian; list(wardian.results.each)").value == "[9, 1, 4, 25, 16]"
    assert notebook.run("wardian.results.each[1:3], len(wardian.results.each)").value == "([1, 4], 5)"
    assert "results.each" in notebook.run("wardian.results['server']").reply["evalue"]


def test_each_takes_the_next_item_when_it_is_free(notebook: Notebook) -> None:
    """A node that is slow with its item does not keep the others from the rest."""
    notebook.run("%%on client\ncount = 0")
    code = f"%%on client --each n=range(6)\n{ME}count += 1\n"
    code += "gate = os.path.join(os.path.dirname(os.environ['WARDIAN_RUN_DIR']), 'each-gate')\n"
    code += "if n == 5: open(gate, 'w').close()\nwhile n == 0 and not os.path.exists(gate): time.sleep(0.01)"
    assert notebook.run(code).status == "ok"
    table = notebook.run("%%on client\ncount").contents("display_data")[0]["data"]["text/plain"]
    assert table == "client[0] │ 1\nclient[1] │ 5"


def test_each_of_a_list_at_home(notebook: Notebook) -> None:
    """The list may be a name or an expression at home, and its items of any kind that has an exact form."""
    notebook.run("import numpy as np; things = ['a b', (1, {'k': None}), np.arange(3), 2.5, b'x']")
    result = notebook.run("%%on client --each thing=things[::-1]\nthing")
    assert result.status == "ok", result.traceback
    values = notebook.run("import wardian; [type(value).__name__ for value in wardian.results.each], wardian.results.each[3]").value
    assert values == "(['bytes', 'float', 'ndarray', 'tuple', 'str'], (1, {'k': None}))"


def test_each_in_bash(notebook: Notebook) -> None:
    """In bash the variable is exported, as text, whatever characters it has."""
    result = notebook.run('%%on client --lang bash --each word=["it\'s", \'$HOME "x"\']\nbash -c \'echo "$word"\'')
    assert result.status == "ok", result.traceback
    assert notebook.run("import wardian; list(wardian.results.each)").value == '["it\'s\\n", \'$HOME "x"\\n\']'


def test_each_names_what_failed(notebook: Notebook) -> None:
    """An item that fails is named with its node, the others are done, and its value cannot be had."""
    result = notebook.run("%%on server --each n=[1, 0, 2]\n1 / n")
    assert result.error == "NodeErrors: n=0 on server: ZeroDivisionError: division by zero"
    assert notebook.run("import wardian; wardian.results.each[0], wardian.results.each[2]").value == "(1.0, 0.5)"
    assert "item 0: error" in notebook.run("wardian.results.each[1]").reply["evalue"]


def test_each_goes_on_without_a_node(notebook: Notebook) -> None:
    """When a node is lost its item fails and the other nodes take the rest."""
    result = notebook.run(f"%%on client --each n=range(6)\n{ME}import signal\nif n == 1: os.kill(os.getpid(), signal.SIGKILL)\nn")
    assert result.error.startswith("NodeErrors: n=1 on client[1]: NodeDownError")
    rows = result.contents("display_data")[0]["data"]["text/plain"].splitlines()
    assert [row.partition(" │ ")[2] for row in rows] == ["0", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("n=nothing_of_this_name", "NameError"),
        ("n=[]", "nothing to deal out"),
        ("n=7", "deals the items of a list, and this is int"),
        ("n=[object()]", "item 0 cannot go to a node"),
        ("n=1/0", "ZeroDivisionError"),
        ("n=[1", "SyntaxError"),
    ],
)
def test_each_of_what_is_no_list(notebook: Notebook, words: str, what: str) -> None:
    """A list that cannot be dealt out is an error before anything runs, which says why."""
    result = notebook.run(f"%%on client --each {words}\nprint('ran')")
    assert what in result.reply["evalue"]
    assert result.text() == ""


def test_an_endless_list_can_be_interrupted(notebook: Notebook) -> None:
    """A list that home never ends making is interrupted there, and everything can be used afterwards."""
    notebook.run("import time, threading; making = threading.Event()")
    number = notebook.send("%%on client --each n=[making.set(), time.sleep(60)]\n1")
    notebook.until(number, lambda message: message["msg_type"] == "execute_input")
    assert ran(notebook, number)["ename"] == "KeyboardInterrupt"
    assert notebook.run("1 + 1").value == "2"


def test_timeout(notebook: Notebook) -> None:
    """What has not ended in time is interrupted and named; what has ended is shown; variables stay."""
    notebook.run("%%on all\nkept = 1")
    result = notebook.run(f"%%on all --timeout 3s\n{ME}if me != 'server': {WAIT}print('done')")
    assert result.error == "NodeErrors: client[0:2]: CellTimeout: not ended after 3s"
    assert result.lanes["server"] == "done\n"
    assert notebook.run("%%on client[0]\nkept").value == "1"


@pytest.mark.parametrize(("where", "named"), [("here", ""), ("server", "server: "), ("server --lang bash", "server: ")])
def test_timeout_in_one_place(notebook: Notebook, where: str, named: str) -> None:
    """A cell at home, on one node, or in bash has its time, too."""
    code = "sleep 60" if "bash" in where else "import time; time.sleep(60)"
    result = notebook.run(f"%%on {where} --timeout 200ms\n{code}")
    assert result.error == f"CellTimeout: {named}not ended after 200ms"
    assert len(result.contents("error")) == 1
    assert notebook.run("1").value == "1"


def test_timeout_of_what_catches_interrupts(notebook: Notebook) -> None:
    """A cell that ends well because it was interrupted has still not ended in time."""
    for seconds in (0.2, 1, 5):
        result = notebook.run(f"%%on server --timeout {seconds}s\ntry:\n print('begun')\n {WAIT}except KeyboardInterrupt: print('caught')")
        # a node that is late may be interrupted before it is within the `try`
        if "begun" in result.text():
            break
    assert result.text() == "begun\ncaught\n"
    assert result.reply["ename"] == "CellTimeout"


def test_options_from_metadata_and_sticky(notebook: Notebook) -> None:
    """The options may come from the cell's metadata, or hold for all cells after `%on`."""
    assert notebook.run("n", {"wardian": {"on": "client", "each": "n=[5]"}}).contents("display_data")[0]["data"]["text/plain"].endswith("5")
    assert "--timeout 200ms" in notebook.run("%on server --timeout 200ms").text()
    assert notebook.run("import time; time.sleep(60)").reply["ename"] == "CellTimeout"
    assert "cannot run in the background" not in notebook.run("%on here").text()
    assert notebook.run("%on server --bg").reply["ename"] == "BindingError"


def test_help(notebook: Notebook) -> None:
    """`%%on --help` and `%on --help` print how they are written, with examples, and run nothing."""
    for code in ("%%on --help\nran = True", "%%on", "%on --help"):
        result = notebook.run(code)
        assert result.status == "ok"
        assert "%%on client --each seed=range(20)" in result.text()
    assert notebook.run("'ran' in dir()").value == "False"


# --- interrupts and hung nodes


@pytest.fixture
def hung(notebook: Notebook) -> Iterator[Callable[[str], int]]:
    """Stops a node's kernel, as one in a system call that never returns, and gives its process; restarts all in the end."""
    stopped = []

    def stop(node: str) -> int:
        stopped.append(int(notebook.run(f"%%on {node}\nimport os, time; kept = 'kept'; os.getpid()").value))
        os.kill(stopped[-1], signal.SIGSTOP)
        return stopped[-1]

    yield stop
    for process in stopped:
        if Path(f"/proc/{process}").exists():
            os.kill(process, signal.SIGCONT)
    notebook.run("%restart all")


def test_a_hung_node_holds_nothing_up(notebook: Notebook, hung: Callable[[str], int]) -> None:
    """An interrupted cell ends without the node that does not answer, and names it; others keep their state and can be used at once."""
    notebook.run(f"%%on all\n{ME}kept = 'kept'")
    hung("client[0]")
    number = notebook.send(f"%%on all\nprint('begun', flush=True)\n{WAIT}")
    notebook.printed(number, "begun")
    reply = ran(notebook, number)
    assert "client[0]: NodeStuckError: it did not answer the interrupt" in reply["evalue"]
    assert "client[1],server: KeyboardInterrupt" in reply["evalue"]
    assert notebook.run("%%on client[1]\nkept").value == "'kept'"
    again = notebook.run("%%on client[0]\nkept")
    assert again.reply["ename"] == "NodeStuckError"
    assert "still busy with the cell interrupted at" in again.reply["evalue"]
    assert "%restart client[0]" in again.reply["evalue"]
    assert "still busy" in notebook.run("%get kept --from client[0]").reply["evalue"]


def test_a_node_that_answers_late_can_be_used_again(notebook: Notebook, hung: Callable[[str], int]) -> None:
    """Once a node that was left behind has ended its cell it takes the next, with its variables."""
    process = hung("server")
    number = notebook.send(f"%%on server,client[0]\nprint('begun', flush=True)\n{ME}{WAIT}")
    notebook.printed(number, "begun")
    assert "server: NodeStuckError" in ran(notebook, number, 2)["evalue"]
    os.kill(process, signal.SIGCONT)
    while notebook.run("%%on server\nkept").reply.get("ename") == "NodeStuckError":
        pass
    assert notebook.run("%%on server\nkept").value == "'kept'"


def test_a_second_interrupt_does_not_wait(notebook: Notebook) -> None:
    """A node that is heedless of interrupts is left behind at the second one; `%restart` gives it a new kernel, and no other node."""
    notebook.run(f"%%on all\n{ME}kept = 'kept'")
    number = notebook.send(f"%%on client[1]\n{HEEDLESS}")
    notebook.printed(number, "begun")
    notebook.interrupt()
    notebook.printed(number, "not now")
    assert ran(notebook, number)["ename"] == "NodeStuckError"
    assert "client[1] │ new kernel" in notebook.run("%restart client[1] --lang python").text()
    assert notebook.run("%%on client[1]\nkept").error.startswith("NameError")
    assert notebook.run("%%on client[0]\nkept").value == "'kept'"


def test_restart_of_a_busy_node(notebook: Notebook) -> None:
    """Restarting a node where a background cell runs ends that cell with an error that says so."""
    notebook.run("%%on server --bg as endless\nprint('begun')\nimport time; time.sleep(60)")
    assert notebook.run("%restart server").status == "ok"
    assert "its kernel was restarted" in notebook.run("%wait endless").reply["evalue"]
    assert notebook.run("%%on server\n'new'").value == "'new'"


def test_restart_of_nothing(notebook: Notebook) -> None:
    """`%restart` of an unknown node, or without one, is an error that says what to write."""
    assert notebook.run("%restart nowhere").reply["ename"] == "SelectorError"
    assert "%restart SELECTOR" in notebook.run("%restart").reply["evalue"]


def test_a_stopped_agent(start: Callable[..., Notebook], host_nodes: Path) -> None:
    """A node whose agent does not answer does not hold an interrupt up; restarting says that the agent does not answer."""
    own = start(WARDIAN_INTERRUPT_GRACE=GRACE, WARDIAN_TEST_RESTART="1")
    own.run("%%on all\nimport time")
    agent = asyncio.run(_agent(host_nodes / "server"))
    os.kill(agent, signal.SIGSTOP)
    try:
        number = own.send("%%on all\nprint('begun', flush=True)\ntime.sleep(60)")
        own.printed(number, "begun")
        assert "server: NodeStuckError" in ran(own, number)["evalue"]
        assert own.run("%%on client[0]\n1").value == "1"
        assert "agent does not answer" in own.run("%restart server").reply["evalue"]
    finally:
        os.kill(agent, signal.SIGCONT)


async def _agent(folder: Path) -> int:
    """The process of a node's agent."""
    link = await AgentLink.open(HostChannel(str(folder)), folder.name)
    await link.close()
    return int(link.agent["pid"])


# --- side by side


@pytest.fixture
def concurrent(notebook: Notebook) -> Iterator[None]:
    """Cells on different nodes run at once."""
    for node in NODES:
        notebook.run(f"%%on {node}\n{ME}from pathlib import Path\nfolder = Path(os.environ['WARDIAN_RUN_DIR']).parent")
    assert "at once" in notebook.run("%concurrent on").text()
    yield
    for path in notebook.nodes.glob("gate-*"):
        path.unlink()
    assert "one after the other" in notebook.run("%concurrent off").text()


def waits_for(name: str) -> str:
    return f"while not (folder / 'gate-{name}').exists(): time.sleep(0.01)\n"


def opens(name: str) -> str:
    return f"(folder / 'gate-{name}').touch()\n"


@pytest.mark.usefixtures("concurrent")
def test_cells_overtake(notebook: Notebook) -> None:
    """With `%concurrent on` a cell begins while an earlier one still runs on another node; order on one node is kept."""
    codes = [
        f"%%on client[0]\norder = ['first']\n{waits_for('a')}",
        "%%on client[0]\norder.append('second'); order",
        "%%on client[1]\n1",
    ]
    numbers = [notebook.send(code) for code in codes]
    ended: list[str] = []
    values = []
    while len(ended) < 3:
        message = notebook.client.get_iopub_msg(timeout=TIMEOUT)
        parent = message["parent_header"].get("msg_id")
        if parent in numbers and message["msg_type"] == "execute_result":
            values.append(message["content"]["data"]["text/plain"])
        if parent in numbers and message["content"].get("execution_state") == "idle":
            ended.append(parent)
            (notebook.nodes / "gate-a").touch()
    assert [numbers.index(number) for number in ended] == [2, 0, 1]
    assert values == ["1", "['first', 'second']"]
    assert replies(notebook, numbers) == ["ok", "ok", "ok"]


@pytest.mark.usefixtures("concurrent")
def test_home_waits_and_is_waited_for(notebook: Notebook) -> None:
    """A cell at home runs after all before it and before all after it."""
    codes = ["%%on server\ntime.sleep(0.2); end = time.monotonic()", "%get end --from server", "%%on client[0]\ntime.monotonic()"]
    numbers = [notebook.send(code) for code in codes]
    begun = notebook.result(numbers[2]).value
    assert notebook.run(f"end < {begun}").value == "True"


@pytest.mark.usefixtures("concurrent")
def test_the_last_status_is_right(notebook: Notebook) -> None:
    """When one of several cells ends the kernel says that it is still busy, and idle only after the last."""
    numbers = [notebook.send(f"%%on client[0]\n{waits_for('b')}"), notebook.send("%%on client[1]\n1")]
    states = []
    while states.count(("idle", 0)) < 1:
        message = notebook.client.get_iopub_msg(timeout=TIMEOUT)
        parent = message["parent_header"].get("msg_id")
        if message["msg_type"] == "status" and parent in numbers:
            states.append((message["content"]["execution_state"], numbers.index(parent)))
            if states[-1] == ("idle", 1):
                (notebook.nodes / "gate-b").touch()
    assert states == [("busy", 0), ("busy", 1), ("idle", 1), ("busy", 0), ("idle", 0)]
    assert replies(notebook, numbers) == ["ok", "ok"]


@pytest.mark.usefixtures("concurrent")
def test_an_error_aborts_what_has_not_begun(notebook: Notebook) -> None:
    """A cell that fails aborts those that wait, and leaves alone those that run beside it."""
    codes = [
        f"%%on client[0]\n{waits_for('c')}",
        "%%on client[0]\n2",
        f"%%on client[1]\n{waits_for('d')}1 / 0",
        f"%%on server\n{opens('d')}",
    ]
    numbers = [notebook.send(code) for code in codes]
    while True:
        message = notebook.client.get_shell_msg(timeout=TIMEOUT)
        if message["parent_header"]["msg_id"] == numbers[1]:
            break
    assert message["content"]["status"] == "aborted"
    (notebook.nodes / "gate-c").touch()
    assert notebook.reply(numbers[0])["content"]["status"] == "ok"
    assert notebook.run("5").value == "5"


@pytest.mark.usefixtures("concurrent")
def test_an_interrupt_stops_all_that_run(notebook: Notebook) -> None:
    """An interrupt stops every cell that runs, wherever, and the next one runs."""
    numbers = [notebook.send(f"%%on {node}\nprint('begun', flush=True)\n{WAIT}") for node in NODES]
    begun: set[str] = set()
    while len(begun) < 3:
        message = notebook.client.get_iopub_msg(timeout=TIMEOUT)
        if message["msg_type"] == "stream":
            begun.add(message["parent_header"]["msg_id"])
    notebook.interrupt()
    assert replies(notebook, numbers) == ["error"] * 3
    assert notebook.run("%%on all\nme").status == "ok"


# --- what stays asked while a node is busy


def test_a_bash_node_that_is_busy_completes_nothing(notebook: Notebook) -> None:
    """Where a busy kernel cannot be asked the answer is empty, with the cursor where it was; it never hangs."""
    number = notebook.send("%%on server --lang bash\necho begun; sleep 60")
    notebook.printed(number, "begun")
    code = "%%on server --lang bash\nech"
    content = notebook.reply(notebook.client.complete(code))["content"]
    assert content["status"] == "ok"
    notebook.interrupt()
    assert notebook.result(number).status == "error"
    assert notebook.knows("complete", code)["matches"] == ["echo"]


def test_a_hung_kernel_completes_nothing(notebook: Notebook, hung: Callable[[str], int]) -> None:
    """Completion by a kernel that does not answer is empty after a moment."""
    hung("server")
    number = notebook.send(f"%%on server,client[0]\nprint('begun', flush=True)\n{ME}{WAIT}")
    notebook.printed(number, "begun")
    content = notebook.reply(notebook.client.complete("%%on server\nkep"))["content"]
    assert (content["matches"], content["cursor_start"], content["cursor_end"]) == ([], 15, 15)
    assert "server: NodeStuckError" in ran(notebook, number, 2)["evalue"]
    assert notebook.reply(notebook.client.inspect("%%on server\nkept"))["content"]["found"] is False
