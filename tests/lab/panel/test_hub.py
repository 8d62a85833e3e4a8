"""The same below a hub's base URL, and in Notebook 7, which has one document a page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.stage import Stage

from ..conftest import Notebook, Server
from ..test_switch import switch
from . import Panel, beside_experiment, new_page, open_panel

pytestmark = pytest.mark.root

TEXT = """
name: NAME
networks: {lan: {}}
nodes:
  server: {networks: [lan]}
lease: {duration: 2h, at_end: keep}
"""


@pytest.fixture(scope="module")
def beside() -> Iterator[tuple[Server, Stage]]:
    """A server below the base URL that JupyterHub gives a user, beside an environment that is up."""
    with beside_experiment("--JupyterNotebookApp.expose_app_in_browser=True", base="/user/ann") as (server, stage):
        stage.write(TEXT)
        stage.run("up")
        server.folder = stage.folder
        server.write("work.ipynb", "print('was here')")
        yield server, stage


def test_below_a_base_url(server: Server, stage: Stage, browser: Browser) -> None:
    """In JupyterLab below a hub's base URL the panel shows the environment, and fetches from its nodes."""
    page = new_page(browser)
    panel = open_panel(server, page, stage.name)
    panel.is_whole("ready")
    panel.symbol("node", "server").click()
    panel.button("Files").click()
    panel.details("Node server").get_by_role("button", name="..", exact=True).click()
    panel.details("Node server").get_by_role("button", name="etc/").click()
    with page.expect_download() as download:
        panel.details("Node server").get_by_role("link", name="hostname").click()
    assert download.value.path().read_text().strip() == "server"
    page.context.close()


@pytest.mark.long
def test_notebook_7(server: Server, stage: Stage, browser: Browser) -> None:
    """A cell is put on a node by keys and runs there; the panel opens at the side, the journal below; the page of files offers it, too."""
    page = new_page(browser)
    notebook = Notebook(server, page, f"{stage.name}/work.ipynb", "notebooks")
    cell = switch(notebook.cell(0))
    page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCell.node.focus()")
    page.keyboard.press("Control+Shift+O")
    expect(cell.option("server")).to_be_visible()
    page.keyboard.type("server")
    page.keyboard.press("Enter")
    cell.shows("server")
    notebook.execute(cell.cell)
    expect(cell.state).to_contain_text("done")
    cell.cell.printed("was here")
    page.evaluate("window.jupyterapp.commands.execute('wardian:show-panel')")
    panel = Panel(page, page.locator("#wardian-panel"))
    panel.is_whole("ready")
    for name in ("Page", "Journal"):
        panel.button(name).click()
    expect(page.locator(".wardian-Timeline").get_by_role("group", name="server").locator(".wardian-kind-cell")).to_be_in_viewport()
    notebook.picture("notebook-7")
    with page.context.expect_page() as opened:
        panel.button("File").click()
    expect(opened.value.locator(".cm-content")).to_contain_text(f"name: {stage.name}")
    opened.value.goto(f"{server.url}/tree/{stage.name}")
    opened.value.get_by_role("button", name="Show its environment").click()
    Panel(opened.value, opened.value.locator("#wardian-panel")).is_whole("ready")
    page.context.close()
