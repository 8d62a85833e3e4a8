"""An executed notebook as a page that needs nothing beside it: its topology, where and when its cells ran, its outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ..environment import display
from ..environment.graph import Graph
from ..errors import RunError
from ..journal import Journal, LogEntry, RunRecord, telling
from ..kernel.cells.summary import compact
from ..kernel.record import playback
from . import timeline
from .facts import NOTEBOOK, TOPOLOGY, WRITTEN
from .recorded import doubts
from .runner import read_notebook

TEMPLATES = Path(__file__).with_name("templates")
_LIGHT, _DARK = "default", "github-dark"
"""Pygments' styles for code."""


def recorded(journal: Journal, notebook: Path) -> RunRecord | None:
    """The last run that is over of a notebook, or the one that wrote it; None where there is none."""
    path = str(notebook.resolve())
    for run in reversed(journal.runs()):
        if run.status == "running":
            continue
        if run.detail["notebook"] == path:
            return journal.show(run.id)
        # an executed notebook has the name of the one that was run
        if Path(run.detail["notebook"]).stem in notebook.stem and path in ((record := journal.show(run.id)).fact(WRITTEN) or {}):
            return record
    return None


def of_run(record: RunRecord) -> NotebookNode:
    """The notebook as a run left it: the file that it wrote if unchanged, else put together from the journal. Raises RunError."""
    for path, digest in (record.fact(WRITTEN) or {}).items():
        file = Path(path)
        if file.suffix == ".ipynb" and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == digest:
            return read_notebook(file)
    known = record.fact(NOTEBOOK)
    if known is None:
        raise RunError(
            f"run {record.run.id[-8:]} has no text of its notebook, and the executed one is gone", remedy="name a notebook, or a later run"
        )
    document = nbformat.from_dict(known["document"])
    ran = {entry.detail.get("cell"): entry for entry in record.of("cell")}
    for cell in document.cells:
        if cell.cell_type == "code":
            entry = ran.get(cell.get("id"))
            cell.execution_count = None
            cell.outputs = list(map(_output, playback.shown(entry, record.outputs.get(entry.id, ())))) if entry else []
    return document


def to_html(document: NotebookNode, name: str, record: RunRecord | None = None) -> str:
    """The page. It loads nothing and runs no scripts. name: of the notebook. record: of its run, if there is one."""
    from .formulas import Exporter

    exporter = Exporter(extra_template_basedirs=[str(TEMPLATES)], template_name="run")
    page, _ = exporter.from_notebook_node(document, {"metadata": {"name": name}, "run": _told(document, name, record)})
    return str(page)


def _told(document: NotebookNode, name: str, record: RunRecord | None) -> dict[str, Any]:
    told: dict[str, Any] = {"title": _title(document) or name, "name": name, "style": _style(), "head": [], "ran": {}}
    if record is None:
        return told
    run = record.run
    drawn = record.fact(TOPOLOGY)
    nodes = [telling.node(record, node) for node in (None, *record.nodes())]
    return told | {
        "id": run.id,
        "status": run.status,
        "took": telling.took(run),
        "doubts": [item["summary"] for item in doubts(record)],
        "head": list(telling.head(record)),
        "topology": display.draw(drawn, f"Topology of {name}") if drawn else "",
        "links": list(_links(drawn)) if drawn else [],
        "timeline": timeline.svg(record),
        "columns": telling.NODE,
        "nodes": nodes if any(fact.name == "machine" for fact in record.facts) else [],
        "ran": {entry.detail.get("cell"): _ran(number, entry) for number, entry in enumerate(record.of("cell"), 1)},
    }


def _links(drawn: Graph) -> Iterator[str]:
    """Of links and access links of which something is set, what."""
    for link in drawn["links"]:
        ways = {way: words for way, words in (link.get("text") or {}).items() if words != "-"}
        if ways:
            yield f"{link['name']}: {'; '.join(f'{way} {words}' for way, words in ways.items())}"


def _ran(number: int, entry: LogEntry) -> dict[str, Any]:
    return {"number": number, "where": compact(entry.nodes) or "here", "status": entry.status, "took": telling.took(entry)}


def _output(shown: playback.Shown) -> NotebookNode:
    kind, content = shown
    return nbformat.v4.new_output(kind, **{name: value for name, value in content.items() if name != "transient"})


def _title(document: NotebookNode) -> str:
    lines = (line for cell in document.cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")


def _style() -> str:
    from pygments.formatters.html import HtmlFormatter

    light, dark = (HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight") for style in (_LIGHT, _DARK))
    page = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    return f"{page}{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
