"""`%load_ext wardian` in a stock ipykernel."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from .conftest import ROOT, TIMEOUT, Notebook, Result

pytestmark = pytest.mark.slow

LOAD = "%load_ext tests.kernel.stock_hosts"


class StockNotebook(Notebook):
    """A plain ipykernel and its client. told: what came of loading the extension."""

    told: Result

    def __init__(self, nodes: Path, session: str, **env: str) -> None:
        self.nodes = nodes
        self.manager = KernelManager()
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager._kernel_spec = KernelSpec(argv=argv, language="python")
        own = {"WARDIAN_TEST_NODES": str(nodes), "WARDIAN_SESSION": session, "PYTHONPATH": str(ROOT)}
        self.manager.start_kernel(cwd=str(ROOT), env={**os.environ, **own, **env})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def stock(host_nodes: Path) -> Iterator[StockNotebook]:
    """One kernel with the extension for the tests of this module."""
    notebook = StockNotebook(host_nodes, "stock")
    notebook.told = notebook.run(LOAD)
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(stock: StockNotebook) -> Iterator[StockNotebook]:
    """The module's kernel, with nothing sticky."""
    yield stock
    stock.run("%on here")


def test_it_says_what_it_cannot_see(stock: StockNotebook) -> None:
    """Loading says plainly, and once, that cell metadata is not seen here."""
    assert stock.told.status == "ok"
    assert "cannot see what only a cell's metadata binds" in stock.told.text()
    assert stock.run(LOAD.replace("load", "reload")).text() == ""


def test_a_cell_on_a_node(notebook: StockNotebook) -> None:
    """A cell runs on its node, its output and value are shown where the cell is, and the prompt's number is that of the kernel."""
    result = notebook.run("%%on server\nimport os\nprint('there')\nos.environ['WARDIAN_TEST_NODE']")
    assert result.status == "ok", result.traceback
    assert result.text() == "there\n"
    assert result.value == "'server'"
    assert result.contents("execute_result")[0]["execution_count"] == result.reply["execution_count"]
    assert notebook.run("os.environ['WARDIAN_TEST_NODE'] if 'os' in dir() else 'home'").value == "'home'"


def test_comments_above_the_line(notebook: StockNotebook) -> None:
    """As in Wardian's kernel, blank lines and comments may stand above an %%on line."""
    result = notebook.run("\n# which nodes\n%%on client\nimport os; print(os.environ['WARDIAN_TEST_NODE'])")
    assert result.lanes == {"client[0]": "client[0]\n", "client[1]": "client[1]\n"}


def test_bash_and_displays(notebook: StockNotebook) -> None:
    """Bash cells run in the node's shell, and rich displays come through."""
    assert notebook.run("%%on server --lang bash\nhere=yes; echo $here").text() == "yes\n"
    shown = notebook.run("%%on server\nfrom IPython.display import HTML\ndisplay(HTML('<b>bold</b>'))")
    assert shown.contents("display_data")[0]["data"]["text/html"] == "<b>bold</b>"


def test_errors_are_those_of_the_node(notebook: StockNotebook) -> None:
    """An error on a node is the cell's error, once, with its name, the node and the lines of the cell; what follows is aborted."""
    result = notebook.run("%%on server\n\n1 / 0")
    assert result.error == "ZeroDivisionError: division by zero"
    assert len(result.contents("error")) == 1
    assert "server" in result.traceback
    assert "stock.py" not in result.traceback
    assert "NodeErrors: client[0:2]: ZeroDivisionError" in notebook.run("%%on client\n1 / 0").error
    assert "no node, group or role" in notebook.run("%%on nowhere\n1").error
    assert "the selector is missing" in notebook.run("%%on\n1").error
    failing = notebook.send("%%on server\n1 / 0")
    after = notebook.send("'went on'")
    assert notebook.result(failing).status == "error"
    assert notebook.result(after).status == "aborted"


def test_sticky(notebook: StockNotebook) -> None:
    """After %on all following cells run there, until %on here; what is no cell of the notebook stays at home."""
    assert "until %on here" in notebook.run("%on server").text()
    assert notebook.run("import os\nos.environ['WARDIAN_TEST_NODE']").value == "'server'"
    assert "home" in notebook.run("%%on here\nget_ipython().run_cell('print(\"home\", 1 + 1)');").text()
    assert notebook.run("%on").text().startswith("cells run on server")
    silent = notebook.run("import os; assert 'WARDIAN_TEST_NODE' not in os.environ", silent=True)
    assert silent.status == "ok"
    notebook.run("%on here")
    assert notebook.run("__import__('os').environ.get('WARDIAN_TEST_NODE')").contents("execute_result") == []


