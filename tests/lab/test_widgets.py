"""Widgets whose Python side lives on a node, in a real browser: both ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from .conftest import Notebook, Server

pytestmark = pytest.mark.slow

NODE = "%%on server\nimport os\nimport ipywidgets as widgets\nfrom IPython.display import display\nnode = os.environ['WARDIAN_TEST_NODE']\n"


def test_a_slider_observed_on_the_node(notebook: Notebook) -> None:
    """Moving a slider calls what observes it on the node, and what is set there moves the slider."""
    cell = notebook.run(
        NODE + "slider = widgets.IntSlider(value=3, max=10)\nlabel = widgets.Label('untouched')\n"
        "slider.observe(lambda change: setattr(label, 'value', f'{node}: {change.new}'), 'value')\ndisplay(slider, label)"
    )
    handle = cell.shown.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    cell.printed("server: 4")
    notebook.picture("slider")
    notebook.run("%%on server\nslider.value = 9")
    cell.printed("server: 9")
    expect(cell.shown.locator(".widget-readout")).to_have_text("9")


def test_output_and_buttons(notebook: Notebook) -> None:
    """An Output widget on a node captures what a button's handler prints and displays."""
    cell = notebook.run(
        NODE + "button, output = widgets.Button(description='Press'), widgets.Output()\n"
        "@button.on_click\ndef pressed(_):\n    with output:\n        print('pressed on', node)\ndisplay(button, output)"
    )
    cell.shown.get_by_role("button", name="Press").click()
    cell.printed("pressed on server")
    cell.shown.get_by_role("button", name="Press").click()
    expect(cell.shown.locator(".jp-OutputArea-output", has_text="pressed on server").last).to_contain_text(
        "pressed on server\npressed on server"
    )
    notebook.picture("output-widget")


def test_interact(notebook: Notebook) -> None:
    """`interact` runs its function on the node at every change."""
    cell = notebook.run(NODE + "@widgets.interact(x=(0, 5))\ndef square(x=2):\n    print(node, 'squares to', x * x)")
    cell.printed("server squares to 4")
    handle = cell.shown.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    cell.printed("server squares to 9")


def test_progress(notebook: Notebook) -> None:
    """A progress bar made of widgets on a node arrives at its end."""
    cell = notebook.run("%%on server\nfrom tqdm.notebook import tqdm\nfor _ in tqdm(range(50), desc='on the node'): pass")
    cell.printed("on the node").printed("50/50")
    notebook.picture("progress-widget")


def test_after_a_reload(server: Server, open_notebook: Callable[[str], Notebook]) -> None:
    """A widget on a node is still alive in a page that is loaded anew."""
    code = (
        NODE
        + "slider = widgets.IntSlider(value=3, max=10)\nslider.observe(lambda change: print(node, change.new), 'value')\ndisplay(slider)"
    )
    notebook = open_notebook(server.write("widgets.ipynb", code, "%%on server\nslider.value"))
    notebook.execute(notebook.cell(0))
    expect(notebook.cell(0).shown.locator(".noUi-handle")).to_be_visible()
    notebook.reload()
    handle = notebook.cell(0).shown.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    expect(notebook.cell(0).shown.locator(".widget-readout")).to_have_text("4")
    notebook.execute(notebook.cell(1))
    notebook.cell(1).wait().printed("4")
