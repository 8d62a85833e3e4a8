"""An environment as the output of a notebook's cell: HTML that needs no kernel and no script, and text for a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WardianError
from ..portal import shared
from .graph import Graph, graph
from .view import View, look

if TYPE_CHECKING:
    from .environment import Environment

MIME_TYPE = "application/vnd.wardian.environment+json"
"""Of which environment an output shows, for the JupyterLab extension."""

DRAWN, LISTED = 12, 40
"""Groups with more members than the first are drawn as one; of nodes more than the second are counted, not listed."""

STEP_X, STEP_Y, MARGIN = 110, 64, 60
"""Of the drawing, in its own units."""

COLOURS = {"ready": "#0072b2", "absent": "#767676", "incomplete": "#e69f00", "stopped": "#d55e00", "unreachable": "#d55e00"}
"""Okabe and Ito's, which the colour-blind tell apart; the state is written, too."""


def mimebundle(environment: Environment) -> dict[str, Any]:
    """What IPython shows of an environment: as it is now, and for JupyterLab which it is, so that it can show it as it will be."""
    try:
        seen = shared.call(look(environment))
    except WardianError as error:
        return {"text/plain": f"<environment of {environment.file}: {error}>"}
    # from the notebook's folder, where its kernel runs: whoever opens the notebook has the file elsewhere
    which = {"experiment": Path(os.path.relpath(environment.file)).as_posix(), "instance": environment.instance}
    return {"text/plain": text(seen), "text/html": html(seen), MIME_TYPE: which}


def text(view: View) -> str:
    """The nodes in columns, and the links of which something is set."""
    rows = [(name, _state(node), ", ".join(node["addresses"].values()), ", ".join(node["roles"] or ())) for name, node in _listed(view)]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [_title(view), *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)]
    return "\n".join([*lines, *_more(view), *_links(view), *(f"! {problem}" for problem in view.problems)])


def html(view: View) -> str:
    """The topology as inline SVG and the nodes in a table."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td style='color:{COLOURS[node['state']]}'>{escape(_state(node))}</td>"
        f"<td>{escape(', '.join(node['addresses'].values()))}</td><td>{escape(', '.join(node['roles'] or ()))}</td></tr>"
        for name, node in _listed(view)
    )
    after = "".join(f"<div><small>{escape(line)}</small></div>" for line in (*_more(view), *_links(view), *map(str, view.problems)))
    table = f"<table><thead><tr><th>node</th><th>state</th><th>address</th><th>roles</th></tr></thead><tbody>{rows}</tbody></table>"
    return f"<div class='wardian-environment'><strong>{escape(_title(view))}</strong>{svg(view)}{table if rows else ''}{after}</div>"


def svg(view: View) -> str:
    """The topology: networks as bars, nodes as circles coloured by their state, links as lines with what is set."""
    return draw(graph(view, DRAWN), _title(view))


def draw(drawn: Graph, title: str) -> str:
    """A graph as inline SVG; nothing where there is nothing in it. title: told to those who do not see it."""
    if not drawn["nodes"]:
        return ""
    places = {item["id"]: (MARGIN + item["x"] * STEP_X, MARGIN / 2 + item["y"] * STEP_Y) for item in drawn["nodes"]}
    width = max(x for x, _ in places.values()) + MARGIN
    height = max(y for _, y in places.values()) + MARGIN / 1.5
    parts = [*(_line(line, places) for line in drawn["links"]), *(_mark(item, *places[item["id"]]) for item in drawn["nodes"])]
    style = f"display:block;max-width:min(100%,{width:g}px);font:11px sans-serif;fill:currentColor"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' role='img' aria-label='{escape(title, quote=True)}' "
        f"viewBox='0 0 {width:g} {height:g}' style='{style}'>{''.join(parts)}</svg>"
    )


def _line(line: Mapping[str, Any], places: Mapping[str, tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = places[line["source"]], places[line["target"]]
    said = " / ".join(dict.fromkeys(words for words in (line.get("text") or {}).values() if words != "-"))
    colour = COLOURS[line["state"]] if line["kind"] == "link" else "#999999"
    stroke = f"stroke='{colour}' stroke-width='{3 if line['kind'] == 'link' else 1}'"
    label = ""
    if line["kind"] == "link":
        label = f"<text x='{(x1 + x2) / 2:g}' y='{(y1 + y2) / 2 - 14:g}' text-anchor='middle'>{escape(line['name'])}</text>"
    title = escape(f"{line['name']}: {said}" if said else line["name"])
    return f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' {stroke}><title>{title}</title></line>{label}"


def _mark(item: Mapping[str, Any], x: float, y: float) -> str:
    name, colour = item["name"], COLOURS[item["state"]]
    count = item.get("count")
    title = f"<title>{escape(name)}: {item['state']}</title>"
    if item["kind"] == "network":
        return (
            f"<g>{title}<rect x='{x - 34:g}' y='{y - 9:g}' width='68' height='18' rx='4' fill='#56b4e9' stroke='{colour}'/>"
            f"<text x='{x:g}' y='{y + 4:g}' text-anchor='middle' fill='#000000'>{escape(name)}</text></g>"
        )
    label = f"{name} ×{count}" if count else name
    return (
        f"<g>{title}<circle cx='{x:g}' cy='{y:g}' r='{14 if count else 9}' fill='{colour}'/>"
        f"<text x='{x:g}' y='{y + 24:g}' text-anchor='middle'>{escape(label)}</text></g>"
    )


def _title(view: View) -> str:
    record = view.observed.environment
    name = record.name if record else view.experiment.name if view.experiment else view.file
    where = f" on {record.provider} ({record.id})" if record else ""
    return f"{name}{where}: {'not up' if view.state == 'absent' else view.state}"


def _state(node: Mapping[str, Any]) -> str:
    return f"{node['state']}: {node['detail']}" if node["detail"] else str(node["state"])


def _listed(view: View) -> list[tuple[str, dict[str, Any]]]:
    return list(view.nodes().items())[:LISTED]


def _more(view: View) -> list[str]:
    left = len(view.nodes()) - LISTED
    return [f"and {left} nodes more"] if left > 0 else []


def _links(view: View) -> Iterator[str]:
    for name, link in list(view.links().items())[:LISTED]:
        if link["kind"] == "link":
            said = "; ".join(f"{way} {words}" for way, words in link["text"].items())
            yield f"{name}: {' - '.join(link['ends'])}, {said}"
