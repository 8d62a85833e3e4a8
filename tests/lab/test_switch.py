"""Where each cell runs is seen and changed in the page, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.kernel.conftest import NODES, write_nodes

from .conftest import CURRENT, Cell, Notebook

pytestmark = pytest.mark.slow

NODE = "import os\nprint('on', os.environ.get('WARDIAN_TEST_NODE', 'home'))"


class Switch:
    """What a cell shows of where it runs."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.page = cell.notebook.page
        self.badge = cell.element.locator(".wardian-Badge")
        self.where = self.badge.locator(".wardian-Badge-where")
        self.state = self.badge.locator(".wardian-Badge-state")
        self.lanes = self.badge.locator(".wardian-Badge-lane")
        self.problem = self.badge.locator(".wardian-Badge-problem")
        self.picker = self.page.locator(".wardian-Picker")
        self.options = self.picker.get_by_role("listbox").get_by_role("option")

    def option(self, name: str) -> Locator:
        """An option of the picker."""
        return self.options.filter(has=self.page.locator(f".wardian-Picker-name:text-is('{name}')"))

    def open(self) -> None:
        """Open the picker, by mouse."""
        self.where.click()
        expect(self.picker).to_be_visible()
        expect(self.option("client[0]")).to_be_visible()

    def shows(self, text: str) -> None:
        """Wait until the badge says so."""
        expect(self.where).to_contain_text(text)

    @property
    def source(self) -> str:
        return self.cell._evaluate("cell.model.sharedModel.getSource()")

    @property
    def metadata(self) -> Any:
        return self.cell._evaluate("cell.model.getMetadata('wardian')")

    @property
    def edge(self) -> str:
        return self.cell._evaluate("getComputedStyle(cell.node, '::before').backgroundImage")

    @property
    def mime_type(self) -> str:
        return self.cell._evaluate("cell.model.mimeType")


@pytest.fixture
def up(host_nodes: Path, notebook: Notebook) -> Iterator[Notebook]:
    """The module's notebook, with all nodes there and known, and nothing sticky."""
    write_nodes(host_nodes, NODES)
    notebook.run("%on here")
    yield notebook
    notebook.page.keyboard.press("Escape")
    write_nodes(host_nodes, NODES)


def switch(cell: Cell) -> Switch:
    """A cell's switch, once it is there."""
    found = Switch(cell)
    expect(found.where).to_be_visible()
    return found


def test_line_and_metadata_are_one_thing(up: Notebook) -> None:
    """A cell at home, one with metadata and one with a line show where they run, and those on the same node have the same edge."""
    home, line, told = (switch(up.add(*cell)) for cell in ((NODE,), (f"%%on server\n{NODE}",), (NODE, {"wardian": {"on": "server"}})))
    home.shows("home")
    for bound in (line, told):
        bound.shows("server")
    assert line.edge == told.edge != home.edge
    other = switch(up.add(f"%%on client\n{NODE}"))
    other.shows("2 nodes")
    assert other.edge != line.edge


def test_picked_with_the_mouse(up: Notebook) -> None:
    """A click on a node in the picker binds the cell, in metadata or in the line that it has, and it runs there."""
    cell = switch(up.add(NODE))
    cell.open()
    cell.option("client[1]").click()
    expect(cell.picker).to_have_count(0)
    cell.shows("client[1]")
    assert cell.metadata == {"on": "client[1]"}
    up.execute(cell.cell)
    cell.cell.wait().printed("on client[1]")
    expect(cell.state).to_contain_text("done")
    cell.open()
    cell.option("here").click()
    cell.shows("home")
    assert cell.metadata is None
    line = switch(up.add(f"# a comment\n%%on client --timeout 30s\n{NODE}"))
    line.open()
    line.option("server").click()
    line.shows("server")
    assert line.source == f"# a comment\n%%on server --timeout 30s\n{NODE}"
    assert line.metadata is None


def test_picked_with_the_keyboard(up: Notebook) -> None:
    """A shortcut opens the picker; one types to filter, marks several with Space, and Enter binds; Escape changes nothing."""
    cell = switch(up.add(NODE))
    up.page.keyboard.press("Control+Shift+O")
    expect(cell.picker).to_be_visible()
    up.page.keyboard.press("Escape")
    expect(cell.picker).to_have_count(0)
    assert cell.metadata is None
    up.page.keyboard.press("Control+Shift+O")
    expect(cell.option("server")).to_be_visible()
    for name in ("client[0]", "server"):
        up.page.keyboard.type(name)
        expect(cell.options).to_have_count(1)
        up.page.keyboard.press("Space")
        expect(cell.option(name)).to_have_attribute("aria-selected", "true")
    up.page.keyboard.press("Enter")
    cell.shows("client[0],server")
    cell.shows("2 nodes")
    assert cell.metadata == {"on": "client[0],server"}
    up.page.keyboard.press("Control+Shift+O")
    expect(cell.option("origin")).to_be_visible()
    up.page.keyboard.type("origin")
    expect(cell.options).to_have_count(1)
    up.page.keyboard.press("Enter")
    cell.shows("origin")
    assert cell.metadata == {"on": "origin"}


