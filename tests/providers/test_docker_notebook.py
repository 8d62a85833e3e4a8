"""The command line and notebooks on nodes of the docker provider: all as on others, and no edit to the experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from ..engine import BARE, IMAGE, Daemon
from ..stage import Stage, make_stage

pytestmark = [pytest.mark.root, pytest.mark.slow]

DEMO = Path(__file__).parents[2] / "examples" / "video-qoe"

EXPERIMENT = f"""
name: NAME
provider: docker
networks: {{east: {{}}, west: {{}}}}
links: {{wan: {{between: [east, west], delay: 20ms}}}}
nodes:
  server: {{networks: east, files: {{greeting: /srv/greeting}}}}
  client: {{count: 2, networks: west}}
  tiny: {{networks: west, image: "{BARE}"}}
services:
  web:
    on: server
    command: python3 -m http.server 8080
    directory: /srv
    ready: {{port: 8080}}
"""


@pytest.fixture
def docker(tmp_path: Path, engine: Daemon) -> Iterator[Stage]:
    """A stage whose environments grow on the tests' Engine, of the image with tools; fails a test that leaves anything there."""
    stage = make_stage(tmp_path)
    stage.env |= {"DOCKER_HOST": engine.address, "WARDIAN_DOCKER_IMAGE": IMAGE}
    yield stage
    stage.run("down", "--force", "--no-collect")
    assert [item["Names"] for item in engine.containers() if stage.name in item["Names"][0]] == []
    stage.close()


def execute(stage: Stage, *cells: str) -> list[Any]:
    """Run cells as a stock headless runner does, and give them with their outputs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(notebook, timeout=90, kernel_name="wardian", resources={"metadata": {"path": str(stage.folder)}})
    client.execute(env=stage.env)
    result: list[Any] = client.nb.cells
    return result


def text(cell: Any) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_cells_run_on_containers(docker: Stage, engine: Daemon) -> None:
    """Cells run on their nodes, in Python or a shell, and meet by name over the link; `up` makes a killed node anew and nothing else."""
    (docker.folder / "greeting").write_text("hello from the east")
    docker.write(EXPERIMENT)
    docker.run("up", "-y")
    cells = execute(
        docker,
        "%%on client[0]\nimport urllib.request\nprint(urllib.request.urlopen('http://server:8080/greeting').read().decode())",
        "%%on client[1] --lang bash\nping -c 1 server | grep -o 'time=[0-9]*'",
        "%%on tiny --lang bash\ntest -e /proc/1 && echo $(hostname)",
        "%%on server\nimport socket\nname = socket.gethostname()",
        "%get name --from server\nname",
    )
    assert text(cells[0]).count("hello from the east") >= 1
    assert 40 <= int(text(cells[1]).strip().removeprefix("time=")) < 100
    assert text(cells[2]).endswith("tiny\n")
    assert text(cells[4]) == "'server'"
    assert docker.run("clocks").stdout.count("it has this host's clock") == 4

    killed = next(item["Names"][0] for item in engine.containers() if item["Names"][0].endswith(".client-0"))
    engine.ask("POST", f"/containers{killed}/kill")
    said = docker.run("plan").stdout
    assert "- node        client[0]  (no longer running: its container is exited)" in said
    assert "server" not in said
    docker.run("up", "-y")
    assert docker.run("exec", "client", "--", "ping", "-c", "1", "-q", "server").stdout.count(" 0% packet loss") == 2


@pytest.mark.long
def test_a_killed_up_leaves_what_down_removes(docker: Stage, engine: Daemon) -> None:
    """`up` killed while nodes are made leaves what the next `up` finishes, and `down` then removes all of it."""
    docker.write("name: NAME\nprovider: docker\nnodes: {client: {count: 6}}\n")
    begun = docker.start("up", "-y")
    while not [item for item in engine.containers() if docker.name in item["Names"][0]]:
        assert begun.poll() is None
    begun.kill()
    begun.wait()
    docker.run("up", "-y")
    assert "Nothing to do" in docker.run("plan").stdout
    docker.run("down", "-y")
    assert docker.name not in json.dumps([engine.ask("GET", "/networks"), engine.ask("GET", "/volumes"), engine.containers()])


@pytest.mark.long
def test_an_engine_that_is_killed_during_up(docker: Stage, engine: Daemon) -> None:
    """`up` says that the Engine went away; when it is back `up` finishes the work, and `down` leaves nothing."""
    docker.write("name: NAME\nprovider: docker\nnetworks: [lan]\nnodes: {client: {count: 6, networks: lan}}\n")
    begun = docker.start("up", "-y")
    while not [item for item in engine.containers() if docker.name in item["Names"][0] and item["State"] == "running"]:
        assert begun.poll() is None
    engine.kill()
    try:
        _, said = begun.communicate(timeout=60)
        assert begun.returncode != 0
        assert "does not answer" in said
        assert "Traceback" not in said
        assert "does not answer" in docker.error("plan", code=begun.returncode)
    finally:
        engine.start()
    docker.run("up", "-y")
    assert "Nothing to do" in docker.run("plan").stdout
    assert docker.run("exec", "client", "uname", "-n").stdout.count("client-") == 6
    docker.run("down", "-y")
    assert docker.name not in json.dumps([engine.ask("GET", "/networks"), engine.ask("GET", "/volumes"), engine.containers()])
