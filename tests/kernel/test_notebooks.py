"""Whole notebooks bound to a node, run as a stock headless runner does: sticky from the first cell on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from .conftest import ROOT, Notebook

pytestmark = pytest.mark.slow

FOREIGN = os.environ.get("WARDIAN_TEST_NOTEBOOKS", "")
"""Folders with other projects' notebooks (`ipywidgets/docs/source/examples`), separated by colons, for `test_notebooks_of_others`."""

DISPLAYS = [
    "from IPython.display import HTML, JSON, Javascript, Latex, Markdown, SVG, clear_output, display, update_display",
    "display(HTML('<i>html</i>'), Markdown('*text*'), Latex('$x^2$'), JSON({'a': [1]}), Javascript('1'))",
    'SVG(\'<svg xmlns="http://www.w3.org/2000/svg"><circle r="3"/></svg>\')',
    "handle = display('first', display_id='shown')\nupdate_display('second', display_id='shown')",
    "print('gone')\nclear_output(wait=True)\nprint('stays')",
    "%%capture captured\nprint('kept back')",
    "captured.stdout",
    "%%writefile written.txt\nby a cell",
    "%cat written.txt",
    "!echo from a shell",
    "%timeit -n1 -r1 pass",
    "from concurrent.futures import ThreadPoolExecutor\nlist(ThreadPoolExecutor(4).map(lambda n: n * n, range(5)))",
    "import asyncio\nawait asyncio.sleep(0)\nasync def later(): return 'awaited'\nawait later()",
    "len?",
    "_ , Out[13]",
]
WIDGETS = [
    "import ipywidgets as widgets\nfrom traitlets import dlink, link\nfrom IPython.display import display",
    "slider, text = widgets.IntSlider(3), widgets.FloatText()\nlink((slider, 'value'), (text, 'value'))\nwidgets.VBox([slider, text])",
    "seen = []\nslider.observe(lambda change: seen.append(change.new), 'value')\nslider.value = 8\n(seen, text.value)",
    "widgets.interactive(lambda x, y: x + y, x=(0, 5), y=(0., 1.)).children[0]",
    "output = widgets.Output()\nwith output: print('inside')\ndisplay(output)",
    "tab = widgets.Tab([widgets.Text('a'), widgets.Textarea('b')], titles=('one', 'two'))\ntab",
    "[widgets.Dropdown(options=['a', 'b']), widgets.SelectMultiple(options=[1, 2]), widgets.DatePicker(), widgets.ColorPicker()]",
    "progress = widgets.FloatProgress(max=3)\ndisplay(progress)\nfor step in range(4): progress.value = step",
    "widgets.Image(value=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(2**16))",
    "grid = widgets.GridspecLayout(2, 2)\ngrid[0, :] = widgets.Button(description='wide')\ngrid",
    "widgets.Widget.close_all()",
]


@pytest.mark.parametrize("cells", [DISPLAYS, WIDGETS], ids=["displays", "widgets"])
def test_a_notebook_on_a_node(start: Callable[..., Notebook], cells: list[str]) -> None:
    """What notebooks do runs on a node without an error: displays, magics, threads, coroutines; widgets of every kind."""
    notebook = start()
    notebook.run("%on server")
    results = [notebook.run(code) for code in cells]
    assert [(code, result.error) for code, result in zip(cells, results, strict=True) if result.status != "ok"] == []
    assert notebook.run("import os\nos.environ['WARDIAN_TEST_NODE']").value == "'server'"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not FOREIGN, reason="WARDIAN_TEST_NOTEBOOKS names no folder")
def test_notebooks_of_others(start: Callable[..., Notebook]) -> None:
    """Example notebooks of ipywidgets and IPython run on a node as they do at home: the same cells, if any, fail, of the same error."""
    notebook = start(PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    for path in sorted(file for folder in FOREIGN.split(":") for file in Path(folder).rglob("*.ipynb")):
        sources = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        # what they install would be there for both, and for whoever comes after
        cells = [source for source in sources if "%pip" not in source]
        errors = []
        for place in ("here", "server"):
            notebook.run(f"%on {place}")
            notebook.run(f"%reset -f\nimport os\nos.chdir({str(path.parent)!r})")
            results = [notebook.run(code) for code in cells]
            errors.append([(code, result.reply["ename"]) for code, result in zip(cells, results, strict=True) if result.status != "ok"])
        assert errors[0] == errors[1], path
