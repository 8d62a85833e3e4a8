"""JupyterLab beside an experiment whose environment is real, and the environment panel in its page."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from tests.stage import Stage, make_stage

from ..conftest import ARTEFACTS, TIMEOUT, Server


@contextmanager
def beside_experiment(*options: str, base: str = "", **env: str) -> Iterator[tuple[Server, Stage]]:
    """A JupyterLab server with a stage in a folder of its root. options, base, env: as for `Server`."""
    folder = Path(tempfile.mkdtemp(prefix="wp", dir="/tmp"))
    (folder / "notebooks").mkdir()
    stage = make_stage(folder / "notebooks")
    try:
        server = Server(folder, *options, base=base, WARDIAN_STATE=str(stage.state), **env)
        try:
            yield server, stage
        finally:
            server.close()
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)


class Panel:
    """The sidebar, or a page, of a browser's page."""

    def __init__(self, page: Page, root: Locator) -> None:
        self.page, self.root = page, root

    def symbol(self, kind: str, name: str) -> Locator:
        """A symbol of the drawing."""
        return self.root.locator(f'.wardian-Topology [data-id="{kind}:{name}"]')

    def row(self, kind: str, name: str) -> Locator:
        """A row of the tree of nodes."""
        return self.root.get_by_role("tree").locator(f'[data-id="{kind}:{name}"]')

    def button(self, name: str) -> Locator:
        """A button by its name."""
        return self.root.get_by_role("button", name=name, exact=True)

    def details(self, of: str) -> Locator:
        """What is shown of something, as in "Node server"."""
        return self.root.get_by_role("region", name=of, exact=True)

    def has_state(self, name: str, state: str) -> None:
        """Wait until a node is shown in this state, in the list and in the drawing."""
        expect(self.row("node", name)).to_contain_text(state)
        expect(self.symbol("node", name)).to_have_attribute("aria-label", f"{name}, node, {state}")

    def is_whole(self, state: str) -> None:
        """Wait until the whole environment is shown in this state."""
        expect(self.root.locator(".wardian-Header-line")).to_contain_text(state)

    def picture(self, name: str) -> None:
        """Take a screenshot."""
        picture(self.page, name)


def ask(server: Server, method: str, route: str, stage: Stage, **body: Any) -> Any:
    """Ask the server's own REST interface about the experiment of a stage: the path is a query where there is no body."""
    which = {"path": f"{stage.name}/experiment.yaml"}
    sent = {"json": which | body} if method == "POST" else {"params": which}
    headers = {"Authorization": f"token {server.token}"}
    answer = requests.request(method, f"{server.url}/wardian/api/{route}", headers=headers, timeout=60, **sent)
    assert answer.ok, answer.text
    return answer.json()


def new_page(browser: Browser) -> Page:
    """A page in a browser profile of its own."""
    return browser.new_context(viewport={"width": 1280, "height": 900}).new_page()


def open_lab(server: Server, page: Page, path: str) -> Page:
    """Open a folder, or a file, in JupyterLab."""
    page.set_default_timeout(TIMEOUT)
    page.goto(f"{server.url}/lab{f'/tree/{path}' if path else ''}?reset&token={server.token}", wait_until="commit")
    page.wait_for_function("() => window.jupyterapp?.shell && document.querySelector('#wardian-panel')")
    page.evaluate("window.jupyterapp.restored")
    return page


def open_panel(server: Server, page: Page, path: str) -> Panel:
    """Open a folder, or a file, with the sidebar shown."""
    open_lab(server, page, path)
    page.evaluate("window.jupyterapp.commands.execute('wardian:show-panel')")
    return Panel(page, page.locator("#wardian-panel"))


def picture(page: Page, name: str) -> None:
    """Take a screenshot."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png")


def set_theme(page: Page, name: str) -> None:
    """Change JupyterLab's theme."""
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", name)


def assert_accessible(page: Page, inside: str) -> None:
    """No serious or critical violation of axe-core's rules within an element."""
    found = Axe().run(page, context=inside).response["violations"]
    serious = [item for item in found if item["impact"] in ("serious", "critical")]
    assert not serious, os.linesep.join(
        f"{item['id']}: {node['html']}: {node['failureSummary']}" for item in serious for node in item["nodes"]
    )
