"""Cells that go on while nobody, or somebody else, looks: their output is complete in a page that opens later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import Notebook, Server

pytestmark = pytest.mark.slow

COUNTING = """import os, time
print('first')
while not os.path.exists({gate!r}): time.sleep(0.005)
for number in range(300): print('line', number, flush=True)
print('last')"""
LINES = ["first", *(f"line {number}" for number in range(300)), "last"]


def test_a_reload(server: Server, open_notebook: Callable[[str], Notebook], tmp_path: Path) -> None:
    """After a reload, the cell that ran shows what it printed before, meanwhile and afterwards, and so does one that waited."""
    gate = tmp_path / "gate"
    name = server.write("reload.ipynb", "%%on server\n" + COUNTING.format(gate=str(gate)), "%%on client[0]\n6 * 7")
    notebook = open_notebook(name)
    notebook.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    notebook.cell(0).printed("first")
    notebook.reload()
    cell, waiting = notebook.cell(0), notebook.cell(1)
    cell.printed("first")
    assert (cell.prompt, waiting.prompt) == ("[*]", "[*]")
    notebook.picture("reload-running")
    gate.touch()
    assert cell.wait().text.splitlines() == LINES
    assert cell.prompt == "[1]"
    waiting.wait().printed("42")
    assert waiting.prompt == "[2]"
    notebook.picture("reload-ended")


@pytest.mark.long
def test_ended_while_the_page_was_away(server: Server, open_notebook: Callable[[str], Notebook], tmp_path: Path) -> None:
    """A cell that ended while no page was open shows all of its output; one that was cleared and saved stays clear."""
    gate = tmp_path / "gate"
    name = server.write("away.ipynb", "print('cleared')", "%%on server\n" + COUNTING.format(gate=str(gate)))
    notebook = open_notebook(name)
    notebook.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    notebook.cell(1).printed("first")
    notebook.clear(notebook.cell(0))
    notebook.save()
    notebook.page.goto("about:blank")
    gate.touch()
    later = open_notebook(name)
    assert later.cell(1).wait().printed("last").text.splitlines() == LINES
    assert later.cell(0).outputs == []


@pytest.mark.long
def test_a_second_browser(server: Server, open_notebook: Callable[[str], Notebook], tmp_path: Path) -> None:
    """A notebook that is opened in a second browser while its cell runs shows all of the output in both."""
    gate = tmp_path / "gate"
    name = server.write("second.ipynb", "%%on server\n" + COUNTING.format(gate=str(gate)))
    first = open_notebook(name)
    first.execute(first.cell(0))
    first.cell(0).printed("first")
    second = open_notebook(name)
    second.cell(0).printed("first")
    gate.touch()
    for notebook in (first, second):
        assert notebook.cell(0).wait().printed("last").text.splitlines() == LINES


@pytest.mark.long
def test_input_after_a_reload(server: Server, open_notebook: Callable[[str], Notebook]) -> None:
    """A question that waited for its answer is asked again in the new page."""
    notebook = open_notebook(server.write("asking.ipynb", "%%on server\nname = input('Who? ')\nprint('it is', name)"))
    notebook.execute(notebook.cell(0))
    expect(notebook.cell(0).shown.locator("input.jp-Stdin-input")).to_be_visible()
    notebook.reload()
    field = notebook.cell(0).shown.locator("input.jp-Stdin-input")
    field.fill("Ada")
    field.press("Enter")
    notebook.cell(0).wait().printed("it is Ada")


@pytest.mark.long
def test_displays_and_redrawn_output(server: Server, open_notebook: Callable[[str], Notebook]) -> None:
    """Displays that are updated and output that is cleared look after a reload as they did before, and go on so."""
    code = (
        "%%on server\nfrom IPython.display import clear_output, display\nprint('gone')\nclear_output(wait=True)\nprint('stays')\n"
        "handle = display('one', display_id=True)\nhandle.update('two')\ninput('now? ')\nhandle.update('three')"
    )
    notebook = open_notebook(server.write("displays.ipynb", code))
    notebook.execute(notebook.cell(0))
    notebook.cell(0).printed("two")
    notebook.reload()
    cell = notebook.cell(0)
    cell.printed("stays").printed("two")
    assert "gone" not in cell.shown.inner_text()
    cell.shown.locator("input.jp-Stdin-input").press("Enter")
    cell.wait().printed("three")
    assert "two" not in cell.shown.inner_text()
