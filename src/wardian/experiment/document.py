"""YAML text as values that know where they were written.

Read event by event, never recursively by the library, so that no text whatever can exhaust the stack; what aliases and merge keys
expand to is bounded. Scalars are read as YAML 1.2's core schema has them (`on`, `off`, `yes`, `no` and `22:22` are text), with one
difference: a number that begins with 0, such as the file mode 0755, stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import ExperimentFileError, Problem

Path = tuple[str | int, ...]

LARGEST_TEXT = 4 * 2**20
"""Longest text that is read, in characters."""

DEEPEST = 40
"""How many lists and mappings may be inside each other."""
_TOO_DEEP = f"lists and mappings more than {DEEPEST} deep inside each other"

MOST_VALUES = 300_000
"""How many values a text may have once its aliases are followed."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,999})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAGS = {"str", "int", "float", "bool", "null"}
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in the text, counted from 1."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: its text, and what that means in YAML (a number, text, true, false or None)."""

    mark: Mark
    text: str
    value: int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Sequence:
    mark: Mark
    items: list[Tree]


@dataclass(frozen=True, slots=True)
class Mapping:
    mark: Mark
    items: dict[str, tuple[Mark, Tree]]


Tree = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Place:
    """Where one value stands. `key` is where its key stands, or the value itself in a list."""

    path: Path
    key: Mark
    tree: Tree

    @property
    def start(self) -> Mark:
        """Where to point for the value: at a collection's key, since what is inside begins on a later line."""
        return self.tree.mark if isinstance(self.tree, Scalar) else self.key


@dataclass(slots=True)
class Document:
    """One YAML text. `problems` are those found while the text could still be read to its end."""

    source: str
    root: Tree
    problems: list[Problem] = field(default_factory=list)

    def data(self, value: Callable[[Path, Scalar], object], under: Path = ()) -> object:
        """The plain values below a path, each scalar as `value` gives it; None where there is nothing."""
        place = self.place(under)
        return _data(place.tree, under, value) if place.path == under else None

    def place(self, path: Path) -> Place:
        """Where the value at `path` stands; if it is not there, the innermost part around it that is.

        Follows the short forms as well: a name into a list goes to the item that reads so, a number into a mapping to the entry there.
        """
        place = Place((), self.root.mark, self.root)
        for step in path:
            inner = _step(place, step)
            if inner is None:
                break
            place = inner
        return place


def read(text: str | bytes, source: str, what: str = "an experiment", fields: str = "name and nodes") -> Document:
    """Read one YAML text that is to be a mapping with these fields, called `what`.

    Raises ExperimentFileError when it is no YAML, or not of the kind that is accepted here.
    """
    reader = _Reader(_decode(text, source), source)
    root = reader.document()
    if isinstance(root, Scalar) and root.value is None:
        hint = ", such as the ones that `wardian init` writes" if what == "an experiment" else f": a mapping with {fields}"
        raise _error(source, "the file is empty", expected=what + hint)
    if not isinstance(root, Mapping):
        got = "a list" if isinstance(root, Sequence) else repr(root.text[:60])
        raise _error(source, f"not {what} file", root.mark, expected=f"a mapping with {fields}", got=got)
    _check_expansion(root, source)
    return Document(source, root, reader.problems)


def scalar(text: str) -> int | float | str | bool | None:
    """What an unquoted scalar means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text.replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(text.lower()) else text


def dotted(path: Path) -> str:
    """A path as people read it: `nodes.client.networks.wan.delay`, `collect[1].path`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _decode(text: str | bytes, source: str) -> str:
    if isinstance(text, bytes):
        raw = text
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            mark = _mark_at(raw[: error.start].decode("utf-8"))
            raise _error(source, "not a text file in UTF-8", mark, got=f"the byte 0x{raw[error.start]:02x}") from None
    text = text.removeprefix("\ufeff")
    if len(text) > LARGEST_TEXT:
        raise _error(source, "the file is too long", expected=f"at most {LARGEST_TEXT:,} characters", got=f"{len(text):,}")
    if junk := _UNPRINTABLE.search(text):
        mark = _mark_at(text[: junk.start()])
        raise _error(source, "not a text file", mark, got=f"the character U+{ord(junk[0]):04X}")
    return text


