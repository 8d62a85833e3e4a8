"""An empty cell in Chromium with JupyterLab: from running it until its number is shown and the kernel is idle."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page, sync_playwright

from .ground import ground
from .results import Goal, Row, Table

ROUNDS = 6
CELLS_A_TURN = 10
WARM_UP = 3
TIMEOUT = 90.0
CELLS = {"at home": "pass", "one node, Python": "%%on box[0]\npass", "one node, bash": "%%on box[0] --lang bash\n:"}
"""{what: cell}"""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
READY = """() => { const panel = window.jupyterapp?.shell?.currentWidget; const kernel = panel?.sessionContext?.session?.kernel;
    return panel?.content?.widgets?.length && kernel?.connectionStatus === 'connected' && kernel.status === 'idle'; }"""
RUN = """async index => {
    const { content, sessionContext } = window.jupyterapp.shell.currentWidget;
    const kernel = sessionContext.session.kernel;
    content.activeCellIndex = index;
    const begun = performance.now();
    await window.jupyterapp.commands.execute('notebook:run-cell');
    while (kernel.status !== 'idle') {
        await new Promise(resolve => {
            const changed = () => { kernel.statusChanged.disconnect(changed); resolve(); };
            kernel.statusChanged.connect(changed);
        });
    }
    return performance.now() - begun;
}"""


def measure(quick: bool) -> Table:
    """Every kind of cell beside the same in a stock server's ipykernel, each server with its own page.

    They take turns of several cells each: run alone, each cell would be measured while the other page is drawn.
    """
    rounds = 1 if quick else ROUNDS
    times: dict[str, list[float]] = {name: [] for name in ("stock", *CELLS)}
    with ground() as place, place.up(1) as folder, ExitStack() as stack:
        browser = stack.enter_context(open_browser())
        stock = stack.enter_context(open_page(browser, folder, "python3", ["pass"], extension=False))
        wardian = stack.enter_context(open_page(browser, folder, "wardian", list(CELLS.values()), extension=True))
        pages = [(stock, "stock", 0), *((wardian, what, index) for index, what in enumerate(CELLS))]
        for _ in range(rounds):
            for page, what, index in pages:
                milliseconds = [page.evaluate(RUN, index) for _ in range(WARM_UP + CELLS_A_TURN)]
                times[what] += [taken / 1000 for taken in milliseconds[WARM_UP:]]
    goals = {"at home": Goal(0.4, ratio=True), "one node, Python": Goal(0.4, ratio=True)}
    rows = [Row(what, "ms", times[what], "stock JupyterLab, ipykernel", times["stock"], goals.get(what)) for what in CELLS]
    return Table("lab", f"an empty cell in Chromium with JupyterLab, {rounds} turns of {CELLS_A_TURN} cells each", rows=rows)


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, folder: Path, kernel: str, cells: list[str], *, extension: bool) -> Iterator[Page]:
    """A page of a server of its own, with a notebook of these cells. extension: whether server and page have ours."""
    name = f"lab-{kernel}.ipynb"
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": {"name": kernel, "display_name": kernel}}), folder / name)
    with open_server(folder, extension=extension) as (url, token):
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT * 1000)
        page.goto(f"{url}/lab/tree/{name}?token={token}", wait_until="commit")
        page.wait_for_function(READY)
        yield page
        page.close()
        for running in json.loads(_request(f"{url}/api/kernels", token)):
            _request(f"{url}/api/kernels/{running['id']}", token, "DELETE")


@contextmanager
def open_server(folder: Path, *, extension: bool) -> Iterator[tuple[str, str]]:
    """The address and the token of a server, with our extensions or without any of them."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as private:
        log = Path(private) / "server.log"
        page_config = Path(private) / "labconfig" / "page_config.json"
        page_config.parent.mkdir()
        page_config.write_text(json.dumps({"disabledExtensions": {"wardian": not extension}}))
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root"),
                    *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}"),
                    f"--ServerApp.jpserver_extensions={{'wardian.lab': {extension}}}",
                ],
                env={
                    **os.environ,
                    "JUPYTER_TOKEN": token,
                    "JUPYTER_RUNTIME_DIR": private,
                    "JUPYTERLAB_SETTINGS_DIR": private,
                    "JUPYTER_CONFIG_DIR": private,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield _url(server, log), token
        finally:
            server.terminate()
            server.wait()


def _url(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + TIMEOUT
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(log.read_text())
        time.sleep(0.05)
    return found.group()


def _request(url: str, token: str, method: str = "GET") -> bytes:
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return bytes(answer.read())
