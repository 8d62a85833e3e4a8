"""`wardian run`: every cell where it is bound, the output written whatever happens, everything torn down."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ..stage import BIN, Stage, require

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(180)]

EXPERIMENT = """
name: NAME
parameters: {clients: 2}
nodes: {server: {}, client: {count: "${clients}"}}
collect: [{on: client, path: /root/*.txt}]
"""

HOSTNAME = "import socket; print(socket.gethostname())"


def cell(source: str, **metadata: Any) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def notebook(stage: Stage, *cells: nbformat.NotebookNode) -> Path:
    """Write a notebook of these cells, for the kernel `wardian`."""
    stage.write(EXPERIMENT)
    document = nbformat.v4.new_notebook(cells=list(cells))
    document.metadata.kernelspec = {"name": "wardian", "display_name": "Python 3 (Wardian)", "language": "python"}
    path = stage.folder / "study.ipynb"
    nbformat.write(document, path)
    return path


def said(path: Path) -> list[str]:
    """What each code cell of a notebook printed."""
    document = nbformat.read(path, as_version=4)
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in document.cells if cell.cell_type == "code"]


def failures(path: Path) -> list[str]:
    """The names of the errors in a notebook's outputs."""
    document = nbformat.read(path, as_version=4)
    return [output.ename for cell in document.cells if cell.cell_type == "code" for output in cell.outputs if output.output_type == "error"]


def test_cells_run_where_they_are_bound(stage: Stage) -> None:
    """Cells bound by `%%on` or by metadata run on their nodes, others here; the page and collected files are written; all is torn down."""
    notebook(
        stage,
        nbformat.v4.new_markdown_cell("# A study"),
        cell(HOSTNAME),
        cell(f"%%on server\n{HOSTNAME}"),
        cell(HOSTNAME, wardian={"on": "client[1]"}),
        cell("%%on client --lang bash\necho result-of-$(hostname) | tee /root/result.txt"),
    )
    done = stage.run("run", "study.ipynb", "--html", timeout=150)
    output = said(stage.folder / "out" / "study.ipynb")
    assert output[1:3] == ["server\n", "client-1\n"]
    assert output[0] not in ("server\n", "client-1\n", "")
    assert "result-of-client-0" in output[3]
    assert "result-of-client-1" in output[3]
    assert said(stage.folder / "study.ipynb") == [""] * 4
    page = (stage.folder / "out" / "study.html").read_text()
    assert "result-of-client-1" in page
    assert "A study" in page
    collected = sorted(path.read_text() for path in (stage.folder / ".wardian" / "collected").rglob("result.txt"))
    assert collected == ["result-of-client-0\n", "result-of-client-1\n"]
    assert "study.html" in done.stdout
    assert "[4/4]" in done.stderr
    stage.assert_nothing_left()
    cells = stage.json("log", "--json", "--kind", "run")
    assert [entry["status"] for entry in cells] == ["ok"]


def test_parameters_reach_experiment_and_notebook(stage: Stage) -> None:
    """-p sets the experiment's parameters and those of the notebook's `parameters` cell; an unknown one is refused before anything runs."""
    notebook(
        stage,
        cell("clients = 2\nlabel = 'plain'\nfactor = 1.5", tags=["parameters"]),
        cell("print(clients, label, factor * 2)"),
        cell("%%on client --lang bash\nhostname"),
    )
    stage.run("run", "study.ipynb", "-p", "clients=3", "-p", "label=fancy", "-p", "factor=4", "-o", "three.ipynb", timeout=150)
    output = said(stage.folder / "three.ipynb")
    # by this id the cell is known again in every run
    assert nbformat.read(stage.folder / "three.ipynb", as_version=4).cells[1].id == "injected-parameters"
    assert "3 fancy 8" in output[2]
    assert "client-2" in output[3]
    unknown = stage.error("run", "study.ipynb", "-p", "colour=red", code=3)
    assert "colour" in unknown
    assert "clients" in unknown
    assert stage.environments() == []


def test_first_error_ends_the_run(stage: Stage) -> None:
    """A cell that fails ends the run with 9; the output has its traceback, later cells did not run, and everything is torn down."""
    notebook(stage, cell("print('before')"), cell("%%on server\n1 / 0"), cell("print('after')"))
    words = stage.error("run", "study.ipynb", code=9, timeout=150)
    assert "ZeroDivisionError" in words
    output = stage.folder / "out" / "study.ipynb"
    assert said(output)[0] == "before\n"
    assert said(output)[2] == ""
    assert len(failures(output)) == 1
    stage.assert_nothing_left()
    assert [entry["status"] for entry in stage.json("log", "--json", "--kind", "run")] == ["failed"]


def test_errors_may_be_allowed(stage: Stage) -> None:
    """--allow-errors goes on after a cell that fails; --keep leaves the environment up."""
    notebook(stage, cell("%%on server\n1 / 0"), cell("%%on nobody\n1"), cell(f"%%on server\n{HOSTNAME}"))
    stage.run("run", "study.ipynb", "--allow-errors", "--keep", timeout=150)
    output = stage.folder / "out" / "study.ipynb"
    assert said(output)[2] == "server\n"
    assert len(failures(output)) == 2
    stage.run("exec", "server", "true")


def test_ctrl_c_tears_down(stage: Stage) -> None:
    """Ctrl-C ends a run with 130; what has run is in the output notebook, and everything is torn down."""
    notebook(stage, cell("print('before')"), cell("%%on server\nimport time\nprint('sleeping', flush=True)\ntime.sleep(1000)"))
    process = stage.start("run", "study.ipynb", stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    while "[1/2]" not in (line := process.stderr.readline()):
        assert line, "the run ended before its first cell"
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=90)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert said(stage.folder / "out" / "study.ipynb")[0] == "before\n"
    stage.assert_nothing_left()


def test_what_is_no_notebook(stage: Stage) -> None:
    """A file that is missing or no notebook is one clear error, and nothing is grown."""
    stage.write(EXPERIMENT)
    assert "none.ipynb" in stage.error("run", "none.ipynb", code=9)
    (stage.folder / "junk.ipynb").write_bytes(b"\x00\xff junk")
    assert "junk.ipynb" in stage.error("run", "junk.ipynb", code=9)
    assert stage.environments() == []


def test_notebooks_are_read_without_compiling_a_grammar() -> None:
    """What checks notebooks does not load what it has for addresses, which takes longer than all else of a command."""
    code = "import sys, wardian.replay.runner; print('nbformat' in sys.modules, 'lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True False\n"


@pytest.mark.parametrize("tool", ["papermill", pytest.param("nbconvert", marks=pytest.mark.long)])
def test_stock_runners(stage: Stage, tool: str) -> None:
    """jupyter nbconvert and papermill, as they are, run `%%on` cells on their nodes once the environment is up."""
    require("jupyter" if tool == "nbconvert" else tool)
    notebook(stage, cell("x = 1"), cell(f"%%on server\n{HOSTNAME}"), cell("%%on client --lang bash\nhostname"))
    stage.run("up")
    argv = {
        "nbconvert": ["jupyter", "nbconvert", "--execute", "--to", "notebook", "--output", "done.ipynb", "study.ipynb"],
        "papermill": ["papermill", "--no-progress-bar", "study.ipynb", "done.ipynb"],
    }[tool]
    argv[0] = str(BIN / argv[0])
    done = subprocess.run(argv, cwd=stage.folder, env=stage.env, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    output = said(stage.folder / "done.ipynb")
    assert output[1] == "server\n"
    assert "client-1" in output[2]
    # a stock runner neither grows nor tears down
    stage.run("exec", "server", "true")


def test_stock_runner_without_an_environment(stage: Stage) -> None:
    """A `%%on` cell where nothing is up is an error that says `wardian up`; nothing runs here in its place, and nothing is grown."""
    notebook(stage, cell("%%on server\nopen('/tmp/should-not-be', 'w')"))
    argv = [str(BIN / "jupyter"), "nbconvert", "--execute", "--to", "notebook", "--output", "done.ipynb", "study.ipynb"]
    done = subprocess.run(argv, cwd=stage.folder, env=stage.env, capture_output=True, text=True, timeout=150)
    assert done.returncode != 0
    assert "wardian up" in done.stderr
    assert not Path("/tmp/should-not-be").exists()
    assert stage.environments() == []
