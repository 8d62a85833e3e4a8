"""What the agent does on a node: its store, its two kinds of kernel, its services. Real processes throughout."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardian.errors import AgentError
from wardian.nodes.agent import service
from wardian.nodes.agent.protocol import FRAME_LIMIT, IOPUB, MIB, SHELL
from wardian.nodes.agent.store import MessageStore
from wardian.nodes.frames import decode_message
from wardian.nodes.link import AgentLink

from .conftest import HostChannel, Kernel

HEADERS = {
    "stream": b'{"msg_type": "stream"}',
    "status": b'{"msg_type": "status"}',
}


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


async def until(condition: Any, timeout: float = 10) -> None:
    """Wait for something outside of the event loop's sight."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


# ── the store ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def filled(count: int, tmp_path: Any, **limits: int) -> MessageStore:
    store = MessageStore("k", str(tmp_path), **limits)
    for number in range(1, count + 1):
        store.append(IOPUB, [HEADERS["stream"], b'{"msg_id": "cell"}', b"{}", b"%06d" % number])
    return store


def taken(store: MessageStore) -> list[tuple[int, bytes]]:
    """Everything that the store gives when each message is acknowledged at once: (sequence, content)."""
    found = []
    while frame := store.take():
        message = decode_message(frame[5:])
        found.append((message.sequence, message.parts[3]))
        store.acknowledge(message.sequence)
    return found


def test_store_keeps_what_memory_cannot_hold(tmp_path: Path) -> None:
    """Past the memory's bound messages go to disk and come back in order, whole."""
    store = filled(2000, tmp_path, memory=2000)
    assert taken(store) == [(number, b"%06d" % number) for number in range(1, 2001)]
    assert store.dropped == 0
    assert os.listdir(tmp_path) == []


def test_store_drops_the_middle_and_says_exactly_what(tmp_path: Path) -> None:
    """Past the disk's quota the oldest and the newest stay, and one mark counts what is gone between them."""
    store = filled(2000, tmp_path, memory=2000, disk=5000, tail=1000)
    found = taken(store)
    numbers = [sequence for sequence, _ in found]
    assert numbers[0] == 1
    assert numbers[-1] == 2000
    marks = [(sequence, content) for sequence, content in found if b"dropped here" in content]
    assert len(marks) == 1
    assert f"[{store.dropped} messages" in json.loads(marks[0][1])["text"]
    assert len(found) - 1 + store.dropped == 2000
    place = numbers.index(marks[0][0])
    assert numbers[place] - numbers[place - 1] == store.dropped


def test_store_never_drops_what_is_no_output(tmp_path: Path) -> None:
    """Replies and statuses stay even where everything around them is dropped."""
    store = filled(500, tmp_path, memory=500, disk=500, tail=500)
    store.append(SHELL, [HEADERS["stream"], b"{}", b"{}", b"reply"])
    store.append(IOPUB, [HEADERS["status"], b"{}", b"{}", b"idle"])
    for _ in range(500):
        store.append(IOPUB, [HEADERS["stream"], b'{"msg_id": "next"}', b"{}", b"more"])
    contents = [content for _, content in taken(store)]
    assert contents.count(b"reply") == contents.count(b"idle") == 1
    assert sum(b"dropped here" in content for content in contents) == 2


