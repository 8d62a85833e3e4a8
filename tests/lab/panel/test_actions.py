"""The environment panel, its acting side: each thing that a person does with it is done to real nodes."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.stage import Stage, eventually

from ..conftest import Server
from . import Panel, ask, assert_accessible, new_page, open_panel

pytestmark = pytest.mark.root

TEXT = """
name: NAME
parameters: {clients: 1}
networks: {east: {}, west: {}}
links: {wan: {between: [east, west], delay: 5ms}}
nodes:
  server: {networks: [east]}
  client: {count: "${clients}", networks: [west]}
services:
  web: {on: server, command: python3 -m http.server 8000, directory: /tmp, ready: {port: 8000}}
lease: {duration: 2h, at_end: keep}
"""


KEEP_PROGRESS = """() => {
    const seen = {text: ''};
    const look = () => { seen.text += document.querySelector('#wardian-panel [aria-label=Progress]')?.textContent ?? ''; };
    new MutationObserver(look).observe(document.querySelector('#wardian-panel'), {subtree: true, childList: true, characterData: true});
    return seen;
}"""
"""Keeps all that is shown of progress: it goes when all is done, which may be before anybody looks."""


@pytest.fixture(scope="module")
def stage(beside: tuple[Server, Stage], panel: Panel) -> Stage:
    """The experiment, up, and seen to be so; tests leave it as it is, but the last."""
    stage = beside[1]
    stage.run("up", "-y")
    panel.is_whole("ready")
    return stage


def fill(panel: Panel, accept: str, **values: str) -> None:
    """Fill a dialog in, and accept it."""
    dialog = panel.page.get_by_role("dialog")
    for name, value in values.items():
        dialog.locator(f"input[name='{name}']").fill(value)
    dialog.get_by_role("button", name=accept).click()


def test_growing_by_the_plan_that_is_shown(panel: Panel, server: Server, beside: tuple[Server, Stage]) -> None:
    """Up shows its plan for the parameters that are typed in, then does just that, with each operation shown as it goes."""
    stage = beside[1]
    panel.is_whole("absent")
    panel.button("Up…").click()
    form = panel.root.get_by_role("region", name="Up")
    expect(form).to_contain_text("create node")
    form.get_by_label("clients").fill("2")
    expect(form).to_contain_text("client[1]")
    panel.picture("up-plan")
    assert_accessible(panel.page, "#wardian-panel")
    seen = panel.page.evaluate_handle(KEEP_PROGRESS)
    form.get_by_role("button", name="Carry it out").click()
    panel.is_whole("ready")
    expect(panel.button("Up…")).to_be_focused()
    assert "create" in seen.evaluate("seen => seen.text")
    panel.has_state("client[1]", "ready")
    assert set(ask(server, "GET", "environment", stage)["nodes"]) == {"server", "client[0]", "client[1]"}


def test_down_asks_and_up_says_what_it_would_remove(panel: Panel, beside: tuple[Server, Stage]) -> None:
    """A plan that removes what runs well says so first; Down does nothing until it is confirmed, then all."""
    panel.is_whole("ready")
    panel.button("Up…").click()
    form = panel.root.get_by_role("region", name="Up")
    form.get_by_label("clients").fill("1")
    expect(form).to_contain_text("removes what runs well now: client[1]")
    panel.page.keyboard.press("Escape")
    expect(panel.button("Up…")).to_be_focused()
    panel.button("Down…").click()
    panel.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    panel.is_whole("ready")
    panel.button("Down…").click()
    panel.page.get_by_role("dialog").get_by_role("button", name="Tear down").click()
    panel.is_whole("absent")
    eventually(lambda: beside[1].environments() == [], "nothing is left of it")


def test_a_failure_in_the_providers_words_and_a_retry(server: Server, beside: tuple[Server, Stage], browser: Browser) -> None:
    """What failed is said in the provider's own words; after mending the cause, Retry does the rest."""
    stage = beside[1]
    stage.write("name: broken\nnodes: {one: {setup: 'exit 3'}}\n", "broken/experiment.yaml")
    panel = open_panel(server, new_page(browser), f"{stage.name}/broken")
    panel.is_whole("absent")
    panel.button("Up…").click()
    panel.button("Carry it out").click()
    progress = panel.root.get_by_role("region", name="Progress")
    expect(progress.get_by_role("alert")).to_contain_text("exit code 3")
    panel.picture("up-failed")
    stage.write("name: broken\nnodes: {one: {setup: 'true'}}\n", "broken/experiment.yaml")
    progress.get_by_role("button", name="Retry").click()
    panel.is_whole("ready")
    expect(progress).to_have_count(0)
    panel.page.context.close()


