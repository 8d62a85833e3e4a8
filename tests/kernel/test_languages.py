"""Cells in whatever a node has: an old Python with nothing installed, no Python at all, a kernel of another language."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from tests import images
from tests.stage import Stage, make_stage, require

from .conftest import TIMEOUT, Notebook, lanes

pytestmark = [pytest.mark.root, pytest.mark.slow]

EXPERIMENT = """
name: NAME
networks: {lan: {}}
nodes:
  old: {image: OLD, count: 2}
  bare: {image: BARE}
  tiny: {image: TINY}
  bashless: {image: LESS}
  plain: {}
  named: {python: PYTHON}
  wrong: {python: /no/such/python}
"""


class LocalNotebook(Notebook):
    """A notebook in the folder of an experiment that is up."""

    def __init__(self, stage: Stage) -> None:
        self.manager = KernelManager()
        self.manager._kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "wardian.kernel", "-f", "{connection_file}"], interrupt_mode="message", language="python"
        )
        self.manager.start_kernel(cwd=str(stage.folder), env=stage.env)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An experiment with a node of each kind, up."""
    places = {"OLD": images.python39(), "BARE": images.without_python(bash=True), "TINY": images.without_python(bash=False)}
    places["LESS"] = images.python39(bash=False)
    stage = make_stage(tmp_path_factory.mktemp("languages"))
    text = EXPERIMENT.replace("PYTHON", os.path.realpath(sys.executable))
    for name, path in places.items():
        text = text.replace(name, str(path))
    stage.write(text)
    stage.run("up", "-y")
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def shared(stage: Stage) -> Iterator[LocalNotebook]:
    notebook = LocalNotebook(stage)
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(shared: LocalNotebook) -> LocalNotebook:
    return shared


def test_what_a_kernel_needs_is_added_beside_an_old_python(notebook: LocalNotebook) -> None:
    """A node with nothing but Python 3.9 and no internet runs Python cells in it; the cell says what is being added, once."""
    code = "%%on old\nimport sys; print(sys.version_info[:2], sys.executable)"
    first = notebook.run(code)
    assert first.status == "ok", first.error
    printed = lanes(first.text(), ["old[0]", "old[1]"])
    assert printed == {f"old[{index}]": "(3, 9) /usr/bin/python3\n" for index in (0, 1)}
    assert all(f"node old[{index}]: adding what a Python kernel needs" in first.text("stderr") for index in (0, 1))
    notebook.run("%restart old[0]")
    again = notebook.run(code)
    assert again.status == "ok", again.error
    assert again.text("stderr") == ""


def test_an_old_python_is_a_whole_kernel(notebook: LocalNotebook) -> None:
    """Results, errors, values and interrupts are on Python 3.9 what they are anywhere."""
    assert notebook.run("%%on old[0]\nkept = 41\nkept + 1").value == "42"
    failed = notebook.run("%%on old[0]\n1 / 0")
    assert (failed.reply["ename"], "old[0]" in failed.traceback) == ("ZeroDivisionError", True)
    number = notebook.send("%%on old[0]\nimport time\nprint('go', flush=True)\ntime.sleep(60)")
    notebook.printed(number, "go")
    notebook.interrupt()
    assert notebook.result(number).reply["ename"] == "KeyboardInterrupt"
    assert notebook.run("%get kept --from old[0]").status == "ok"
    assert notebook.run("kept").value == "41"


def test_the_nodes_own_packages_are_the_ones_that_count(notebook: LocalNotebook) -> None:
    """Cells import what is installed on the node, also what the kernel needs itself, as long as its version will do."""
    install = r"""%%on old[1] --lang bash
    mkdir -p /usr/local/lib/python3.9/dist-packages; cd /usr/local/lib/python3.9/dist-packages
    echo 'whose = "the node"' | tee own.py tzdata.py >/dev/null
    for it in own-1 tzdata-2030.1; do
      mkdir $it.dist-info
      printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' ${it%-*} ${it#*-} > $it.dist-info/METADATA
    done"""
    assert notebook.run(install).status == "ok"
    assert notebook.run("%restart old[1] --lang python").status == "ok"
    assert notebook.run("%%on old[1]\nimport own, tzdata\nown.whose, tzdata.whose").value == "('the node', 'the node')"
    assert "/wardian/packages/" in notebook.run("%%on old[1]\nimport IPython; IPython.__file__").value


def test_nothing_is_left_on_the_path_of_what_cells_start(notebook: LocalNotebook) -> None:
    """What was added for the kernel is not seen by other programs: a Python that a cell starts has the node's packages alone."""
    code = "import subprocess; subprocess.run(['python3', '-c', 'import IPython'], stderr=subprocess.PIPE).returncode"
    assert notebook.run(f"%%on old[0]\n{code}").value == "1"