def test_store_survives_a_disk_that_is_not_there() -> None:
    """Without a usable disk the store drops, with its mark, rather than fail."""
    store = filled(1000, "/nowhere", memory=2000, tail=1000)
    found = taken(store)
    assert len(found) - 1 + store.dropped == 1000


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["append", "append", "append", "take", "take", "acknowledge", "rewind", "rewind after"]), max_size=120),
    st.data(),
)
def test_store_gives_each_message_once_and_in_order(steps: list[str], data: st.DataObject) -> None:
    """Whatever the order of appends, sends, acknowledgements and reattachments, a reader that continues after its last gets all."""
    store = MessageStore("k", "/tmp", memory=1000, disk=3000, tail=600)
    seen, acknowledged, appended, marks = 0, 0, 0, 0
    received: list[tuple[int, bytes]] = []

    def take() -> None:
        nonlocal seen, marks
        frame = store.take()
        if frame:
            message = decode_message(frame[5:])
            if message.sequence > seen:
                received.append((message.sequence, message.parts[3]))
                marks += b"dropped here" in message.parts[3]
                seen = message.sequence

    for step in steps:
        if step == "append":
            appended += 1
            store.append(IOPUB, [HEADERS["stream"], b"{}", b"{}", b"%06d" % appended])
        elif step == "take":
            take()
        elif step == "acknowledge":
            acknowledged = data.draw(st.integers(acknowledged, seen))
            store.acknowledge(acknowledged)
        elif step == "rewind":
            assert store.rewind(None) <= seen + 1
        else:
            acknowledged = seen
            store.rewind(seen)
    store.rewind(seen)
    while not store.exhausted:
        take()
        store.acknowledge(seen)
    numbers = [sequence for sequence, _ in received]
    assert numbers == sorted(set(numbers))
    assert all(content == b"%06d" % sequence for sequence, content in received if b"dropped here" not in content)
    assert len(received) - marks + store.dropped == appended
    store.close()


def test_a_message_that_no_frame_holds_is_replaced(tmp_path: Path) -> None:
    """A reply too large for a frame becomes an error reply with the same header, so that whoever waits for it goes on."""
    store = MessageStore("k", str(tmp_path))
    store.append(SHELL, [b'{"msg_type": "execute_reply"}', b"{}", b"{}", bytes(FRAME_LIMIT)])
    ((_, content),) = taken(store)
    assert json.loads(content)["ename"] == "MessageTooLarge"


# ── bash ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_bash_keeps_its_state(link: AgentLink) -> None:
    """Variables, functions and the working directory live on from cell to cell."""
    kernel = await Kernel.start(link, "b", "bash", env={"GIVEN": "yes"}, cwd="/")
    await kernel.run("cd /usr; x=5; double() { echo $(($1 * 2)); }")
    result = await kernel.run("pwd; double $x; echo $GIVEN")
    assert result.text() == "/usr\n10\nyes\n"
    assert result.reply["status"] == "ok"
    assert result.reply["execution_count"] == 2


async def test_bash_speaks_as_a_kernel_does(link: AgentLink) -> None:
    """A cell's messages are those of any Jupyter kernel, in their order."""
    kernel = await Kernel.start(link, "b", "bash")
    result = await kernel.run("echo hi")
    assert [(channel, kind) for channel, kind, _ in result.messages] == [
        ("iopub", "status"),
        ("iopub", "execute_input"),
        ("iopub", "stream"),
        ("shell", "execute_reply"),
        ("iopub", "status"),
    ]


async def test_bash_reports_a_failed_cell(link: AgentLink) -> None:
    """A status other than 0 is an error named ExitCode; what the shell says names cell and line."""
    kernel = await Kernel.start(link, "b", "bash")
    result = await kernel.run("true\nnosuchthing")
    assert (result.reply["status"], result.reply["ename"], result.reply["evalue"]) == ("error", "ExitCode", "127")
    assert "cell[1]: line 2: nosuchthing: command not found" in result.text("stderr")
    result = await kernel.run("echo\nif then")
    assert "cell[2]: line 2: syntax error" in result.text("stderr")
    assert [kind for _, kind, _ in result.messages].count("error") == 1


@pytest.mark.parametrize(
    "code", ["sleep 60; echo no", "while :; do :; done; echo no", "f() { sleep 60; echo no; }; f; echo no", "(sleep 60); echo no"]
)
async def test_bash_interrupt_abandons_the_cell_and_keeps_the_shell(link: AgentLink, code: str) -> None:
    """An interrupt ends the running cell as a KeyboardInterrupt; the variables are still there."""
    kernel = await Kernel.start(link, "b", "bash")
    await kernel.run("x=kept")
    number = kernel.execute("echo started\n" + code)
    await kernel.says(number, "started\n")
    await link.request("kernel.interrupt", kernel="b")
    result = await kernel.result(number)
    assert result.reply["ename"] == "KeyboardInterrupt"
    assert "no" not in result.text().split()
    assert (await kernel.run("echo $x")).text() == "kept\n"


