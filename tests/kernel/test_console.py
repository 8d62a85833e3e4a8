"""`jupyter console` with the Wardian kernel, in a real terminal."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import eventually, require

from .conftest import ROOT

pytestmark = pytest.mark.slow


class Console:
    """A console in a tmux server of its own."""

    def __init__(self, nodes: Path, folder: Path) -> None:
        self._server = f"w{secrets.token_hex(4)}"
        spec = folder / "kernels" / "wardian"
        spec.mkdir(parents=True)
        (spec / "kernel.json").write_text(
            f'{{"argv": ["{sys.executable}", "-m", "tests.kernel.hosts", "-f", "{{connection_file}}"], "display_name": "Wardian",'
            ' "language": "python", "interrupt_mode": "message"}'
        )
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "WARDIAN_", "PYTEST", "TMUX"))}
        self._env = inherited | {
            "JUPYTER_PATH": str(folder),
            "JUPYTER_RUNTIME_DIR": str(folder / "run"),
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": str(ROOT),
            "WARDIAN_TEST_NODES": str(nodes),
            "WARDIAN_SESSION": self._server,
        }
        command = [sys.executable, "-m", "jupyter_console", "--kernel", "wardian"]
        self.call("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "50", "-c", str(ROOT), "env", "PS1=SHELL> ", "sh")
        self.type(f"{' '.join(command)}; echo ended with $?")

    def call(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", self._server, *arguments], env=self._env, capture_output=True, text=True, check=True)
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        """Type a text, then keys (Enter, if none are named)."""
        if text:
            self.call("send-keys", "-l", text)
        self.call("send-keys", *(keys or ("Enter",)))

    def see(self, pattern: str) -> None:
        """Wait until the screen shows it."""
        eventually(lambda: re.search(pattern, self._screen(), re.M), f"the terminal shows {pattern!r}; it shows:\n{self._screen()}")

    def processes(self) -> list[str]:
        """The console, its kernel and the home kernel, as far as they run."""
        mark = f"WARDIAN_SESSION={self._server}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        # agents stay: they serve whoever comes next
        return [command for command in found if any(part in command for part in ("tests.kernel.hosts", "home_kernel", "jupyter_console"))]

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._server, "kill-server"], capture_output=True)

    def _screen(self) -> str:
        return self.call("capture-pane", "-p", "-J", "-S", "-500")


@pytest.fixture
def console(host_nodes: Path, tmp_path: Path) -> Iterator[Console]:
    require("tmux")
    console = Console(host_nodes, tmp_path)
    yield console
    console.close()


def test_a_session(console: Console) -> None:
    """Banner, a cell at home, one of several lines on a node, input, interrupt, completion; leaving ends every process."""
    console.see(r"Wardian \d.*a cell runs on the nodes")
    console.see(r"In \[1\]:")
    console.type("6 * 7")
    console.see(r"Out\[1\]: 42")

    console.see(r"In \[2\]:")
    console.type("%%on server")
    console.see(r"^ +\.\.\.:")
    console.type("import os")
    console.type("print('on', os.environ['WARDIAN_TEST_NODE'], sum(range(10)))", "Enter", "Enter", "Enter")
    console.see(r"^on server 45")

    console.see(r"In \[3\]:")
    console.type("%on client[0]")
    console.see(r"In \[4\]:")
    console.type("name = input('Who? ')")
    console.see(r"^Who\? ")
    console.type("Ada")
    console.see(r"In \[5\]:")
    console.type("print('it is', name, os.getpid() if 'os' in globals() else 'elsewhere')")
    console.see(r"^it is Ada elsewhere")

    console.see(r"In \[6\]:")
    console.type("import threading; print('begun', flush=True); threading.Event().wait()")
    console.see(r"^begun")
    console.type("", "C-c")
    console.see(r"KeyboardInterrupt")

    console.see(r"In \[7\]:")
    console.type("only_here_it_is_known = 'completed'")
    console.see(r"In \[8\]:")
    console.type("only_her", "Tab")
    console.see(r"In \[8\]: only_here_it_is_known")
    console.type("")
    console.see(r"Out\[8\]: 'completed'")

    console.see(r"In \[9\]:")
    console.type("%on here")
    console.see(r"In \[10\]:")
    console.type("exit")
    console.see(r"^ended with 0")
    eventually(lambda: not console.processes(), "all processes of the session have ended")
