"""Where a cell runs: the `%%on` line of its source, else its metadata, else the sticky binding, else home. Pure.

A request whose metadata says `{"wardian": {"once": {"on": …}}}` runs there, whatever the cell itself says.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import WardianError
from ...experiment.units import format_duration, parse_duration

HERE = "here"
LANGUAGES = ("python", "bash")
_LANGUAGE = re.compile(r"[A-Za-z0-9][\w.-]{0,40}\Z", re.ASCII)
_JOB = re.compile(r"^[A-Za-z_][\w-]*$")
_HOME_MAGIC = re.compile(r"%(on|jobs|wait|stop|get|put|restart|concurrent|forward|output)(?=\s|$)")
_ON = re.compile(r"%%on(\s|$)")
_EACH = re.compile(r"(?:^|(?<=\s))--each(?:=|\s+|$)")
_VARIABLE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(?!=)")
USAGE = "%%on SELECTOR [--lang LANGUAGE] [--first | --serial | --each VAR=LIST] [--timeout 30s] [--bg] [as NAME]"
HELP = f"""{USAGE}

SELECTOR    a node, a group or a role: client, client[0], client[0:4], server,client, all, all,!server; here is home
--lang      the language of the cell there: python (if left out), bash, or the name of a kernelspec of the node (ir)
--first     run on all; the first node that ends without error gives the cell's output, the others are interrupted
--serial    one node after the other, in order, until one fails
--each      deal the items of a list over the nodes: each runs the cell with VAR set to an item, and takes the next when it is done
--timeout   interrupt what has not ended by then (500ms, 30s, 5min); the cell is then an error that names the nodes
--bg as X   in the background, as job X: %jobs, %wait X, %stop X

%%on client                              on every client at once
%%on client[0] --lang bash               a shell command on one of them
%%on client --each seed=range(20)        twenty runs, dealt over the clients
%%on client --each rate=rates --bg       the items of a list at home, in the background
%%on mirror --first --timeout 1min       whichever is the fastest

%on takes the same, without --bg, for all following cells; %on here ends it.
"""


class BindingError(WardianError):
    """A cell says where it runs in a way that is not understood."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a cell runs.

    selector: of nodes, or None for home. language: of the node's kernel.
    background: whether the cell is a job; job: the name it is given, or None to be numbered.
    source: what decided it: "once", "line", "metadata", "sticky" or "home".
    first: whether the first node that succeeds decides. serial: whether nodes take turns. timeout: of the whole cell, seconds, or None.
    each: the variable and the list, as an expression, whose items are dealt over the nodes, or None.
    """

    selector: str | None = None
    language: str = "python"
    background: bool = False
    job: str | None = None
    source: str = "home"
    first: bool = False
    serial: bool = False
    timeout: float | None = None
    each: tuple[str, str] | None = None

    @property
    def options(self) -> str:
        """How it runs there, as it is written."""
        parts = [f"--{name}" for name in ("first", "serial") if getattr(self, name)]
        if self.each is not None:
            parts.append(f"--each {self.each[0]}={self.each[1]}")
        if self.timeout is not None:
            parts.append(f"--timeout {format_duration(self.timeout)}")
        return " ".join(parts)


HOME = Binding()


@dataclass(frozen=True, slots=True)
class Bound:
    """A cell's binding and the code that is run there.

    removed: how many characters the code is shorter before the cell's second part, so that a cursor can be moved along;
    start: where in the source the `%%on` line begins, or None. help: whether the line asks only how it is written.
    """

    binding: Binding
    code: str
    removed: int = 0
    start: int | None = None
    help: bool = False


def bind(code: str, metadata: Mapping[str, Any], sticky: Binding | None) -> Bound:
    """Where `code` runs, given its cell's metadata and the sticky binding. Raises BindingError."""
    start, line = first_line(code)
    once = _once(metadata)
    if _ON.match(line):
        return _from_line(code, start, line, once)
    if _HOME_MAGIC.match(line):
        return Bound(HOME, code)
    return Bound(once or from_metadata(metadata) or sticky or HOME, code)


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
    others, each = _cut_each(arguments)
    try:
        words = shlex.split(others)
    except ValueError as error:
        raise BindingError(f"cannot read {arguments!r}: {error}", remedy=f"write {usage}") from None
    selectors: list[str] = []
    binding = Binding(source="line", each=None if each is None else _each(each))
    while words:
        word = words.pop(0)
        option, _, value = word.partition("=")
        if option == "--lang":
            value = value or (words.pop(0) if words else "")
            binding = replace(binding, language=check_language(value))
        elif option == "--timeout":
            value = value or (words.pop(0) if words else "")
            binding = replace(binding, timeout=_timeout(value))
        elif word == "--bg":
            binding = replace(binding, background=True)
        elif word == "--first":
            binding = replace(binding, first=True)
        elif word == "--serial":
            binding = replace(binding, serial=True)
        elif word == "as" and selectors:
            binding = replace(binding, job=_job(words.pop(0) if words else ""))
        elif word.startswith("-"):
            raise BindingError(f"there is no option {word}", remedy=f"write {usage}")
        else:
            selectors.append(word)
    if not selectors:
        raise BindingError("the selector is missing", remedy=f"write {usage}")
    selector = "".join(selectors) if all(part.endswith(",") for part in selectors[:-1]) else " ".join(selectors)
    if " " in selector:
        raise BindingError(f"cannot read {selector!r} as one selector", remedy=f"write {usage}; several nodes as client,server")
    return _checked(replace(binding, selector=None if selector == HERE else selector))