async def test_bash_interrupt_abandons_a_cell_whose_program_handles_it(link: AgentLink) -> None:
    """A program that takes the interrupt, cleans up and exits normally is let finish; the cell is abandoned all the same."""
    kernel = await Kernel.start(link, "b", "bash")
    program = "import time\nprint('started', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(0.3); print('clean')"
    number = kernel.execute(f'{sys.executable} -c "{program}"\nsleep 60\necho no')
    await kernel.says(number, "started\n")
    await link.request("kernel.interrupt", kernel="b")
    result = await kernel.result(number)
    assert result.text() == "started\nclean\n"
    assert result.reply["ename"] == "KeyboardInterrupt"


async def test_bash_interrupt_spares_what_earlier_cells_left_running(link: AgentLink) -> None:
    """Background processes of earlier cells are not touched, not even those that would react to the signal."""
    kernel = await Kernel.start(link, "b", "bash")
    program = "import signal, time; signal.signal(2, signal.SIG_DFL); time.sleep(60)"
    pid = int((await kernel.run(f"{sys.executable} -c '{program}' & echo $!; sleep 0.5")).text())
    number = kernel.execute("echo started; sleep 60")
    await kernel.says(number, "started\n")
    await link.request("kernel.interrupt", kernel="b")
    assert (await kernel.result(number)).reply["ename"] == "KeyboardInterrupt"
    assert not gone(pid)


async def test_bash_survives_what_would_end_a_script(link: AgentLink) -> None:
    """An unset variable under `set -u` ends the cell, not the shell."""
    kernel = await Kernel.start(link, "b", "bash")
    await kernel.run("x=kept")
    assert (await kernel.run("set -u; echo $unset; echo no")).reply["status"] == "error"
    assert (await kernel.run("echo $x")).text() == "kept\n"


async def test_bash_exit_starts_a_new_shell(link: AgentLink) -> None:
    """A cell that leaves the shell reports its status, says that the shell ended, and the next cell has a new one."""
    kernel = await Kernel.start(link, "b", "bash")
    result = await kernel.run("x=5; echo bye; exit 3")
    assert result.reply["evalue"] == "3"
    assert result.text() == "bye\n"
    assert "the shell ended with status 3" in result.text("stderr")
    assert (await kernel.run("echo [$x]")).text() == "[]\n"


async def test_bash_cells_read_nothing(link: AgentLink) -> None:
    """A command that reads its input finds the end of it, and does not eat the cells that follow."""
    kernel = await Kernel.start(link, "b", "bash")
    first, second = kernel.execute("cat; read line; echo [$line]"), kernel.execute("echo next")
    assert (await kernel.result(first)).text() == "[]\n"
    assert (await kernel.result(second)).text() == "next\n"


async def test_bash_output_is_whole(link: AgentLink) -> None:
    """A hundred thousand lines arrive complete, in order, before the reply; invalid bytes are replaced, characters never cut."""
    kernel = await Kernel.start(link, "b", "bash")
    result = await kernel.run('for ((i = 0; i < 100000; i++)); do echo "$i é"; done')
    assert result.text() == "".join(f"{i} é\n" for i in range(100_000))
    assert (await kernel.run("printf 'a\\xffb'")).text() == "a\ufffdb"


async def test_bash_background_output_goes_to_the_cell_that_runs(link: AgentLink) -> None:
    """What a background process says later belongs to the cell running then, or to the last one."""
    kernel = await Kernel.start(link, "b", "bash")
    fifo = f"{kernel.name}.fifo"
    await kernel.run(f'cd "$(mktemp -d)"; mkfifo {fifo}; (cat {fifo}; echo late) & folder=$PWD')
    result = await kernel.run(f"echo go >{fifo}")
    await kernel.until(lambda: "late" in result.text())
    await kernel.run('cd /; rm -r "$folder"')


