"""Binding a cell in a notebook of 300 cells: from the command until the page shows it."""

from __future__ import annotations

from contextlib import ExitStack

from .ground import ground
from .lab import open_browser, open_page
from .results import Goal, Row, Table

CELLS = 300
ROUNDS = 40
NODES = 4
PAINTED = """const painted = () => new Promise(resolve => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(0);
}));"""
BIND = f"""async on => {{
    {PAINTED}
    const cell = window.jupyterapp.shell.currentWidget.content.activeCell;
    await painted();
    const begun = performance.now();
    await window.jupyterapp.commands.execute('wardian:bind', {{on}});
    await painted();
    const taken = performance.now() - begun;
    if (!cell.node.querySelector('.wardian-Badge-where').textContent.startsWith(on)) throw new Error('it is not shown');
    return taken;
}}"""
MOVE = f"""async index => {{
    {PAINTED}
    await painted();
    const begun = performance.now();
    window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
    await painted();
    return performance.now() - begun;
}}"""
KNOWN = "document.querySelector('.jp-CodeCell[data-wardian=nodes]') !== null"


def measure(quick: bool) -> Table:
    """Binding a cell beside what the page does anyway: making the next cell the active one. They take turns."""
    rounds = 4 if quick else ROUNDS
    bound: list[float] = []
    moved: list[float] = []
    with ground() as place, place.up(NODES) as folder, ExitStack() as stack:
        browser = stack.enter_context(open_browser())
        cells = ["%%on box[0]\n1", *(f"x{number} = {number}" for number in range(1, CELLS))]
        page = stack.enter_context(open_page(browser, folder, "wardian", cells, extension=True))
        page.wait_for_function(KNOWN)
        for number in range(rounds):
            bound.append(page.evaluate(BIND, f"box[{number % NODES}]") / 1000)
            moved.append(page.evaluate(MOVE, number % 2) / 1000)
    rows = [Row("bind a cell", "ms", bound, "make another cell the active one", moved, Goal(0.05))]
    return Table("switch", f"a notebook of {CELLS} cells in Chromium, {rounds} turns, until the page is painted", rows=rows)
