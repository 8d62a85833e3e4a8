"""What a script that is followed has to do with, apart from plain values: what is unknown, and objects of its own and of others."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

MOST_ITEMS = 20_000
"""Longest text, list or mapping that a script may make here."""


class Unknown:
    """A value that only running the script would tell."""

    def __bool__(self) -> bool:
        return False


UNKNOWN = Unknown()


class Element(str):
    """A host or a switch, which scripts take for its name."""


@dataclass(slots=True)
class External:
    """Something from outside of the file, by its name: `TCLink`, `mininet.net`."""

    name: str


@dataclass(slots=True)
class Function:
    node: ast.FunctionDef | ast.Lambda
    scope: dict[str, Any]
    owner: Instance | None = None
    cls: Class | None = None


@dataclass(slots=True)
class Class:
    node: ast.ClassDef
    bases: list[Any]
    members: dict[str, Any]

    @property
    def name(self) -> str:
        return self.node.name

    def find(self, name: str) -> tuple[Any, Class] | None:
        """A member, and the class in the file that has it."""
        if name in self.members:
            return self.members[name], self
        return next((found for base in self.bases if isinstance(base, Class) and (found := base.find(name))), None)

    def ancestors(self) -> list[str]:
        """The names of the classes outside of the file that it derives from."""
        names: list[str] = []
        for base in self.bases:
            names += base.ancestors() if isinstance(base, Class) else [base.name] if isinstance(base, External) else []
        return names


@dataclass(slots=True, eq=False)
class Instance:
    """An object of a class of the file, or of one outside (`cls` is None). `subject` is what the listener keeps with it."""

    cls: Class | None
    attributes: dict[str, Any] = field(default_factory=dict)
    subject: Any = None


class TooLong(Exception):
    """The script does more than is followed."""
