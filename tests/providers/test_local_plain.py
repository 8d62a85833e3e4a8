"""Nodes without namespaces: the local provider in a container with the Engine's default seccomp profile and no capabilities."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .. import engine as engines
from ..stage import BIN, eventually, require

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
STRANGER = "1234"
"""A user whom the container does not know, as in pods that are started as any."""

USERS = ["0", STRANGER]

NODES = ["client", "server"]

ENDING = Path(__file__).with_name("plain_ending.py")

REFUSED = "every node: isolation: this host refuses namespaces (making namespaces: Operation not permitted)"

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
    on: server,client
    command: [sh, -c, 'exec python3 -m http.server 8080 --bind "$WARDIAN_ADDRESS"']
    ready: {port: 8080}
"""

REACH = """%%on all
import os, socket
with socket.create_connection(("server", 8080)) as connection:
    print(os.environ["WARDIAN_NODE"], os.environ["WARDIAN_ADDRESS"], "reached", connection.getpeername()[0])
"""

BREAK = """
import wardian
try:
    wardian.Environment().fault.partition("client", "server")
except wardian.WardianError as error:
    print(error)
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

    def write(self, name: str, text: str, user: str = "0") -> None:
        """Write a file into that user's home."""
        self.sh(f"cat > {name} <<'END'\n{text}\nEND", user)

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
    eventually(lambda: container.processes() == processes, "no process is left")
    assert container.sh("cat /etc/hosts") == names


def cells(container: Container, path: str, user: str) -> dict[str, str]:
    """What the cells of a notebook that ran have said, by id."""
    page = json.loads(container.sh(f"cat {path}", user))
    return {cell["id"]: "".join(str(output) for output in cell.get("outputs", ())) for cell in page["cells"]}


def test_a_notebook_runs_and_says_what_is_not_honoured(container: Container) -> None:
    """Cells run on nodes, which have addresses and find each other by name; a fault is refused in words; the run says what it lacks."""
    container.write("experiment.yaml", EXPERIMENT)
    page = new_notebook(cells=[new_code_cell(REACH, id="reach"), new_code_cell(BREAK, id="break")])
    container.write("plain.ipynb", nbformat.writes(page))
    said = container.sh("wardian run plain.ipynb -o ran.ipynb")
    assert f"not honoured: {REFUSED}" in said
    assert "not honoured: link wan: delay: there are no links without namespaces" in said
    assert "not honoured: node server: memory: " in said
    assert "every node: names: " not in said
    found = cells(container, "ran.ipynb", "0")
    (client, server), (own, same) = (re.search(f"{name} (127[0-9.]+) reached (127[0-9.]+)", found["reach"]).groups() for name in NODES)
    assert client != server
    assert own == same == server
    assert "cannot suffer partition" in found["break"]


@pytest.mark.parametrize("user", USERS)
def test_all_of_a_node_ends(container: Container, user: str) -> None:
    """What a node started, however it hides, ends with its guard, with its init, and at `down`; so it does for any user."""
    container.write("experiment.yaml", EXPERIMENT, user)
    said = container.sh(f"python3 {ENDING}", user)
    assert said.endswith("as it should be\n")
    assert REFUSED in said
    assert ("every node: names: /etc/hosts may not be written here" in said) == (user == STRANGER)


def test_what_is_not_honoured_is_known_beforehand(container: Container) -> None:
    """The plan names it, `--strict` makes it an error, doctor says why it is so."""
    container.write("experiment.yaml", EXPERIMENT)
    said = container.sh("wardian up --yes --strict", fails=True)
    assert "not everything can be honoured here" in said
    assert REFUSED in said
    assert "nodes without namespaces: this host refuses namespaces" in container.sh("wardian doctor", fails=True)


@pytest.mark.long
@pytest.mark.parametrize("user", USERS)
def test_the_demo_runs_and_says_what_is_not_honoured(container: Container, user: str) -> None:
    """`wardian demo` runs its notebook to the end, cells reach nodes by name, and the run says what was not honoured, then and later."""
    said = container.sh("wardian demo", user)
    assert "done in" in said
    assert f"not honoured: {REFUSED}" in said
    assert "not honoured: link line: delay, rate: there are no links" in said
    found = cells(container, "getting-started/out/getting-started.ipynb", user)
    assert "cannot suffer partition" in found["break"]
    assert "reached again" in found["mended"]
    assert REFUSED in container.sh("cd getting-started; wardian show", user, fails=True)


@pytest.mark.long
@pytest.mark.parametrize("user", USERS)
def test_whatever_is_killed(container: Container, user: str) -> None:
    """Whenever a command, a guard, an init or the keeper is killed, running commands again finishes the work and leaves nothing."""
    container.write("experiment.yaml", EXPERIMENT, user)
    assert container.sh(f"python3 {ENDING} 40", user, fails=True).endswith("as it should be\n")


@pytest.mark.long
@pytest.mark.parametrize("user", USERS)
def test_the_contract(container: Container, user: str) -> None:
    """Nodes without namespaces keep every promise of the contract but faults that take namespaces, which they refuse."""
    options = f"-q -p no:cacheprovider --basetemp $HOME/tests --rootdir {ROOT}"
    said = container.sh(
        f"cd {ROOT} && WARDIAN_REQUIRE_ALL=1 python -m pytest {options} tests/providers/plain_contract.py", user, fails=True
    )
    assert " passed in" in said.splitlines()[-1], said[-6000:]
    assert "failed" not in said.splitlines()[-1]
    assert "skipped" not in said.splitlines()[-1]
