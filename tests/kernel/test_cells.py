"""Cells on nodes, through a real client, a real router and real agents: where they run and what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from .conftest import NODES, Notebook

pytestmark = pytest.mark.slow

WHERE = "import os; os.environ.get('WARDIAN_TEST_NODE', 'home')"


def test_python_on_a_node(notebook: Notebook) -> None:
    """A bound cell runs on its node, keeps its variables there, and home does not see them."""
    assert notebook.run(f"%%on server\nplace = 'server'\n{WHERE}").value == "'server'"
    assert notebook.run("%%on server\nplace").value == "'server'"
    assert notebook.run("place").error.startswith("NameError")


def test_bash_on_a_node(notebook: Notebook) -> None:
    """A bash cell runs in one long-lived shell: variables and the working directory last, and a failure is an error with its exit code."""
    notebook.run("%%on server --lang bash\nX=42; cd /usr")
    assert notebook.run("%%on server --lang bash\necho $X $PWD").text() == "42 /usr\n"
    failed = notebook.run("%%on server --lang bash\nls /nowhere-at-all")
    assert failed.reply["ename"] == "ExitCode"
    assert "nowhere-at-all" in failed.text("stderr")


def test_metadata_binds(notebook: Notebook) -> None:
    """A cell's metadata binds it as a line does, and a line wins over it."""
    assert notebook.run(WHERE, {"wardian": {"on": "server"}}).value == "'server'"
    assert notebook.run("echo $WARDIAN_TEST_NODE", {"wardian": {"on": "server", "lang": "bash"}}).text() == "server\n"
    assert notebook.run(f"%%on client[1]\n{WHERE}", {"wardian": {"on": "server"}}).value == "'client[1]'"


def test_sticky(notebook: Notebook) -> None:
    """After `%on` cells run there until `%on here`; a line and metadata still win; `%on` says where we are."""
    assert "server" in notebook.run("%on server").text()
    assert notebook.run(WHERE).value == "'server'"
    assert notebook.run(f"%%on client[0]\n{WHERE}").value == "'client[0]'"
    assert notebook.run(WHERE, {"wardian": {"on": "here"}}).value == "'home'"
    assert "server" in notebook.run("%on").text()
    assert "here" in notebook.run("%on here").text()
    assert notebook.run(WHERE).value == "'home'"


def test_outputs_say_where_they_are_from(notebook: Notebook) -> None:
    """The result's metadata and the reply's name the selector and the nodes."""
    result = notebook.run(f"%%on origin\n{WHERE}")
    assert result.contents("execute_result")[0]["metadata"]["wardian"] == {"on": "origin", "nodes": ["server"]}
    assert result.message["metadata"]["wardian"] == {"on": "origin", "nodes": ["server"]}


def test_numbers_are_one_sequence(notebook: Notebook) -> None:
    """Prompts count all cells once, wherever they run, and `Out` on a node has the numbers that the notebook shows."""
    first = notebook.run("'home'").contents("execute_result")[0]["execution_count"]
    second = notebook.run("%%on server\n'node'").contents("execute_result")[0]["execution_count"]
    assert second == first + 1
    assert notebook.run(f"%%on server\nOut[{second}]").value == "'node'"
    assert notebook.run(f"Out[{first}]").value == "'home'"


def test_tracebacks_name_node_and_line(notebook: Notebook) -> None:
    """An error on a node keeps its type, names the node, and counts lines as the visible cell has them."""
    result = notebook.run("# a note\n%%on server\nx = 1\n1/0")
    assert result.error == "ZeroDivisionError: division by zero"
    assert "server" in result.reply["traceback"][0]
    assert result.contents("error")[0]["traceback"] == result.reply["traceback"]
    assert "line 4" in result.traceback


def test_unknown_selector(notebook: Notebook) -> None:
    """A selector that picks nothing is an error with the names that exist, and the cell runs nowhere."""
    result = notebook.run("%%on servr\nran = True")
    assert result.reply["ename"] == "SelectorError"
    assert "server" in result.reply["evalue"]
    assert notebook.run("'ran' in dir()").value == "False"


