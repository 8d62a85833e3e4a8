"""Selectors: what they pick, and what is said when they pick nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.errors import SelectorError
from wardian.experiment.selectors import NodeRef, Selector, Term, names, natural_order, parse, resolve

NODES = [
    NodeRef("server", "server", None, ("web",)),
    *[NodeRef(f"client[{index}]", "client", index, ("user",)) for index in range(4)],
    NodeRef("cache", "cache", None, ("web",)),
]
CLIENTS = [f"client[{index}]" for index in range(4)]


@pytest.mark.parametrize(
    ("text", "picked"),
    [
        ("server", ["server"]),
        ("client", CLIENTS),
        ("client[0]", ["client[0]"]),
        ("client[-1]", ["client[3]"]),
        ("client[0:2]", ["client[0]", "client[1]"]),
        ("client[2:]", ["client[2]", "client[3]"]),
        ("client[:-3]", ["client[0]"]),
        ("client[::2]", ["client[0]", "client[2]"]),
        ("client[1:100]", CLIENTS[1:]),
        ("web", ["server", "cache"]),
        ("all", ["server", *CLIENTS, "cache"]),
        ("cache,server", ["server", "cache"]),
        ("server,web,server", ["server", "cache"]),
        ("!server", [*CLIENTS, "cache"]),
        ("!web,!client[0]", CLIENTS[1:]),
        ("web,!server", ["cache"]),
        ("all,!web,server", ["server", *CLIENTS]),
        ("  client [ 0 : 2 ] , ! client[0] ", ["client[1]"]),
    ],
)
def test_a_selector_picks(text: str, picked: list[str]) -> None:
    """Each form picks its nodes, once, in the nodes' own order."""
    assert resolve(text, NODES) == picked


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        (
            "clint",
            "no node, group or role is called 'clint'",
            "Did you mean 'client'? There are server, client (a group of 4), cache, web (a role), user (a role).",
        ),
        ("client-2", "no node, group or role is called 'client-2'", "client[2]"),
        ("!srver", "is called 'srver'", "Did you mean 'server'?"),
        ("client[4]", "'client[4]' does not exist: 'client' has 4 members", "They are client[0] to client[3]."),
        ("client[-5]", "does not exist", "client[3]"),
        ("server[0]", "'server' is no group", "Write it without"),
        ("web[0]", "'web' is no group", "Write it without"),
        ("client[4:9]", "picks no node", "client (a group of 4)"),
        ("server,!all", "picks no node", "There are"),
        ("", "has an empty part", "commas between"),
        ("server,", "has an empty part", "commas between"),
        ("server client", "a part that is none", "commas between"),
        ("client[0", "a part that is none", "commas between"),
        ("client[a]", "an index that is none", "client[0:4]"),
        ("client[]", "an index that is none", "client[0:4]"),
        ("client[::0]", "an index that is none", "client[0:4]"),
        ("client[" + "9" * 5000 + "]", "an index that is none", "client[0:4]"),
        ("!server,client", "begins with what to leave out", "'all,!server'"),
    ],
)
def test_a_wrong_selector_says_what_exists(text: str, message: str, remedy: str) -> None:
    """What cannot be picked raises SelectorError with a remedy that names what can be."""
    with pytest.raises(SelectorError) as caught:
        resolve(text, NODES)
    assert message in caught.value.message
    assert remedy in (caught.value.remedy or "")


def test_a_group_without_members_picks_nothing_where_it_is_known() -> None:
    """A group whose count is 0 is no error for who knows of it, and unknown to who does not."""
    assert resolve("cross", NODES, known=["cross"]) == []
    assert resolve("cross[0],server", NODES, known=["cross"]) == ["server"]
    with pytest.raises(SelectorError):
        resolve("cross", NODES)


def test_an_index_counts_members_and_not_the_nodes_given() -> None:
    """Where only some members are given, an index still means the member of that number."""
    assert resolve("client[2]", NODES[2:]) == ["client[2]"]
    assert resolve("client[0:2]", NODES[2:]) == ["client[1]"]
    with pytest.raises(SelectorError):
        resolve("client[0]", NODES[2:])


def test_names_are_everything_that_can_be_written() -> None:
    """Completion offers groups, nodes, roles, all and the members, and each of them resolves."""
    assert names(NODES) == ["server", "client", "cache", "web", "user", "all", *CLIENTS]
    assert all(resolve(name, NODES) for name in names(NODES))


@given(st.lists(st.sampled_from(["server", "client", "client[1]", "client[1:3]", "web", "all"]), min_size=1, max_size=5))
def test_more_terms_pick_the_union_in_order(terms: list[str]) -> None:
    """A selector of several terms picks what any of them picks, in the order of the nodes."""
    union = {name for term in terms for name in resolve(term, NODES)}
    assert resolve(",".join(terms), NODES) == [node.name for node in NODES if node.name in union]


@given(st.sampled_from(["client", "client[1]", "client[1:3]", "web", "server,cache"]))
def test_leaving_out_is_the_complement(text: str) -> None:
    """A selector and the one that leaves the same out share nothing and miss nothing."""
    out = resolve(",".join(f"!{term}" for term in text.split(",")), NODES)
    assert sorted([*out, *resolve(text, NODES)]) == sorted(node.name for node in NODES)


@given(st.text("client[]!0123:,- ab", max_size=15))
def test_any_text_is_a_selector_or_a_selector_error(text: str) -> None:
    """No text raises anything but SelectorError."""
    with suppress(SelectorError):
        assert set(resolve(text, NODES)) <= {node.name for node in NODES}


indexes = st.none() | st.integers(-99, 99) | st.builds(slice, *[st.none() | st.integers(-9, 9)] * 2, st.none() | st.integers(1, 3))


@given(st.lists(st.builds(Term, st.sampled_from(["client", "web"]), indexes, st.booleans()), min_size=1, max_size=4))
def test_selectors_read_back(terms: list[Term]) -> None:
    """A selector that is written out parses to itself."""
    terms.sort(key=lambda term: term.without)
    selector = Selector(tuple(terms))
    assert parse(str(selector)) == selector


ORDERED = ["client", "client[2]", "client[10]", "client[10]/east", "client1[0]", "g0", "g1", "g2", "g2a", "g10", "web@g2", "web@g10"]


def test_names_are_in_the_order_of_their_numbers() -> None:
    """Names are sorted as people count: numbers in them by their value, and a group before another whose name goes on."""
    assert sorted(set(ORDERED), key=natural_order) == ORDERED
