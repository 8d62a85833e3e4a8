"""An experiment on this host and on a machine with an SSH server at once: real nodes, real crashes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing

import nbformat
import pytest

from tests.engine import IMAGE, Daemon
from tests.providers.sshd import Lab
from tests.stage import Stage, eventually
from wardian.environment.environment import Environment

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOSTNAMES = {"box[0]": "box-0\n", "box[1]": "box-1\n", "host": "fern\n"}
CELLS = [
    "%%on all\nimport socket\nname = socket.gethostname()\nname",
    "import wardian\nprint(sorted(wardian.results.values()))",
    "%%on host\nprint('lasting:', name)",
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A machine that takes keys."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lab = Lab("10.93.0")
    try:
        lab.machine("fern")
        yield lab
    finally:
        lab.close()


@pytest.fixture
def both(lab: Lab, stage: Stage) -> Iterator[Stage]:
    """An experiment of two nodes on this host and one on the machine; what is up is torn down."""
    stage.env["XDG_RUNTIME_DIR"] = str(lab.runtime)
    sites = {"near": {"provider": "local"}, "far": {"provider": "ssh", "settings": lab.settings()}}
    networks = {"lan": {"delay": "2ms"}, "wild": {}}
    nodes = {
        "box": {"count": 2, "networks": ["lan"]},
        "host": {"site": "far", "networks": ["wild"], "files": {"page.txt": "/tmp/page.txt"}},
    }
    web = {"on": "box[0],host", "command": "echo serving; exec sleep 1d", "ready": {"log": "serving"}}
    whole = {"name": "NAME", "provider": "near", "sites": sites, "networks": networks, "nodes": nodes, "services": {"web": web}}
    stage.write(json.dumps(whole))
    stage.write("hello\n", "page.txt")
    yield stage
    stage.run("down", "--force", "--no-collect")
    assert list((stage.state / "several" / "environments").glob("*")) == []
    assert list((stage.state / "ssh" / "environments").glob("*")) == []
    stage.assert_nothing_left()


def assert_whole(stage: Stage) -> None:
    """All of it is there and works."""
    stage.run("plan", "--exit-code")
    resources = stage.json("status", "--json")["resources"]
    assert [f"{item['kind']} {item['name']}: {item['state']}" for item in resources if item["state"] != "ready"] == []
    assert {item["node"]: item["stdout"] for item in stage.json("exec", "--json", "all", "hostname")} == HOSTNAMES


async def test_work_on_both(both: Stage, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """`up`, commands, copies, services and faults go to the nodes of both sites, `gc` spares them, and `down` ends all."""
    for name in ("XDG_RUNTIME_DIR", "WARDIAN_STATE"):
        monkeypatch.setenv(name, both.env[name])
    with closing(Environment(both.folder / "experiment.yaml")) as environment:
        await environment.up()
        assert not await environment.plan()
        live = await environment.live()
        assert live.record.provider == "local+ssh"
        assert {item.name: (item.state, item.spec["site"]) for item in live.observed.of("node")} == {
            "box[0]": ("ready", "near"),
            "box[1]": ("ready", "near"),
            "host": ("ready", "far"),
        }
        assert {item.node: item.stdout for item in await environment.exec("all", ["hostname"])} == HOSTNAMES
        await environment.put("all", both.folder / "page.txt", "/tmp/copied.txt")
        assert lab.machines["fern"].run("cat /tmp/page.txt /tmp/copied.txt") == "hello\nhello\n"
        async with environment.fault.pause("box[1],host"):
            # a relay for the delay on one site, and a fault on both: the keeper is one, and no other provider's garbage
            assert both.run("gc").stdout == "Nothing to remove.\n"
            assert [item.fault.targets for item in await environment.fault.in_force()] == [("box[1]", "host")]
        assert {item.state for item in (await environment.observe()).resources.values()} == {"ready"}
        assert (await environment.down()).existed


@pytest.mark.long
def test_the_keeper_ends_all_of_it(both: Stage) -> None:
    """At the end of its lease an environment is gone from each of its sites, with no command at work."""
    text = (both.folder / "experiment.yaml").read_text()
    both.write(json.dumps({**json.loads(text), "lease": {"duration": "2s"}}))
    both.run("up", "-y")
    eventually(lambda: not list((both.state / "several" / "environments").glob("*")), "the keeper has ended it")


@pytest.mark.long
def test_cells_on_both(both: Stage) -> None:
    """A notebook's cells run on nodes of both sites, the lock holds for both, and a replay may be at one place."""
    both.edit('{"delay": "2ms"}', "{}")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbformat.write(notebook, both.folder / "both.ipynb")
    both.run("run", "both.ipynb", "--keep", timeout=120)
    cells = nbformat.read(both.folder / "out" / "both.ipynb", 4).cells
    assert "['box-0', 'box-1', 'fern']" in json.dumps(cells[1].outputs)
    assert "lasting: fern" in json.dumps(cells[2].outputs)
    both.run("lock")
    assert "provider: local+ssh" in (both.folder / "experiment.lock").read_text()
    both.run("up", "-y", "--locked")
    both.run("down")
    both.run("replay", "both.ipynb", "--provider", "local", code=10)