def test_mistaken_line(notebook: Notebook) -> None:
    """An `%%on` line that is not understood is an error reply that says what to write."""
    result = notebook.run("%%on server --fast\n1")
    assert result.reply["ename"] == "BindingError"
    assert "--lang" in result.reply["evalue"]


def test_not_up(notebook: Notebook, start: Callable[..., Notebook]) -> None:
    """Without an environment a bound cell says `wardian up`, a home cell runs, and once it is up the same kernel reaches it."""
    notebook.write_nodes(None)
    other = start()
    result = other.run("%%on server\n1")
    assert result.reply["ename"] == "NotUpError"
    assert "wardian up" in result.reply["evalue"]
    assert "wardian up" in other.run("%on server").reply["evalue"]
    assert other.run("1 + 1").value == "2"
    notebook.write_nodes(NODES)
    assert other.run(f"%%on server\n{WHERE}").value == "'server'"


def test_stopped_node(notebook: Notebook, start: Callable[..., Notebook]) -> None:
    """A cell for a stopped node is an error at once; on several nodes the others still run."""
    notebook.write_nodes({**NODES, "client[1]": {**NODES["client[1]"], "state": "stopped"}})
    other = start()
    result = other.run("%%on client[1]\n1")
    assert result.reply["ename"] == "NodeDownError"
    assert "stopped" in result.reply["evalue"]
    both = other.run("%%on client\nprint('ran')")
    assert both.lanes == {"client[0]": "ran\n"}
    assert both.reply["evalue"].startswith("client[1]: NodeDownError")


def test_a_group_that_grew(notebook: Notebook, start: Callable[..., Notebook]) -> None:
    """A node that was added since the last cell takes part in the next one."""
    notebook.write_nodes({key: value for key, value in NODES.items() if key != "client[1]"})
    other = start()
    assert other.run(f"%%on client\n{WHERE}").value == "'client[0]'"
    notebook.write_nodes(NODES)
    time.sleep(1.1)
    assert "client[1]" in other.run(f"%%on client\n{WHERE}").contents("display_data")[0]["data"]["text/plain"]


def test_rich_output_passes(notebook: Notebook) -> None:
    """HTML, a figure, updates of a display and clear_output come from a node as they do from home."""
    code = """%%on server
%matplotlib inline
import matplotlib.pyplot as plt
from IPython.display import HTML, clear_output, display
display(HTML("<b>bold</b>"))
handle = display("first", display_id="d")
handle.update("second")
plt.plot([1, 2]); plt.show()
clear_output()
"""
    result = notebook.run(code)
    assert result.status == "ok", result.traceback
    assert any(content["data"].get("text/html") == "<b>bold</b>" for content in result.contents("display_data"))
    assert any("image/png" in content["data"] for content in result.contents("display_data"))
    assert result.contents("update_display_data")[0]["transient"]["display_id"] == "d"
    assert len(result.contents("clear_output")) == 1


def test_input(notebook: Notebook) -> None:
    """`input()` on a node asks the client that sent the cell."""
    number = notebook.send("%%on server\nanswer = input('who? ')\nanswer * 2", allow_stdin=True)
    question = notebook.client.get_stdin_msg(timeout=60)
    assert question["content"]["prompt"] == "who? "
    notebook.client.input("ab")
    assert notebook.result(number).value == "'abab'"


def test_input_at_home(notebook: Notebook) -> None:
    """`input()` at home asks the client as well."""
    number = notebook.send("input('who? ')", allow_stdin=True)
    notebook.client.get_stdin_msg(timeout=60)
    notebook.client.input("xy")
    assert notebook.result(number).value == "'xy'"