def test_selectors_are_typed(up: Notebook) -> None:
    """What is no name in the list is taken as a selector, and the picker says what it picks."""
    cell = switch(up.add(NODE))
    cell.open()
    up.page.keyboard.type("all,!server")
    expect(cell.option("all,!server")).to_contain_text("2 nodes")
    up.page.keyboard.press("Enter")
    cell.shows("2 nodes")
    assert cell.metadata == {"on": "all,!server"}


def test_numbers(up: Notebook) -> None:
    """Ctrl with a number puts the cell on that node, also while one types in it, and Ctrl-0 back home."""
    cell = switch(up.add(NODE))
    for key, name in (("1", "client[0]"), ("3", "server")):
        up.page.keyboard.press(f"Control+{key}")
        cell.shows(name)
    up.page.keyboard.press("Control+0")
    cell.shows("home")
    assert cell.metadata is None
    up.page.keyboard.press("Enter")
    expect(cell.cell.element.locator(".cm-content")).to_be_focused()
    up.page.keyboard.press("Control+2")
    cell.shows("client[1]")
    assert cell.source == NODE
    line = switch(up.add("%%on server --lang bash\necho $WARDIAN_TEST_NODE"))
    up.page.keyboard.press("Control+1")
    line.shows("client[0]")
    assert line.source == "%%on client[0] --lang bash\necho $WARDIAN_TEST_NODE"
    up.page.keyboard.press("Control+0")
    line.shows("home")
    assert line.source == "echo $WARDIAN_TEST_NODE"


def test_a_new_cell_inherits(up: Notebook) -> None:
    """A cell that is made beside a bound one runs where that does, in the same form; with a line, one writes on below it."""
    told = switch(up.add(NODE, {"wardian": {"on": "server", "lang": "bash"}}))
    made = below(up)
    made.shows("server")
    assert made.metadata == {"on": "server", "lang": "bash"}
    line = switch(up.add(f"%%on client[0] --timeout 5s\n{NODE}"))
    made = below(up)
    made.shows("client[0]")
    assert (made.source, made.metadata) == ("%%on client[0]\n", None)
    up.page.keyboard.press("Enter")
    up.page.keyboard.type("6 * 7")
    assert made.source == "%%on client[0]\n6 * 7"
    assert told.cell.id != line.cell.id


def below(notebook: Notebook) -> Switch:
    """A new cell below the last one, made by a key."""
    count = notebook.page.evaluate(f"{CURRENT}.mode = 'command', {CURRENT}.activeCell.node.focus(), {CURRENT}.widgets.length")
    notebook.page.keyboard.press("b")
    notebook.page.wait_for_function(f"count => {CURRENT}.widgets.length > count", arg=count)
    return switch(notebook.cell(count))


def command(notebook: Notebook, name: str, **args: Any) -> None:
    """Run a command of the extension's."""
    notebook.page.evaluate("([name, args]) => { window.jupyterapp.commands.execute(name, args); }", [f"wardian:{name}", args])


def test_converted(up: Notebook) -> None:
    """Commands move a binding from metadata to a line and back, and all of a notebook's to lines."""
    cell = switch(up.add(NODE, {"wardian": {"on": "client", "lang": "bash"}}))
    command(up, "binding-to-line")
    cell.shows("client")
    assert (cell.source, cell.metadata) == (f"%%on client --lang bash\n{NODE}", None)
    command(up, "binding-to-metadata")
    assert (cell.source, cell.metadata) == (NODE, {"on": "client", "lang": "bash"})
    command(up, "all-bindings-to-lines")
    assert cell.source.startswith("%%on client --lang bash\n")


def test_what_is_sticky_shows(up: Notebook) -> None:
    """After `%on` the cells that say nothing else show it, and one that is put home says so itself."""
    cell = switch(up.add(NODE))
    up.run("%on server")
    cell.shows("server")
    cell.shows("sticky")
    up.page.evaluate(f"{CURRENT}.activeCellIndex -= 1")
    command(up, "bind-home")
    cell.shows("home")
    assert cell.metadata == {"on": "here"}
    up.run("%on here")


def test_the_editor_speaks_the_language(up: Notebook) -> None:
    """The editor of a bash cell is one for shell, and again one for Python when the cell goes home."""
    cell = switch(up.add("echo $HOME", {"wardian": {"on": "server", "lang": "bash"}}))
    cell.shows("bash")
    assert cell.mime_type == "text/x-sh"
    expect(cell.cell.element.locator(".cm-content")).to_have_attribute("data-language", "shell")
    command(up, "bind-home")
    cell.shows("home")
    assert "python" in cell.mime_type