async def test_bash_stops_queued_cells_after_an_error(link: AgentLink, tmp_path: Path) -> None:
    """Cells sent behind one that fails are aborted, as a Jupyter kernel does, and not with stop_on_error off."""
    kernel = await Kernel.start(link, "b", "bash")
    for stop, then in ((True, "aborted"), (False, "ok")):
        queued = tmp_path / then
        fails = f"until [ -e {queued} ]; do sleep 0.01; done; false"
        numbers = [kernel.execute(code, stop_on_error=stop) for code in (fails, "echo queued")]
        # answered after all that was sent before it was taken
        await link.request("kernel.list")
        queued.touch()
        assert [(await kernel.result(number)).reply["status"] for number in numbers] == ["error", then]


async def test_bash_completes(link: AgentLink) -> None:
    """Commands, variables and paths complete; hostile text in the word is only text."""
    kernel = await Kernel.start(link, "b", "bash", cwd="/")
    await kernel.run("wardian_variable=1")
    cases = {"ech": "echo", "echo $wardian_v": "wardian_variable", "ls /us": "/usr/", "x=1; ech": "echo"}
    for code, expected in cases.items():
        reply = (await kernel.result(kernel.send("complete_request", code=code, cursor_pos=len(code)))).reply
        assert expected in reply["matches"], code
        assert expected.startswith(code[reply["cursor_start"] :])
    code = "ls '$(touch${IFS}/tmp/wardian-must-not-be)"
    await kernel.result(kernel.send("complete_request", code=code, cursor_pos=len(code)))
    assert not os.path.exists("/tmp/wardian-must-not-be")


@pytest.mark.parametrize(
    ("code", "status"),
    [("echo hi", "complete"), ("if true; then", "incomplete"), ("echo 'a", "incomplete"), ("a \\", "incomplete"), ("fi", "invalid")],
)
async def test_bash_knows_complete_code(link: AgentLink, code: str, status: str) -> None:
    """`is_complete_request` tells finished code from unfinished and from wrong."""
    kernel = await Kernel.start(link, "b", "bash")
    assert (await kernel.result(kernel.send("is_complete_request", code=code))).reply["status"] == status


async def test_bash_tells_about_itself(link: AgentLink) -> None:
    """`kernel_info_request` names the language and its version."""
    kernel = await Kernel.start(link, "b", "bash")
    info = (await kernel.result(kernel.send("kernel_info_request"))).reply
    assert info["language_info"]["name"] == "bash"
    assert info["language_info"]["version"][0].isdigit()


# ── Python ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_python_runs_cells(link: AgentLink) -> None:
    """State persists, streams and values arrive, and errors carry their traceback."""
    kernel = await Kernel.start(link, "p", "python", env={"GIVEN": "yes"}, cwd="/usr")
    await kernel.run("import os; x = 5")
    result = await kernel.run("print(os.getcwd(), os.environ['GIVEN']); x * 2")
    assert result.text() == "/usr yes\n"
    assert [content["data"]["text/plain"] for _, kind, content in result.messages if kind == "execute_result"] == ["10"]
    result = await kernel.run("1/0")
    assert result.reply["ename"] == "ZeroDivisionError"
    assert any("division by zero" in line for line in result.reply["traceback"])


async def test_python_output_is_whole(link: AgentLink) -> None:
    """Eight thousand flushed lines arrive complete and in order: the kernel's socket has no high-water mark (ZeroMQ's is a thousand)."""
    kernel = await Kernel.start(link, "p", "python")
    result = await kernel.run("for i in range(8000): print(i, flush=True)", timeout=60)
    assert result.text() == "".join(f"{i}\n" for i in range(8_000))


async def test_python_output_of_children_and_of_c_is_captured(link: AgentLink) -> None:
    """What is written to the process's own descriptors is stream output too."""
    kernel = await Kernel.start(link, "p", "python")
    result = await kernel.run("import os; os.write(1, b'low level\\n')")
    await kernel.until(lambda: "low level" in result.text())


