"""Cells of a notebook and the environment beside it: what is not there yet is grown from the cell that needs it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.stage import Stage, eventually
from wardian.journal import Journal

from ..conftest import CURRENT, Notebook, Server
from ..test_switch import switch
from . import Panel, ask, assert_accessible, new_page

pytestmark = pytest.mark.root

TEXT = """
name: NAME
parameters: {clients: 1}
networks: {lan: {}}
nodes:
  server: {networks: [lan]}
  client: {count: "${clients}", networks: [lan]}
  spare: {count: 0, networks: [lan]}
lease: {duration: 2h, at_end: down}
"""


@pytest.fixture(scope="module")
def notebook(server: Server, stage: Stage, browser: Browser) -> Iterator[Notebook]:
    """A notebook with a cell on a node of the file, one on a group without nodes, and one on a node that the file does not ask for."""
    server.folder = stage.folder
    server.write("work.ipynb", "%%on server\nimport time\ntime.sleep(1)\nprint('was here')", "%%on spare\n1", "%%on client[1]\n1")
    notebook = Notebook(server, new_page(browser), f"{stage.name}/work.ipynb")
    yield notebook
    notebook.page.context.close()


def test_grown_from_a_cell(notebook: Notebook) -> None:
    """The picker has the nodes of a file that is not up; Create leads to the plan, which says whether it makes the cell's node."""
    server, spare, second = (switch(notebook.cell(index)) for index in range(3))
    expect(server.problem).to_contain_text("the environment is not up")
    server.where.click()
    expect(server.option("server")).to_contain_text("absent")
    expect(server.option("spare")).to_contain_text("no nodes")
    notebook.picture("cells-before-up")
    notebook.page.keyboard.press("Escape")
    second.problem.get_by_role("button", name="Create").click()
    panel = Panel(notebook.page, notebook.page.locator("#wardian-panel"))
    form = panel.root.get_by_role("region", name="Up")
    missing = form.get_by_text("The cell runs on client[1], which this does not make")
    expect(missing).to_be_visible()
    notebook.picture("cells-create")
    assert_accessible(notebook.page, "#wardian-panel")
    form.get_by_label("clients").fill("2")
    expect(missing).to_have_count(0)
    form.get_by_role("button", name="Carry it out").click()
    panel.is_whole("ready")
    for cell in (server, second):
        expect(cell.problem).to_be_empty()
    expect(spare.problem).to_contain_text("this picks no node")
    notebook.picture("cells-created")


def test_an_environment_as_output_is_live(notebook: Notebook, stage: Stage) -> None:
    """An environment that a cell shows follows what is done to it elsewhere; what the notebook keeps is HTML and text, too."""
    cell = notebook.run("import wardian\nwardian.Environment('experiment.yaml')")
    shown = cell.shown.locator(".wardian-Output")
    server = shown.locator('.wardian-Topology [data-id="node:server"]')
    expect(server).to_have_attribute("aria-label", "server, node, ready")
    stage.run("fault", "pause", "server")
    expect(server).to_have_attribute("aria-label", "server, node, paused")
    notebook.picture("cells-output")
    assert_accessible(notebook.page, ".wardian-Output")
    stage.run("fault", "undo")
    expect(server).to_have_attribute("aria-label", "server, node, ready")
    (output,) = cell.outputs
    assert output["data"]["application/vnd.wardian.environment+json"] == {"experiment": "experiment.yaml", "instance": "default"}
    assert "<svg" in "".join(output["data"]["text/html"])
    assert "server" in "".join(output["data"]["text/plain"])


