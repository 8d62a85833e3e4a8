"""`wardian replay` on real nodes: what has not changed is equal, and what has is caught and located."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest

from ..stage import Stage, make_stage

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(240)]

EXPERIMENT = """
name: NAME
parameters: {clients: 2, delay: 20ms}
networks: {east: {}, west: {}}
links: {wan: {between: [east, west], delay: "${delay}"}}
nodes:
  server: {networks: [east]}
  client: {count: "${clients}", networks: [west]}
replay: {ignore: ['session \\w+']}
"""

CELLS = {
    "parameters": "factor = 3",
    "begin": "import datetime, random, secrets\nrandom.seed(7)\nprint('begun', datetime.datetime.now(), 'session', secrets.token_hex(4))",
    "draw": "print('drawn', [random.randrange(1000) for _ in range(3)], 'times', factor)",
    "nodes": "%%on client,server\nimport os, socket, tempfile\nprint(socket.gethostname(), tempfile.mkdtemp(), 'pid', os.getpid())\n6 * 7",
    "library": "import measuring\nprint('scaled', measuring.scale(2.5))",
    "rtt": "%%on client --lang bash\n#| tolerance: 25%\nping -q -i 0.2 -c 5 server | sed -n 's/^rtt.*= \\([0-9.]*\\).*/fastest \\1 ms/p'",
}


def write(stage: Stage, **changed: str | None) -> None:
    """Write the notebook, some of its cells with another source, or left out (None)."""
    document = nbformat.v4.new_notebook()
    document.metadata.kernelspec = {"name": "wardian", "display_name": "Python 3 (Wardian)", "language": "python"}
    for name, source in (CELLS | changed).items():
        if source is not None:
            cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]} if name == "parameters" else {})
            cell.id = name
            document.cells.append(cell)
    nbformat.write(document, stage.folder / "study.ipynb")


def install(stage: Stage, version: str, factor: int) -> None:
    """Put a library where home finds it."""
    folder = stage.folder / "lib"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / f"measuring-{version}.dist-info").mkdir(parents=True)
    (folder / "measuring.py").write_text(f"def scale(value):\n    return {factor} * value\n")
    stage.env["PYTHONPATH"] = str(folder)


def replay(stage: Stage, *arguments: str, code: int = 0, target: str = "study.ipynb") -> dict[str, Any]:
    found: dict[str, Any] = stage.json("replay", target, "--json", *arguments, code=code, timeout=220)
    return found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {cell["cell"]: cell["verdict"] for cell in found["cells"]}


def bad(found: dict[str, Any]) -> dict[str, str]:
    return {name: verdict for name, verdict in verdicts(found).items() if verdict not in ("identical", "equal")}


def findings(found: dict[str, Any], cell: str) -> list[dict[str, Any]]:
    return [item for entry in found["cells"] if entry["cell"] == cell for item in entry["findings"] if item["verdict"] == "different"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A folder where the notebook was run once; tests change what they like, and find it as it was."""
    stage = make_stage(tmp_path_factory.mktemp("recorded"))
    stage.write(EXPERIMENT)
    write(stage)
    install(stage, "1.0", 2)
    stage.run("run", "study.ipynb", "--set", "isolation=namespaces", timeout=200)
    yield stage
    stage.close()


@pytest.fixture
def study(recorded: Stage) -> Stage:
    """The folder with the experiment as it was recorded."""
    recorded.write(EXPERIMENT)
    write(recorded)
    install(recorded, "1.0", 2)
    return recorded


def test_unchanged_is_equal(study: Stage) -> None:
    """An experiment that has not changed replays as equal, beside one that is up, which stays; the page and JSON are there."""
    study.run("up")
    done = study.run("replay", "study.ipynb", "--report", "reports/page.html", timeout=220)
    assert "'default' is up" in study.error("replay", "study.ipynb", "-e", "default", code=9, timeout=100)
    study.run("exec", "server", "true")
    study.run("down")
    assert re.search(r"^equal: \d identical, \d equal; recorded \w{8}, now \w{8}$", done.stdout, re.M), done.stdout
    page = (study.folder / "reports" / "page.html").read_text()
    assert "Replay of study.ipynb" in page
    assert not re.search(r"(src|href)=.?https?:", page)
    data = json.loads((study.folder / "reports" / "page.json").read_text())
    assert bad(data) == {}
    assert not any(item["what"].startswith("settings") for item in data["environment"])
    same = {"parameters": "identical", "begin": "equal", "draw": "identical", "nodes": "equal", "library": "identical"}
    assert same.items() <= verdicts(data).items()
    times = next(cell["times"] for cell in data["cells"] if cell["cell"] == "nodes")
    assert set(times) == {"", "client[0]", "client[1]", "server"}
    assert (study.folder / "out" / "replay" / "study.ipynb").exists()


