"""YAML that describes a topology, as values that know where they stand; and the folder around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ...errors import ExperimentFileError, Problem
from .. import document
from ..document import Path, Scalar
from .report import Spot


class Folder(Protocol):
    """The folder that a topology lies in, read by whoever imports it. Paths are relative to it, with `/`; none leads out of it."""

    def read(self, path: str) -> bytes | None:
        """What a file holds, or None where there is no such file."""

    def files(self, path: str) -> list[str] | None:
        """The files in a folder and in those below it, relative to that folder, sorted; None where there is no such folder."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a YAML text, which may be absent (`data` is None). Whoever asks for a kind that it is not gets nothing."""

    source: Text
    path: Path
    data: Any

    def __bool__(self) -> bool:
        return self.data is not None

    def __getitem__(self, key: str) -> Value:
        inner = self.data.get(key) if isinstance(self.data, dict) else None
        return Value(self.source, (*self.path, key), inner)

    @property
    def spot(self) -> Spot:
        place = self.source.document.place(self.path)
        return Spot(self.source.name, place.start.line, document.dotted(self.path))

    @property
    def key(self) -> str:
        """The name that it stands under."""
        return str(self.path[-1]) if self.path else ""

    def entries(self) -> Iterator[Value]:
        """Those of a mapping, in order."""
        for key in self.data if isinstance(self.data, dict) else ():
            yield self[key]

    def items(self) -> Iterator[Value]:
        """Those of a list, or the value itself where it is a single one."""
        if isinstance(self.data, list):
            yield from (Value(self.source, (*self.path, position), item) for position, item in enumerate(self.data))
        elif self.data is not None and not isinstance(self.data, dict):
            yield self

    @property
    def text(self) -> str:
        """A single value as text, else nothing."""
        if isinstance(self.data, bool):
            return str(self.data).lower()
        return str(self.data) if isinstance(self.data, str | int | float) else ""

    @property
    def true(self) -> bool:
        return self.text.lower() in ("true", "yes", "on", "1")

    def pairs(self) -> Iterator[tuple[str, str | None, Value]]:
        """(name, text, where) of a mapping, or of a list of NAME=TEXT; None where there is a name alone."""
        for entry in self.entries():
            yield entry.key, entry.text if entry else None, entry
        for item in self.items():
            name, equals, text = item.text.partition("=")
            yield name, text if equals else None, item


class Layers:
    """Several values that say something of one thing, each over those before it."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values

    def __getitem__(self, key: str) -> Value:
        """What is said last of all, absent or not."""
        return next((value[key] for value in reversed(self.values) if value[key]), self.values[-1][key])

    def all(self, key: str) -> list[Value]:
        """Everything that is said, first to last."""
        return [value[key] for value in self.values if value[key]]

    def names(self) -> list[str]:
        """The names of everything that is said."""
        return list(dict.fromkeys(key for value in self.values for key in (value.data if isinstance(value.data, dict) else ())))


class Text:
    """One YAML text. name: what it is called in reports. values: what `${NAME}` stands for in it."""

    def __init__(self, text: bytes, name: str, what: str, values: Mapping[str, str]) -> None:
        self.name = name
        self.values = values
        self.unset: dict[str, Path] = {}
        self.document = read(text, name, what)

    @property
    def root(self) -> Value:
        return Value(self, (), self.document.data(self._value))

    def _value(self, path: Path, item: Scalar) -> object:
        if "$" not in item.text:
            return item.value
        text = interpolate(item.text, self.values, lambda name: self.unset.setdefault(name, path))
        return text if text == item.text or not isinstance(item.value, str) else document.scalar(text)


_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-=?+])((?:[^{}]|\{[^{}]*\})*))?\}|([A-Za-z_][A-Za-z0-9_]*))")


def interpolate(text: str, values: Mapping[str, str], unset: Callable[[str], object]) -> str:
    """`$NAME`, `${NAME}`, `${NAME:-default}` and their like replaced as a shell does it; `$$` is a `$`.

    unset: told of each name that has neither a value nor a default.
    """

    def one(match: re.Match[str]) -> str:
        name, operator, word = match[1] or match[4], match[2] or "", match[3] or ""
        if not name:
            return "$"
        value = values.get(name)
        there = value is not None and (value != "" or not operator.startswith(":"))
        if operator.endswith("+"):
            return interpolate(word, values, unset) if there else ""
        if there:
            return value or ""
        if operator.endswith(("-", "=")):
            return interpolate(word, values, unset)
        unset(name)
        return ""

    return _VARIABLE.sub(one, text)


def read(text: bytes, name: str, what: str) -> document.Document:
    """The YAML of a file that should be `what`. Raises ExperimentFileError with everything that is no YAML in it."""
    try:
        found = document.read(text, name)
    except ExperimentFileError as error:
        raise ExperimentFileError([_reworded(problem, what) for problem in error.problems]) from None
    # tags are for the tool that the file was written for
    wrong = [problem for problem in found.problems if "tag" not in problem.message]
    if wrong:
        raise ExperimentFileError(wrong)
    return found


def _reworded(problem: Problem, what: str) -> Problem:
    if problem.message in ("the file is empty", "not an experiment file"):
        message = problem.message.replace("not an experiment file", f"not {what}")
        return replace(problem, message=message, expected=what)
    return replace(problem, expected=None) if problem.message.startswith("a second document") else problem


def variables(text: bytes) -> Iterator[tuple[str, str]]:
    """(name, value) for each line NAME=VALUE of a file of environment variables, without quotes around the value."""
    for line in text.decode("utf-8", "replace").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            yield name.strip(), value[1:-1] if quoted else value.partition(" #")[0].rstrip()
