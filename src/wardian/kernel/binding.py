"""Where a cell runs: the `%%on` line of its source, else its metadata, else the sticky binding, else home. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import WardianError

HERE = "here"
LANGUAGES = ("python", "bash")
_JOB = re.compile(r"^[A-Za-z_][\w-]*$")
_HOME_MAGIC = re.compile(r"%(on|jobs|wait|stop|get|put)(?=\s|$)")
USAGE = "%%on SELECTOR [--lang python|bash] [--bg] [as NAME]"


class BindingError(WardianError):
    """A cell says where it runs in a way that is not understood."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a cell runs.

    selector: of nodes, or None for home. language: of the node's kernel.
    background: whether the cell is a job; job: the name it is given, or None to be named after its selector.
    source: what decided it: "line", "metadata", "sticky" or "home".
    """

    selector: str | None = None
    language: str = "python"
    background: bool = False
    job: str | None = None
    source: str = "home"


HOME = Binding()


@dataclass(frozen=True, slots=True)
class Bound:
    """A cell's binding and the code that is run there.

    removed: how many characters the code is shorter before the cell's second part, so that a cursor can be moved along;
    start: where in the source the `%%on` line begins, or None.
    """

    binding: Binding
    code: str
    removed: int = 0
    start: int | None = None


def bind(code: str, metadata: Mapping[str, Any], sticky: Binding | None) -> Bound:
    """Where `code` runs, given its cell's metadata and the sticky binding. Raises BindingError."""
    start, line = first_line(code)
    if re.match(r"%%on(\s|$)", line):
        return _from_line(code, start, line)
    if _HOME_MAGIC.match(line):
        return Bound(HOME, code)
    return Bound(from_metadata(metadata) or sticky or HOME, code)


def first_line(code: str) -> tuple[int, str]:
    """The first line that is neither blank nor a comment, and where it begins."""
    position = 0
    for line in code.splitlines(keepends=True):
        text = line.strip()
        if text and not text.startswith("#"):
            return position, line.rstrip("\r\n")
        position += len(line)
    return position, ""


def parse_on(arguments: str, usage: str = USAGE) -> Binding:
    """The binding that the arguments of an `%on` or `%%on` line ask for. Raises BindingError."""
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise BindingError(f"cannot read {arguments!r}: {error}", remedy=f"write {usage}") from None
    selectors: list[str] = []
    binding = Binding(source="line")
    while words:
        word = words.pop(0)
        option, _, value = word.partition("=")
        if option == "--lang":
            value = value or (words.pop(0) if words else "")
            binding = replace(binding, language=check_language(value))
        elif word == "--bg":
            binding = replace(binding, background=True)
        elif word == "as" and selectors:
            binding = replace(binding, job=_job(words.pop(0) if words else ""))
        elif word.startswith("-"):
            raise BindingError(f"there is no option {word}", remedy=f"write {usage}")
        else:
            selectors.append(word)
    if not selectors:
        raise BindingError("the selector is missing", remedy=f"write {usage}")
    if binding.job and not binding.background:
        raise BindingError("only a background cell has a name", remedy="add --bg, or leave out `as NAME`")
    selector = "".join(selectors) if all(part.endswith(",") for part in selectors[:-1]) else " ".join(selectors)
    if " " in selector:
        raise BindingError(f"cannot read {selector!r} as one selector", remedy=f"write {usage}; several nodes as client,server")
    if selector == HERE:
        if binding.background:
            raise BindingError("a cell at home cannot run in the background", remedy="bind it to a node, or leave out --bg")
        return replace(binding, selector=None)
    return replace(binding, selector=selector)


def check_language(value: object) -> str:
    """`value` if it is a language that nodes run. Raises BindingError."""
    if value not in LANGUAGES:
        raise BindingError(f"a node has no kernel for the language {value!r}", remedy=f"use one of {', '.join(LANGUAGES)}")
    return str(value)


def from_metadata(metadata: Mapping[str, Any]) -> Binding | None:
    """The binding in a cell's metadata, or None. Raises BindingError where it is malformed."""
    entry = metadata.get("wardian")
    if entry is None:
        return None
    where = entry.get("on") if isinstance(entry, Mapping) else entry
    if not isinstance(entry, Mapping) or not (where is None or isinstance(where, str)):
        remedy = 'write {"wardian": {"on": "SELECTOR", "lang": "bash"}}, lang being optional'
        raise BindingError('the cell\'s metadata "wardian" is not understood', remedy=remedy)
    if where is None or not where.strip():
        return None
    if where.strip() == HERE:
        return Binding(source="metadata")
    return Binding(selector=where.strip(), language=check_language(entry.get("lang", "python")), source="metadata")


def _job(name: str) -> str:
    if not _JOB.match(name):
        raise BindingError(f"{name!r} is no name for a job", remedy="use letters, digits, _ and -")
    return name


def _from_line(code: str, start: int, line: str) -> Bound:
    binding = parse_on(line[len("%%on") :])
    rest = code[start + len(line) :]
    # Line numbers in tracebacks are those of the visible cell: the line stays, as a comment, because IPython
    # drops leading blank ones; but a cell magic below it is only seen when nothing but blank lines stands above.
    blank = rest.lstrip().startswith("%%") and not code[:start].strip()
    stand_in = "" if blank else f"# {line.strip()}"
    return Bound(binding, code[:start] + stand_in + rest, len(line) - len(stand_in), start)