def test_values_and_results(notebook: StockNotebook) -> None:
    """%put, %get, wardian.nodes and wardian.results work as in Wardian's kernel."""
    notebook.run("import wardian; number = 20")
    assert notebook.run("%put number --to client").status == "ok"
    notebook.run("%%on client\nnumber + 1")
    assert notebook.run("dict(wardian.results)").value == "{'client[0]': 21, 'client[1]': 21}"
    notebook.run("%get number as back --from client[0]")
    assert notebook.run("back, wardian.nodes['client[1]']['number']").value == "(20, 20)"
    assert "no variable 'nowhere'" in notebook.run("%get nowhere --from server").error


def test_each_takes_a_list_of_home(notebook: StockNotebook) -> None:
    """A list of this kernel can be dealt out over nodes."""
    notebook.run("rates = [1, 2, 3]")
    assert notebook.run("%%on client --each rate=rates\nrate * 10").status == "ok"
    assert notebook.run("import wardian; wardian.results.each[:]").value == "[10, 20, 30]"


def test_jobs(notebook: StockNotebook) -> None:
    """A background cell returns at once; %wait shows what it printed where it waits."""
    assert notebook.run("%%on server --bg as load\nprint('in the background')").status == "ok"
    waited = notebook.run("%wait load")
    assert "in the background" in waited.text()
    assert "load │ done" in waited.text()
    assert "load" in notebook.run("%jobs").text()


def test_interrupt(notebook: StockNotebook) -> None:
    """An interrupt stops the cell on all its nodes; their variables stay, and the next cell runs."""
    running = notebook.send("%%on client\nkept = 1\nprint('begun', flush=True)\nimport time; time.sleep(60)")
    notebook.printed(running, "begun")
    notebook.interrupt()
    assert "KeyboardInterrupt" in notebook.result(running).error
    assert "1" in notebook.run("%%on client\nkept").contents("display_data")[0]["data"]["text/plain"]
    assert notebook.run("'home'").value == "'home'"


def test_input(notebook: StockNotebook) -> None:
    """A cell on one node can ask, and the notebook answers."""
    asking = notebook.send("%%on server\nanswer = input('what? ')\nanswer", allow_stdin=True)
    question = notebook.client.get_stdin_msg(timeout=TIMEOUT)
    assert question["content"]["prompt"] == "what? "
    notebook.client.input("that")
    assert notebook.result(asking).value == "'that'"


def test_unload(host_nodes: Path) -> None:
    """%unload_ext takes everything away again, and %load_ext after it brings it back."""
    notebook = StockNotebook(host_nodes, "unloaded")
    try:
        notebook.run(LOAD)
        assert notebook.run("%%on server\n1").value == "1"
        notebook.run("%unload_ext tests.kernel.stock_hosts")
        assert "not found" in notebook.run("%%on server\n1").text("stderr")
        assert "not found" in notebook.run("%jobs").text("stderr")
        assert notebook.run("import threading; [t.name for t in threading.enumerate() if 'wardian' in t.name]").value == "[]"
        assert notebook.run(LOAD).status == "ok"
        assert notebook.run("%%on client[0]\n2").value == "2"
    finally:
        notebook.close()


def test_in_our_own_kernel(start: Callable[..., Notebook]) -> None:
    """In Wardian's kernel %load_ext wardian changes nothing and says so."""
    notebook = start()
    assert "is Wardian's own kernel" in notebook.run("%load_ext wardian").text()
    assert notebook.run("%%on server\n1").value == "1"


@pytest.mark.parametrize("known", ["jupyter", "vscode"])
def test_a_notebook_that_relies_on_metadata(host_nodes: Path, tmp_path: Path, known: str) -> None:
    """A notebook whose cells are bound by their metadata alone is refused, naming them; a line in the source is enough."""

    def cell(source: str, metadata: dict[str, Any]) -> dict[str, Any]:
        return {"cell_type": "code", "source": source.splitlines(keepends=True), "metadata": metadata}

    bound = {"wardian": {"on": "client"}}
    path = tmp_path / "relies.ipynb"
    cells = [cell("x = 1", {}), cell("# why\nprint(x)", bound), cell("%%on client\nx", bound), cell("y", {"wardian": {"on": "here"}})]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    notebook = StockNotebook(host_nodes, "relies", **({"JPY_SESSION_NAME": str(path)} if known == "jupyter" else {}))
    try:
        if known == "vscode":
            notebook.run(f"__vsc_ipynb_file__ = {str(path)!r}")
        refused = notebook.run(LOAD)
        assert refused.reply["ename"] == "BindingError"
        assert "cell 2 (print(x)) of relies.ipynb is bound to nodes by metadata" in refused.error
        assert "%%on" in refused.error
        assert "not found" in notebook.run("%%on server\n1").text("stderr")
    finally:
        notebook.close()