@pytest.mark.long
def test_containers_beside_namespaces(stage: Stage, engine: Daemon) -> None:
    """Containers of an Engine are one site, namespaces of this host the other; each has what its provider can do, and nothing is left."""
    box = {"provider": "docker", "settings": {"host": engine.address, "image": IMAGE}}
    nodes = {"server": {"networks": ["lan"]}, "box": {"count": 2, "site": "containers", "networks": ["wild"], "cpus": 0.5}}
    whole = {"name": "NAME", "sites": {"containers": box}, "networks": {"lan": {}, "wild": {"delay": "2ms"}}, "nodes": nodes}
    stage.write(json.dumps(whole))
    try:
        stage.run("up", "-y")
        stage.run("plan", "--exit-code")
        said = {item["node"]: item["stdout"] for item in stage.json("exec", "--json", "all", "uname", "-n")}
        assert said == {"server": "server\n", "box[0]": "box-0\n", "box[1]": "box-1\n"}
        stage.run("exec", "box[0]", "--", "ping", "-c", "1", "-W", "5", "box-1")
        names = stage.run("exec", "box[0]", "cat", "/etc/hosts").stdout
        assert ("box-1" in names, "server" in names) == (True, False)
        stage.run("fault", "kill", "server,box[1]")
        states = {item["name"]: item["state"] for item in stage.json("status", "--json")["resources"] if item["kind"] == "node"}
        assert states == {"server": "stopped", "box[0]": "ready", "box[1]": "stopped"}
        stage.edit('"cpus": 0.5', '"cpus": 0.75')
        stage.run("up", "-y")
        stage.run("plan", "--exit-code")
        assert stage.run("gc").stdout == "Nothing to remove.\n"
    finally:
        stage.run("down", "--force", "--no-collect")
    assert [item["Names"] for item in engine.containers() if stage.name in item["Names"][0]] == []
    stage.assert_nothing_left()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(12))
def test_a_kill_at_any_moment(both: Stage, seed: int) -> None:
    """Whenever `up` or `down` is killed, running it again finishes the work at both sites."""
    begun = time.monotonic()
    both.run("up", "-y")
    growing = time.monotonic() - begun
    begun = time.monotonic()
    both.run("down")
    falling, chance = time.monotonic() - begun, random.Random(seed)
    if kill_midway(both, "up", chance.uniform(0.3 * growing, growing)):
        assert len(both.json("ls", "--json")) <= 1
    both.run("up", "-y")
    assert_whole(both)
    kill_midway(both, "down", chance.uniform(0.3 * falling, falling))
    both.run("down")
    assert both.json("ls", "--json") == []
    both.assert_nothing_left()
    kill_midway(both, "up", chance.uniform(0.3 * growing, growing))


def kill_midway(stage: Stage, command: str, after: float) -> bool:
    """SIGKILL `wardian COMMAND` some seconds after its start. Whether it was still running."""
    process = stage.start(command, *(["-y"] if command == "up" else []), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL
