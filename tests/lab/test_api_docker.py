"""The REST interface and its events on nodes that are containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import BARE, IMAGE, Daemon
from tests.stage import make_stage

from .rest import Rest

pytestmark = [pytest.mark.root, pytest.mark.slow]

TEXT = f"""
name: NAME
provider: docker
networks: {{east: {{}}, west: {{}}}}
links: {{wan: {{between: [east, west], delay: 20ms}}}}
nodes:
  server: {{networks: east}}
  tiny: {{networks: west, image: "{BARE}"}}
"""


@pytest.fixture
def rest(tmp_path: Path, engine: Daemon) -> Iterator[Rest]:
    """A Jupyter server whose environments grow on the tests' Engine."""
    stage = make_stage(tmp_path)
    stage.env |= {"DOCKER_HOST": engine.address, "WARDIAN_DOCKER_IMAGE": IMAGE}
    stage.write(TEXT)
    rest = Rest(stage)
    yield rest
    rest.close()
    stage.run("down", "--force", "--no-collect")
    stage.close()


@pytest.mark.timeout(300)
def test_containers_are_grown_followed_and_worked_on(rest: Rest, engine: Daemon) -> None:
    """Containers are grown by the plan that was shown; a death that the Engine tells of is seen; files go to and from busybox alone."""
    listener = rest.listen()
    plan = rest.post("environment/plan", path="experiment.yaml")
    task = rest.post("environment/up", code=202, path="experiment.yaml", digest=plan["digest"])
    listener.until(lambda seen: seen.state["tasks"].get(task["id"], {}).get("state") == "done")
    listener.until(lambda seen: seen.state["state"] == "ready" and all("usage" in node for node in seen.state["nodes"].values()))
    assert listener.state["nodes"]["server"]["usage"]["memory"] > 0
    rest.post("environment/links", path="experiment.yaml", link="wan", changes={"delay": "50ms"})
    listener.until(lambda seen: seen.state["links"]["wan"]["ways"]["back"]["delay"] == 0.05)

    data, which = os.urandom(300_000), {"path": "experiment.yaml", "node": "tiny"}
    made = rest.session.put(f"{rest.url}/environment/file", data=data, timeout=60, params={**which, "folder": "/tmp", "name": "x y"})
    assert made.status_code == 201, made.text
    (item,) = rest.get("environment/files", node="tiny", folder="/tmp")["items"]
    assert (item["name"], item["kind"], item["size"]) == ("x y", "file", len(data))
    assert rest.session.get(f"{rest.url}/environment/file", timeout=60, params={**which, "file": "/tmp/x y"}).content == data

    (container,) = [found["Id"] for found in engine.containers() if found["Names"][0].endswith(".tiny")]
    engine.ask("POST", f"/containers/{container}/kill")
    listener.until(lambda seen: seen.state["nodes"]["tiny"]["state"] == "stopped")
    down = rest.post("environment/down", code=202, path="experiment.yaml")
    listener.until(lambda seen: seen.state["tasks"].get(down["id"], {}).get("state") == "done" and seen.state["state"] == "absent")
    listener.close()
