"""What people see and type: live progress, shells, Ctrl-C."""

from __future__ import annotations

import io
import os
import pty
import re
import secrets
import select
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from wardian.cli.progress import _Board
from wardian.environment.apply import Event
from wardian.experiment.plan import Operation
from wardian.experiment.resources import Resource

from ..stage import WARDIAN, Stage, eventually, require

pytestmark = pytest.mark.root


class Tmux:
    """One window of a terminal in tmux, of a server of its own."""

    def __init__(self, stage: Stage) -> None:
        self.socket = f"w{secrets.token_hex(4)}"
        # what the window inherits must not say that it belongs to a state folder, or its shell would count as left over
        self.env = {name: value for name, value in stage.env.items() if name not in ("NO_COLOR", "COLUMNS", "WARDIAN_STATE")}
        self._call("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "-c", str(stage.folder), "env", "PS1=OUT> ", "sh")
        self.type(f"export WARDIAN_STATE={shlex.quote(str(stage.state))}")

    def _call(self, *arguments: str) -> str:
        return subprocess.run(["tmux", "-L", self.socket, *arguments], env=self.env, capture_output=True, text=True, check=True).stdout

    def type(self, text: str, *keys: str) -> None:
        """Type a line, or keys such as C-c."""
        if text:
            self._call("send-keys", "-l", text)
        self._call("send-keys", *(keys or ("Enter",)))

    def screen(self) -> str:
        return self._call("capture-pane", "-p", "-J", "-S", "-500")

    def see(self, pattern: str) -> str:
        """Wait until the screen shows it."""
        found = eventually(lambda: re.search(pattern, self.screen(), re.M), f"the terminal shows {pattern!r}; it shows:\n{self.screen()}")
        return str(found.group())

    def resize(self, columns: int, rows: int) -> None:
        self._call("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], capture_output=True)


@pytest.fixture
def terminal(grown: Stage) -> Iterator[Tmux]:
    require("tmux")
    tmux = Tmux(grown)
    yield tmux
    tmux.close()


def test_shell(terminal: Tmux) -> None:
    """A shell on a node has the node's name, a terminal that follows the window's size, Ctrl-C, and gives its exit code."""
    terminal.type("wardian shell server; echo code=$?")
    terminal.see(r"^.*server.*[#$] ")
    terminal.type("echo on-$(hostname); tty; stty size")
    terminal.see(r"^on-server$")
    terminal.see(r"^/dev/pts/\d+$")
    terminal.see(r"^30 100$")
    terminal.resize(120, 40)
    terminal.type("stty size")
    terminal.see(r"^40 120$")
    # a key that comes before the program has the terminal is the shell's own
    terminal.type("sh -c 'echo begun-$((6*7)); exec sleep 1000'")
    terminal.see(r"^begun-42$")
    terminal.type("", "C-c")
    terminal.type("echo still-$((40+2))")
    terminal.see(r"^still-42$")
    terminal.type("sleep 500 & jobs; fg")
    terminal.see(r"Running +sleep 500")

    def stopped() -> bool:
        terminal.type("", "C-z")
        return bool(re.search(r"Stopped +sleep 500", terminal.screen()))

    # before `fg` has given it the terminal the key does nothing
    eventually(stopped, "the program is stopped")
    terminal.type("kill %1; exit 7")
    terminal.see(r"(?s)code=\d+|exit\n.*stopped jobs")
    if "code=" not in terminal.screen().split("echo code=$?", 1)[1]:
        terminal.type("exit 7")
    terminal.see(r"^code=7$")
    terminal.type("echo back-$(stty -a | grep -o ' echo ')")
    terminal.see(r"^back- ?echo")


def test_shell_runs_a_command(terminal: Tmux) -> None:
    """`shell NODE COMMAND` runs it in a terminal and gives its code."""
    terminal.type("wardian shell 'client[1]' sh -c 'tty; hostname; exit 5'; echo code=$?")
    terminal.see(r"^/dev/pts/\d+$")
    terminal.see(r"^client-1$")
    terminal.see(r"^code=5$")


def test_ctrl_c_ends_what_runs_on_the_nodes(grown: Stage) -> None:
    """Ctrl-C during `exec` ends the command on every node, then exits with 130."""
    process = grown.start("exec", "all", "--", "sh", "-c", "echo begun; exec sleep 1047")
    assert process.stdout is not None
    begun = {process.stdout.readline().split()[0] for _ in range(3)}
    assert begun == {"server", "client[0]", "client[1]"}
    eventually(lambda: len(sleeping()) == 3, "the commands run")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    eventually(lambda: not sleeping(), "the commands on the nodes have ended")


def sleeping() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x001047\x00":
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def on_a_terminal(stage: Stage, *arguments: str, answer: bytes = b"", rows: int = 45) -> tuple[int, str]:
    """Run `wardian` on a terminal; its exit code and all that it wrote there."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 120, 0, 0))
    env = {name: value for name, value in stage.env.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [WARDIAN, *arguments], cwd=stage.folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    stage.started.append(process)
    os.close(slave)
    if answer:
        os.write(master, answer)
    written = bytearray()
    while True:
        try:
            ready, _, _ = select.select([master], [], [], 60)
            assert ready, written.decode(errors="replace")
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        written += data
    os.close(master)
    return process.wait(30), written.decode()


def test_each_node_has_a_line_with_its_state() -> None:
    """What is being made has a line with the state it is in now until it is finished, and what is finished is counted."""
    operation = Operation(1, "create", "node", tuple(Resource("node", f"n[{number}]", {}) for number in range(20)), "")
    board = _Board()
    board.live = Live(console=Console(file=io.StringIO()), auto_refresh=False)
    with board:
        for event in (Event(operation, "started"), Event(operation, "booting", "n[3]"), Event(operation, "ready", "n[4]")):
            board.listen(event)
        console = Console(width=100, file=io.StringIO(), record=True)
        console.print(board._draw())
    text = console.export_text()
    lines = dict(re.findall(r"(n\[\d+\]) +(\w+)", text))
    assert lines == {f"n[{number}]": "booting" if number == 3 else "started" for number in range(20) if number != 4}
    assert "1 of 20 ready" in text


@pytest.mark.slow
def test_up_shows_each_node(stage: Stage) -> None:
    """`up` of 30 nodes on a terminal shows nodes with the state they are in while it works, and cleans up after itself."""
    stage.write("name: NAME\nnodes: {n: {count: 30, files: {data: /srv/data}}}\n")
    stage.write("x", "data")
    code, shown = on_a_terminal(stage, "up")
    assert code == 0
    assert "Traceback" not in shown
    # how often it is drawn depends on how fast the machine is
    assert {int(number) for number in re.findall(r"node +n\[(\d+)\] +\w", shown)} <= set(range(30))
    assert re.search(r"\d+ of \d+ ready", shown)
    assert "up" in shown.splitlines()[-1]
    assert "\x1b[?25h" in shown or "\x1b[?25l" not in shown
    assert stage.run("exec", "n", "true").returncode == 0


def test_up_asks_before_it_takes_nodes_away(stage: Stage) -> None:
    """Nodes that run are removed only when the answer is yes, or with -y; without a terminal it is an error to need an answer."""
    stage.write("name: NAME\nnodes: {n: {count: 2}}\n")
    stage.run("up")
    stage.edit("count: 2", "count: 1")
    assert "-y" in stage.error("up", code=2)
    code, shown = on_a_terminal(stage, "up", answer=b"n\n")
    assert code != 0
    assert "n[1]" in shown
    stage.run("exec", "n[1]", "true")
    assert on_a_terminal(stage, "up", answer=b"y\n")[0] == 0
    stage.run("exec", "n[1]", "true", code=3)
    stage.edit("count: 1", "count: 0")
    stage.run("up", "-y")
    assert [item for item in stage.json("status", "--json")["resources"] if item["kind"] == "node"] == []