def test_states_by_node(up: Notebook, tmp_path: Path) -> None:
    """While a cell runs on several nodes each shows its state and time; one that failed says so, and why."""
    gate = tmp_path / "gate"
    failing = "import os, time\nif os.environ['WARDIAN_TEST_NODE'] == 'client[1]': 1 / 0"
    cell = switch(up.start(f"%%on client\n{failing}\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"))
    waiting = switch(up.start("1"))
    expect(cell.lanes).to_have_count(2)
    expect(cell.lanes.nth(0)).to_contain_text("running")
    expect(cell.lanes.nth(1)).to_contain_text("failed")
    expect(cell.lanes.nth(1)).to_have_attribute("title", "ZeroDivisionError: division by zero")
    expect(waiting.state).to_contain_text("queued")
    up.picture("switch-running")
    gate.touch()
    expect(cell.lanes.nth(0)).to_contain_text("done")
    expect(cell.state).to_contain_text("1 ✓ done, 1 ✗ failed")
    expect(waiting.state).to_contain_text("not run")


def test_a_node_that_does_not_exist(up: Notebook) -> None:
    """A cell on a node that does not exist says so, and offers to rebind it and to run it at home."""
    cell = switch(up.add(NODE, {"wardian": {"on": "clint"}}))
    expect(cell.problem).to_contain_text("no such node: clint")
    cell.problem.get_by_role("button", name="Run at home").click()
    cell.cell.wait().printed("on home")
    cell.shows("clint")
    cell.problem.get_by_role("button", name="Rebind").click()
    cell.option("server").click()
    cell.shows("server")
    expect(cell.problem).to_be_empty()


def test_an_environment_that_comes_and_goes(up: Notebook, host_nodes: Path) -> None:
    """Where no environment is up bound cells say so, and no longer once the picker, or a cell, has found it."""
    cell = switch(up.add(f"%%on server\n{NODE}"))
    write_nodes(host_nodes, None)
    cell.where.click()
    expect(cell.problem).to_contain_text("not up")
    up.page.keyboard.press("Escape")
    write_nodes(host_nodes, NODES)
    up.run("%%on client\n1")
    expect(cell.problem).to_be_empty()


def test_run_once_elsewhere(up: Notebook) -> None:
    """ "Run the Cell Once On…" of the command palette, by keyboard, runs it there, and it stays bound where it was."""
    cell = switch(up.add(f"%%on server\n{NODE}"))
    keyboard = up.page.keyboard
    keyboard.press("Control+Shift+C")
    up.page.locator(".lm-CommandPalette-input").fill("Run the Cell Once On")
    expect(up.page.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text("Run the Cell Once On")
    keyboard.press("Enter")
    expect(up.page.locator(".wardian-Picker-filter")).to_be_focused()
    keyboard.type("client[1]")
    keyboard.press("Enter")
    cell.cell.wait().printed("on client[1]")
    cell.shows("server")


def request(notebook: Notebook, key: str, answer: Locator, text: str) -> None:
    """Press a key until its answer shows: an editor that has just got the focus does not ask the kernel yet, nor wait for a second."""
    for _ in range(40):
        notebook.page.keyboard.press(key)
        try:
            expect(answer).to_contain_text(text, timeout=1200)
        except AssertionError:
            continue
        return
    expect(answer).to_contain_text(text)


def test_completion_by_metadata(up: Notebook) -> None:
    """Tab in a cell that its metadata binds offers what that node knows, and Shift-Tab tells of it."""
    # The first completion of a kernel loads a good deal, which has no place in a page's patience.
    up.run("%%on server\nonly_on_the_server = 42\nget_ipython().kernel.do_complete('only_on_', 8)")
    cell = switch(up.add("only_on_", {"wardian": {"on": "server"}}))
    cell.shows("server")
    cell.cell.element.locator(".cm-content").click()
    up.page.keyboard.press("End")
    request(up, "Tab", cell.cell.element.locator(".cm-content"), "only_on_the_server")
    request(up, "Shift+Tab", up.page.locator(".jp-Tooltip"), "int")
    up.page.keyboard.press("Escape")


def test_output_by_node(up: Notebook) -> None:
    """A click shows what each node printed in a lane that folds, those that failed unfolded, and again all as it came."""
    printing = "for number in range(40): print(os.environ['WARDIAN_TEST_NODE'], number)"
    code = f"import os\n{printing}\nif os.environ['WARDIAN_TEST_NODE'] == 'client[1]': 1 / 0"
    cell = switch(up.run(f"%%on client\n{code}"))
    expect(cell.state).to_contain_text("failed")
    by_node = cell.badge.get_by_role("button", name="By node")
    by_node.click()
    expect(by_node).to_have_attribute("aria-pressed", "true")
    lanes = cell.cell.element.locator(".wardian-Lanes-lane")
    expect(lanes).to_have_count(2)
    for index, (state, open_) in enumerate((("done", False), ("failed", True))):
        expect(lanes.nth(index).locator("summary")).to_contain_text(f"client[{index}]")
        expect(lanes.nth(index).locator("summary")).to_contain_text(state)
        expect(lanes.nth(index).locator("summary")).to_contain_text("40 lines")
        assert lanes.nth(index).evaluate("lane => lane.open") is open_
    assert lanes.nth(1).locator("pre").inner_text().splitlines() == [
        *(f"client[1] {number}" for number in range(40)),
        "ZeroDivisionError: division by zero",
    ]
    up.picture("switch-lanes")
    by_node.click()
    expect(lanes).to_have_count(0)
    cell.cell.printed("client[0] 39")
