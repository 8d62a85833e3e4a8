"""The first five minutes: the demo, the notebook that teaches by doing, and what doctor's findings lead to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from wardian.providers.base import Finding

from ..stage import Stage

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "doctor.md").read_text()


@pytest.mark.root
@pytest.mark.timeout(300)
def test_the_demo_teaches_by_doing(stage: Stage) -> None:
    """`wardian demo` writes and runs the getting-started experiment: cells switch nodes, a line gets slower, breaks and is mended."""
    stage.run("demo", timeout=280)
    stage.assert_nothing_left()
    folder = stage.folder / "getting-started"
    assert (folder / "out" / "getting-started.html").is_file()
    cells = {cell.id: cell for cell in nbformat.read(folder / "out" / "getting-started.ipynb", as_version=4).cells}

    def said(cell: str) -> str:
        return "".join(output.get("text", "") or output["data"]["text/plain"] for output in cells[cell].outputs)

    assert "client-0" in said("there")
    assert "client-1" in said("there")
    assert "I am server" in said("shell")
    before, after = zip(*re.findall(r"client\[\d\]: ([\d.]+) ms before, ([\d.]+) ms now", said("compare")), strict=True)
    # 20 ms each way, then 60: a busy host makes them longer, never shorter
    assert all(float(item) >= 40 for item in before)
    assert all(float(item) >= 120 for item in after)
    assert "not reached: timed out" in said("broken")
    assert "reached again" in said("mended")
    assert "not reached" not in said("mended")
    assert "come back after two" in said("diff")


def test_every_finding_has_its_section() -> None:
    """What `wardian doctor` can find has a heading in the documentation, and the finding names it."""
    headings = {line.removeprefix("### ") for line in PAGE.splitlines() if line.startswith("### ")}
    found = set()
    for path in (REPOSITORY / "src" / "wardian" / "providers").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("Finding", "_finding") and call.args:
                what = call.args[0]
                found |= {what.value} if isinstance(what, ast.Constant) else set()
    found.discard("memory")
    assert len(found) > 12
    assert found <= headings
    assert Finding("delay and loss of links (netem)", "limited", "").page == "docs/doctor.md#delay-and-loss-of-links-netem"
