"""The environment panel, its looking side: the truth of a real environment, whoever changes it, for mouse, keyboard and screen reader."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.stage import Stage

from ..conftest import Server
from . import Panel, ask, assert_accessible, new_page, open_panel, picture, set_theme

pytestmark = pytest.mark.root

TEXT = """
name: NAME
description: two sites
parameters: {clients: 8, delay: 5ms}
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west], delay: "${delay}", rate: 50mbit, queue: 100}
nodes:
  server: {networks: [east], roles: [origin]}
  client: {count: "${clients}", networks: [west]}
services:
  web: {on: server, command: python3 -m http.server 8000, directory: /tmp, ready: {port: 8000}}
lease: {duration: 2h, at_end: keep}
"""


@pytest.fixture(scope="module")
def up(stage: Stage, panel: Panel) -> Stage:
    """The experiment, up, and seen to be so; tests leave it as it is."""
    stage.run("up", "-y")
    panel.is_whole("ready")
    return stage


def test_what_the_command_line_does_shows(panel: Panel, stage: Stage) -> None:
    """An experiment that is not up is shown as such; its growing, and a change of a link, show as another process does them."""
    panel.is_whole("absent")
    panel.has_state("server", "absent")
    panel.picture("panel-absent")
    stage.run("up")
    panel.is_whole("ready")
    panel.has_state("server", "ready")
    expect(panel.root.locator(".wardian-Header")).to_contain_text("then kept")
    stage.run("link", "set", "wan", "--delay", "80ms")
    expect(panel.symbol("link", "wan")).to_contain_text("delay 80ms")
    expect(panel.root).to_contain_text("change link wan")


def test_mistakes_in_the_file_show(panel: Panel, stage: Stage) -> None:
    """What is wrong with the file is told with its line as soon as it is saved, and goes when it is mended."""
    stage.edit("50mbit", "fast")
    alert = panel.root.get_by_role("alert")
    expect(alert).to_contain_text("links.wan.rate")
    panel.picture("panel-mistake")
    stage.edit("fast", "50mbit")
    expect(alert).to_have_count(0)


def test_details_of_a_node(panel: Panel, up: Stage) -> None:
    """A click on a node shows its address, use, kernels, and what its service printed; Escape closes it and gives the focus back."""
    up.run("exec", "client[0]", "--", "python3", "-c", "import urllib.request; urllib.request.urlopen('http://server:8000/')")
    panel.symbol("node", "server").click()
    details = panel.details("Node server")
    expect(details).to_contain_text("10.64.0.2")
    expect(details).to_contain_text("None runs there.")
    expect(details.get_by_label("Log", exact=True)).to_contain_text("GET / HTTP/1.1")
    expect(details).to_contain_text("MiB")
    panel.picture("panel-details")
    details.get_by_label("Log", exact=True).focus()
    panel.page.keyboard.press("Escape")
    expect(details).to_have_count(0)
    expect(panel.symbol("node", "server")).to_be_focused()


def test_who_talks_to_whom(panel: Panel, up: Stage) -> None:
    """What links carry just now shows on them, with both ends, and at the nodes; and which nodes send how much to which."""
    pinging = up.start("exec", "client[0]", "--", "ping", "-q", "-i", "0.005", "-s", "1000", "server")
    try:
        expect(panel.symbol("link", "wan")).to_contain_text(re.compile(r"west → east [\d.]+ [kM]bit/s"))
        panel.symbol("node", "server").click()
        expect(panel.details("Node server")).to_contain_text(re.compile(r"server → east [\d.]+ [kM]bit/s"))
        talk = panel.details("Node server").get_by_role("button", name="server → client[0]")
        expect(talk).to_contain_text(re.compile(r"[\d.]+ [kM]bit/s"))
        expect(panel.root.locator(".wardian-Line-talk")).to_have_count(1)
        panel.picture("panel-traffic")
        panel.button("Close").click()
    finally:
        pinging.terminate()
        pinging.wait(timeout=30)


def test_a_large_group_is_one_symbol(panel: Panel, up: Stage) -> None:
    """A group of many is one symbol with its count, which unfolds into its nodes and folds again, in drawing and list alike."""
    group = panel.symbol("group", "client")
    expect(group).to_have_attribute("aria-label", "client, group of 8 nodes, 8 of 8 ready")
    expect(panel.symbol("node", "client[3]")).to_have_count(0)
    group.dblclick()
    expect(panel.symbol("node", "client[3]")).to_be_visible()
    expect(panel.row("node", "client[3]")).to_be_visible()
    panel.picture("panel-unfolded")
    panel.details("Group client").get_by_role("button", name="Show as one symbol").click()
    expect(panel.row("node", "client[3]")).to_have_count(0)
    panel.button("Close").click()


def test_search(panel: Panel, up: Stage) -> None:
    """What is searched for, by role here, is all that the list shows, and in the drawing the rest is dimmed."""
    field = panel.root.get_by_role("searchbox")
    field.fill("origin")
    expect(panel.root.get_by_role("treeitem")).to_have_count(1)
    expect(panel.symbol("group", "client")).to_have_class(re.compile("wardian-mod-dim"))
    field.press("Enter")
    expect(panel.details("Node server")).to_be_visible()
    panel.button("Close").click()
    field.fill("")


def test_keyboard_alone(panel: Panel, up: Stage) -> None:
    """Without a mouse: a command leads to the panel, arrow keys go through list and drawing, Enter into details, and plus zooms."""
    page = panel.page
    page.evaluate("() => { document.activeElement.blur(); window.jupyterapp.commands.execute('wardian:show-panel'); }")
    expect(panel.root).to_be_focused()
    panel.row("group", "client").focus()
    page.keyboard.press("ArrowRight")
    expect(panel.row("group", "client")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(panel.row("node", "client[0]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(panel.details("Node client[0]")).to_be_visible()
    page.keyboard.press("Enter")
    expect(panel.details("Node client[0]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(panel.row("node", "client[0]")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(panel.row("group", "client")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("End")
    expect(panel.row("node", "server")).to_be_focused()
    panel.symbol("network", "east").focus()
    page.keyboard.press("ArrowRight")
    expect(panel.symbol("node", "server")).to_be_focused()
    before = panel.symbol("node", "server").bounding_box()
    page.keyboard.press("+")
    page.wait_for_function(
        "([element, width]) => element.getBoundingClientRect().width > width",
        arg=[panel.symbol("node", "server").element_handle(), before["width"] if before else 0],
    )
    page.keyboard.press("0")


def test_a_page_of_its_own(panel: Panel, up: Stage) -> None:
    """The panel as a page of the main area shows the same, wide, and is itself when JupyterLab is reloaded."""
    panel.button("Page").click()
    large = Panel(panel.page, panel.page.locator(".wardian-Panel.wardian-mod-large"))
    large.is_whole("ready")
    large.symbol("link", "wan").click()
    expect(large.details("Link wan")).to_contain_text("east – west")
    large.picture("page-light")
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        set_theme(panel.page, theme)
        assert_accessible(panel.page, ".wardian-Panel.wardian-mod-large")
        assert_accessible(panel.page, "#wardian-panel")
        picture(panel.page, f"page-{theme.split()[1].lower()}")
    panel.page.evaluate("window.jupyterapp.shell.currentWidget.close()")


def test_the_notebook_in_front_decides(panel: Panel, stage: Stage) -> None:
    """The experiment of the notebook in front, near or named by it, is shown; what is chosen holds until another comes, or is pinned."""
    stage.write("name: other\nnodes: [alone]\n", "other/experiment.yaml")
    kernelspec = {"name": "python3", "display_name": "python3"}
    metadata = {"named": {"kernelspec": kernelspec, "wardian": {"experiment": "other/experiment.yaml"}}}
    for name in ("own", "named", "other/deep/first", "other/second"):
        text = json.dumps({"cells": [], "metadata": metadata.get(name, {}), "nbformat": 4, "nbformat_minor": 5})
        stage.write(text, f"{name}.ipynb")
    own, other = panel.row("node", "server"), panel.row("node", "alone")

    def bring(name: str, factory: str = "Editor") -> None:
        script = "async open => { await window.jupyterapp.commands.execute('docmanager:open', open); }"
        panel.page.evaluate(script, {"path": f"{stage.name}/{name}.ipynb", "factory": factory})

    def choose_own() -> None:
        panel.root.get_by_label("Experiment").select_option(label=f"{stage.name} – {stage.name}/experiment.yaml")
        expect(own).to_be_visible()

    bring("other/deep/first")
    panel.has_state("alone", "absent")
    choose_own()
    panel.button("Page").click()
    panel.page.evaluate("window.jupyterapp.shell.currentWidget.close()")
    bring("other/deep/first")
    expect(own).to_be_visible()
    bring("other/second")
    expect(other).to_be_visible()
    choose_own()
    bring("named", "Notebook")
    expect(other).to_be_visible()
    panel.button("Pin").click()
    bring("own")
    expect(other).to_be_visible()
    panel.button("Pin").click()
    expect(own).to_be_visible()
    panel.page.evaluate("[...window.jupyterapp.shell.widgets('main')].forEach(widget => widget.dispose())")


def test_a_server_that_is_killed_and_comes_back(panel: Panel, server: Server, up: Stage, browser: Browser) -> None:
    """When the server dies, two browsers say so; once it is back, both have what happened meanwhile, and what one does the other shows."""
    second = open_panel(server, new_page(browser), up.name)
    second.is_whole("ready")
    for page in (panel.page, second.page):
        # JupyterLab's own word on it may come at any time
        notice = page.get_by_role("dialog").filter(has_text="Server Connection Error")
        page.add_locator_handler(notice, lambda notice: notice.get_by_role("button", name="Close", exact=True).click())
    port = server.kill()
    for each in (panel, second):
        expect(each.root).to_contain_text("no connection to the server")
    up.run("link", "set", "wan", "--delay", "70ms")
    server.start(port)
    for each in (panel, second):
        expect(each.symbol("link", "wan")).to_contain_text("delay 70ms")
        expect(each.root).not_to_contain_text("no connection to the server")
    second.symbol("link", "wan").click()
    second.details("Link wan").get_by_label("Delay").press("ArrowRight")
    expect(panel.symbol("link", "wan")).to_contain_text("delay 71ms")
    second.page.context.close()


def test_faults_and_a_death_show(panel: Panel, server: Server, up: Stage) -> None:
    """A fault shows while it is in force, and a node that dies shows as stopped, though no command told of it."""
    panel.row("group", "client").locator(".wardian-Tree-fold").click()
    ask(server, "POST", "environment/faults", up, kind="pause", targets=["client[0]"])
    panel.has_state("client[0]", "paused")
    expect(panel.root.get_by_text("Faults in force")).to_be_visible()
    ask(server, "DELETE", "environment/faults", up)
    panel.has_state("client[0]", "ready")
    expect(panel.root.get_by_text("Faults in force")).to_have_count(0)
    os.kill(up.pid("server"), signal.SIGKILL)
    panel.has_state("server", "stopped")
    panel.is_whole("partial")
    panel.picture("panel-stopped")


def test_an_update_repaints_only_what_changed(server: Server, stage: Stage, browser: Browser) -> None:
    """Of 200 nodes, each difference that the server sends repaints the row of its node and its group's, and no other."""
    stage.write("name: many\nnetworks: {lan: {}}\nnodes: {one: {count: 200, networks: [lan]}}\n", "many/experiment.yaml")
    page = new_page(browser)
    sockets: list[WebSocketRoute] = []
    numbers: list[int] = []

    def pass_on(route: WebSocketRoute) -> None:
        def take(message: str | bytes) -> None:
            numbers.append(json.loads(message).get("number", -1))
            route.send(message)

        route.connect_to_server().on_message(take)
        sockets.append(route)

    page.route_web_socket("**/wardian/api/events**", pass_on)
    panel = open_panel(server, page, f"{stage.name}/many")
    panel.row("group", "one").locator(".wardian-Tree-fold").click()
    panel.has_state("one[199]", "absent")
    title = panel.symbol("group", "one").locator(".wardian-Symbol-title")
    expect(title).to_be_visible()
    assert (title.bounding_box() or {"height": 0})["height"] > 8
    panel.picture("panel-many")
    page.evaluate(
        """() => {
            window.touched = new Set();
            const tree = document.querySelector('#wardian-panel [role=tree]');
            new MutationObserver(records => records.forEach(record => {
                const element = record.target.nodeType === 1 ? record.target : record.target.parentElement;
                window.touched.add(element.closest('[data-id]')?.dataset.id);
            })).observe(tree, {subtree: true, childList: true, characterData: true, attributes: true});
        }"""
    )
    number = max(numbers)
    for index in range(0, 200, 10):
        patch = {"nodes": {f"one[{index}]": {"state": "ready"}}}
        sockets[-1].send(json.dumps({"type": "patch", "from": number, "number": number + 1, "patch": patch}))
        number += 1
    panel.has_state("one[190]", "ready")
    assert set(page.evaluate("[...window.touched]")) == {"group:one", *(f"node:one[{index}]" for index in range(0, 200, 10))}
    page.context.close()
