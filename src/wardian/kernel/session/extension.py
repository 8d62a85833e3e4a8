"""The magics, as functions of the shell, and the IPython extension of the home kernel."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ...errors import WardianError
from ..cells.binding import HELP, LANGUAGES, BindingError, wants_help
from ..places import alignment
from ..values import transfer
from . import forward as ports
from .private import request


class JobFailed(WardianError):
    """The job that was waited for failed."""


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython when the home kernel starts."""
    register(shell)
    shell.register_magic_function(_misplaced, "cell", "on")
    show_errors(shell)
    shell.ex(alignment.SOURCE)


def register(shell: InteractiveShell) -> None:
    """Give a shell the line magics."""
    for name, magic in MAGICS.items():
        shell.register_magic_function(functools.partial(magic, shell), "line", name)


def show_errors(shell: InteractiveShell, ours: bool = True) -> None:
    """Whether a shell shows our errors without the frames of our own code."""
    shell.set_custom_exc((WardianError,) if ours else (), _show)


def on(shell: InteractiveShell, line: str) -> None:
    """%on SELECTOR [options]: run the following cells there. `%on here` ends it; `%on` alone says where we are; `%on --help` tells all."""
    if wants_help(line):
        print(HELP, end="")
        return
    answer = request("on", line=line if line.strip() else None)
    if answer["selector"] is None:
        print("cells run here")
    else:
        language = "" if answer["language"] == "python" else f", in {answer['language']}"
        options = f", {answer['options']}" if answer["options"] else ""
        print(f"cells run on {', '.join(answer['nodes'])}{language}{options}, until %on here")


def jobs(shell: InteractiveShell, line: str) -> None:
    """%jobs: the background cells, where they run and how they are."""
    summaries = request("jobs")["jobs"]
    if not summaries:
        print("no cell has been run in the background")
        return
    rows = [("job", "nodes", "state", "seconds")]
    rows += [(job["name"], job["nodes"], job["state"], f"{job['seconds']:.1f}") for job in summaries]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())


def wait(shell: InteractiveShell, line: str) -> None:
    """%wait NAME [--timeout SECONDS]: wait for a background cell, and show what it printed. Raises JobFailed if it failed."""
    names, options = _words(line, "%wait NAME [--timeout SECONDS]", {"--timeout"}, 1)
    try:
        timeout = float(options["--timeout"].removesuffix("s")) if "--timeout" in options else None
    except ValueError:
        raise BindingError(f"{options['--timeout']!r} is no number of seconds", remedy="write %wait NAME --timeout 30") from None
    sys.stdout.flush()
    answer = request("wait", name=names[0], timeout=timeout)
    reply = answer["reply"]
    if reply["status"] != "ok":
        raise JobFailed(f"{answer['name']} {answer['state']} on {answer['nodes']}: {reply['ename']}: {reply['evalue']}")
    print(f"{answer['name']} │ {answer['state']} on {answer['nodes']}, {answer['seconds']} s")


def stop(shell: InteractiveShell, line: str) -> None:
    """%stop NAME: interrupt a background cell. Its kernel keeps its variables."""
    names, _ = _words(line, "%stop NAME", set(), 1)
    answer = request("stop", name=names[0])
    what = f"interrupted on {answer['nodes']}" if answer["state"] == "running" else f"{answer['state']} already"
    print(f"{answer['name']} │ {what}")


def restart(shell: InteractiveShell, line: str) -> None:
    """%restart SELECTOR [--lang LANGUAGE]: new kernels on these nodes, also where they hang. Others keep what they have."""
    names, options = _words(line, "%restart SELECTOR [--lang LANGUAGE]", {"--lang"}, 1)
    answer = request("restart", selector=names[0], language=options.get("--lang"))
    for node, languages in answer["nodes"].items():
        print(f"{node} │ new kernel{'s' if len(languages) > 1 else ''}: {', '.join(languages)}")


def concurrent(shell: InteractiveShell, line: str) -> None:
    """%concurrent on|off: whether cells on different nodes run at once. Without an argument it says which."""
    if line.strip() not in ("", "on", "off"):
        raise BindingError(f"cannot read {line!r}", remedy="write %concurrent on, or %concurrent off")
    answer = request("concurrent", on=line.strip() == "on" if line.strip() else None)
    print("cells on different nodes run at once" if answer["on"] else "cells run one after the other")


def output(shell: InteractiveShell, line: str) -> None:
    """%output [CELL] [--save FILE]: what an earlier cell printed, as the journal has it; without CELL the last one on nodes.

    With --save all of it is written to a file (of several nodes to a folder), also what was too long for the journal.
    """
    names, options = _words(line or "last", "%output [CELL] [--save FILE]", {"--save"}, 1, least=0)
    target = options.get("--save")
    sys.stdout.flush()
    for said in request("output", cell=names[0] if names else "last", save=str(Path.cwd() / target) if target else None)["lines"]:
        print(said)


