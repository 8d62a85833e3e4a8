"""The record of real runs: what the journal, here in PostgreSQL, knows of two runs on real nodes, and that no secret is in it."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest

from wardian.journal import Journal

from .. import postgres
from ..journal.databases import everything
from ..stage import Stage, make_stage, require
from .test_runner import cell

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

TOKEN = "ghp_" + "a1B2" * 9
PLANTED = [f"planted-{number}" for number in ("one", "two", "three", "four", "five", "six", "seven")]
SECRETS = (*PLANTED, TOKEN, "MIIEplanted")

EXPERIMENT = """
name: NAME
parameters: {clients: 1, api_token: planted-one}
networks: {lan: {}}
nodes:
  server: {networks: [lan], env: {DB_PASSWORD: planted-two}, files: {serve.txt: /root/serve.txt}}
  client: {networks: [lan], count: "${clients}"}
services:
  web: {on: server, command: [sleep, "1000"], env: {AUTH_TOKEN: planted-three}}
collect: [{on: client, path: /root/out.txt}]
"""

CELLS = [
    cell("label = 'plain'\nsecret = ''", tags=["parameters"]),
    cell("password = 'planted-four'\nprint({'password': password})"),
    cell("%%on server --lang bash\nenv; echo -----BEGIN RSA PRIVATE KEY-----; echo MIIEplanted"),
    cell("%%on client --lang bash\nhostname > /root/out.txt; echo number 1"),
    cell(f"import os\nprint(os.environ['MY_API_KEY'], '{TOKEN}')"),
    cell("import wardian\nwith wardian.Environment('experiment.yaml') as here:\n    here.fault.pause('client', duration='100ms').undo()"),
]


def run(stage: Stage, *arguments: str) -> None:
    stage.run("run", "study.ipynb", *arguments, timeout=200)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, server: postgres.Server) -> Iterator[Stage]:
    """A folder of git's in which two runs were recorded, the second with another client and a changed cell."""
    require("git")
    stage = make_stage(tmp_path_factory.mktemp("recorded"))
    stage.env |= {"WARDIAN_JOURNAL": server.url(server.database()), "MY_API_KEY": "planted-five", "GIT_CONFIG_GLOBAL": "/dev/null"}
    stage.write(EXPERIMENT)
    (stage.folder / "serve.txt").write_text("served\n")
    document = nbformat.v4.new_notebook(cells=[nbformat.from_dict(item) for item in CELLS])
    for number, item in enumerate(document.cells):
        item.id = f"cell{number}"
    document.metadata.kernelspec = {"name": "wardian", "display_name": "Python 3 (Wardian)", "language": "python"}
    nbformat.write(document, stage.folder / "study.ipynb")
    (stage.folder / ".gitignore").write_text(".wardian\nout\n")
    remote = ["remote", "add", "origin", "https://me:planted-six@example.org/x.git"]
    author = ["-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*author, "commit", "-q", "-m", "x"], remote):
        subprocess.run(["git", *command], cwd=stage.folder, env=stage.env, check=True, timeout=60)
    run(stage, "-p", "secret=planted-seven")
    document.cells[3].source = document.cells[3].source.replace("number 1", "number 2")
    nbformat.write(document, stage.folder / "study.ipynb")
    run(stage, "-p", "clients=2", "-p", "secret=planted-seven")
    yield stage
    stage.close()


def facts(shown: dict[str, Any]) -> dict[tuple[str | None, str], Any]:
    return {(fact["node"], fact["name"]): fact["value"] for fact in shown["facts"]}


def test_what_was_asked_for(recorded: Stage) -> None:
    """The first run has the file's and the notebook's text, the parameters, the commit, the plan, versions and declared files."""
    shown = recorded.json("show", "last~1", "--json")
    known = facts(shown)
    detail = shown["run"]["detail"]
    assert shown["run"]["status"] == "ok"
    assert detail["provider"] == "local"
    assert detail["parameters"]["clients"] == 1
    assert "count:" in known[None, "experiment"]["text"]
    assert "hostname > /root/out.txt" in json.dumps(known[None, "notebook"]["document"])
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=recorded.folder, capture_output=True, text=True, timeout=60).stdout.strip()
    assert (known[None, "git"]["commit"], known[None, "git"]["dirty"], known[None, "git"]["branch"]) == (head, False, "main")
    assert {"environment", "node", "service"} <= {item["kind"] for item in known[None, "plan"]["operations"]}
    assert {"wardian", "ipykernel", "sqlalchemy"} <= set(known[None, "versions"])
    assert list(known[None, "read"]) == ["serve.txt"]
    assert [path.rpartition("/")[2] for path in known[None, "written"]] == ["study.ipynb"]
    (copied,) = [entry for entry in shown["entries"] if entry["kind"] == "transfer"]
    assert (copied["nodes"], copied["detail"]["source"], len(copied["detail"]["sha256"])) == (["client[0]"], "/root/out.txt", 64)


