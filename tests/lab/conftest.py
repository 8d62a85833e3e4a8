"""JupyterLab as a person has it: its server, the Wardian kernel, and Debian's Chromium driven through Playwright."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.kernel.conftest import ROOT, host_nodes, write_nodes  # noqa: F401
from tests.stage import eventually, require

ARTEFACTS = Path(os.environ.get("WARDIAN_TEST_ARTEFACTS", ROOT / "tests" / "lab" / "artefacts"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 60_000
"""How long a page may take for anything, milliseconds."""

_SHOWN = 4000
"""How much of a page's text the report of a test that failed has, characters."""

expect.set_options(timeout=TIMEOUT)


class Server:
    """A JupyterLab server with settings of its own; what a test writes into `folder` is what it serves."""

    def __init__(self, folder: Path, *options: str, kernel: str | None = None, base: str = "", **env: str) -> None:
        """kernel: the module that stands in for `wardian.kernel`. base: the path that it serves below, such as a hub's."""
        self.base = base
        self.folder = folder / "notebooks"
        self.token = secrets.token_hex(16)
        private = {
            "HOME": folder,
            "JUPYTER_CONFIG_DIR": folder / "config",
            "JUPYTER_DATA_DIR": folder / "data",
            "JUPYTER_RUNTIME_DIR": folder / "run",
            "IPYTHONDIR": folder / "ipython",
        }
        for path in (self.folder, *private.values()):
            path.mkdir(exist_ok=True)
        quiet = folder / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True)
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        extension = folder / "first" / "labextensions" / "wardian"
        extension.parent.mkdir(parents=True)
        extension.symlink_to(ROOT / "src" / "wardian" / "lab" / "labextension" / "built")
        if kernel is not None:
            spec = folder / "first" / "kernels" / "wardian"
            spec.mkdir(parents=True)
            installed = json.loads((ROOT / "share/jupyter/kernels/wardian/kernel.json").read_text())
            installed["argv"] = [sys.executable, "-m", kernel, "-f", "{connection_file}"]
            (spec / "kernel.json").write_text(json.dumps(installed))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "WARDIAN_", "PYTEST", "JPY_"))}
        self.log = folder / "server.log"
        self._argv = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1"),
            *(f"--ServerApp.root_dir={self.folder}", f"--ServerApp.base_url={base}/", "--allow-root"),
            *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly", *options),
        ]
        self._env = {**inherited, **{name: str(path) for name, path in private.items()}, **env} | {
            "JUPYTER_TOKEN": self.token,
            "JUPYTER_PATH": str(folder / "first"),
            "JUPYTER_CONFIG_PATH": str(ROOT / "etc" / "jupyter"),
            "PYTHONPATH": f"{ROOT}:{ROOT}/src",
        }
        self.start()

    def start(self, port: int = 0) -> None:
        """Start it, at this port or at any that is free."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._argv, f"--ServerApp.port={port}", "--ServerApp.port_retries=0"],
                env=self._env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.url = eventually(self._url, "the server listens", within=60)
        except BaseException:
            self.process.kill()
            raise

    def _url(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(rf"http://127\.0\.0\.1:(\d+){re.escape(self.base)}/lab\?token", self.log.read_text())
        return f"http://127.0.0.1:{found[1]}{self.base}" if found else None

    def kill(self) -> int:
        """End it as a crash would; gives the port that it had."""
        self.process.kill()
        self.process.wait(timeout=30)
        return int(self.url.removeprefix("http://127.0.0.1:").partition("/")[0])

    def write(self, name: str, *cells: Any, kernel: str = "wardian") -> str:
        """Write a notebook of code cells; gives its name."""
        code = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
        kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernelspec}), self.folder / name)
        return name

    def request(self, method: str, path: str) -> Any:
        """Ask the server's REST interface."""
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def close(self) -> None:
        """Shut the kernels down and end it."""
        if self.process.poll() is None:
            for kernel in self.request("GET", "kernels"):
                self.request("DELETE", f"kernels/{kernel['id']}")
            self.process.terminate()
        self.process.wait(timeout=30)


class Cell:
    """A code cell of an open notebook."""

    def __init__(self, notebook: Notebook, number: str) -> None:
        self.notebook = notebook
        self.id = number

    def _evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression over `cell`, the cell's widget."""
        script = f"id => {{ const cell = {CURRENT}.widgets.find(cell => cell.model.id === id); return {expression}; }}"
        return self.notebook.page.evaluate(script, self.id)

    @property
    def element(self) -> Locator:
        """What is on the page."""
        self._evaluate("cell.node.setAttribute('data-test', id)")
        return self.notebook.page.locator(f"[data-test='{self.id}']")

    @property
    def shown(self) -> Locator:
        """Its output on the page."""
        return self.element.locator(".jp-OutputArea").first

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Its output in the notebook's model."""
        return self._evaluate("cell.model.outputs.toJSON()")

    @property
    def text(self) -> str:
        """What it printed."""
        return "".join("".join(output["text"]) for output in self.outputs if output["output_type"] == "stream")

    @property
    def prompt(self) -> str:
        """The text of its prompt: [1], [*], [ ]."""
        return self._evaluate("cell.inputArea.promptNode.textContent").rstrip(":")

    def wait(self) -> Cell:
        """Wait for its end."""
        self.notebook.page.wait_for_function(
            f"id => /\\d/.test({CURRENT}.widgets.find(cell => cell.model.id === id).inputArea.promptNode.textContent)", arg=self.id
        )
        return self

    def printed(self, text: str) -> Cell:
        """Wait until its output on the page holds a text."""
        expect(self.shown).to_contain_text(text)
        return self


