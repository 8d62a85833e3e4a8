"""The environment panel with nodes that are containers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.engine import IMAGE, Daemon
from tests.stage import Stage

from ..conftest import Server
from . import Panel, beside_experiment

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(300)]

TEXT = """
name: NAME
provider: docker
networks: {east: {}, west: {}}
links: {wan: {between: [east, west], delay: 5ms}}
nodes:
  server: {networks: east}
  client: {networks: west}
"""


@pytest.fixture(scope="module")
def beside(engine: Daemon) -> Iterator[tuple[Server, Stage]]:
    """A server beside an experiment that grows on the tests' Engine."""
    settings = {"DOCKER_HOST": engine.address, "WARDIAN_DOCKER_IMAGE": IMAGE}
    with beside_experiment(**settings) as (server, stage):
        stage.env |= settings
        stage.write(TEXT)
        yield server, stage
        stage.run("down", "--force", "--no-collect")


def test_containers_are_grown_and_worked_on(panel: Panel, stage: Stage, tmp_path: Path) -> None:
    """Containers are grown by the plan that is shown; a slider changes their link; what it carries shows; a file goes to one and back."""
    panel.is_whole("absent")
    panel.button("Up…").click()
    panel.button("Carry it out").click()
    panel.is_whole("ready")
    panel.symbol("link", "wan").press("Enter")
    panel.details("Link wan").get_by_label("Delay").press("ArrowRight")
    expect(panel.symbol("link", "wan")).to_contain_text("delay 6ms")
    pinging = stage.start("exec", "client", "--", "ping", "-q", "-i", "0.05", "-s", "1000", "server")
    try:
        expect(panel.symbol("link", "wan")).to_contain_text(re.compile(r"west → east [\d.]+ [kM]?bit/s"))
    finally:
        pinging.terminate()
        pinging.wait(timeout=30)
    panel.button("Close").click()
    sent = tmp_path / "sent.bin"
    sent.write_bytes(bytes(range(256)) * 40)
    panel.symbol("node", "client").click()
    details = panel.details("Node client")
    panel.button("Files").click()
    expect(details.locator(".wardian-Files code")).to_contain_text("/")
    details.locator("input[type=file]").set_input_files(sent)
    with panel.page.expect_download() as download:
        details.get_by_role("link", name="sent.bin").click()
    assert Path(download.value.path()).read_bytes() == sent.read_bytes()
    expect(details).to_contain_text("MiB")
    panel.picture("docker")
    panel.button("Close").click()


def test_a_container_that_dies_shows(panel: Panel, engine: Daemon, stage: Stage) -> None:
    """A container that is killed behind the panel's back shows as stopped, and one that Up makes anew as ready."""
    panel.is_whole("ready")
    with ThreadPoolExecutor() as aside:
        # the browser's loop runs in this thread, and the Engine is asked by another
        (container,) = [found["Id"] for found in aside.submit(engine.containers).result() if found["Names"][0].endswith(".client")]
        aside.submit(engine.ask, "POST", f"/containers/{container}/kill").result()
    panel.has_state("client", "stopped")
    panel.button("Up…").click()
    panel.button("Carry it out").click()
    panel.has_state("client", "ready")
    panel.is_whole("ready")