@pytest.mark.parametrize("way", ["request", "message"])
async def test_python_interrupt_keeps_the_state(link: AgentLink, way: str) -> None:
    """Both ways of interrupting end the cell with KeyboardInterrupt and leave the variables."""
    kernel = await Kernel.start(link, "p", "python")
    # in short pieces: ipykernel signals itself from a thread that gets its turn as the sleep begins, and then Python does not notice
    number = kernel.execute("import time\nx = 'kept'\nprint('started', flush=True)\nwhile True: time.sleep(0.01)")
    await kernel.says(number, "started\n")
    if way == "request":
        await link.request("kernel.interrupt", kernel="p")
    else:
        kernel.send("interrupt_request", "control")
    assert (await kernel.result(number)).reply["ename"] == "KeyboardInterrupt"
    assert (await kernel.run("print(x)")).text() == "kept\n"


async def test_python_asks_for_input(link: AgentLink) -> None:
    """`input()` on the node reaches the client on stdin, and its answer the code."""
    kernel = await Kernel.start(link, "p", "python")
    number = kernel.send("execute_request", code="print('got', input('name? '))", silent=False, store_history=True, allow_stdin=True)
    await kernel.until(lambda: any(channel == "stdin" for _, channel, _ in kernel.messages))
    kernel.send("input_reply", "stdin", value="Ada", status="ok")
    assert (await kernel.result(number)).text() == "got Ada\n"


async def test_python_death_is_an_event_after_its_last_words(link: AgentLink) -> None:
    """A kernel that dies is reported with its exit code once its output has come, and again to who attaches later."""
    kernel = await Kernel.start(link, "p", "python")
    kernel.execute("import os, time\nprint('last words', flush=True)\ntime.sleep(0.3)\nos._exit(7)")
    await kernel.until(lambda: kernel.events)
    assert kernel.events[0]["event"] == "kernel.died"
    assert kernel.events[0]["exit_code"] == 7
    assert any("last words" in str(message["content"].get("text")) for _, _, message in kernel.messages)
    kernel.events.clear()
    await link.request("kernel.attach", kernel="p", after=None)
    await kernel.until(lambda: kernel.events)
    assert (await link.request("kernel.start", kernel="p", language="python"))["new"]
    assert (await kernel.run("print('again')")).text() == "again\n"
    assert [number for number, _, _ in kernel.messages] == list(range(1, len(kernel.messages) + 1))


async def test_python_crash_leaves_its_trace(link: AgentLink) -> None:
    """A kernel that crashes dies by a signal, and the event carries what it wrote at the end."""
    kernel = await Kernel.start(link, "p", "python")
    kernel.execute("import ctypes; ctypes.string_at(0)")
    await kernel.until(lambda: kernel.events)
    assert kernel.events[0]["signal"] == 11
    assert "Segmentation fault" in kernel.events[0]["last"]


async def test_python_that_lacks_ipykernel_says_what_it_is(run_directory: str) -> None:
    """An interpreter without ipykernel starts no kernel; the answer says which interpreter it is, and what it has."""
    bare = getattr(sys, "_base_executable", sys.executable)
    channel = HostChannel(run_directory, PYTHONNOUSERSITE="1", WARDIAN_PYTHON=bare)
    link = await AgentLink.open(channel, "host")
    try:
        needs = (await link.request("kernel.start", kernel="p", language="python"))["needs"]
        assert needs["python"] == bare
        assert needs["version"] == list(sys.version_info[:2])
        assert "ipykernel" in needs["error"]
        assert "ipykernel" not in needs["installed"]
        assert (await link.request("kernel.list"))["kernels"]["p"]["state"] == "dead"
    finally:
        await link.close()


async def test_python_failing_start_shows_why(run_directory: str, tmp_path: Path) -> None:
    """A kernel that dies while it starts gives its last lines in the error."""
    (tmp_path / "ipykernel").mkdir()
    (tmp_path / "ipykernel" / "__init__.py").write_text("raise SystemExit('this installation is broken')")
    link = await AgentLink.open(HostChannel(run_directory, PYTHONPATH=str(tmp_path)), "host")
    try:
        with pytest.raises(AgentError, match="this installation is broken"):
            await link.request("kernel.start", kernel="p", language="python")
    finally:
        await link.close()


