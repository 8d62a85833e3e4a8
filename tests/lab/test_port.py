"""The page reads lines and selectors as the kernel does: its own modules, run by Node.js, against the kernel's."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.kernel.conftest import ROOT
from tests.stage import require
from wardian.errors import SelectorError, WardianError
from wardian.experiment import selectors
from wardian.kernel.cells.binding import bind

LIB = ROOT / "src/wardian/lab/labextension/lib"
NODES = [
    *(selectors.NodeRef(f"client[{index}]", "client", index, ("player",)) for index in (0, 1, 2, 3, 5)),
    selectors.NodeRef("server", "server", None, ("origin", "player")),
]
SOURCES = [
    "1",
    "",
    "%%on client",
    "%%on client\n1",
    " %%on client",
    "\n\n# note\n%%on server\n1",
    "# a\r\n%%on client[0] --lang bash\r\nls",
    "%%online\n1",
    "%on client\n1",
    "%jobs",
    "%%on here",
    "%%on client, server --lang=ir",
    "%%on --lang bash client[0:2]\nls",
    "%%on client --each n=[1, 2, 'a b'] --timeout 30s",
    "%%on client --each n=range(3)",
    "%%on 'client' --first",
    "%%on client --bg as load",
    '%%on "client,server" --serial',
    "x = 1\n%%on client",
    "%%on all,!server --timeout=5s\n\n1",
]
SELECTORS = [
    *("client", "server", "player", "origin", "all", "client[0]", "client[-1]", "client[4]", "client[9]", "client[1:3]", "client[::2]"),
    *("client[::-1]", "client[3:]", "client[:-1]", "client[-2:]", "client[5:1:-2]", "client[0:99]", "client[::0]", "server[0]", "nobody"),
    *("client,server", "all,!server", "!server", "!client[0],!server", "!server,client", "client,", "", "client[x]", "player,!client[1:]"),
    *(" client [ 0 ] , server", "all[0]", "client server", "spare", "spare[0]", "server,spare", "!spare"),
]
NAMES = ["client", "server", "spare"]


def node(module: str, expression: str, argument: object) -> Any:
    """The value of a JavaScript expression over `m`, a module of the extension's, and `given`."""
    url = json.dumps((LIB / f"{module}.js").as_uri())
    script = f"import * as m from {url}; const given = {json.dumps(argument)}; console.log(JSON.stringify({expression}));"
    done = subprocess.run([require("node"), "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def lines() -> list[Any]:
    """The `%%on` lines of all sources, as the page reads them."""
    return node("binding/line", "given.map(source => [m.onLine(source), m.isHomeMagic(source)])", SOURCES)


@pytest.mark.parametrize("number", range(len(SOURCES)), ids=[repr(source) for source in SOURCES])
def test_lines(lines: list[Any], number: int) -> None:
    """The page finds a cell's `%%on` line where the kernel does, and reads the same selector and language."""
    line, home = lines[number]
    bound = bind(SOURCES[number], {}, None)
    assert (line is not None) == (bound.start is not None)
    if line is not None and not bound.help:
        assert line["start"] == bound.start
        assert line["selector"] == (bound.binding.selector or "here")
        assert line["language"] == bound.binding.language or bound.binding.selector is None
    assert home == (SOURCES[number] in ("%on client\n1", "%jobs"))


def test_lines_are_changed_in_place() -> None:
    """Another selector takes the place of the old one, and what else a line says stays, as far as it goes with it."""
    forms = "[m.withOnLine(source, 'server', 'bash'), m.withOnLine(source, 'here', 'python') + '\\n1', m.withoutOnLine(source)]"
    for source, made in zip(SOURCES, node("binding/line", f"given.map(source => {forms})", SOURCES), strict=True):
        before, (changed, home, without) = bind(source, {}, None), (bind(code, {}, None) for code in made)
        assert (changed.binding.selector, changed.binding.language) == ("server", "bash")
        if before.start is not None and not before.help:
            for kept in ("first", "serial", "each", "timeout", "background", "job"):
                assert getattr(changed.binding, kept) == getattr(before.binding, kept)
        assert (home.binding.selector, home.binding.source) == (None, "line")
        assert without.start is None


@pytest.fixture(scope="module")
def picks() -> list[Any]:
    """What all selectors pick, as the page has it."""
    nodes = [{"name": ref.name, "group": ref.group, "index": ref.index, "roles": ref.roles} for ref in NODES]
    return node("binding/selectors", "given[0].map(selector => m.pick(selector, given[1], given[2]))", [SELECTORS, nodes, NAMES])


@pytest.mark.parametrize("number", range(len(SELECTORS)), ids=[repr(selector) for selector in SELECTORS])
def test_selectors(picks: list[Any], number: int) -> None:
    """A selector picks in the page what it picks in the kernel, and nothing where it is an error there."""
    try:
        expected = selectors.resolve(SELECTORS[number], NODES, NAMES)
        assert picks[number]["unknown"] == []
    except SelectorError:
        expected = []
    assert picks[number]["nodes"] == expected


def test_colours_stay() -> None:
    """Nodes keep their colours when their group grows, and up to eight nodes have eight colours."""

    def colors(count: int) -> dict[str, int]:
        nodes = [{"name": f"client[{index}]", "group": "client", "index": index, "roles": []} for index in range(count)]
        nodes.append({"name": "server", "group": "server", "index": None, "roles": []})
        return dict(node("binding/colors", "[...m.colorsOf(given)]", nodes))

    few, more = colors(2), colors(7)
    assert few.items() <= more.items()
    assert len(set(more.values())) == 8


def test_names_are_in_the_same_order() -> None:
    """The page sorts names as the kernel does: numbers in them by their value."""
    names = ["client[10]", "g10", "client[2]", "server", "g2", "g1", "wan"]
    assert node("panel/names", "[...given].sort(m.byName)", names) == sorted(names, key=selectors.natural_order)


def test_wrong_lines_are_the_kernels_to_tell() -> None:
    """What the kernel refuses is still shown as a line, so that a picker can replace it."""
    wrong = ["%%on client --oops", "%%on --lang bash", "%%on client server", "%%on 'client"]
    assert all(node("binding/line", "given.map(source => m.onLine(source) !== null)", wrong))
    for source in wrong:
        with pytest.raises(WardianError):
            bind(f"{source}\n1", {}, None)
