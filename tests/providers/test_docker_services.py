"""Services that are what images start by themselves, on nodes with and without Python, and faults of such nodes by the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..engine import BARE, IMAGE, Daemon
from ..stage import Stage, eventually, make_stage

pytestmark = [pytest.mark.root, pytest.mark.slow]

USER = "echo plant:x:1234:1234::/srv/plant:/bin/sh >>/etc/passwd && echo plant:x:1234: >>/etc/group && mkdir -p /srv/plant"
SAYS = "echo $COLOUR $HOME $PWD $(id -u):$(id -g) $*; exec sleep 600"

IMAGES = {
    "image": f"FROM {IMAGE}\nRUN {USER}\nWORKDIR /srv/plant\nUSER plant\nENV COLOUR=green\n"
    f'ENTRYPOINT ["/bin/sh", "-c", "{SAYS}", "sh"]\nCMD ["one"]\n',
    "bare": f'FROM {BARE}\nRUN {USER}\nUSER 1234\nENTRYPOINT ["/bin/sh", "-c", "{SAYS}", "sh", "zero"]\nCMD ["one"]\n',
}

EXPERIMENT = """
name: NAME
provider: docker
nodes:
  whole: {build: ./image, setup: "touch /prepared"}
  bare: {build: ./bare, env: {COLOUR: red}, cpus: 1}
services:
  whole: {on: whole, command: image, ready: {log: "^green /srv/plant /srv/plant 1234:1234 one$"}}
  own: {on: bare, command: image, arguments: [two], ready: {log: "^red /srv/plant / 1234:1234 zero two$"}}
  failing: {on: bare, command: "test -e /mended", restart: on-failure}
  port: {on: bare, command: [nc, -ll, -p, "7000", -e, echo], env: {COLOUR: blue}, ready: {port: 7000}}
"""

STATE = "cat /run/wardian/services/*/state"


@pytest.fixture
def docker(tmp_path: Path, engine: Daemon) -> Iterator[Stage]:
    """A stage whose environments grow on the tests' Engine."""
    stage = make_stage(tmp_path)
    stage.env |= {"DOCKER_HOST": engine.address, "WARDIAN_DOCKER_IMAGE": IMAGE}
    yield stage
    stage.run("down", "--force", "--no-collect")
    stage.close()


@pytest.mark.timeout(300)
def test_what_images_start(docker: Stage, engine: Daemon) -> None:
    """An image's own command runs as its user, in its folder, with its variables; it is watched over without Python, and comes back."""
    for name, text in IMAGES.items():
        docker.write(text, f"{name}/Dockerfile")
    docker.write(EXPERIMENT)
    # builds two images first
    docker.run("up", "-y", timeout=200)
    wait = "until grep -q restarting /run/wardian/services/failing/state; do sleep 0.1; done; touch /mended; "
    wait += "until grep -q stopped /run/wardian/services/failing/state; do sleep 0.1; done; "
    assert docker.run("exec", "bare", "--", "sh", "-c", wait + STATE).stdout.split() == ["stopped", "0", "ready", "0", "ready", "0"]
    docker.edit('command: "test -e /mended", restart: on-failure', "command: sleep 600")
    docker.edit("  port:", "  # port:")
    docker.run("up", "-y")
    assert docker.run("exec", "bare", "--", "sh", "-c", f"{STATE}; nc -z 127.0.0.1 7000 || echo free").stdout.split()[-1] == "free"
    before = {item["Id"] for item in engine.containers()}
    docker.run("fault", "kill", "bare", "--for", "1s")
    eventually(lambda: "Nothing to do" in docker.run("plan").stdout, "the killed node is made anew")
    assert len({item["Id"] for item in engine.containers()} - before) == 1
    docker.run("fault", "slow", "bare", "--cpu", "20%")
    assert 20_000 in {quota(engine, item["Id"]) for item in engine.containers()}
    docker.run("fault", "undo")
    assert 20_000 not in {quota(engine, item["Id"]) for item in engine.containers()}


def quota(engine: Daemon, container: str) -> int:
    """Microseconds of processor time that a container has in each tenth of a second."""
    return int(engine.ask("GET", f"/containers/{container}/json")["HostConfig"]["CpuQuota"])


def test_images_without_commands_of_their_own(stage: Stage) -> None:
    """Where nodes are no containers, such a service is an error of the plan that says what to do."""
    stage.write("name: NAME\nprovider: local\nnodes: {a: {}}\nservices: {web: {on: a, command: image}}\n")
    said = stage.run("plan", code=3).stderr
    assert "services.web.command: nodes of local have no image with a command of its own" in said
    assert "--provider docker" in said
