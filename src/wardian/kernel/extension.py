"""The IPython extension of the home kernel: `%on`, `%jobs`, `%wait`, `%stop`, `%get`, `%put`."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from ..errors import WardianError
from . import alignment, transfer
from .binding import BindingError, check_language, parse_on
from .private import request


class JobFailed(WardianError):
    """The job that was waited for failed."""


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython when the extension is loaded."""
    for magic in (on, jobs, wait, stop, get, put):
        shell.register_magic_function(functools.partial(magic, shell), "line", magic.__name__)
    shell.register_magic_function(_misplaced, "cell", "on")
    shell.set_custom_exc((WardianError,), _show)
    shell.ex(alignment.SOURCE)


def on(shell: InteractiveShell, line: str) -> None:
    """%on SELECTOR [--lang python|bash]: run the following cells there. `%on here` ends it; `%on` alone says where we are."""
    if not line.strip():
        answer = request("on", selector=None)
    else:
        binding = parse_on(line, "%on SELECTOR [--lang python|bash], or %on here")
        if binding.background:
            raise BindingError("only a single cell can run in the background", remedy="write %%on SELECTOR --bg at the top of that cell")
        answer = request("on", selector=binding.selector or "here", language=binding.language)
    if answer["selector"] is None:
        print("cells run here")
    else:
        language = "" if answer["language"] == "python" else f", in {answer['language']}"
        print(f"cells run on {', '.join(answer['nodes'])}{language}, until %on here")


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


def get(shell: InteractiveShell, line: str) -> None:
    """%get NAME [as OTHER] --from SELECTOR [--lang python|bash]: bring a variable home; of several nodes a dict by node.

    A name with a slash in it is the path of a file or folder: it is copied here, or to where `as` says.
    """
    usage = "%get NAME [as OTHER] --from SELECTOR [--lang python|bash]"
    name, target, selector, language = _named(line, usage, "--from")
    if "/" in name:
        here = Path.cwd() / ("." if target == name else target)
        _copied(request("fetch", source=name, target=str(here), selector=selector))
        return
    found = transfer.get(name, selector, language)
    shell.user_ns[target] = next(iter(found.values())) if len(found) == 1 else found


def put(shell: InteractiveShell, line: str) -> None:
    """%put NAME [as OTHER] --to SELECTOR [--lang python|bash]: set a variable on nodes to the value that it has here.

    A name with a slash in it is the path of a file or folder (`./data.csv`): it is copied into the home folder there, or to where
    `as` says.
    """
    usage = "%put NAME [as OTHER] --to SELECTOR [--lang python|bash]"
    name, target, selector, language = _named(line, usage, "--to")
    if "/" in name:
        source = Path.cwd() / name
        _copied(request("send", source=str(source), target=source.name if target == name else target, selector=selector))
        return
    if name not in shell.user_ns:
        raise BindingError(f"there is no variable {name!r} here", remedy="set it first, in a cell that runs here")
    transfer.put(shell.user_ns[name], target, selector, language)


def _copied(answer: dict[str, Any]) -> None:
    for done in answer["transfers"]:
        print(f"{done['node']} │ {done['target']}: {done['files']} file{'' if done['files'] == 1 else 's'}, {done['bytes']} bytes")


def _misplaced(line: str, cell: str) -> None:
    raise UsageError("%%on has to be the first line of a cell that is run by itself: nothing but comments may stand above it")


def _named(line: str, usage: str, option: str) -> tuple[str, str, str, str]:
    words, options = _words(line, usage, {option, "--lang"}, 3)
    if option not in options or len(words) == 2 or (len(words) == 3 and words[1] != "as"):
        raise BindingError(f"cannot read {line!r}", remedy=f"write {usage}")
    return words[0], words[-1], options[option], check_language(options.get("--lang", "python"))


def _words(line: str, usage: str, known: set[str], most: int) -> tuple[list[str], dict[str, str]]:
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
    if not 1 <= len(words) <= most:
        raise BindingError(f"cannot read {line!r}", remedy=f"write {usage}")
    return words, options


def _show(shell: InteractiveShell, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: int | None = None) -> list[str]:
    """Show an error of ours as what it is: a message and a remedy, without the frames of our own code."""
    message = error.message if isinstance(error, WardianError) else str(error)
    lines = [f"\x1b[0;31m{kind.__name__}\x1b[0m: {message}"]
    if isinstance(error, WardianError) and error.remedy:
        lines.append(error.remedy)
    show: Callable[..., None] = shell._showtraceback
    show(kind, error, lines)
    return lines