# ── any kernel ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", ["bash", "python"])
async def test_starting_twice_is_starting_once(link: AgentLink, language: str) -> None:
    """Two starts of one kernel, also at once, give one process."""
    first, second = await asyncio.gather(*(link.request("kernel.start", kernel="k", language=language) for _ in range(2)))
    assert first["pid"] == second["pid"]
    assert [first["new"], second["new"]] == [True, False]
    listed = (await link.request("kernel.list"))["kernels"]["k"]
    assert (listed["language"], listed["pid"], listed["state"]) == (language, first["pid"], "idle")


@pytest.mark.parametrize("language", ["bash", "python"])
async def test_stopping_ends_everything_of_the_kernel(link: AgentLink, language: str) -> None:
    """A stopped kernel leaves no process of its session, not even one that ignores SIGTERM."""
    kernel = await Kernel.start(link, "k", language)
    code = "sh -c 'trap \"\" TERM HUP; echo $$; sleep 600' &\nsleep 0.3"
    result = await kernel.run(
        code if language == "bash" else f"import subprocess; subprocess.Popen({code.splitlines()[0][:-2]!r}, shell=True)"
    )
    await kernel.until(lambda: result.text().strip().isdigit())
    child = int(result.text())
    pid = (await link.request("kernel.list"))["kernels"]["k"]["pid"]
    await link.request("kernel.stop", kernel="k")
    assert gone(pid)
    assert gone(child)
    assert (await link.request("kernel.list"))["kernels"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "no.such"}, "no operation"),
        ({"op": "kernel.start", "kernel": "../x", "language": "bash"}, "letters"),
        ({"op": "kernel.start", "kernel": "x", "language": "cobol"}, "no kernel for 'cobol'"),
        ({"op": "kernel.start", "kernel": "x", "language": "bash", "cwd": "/no/such"}, "no folder /no/such"),
        ({"op": "kernel.start", "kernel": "x", "language": "bash", "env": {"A=B": "c"}}, "no variable"),
        ({"op": "kernel.attach", "kernel": "nobody"}, "no kernel nobody"),
        ({"op": "kernel.stop"}, "has to be a text"),
        ({"op": "service.start", "service": "s", "command": "ls"}, "list of texts"),
        ({"op": "service.start", "service": "s", "command": ["ls"], "restart": "maybe"}, "restart"),
        ({"op": "service.start", "service": "s", "command": ["ls"], "ready": {"log": "("}}, "regular expression"),
        ({"op": "service.wait", "service": "nobody"}, "no service nobody"),
    ],
)
async def test_wrong_requests_say_what_is_wrong(link: AgentLink, arguments: dict[str, Any], message: str) -> None:
    """A request that cannot be done is refused with its reason, naming the node, and the connection goes on."""
    with pytest.raises(AgentError, match=message) as caught:
        await link.request(**arguments)
    assert caught.value.node == "host"
    assert await link.request("kernel.list") == {"kernels": {}}


async def test_input_to_no_kernel_is_answered(link: AgentLink) -> None:
    """A message to a kernel that does not exist is answered with an event, so that nobody waits for ever."""
    kernel = Kernel(link, "nobody")
    kernel.execute("echo")
    await kernel.until(lambda: kernel.events)
    assert kernel.events[0]["last"] == "there is no such kernel"


# ── services ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_service_ready_by_port(link: AgentLink) -> None:
    """A service counts as ready when its port accepts connections."""
    port = free_port()
    script = f"import socket,time; time.sleep(0.3); s=socket.create_server(('127.0.0.1',{port})); time.sleep(600)"
    await link.request("service.start", service="s", command=[sys.executable, "-c", script], ready={"port": port})
    assert (await link.request("service.list"))["services"]["s"]["state"] == "starting"
    assert await link.request("service.wait", service="s", timeout=20) == {"state": "ready"}
    socket.create_connection(("127.0.0.1", port)).close()


async def test_service_ready_by_log(link: AgentLink) -> None:
    """A service counts as ready when a line of its log matches, also when the line comes in pieces."""
    command = ["sh", "-c", "printf 'now lis'; sleep 0.2; echo tening on 80; exec sleep 600"]
    await link.request("service.start", service="s", command=command, ready={"log": "listening on [0-9]+"})
    await link.request("service.wait", service="s", timeout=20)
    assert (await link.request("service.log", service="s", lines=5))["text"] == "now listening on 80"