def test_a_cell_that_would_not_end_in_time(notebook: Notebook, server: Server, stage: Stage) -> None:
    """Where what is left of the lease is less than a cell took last, by the journal, it says so before it is run, and extends the lease."""
    notebook.execute(notebook.cell(0))
    notebook.cell(0).printed("was here")
    expect(switch(notebook.cell(0)).state).to_contain_text("done")
    notebook.reload()
    cell = switch(notebook.cell(0))
    cell.shows("server")
    late = cell.badge.locator(".wardian-Badge-late")
    expect(late).to_be_empty()
    end = ask(server, "GET", "environment", stage)["lease"]["end"]
    notebook.page.clock.set_fixed_time(datetime.fromtimestamp(end - 0.5, UTC))
    cell.where.click()
    expect(late).to_contain_text("last time, and the environment is torn down at")
    notebook.page.keyboard.press("Escape")
    cell.where.click()
    expect(cell.picker).to_contain_text("last time, and the environment is torn down at")
    notebook.picture("cells-late")
    notebook.page.keyboard.press("Escape")
    panel = notebook.page.locator("#wardian-panel")
    listed = panel.get_by_role("button", name="import time work.ipynb took")
    expect(listed).to_be_visible()
    assert_accessible(notebook.page, "#wardian-panel")
    notebook.page.evaluate(f"{CURRENT}.activeCellIndex = 2")
    listed.click()
    notebook.page.wait_for_function(f"() => {CURRENT}.activeCellIndex === 0")
    late.get_by_role("button", name="Extend by 1 h").click()
    expect(listed).to_have_count(0)
    expect(late).to_be_empty()
    assert ask(server, "GET", "environment", stage)["lease"]["end"] == pytest.approx(end + 3600)


def test_a_split_cell_stays_where_it_was(notebook: Notebook) -> None:
    """When a cell with a line is split, both parts have the line, and one writes on below it."""
    cell = switch(notebook.add("%%on server --timeout 30s\nfirst = 1\nsecond = 2"))
    cell.shows("server")
    page = notebook.page
    cell.cell.element.locator(".cm-content").click()
    page.keyboard.press("Control+End")
    page.keyboard.press("Home")
    page.keyboard.press("Control+Shift+Minus")
    page.wait_for_function(f"() => {CURRENT}.widgets.length === 5 && {CURRENT}.activeCell.model.sharedModel.getSource().startsWith('%%on')")
    cell.shows("server")
    page.keyboard.type("third = 3; ")
    sources = [page.evaluate(f"{CURRENT}.widgets[{index}].model.sharedModel.getSource()") for index in (3, 4)]
    assert sources == ["%%on server --timeout 30s\nfirst = 1", "%%on server --timeout 30s\nthird = 3; second = 2"]


@pytest.mark.long
def test_a_cell_streams_on_when_what_it_runs_through_is_killed(notebook: Notebook, server: Server, stage: Stage) -> None:
    """A page whose server dies, and one whose kernel dies, shows its cell to the end once there is another, each line once."""
    for killed in ("server", "kernel"):
        code = f"%%on server\nimport os, time\nprint('first')\nwhile not os.path.exists('/tmp/{killed}'): time.sleep(0.05)\n"
        cell = notebook.start(code + "for number in range(300): print('line', number, flush=True)\nprint('last')")
        cell.printed("first")
        eventually(lambda number=cell.id: number in recorded(stage), "it is recorded")
        if killed == "server":
            server.start(server.kill())
        else:
            os.kill(router(server), signal.SIGKILL)
        stage.run("exec", "server", "--", "touch", f"/tmp/{killed}")
        text = cell.printed("last").wait().text
        assert text.splitlines() == ["first", *(f"line {number}" for number in range(300)), "last"]
        notebook.picture(f"cells-{killed}-killed")
    notebook.run("%%on server\nprint('next')").printed("next")


def recorded(stage: Stage) -> set[str]:
    """The ids of the notebook cells that the journal has."""
    with Journal.open(stage.folder / ".wardian" / "journal.db") as journal:
        return {entry.detail["cell"] for entry in journal.entries(kinds=["cell"])}


def router(server: Server) -> int:
    """The process of the server's kernel."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (kernel,) = (child for child in children if b"wardian.kernel" in Path(f"/proc/{child}/cmdline").read_bytes())
    return int(kernel)
