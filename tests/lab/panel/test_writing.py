"""Around the environment panel: experiment files in the editor, new experiments, notices, and the journal as a timeline."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.stage import Stage, eventually

from ..conftest import Notebook, Server
from . import Panel, ask, assert_accessible, new_page, open_lab, picture

pytestmark = pytest.mark.root

TEXT = """
name: NAME
networks: {lan: {}}
nodes:
  server: {networks: [lan]}
lease: {duration: 20min, at_end: keep}
"""


@pytest.fixture(scope="module")
def page(server: Server, stage: Stage, browser: Browser) -> Iterator[Page]:
    """A page that shows the root, where there is no experiment."""
    page = open_lab(server, new_page(browser), "")
    yield page
    page.context.close()


def open_file(page: Page, path: str) -> None:
    """Open a file in the editor."""
    page.evaluate("async path => { await window.jupyterapp.commands.execute('docmanager:open', {path}); }", path)
    page.wait_for_function("path => window.jupyterapp.shell.currentWidget?.context?.path === path", arg=path)
    page.locator(".jp-FileEditor:visible .cm-content").click()


def test_opening_a_folder_offers_its_environment(page: Page, stage: Stage) -> None:
    """When a folder with an experiment is opened, a notice says so, and its button shows the panel."""
    page.evaluate("async path => { await window.jupyterapp.commands.execute('filebrowser:open-path', {path}); }", stage.name)
    expect(page.get_by_text(f"The experiment {stage.name} is here.")).to_be_visible()
    picture(page, "offer")
    page.get_by_role("button", name="Show its environment").click()
    panel = Panel(page, page.locator("#wardian-panel"))
    panel.has_state("server", "absent")


def test_mistakes_are_marked_as_they_are_typed(page: Page, stage: Stage) -> None:
    """A mistake in an experiment file is underlined as it is typed, with the checker's words, until it is mended."""
    stage.write("name: typed\nnodes:\n  one: {cpus: 1}\n", "typed/experiment.yaml")
    open_file(page, f"{stage.name}/typed/experiment.yaml")
    marks = page.locator(".cm-lintRange-error")
    page.get_by_text("cpus").click()
    page.keyboard.press("End")
    for _ in range(2):
        page.keyboard.press("Backspace")
    page.keyboard.type("many}")
    expect(marks).to_have_text("many")
    marks.hover()
    tooltip = page.locator(".cm-tooltip-lint")
    expect(tooltip).to_contain_text("nodes.one.cpus")
    assert (tooltip.bounding_box() or {"width": 0})["width"] < 640
    picture(page, "editor-mark")
    page.keyboard.press("End")
    for _ in range(5):
        page.keyboard.press("Backspace")
    page.keyboard.type("2}")
    expect(marks).to_have_count(0)