def test_a_link_by_its_sliders(panel: Panel, server: Server, stage: Stage) -> None:
    """A slider, moved by the keyboard, changes the link while it runs: what the kernel has, the panel shows, and the journal keeps."""
    panel.symbol("link", "wan").click()
    details = panel.details("Link wan")
    delay = details.get_by_label("Delay")
    expect(delay).to_have_attribute("aria-valuetext", "5ms")
    delay.focus()
    for _ in range(3):
        panel.page.keyboard.press("ArrowRight")
    expect(panel.symbol("link", "wan")).to_contain_text("delay 8ms")
    details.get_by_label("Direction").select_option("there")
    details.get_by_label("Loss").fill("50")
    expect(details).to_contain_text("loss 5%")
    panel.picture("link-sliders")
    ways = ask(server, "GET", "environment", stage)["links"]["wan"]["ways"]
    assert (ways["there"]["loss"], ways["back"].get("loss", 0)) == (0.05, 0)
    assert ways["back"]["delay"] == 0.008

    def recorded() -> bool:
        return any("link set" in entry["summary"] for entry in ask(server, "GET", "journal", stage)["entries"])

    eventually(recorded, "the journal has it")
    panel.button("Close").click()


def test_a_fault_from_the_menu(panel: Panel, stage: Stage) -> None:
    """A node is paused from its menu by the keyboard alone, is shown as paused, and goes on when the fault is undone."""
    panel.symbol("node", "client[0]").click()
    details = panel.details("Node client[0]")
    details.get_by_role("button", name="Faults").focus()
    panel.page.keyboard.press("Enter")
    expect(panel.page.locator(".lm-Menu")).to_be_focused()
    panel.page.keyboard.press("p")
    expect(panel.page.locator(".lm-Menu-item.lm-mod-active")).to_have_text("Pause…")
    panel.page.keyboard.press("Enter")
    dialog = panel.page.get_by_role("dialog")
    dialog.locator("input[name='for']").fill("")
    panel.page.keyboard.press("Enter")
    panel.has_state("client[0]", "paused")
    panel.picture("fault-paused")
    panel.button("Undo").click()
    panel.has_state("client[0]", "ready")
    panel.button("Close").click()


def test_a_terminal_in_a_tab(panel: Panel, stage: Stage) -> None:
    """The terminal that opens is one on the node."""
    panel.symbol("node", "server").click()
    panel.button("Terminal").click()
    panel.page.locator(".jp-Terminal .xterm-helper-textarea").focus()
    panel.page.keyboard.type("hostname > /tmp/typed\n")
    identity = next(name for name in stage.environments() if name.startswith(stage.name))
    typed = Path(f"/proc/{stage.pid('server', identity)}/root/tmp/typed")
    eventually(lambda: typed.is_file() and typed.read_text().strip() == "server", "it was typed on the node")
    panel.picture("terminal")
    panel.page.keyboard.type("exit\n")
    panel.button("Close").click()


