"""Where a cell runs, from its source, its metadata and what is sticky."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.kernel.binding import HOME, Binding, BindingError, bind, parse_on

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
        ("client --lang ruby", "ruby"),
        ("client --lang", "language"),
        ("client as load", "background"),
        ("client --bg as 1x", "no name for a job"),
        ("client server", "one selector"),
        ("here --bg", "home cannot"),
        ("'client", "cannot read"),
    ],
)
def test_mistakes_are_named(line: str, what: str) -> None:
    """A line that is not understood is an error that says what is wrong and what to write."""
    with pytest.raises(BindingError, match=what) as caught:
        bind(f"%%on {line}\n1", {}, None)
    assert caught.value.remedy


@pytest.mark.parametrize("metadata", [{"wardian": "client"}, {"wardian": {"on": 3}}, {"wardian": {"on": "client", "lang": "cobol"}}])
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
