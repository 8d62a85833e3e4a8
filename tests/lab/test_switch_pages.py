"""Where cells run, in notebooks and pages of their own: reloads, other kernels, all cells of a node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import Notebook, Server
from .test_switch import NODE, command, switch

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_states_after_a_reload(server: Server, open_notebook: Callable[[str], Notebook], tmp_path: Path) -> None:
    """A page that is opened while a cell runs shows that it does, and how it ends."""
    gate = tmp_path / "gate"
    code = f"%%on server\nimport os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    notebook = open_notebook(server.write("states.ipynb", code))
    notebook.execute(notebook.cell(0))
    expect(switch(notebook.cell(0)).state).to_contain_text("running")
    notebook.reload()
    cell = switch(notebook.cell(0))
    expect(cell.state).to_contain_text("running")
    gate.touch()
    expect(cell.state).to_contain_text("done")


def test_run_all_cells_of_a_node(server: Server, open_notebook: Callable[[str], Notebook]) -> None:
    """ "Run All Cells of a Node…" runs those that are bound to it, however they are, and no others."""
    line, told, other = f"%%on all\n{NODE}", NODE, f"%%on server\n{NODE}"
    notebook = open_notebook(server.write("of-node.ipynb", line, told, other))
    notebook.cell(1)._evaluate("cell.model.setMetadata('wardian', {on: 'player'})")
    cells = [switch(notebook.cell(index)) for index in range(3)]
    cells[0].shows("3 nodes")
    command(notebook, "run-cells-of-node")
    cells[0].option("client[1]").click()
    for cell in cells[:2]:
        cell.cell.wait().printed("on client[1]")
    assert cells[2].cell.outputs == []


def test_other_kernels_are_left_alone(server: Server, open_notebook: Callable[[str], Notebook]) -> None:
    """A notebook of another kernel has no badges, and its keys mean what they did."""
    server.write("python.ipynb", NODE, kernel="python3")
    notebook = open_notebook("python.ipynb")
    notebook.run("1")
    expect(notebook.page.locator(".wardian-Badge")).to_have_count(0)
    notebook.page.keyboard.press("Control+1")
    assert notebook.cell(0)._evaluate("cell.model.getMetadata('wardian')") is None
