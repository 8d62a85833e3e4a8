"""Text with numbers: the same words, numbers within what is accepted, volatile parts left out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from . import numbers
from .numbers import Number
from .results import Finding, Place, Verdict
from .rules import Rules
from .volatile import Volatile

_MANY = 3000
"""So many lines that differ are aligned with one another; of more, each is held against that in its place."""
_SPACES = re.compile(r"[ \t\u00a0]+")


@dataclass(frozen=True, slots=True)
class Part:
    """Words, a number or something volatile. kind: "words", "volatile", "number"; name: what two lines that are alike have in common."""

    kind: str
    name: str
    text: str
    number: Number | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line taken apart. skeleton: what two lines have in common that differ in numbers and volatile parts alone."""

    text: str
    parts: tuple[Part, ...]
    skeleton: tuple[tuple[str, str], ...]


def take_apart(line: str, rules: Rules) -> Line:
    """A line's words, numbers and volatile parts."""
    return _apart(line, rules.volatile)


# comparing and the page that shows both sides take the same lines apart
@lru_cache(maxsize=1 << 15)
def _apart(line: str, volatile: Volatile) -> Line:
    parts: list[Part] = []
    position = 0
    for begin, end, kind in volatile.find(line):
        parts += _words_and_numbers(line, position, begin)
        parts.append(Part("volatile", kind, line[begin:end]))
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
    first, olds, news = _differing(old.splitlines(), new.splitlines())
    left, right = [take_apart(line, rules) for line in olds], [take_apart(line, rules) for line in news]
    for same, (a, b), (c, d) in aligned(left, right):
        if same:
            for number, (one, other) in enumerate(zip(left[a:b], right[c:d], strict=True), first + a + 1):
                if one.text != other.text:
                    found += _line(one, other, Place(place.node, place.part, number, None, place.path), rules)
        else:
            found += _block(olds[a:b], news[c:d], first + a, first + c, place)
    return found or [Finding(place, "spacing", Verdict.EQUAL, "", "", "the ends of lines differ")]


def compare_values(old: str, new: str, place: Place, rules: Rules) -> list[Finding]:
    """The same of one piece of text in a table or in JSON, which is taken as one line."""
    if old == new:
        return []
    one, other = take_apart(old, rules), take_apart(new, rules)
    if one.skeleton != other.skeleton:
        return [Finding(place, "text", Verdict.DIFFERENT, old, new)]
    return _line(one, other, place, rules)


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


def _words_and_numbers(line: str, begin: int, end: int) -> Iterator[Part]:
    for start, stop, number in numbers.find(line, begin, end):
        if start > begin:
            yield Part("words", line[begin:start], line[begin:start])
        yield Part("number", number.dimension, line[start:stop], number)
        begin = stop
    if begin < end:
        yield Part("words", line[begin:end], line[begin:end])


def _differing(olds: list[str], news: list[str]) -> tuple[int, list[str], list[str]]:
    """The lines without those at the beginning and the end that are the same, and how many there are at the beginning."""
    both = min(len(olds), len(news))
    first = next((index for index in range(both) if olds[index] != news[index]), both)
    last = next((index for index in range(both - first) if olds[-1 - index] != news[-1 - index]), both - first)
    return first, olds[first : len(olds) - last], news[first : len(news) - last]


Block = tuple[bool, tuple[int, int], tuple[int, int]]


def aligned(olds: Sequence[Line], news: Sequence[Line]) -> Iterator[Block]:
    """Blocks of lines that are alike (True) and of others, as ranges on both sides."""
    left, right = [line.skeleton for line in olds], [line.skeleton for line in news]
    if left == right:
        yield True, (0, len(left)), (0, len(right))
    elif max(len(left), len(right)) <= _MANY:
        for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
            yield tag == "equal", (a, b), (c, d)
    else:
        both = min(len(left), len(right))
        for index in range(both):
            yield left[index] == right[index], (index, index + 1), (index, index + 1)
        yield False, (both, len(left)), (both, len(right))


def _line(one: Line, other: Line, place: Place, rules: Rules) -> list[Finding]:
    """Two lines of one skeleton."""
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
    return found or [Finding(place, "spacing", Verdict.EQUAL, one.text, other.text, "spacing")]


def _block(gone: Sequence[str], come: Sequence[str], left: int, right: int, place: Place) -> Iterator[Finding]:
    """Lines that are not alike: one for one as far as there are both, the rest missing or extra. left, right: lines before them."""
    for offset in range(max(len(gone), len(come))):
        line = (right if offset >= len(gone) else left) + offset + 1
        at = Place(place.node, place.part, line, None, place.path)
        if offset >= len(come):
            yield Finding(at, "missing", Verdict.DIFFERENT, gone[offset], "", "the line is missing")
        elif offset >= len(gone):
            yield Finding(at, "extra", Verdict.DIFFERENT, "", come[offset], "the line is extra")
        else:
            yield Finding(at, "text", Verdict.DIFFERENT, gone[offset], come[offset], "the line differs")
