"""Values between home and nodes: %get, %put and the last results."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Notebook

pytestmark = pytest.mark.slow

RESULTS = "from wardian.kernel.results import results\n"


@pytest.mark.parametrize(
    ("make", "check"),
    [
        ("{'a': (1, 2.5), 'b': [None, 'ü']}", "v == {'a': (1, 2.5), 'b': [None, 'ü']}"),
        ("2**100", "v == 2**100"),
        ("bytes(range(256))", "v == bytes(range(256))"),
        ("__import__('numpy').arange(400_000.0)", "v.sum() == 79999800000.0 and str(v.dtype) == 'float64'"),
        ("__import__('pandas').DataFrame({'a': [1, 2], 'b': ['x', None]})", "v.a.sum() == 3 and v.b.isna().sum() == 1"),
        ("__import__('pandas').Series([1.0], name='s')", "v.name == 's'"),
    ],
)
def test_there_and_back(notebook: Notebook, make: str, check: str) -> None:
    """Each kind of value goes to a node and comes back as it was."""
    notebook.run(f"v = {make}")
    assert notebook.run("%put v as there --to server").status == "ok"
    assert notebook.run(f"%%on server\nv = there\n{check}").value.strip("np.()") in ("True", "True_")
    notebook.run("del v")
    got = notebook.run("%get there as v --from server")
    assert got.status == "ok", got.traceback
    assert "True" in notebook.run(check).value


def test_several_nodes(notebook: Notebook) -> None:
    """From several nodes comes a dict by node; to several goes the same value."""
    notebook.run("n = 7")
    notebook.run("%put n --to client")
    notebook.run("%%on client\nimport os; mine = (n, os.environ['WARDIAN_TEST_NODE'])")
    notebook.run("%get mine --from client")
    assert notebook.run("mine").value == "{'client[0]': (7, 'client[0]'), 'client[1]': (7, 'client[1]')}"


def test_bash_variables(notebook: Notebook) -> None:
    """A bash variable comes home as text, to the last line end, and text goes there, whatever is in it."""
    notebook.run("text = \"a 'b' $HOME `x`\\n\\n\"")
    notebook.run("%put text as TEXT --to server --lang bash")
    assert notebook.run('%%on server --lang bash\nprintf %s "$TEXT"').text() == "a 'b' $HOME `x`\n\n"
    notebook.run("%get TEXT as back --from server --lang bash")
    assert notebook.run("back == text").value == "True"


def test_files(notebook: Notebook, tmp_path: Path) -> None:
    """A path in place of a name copies a file: there under a name of its own, and back from several nodes into a folder of each."""
    (tmp_path / "data.csv").write_text("a,b\n")
    notebook.run(f"import os; os.chdir({str(tmp_path)!r})")
    sent = notebook.run(f"%put ./data.csv as {tmp_path}/there.csv --to server")
    assert sent.status == "ok", sent.traceback
    assert "1 file, 4 bytes" in sent.text()
    assert (tmp_path / "there.csv").read_text() == "a,b\n"
    assert notebook.run(f"%get {tmp_path}/there.csv as back --from client").status == "ok"
    assert [(tmp_path / "back" / node / "there.csv").read_text() for node in ("client[0]", "client[1]")] == ["a,b\n"] * 2
    assert "nothere" in notebook.run("%get /nothere --from server").reply["evalue"]


def test_what_cannot_be_moved(notebook: Notebook) -> None:
    """A value without an exact form is refused both ways, naming its type; a name that does not exist is named."""
    notebook.run("%%on server\nopened = open('/dev/null')")
    assert "TextIOWrapper" in notebook.run("%get opened --from server").error
    notebook.run("opened = open('/dev/null')")
    assert "TextIOWrapper" in notebook.run("%put opened --to server").error
    assert "no variable 'nowhere'" in notebook.run("%get nowhere --from server").error
    assert "no variable 'NOWHERE'" in notebook.run("%get NOWHERE --from server --lang bash").error
    assert "no variable 'nowhere'" in notebook.run("%put nowhere --to server").error


def test_nothing_is_left_behind(notebook: Notebook) -> None:
    """No file of a moved value stays on the node or at home."""
    notebook.run("n = 1")
    notebook.run("%put n --to server")
    notebook.run("%get n as m --from server")
    assert list((notebook.nodes / "server" / "values").iterdir()) == []
    notebook.run("import os, pathlib; folder = pathlib.Path(os.environ['WARDIAN_KERNEL_SOCKET']).parent")
    assert notebook.run("[path.name for path in folder.iterdir() if len(path.name) == 16]").value == "[]"


def test_mistakes_in_magics(notebook: Notebook) -> None:
    """A magic that is not understood says how it is written."""
    assert "--from SELECTOR" in notebook.run("%get x").error
    assert "--to SELECTOR" in notebook.run("%put x --from server").error
    assert "nowhere" in notebook.run("%get x --from nowhere").error


def test_results_of_python(notebook: Notebook) -> None:
    """`results` holds what the last cell on nodes gave, by node."""
    notebook.run("%%on client\nimport os\n[os.environ['WARDIAN_TEST_NODE']]")
    assert notebook.run(RESULTS + "dict(results)").value == "{'client[0]': ['client[0]'], 'client[1]': ['client[1]']}"
    notebook.run("%%on server\n40 + 2")
    assert notebook.run(RESULTS + "list(results), results['server']").value == "(['server'], 42)"
    assert "KeyError" in notebook.run(RESULTS + "results['client[0]']").error


def test_results_of_bash(notebook: Notebook) -> None:
    """Of a bash cell `results` holds what it printed."""
    notebook.run("%%on server --lang bash\necho one; echo two")
    assert notebook.run(RESULTS + "results['server']").value == "'one\\ntwo\\n'"


def test_results_of_a_failed_node(notebook: Notebook) -> None:
    """A node that failed is marked so, and has no value."""
    notebook.run("%%on client\nimport os\n1 / (os.environ['WARDIAN_TEST_NODE'] == 'client[0]')")
    assert notebook.run(RESULTS + "repr(results)").value == "'<results: client[0], client[1] (failed)>'"
    assert "failed there" in notebook.run(RESULTS + "results['client[1]']").error
