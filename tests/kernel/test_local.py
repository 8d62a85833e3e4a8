"""The kernel as it is installed, on nodes of the local provider, run headless by nbclient."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from .conftest import lanes

pytestmark = [pytest.mark.root, pytest.mark.slow]

EXPERIMENT = """
name: kernel-test
networks: {lan: {}}
nodes:
  server: {networks: lan}
  client: {count: 2, networks: lan}
  spare: {count: 0, networks: lan}
"""


def wardian(folder: Path, *arguments: str) -> None:
    subprocess.run([Path(sys.executable).with_name("wardian"), *arguments], cwd=folder, check=True, capture_output=True, timeout=90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of an experiment that is up."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    wardian(folder, "up", "-y")
    yield folder
    wardian(folder, "down", "-y")


def execute(folder: Path, *cells: str, allow_errors: bool = False) -> list[nbformat.NotebookNode]:
    """Run cells as a stock headless runner does, and give them with their outputs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(
        notebook, timeout=90, kernel_name="wardian", resources={"metadata": {"path": str(folder)}}, allow_errors=allow_errors
    )
    client.execute()
    return client.nb.cells


def text(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_a_stock_headless_run(folder: Path) -> None:
    """Cells bound by a line run on their nodes, in Python and bash, reach each other by name, and values come home."""
    cells = execute(
        folder,
        "%%on client\nimport socket\nprint(socket.gethostname())",
        "%%on client[1] --lang bash\nping -c 1 -q server > /dev/null && echo reached $HOSTNAME",
        "%%on server\nimport socket\nname = socket.gethostname()",
        "%get name --from server",
        "import wardian\nname, wardian.results",
    )
    assert lanes(text(cells[0])) == {"client[0]": "client-0\n", "client[1]": "client-1\n"}
    assert text(cells[1]) == "reached client-1\n"
    assert text(cells[4]) == "('server', <results: server>)"


def test_a_headless_run_stops_at_an_error(folder: Path) -> None:
    """An error on a node ends the run as one at home does, and says where it was."""
    with pytest.raises(CellExecutionError, match="ZeroDivisionError") as caught:
        execute(folder, "%%on server\n1/0")
    assert "server" in caught.value.traceback


def test_a_group_without_nodes(folder: Path) -> None:
    """A cell on a group that has no node now is an error that says so, also right after the nodes were read."""
    cells = execute(folder, "%%on client --lang bash\ntrue", "%%on spare\n1", allow_errors=True)
    error = cells[1].outputs[-1]
    assert "'spare' picks no node" in error.evalue
    assert "client[0]" in "".join(error.traceback)


def test_everything_on_a_node_dies(folder: Path) -> None:
    """When all processes of a node are killed under its cell the error comes at once, and the next cell runs."""
    cells = execute(
        folder,
        "%%on client\nimport os\nif 'client-0' == os.uname().nodename: os.kill(-1, 9)",
        "%%on client\nprint('again')",
        allow_errors=True,
    )
    error = cells[0].outputs[-1]
    assert error.ename == "NodeErrors"
    assert error.evalue.startswith("client[0]: ")
    assert lanes(text(cells[1])) == {"client[0]": "again\n", "client[1]": "again\n"}
