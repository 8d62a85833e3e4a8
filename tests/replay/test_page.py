"""The page of a run: all of it in one file, also when only the journal is left."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import sync_playwright

from wardian.errors import RunError
from wardian.journal import Journal, RunRecord
from wardian.replay import page, timeline
from wardian.replay.facts import NOTEBOOK, TOPOLOGY

from ..lab.conftest import FLAGS
from ..stage import require

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fcffff3f0300080302ff9d5c62e90000000049454e44ae426082"
    )
).decode()
GRAPH = {
    "nodes": [
        {"id": "network:lan", "kind": "network", "name": "lan", "state": "ready", "x": 0, "y": 0},
        {"id": "node:server", "kind": "node", "name": "server", "group": "server", "state": "ready", "x": 0, "y": 1},
    ],
    "links": [
        {
            "id": "server/lan",
            "name": "server/lan",
            "kind": "access",
            "source": "node:server",
            "target": "network:lan",
            "state": "ready",
            "text": {"up": "delay 5ms", "down": "-"},
        },
    ],
    "groups": [],
}


def notebook() -> Any:
    """One with a title and cells here and on nodes, that shows what a page has to be careful with."""
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A <study>\n\n![a](https://example.org/x.png)")])
    for name, source in (("home", "print(1)"), ("there", "%%on server,client\nprint('<b>')")):
        document.cells.append(nbformat.v4.new_code_cell(source, id=name))
    return document


@pytest.fixture
def record(tmp_path: Path) -> Iterator[RunRecord]:
    """A run of it in a journal: on two nodes, with a partition, a figure and markup that loads and runs things."""
    document = notebook()
    with Journal.open(tmp_path / "journal.db") as journal:
        run = journal.run(notebook="/gone/study.ipynb", parameters={"delay": "10ms"}, provider="local", environment="study-1a2b")
        cells = [{name: cell[name] for name in ("cell_type", "id", "metadata", "source")} for cell in document.cells]
        journal.fact(NOTEBOOK, {"document": {"metadata": {}, "nbformat": 4, "nbformat_minor": 5, "cells": cells}}, run=run.id)
        journal.fact(TOPOLOGY, GRAPH, run=run.id)
        for name, nodes in (("home", []), ("there", ["server", "client"])):
            source = next(cell.source for cell in document.cells if cell.id == name)
            cell = journal.cell(source=source, cell=name, selector="server,client" if nodes else None, nodes=nodes, run=run.id)
            for node in nodes or [None]:
                cell.output(node, "stream", {"name": "stdout", "text": f"<b>from {node}</b>\n"})
                cell.output(node, "execute_reply", {"status": "ok"})
            cell.done()
            if nodes:
                fault = {"fault": "ab12", "kind": "partition", "summary": "partition server | client"}
                journal.event(environment="study-1a2b", kind="fault.begun", detail=fault)
                journal.event(environment="study-1a2b", kind="fault.ended", detail=fault)
            else:
                figure = {"image/png": PIXEL, "text/plain": "figure"}
                harm = {"text/html": "<script>document.title = 'ran'</script><img id='away' src='https://example.org/y.png'>"}
                for data in (figure, harm):
                    cell.output(None, "display_data", {"data": data, "metadata": {}})
        run.done("ok")
        yield journal.show(run.id)


def test_a_page_of_the_journal_alone(record: RunRecord, tmp_path: Path) -> None:
    """Without the executed notebook the page has outputs, topology and timeline, and a browser loads and runs nothing for it."""
    path = tmp_path / "page.html"
    path.write_text(page.to_html(page.of_run(record), "study", record), encoding="utf-8")
    program = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        for scheme in ("light", "dark"):
            context = browser.new_context(offline=True, color_scheme=scheme)
            shown = context.new_page()
            done, refused = [], {}
            shown.on("requestfinished", lambda request, done=done: done.append(request.url))
            shown.on("requestfailed", lambda request, refused=refused: refused.update({request.url: request.failure}))
            shown.goto(path.as_uri())
            # by what the page says of itself, not for want of a network
            assert refused == dict.fromkeys(("https://example.org/x.png", "https://example.org/y.png"), "csp")
            assert [url for url in done if not url.startswith(("file:", "data:"))] == []
            assert shown.title() == "A <study>"
            assert shown.locator("svg[aria-label='Topology of study'] text").all_text_contents() == ["lan", "server"]
            assert shown.locator("svg.timeline text.lane").all_text_contents() == ["faults", "here", "client", "server"]
            assert shown.locator("svg.timeline a").count() == 3
            assert shown.get_by_text("server/lan: up delay 5ms", exact=True).is_visible()
            printed = "".join(shown.locator(".output_text").all_text_contents())
            assert "<b>from None</b>" in printed
            assert "server │ <b>from server</b>" in printed
            assert shown.evaluate("document.querySelector('.output_png img').naturalWidth") == 1
            context.close()
        browser.close()


def test_a_notebook_without_a_run(record: RunRecord) -> None:
    """An executed notebook alone is a page that says that nothing is known of its run; a run without its text is one clear error."""
    document = notebook()
    document.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1 and only\n")]
    found = page.to_html(document, "study")
    assert "No run of this notebook is recorded here" in found
    assert "1 and only" in found
    without = RunRecord(record.run, record.entries, record.outputs)
    with pytest.raises(RunError, match="no text of its notebook"):
        page.of_run(without)
    assert "Topology" not in page.to_html(document, "study", without)


def test_formulas() -> None:
    """Formulas of text cells and of outputs are MathML; what is not understood stands as written, and nothing of it is markup."""
    text = (
        r"In line $a_1 < b$, and $$\frac{x}{\sqrt{2}}$$ \begin{align}y &= 1\end{align} here,"
        r" $x^$ and $\nosuch{x}$ and $\text{<i id='mine'>}$, `$code$`"
    )
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("formula")])
    for shown in (r"$\displaystyle \int_0^1 x$", "plain <b>"):
        document.cells[1].outputs.append(nbformat.v4.new_output("display_data", data={"text/latex": shown, "text/plain": "formula"}))
    found = page.to_html(document, "study")
    assert [found.count(kind) for kind in ('display="inline"', 'display="block"')] == [2, 3]
    drawn = ("<mfrac>", "<msqrt>", "<mtable", "<mo>∫</mo>", "<mo>&lt;</mo>", 'alttext="a_1 &lt; b"')
    written = ("$x^$", r"$\nosuch{x}$", "$code$", "plain &lt;b&gt;")
    assert [part for part in drawn + written if part not in found] == []
    assert "<i id=" not in found


def test_lanes(record: RunRecord) -> None:
    """Every node has a lane with its cells from begin to end, home has one, and a fault lasts from its begin to its end."""
    found = {lane.name: lane.bars for lane in timeline.lanes(record)}
    assert {name: [bar.label for bar in bars] for name, bars in found.items()} == {
        "faults": ["partition"],
        "here": ["1"],
        "server": ["2"],
        "client": ["2"],
    }
    (cell,) = record.of("cell")[1:]
    assert all(cell.started == bar.begin <= bar.end <= cell.ended for bar in (*found["server"], *found["client"]) if cell.ended)
    begun, ended = record.of("event")
    assert [(bar.begin, bar.end) for bar in found["faults"]] == [(begun.started, ended.started)]
