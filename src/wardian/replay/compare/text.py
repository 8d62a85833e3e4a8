"""Text with numbers: the same words, numbers within what is accepted, volatile parts left out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from . import numbers
from .numbers import Number
from .results import Finding, Place, Verdict
from .rules import Rules

_MANY = 3000
"""So many lines that differ are aligned with one another; of more, each is held against that in its place."""
_SPACES = re.compile(r"[ \t\u00a0]+")


@dataclass(frozen=True, slots=True)
class _Part:
    """Words, a number or something volatile. kind: "words", "volatile", "number"; name: what two lines that are alike have in common."""

    kind: str
    name: str
    text: str
    number: Number | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line taken apart. skeleton: what two lines have in common that differ in numbers and volatile parts alone."""

    text: str
    parts: tuple[_Part, ...]
    skeleton: tuple[tuple[str, str], ...]


def take_apart(line: str, rules: Rules) -> Line:
    """A line's words, numbers and volatile parts."""
    parts: list[_Part] = []
    position = 0
    for begin, end, kind in rules.volatile.find(line):
        parts += _words_and_numbers(line, position, begin)
        parts.append(_Part("volatile", kind, line[begin:end]))
        position = end
    parts += _words_and_numbers(line, position, len(line))
    skeleton = [(part.kind, _SPACES.sub(" ", part.name)) for part in parts]
    if skeleton and skeleton[0][0] == "words":
        skeleton[0] = ("words", skeleton[0][1].lstrip(" "))
    if skeleton and skeleton[-1][0] == "words":
        skeleton[-1] = ("words", skeleton[-1][1].rstrip(" "))
    return Line(line, tuple(parts), tuple(item for item in skeleton if item[1] or item[0] != "words"))


def compare(old: str, new: str, place: Place, rules: Rules) -> list[Finding]:
    """What differs between two texts, line by line; nothing where they are the same byte by byte."""
    if old == new:
        return []
    found: list[Finding] = []
    olds, news = old.splitlines(), new.splitlines()
    for tag, left, right in _aligned(olds, news, rules):
        if tag == "same":
            for number, (one, other) in enumerate(zip(olds[slice(*left)], news[slice(*right)], strict=True), left[0] + 1):
                if one != other:
                    found += _line(one, other, Place(place.node, place.part, number, None, place.path), rules)
        else:
            found += _block(olds, news, left, right, place)
    if not found:
        found.append(Finding(place, "spacing", Verdict.EQUAL, "", "", "the ends of lines differ"))
    return found


def compare_values(old: str, new: str, place: Place, rules: Rules) -> list[Finding]:
    """The same of one piece of text in a table or in JSON, which is taken as one line."""
    if old == new:
        return []
    one, other = take_apart(old, rules), take_apart(new, rules)
    if one.skeleton != other.skeleton:
        return [Finding(place, "text", Verdict.DIFFERENT, old, new)]
    return _line(old, new, place, rules)


def compare_numbers(old: Number, new: Number, place: Place, rules: Rules) -> Finding | None:
    """What differs between two numbers."""
    if old.text == new.text:
        return None
    covering = tuple(item for item in rules.tolerances if item.covers(old))
    both_nan = old.value != old.value and new.value != new.value
    if old.value == new.value or both_nan:
        return Finding(place, "format", Verdict.EQUAL, old.text, new.text, "the same number, written otherwise")
    fine = any(item.accepts(old.value, new.value) for item in covering)
    moved = numbers.change(old.value, new.value)
    words = f"{moved}, within the tolerance".lstrip(", ") if fine else f"{moved}, beyond the tolerance".lstrip(", ") if covering else moved
    verdict = Verdict.EQUAL if fine else Verdict.DIFFERENT
    return Finding(place, "number", verdict, old.text, new.text, words, (old, new), covering)


def _words_and_numbers(line: str, begin: int, end: int) -> Iterator[_Part]:
    position = begin
    for match in numbers.PATTERN.finditer(line, begin, end):
        if match.start() > position:
            words = line[position : match.start()]
            yield _Part("words", words, words)
        number = numbers.parse(match)
        yield _Part("number", number.dimension, match[0], number)
        position = match.end()
    if position < end:
        yield _Part("words", line[position:end], line[position:end])


def _aligned(olds: Sequence[str], news: Sequence[str], rules: Rules) -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
    """Blocks of lines that are alike ("same"), and of others."""
    left = [take_apart(line, rules).skeleton for line in olds]
    right = [take_apart(line, rules).skeleton for line in news]
    if left == right:
        yield "same", (0, len(left)), (0, len(right))
        return
    first = 0
    while first < min(len(left), len(right)) and left[first] == right[first]:
        first += 1
    last = 0
    while last < min(len(left), len(right)) - first and left[-1 - last] == right[-1 - last]:
        last += 1
    if first:
        yield "same", (0, first), (0, first)
    middle = left[first : len(left) - last], right[first : len(right) - last]
    if max(map(len, middle)) > _MANY:
        yield from _by_place(*middle, first)
    else:
        for tag, a, b, c, d in SequenceMatcher(None, *middle, autojunk=False).get_opcodes():
            yield "same" if tag == "equal" else tag, (a + first, b + first), (c + first, d + first)
    if last:
        yield "same", (len(left) - last, len(left)), (len(right) - last, len(right))


def _by_place(left: Sequence[object], right: Sequence[object], first: int) -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
    both = min(len(left), len(right))
    for index in range(both):
        at = (index + first, index + first + 1)
        yield "same" if left[index] == right[index] else "replace", at, at
    if len(left) != len(right):
        yield "replace", (both + first, len(left) + first), (both + first, len(right) + first)


def _line(old: str, new: str, place: Place, rules: Rules) -> list[Finding]:
    """Two lines of one skeleton."""
    one, other = take_apart(old, rules), take_apart(new, rules)
    found: list[Finding] = []
    index = 0
    for left, right in zip(
        [part for part in one.parts if part.number or part.kind == "volatile"],
        [part for part in other.parts if part.number or part.kind == "volatile"],
        strict=True,
    ):
        if left.number and right.number:
            index += 1
            at = Place(place.node, place.part, place.line, index, place.path)
            difference = compare_numbers(left.number, right.number, at, rules)
            found += [difference] if difference else []
        elif left.text != right.text:
            found.append(Finding(place, "volatile", Verdict.EQUAL, left.text, right.text, left.name))
    return found or [Finding(place, "spacing", Verdict.EQUAL, old, new, "spacing")]


def _block(olds: Sequence[str], news: Sequence[str], left: tuple[int, int], right: tuple[int, int], place: Place) -> Iterator[Finding]:
    """Lines that are not alike: one for one as far as there are both, the rest missing or extra."""
    gone, come = olds[slice(*left)], news[slice(*right)]
    for offset in range(max(len(gone), len(come))):
        at = Place(place.node, place.part, left[0] + offset + 1, None, place.path)
        if offset >= len(come):
            yield Finding(at, "missing", Verdict.DIFFERENT, gone[offset], "", "the line is missing")
        elif offset >= len(gone):
            at = Place(place.node, place.part, right[0] + offset + 1, None, place.path)
            yield Finding(at, "extra", Verdict.DIFFERENT, "", come[offset], "the line is extra")
        else:
            yield Finding(at, "text", Verdict.DIFFERENT, gone[offset], come[offset], "the line differs")
