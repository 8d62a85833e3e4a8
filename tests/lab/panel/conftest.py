"""What the tests of the panel have in common: a server beside the experiment that a module gives as TEXT, and a page with the sidebar."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.stage import Stage

from ..conftest import Server
from . import Panel, beside_experiment, new_page, open_panel


@pytest.fixture(scope="module")
def beside(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Stage]]:
    """A server beside the module's experiment, which is not up."""
    with beside_experiment() as (server, stage):
        stage.write(request.module.TEXT)
        yield server, stage


@pytest.fixture(scope="module")
def server(beside: tuple[Server, Stage]) -> Server:
    """The server."""
    return beside[0]


@pytest.fixture(scope="module")
def stage(beside: tuple[Server, Stage]) -> Stage:
    """The experiment."""
    return beside[1]


@pytest.fixture(scope="module")
def panel(beside: tuple[Server, Stage], browser: Browser) -> Iterator[Panel]:
    """The sidebar of a page that shows the experiment's folder."""
    server, stage = beside
    page = new_page(browser)
    yield open_panel(server, page, stage.name)
    page.context.close()