def get(shell: InteractiveShell, line: str) -> None:
    """%get NAME [as OTHER] --from SELECTOR [--lang python|bash] [--pickle] [--force]: bring a variable home, from several nodes a dict.

    --pickle takes any object, and lets the node run code here. --force tries it also where there seems to be too little memory.

    A name with a slash in it is the path of a file or folder: it is copied here, or to where `as` says.
    """
    usage = "%get NAME [as OTHER] --from SELECTOR [--lang python|bash] [--pickle] [--force]"
    name, target, selector, language, flags = _named(line, usage, "--from")
    if "/" in name:
        here = Path.cwd() / ("." if target == name else target)
        _copied(request("fetch", source=name, target=str(here), selector=selector))
        return
    if "--pickle" in flags:
        print(f"a pickle can run code here: only for nodes that you trust ({selector})", file=sys.stderr)
    found = transfer.get(name, selector, language, by_pickle="--pickle" in flags, force="--force" in flags)
    shell.user_ns[target] = next(iter(found.values())) if len(found) == 1 else found


def put(shell: InteractiveShell, line: str) -> None:
    """%put NAME [as OTHER] --to SELECTOR [--lang python|bash] [--pickle] [--force]: set a variable on nodes to the value it has here.

    --pickle sends any object whose class is known there. --force tries it also where there seems to be too little memory.

    A name with a slash in it is the path of a file or folder (`./data.csv`): it is copied into the home folder there, or to where
    `as` says.
    """
    usage = "%put NAME [as OTHER] --to SELECTOR [--lang python|bash] [--pickle] [--force]"
    name, target, selector, language, flags = _named(line, usage, "--to")
    if "/" in name:
        source = Path.cwd() / name
        _copied(request("send", source=str(source), target=source.name if target == name else target, selector=selector))
        return
    if name not in shell.user_ns:
        raise BindingError(f"there is no variable {name!r} here", remedy="set it first, in a cell that runs here")
    transfer.put(shell.user_ns[name], target, selector, language, by_pickle="--pickle" in flags, force="--force" in flags)


def forward(shell: InteractiveShell, line: str) -> ports.Forwarded | ports.ForwardedPorts | None:
    """%forward NODE:PORT [--port N]: open a port of a node here, and give a link to it. Alone it lists what is open.

    %forward --stop [NODE:PORT] closes what is open, or that one.
    """
    usage = "%forward NODE:PORT [--port N], or %forward --stop [NODE:PORT]"
    if not line.strip():
        return ports.forwards() or print("no port is forwarded")
    if "--stop" in line.split():
        target = " ".join(word for word in line.split() if word != "--stop")
        for closed in ports.stop(target or None):
            print(f"{closed.node}:{closed.port} is no longer forwarded")
        return None
    words, options = _words(line, usage, {"--port"}, 1)
    port = options.get("--port")
    if port is not None and not (port.isdigit() and 1 <= int(port) <= 65535):
        raise BindingError(f"{port!r} is no port", remedy=f"write {usage}")
    return ports.forward(words[0], None if port is None else int(port))


def _copied(answer: dict[str, Any]) -> None:
    for done in answer["transfers"]:
        print(f"{done['node']} │ {done['target']}: {done['files']} file{'' if done['files'] == 1 else 's'}, {done['bytes']} bytes")


def _misplaced(line: str, cell: str) -> None:
    raise UsageError("%%on has to be the first line of a cell that is run by itself: nothing but comments may stand above it")


def _named(line: str, usage: str, option: str) -> tuple[str, str, str, str, set[str]]:
    flags = {word for word in line.split() if word in ("--pickle", "--force")}
    words, options = _words(" ".join(word for word in line.split() if word not in flags) if flags else line, usage, {option, "--lang"}, 3)
    if option not in options or len(words) == 2 or (len(words) == 3 and words[1] != "as"):
        raise BindingError(f"cannot read {line!r}", remedy=f"write {usage}")
    language = options.get("--lang", "python")
    if language not in LANGUAGES:
        remedy = f"use {' or '.join(LANGUAGES)}, or write a file there and fetch that: {usage.partition(' ')[0]} ./PATH"
        raise BindingError(f"there is no way for values to and from {language!r}", remedy=remedy)
    return words[0], words[-1], options[option], language, flags


def _words(line: str, usage: str, known: set[str], most: int, least: int = 1) -> tuple[list[str], dict[str, str]]:
    """The words and the options of a magic's line."""
    try:
        rest = shlex.split(line)
    except ValueError as error:
        raise BindingError(f"cannot read {line!r}: {error}", remedy=f"write {usage}") from None
    words: list[str] = []
    options: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if not word.startswith("--"):
            words.append(word)
        elif option not in known or not (equals or rest):
            raise BindingError(f"cannot read {word!r}", remedy=f"write {usage}")
        else:
            options[option] = value if equals else rest.pop(0)
    if not least <= len(words) <= most:
        raise BindingError(f"cannot read {line!r}", remedy=f"write {usage}")
    return words, options


def _show(shell: InteractiveShell, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: int | None = None) -> list[str]:
    """Show an error of ours as what it is: a message and a remedy, without the frames of our own code."""
    message = error.message if isinstance(error, WardianError) else str(error)
    lines: list[str] = list(getattr(error, "traceback", ()))
    if not lines:
        lines = [f"\x1b[0;31m{kind.__name__}\x1b[0m: {message}"]
        if isinstance(error, WardianError) and error.remedy:
            lines.append(error.remedy)
    show: Callable[..., None] = shell._showtraceback
    show(kind, error, lines)
    return lines


MAGICS: dict[str, Callable[[InteractiveShell, str], Any]] = {
    magic.__name__: magic for magic in (on, jobs, wait, stop, restart, concurrent, output, get, put, forward)
}
"""The line magics, by name."""