CURRENT = "window.jupyterapp.shell.currentWidget.content"


class Notebook:
    """A notebook that is open in a page."""

    def __init__(self, server: Server, page: Page, name: str, front: str = "lab/tree") -> None:
        """front: the path of the front end that shows it."""
        self.server, self.page, self.name = server, page, name
        page.set_default_timeout(TIMEOUT)
        page.goto(f"{server.url}/{front}/{name}?reset&token={server.token}", wait_until="commit")
        self.ready()

    def ready(self) -> None:
        """Wait until it is in front and its kernel is there. A page that is loaded anew may first show what another page had open."""
        self.page.wait_for_function(
            "name => { const panel = window.jupyterapp?.shell?.currentWidget; const kernel = panel?.sessionContext?.session?.kernel;"
            " return panel?.context?.path === name && panel.content?.widgets?.length && kernel?.connectionStatus === 'connected'"
            " && kernel.status !== 'unknown' && kernel.status !== 'starting'; }",
            arg=self.name,
        )

    def reload(self) -> None:
        """Load the page anew, unsaved changes lost."""
        self.page.once("dialog", lambda dialog: dialog.accept())
        self.page.reload(wait_until="commit")
        self.ready()

    def save(self) -> None:
        """Save the notebook."""
        self.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    def cell(self, index: int) -> Cell:
        """A cell by its place in the notebook."""
        return Cell(self, self.page.evaluate(f"{CURRENT}.widgets[{index}].model.id"))

    def add(self, code: str, metadata: dict[str, Any] | None = None) -> Cell:
        """A new cell at the end, selected."""
        number = self.page.evaluate(
            f"""async ([source, metadata]) => {{
                const notebook = {CURRENT};
                const index = notebook.model.sharedModel.cells.length;
                notebook.model.sharedModel.insertCell(index, {{cell_type: 'code', source, metadata}});
                notebook.activeCellIndex = index;
                await notebook.scrollToItem(index);
                return notebook.activeCell.model.id;
            }}""",
            [code, metadata or {}],
        )
        return Cell(self, number)

    def start(self, code: str, metadata: dict[str, Any] | None = None) -> Cell:
        """Add a cell and run it."""
        cell = self.add(code, metadata)
        self.execute(cell)
        return cell

    def execute(self, cell: Cell) -> None:
        """Run a cell, without waiting for its end."""
        # All at once: JupyterLab gives the cell that ran before the focus when it likes, which makes that the active one.
        self._command("run-cell", cell)

    def clear(self, cell: Cell) -> None:
        """Clear a cell's output."""
        self._command("clear-cell-output", cell)

    def _command(self, name: str, cell: Cell) -> None:
        self.page.evaluate(
            f"""([command, id]) => {{
                const notebook = {CURRENT};
                notebook.deselectAll();
                notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.id === id);
                window.jupyterapp.commands.execute(command);
            }}""",
            [f"notebook:{name}", cell.id],
        )

    def run(self, code: str, metadata: dict[str, Any] | None = None) -> Cell:
        """Add a cell and run it to its end."""
        return self.start(code, metadata).wait()

    def picture(self, name: str) -> Path:
        """Take a screenshot."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTEFACTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to the report of a test that failed what its pages show: a picture does not leave the machine that it ran on."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if report.failed and report.when == "call" and isinstance(browser, Browser):
        for page in (page for context in browser.contexts for page in context.pages):
            where = page.url.partition("?")[0]
            with suppress(PlaywrightError):
                report.sections.append((f"page {where}", page.locator("body").inner_text(timeout=5_000)[-_SHOWN:]))
                report.sections.append((f"notifications of {where}", notifications(page)))
    return report


def notifications(page: Page) -> str:
    """What JupyterLab has told in its corner, also what went away by itself."""
    toggle = "() => { window.jupyterapp.commands.execute('apputils:display-notifications'); }"
    page.evaluate(toggle)
    told = page.locator(".jp-Notification-List").inner_text(timeout=5_000)
    page.evaluate(toggle)
    return told


@pytest.fixture(scope="module")
def server(host_nodes: Path) -> Iterator[Server]:  # noqa: F811
    """A server whose Wardian kernel has nodes that are folders of this host."""
    folder = Path(tempfile.mkdtemp(prefix="wl", dir="/tmp"))
    server = Server(folder, kernel="tests.kernel.hosts", WARDIAN_TEST_NODES=str(host_nodes))
    yield server
    server.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[Browser]:
    """Chromium."""
    program = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(server: Server, browser: Browser) -> Iterator[Callable[..., Notebook]]:
    """Opens notebooks, each in a browser of its own."""
    contexts = []

    def open_notebook(name: str) -> Notebook:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))
        return Notebook(server, contexts[-1].new_page(), name)

    yield open_notebook
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def notebook(server: Server, browser: Browser) -> Iterator[Notebook]:
    """One notebook for the tests of a module, which add cells to it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Notebook(server, context.new_page(), server.write("shared.ipynb", ""))
    context.close()
