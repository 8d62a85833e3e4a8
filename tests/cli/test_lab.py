"""`wardian lab` and `wardian lease`."""

from __future__ import annotations

import importlib.util
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from wardian.cli import lab
from wardian.errors import MissingToolError

from ..stage import Stage, eventually

pytestmark = pytest.mark.root


@pytest.mark.slow
def test_it_opens_the_experiments_folder(stage: Stage) -> None:
    """From a folder within it, JupyterLab serves the experiment's folder, with Wardian's routes, and takes its own options."""
    stage.write("name: NAME\nnodes: [one]\n")
    (stage.folder / "inner").mkdir()
    private = str(stage.state / "private")
    stage.env |= {"HOME": private, "JUPYTER_CONFIG_DIR": private, "JUPYTER_DATA_DIR": private, "JUPYTER_TOKEN": "secret"}
    stage.env["JUPYTER_CONFIG_PATH"] = str(Path(__file__).parents[2] / "etc" / "jupyter")
    log = stage.state / "lab.log"
    with log.open("wb") as said:
        process = stage.start("lab", "--no-browser", "--ServerApp.port=0", cwd=stage.folder / "inner", stdout=said, stderr=said)
    found = eventually(lambda: re.search(r"http://(?:127\.0\.0\.1|localhost):(\d+)/lab", log.read_text()), "it listens", within=90)
    request = urllib.request.Request(f"http://127.0.0.1:{found[1]}/wardian/api/experiments", headers={"Authorization": "token secret"})

    def answer() -> str:
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return str(reply.read().decode())
        except urllib.error.URLError:
            return ""

    assert f'"name":"{stage.name}"' in eventually(answer, "it answers")
    process.terminate()
    process.wait(60)


def test_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without JupyterLab the error says how to install it, and nothing is started."""
    monkeypatch.setattr(lab, "find_spec", lambda name: None if name == "jupyterlab" else importlib.util.find_spec(name))
    result = CliRunner().invoke(lab.lab_command, [])
    assert isinstance(result.exception, MissingToolError)
    assert result.exception.remedy == "pip install 'wardian[lab]'"


def test_a_lease_is_extended(stage: Stage) -> None:
    """A lease ends later by what is added, earlier by what is taken; `up` brings it back; without one nothing changes."""
    stage.write("name: NAME\nnodes: [one]\nlease: {duration: 1h, at_end: keep}\n")
    stage.run("up")
    before = stage.json("status", "--json")["lease_end"]
    assert stage.json("lease", "extend", "30min", "--json")["lease_end"] == pytest.approx(before + 1800)
    assert stage.json("lease", "shrink", "15min", "--json")["lease_end"] == pytest.approx(before + 900)
    assert "less is left" in stage.error("lease", "shrink", "9h", code=3)
    assert "lease changed" in stage.run("plan").stdout
    assert "soon" in stage.error("lease", "extend", "soon", code=3)
    stage.run("up")
    assert stage.json("status", "--json")["lease_end"] == pytest.approx(before)
    stage.edit("lease: {duration: 1h, at_end: keep}", "")
    stage.run("up")
    assert "no lease" in stage.error("lease", "extend", "30min", code=3)