def test_a_link_delay_doubled_is_caught(study: Stage) -> None:
    """With the link's delay doubled in the file the cell that measures is different on each node, and only the file is blamed."""
    study.edit("delay: 20ms", "delay: 40ms")
    found = replay(study, code=10)
    assert bad(found) == {"rtt": "different"}
    located = {item["place"]["node"]: item for item in findings(found, "rtt")}
    assert set(located) == {"client[0]", "client[1]"}
    assert all(
        item["kind"] == "number" and 1.5 < item["numbers"][1]["value"] / item["numbers"][0]["value"] < 2.5 for item in located.values()
    )
    assert {item["what"] for item in found["environment"]} >= {"experiment file", "parameter delay"}


def test_changes_are_caught(study: Stage) -> None:
    """An edited cell is named with its edit, one that lost its seed by what is drawn, and a library by its version and what it changed."""
    write(study, nodes=CELLS["nodes"].replace("6 * 7", "6 * 8"), begin=CELLS["begin"].replace("random.seed(7)\n", ""))
    install(study, "2.0", 3)
    done = study.run("replay", "study.ipynb", "--report", "page.html", code=10, timeout=220)
    assert "-random.seed(7)" in done.stdout
    assert re.search(r"^  here, stdout, line 1: \d+ → \d+", done.stdout, re.M)
    assert re.search(r"^different: .*4 different; recorded", done.stdout, re.M)
    found = json.loads((study.folder / "page.json").read_text())
    assert bad(found) == dict.fromkeys(("begin", "draw", "nodes", "library"), "different")
    (edited,) = (cell["edited"] for cell in found["cells"] if cell["cell"] == "nodes")
    assert "-6 * 7\n+6 * 8" in edited
    assert {(item["place"]["node"], item["place"]["part"], item["old"], item["new"]) for item in findings(found, "nodes")} == {
        (node, "result", "42", "48") for node in ("client[0]", "client[1]", "server")
    }
    assert [(item["old"], item["new"]) for item in findings(found, "library")] == [("5.0", "7.5")]
    assert {"what": "home packages.pip: measuring", "old": "1.0", "new": "2.0"} in found["environment"]


def test_a_changed_parameter_is_caught(study: Stage) -> None:
    """A recorded run is replayed by its id with its parameters; one that is set otherwise is named, with what it changes."""
    identity = study.json("log", "--kind", "run", "--json")[0]["id"]
    found = replay(study, "-p", "clients=1", "-p", "factor=4", code=10, target=identity[-8:])
    said = {(item["what"], item["old"], item["new"]) for item in found["environment"]}
    assert said >= {("parameter clients", "2", "1"), ("parameter factor", "none", "4")}
    assert {item["place"]["node"] for item in findings(found, "nodes")} == {"client[1]"}
    assert [(item["old"], item["new"]) for item in findings(found, "draw")] == [("3", "4")]
    assert found["recorded"][0]["id"] == identity


def test_a_cell_that_fails_now(study: Stage) -> None:
    """A cell that fails only now is different with its error, cells behind it are missing, and the report is written all the same."""
    write(study, draw="raise ValueError('worn out')")
    found = replay(study, code=10)
    assert bad(found) == {"draw": "different", "nodes": "missing", "library": "missing", "rtt": "missing"}
    assert any("worn out" in item["new"] for item in findings(found, "draw"))
    assert found["failed"]
    assert (study.folder / "out" / "replay" / "study.html").exists()


def test_what_is_refused(study: Stage) -> None:
    """A wrong declaration, a run that is none and a tolerance that is none are one clear error each, and nothing grows."""
    before = study.environments()
    write(study, rtt="%%on client\n#| tolerance: a lot\n1")
    words = study.error("replay", "study.ipynb", code=9, timeout=100)
    assert "code cell 6, line 2: tolerance: expected a tolerance such as 5%" in words
    study.edit("'session \\w+'", "'('")
    words = study.error("replay", "study.ipynb", code=3, timeout=100)
    assert "replay.ignore: wrong value; expected a regular expression" in words
    study.write(EXPERIMENT)
    assert "no run 'nonsense'" in study.error("replay", "nonsense", code=8, timeout=100)
    assert "--tolerance" in study.error("replay", "study.ipynb", "--tolerance", "lots", code=2)
    assert study.environments() == before


def test_completion(study: Stage) -> None:
    """Tab completion offers notebooks here and recorded runs."""
    identity = study.json("log", "--kind", "run", "--json")[0]["id"]

    def offered(words: str) -> list[str]:
        env = {"_WARDIAN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return [line.partition(",")[2] for line in study.run(env=env).stdout.splitlines()]

    assert offered("wardian replay stu") == ["study.ipynb"]
    assert identity[-8:] in offered(f"wardian replay study.ipynb --against {identity[-8:-4]}")


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_false_alarms(study: Stage) -> None:
    """Of twenty replays of an unchanged experiment on the same host at most one says that something is different."""
    codes = []
    for _ in range(20):
        done = study.start("replay", "study.ipynb")
        output, _ = done.communicate(timeout=240)
        codes.append(done.returncode)
        assert done.returncode in (0, 10), output
    print(f"{codes.count(10)} of {len(codes)} replays of what had not changed say that something is different")
    assert codes.count(10) <= 1, codes