def _mark_at(before: str) -> Mark:
    lines = _BREAK.split(before)
    return Mark(len(lines), len(lines[-1]) + 1)


def _error(source: str, message: str, mark: Mark | None = None, expected: str | None = None, got: str | None = None) -> ExperimentFileError:
    mark = mark or Mark()
    return ExperimentFileError([Problem("", message, source, mark.line, mark.column, expected, got)])


class _Reader:
    """Builds trees from the parser's events."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.problems: list[Problem] = []
        self.anchors: dict[str, Tree | None] = {}
        self.merged = 0
        self.events = self._events()

    def document(self) -> Tree:
        root: Tree = Scalar(Mark(), "", None)
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._stop(event, "a second document (---) in one file", expected="one experiment a file")
                root = self._tree(next(self.events), (), 0)
        return root

    def _events(self) -> Iterator[Any]:
        try:
            yield from yaml.parse(self.text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            at = error.problem_mark or error.context_mark
            mark = Mark(at.line + 1, at.column + 1) if at else Mark()
            raise _error(self.source, self._plainly(error, mark), mark) from None

    def _plainly(self, error: yaml.MarkedYAMLError, mark: Mark) -> str:
        lines = _BREAK.split(self.text)
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        if "\t" in line[: mark.column] and not line[: mark.column].strip():
            return "a tab where only spaces may indent"
        said = " ".join(part for part in (error.context, error.problem) if part)
        if "nesting depth" in said:
            # the parser reads ahead, and has a bound of its own
            return _TOO_DEEP
        hint = ' (inside { } or [ ], a text with a bracket or a comma needs quotes, such as "client[0]")' if "flow" in said else ""
        return f"not valid YAML: {said}{hint}"

    def _stop(self, event: Any, message: str, expected: str | None = None) -> ExperimentFileError:
        error = _error(self.source, message, _mark(event), expected)
        return ExperimentFileError([*self.problems, *error.problems])

    def _complain(self, mark: Mark, path: Path, message: str, expected: str | None = None, got: str | None = None) -> None:
        self.problems.append(Problem(dotted(path), message, self.source, mark.line, mark.column, expected, got))

    def _tree(self, event: Any, path: Path, depth: int) -> Tree:
        if depth > DEEPEST:
            raise self._stop(event, _TOO_DEEP)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            tree: Tree = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = self._sequence(event, path, depth)
        else:
            tree = self._mapping(event, path, depth)
        if event.anchor:
            self.anchors[event.anchor] = tree
        return tree

    def _alias(self, event: Any, path: Path) -> Tree:
        tree = self.anchors.get(event.anchor)
        if tree is None:
            inside = event.anchor in self.anchors
            what = f"the alias *{event.anchor} stands inside what it repeats" if inside else f"no anchor &{event.anchor} above this alias"
            self._complain(_mark(event), path, what)
            return Scalar(_mark(event), "", None)
        return tree

    def _scalar(self, event: Any, path: Path) -> Scalar:
        mark, text, tag = _mark(event), event.value, (event.tag or "").removeprefix(_TAG)
        if "\0" in text:
            self._complain(mark, path, "a NUL character in text")
            text = text.replace("\0", "")
        if not event.tag or event.tag == "!":
            plain = event.style in (None, "") and not event.tag
            return Scalar(mark, text, scalar(text) if plain else text)
        value = text if tag == "str" else scalar(text)
        if tag not in _TAGS or not _is(value, tag):
            self._complain(mark, path, "not a value of its tag" if tag in _TAGS else "an unknown tag", got=event.tag)
            value = text
        return Scalar(mark, text, float(value) if tag == "float" and isinstance(value, int) else value)

    def _sequence(self, event: Any, path: Path, depth: int) -> Sequence:
        self._check_tag(event, path, "seq")
        items: list[Tree] = []
        for inner in self.events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            items.append(self._tree(inner, (*path, len(items)), depth + 1))
        return Sequence(_mark(event), items)

    def _mapping(self, event: Any, path: Path, depth: int) -> Mapping:
        self._check_tag(event, path, "map")
        items: dict[str, tuple[Mark, Tree]] = {}
        merges: list[tuple[Mark, Tree]] = []
        for inner in self.events:
            if isinstance(inner, yaml.MappingEndEvent):
                break
            mark = _mark(inner)
            key = self._tree(inner, path, depth + 1)
            plain = isinstance(inner, yaml.ScalarEvent) and inner.style in (None, "") and not inner.tag
            value = self._tree(next(self.events), (*path, key.text) if isinstance(key, Scalar) else path, depth + 1)
            if not isinstance(key, Scalar):
                self._complain(mark, path, "a key that is a list or a mapping", expected="a name")
            elif key.text == "<<" and plain:
                merges.append((mark, value))
            elif key.text in items:
                self._complain(mark, (*path, key.text), f"written twice in one mapping, first on line {items[key.text][0].line}")
            else:
                items[key.text] = (mark, value)
        for mark, value in merges:
            self._merge(items, mark, value, path)
        return Mapping(_mark(event), items)

    def _merge(self, items: dict[str, tuple[Mark, Tree]], mark: Mark, value: Tree, path: Path) -> None:
        for source in value.items if isinstance(value, Sequence) else [value]:
            if not isinstance(source, Mapping):
                self._complain(mark, (*path, "<<"), "not a mapping to merge", expected="an alias of a mapping, or a list of them")
                return
            self.merged += len(source.items)
            if self.merged > MOST_VALUES:
                raise _error(self.source, f"merge keys (<<) expand to more than {MOST_VALUES:,} values", mark)
            for key, entry in source.items.items():
                items.setdefault(key, entry)

    def _check_tag(self, event: Any, path: Path, name: str) -> None:
        if event.tag not in (None, "!", _TAG + name):
            self._complain(_mark(event), path, "an unknown tag", got=event.tag)


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _is(value: object, tag: str) -> bool:
    kinds = {"str": str, "int": int, "float": (int, float), "bool": bool, "null": type(None)}
    return isinstance(value, kinds[tag]) and (tag == "bool" or not isinstance(value, bool))  # type: ignore[arg-type]


def _check_expansion(root: Tree, source: str) -> None:
    """Follow every alias, as far as is allowed."""
    count, waiting = 0, [(root, 0)]
    while waiting:
        tree, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise _error(source, f"aliases (*) expand to more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise _error(source, f"aliases (*) expand to lists and mappings more than {DEEPEST} deep inside each other", tree.mark)
        if isinstance(tree, Sequence):
            waiting.extend((item, depth + 1) for item in tree.items)
        elif isinstance(tree, Mapping):
            waiting.extend((value, depth + 1) for _, value in tree.items.values())


def _data(tree: Tree, path: Path, value: Callable[[Path, Scalar], object]) -> object:
    if isinstance(tree, Scalar):
        return value(path, tree)
    if isinstance(tree, Sequence):
        return [_data(item, (*path, position), value) for position, item in enumerate(tree.items)]
    return {key: _data(item, (*path, key), value) for key, (_, item) in tree.items.items()}


def _step(place: Place, step: str | int) -> Place | None:
    tree = place.tree
    if isinstance(tree, Mapping):
        key = list(tree.items)[step] if isinstance(step, int) and step < len(tree.items) else step
        if key in tree.items:
            mark, value = tree.items[str(key)]
            return Place((*place.path, str(key)), mark, value)
    elif isinstance(tree, Sequence):
        for position, item in enumerate(tree.items):
            if position == step or (isinstance(item, Scalar) and item.text == step):
                return Place((*place.path, step), item.mark, item)
    return None