def test_completion_is_the_nodes(notebook: Notebook) -> None:
    """Completion below an `%%on` line, or where cells are sticky, knows the node's variables, with positions of the whole cell."""
    notebook.run("%%on server\nonly_on_the_server = 1")
    code = "%%on server\nonly_on"
    reply = notebook.knows("complete", code)
    assert reply["matches"] == ["only_on_the_server"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (len(code) - len("only_on"), len(code))
    notebook.run("%on server")
    assert notebook.knows("complete", "only_on")["matches"] == ["only_on_the_server"]
    notebook.run("%on here")
    assert notebook.reply(notebook.client.complete("only_on"))["content"]["matches"] == []


def test_inspection_is_the_nodes(notebook: Notebook) -> None:
    """Inspection below an `%%on` line is answered by the node's kernel."""
    notebook.run("%%on server\ndef on_server():\n    'told by the server'")
    reply = notebook.knows("inspect", "%%on server\non_server")
    assert "told by the server" in reply["data"]["text/plain"]


def test_comms_reach_the_node_that_opened_them(notebook: Notebook) -> None:
    """A comm opened by a node's cell is answered by that node's kernel, as a widget there needs."""
    code = """%%on server
from ipykernel.comm import Comm
comm = Comm("test")
comm.on_msg(lambda message: comm.send({"echo": message["content"]["data"]}))
"""
    number = notebook.send(code)
    opened = notebook.until(number, lambda message: message["msg_type"] == "comm_open")
    session = opened["header"]["session"]
    message = notebook.client.session.msg("comm_msg", {"comm_id": opened["content"]["comm_id"], "data": "hello"})
    notebook.client.shell_channel.send(message)
    answer = notebook.until(message["header"]["msg_id"], lambda message: message["msg_type"] == "comm_msg")
    assert answer["content"]["data"] == {"echo": "hello"}
    assert answer["header"]["session"] == session


def test_error_aborts_what_was_sent_along(notebook: Notebook) -> None:
    """After a cell that fails, those sent with it are aborted, wherever they were to run, and a later one runs."""
    gate = notebook.nodes / "gate-sent-along"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    numbers = [notebook.send(code) for code in (waits, "%%on server\n1/0", "2", "%%on server\n3")]
    notebook.taken()
    gate.touch()
    statuses = [notebook.reply(number)["content"]["status"] for number in numbers]
    assert statuses == ["ok", "error", "aborted", "aborted"]
    assert notebook.run("4").value == "4"


def test_error_that_stops_nothing(notebook: Notebook) -> None:
    """A cell sent with stop_on_error false fails alone."""
    numbers = [notebook.send("%%on server\n1/0", stop_on_error=False), notebook.send("%%on server\n5")]
    assert [notebook.reply(number)["content"]["status"] for number in numbers] == ["error", "ok"]


def test_a_thousand_cells_that_fail(notebook: Notebook) -> None:
    """Many cells sent at once that fail before they begin are all answered."""
    numbers = [notebook.send("%%on nowhere --lang x", stop_on_error=False) for _ in range(1000)]
    assert {notebook.reply(number)["content"]["status"] for number in numbers} == {"error"}


def test_cells_keep_their_order(notebook: Notebook) -> None:
    """Cells sent together run one after the other, in order, across places."""
    on_the_node = "%%on server\nimport time; time.sleep(0.2); end = time.time()"
    for number in [notebook.send(code) for code in ("import time; times = [time.time()]", on_the_node, "times.append(time.time())")]:
        assert notebook.reply(number)["content"]["status"] == "ok"
    notebook.run("%get end --from server")
    assert notebook.run("times[0] < end < times[1]").value == "True"


def test_other_requests_are_answered_while_a_node_is_busy(notebook: Notebook) -> None:
    """Home completes and the kernel tells what it is while a node's cell runs."""
    number = notebook.send("%%on server\nprint('begun', flush=True)\nimport time; time.sleep(30)")
    notebook.printed(number, "begun")
    assert "zip" in notebook.knows("complete", "zi")["matches"]
    assert notebook.reply(notebook.client.kernel_info())["content"]["implementation"] == "wardian"
    notebook.interrupt()
    assert notebook.result(number).reply["ename"] == "KeyboardInterrupt"


@pytest.mark.parametrize("line", ["", "%%on server\n", "%%on client\n"], ids=["home", "node", "nodes"])
def test_interrupt_keeps_state(notebook: Notebook, line: str) -> None:
    """An interrupt stops the cell at home, on a node and on several, and what they held is still there."""
    notebook.run(f"{line}kept = 'still here'")
    number = notebook.send(f"{line}print('begun', flush=True)\nimport time\ntime.sleep(60)")
    notebook.printed(number, "begun")
    notebook.interrupt()
    result = notebook.result(number)
    assert result.status == "error"
    assert "KeyboardInterrupt" in result.error
    after = notebook.run(f"{line}print(kept)")
    assert "still here" in after.text()


def test_interrupt_of_bash(notebook: Notebook) -> None:
    """An interrupt ends what bash runs and keeps the shell's variables."""
    notebook.run("%%on server --lang bash\nKEPT=yes")
    number = notebook.send("%%on server --lang bash\necho begun; sleep 60")
    notebook.printed(number, "begun")
    notebook.interrupt()
    assert notebook.result(number).status == "error"
    assert notebook.run("%%on server --lang bash\necho $KEPT").text() == "yes\n"


def test_fan_out(notebook: Notebook) -> None:
    """A cell on several nodes runs on each; equal outputs are one line, others are told apart."""
    assert notebook.run("%%on all\nprint('same')").lanes == {"client[0]": "same\n", "client[1]": "same\n", "server": "same\n"}
    result = notebook.run(f"%%on client\n{WHERE}")
    assert result.contents("display_data")[0]["data"]["text/plain"] == "client[0] │ 'client[0]'\nclient[1] │ 'client[1]'"
    assert result.message["metadata"]["wardian"]["nodes"] == ["client[0]", "client[1]"]


def test_fan_out_is_parallel(notebook: Notebook) -> None:
    """The nodes of a cell run it at the same time: each waits for the other to begin."""
    code = """%%on client
import os, pathlib, time
me = os.environ["WARDIAN_TEST_NODE"]
folder = pathlib.Path(os.environ["WARDIAN_RUN_DIR"]).parent
(folder / f"begun-{me}").touch()
end = time.time() + 30
while len(list(folder.glob("begun-*"))) < 2 and time.time() < end:
    time.sleep(0.01)
print(len(list(folder.glob("begun-*"))))
"""
    assert notebook.run(code).lanes == {"client[0]": "2\n", "client[1]": "2\n"}


def test_one_node_fails(notebook: Notebook) -> None:
    """One node's failure does not hide the others' output, and the reply names who failed and why."""
    result = notebook.run("%%on client\nimport os\nprint('out')\n1 / (os.environ['WARDIAN_TEST_NODE'] == 'client[0]')")
    assert result.lanes == {"client[0]": "out\n", "client[1]": "out\n"}
    assert result.error == "NodeErrors: client[1]: ZeroDivisionError: division by zero"
    assert len(result.contents("error")) == 1
    assert "client[1]" in result.traceback


def test_a_kernel_that_dies(start: Callable[..., Notebook]) -> None:
    """When a node's kernel dies under a cell the error says so at once, the other nodes' output is there, and the next cell runs."""
    own = start()
    code = """%%on client
import os, signal
me = os.environ["WARDIAN_TEST_NODE"]
print(me)
if me == "client[0]":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    result = own.run(code)
    assert result.lanes["client[1]"] == "client[1]\n"
    assert result.reply["evalue"].startswith("client[0]: NodeDownError: its python kernel has died")
    assert own.run(f"%%on client[0]\n{WHERE}").value == "'client[0]'"


def test_the_home_kernel_dies(start: Callable[..., Notebook]) -> None:
    """When home dies the kernel ends, as a stock one does, so that it is started anew; a waiting client gets an error first."""
    own = start()
    result = own.run("import os; os._exit(3)")
    assert "home kernel has ended" in result.error
    own.manager.provisioner.process.wait(30)
    assert not own.manager.is_alive()


def test_silent_requests_do_not_follow_stickiness(notebook: Notebook) -> None:
    """What a front end runs unseen is answered by home even while cells are sticky elsewhere, and takes no number."""
    notebook.run("%on server")
    before = notebook.run("1").reply["execution_count"]
    where = "__import__('os').environ.get('WARDIAN_TEST_NODE', 'home')"
    number = notebook.send("", silent=True, store_history=False, user_expressions={"where": where})
    assert "home" in notebook.reply(number)["content"]["user_expressions"]["where"]["data"]["text/plain"]
    assert notebook.run("1").reply["execution_count"] == before + 1