async def test_service_ready_by_command(link: AgentLink, tmp_path: Path) -> None:
    """A service counts as ready when its check exits with 0."""
    flag = tmp_path / "flag"
    await link.request(
        "service.start",
        service="s",
        command=["sh", "-c", f"sleep 0.3; touch {flag}; exec sleep 600"],
        ready={"command": ["test", "-e", str(flag)]},
    )
    await link.request("service.wait", service="s", timeout=20)
    assert flag.exists()


async def test_service_is_restarted(link: AgentLink, tmp_path: Path) -> None:
    """A service that fails is started again until it stays, and the restarts are counted."""
    counter = tmp_path / "count"
    script = f"echo x >>{counter}; [ $(wc -l <{counter}) -ge 3 ] || exit 9; echo up; exec sleep 600"
    await link.request("service.start", service="s", command=["sh", "-c", script], ready={"log": "^up$"})
    await link.request("service.wait", service="s", timeout=20)
    service = (await link.request("service.list"))["services"]["s"]
    assert (service["restarts"], service["exit_code"]) == (2, 9)


@pytest.mark.parametrize(("restart", "code", "state"), [("no", 4, "failed"), ("no", 0, "stopped"), ("on-failure", 0, "stopped")])
async def test_service_that_ends_is_left_alone(link: AgentLink, restart: str, code: int, state: str) -> None:
    """The policy decides whether an ended service is started again; its exit code is kept."""
    await link.request("service.start", service="s", command=["sh", "-c", f"exit {code}"], restart=restart, ready={"log": "never"})
    with pytest.raises(AgentError, match=state):
        await link.request("service.wait", service="s", timeout=20)
    assert (await link.request("service.list"))["services"]["s"]["exit_code"] == code


async def test_service_wait_shows_the_log(link: AgentLink) -> None:
    """A wait that runs out says so, with the end of the log."""
    await link.request("service.start", service="s", command=["sh", "-c", "echo cannot bind; sleep 600"], ready={"log": "never"})
    with pytest.raises(AgentError, match=r"not ready after 0.5 s \(starting\)(.|\n)*cannot bind"):
        await link.request("service.wait", service="s", timeout=0.5)


async def test_service_that_cannot_start_fails_at_once(link: AgentLink) -> None:
    """A program that is not there is a failure, not a reason to try again."""
    await link.request("service.start", service="s", command=["/no/such/program"], restart="always")
    with pytest.raises(AgentError, match="No such file"):
        await link.request("service.wait", service="s", timeout=20)


async def test_service_start_is_idempotent(link: AgentLink) -> None:
    """The same spec again does nothing; another spec replaces the process."""
    spec = {"service": "s", "command": ["sleep", "600"]}
    await link.request("service.start", **spec)
    first = (await link.request("service.list"))["services"]["s"]["pid"]
    await link.request("service.start", **spec)
    assert (await link.request("service.list"))["services"]["s"]["pid"] == first
    await link.request("service.start", **{**spec, "command": ["sleep", "601"]})
    second = (await link.request("service.list"))["services"]["s"]["pid"]
    assert second != first
    assert gone(first)
    await link.request("service.stop", service="s")
    assert gone(second)
    assert (await link.request("service.list"))["services"]["s"]["state"] == "stopped"


async def test_stopping_a_service_that_never_was(link: AgentLink) -> None:
    """It succeeds: nothing of that name runs, which is what was asked for after a start that was cut short."""
    await link.request("service.stop", service="never")
    assert (await link.request("service.list"))["services"] == {}


async def test_service_log_is_bounded(link: AgentLink, run_directory: str) -> None:
    """A service that writes without end keeps a log of bounded size, with the newest lines."""
    await link.request(
        "service.start", service="s", command=["sh", "-c", "seq 5000000; echo the end; exec sleep 600"], ready={"log": "the end"}
    )
    await link.request("service.wait", service="s", timeout=60)
    size = sum(path.stat().st_size for path in (Path(run_directory) / "services").iterdir())
    assert size <= 2 * service.LOG_LIMIT + MIB
    assert (await link.request("service.log", service="s", lines=2))["text"] == "5000000\nthe end"
