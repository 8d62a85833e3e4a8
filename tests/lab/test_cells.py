"""Cells on nodes, in JupyterLab in a real browser."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from playwright.sync_api import expect

from .conftest import Notebook

pytestmark = pytest.mark.slow

WHERE = "import os\nprint('I am on', os.environ.get('WARDIAN_TEST_NODE', 'no node'))"


def test_bound_by_a_line(notebook: Notebook) -> None:
    """A cell with a %%on line runs on its node and shows its output and its number."""
    cell = notebook.run(f"%%on server\n{WHERE}").printed("I am on server")
    assert cell.prompt == "[1]"


def test_bound_by_metadata(notebook: Notebook) -> None:
    """A cell whose metadata names a node runs there; the next one runs at home again."""
    notebook.run(WHERE, {"wardian": {"on": "client[1]"}}).printed("I am on client[1]")
    notebook.run(WHERE).printed("I am on no node")


def test_figures_and_html(notebook: Notebook) -> None:
    """A figure and HTML made on a node are shown as such."""
    cell = notebook.run(
        "%%on server\nfrom IPython.display import HTML, display\nimport matplotlib.pyplot as plt\n%matplotlib inline\n"
        "display(HTML('<b id=\"bold\">bold from a node</b>'))\nplt.plot([1, 4, 2])\nplt.title('drawn on a node');"
    )
    expect(cell.shown.locator("b#bold")).to_have_text("bold from a node")
    expect(cell.shown.locator("img")).to_be_visible()
    assert cell.shown.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    notebook.picture("figure")


def test_input(notebook: Notebook) -> None:
    """`input()` on a node asks in the page, and getpass hides what is typed."""
    cell = notebook.start(
        "%%on server\nfrom getpass import getpass\nname, word = input('Who? '), getpass('Word? ')\nprint(f'{name}/{word}')"
    )
    for prompt, hidden, answer in (("Who?", False, "Ada"), ("Word?", True, "enigma")):
        expect(cell.shown.locator(".jp-Stdin-prompt").last).to_contain_text(prompt)
        field = cell.shown.locator("input.jp-Stdin-input").last
        assert (field.get_attribute("type") == "password") == hidden
        notebook.picture("input-hidden" if hidden else "input")
        field.fill(answer)
        field.press("Enter")
    cell.wait().printed("Ada/enigma")


def test_a_progress_bar_redraws_in_place(notebook: Notebook) -> None:
    """tqdm on a node is one line that moves, and its last state stays."""
    cell = notebook.run("%%on server\nfrom tqdm import tqdm\nfor _ in tqdm(range(500), mininterval=0): pass")
    cell.printed("500/500")
    assert len(cell.shown.inner_text().strip().splitlines()) == 1, cell.shown.inner_text()


def test_fan_out_shows_lanes(notebook: Notebook) -> None:
    """A cell on all nodes shows each one's lines behind its name, and values in one table."""
    cell = notebook.run(f"%%on all\n{WHERE}\nlen(os.environ['WARDIAN_TEST_NODE'])")
    for node in ("client[0]", "client[1]", "server"):
        cell.printed(f"I am on {node}")
        assert any(node in line and line.rstrip().endswith(f"I am on {node}") for line in cell.shown.inner_text().splitlines())
    expect(cell.shown.locator("table, details").first).to_be_visible()
    notebook.picture("lanes")


def test_an_error_names_its_node(notebook: Notebook) -> None:
    """A traceback from a node names it, in the page."""
    cell = notebook.run("%%on server\n1/0")
    cell.printed("ZeroDivisionError").printed("── server ──")
    notebook.picture("error")


def test_the_stop_button(notebook: Notebook) -> None:
    """The stop button ends a cell on a node; its variables stay and the next cell runs."""
    cell = notebook.start("%%on server\nkept = 7\nprint('begun', flush=True)\nimport threading\nthreading.Event().wait()").printed("begun")
    notebook.page.locator("[data-jp-item-name='interrupt'] button, [data-jp-item-name='interrupt'] jp-button").first.click()
    cell.wait().printed("KeyboardInterrupt")
    notebook.run("%%on server\nprint('kept', kept)").printed("kept 7")


def test_completion(notebook: Notebook) -> None:
    """Tab in a bound cell offers what the node's kernel knows."""
    # the first completion of a kernel loads a good deal, which has no place in a page's patience
    notebook.run("%%on client[0]\nonly_here_it_is_known = 1\nget_ipython().kernel.do_complete('only_here_', 10)").wait()
    cell = notebook.add("%%on client[0]\nonly_here_")
    editor = cell.element.locator(".cm-content")
    editor.click()
    editor.press("Control+End")
    # JupyterLab waits for a second
    for _ in range(30):
        editor.press("Tab")
        with suppress(AssertionError):
            expect(editor).to_contain_text("only_here_it_is_known", timeout=1200)
            return
    pytest.fail(f"nothing was completed: {editor.inner_text()}")


@pytest.mark.long
def test_a_hundred_thousand_lines(notebook: Notebook) -> None:
    """Every line of a long output from a node is shown, in order."""
    cell = notebook.run("%%on server\nfor number in range(100_000): print('line', number)")
    assert cell.text.splitlines() == [f"line {number}" for number in range(100_000)]
    shown = cell.shown.evaluate("node => node.textContent")
    assert shown.count("line ") == 100_000
    assert "line 99999" in shown
    notebook.clear(cell)


def test_restart_from_the_menu(notebook: Notebook) -> None:
    """Restarting the kernel ends the kernels on nodes, and cells run again."""
    notebook.run("%%on server\nbefore = 1")
    notebook.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    notebook.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Restart Kernel…$")).click()
    notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
    cell = notebook.run("%%on server\nprint('before' in globals())")
    cell.printed("False")
    assert cell.prompt == "[1]"
