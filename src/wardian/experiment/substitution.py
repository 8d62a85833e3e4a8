"""`${name}` in an experiment file: replaced by the value of a parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .document import Path

Value = int | float | str | bool

LONGEST = 2**20
"""Longest text that a replacement may grow to, in characters."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")


class UnknownParameter(Exception):
    """`${name}` where there is no parameter of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def is_shell(path: Path) -> bool:
    """Whether the value at a path is shell code or a command, where a `${NAME}` that is no parameter belongs to the shell."""
    match path:
        case ("nodes", _, "setup") | ("services", _, "command", *_) | ("services", _, "ready", "command", *_):
            return True
    return False


def is_literal(path: Path) -> bool:
    """Whether nothing is replaced at a path: parameters are not made of parameters."""
    return path[:1] == ("parameters",)


def substitute(text: str, values: Mapping[str, Value], *, lenient: bool = False) -> Value:
    """`text` with each `${name}` replaced and each `$${` turned into `${`.

    A text that is `${name}` and nothing else becomes the value itself, with its type.
    lenient: leave a reference that is no parameter as it is, in place of raising UnknownParameter.
    Raises ValueError, saying what was expected, when the text grows too long.
    """
    whole = _REFERENCE.fullmatch(text)
    if whole and whole[1] in values:
        return values[whole[1]]
    room = LONGEST

    def replace(match: re.Match[str]) -> str:
        nonlocal room
        name = match[1]
        if name is None:
            return "${"
        if name not in values:
            if lenient:
                return match[0]
            raise UnknownParameter(name)
        written = write(values[name])
        room -= len(written)
        if room < 0:
            raise ValueError(f"a text of at most {LONGEST:,} characters after its parameters are replaced")
        return written

    return _REFERENCE.sub(replace, text)


def escape(text: str, values: Mapping[str, Value], *, lenient: bool = False) -> str:
    """Text that `substitute` turns into `text`."""
    if lenient and substitute(text, values, lenient=True) == text:
        return text
    return text.replace("${", "$${")


def write(value: Value) -> str:
    """A value as it reads inside text: `true`, `20`, `0.05`, and a whole number without its `.0`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