def sticky_binding(arguments: str) -> Binding:
    """What the arguments of an `%on` line ask for, for all cells that follow. Raises BindingError."""
    binding = parse_on(arguments, "%on SELECTOR [--lang LANGUAGE] [--first | --serial | --each VAR=LIST] [--timeout 30s], or %on here")
    if binding.background:
        raise BindingError("only a single cell can run in the background", remedy="write %%on SELECTOR --bg at the top of that cell")
    return replace(binding, source="sticky")


def wants_help(arguments: str) -> bool:
    """Whether the arguments of an `%on` or `%%on` line ask how it is written."""
    return bool({"--help", "-h", "-?"} & set(arguments.split()))


def check_language(value: object) -> str:
    """`value` if a kernel on a node may be called so. Raises BindingError.

    Whether a node has that kernel shows there: python and bash it always has, others where a kernelspec is installed.
    """
    if not isinstance(value, str) or not _LANGUAGE.match(value):
        remedy = f"use {', '.join(LANGUAGES)}, or what a kernelspec of the node is called"
        raise BindingError(f"a node has no kernel for the language {value!r}", remedy=remedy)
    return value


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
    each, job = entry.get("each"), entry.get("as")
    binding = Binding(
        selector=None if where.strip() == HERE else where.strip(),
        background=_flag(entry, "bg"),
        job=None if job is None else _job(job),
        source="metadata",
        first=_flag(entry, "first"),
        serial=_flag(entry, "serial"),
        timeout=None if entry.get("timeout") is None else _timeout(entry["timeout"]),
        each=None if each is None else _each(each),
    )
    if binding.selector is not None:
        binding = replace(binding, language=check_language(entry.get("lang", "python")))
    return _checked(binding)


def _once(metadata: Mapping[str, Any]) -> Binding | None:
    """Where this request runs, and not what it is a request for."""
    entry = metadata.get("wardian")
    once = entry.get("once") if isinstance(entry, Mapping) else None
    binding = from_metadata({"wardian": once}) if once is not None else None
    return None if binding is None else replace(binding, source="once")


def _checked(binding: Binding) -> Binding:
    """`binding`, if its parts go together."""
    modes = [name for name, asked in (("first", binding.first), ("serial", binding.serial), ("each", binding.each)) if asked]
    if len(modes) > 1:
        both = " and ".join(f"--{name}" for name in modes)
        raise BindingError(f"{both} do not go together", remedy=f"choose one of them; {USAGE}")
    if binding.job and not binding.background:
        raise BindingError("only a background cell has a name", remedy="add --bg, or leave out `as NAME`")
    if binding.selector is None and binding.background:
        raise BindingError("a cell at home cannot run in the background", remedy="bind it to a node, or leave out --bg")
    if binding.selector is None and modes:
        raise BindingError(f"--{modes[0]} is for cells on nodes, and this one runs at home", remedy="bind it to nodes, or leave it out")
    if binding.each and binding.language not in LANGUAGES:
        raise BindingError(f"--each does not know how to set a variable in {binding.language}", remedy=f"use {' or '.join(LANGUAGES)}")
    return binding


def _cut_each(arguments: str) -> tuple[str, str | None]:
    """The arguments without `--each`, and its VAR=LIST: lists have spaces and quotes that the rules of a shell would spoil."""
    found = _EACH.search(arguments)
    if found is None:
        return arguments, None
    depth, quote, position = 0, "", found.end()
    while position < len(arguments):
        character = arguments[position]
        if quote:
            position += character == "\\"
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character.isspace() and depth <= 0:
            break
        position += 1
    return arguments[: found.start()] + arguments[position:], arguments[found.end() : position]


def _each(value: object) -> tuple[str, str]:
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        text = text[1:-1]
    match = _VARIABLE.match(text)
    items = text[match.end() :].strip() if match else ""
    if match is None or not items:
        remedy = "write --each VAR=LIST, such as --each n=[1,2,3], --each n=range(10) or --each path=paths"
        raise BindingError(f"cannot read --each {value}", remedy=remedy)
    if items[0] in ("'", '"') and items.endswith(items[0]) and items.count(items[0]) == 2:
        items = items[1:-1]
    return match[1], items


def _timeout(value: object) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise BindingError(f"cannot read --timeout {value}", remedy=f"write {error}") from None
    if seconds <= 0:
        raise BindingError("a timeout of nothing leaves the cell no time", remedy="write a duration, such as --timeout 30s")
    return seconds


def _flag(entry: Mapping[str, Any], name: str) -> bool:
    value = entry.get(name, False)
    if not isinstance(value, bool):
        raise BindingError(f'"{name}" in the cell\'s metadata is {value!r}', remedy=f'write "{name}": true, or leave it out')
    return value


def _job(name: object) -> str:
    if not isinstance(name, str) or not _JOB.match(name):
        raise BindingError(f"{name!r} is no name for a job", remedy="use letters, digits, _ and -")
    return name


def _from_line(code: str, start: int, line: str, once: Binding | None) -> Bound:
    rest = code[start + len(line) :]
    arguments = line[len("%%on") :]
    if wants_help(arguments) or not (arguments.strip() or rest.strip()):
        return Bound(HOME, "", start=start, help=True)
    binding = once or parse_on(arguments)
    # Line numbers in tracebacks are those of the visible cell: the line stays, as a comment, because IPython
    # drops leading blank ones; but a cell magic below it is only seen when nothing but blank lines stands above.
    blank = rest.lstrip().startswith("%%") and not code[:start].strip()
    stand_in = "" if blank else f"# {line.strip()}"
    return Bound(binding, code[:start] + stand_in + rest, len(line) - len(stand_in), start)