def test_a_port_is_opened(panel: Panel, stage: Stage) -> None:
    """A port of a node answers at the address that the panel tells, is listed while it is open, and closed from there."""
    panel.symbol("node", "server").click()
    panel.button("Port…").click()
    fill(panel, "Open", port="8000")
    said = panel.page.get_by_text("Port 8000 of server is open at")
    expect(said).to_be_visible()
    url = said.inner_text().partition(" is open at ")[2].split()[0]
    assert urllib.request.urlopen(url, timeout=30).status == 200
    listed = panel.details("Node server").get_by_role("link", name=url)
    expect(listed).to_be_visible()
    panel.picture("ports")
    panel.details("Node server").get_by_role("button", name="Close port 8000 of server").click()
    expect(listed).to_have_count(0)
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url, timeout=30)
    panel.button("Close").click()


def test_files_both_ways(panel: Panel, stage: Stage, tmp_path: Path) -> None:
    """Files come and go by a dialog and a click, by drags from and to the file browser, and by keys, with the same bytes."""
    sent = tmp_path / "some data.bin"
    sent.write_bytes(bytes(range(256)) * 100)
    panel.symbol("node", "server").click()
    details = panel.details("Node server")
    panel.button("Files").click()
    expect(details.locator(".wardian-Files code")).to_have_text("/root")
    details.get_by_role("button", name="..", exact=True).click()
    details.get_by_role("button", name="tmp/").click()
    expect(details.locator(".wardian-Files code")).to_have_text("/tmp")
    details.locator("input[type=file]").set_input_files(sent)
    row = details.get_by_role("link", name="some data.bin")
    expect(row).to_contain_text("25 KiB")
    panel.picture("files")
    with panel.page.expect_download() as download:
        row.click()
    assert Path(download.value.path()).read_bytes() == sent.read_bytes()
    items = panel.page.locator(".jp-DirListing-item")
    row.drag_to(panel.page.locator(".jp-DirListing-content"))
    expect(items.filter(has_text="some data.bin")).to_be_visible()
    assert (stage.folder / "some data.bin").read_bytes() == sent.read_bytes()
    item, place = items.filter(has_text="experiment.yaml"), details.locator(".wardian-Files")
    drag(panel.page, item, place)
    expect(details.get_by_role("link", name="experiment.yaml")).to_be_visible()
    stage.write("by keys", "keys.txt")
    panel.page.evaluate("window.jupyterapp.commands.execute('filebrowser:refresh')")
    items.filter(has_text="keys.txt").click()
    details.get_by_role("button", name="From the file browser").press("Enter")
    expect(details.get_by_role("link", name="keys.txt")).to_be_visible()
    (stage.folder / "keys.txt").unlink()
    details.get_by_role("button", name="Copy keys.txt to the folder of the file browser").press("Enter")
    expect(details.get_by_role("status")).to_contain_text("keys.txt is here")
    assert (stage.folder / "keys.txt").read_text() == "by keys"
    panel.button("Close").click()


def drag(page: Page, source: Locator, target: Locator) -> None:
    """Drag as JupyterLab does it, by the events of the mouse; again where JupyterLab drew its list anew and forgot the drag."""
    shown = re.compile("wardian-mod-over")
    target.evaluate("element => element.scrollIntoView()")  # an earlier click may have scrolled its head away
    for _ in range(4):
        source.hover()
        page.mouse.down()
        box = target.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20, steps=10)
        with suppress(AssertionError):
            expect(target).to_have_class(shown, timeout=5_000)
            return page.mouse.up()
        page.mouse.up()
    raise AssertionError("the place never showed that something may be dropped there")


def test_the_lease_is_extended(panel: Panel, stage: Stage) -> None:
    """One click holds the environment an hour longer, and the panel tells so."""
    expect(panel.root.locator(".wardian-Header")).to_contain_text("1 h 5")
    panel.button("Extend by 1 h").click()
    expect(panel.root.locator(".wardian-Header")).to_contain_text("2 h 5")


def test_the_menu_of_a_symbol(panel: Panel, stage: Stage) -> None:
    """A right click on a symbol opens its menu; a node that is killed there is shown as stopped."""
    panel.symbol("node", "client[0]").click(button="right")
    panel.page.get_by_role("menuitem", name="Kill…").click()
    fill(panel, "Inflict")
    panel.has_state("client[0]", "stopped")
