"""What the extension adds to the page is legible and usable without a mouse or sight, in the light and the dark theme."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.kernel.conftest import ROOT

from .conftest import Notebook, Server
from .test_switch import switch

pytestmark = pytest.mark.slow

PARTS = [".wardian-Badge", ".wardian-Lanes", ".wardian-Picker"]


def violations(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds serious or critical in our parts of the page."""
    include = [[part] for part in PARTS if page.locator(part).count()]
    found: list[dict[str, Any]] = Axe().run(page, context={"include": include}).response["violations"]
    return [(entry["id"], entry["nodes"][0]["html"]) for entry in found if entry["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_no_serious_violations(theme: str, server: Server, open_notebook: Callable[[str], Notebook]) -> None:
    """axe-core finds no serious violation in badges in all their states, and in the picker."""
    failing = "import os\nif os.environ['WARDIAN_TEST_NODE'] == 'client[1]': 1 / 0"
    cells = ("1", "%%on server --lang bash\necho $WARDIAN_TEST_NODE", f"%%on client\n{failing}", "%%on nowhere\n1")
    notebook = open_notebook(server.write("accessible.ipynb", *cells))
    page = notebook.page
    page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", theme)
    expect(page.locator(f"body[data-jp-theme-name='{theme}']")).to_be_attached()
    home, bash, several, missing = (switch(notebook.cell(index)) for index in range(4))
    expect(missing.problem).to_contain_text("no such node: nowhere")
    for cell in (home, bash, several):
        notebook.execute(cell.cell)
    expect(several.state).to_contain_text("1 ✓ done, 1 ✗ failed")
    assert violations(page) == []
    several.badge.get_by_role("button", name="By node").click()
    expect(several.cell.element.locator(".wardian-Lanes-lane")).to_have_count(2)
    several.open()
    notebook.picture(f"accessible-{theme.split()[-1].lower()}")
    assert violations(page) == []


def test_colours_stand_out() -> None:
    """Every node colour has a contrast of at least 3 to the ground of its theme (WCAG 2.1, 1.4.11)."""
    style = (ROOT / "src/wardian/lab/labextension/style/colors.css").read_text()
    light, dark = style.split("body[data-jp-theme-light='false']")
    for colors, ground in ((light, "#ffffff"), (dark, "#111111")):
        found = [line.partition(": ")[2].rstrip(";") for line in colors.splitlines() if "--wardian-" in line]
        assert len(found) == 9
        assert [color for color in found if contrast(color, ground) < 3] == []


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, as WCAG 2.1 defines it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """The relative luminance of a colour in hexadecimal notation."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