@pytest.mark.parametrize("node", ["bare", "tiny", "bashless"])
class TestBareShells:
    """Nodes whose shell runs without an agent: bash, busybox and dash."""

    def test_shell_cells(self, notebook: LocalNotebook, node: str) -> None:
        """A shell cell runs without Python on the node: outputs are apart, variables and folder stay, the status is the cell's."""
        result = notebook.run(f"%%on {node} --lang bash\ncd /usr/share; V='a  b'; echo out; echo err >&2; printf 'no end'")
        assert result.status == "ok", result.error
        assert result.text() == "out\nno end"
        assert result.text("stderr").endswith("err\n")
        result = notebook.run(f"%%on {node} --lang bash\npwd; echo \"$V\" 'quoted'\nfor i in 1 2; do echo $i; done; (exit 7)")
        assert result.text() == "/usr/share\na  b quoted\n1\n2\n"
        assert (result.reply["ename"], result.reply["evalue"]) == ("ExitCode", "7")
        assert notebook.run(f"%%on {node} --lang bash\ncat; echo $?").text() == "0\n"

    def test_it_is_said_what_is_lacking(self, stage: Stage, node: str) -> None:
        """The first cell says that nothing is kept of what the shell prints while nobody is there."""
        lacking = "bash" if node == "bashless" else "Python"
        own = LocalNotebook(stage)
        try:
            assert f"{node} has no {lacking}" in own.run(f"%%on {node} --lang bash\ntrue").text("stderr")
            assert own.run(f"%%on {node} --lang bash\ntrue").text("stderr") == ""
        finally:
            own.close()

    def test_mistakes_do_not_end_the_shell(self, notebook: LocalNotebook, node: str) -> None:
        """After a mistake in the grammar, an unset variable or an unknown command the next cell finds the same shell."""
        notebook.run(f"%%on {node} --lang bash\nkept=here")
        for mistake in ("if then", "echo 'open", "no-such-command-anywhere", "echo ${none:?missing}", "set -o nonsense"):
            result = notebook.run(f"%%on {node} --lang bash\n{mistake}")
            assert result.status == "error", mistake
            assert result.text("stderr").strip(), mistake
        assert notebook.run(f"%%on {node} --lang bash\necho $kept").text() == "here\n"

    def test_interrupt(self, notebook: LocalNotebook, node: str) -> None:
        """An interrupt abandons the cell and keeps the shell."""
        notebook.run(f"%%on {node} --lang bash\nkept=still")
        number = notebook.send(f"%%on {node} --lang bash\necho go; sleep 60; echo not reached")
        notebook.printed(number, "go")
        notebook.interrupt()
        result = notebook.result(number)
        assert result.reply["ename"] == "KeyboardInterrupt"
        assert "not reached" not in result.text()
        assert notebook.run(f"%%on {node} --lang bash\necho $kept").text() == "still\n"

    def test_a_shell_that_ends_is_replaced(self, notebook: LocalNotebook, node: str) -> None:
        """A cell that ends the shell is reported with its status, and the next cell has a new one."""
        result = notebook.run(f"%%on {node} --lang bash\ngone=1; exit 3")
        assert result.reply["evalue"] == "3"
        assert notebook.run(f"%%on {node} --lang bash\necho [$gone]").text() == "[]\n"

    def test_much_output(self, notebook: LocalNotebook, node: str) -> None:
        """What a shell prints comes complete and in order."""
        loop = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        result = notebook.run(f"%%on {node} --lang bash\n{loop}")
        assert result.text() == "".join(f"line {index}\n" for index in range(20000))

    def test_python_cells(self, notebook: LocalNotebook, node: str) -> None:
        """A Python cell is an error that says what to do where there is no Python, and runs where there is one."""
        result = notebook.run(f"%%on {node}\n1")
        if node == "bashless":
            assert result.value == "1"
            return
        assert "no Python was found" in result.error
        assert "bash cells need none" in result.error


def test_the_interpreter_that_the_file_names(notebook: LocalNotebook) -> None:
    """`python:` decides which interpreter runs a node's cells; what it lacks is added, and its programs come first."""
    python = os.path.realpath(sys.executable)
    result = notebook.run("%%on named\nimport sys, os; print(sys.executable, os.environ['PATH'].split(':')[0])")
    assert result.status == "ok", result.error
    assert result.text() == f"{python} {os.path.dirname(python)}\n"
    assert notebook.run("%%on plain\nimport sys; print(sys.executable)").text() == f"{sys.executable}\n"


def test_an_interpreter_that_is_not_there(notebook: LocalNotebook) -> None:
    """A node whose `python:` does not exist says so, and which field to correct; its bash cells run."""
    result = notebook.run("%%on wrong\n1")
    assert "the node has no interpreter /no/such/python" in result.error
    assert "`python:`" in result.error
    assert notebook.run("%%on wrong --lang bash\necho fine").text() == "fine\n"


def test_a_kernel_of_another_language(notebook: LocalNotebook) -> None:
    """R is found by its kernelspec's name or its language; it prints, fails, is interrupted, and keeps its variables."""
    require("R")
    assert "[1] 42" in notebook.run("%%on plain --lang ir\nx <- 6 * 7\nprint(x)").text()
    number = notebook.send("%%on plain --lang ir\ncat('go\\n')\nSys.sleep(60)")
    notebook.printed(number, "go")
    notebook.interrupt()
    assert notebook.result(number).reply["ename"] == "KeyboardInterrupt"
    assert "[1] 43" in notebook.run("%%on plain --lang ir\nprint(x + 1)").text()
    failed = notebook.run("%%on plain --lang ir\nstop('on purpose')")
    assert failed.status == "error"
    assert "on purpose" in failed.traceback
    assert notebook.run("%%on plain --lang R\n1").status == "ok"


def test_a_reply_says_what_language_it_was(notebook: LocalNotebook) -> None:
    """A reply's metadata names the language of cells that are not Python, as the kernel there calls it."""
    cells = ("plain\n1", "plain --lang bash\ntrue")
    where = [notebook.run(f"%%on {cell}").message["metadata"]["wardian"].get("language") for cell in cells]
    assert where == [None, {"name": "bash", "mimetype": "text/x-sh", "file_extension": ".sh"}]
    where = notebook.run("%%on plain --lang ir\n1").message["metadata"]["wardian"]
    assert where["language"] == {"name": "R", "mimetype": "text/x-r-source", "file_extension": ".r"}


def test_an_unknown_language_names_those_there_are(notebook: LocalNotebook) -> None:
    """A language that the node has no kernel for is an error with the names of those that it has."""
    result = notebook.run("%%on plain --lang cobol\n1")
    assert "there is no kernel for 'cobol'; there are python, bash" in result.error
