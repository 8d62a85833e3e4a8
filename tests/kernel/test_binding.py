"""Where a cell runs, from its source, its metadata and what is sticky."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.kernel.cells.binding import HOME, Binding, BindingError, bind, parse_on

STICKY = Binding("server", source="sticky")


def test_home_is_the_default() -> None:
    """A cell that nothing binds runs at home, as it is."""
    bound = bind("x = 1", {}, None)
    assert bound.binding == HOME
    assert bound.code == "x = 1"


def test_precedence() -> None:
    """The line in the source wins over metadata, metadata over what is sticky, and that over home."""
    metadata = {"wardian": {"on": "client", "lang": "bash"}}
    assert bind("%%on cross\n1", metadata, STICKY).binding.selector == "cross"
    assert bind("1", metadata, STICKY).binding == Binding("client", "bash", source="metadata")
    assert bind("1", {}, STICKY).binding == STICKY


def test_here_wins_too() -> None:
    """`here` in the source or in metadata means home, whatever is below it in precedence."""
    assert bind("%%on here\n1", {"wardian": {"on": "client"}}, STICKY).binding.selector is None
    assert bind("1", {"wardian": {"on": "here"}}, STICKY).binding.selector is None


@pytest.mark.parametrize("line", ["%on", "%on client", "%jobs", "%wait load", "%stop load", "%get x --from client", "%put x --to client"])
def test_magics_run_at_home(line: str) -> None:
    """A cell that begins with one of our line magics runs at home even when everything else is elsewhere."""
    assert bind(f"# first\n\n{line}\n", {"wardian": {"on": "client"}}, STICKY).binding == HOME


def test_other_magics_follow_the_binding() -> None:
    """A magic whose name only begins like one of ours is an ordinary cell."""
    assert bind("%online", {}, STICKY).binding == STICKY


def test_options() -> None:
    """All parts of an `%%on` line are understood, in any order."""
    assert parse_on("client[0:4] --lang bash --bg as load") == Binding("client[0:4]", "bash", True, "load", "line")
    assert parse_on("--bg --lang=bash client as load") == Binding("client", "bash", True, "load", "line")
    assert parse_on("server, client").selector == "server,client"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "selector is missing"),
        ("client --fast", "no option --fast"),
        ("client --lang no/such", "no/such"),
        ("client --lang", "language"),
        ("client as load", "background"),
        ("client --bg as 1x", "no name for a job"),
        ("client server", "one selector"),
        ("here --bg", "home cannot"),
        ("'client", "cannot read"),
        ("client --timeout", "cannot read --timeout"),
        ("client --timeout 5", "cannot read --timeout 5"),
        ("client --timeout 0s", "no time"),
        ("client --each", "cannot read --each"),
        ("client --each n", "cannot read --each n"),
        ("client --each n=", "cannot read --each n="),
        ("client --each 1n=[1]", "cannot read --each"),
        ("client --first --serial", "--first and --serial do not go together"),
        ("client --first --each n=[1]", "--first and --each"),
        ("here --first", "--first is for cells on nodes"),
        ("here --each n=[1]", "--each is for cells on nodes"),
    ],
)
def test_mistakes_are_named(line: str, what: str) -> None:
    """A line that is not understood is an error that says what is wrong and what to write."""
    with pytest.raises(BindingError, match=what) as caught:
        bind(f"%%on {line}\n1", {}, None)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("n=[1,2]", "[1,2]"),
        ("n=[1, 2, 'a b']", "[1, 2, 'a b']"),
        ("n=range(3)", "range(3)"),
        ('n="[1, 2]"', "[1, 2]"),
        ('"n=[1, 2]"', "[1, 2]"),
        ("n=['it\\'s', ')']", "['it\\'s', ')']"),
        ("n=names", "names"),
        ("n='a','b'", "'a','b'"),
    ],
)
@pytest.mark.parametrize("between", [" ", "="])
def test_lists_keep_their_form(text: str, items: str, between: str) -> None:
    """The list of `--each` is Python and no shell words: brackets, quotes and spaces in it stay, and what follows is still read."""
    binding = parse_on(f"client --each{between}{text} --timeout 1min30s")
    assert binding.each == ("n", items)
    assert binding.selector == "client"
    assert binding.timeout == 90


@pytest.mark.parametrize("line", ["--first", "--serial", "--each n=[1, 2]", "--timeout 30s", "--bg as load", "--lang bash"])
def test_metadata_has_the_same_options(line: str) -> None:
    """Every option of the line can be in the cell's metadata, under the same name, and means the same there."""
    binding = parse_on(f"client {line}")
    entry: dict[str, object] = {"on": "client"}
    words = line.replace("as load", "--as load").split("--")[1:]
    for name, _, value in (word.strip().partition(" ") for word in words):
        entry[name] = value or True
    assert bind("1", {"wardian": entry}, None).binding == replace(binding, source="metadata")


def test_help() -> None:
    """`--help`, and a line with nothing above an empty cell, ask how the line is written; above code nothing is an error."""
    for code in ("%%on --help\n1", "%%on client --help", "%%on", "%%on\n  \n"):
        assert bind(code, {}, None).help
    with pytest.raises(BindingError, match="selector is missing"):
        bind("%%on\n1", {}, None)


@given(
    st.builds(
        Binding,
        selector=st.just("client"),
        source=st.just("line"),
        first=st.booleans(),
        timeout=st.none() | st.integers(1, 10**6).map(lambda number: number / 1000),
    )
)
def test_options_are_written_as_they_are_read(binding: Binding) -> None:
    """What `%on` says of the options is what one has to write for them."""
    assert parse_on(f"client {binding.options}") == binding


@pytest.mark.parametrize(
    "metadata",
    [{"wardian": {"on": "client", "first": 1}}, {"wardian": {"on": "client", "each": 3}}, {"wardian": {"on": "client", "timeout": 30}}],
)
def test_malformed_options(metadata: dict[str, object]) -> None:
    """Options of the wrong type in metadata are errors."""
    with pytest.raises(BindingError):
        bind("1", metadata, None)


@pytest.mark.parametrize("metadata", [{"wardian": "client"}, {"wardian": {"on": 3}}, {"wardian": {"on": "client", "lang": "no such"}}])
def test_malformed_metadata(metadata: dict[str, object]) -> None:
    """Metadata that is not understood is an error, never a cell that runs at home by surprise."""
    with pytest.raises(BindingError):
        bind("1", metadata, None)


lines = st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e"), max_size=20), max_size=4)


@given(st.lists(st.sampled_from(["", "# note", "   "]), max_size=3), lines)
def test_lines_stay_where_they_are(above: list[str], below: list[str]) -> None:
    """The code that is run has as many lines as the cell, and the cursor of the rest moves by `removed`."""
    code = "\n".join([*above, "%%on client", *below])
    bound = bind(code, {}, None)
    assert bound.code.count("\n") == code.count("\n")
    assert bound.code.split("\n")[len(above) + 1 :] == below
    assert len(code) - len(bound.code) == bound.removed


def test_cell_magic_below_the_line() -> None:
    """A cell magic below the `%%on` line is still one for the node's kernel: nothing but blank lines stands above it."""
    assert bind("%%on client\n%%time\n1", {}, None).code == "\n%%time\n1"
