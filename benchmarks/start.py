"""The start of JupyterLab with our extensions and without: of the server, and of a page in a browser that has nothing cached."""

from __future__ import annotations

import time
from pathlib import Path

from playwright.sync_api import Browser

from .ground import ground
from .lab import TIMEOUT, open_browser, open_server
from .results import Goal, Row, Table

ROUNDS = 10
RESTORED = "async () => { await window.jupyterapp.restored; return performance.now(); }"


def measure(quick: bool) -> Table:
    """Both in turn, the order of the two changing."""
    rounds = 1 if quick else ROUNDS
    server: dict[bool, list[float]] = {True: [], False: []}
    page: dict[bool, list[float]] = {True: [], False: []}
    with ground() as place, open_browser() as browser:
        folder = place.experiment(4)
        _start(browser, folder, True)  # files come from the disk once
        for number in range(rounds):
            for extension in (number % 2 == 0, number % 2 == 1):
                listening, restored = _start(browser, folder, extension)
                server[extension].append(listening)
                page[extension].append(restored)
    longer = [
        sum(mine) - sum(stock) for mine, stock in zip(*(zip(server[ours], page[ours], strict=True) for ours in (True, False)), strict=True)
    ]
    without = "without our extensions"
    rows = [
        Row("the server, until it listens", "ms", server[True], without, server[False]),
        Row("the page, until it is restored", "ms", page[True], without, page[False]),
        Row("both, longer than without", "ms", longer, goal=Goal(0.15)),
    ]
    return Table("start", f"JupyterLab's start beside an experiment, {rounds} turns", rows=rows)


def _start(browser: Browser, folder: Path, extension: bool) -> tuple[float, float]:
    begun = time.perf_counter()
    with open_server(folder, extension=extension) as (url, token):
        listening = time.perf_counter() - begun
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(TIMEOUT * 1000)
        page.goto(f"{url}/lab?token={token}", wait_until="commit")
        page.wait_for_function("() => window.jupyterapp")
        restored = page.evaluate(RESTORED) / 1000
        has = page.evaluate("window.jupyterapp.hasPlugin('wardian:follow')")
        context.close()
    if has != extension:
        raise RuntimeError(f"the page {'has' if has else 'lacks'} the extension")
    return listening, restored
