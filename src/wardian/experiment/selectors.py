"""Selectors: the small language that picks nodes.

client            every node of a group, the node, or every node with the role of that name
client[0]         one member of a group; client[-1] is its last
client[0:4]       members 0 to 3, as Python slices go (also client[2:], client[::2])
all               every node
server,client     both
all,!server       all but the server; a selector of `!` terms alone takes from all
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..errors import SelectorError

_TERM = re.compile(r"(?P<not>!?)\s*(?P<name>[A-Za-z0-9_.-]+)\s*(?:\[\s*(?P<index>[^\[\]]*?)\s*\])?")
_INDEX = re.compile(r"-?[0-9]{1,9}")
_SLICE = re.compile(r"(-?[0-9]{1,9})?\s*:\s*(-?[0-9]{1,9})?\s*(?::\s*(-?[0-9]{1,9})?)?")
_NUMBER = re.compile(r"([0-9]+)")
_LISTED = 20


@dataclass(frozen=True, slots=True)
class NodeRef:
    """What a selector knows of a node. `index` is None for a node that is no member of a group."""

    name: str
    group: str
    index: int | None = None
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a selector between commas. `index` is None for all that the name stands for."""

    name: str
    index: int | slice | None = None
    without: bool = False

    def __str__(self) -> str:
        text = "!" * self.without + self.name
        if isinstance(self.index, slice):
            bounds = [self.index.start, self.index.stop] + [self.index.step] * (self.index.step is not None)
            return f"{text}[{':'.join('' if bound is None else str(bound) for bound in bounds)}]"
        return text if self.index is None else f"{text}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))

    def pick(self, nodes: Sequence[NodeRef], known: Collection[str] = ()) -> list[str]:
        """The names of the nodes that it picks, each once, in the order of `nodes`.

        known: names of groups or roles that exist though no node has them now (a group with a count of 0): they pick nothing,
        and a selector that could pick one of theirs may pick nothing at all.
        Raises SelectorError when it names what does not exist, when an index is out of range, and when it picks nothing.
        """
        picked: set[str] = {node.name for node in nodes} if all(term.without for term in self.terms) else set()
        for term in self.terms:
            if term.without:
                picked -= _matches(term, nodes, known)
            else:
                picked |= _matches(term, nodes, known)
        if not picked and not self._may_be_empty(known):
            raise SelectorError(f"the selector {str(self)!r} picks no node", remedy=_existing(nodes, known))
        return [node.name for node in nodes if node.name in picked]

    def _may_be_empty(self, known: Collection[str]) -> bool:
        from_all = all(term.without for term in self.terms) or any(term.name == "all" for term in self.terms)
        return any(term.name in known for term in self.terms) or (from_all and bool(known))


def parse(text: str) -> Selector:
    """The selector that `text` spells. Raises SelectorError when it is malformed; whether its names exist shows on `pick`."""
    terms = tuple(_term(part, text) for part in text.split(","))
    if terms[0].without and not all(term.without for term in terms):
        raise SelectorError(
            f"the selector {_quote(text)} begins with what to leave out",
            remedy="Write first what to pick, such as 'all,!server', or only what to leave out, such as '!server'.",
        )
    return Selector(terms)


def resolve(text: str, nodes: Sequence[NodeRef], known: Collection[str] = ()) -> list[str]:
    """The names of the nodes that the selector `text` picks: `parse(text).pick(nodes, known)`."""
    return parse(text).pick(nodes, known)


def names(nodes: Sequence[NodeRef]) -> list[str]:
    """Everything that can be written for one term: groups and nodes, roles, members of groups, and `all`."""
    groups = dict.fromkeys(node.group for node in nodes)
    roles = dict.fromkeys(role for node in nodes for role in node.roles)
    members = [node.name for node in nodes if node.index is not None]
    return list(dict.fromkeys([*groups, *roles, "all", *members]))


def nearest(word: str, names: Collection[str]) -> str | None:
    """The one of `names` that `word` most looks like, or None when none is near."""
    found = difflib.get_close_matches(word[:80], list(names)[:5000], n=1, cutoff=0.6)
    return found[0] if found else None


def natural_order(name: str) -> list[list[str | int]]:
    """A key that sorts names as people count: "g2" before "g10", "client[2]" before "client[10]", all of "g" before those of "g1"."""
    return [[int(part) if place % 2 else part for place, part in enumerate(_NUMBER.split(whole))] for whole in name.split("[")]


def _term(part: str, text: str) -> Term:
    match = _TERM.fullmatch(part.strip())
    if not match:
        what = "has an empty part" if not part.strip() else f"has a part that is none: {_quote(part.strip())}"
        raise SelectorError(
            f"the selector {_quote(text)} {what}", remedy="Write names with commas between: client, client[0], client[0:4], all, !server."
        )
    index = match["index"]
    return Term(match["name"], None if index is None else _index(index, text), bool(match["not"]))


def _index(written: str, text: str) -> int | slice:
    if _INDEX.fullmatch(written):
        return int(written)
    match = _SLICE.fullmatch(written)
    if not match or match[3] in ("0", "-0"):
        raise SelectorError(
            f"the selector {_quote(text)} has an index that is none: [{written[:20]}]",
            remedy="Write one number, as in client[0], or two with a colon between, as in client[0:4].",
        )
    return slice(*(None if bound is None else int(bound) for bound in match.groups()))


def _matches(term: Term, nodes: Sequence[NodeRef], known: Collection[str]) -> set[str]:
    if term.name == "all":
        found = list(nodes)
    else:
        found = [node for node in nodes if term.name == node.group or term.name in node.roles]
        if not found and term.name not in known:
            everything = [*names(nodes), *known]
            member = re.sub(r"-([0-9]+)$", r"[\1]", term.name)
            guess = member if member in everything else nearest(term.name, everything)
            hint = f"Did you mean {guess!r}? " if guess else ""
            raise SelectorError(f"no node, group or role is called {_quote(term.name)}", remedy=hint + _existing(nodes, known))
    if term.index is None or not found:
        return {node.name for node in found}
    return _members(term, found)


def _members(term: Term, found: list[NodeRef]) -> set[str]:
    members = {node.index: node.name for node in found if node.group == term.name and node.index is not None}
    if not members:
        raise SelectorError(
            f"{str(term)!r} has an index, but {term.name!r} is no group with a count", remedy=f"Write it without: {term.name!r}."
        )
    size = max(index for index in members if index is not None) + 1
    if isinstance(term.index, slice):
        return {members[index] for index in range(size)[term.index] if index in members}
    assert term.index is not None  # noqa: S101 (a term without an index never comes here)
    index = term.index + size if term.index < 0 else term.index
    if index not in members:
        raise SelectorError(
            f"{str(term)!r} does not exist: {term.name!r} has {len(members)} member{'s' * (len(members) != 1)}",
            remedy=f"They are {term.name}[0] to {term.name}[{size - 1}].",
        )
    return {members[index]}


def _existing(nodes: Sequence[NodeRef], known: Collection[str]) -> str:
    sizes: dict[str, int | None] = dict.fromkeys(known, 0)
    for node in nodes:
        sizes[node.group] = None if node.index is None else (sizes.get(node.group) or 0) + 1
    roles = dict.fromkeys(role for node in nodes for role in node.roles)
    shown = [name if size is None else f"{name} (a group of {size})" for name, size in sizes.items()]
    shown += [f"{role} (a role)" for role in roles if role not in sizes]
    if not shown:
        return "There are no nodes."
    return f"There are {', '.join(shown[:_LISTED])}{' and more' * (len(shown) > _LISTED)}."


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
