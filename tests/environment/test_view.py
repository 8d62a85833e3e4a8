"""What there is to see of an environment: one document, a graph, and the output of a notebook's cell."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from wardian.environment import display, view
from wardian.environment.environment import Environment
from wardian.environment.graph import graph


def nulls(value: Any) -> bool:
    """Whether a JSON value holds null anywhere."""
    if isinstance(value, dict):
        return any(map(nulls, value.values()))
    return any(map(nulls, value)) if isinstance(value, list) else value is None


async def test_a_view_is_json_without_null(environment: Environment) -> None:
    """Whether it is up or not, the document is JSON, and its keys without a value are left out."""
    for state in ("absent", "ready"):
        seen = (await view.look(environment)).to_json()
        assert seen["state"] == state
        assert json.loads(json.dumps(seen)) == seen
        assert not nulls(seen)
        await environment.up()


async def test_what_is_missing_makes_it_partial(environment: Environment, rewrite: Any) -> None:
    """A node that the file asks for and does not exist is shown as absent, beside those that do."""
    await environment.up()
    rewrite("clients: 2", "clients: 3")
    # the parameters that it was grown with are kept in the view
    assert (await view.look(environment)).state == "ready"
    rewrite('count: "${clients}"', "count: 3")
    seen = await view.look(environment)
    assert seen.state == "partial"
    assert {name: node["state"] for name, node in seen.nodes().items()}["client[2]"] == "absent"
    assert sum(node["state"] == "ready" for node in seen.nodes().values()) == 3


async def test_large_groups_are_drawn_as_one(environment: Environment, rewrite: Any) -> None:
    """Of a group with more members than asked for, the graph has one node with their number and the worst of their states."""
    rewrite("clients: 2", "clients: 200")
    drawn = graph(await view.look(environment), most=12)
    (clients,) = [item for item in drawn["nodes"] if item.get("group") == "client"]
    assert (clients["name"], clients["count"], clients["state"]) == ("client", 200, "absent")
    ids = {item["id"] for item in drawn["nodes"]}
    assert all({line["source"], line["target"]} <= ids for line in drawn["links"])
    assert len(graph(await view.look(environment))["nodes"]) == 203


@pytest.mark.parametrize("count", [2, 200])
async def test_positions_are_of_one_thing_each(environment: Environment, rewrite: Any, count: int) -> None:
    """No two things of a graph are drawn in one place."""
    rewrite("clients: 2", f"clients: {count}")
    nodes = graph(await view.look(environment))["nodes"]
    assert len({(item["x"], item["y"]) for item in nodes}) == len(nodes)


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.seen.add(tag)


async def test_a_cell_shows_an_environment(environment: Environment) -> None:
    """In a notebook, also where a loop runs, an environment is a drawing and a table without scripts; in a terminal, text."""
    await environment.up()
    bundle = environment._repr_mimebundle_()
    assert {"client[0]", "server", "ready"} <= set(bundle["text/plain"].split())
    assert "delay 30ms" in bundle["text/plain"]
    tags = Tags(bundle["text/html"]).seen
    assert {"svg", "circle", "table"} <= tags
    assert not {"script", "iframe", "link", "img"} & tags
    assert "client[0]" in bundle["text/html"]


async def test_the_drawing_is_xml_whatever_names_say(environment: Environment, rewrite: Any) -> None:
    """What comes from outside is escaped, and the drawing is well-formed."""
    await environment.up()
    seen = await view.look(environment)
    picture = ElementTree.fromstring(display.svg(seen))
    assert picture.get("aria-label") == display._title(seen)
    rewrite("30ms", "<script>")
    assert "<script>" not in display.html(await view.look(environment))


async def test_an_environment_that_cannot_be_asked_is_text(environment: Environment, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the provider does not answer, the cell shows its words and raises nothing."""
    from wardian.errors import ProviderError
    from wardian.providers.memory import MemoryProvider

    async def fails(self: Any) -> Any:
        raise ProviderError("the cloud is closed")

    monkeypatch.setattr(MemoryProvider, "environments", fails)
    bundle = environment._repr_mimebundle_()
    assert list(bundle) == ["text/plain"]
    assert "the cloud is closed" in bundle["text/plain"]
