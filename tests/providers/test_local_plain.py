"""Nodes without namespaces: the local provider in a container with the Engine's default seccomp profile and no capabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import engine as engines
from ..stage import BIN, require

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
STRANGER = "1234"
"""A user whom the container does not know, as in pods that are started as any."""

EXPERIMENT = """
name: plain
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west], delay: 20ms}
nodes:
  server: {networks: [east], memory: 200MiB}
  client: {networks: [west]}
services:
  web:
    on: server
    command: [python3, -m, http.server, "8080"]
    ready: {port: 8080}
"""

# leaves its session, its parent and its variables
STRAY = """
import os, subprocess
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "98765"], {})
    os._exit(0)
"""

REACH = """
import os, socket
with socket.create_connection(("server", 8080)) as connection:
    print(os.environ["HOSTNAME"], "reached", connection.getpeername()[0])
"""


class Container:
    """A container that sees this checkout and its interpreter, and may do nothing."""

    def __init__(self, daemon: engines.Daemon) -> None:
        self._docker = [require("docker"), "--host", daemon.address]
        seen = sorted({ROOT, Path(sys.prefix), Path(sys.base_prefix)})
        volumes = [option for path in seen for option in ("--volume", f"{path}:{path}:ro")]
        limits = ["--cap-drop", "ALL", "--network", "none", "--init"]
        self.id = self._run("run", "--detach", *limits, *volumes, engines.IMAGE, "sleep", "infinity").stdout.strip()
        # where the interpreter may lie
        self._run("exec", self.id, "sh", "-c", "chmod 755 /root && mkdir -p /home/root /home/any && chmod 777 /home/any")

    def _run(self, *argv: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self._docker, *argv], capture_output=True, text=True, check=False)
        assert fails or done.returncode == 0, done.stdout + done.stderr
        return done

    def sh(self, script: str, user: str = "0", fails: bool = False) -> str:
        """What a shell script prints, in a home of that user's own."""
        home = "/home/root" if user == "0" else "/home/any"
        env = {"HOME": home, "PATH": f"{BIN}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", "COLUMNS": "120"}
        variables = [option for name, value in env.items() for option in ("--env", f"{name}={value}")]
        done = self._run("exec", "--user", user, "--workdir", home, *variables, self.id, "sh", "-c", f"exec 2>&1; {script}", fails=fails)
        return done.stdout

    def processes(self) -> set[str]:
        """The commands of all that runs in it."""
        script = "for each in /proc/[0-9]*; do tr '\\0' ' ' 2>/dev/null < $each/cmdline; echo; done; true"
        lines = {line.strip() for line in self.sh(script).splitlines() if line.strip()}
        return {line for line in lines if not line.startswith(("sh -c exec 2>&1", "tr "))}

    def close(self) -> None:
        self._run("rm", "--force", self.id)


@pytest.fixture(scope="module")
def container(engine: engines.Daemon) -> Iterator[Container]:
    """A container for the tests of this file."""
    container = Container(engine)
    yield container
    container.close()


@pytest.fixture(autouse=True)
def nothing_left(container: Container) -> Iterator[None]:
    """Whatever a test does, no process and no name remains of it."""
    names, processes = container.sh("cat /etc/hosts"), container.processes()
    yield
    assert container.processes() == processes
    assert container.sh("cat /etc/hosts") == names


def check_demo(container: Container, user: str) -> str:
    """Run the demo as this user, and give what it said."""
    said = container.sh("wardian demo", user)
    assert "done in" in said
    assert "not honoured: every node: isolation: this host refuses namespaces (making namespaces: Operation not permitted)" in said
    assert "not honoured: link line: delay, rate: there are no links" in said
    page = json.loads(container.sh("cat getting-started/out/getting-started.ipynb", user))
    cells = {cell["id"]: "".join(str(output) for output in cell.get("outputs", ())) for cell in page["cells"]}
    assert "cannot suffer partition" in cells["break"]
    assert "reached again" in cells["mended"]
    assert "isolation: this host refuses namespaces" in container.sh("cd getting-started; wardian show", user, fails=True)
    return said


def test_the_demo_runs_and_says_what_is_not_honoured(container: Container) -> None:
    """`wardian demo` runs its notebook to the end, cells reach nodes by name, and the run says what was not honoured."""
    assert "every node: names:" not in check_demo(container, "0")


def test_all_of_a_node_ends(container: Container) -> None:
    """Nodes have addresses and names; what a node started ends when its guard or its init is killed, and at `down`; doctor says why."""
    container.sh(f"cat > experiment.yaml <<'E'\n{EXPERIMENT}\nE")
    plan = container.sh("wardian plan")
    assert "! node server: memory: " in plan
    assert "! link wan: delay: there are no links without namespaces" in plan
    assert "not everything can be honoured here" in container.sh("wardian up --yes --strict", fails=True)
    container.sh("wardian up --yes")
    nodes = {node["name"]: node for node in json.loads(container.sh("wardian status --json"))["nodes"]}
    address = nodes["server"]["addresses"]["east"]
    assert address.startswith("127.")
    assert f"client reached {address}" in container.sh(f"wardian exec client -- python3 -c '{REACH}'")
    for whose in ("guard", "init"):
        container.sh(f"wardian exec server -- python3 -c '{STRAY}'")
        assert "sleep 98765" in container.processes()
        # the guard is written down, and the init is its child
        find = "pid=$(sed 's/.*\"pid\": \\([0-9]*\\),.*/\\1/' /var/lib/wardian/environments/plain-*/node/server/process.json); "
        child = "pid=$(cat /proc/$pid/task/$pid/children); " if whose == "init" else ""
        container.sh(f"{find}{child}kill -9 $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done")
        container.sh("while wardian exec server -- true; do sleep 0.1; done")
        container.sh("while grep -q 98765 /proc/[0-9]*/cmdline; do sleep 0.05; done")
        container.sh("wardian up --yes")
    container.sh(f"wardian exec server -- python3 -c '{STRAY}'; wardian down --yes")
    assert "nodes without namespaces: this host refuses namespaces" in container.sh("wardian doctor", fails=True)


@pytest.mark.long
def test_the_demo_of_a_stranger(container: Container) -> None:
    """A user whom the container does not know, and who may not write its table of names, has the same; Python knows the names."""
    assert "not honoured: every node: names: /etc/hosts may not be written here" in check_demo(container, STRANGER)


@pytest.mark.long
@pytest.mark.parametrize("user", ["0", STRANGER])
def test_the_contract(container: Container, user: str) -> None:
    """Nodes without namespaces keep every promise of the contract but faults that take namespaces, which they refuse."""
    options = f"-q -p no:cacheprovider --basetemp $HOME/tests --rootdir {ROOT}"
    said = container.sh(
        f"cd {ROOT} && WARDIAN_REQUIRE_ALL=1 python -m pytest {options} tests/providers/plain_contract.py", user, fails=True
    )
    assert " passed in" in said.splitlines()[-1], said[-6000:]
    assert "failed" not in said.splitlines()[-1]
    assert "skipped" not in said.splitlines()[-1]
