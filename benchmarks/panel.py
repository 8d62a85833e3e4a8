"""The environment panel with 200 nodes while it is sent ten changes a second: how long the page takes from one frame to the next."""

from __future__ import annotations

import json
from contextlib import ExitStack

from playwright.sync_api import Page, WebSocketRoute

from .ground import ground
from .lab import TIMEOUT, open_browser, open_server
from .results import Goal, Row, Table

NODES = 200
SECONDS = 8
EVENTS_A_SECOND = 10
FRAMES = """async seconds => {
    const taken = [];
    let before = await new Promise(requestAnimationFrame);
    for (const end = before + 1000 * seconds; before < end;) {
        const now = await new Promise(requestAnimationFrame);
        taken.push((now - before) / 1000);
        before = now;
    }
    return taken;
}"""


def measure(quick: bool) -> Table:
    """Frames while nodes change, beside those of the same page while nothing does."""
    seconds = 1 if quick else SECONDS
    with ground() as place, ExitStack() as stack:
        folder = place.experiment(NODES)
        browser = stack.enter_context(open_browser())
        url, token = stack.enter_context(open_server(folder, extension=True))
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT * 1000)
        events = _Events(page)
        page.goto(f"{url}/lab?token={token}", wait_until="commit")
        page.wait_for_function("() => document.querySelector('#wardian-panel')")
        page.evaluate("window.jupyterapp.commands.execute('wardian:show-panel')")
        page.locator("#wardian-panel [role=tree] .wardian-Tree-fold").click()
        page.locator(f"#wardian-panel [role=tree] [data-id='node:box[{NODES - 1}]']").wait_for()
        still = page.evaluate(FRAMES, seconds)
        page.evaluate(f"seconds => {{ window.frames_taken = ({FRAMES})(seconds); }}", seconds)
        for number in range(seconds * EVENTS_A_SECOND):
            events.send(f"box[{number}]")
            page.wait_for_timeout(1000 / EVENTS_A_SECOND)
        moving = page.evaluate("window.frames_taken")
        page.locator(f"#wardian-panel [role=tree] [data-id='node:box[{number}]']", has_text="ready").wait_for()
    rows = [Row("from one frame to the next", "ms", moving, "the same while nothing changes", still, Goal(1 / 30))]
    rows.append(
        Row("the longest 5 % of them begin at", "ms", [_part(moving)], "the same while nothing changes", [_part(still)], Goal(1 / 30))
    )
    return Table("panel", f"the panel with {NODES} nodes unfolded, {EVENTS_A_SECOND} changes a second for {seconds} s", rows=rows)


def _part(samples: list[float]) -> float:
    return sorted(samples)[int(len(samples) * 0.95)]


class _Events:
    """The page's websocket of events, into which changes are put that the server did not send."""

    def __init__(self, page: Page) -> None:
        self._routes: list[WebSocketRoute] = []
        self._number = -1
        page.route_web_socket("**/wardian/api/events**", self._pass_on)

    def send(self, node: str) -> None:
        patch = {"nodes": {node: {"state": "ready"}}}
        message = {"type": "patch", "from": self._number, "number": self._number + 1, "patch": patch}
        self._routes[-1].send(json.dumps(message))
        self._number += 1

    def _pass_on(self, route: WebSocketRoute) -> None:
        def take(message: str | bytes) -> None:
            self._number = max(self._number, json.loads(message).get("number", -1))
            route.send(message)

        route.connect_to_server().on_message(take)
        self._routes.append(route)