def test_keys_and_values_are_completed(page: Page, stage: Stage) -> None:
    """Keys are completed by where the cursor is, with what they mean; values that are one of a few are, too."""
    stage.write("name: completed\nnodes: [one]\nlease:\n  \n", "completed/experiment.yaml")
    open_file(page, f"{stage.name}/completed/experiment.yaml")
    page.keyboard.press("Control+End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("End")
    page.keyboard.type("at")
    options = page.locator(".cm-tooltip-autocomplete [role=option]")
    expect(options.filter(has_text="at_end")).to_be_visible()
    expect(options.filter(has_text="networks")).to_have_count(0)
    picture(page, "editor-completion")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Space")
    expect(options.filter(has_text="keep")).to_be_visible()
    page.keyboard.press("Escape")
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")


def test_a_new_experiment_from_a_template(page: Page, stage: Stage) -> None:
    """The launcher's card writes an experiment from the template that is chosen, and opens it; so does one from another tool's topology."""
    stage.write("services: {web: {image: nginx}}\n", "compose/compose.yaml")
    page.evaluate("path => { window.jupyterapp.commands.execute('launcher:create', {cwd: path}); }", stage.name)
    page.locator(".jp-LauncherCard:visible", has_text="New Experiment").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Begin with").select_option("wan")
    expect(dialog.locator("pre")).to_contain_text("Two sites")
    dialog.get_by_label("Folder", exact=True).fill(f"{stage.name}/made")
    picture(page, "new-experiment")
    assert_accessible(page, ".jp-Dialog")
    dialog.get_by_role("button", name="Create").click()
    expect(page.locator(".jp-FileEditor:visible .cm-content")).to_contain_text("Two sites")
    assert (stage.folder / "made" / "experiment.yaml").read_text().startswith("# Two sites")
    page.evaluate("path => { window.jupyterapp.commands.execute('wardian:new-experiment', {cwd: path}); }", f"{stage.name}/imported")
    dialog.get_by_label("Begin with").select_option("")
    dialog.get_by_label("Its file").fill(f"{stage.name}/compose")
    dialog.get_by_role("button", name="Create").click()
    expect(page.locator(".jp-FileEditor:visible .cm-content")).to_contain_text("web:")


@pytest.fixture(scope="module")
def notebook(server: Server, stage: Stage, browser: Browser) -> Iterator[Notebook]:
    """An open notebook of whose two cells the first has run on a node."""
    stage.run("up")
    server.folder = stage.folder
    server.write("work.ipynb", "%%on server\nprint('was here')", "1 + 1")
    notebook = Notebook(server, new_page(browser), f"{stage.name}/work.ipynb")
    notebook.execute(notebook.cell(0))
    notebook.cell(0).printed("was here")
    yield notebook
    notebook.page.context.close()


def test_the_journal_as_a_timeline(notebook: Notebook) -> None:
    """Operations and a cell are bars in the lanes of their nodes, which are filtered, walked through by keys, and lead to the cell."""
    page = notebook.page
    page.evaluate("window.jupyterapp.commands.execute('wardian:open-journal')")
    timeline = page.locator(".wardian-Timeline")
    lane = timeline.get_by_role("group", name="server", exact=True)
    cell = lane.locator(".wardian-kind-cell")
    expect(cell).to_have_class("wardian-Timeline-entry wardian-kind-cell wardian-status-ok")
    expect(timeline.locator(".wardian-kind-operation").nth(2)).to_be_visible()
    picture(page, "journal")
    assert_accessible(page, ".wardian-Timeline")
    timeline.get_by_label("Operations").uncheck()
    expect(timeline.locator("button.wardian-kind-operation")).to_have_count(0)
    cell.focus()
    for key in ("+", "+", "+", "+", "Shift+ArrowRight", "Shift+ArrowRight", "0"):
        page.keyboard.press(key)
    expect(cell).to_be_focused()
    page.keyboard.press("Enter")
    expect(timeline.get_by_role("region", name="Entry")).to_contain_text("was here")
    timeline.get_by_role("button", name="Show the cell").click()
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget?.content?.activeCellIndex === 0")


def test_the_cells_and_kernels_of_a_node(notebook: Notebook) -> None:
    """A node's details have the cells that ran there and its kernel, which the notebook has, and restart that."""
    panel = Panel(notebook.page, notebook.page.locator("#wardian-panel"))
    panel.page.evaluate("window.jupyterapp.commands.execute('wardian:show-panel')")
    panel.symbol("node", "server").click()
    details = panel.details("Node server")
    expect(details).to_contain_text("print('was here')")
    expect(details).to_contain_text("python")
    expect(details).to_contain_text("in use by a notebook")
    panel.picture("details-cells")
    notebook.run("%%on server\nkept = 1; print('kept')").printed("kept")
    pid = details.get_by_text(re.compile(r"in use by a notebook · pid \d+"))
    before = pid.inner_text()
    details.get_by_role("button", name="Restart").click()
    expect(pid).not_to_have_text(before)
    notebook.run("%%on server\nprint('kept' in globals())").printed("False")


def test_a_lease_that_ends_soon_is_told_of(server: Server, stage: Stage, browser: Browser, notebook: Notebook) -> None:
    """Well before a lease ends there is a notice with the time and what happens then, which extends it in one click."""
    page = new_page(browser)
    page.clock.install()
    open_lab(server, page, stage.name)
    ended = ask(server, "GET", "environment", stage)["lease"]["end"]
    page.get_by_text(f"The experiment {stage.name} is here.").wait_for()
    page.evaluate("window.jupyterapp.commands.execute('wardian:show-panel')")
    Panel(page, page.locator("#wardian-panel")).is_whole("ready")
    page.clock.fast_forward("17:00")
    expect(page.get_by_text(f"The lease of {stage.name} ends at")).to_be_visible()
    picture(page, "lease-notice")
    page.get_by_role("button", name="Extend by 1 h").last.click()
    expect(page.locator("#wardian-panel .wardian-Header")).to_contain_text("1 h")
    eventually(lambda: ask(server, "GET", "environment", stage)["lease"]["end"] > ended + 3000, "the lease is longer")
    page.context.close()