def test_what_ran_where(recorded: Stage) -> None:
    """Nodes and home have their kernel and packages, cells where they ran; growing, faults and the end are part of the run."""
    shown = recorded.json("show", "--json")
    known = facts(shown)
    for node in ("server", "client[0]", "client[1]", None):
        assert known[node, "machine"]["kernel"] == f"Linux {platform.release()}"
        assert known[node, "packages.dpkg"]
        assert known[node, "python"]["version"]
    cells = {entry["detail"]["cell"]: entry["nodes"] for entry in shown["entries"] if entry["kind"] == "cell"}
    assert (cells["cell1"], cells["cell2"], cells["cell3"]) == ([], ["server"], ["client[0]", "client[1]"])
    happened = [entry["summary"] for entry in shown["entries"]]
    assert any(line.startswith("create node") for line in happened)
    assert any(line.startswith("fault.begun: pause") for line in happened)
    assert any(line.startswith("fault.ended: pause") for line in happened)
    assert any(line.startswith("delete environment") for line in happened)
    text = recorded.run("show").stdout
    assert re.search(r"^client\[1\] .* dpkg", text, re.M), text
    assert re.search(r"^cell3 +ok .*client\[0:2\]", text, re.M), text
    assert "\x1b" not in text
    assert "1 files changed since" in text


def test_runs_and_their_filters(recorded: Stage) -> None:
    """Both runs are listed, with their parameters; filters narrow, and tab completion offers them with what they are."""
    text = recorded.run("runs").stdout
    assert len(re.findall(r"ok +local .*study\.ipynb", text)) == 2
    assert [run["detail"]["parameters"]["clients"] for run in recorded.json("runs", "--json")] == [1, 2]
    assert recorded.json("runs", "--json", "--status", "failed") == []
    assert len(recorded.json("runs", "--json", "-n", "1", "--since", "1d", "--notebook", "study")) == 1
    ids = [run["id"] for run in recorded.json("runs", "--json")]
    env = {"_WARDIAN_COMPLETE": "bash_complete", "COMP_WORDS": f"wardian show {ids[0][-8:-4]}", "COMP_CWORD": "2"}
    assert recorded.run(env=env).stdout.strip() == f"plain,{ids[0][-8:]}"
    assert "no run 'nothing'" in recorded.error("show", "nothing", code=8)


def test_diff(recorded: Stage) -> None:
    """What was changed is found and nothing else that matters: parameter, node, cell, notebook's commit; exit code 1, and 0 for itself."""
    text = recorded.run("diff", "last~1", code=1).stdout
    assert re.search(r"clients: 1 → 2", text), text
    assert "client[1]: exists: none → there" in text
    assert "+hostname > /root/out.txt; echo number 2" in text
    found = recorded.json("diff", "last~1", "last", "--json", code=1)
    parts = {(item["part"], item["what"]) for item in found["differences"] if item["part"] not in ("cell", "duration")}
    assert parts >= {("parameters", "clients"), ("node", "exists"), ("commit", "changed")}
    assert not any(what.startswith("packages") for _, what in parts)
    assert {item["where"].split(":")[0] for item in found["differences"] if item["what"] == "source"} == {"cell3"}
    assert "Nothing differs." in recorded.run("diff", "last", "last", code=0).stdout


def test_prov(recorded: Stage) -> None:
    """`show --prov -o` writes a document that names the notebook, the nodes and the agents."""
    recorded.run("show", "--prov", "-o", "run.prov.json")
    document = json.loads((recorded.folder / "run.prov.json").read_text())
    assert {"agent", "activity", "entity", "used", "wasGeneratedBy", "wasAssociatedWith"} <= set(document)
    assert "-o is for --prov" in recorded.error("show", "-o", "x", code=2)


def test_no_secret_is_in_the_journal(recorded: Stage) -> None:
    """Secrets in the file, parameters, variables of nodes, services and this process, sources, outputs and git are nowhere in it."""
    kept = everything(recorded.env["WARDIAN_JOURNAL"])
    for secret in SECRETS:
        assert secret.encode() not in kept, secret
    with Journal.open(recorded.env["WARDIAN_JOURNAL"]) as journal:
        assert journal.show("last").fact("git")["remote"] == "https://[redacted]@example.org/x.git"
    assert not (recorded.folder / ".wardian" / "journal.db").exists()


def test_removing(recorded: Stage) -> None:
    """`runs rm` takes ids, --keep and --older, asks unless -y, and leaves the rest."""
    assert "say which runs" in recorded.error("runs", "rm", code=2)
    assert "say yes with -y" in recorded.error("runs", "rm", "--keep", "1", code=2)
    assert recorded.json("runs", "rm", "--older", "1d", "--json", "-y")["runs"] == []
    last = recorded.json("runs", "--json")[-1]["id"]
    assert "removed 1 runs" in recorded.run("runs", "rm", "--keep", "1", "-y").stdout
    assert [run["id"] for run in recorded.json("runs", "--json")] == [last]
    recorded.run("show", last[-8:])
