"""What commands share: options, output, and how errors and Ctrl-C end a command."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ..environment.environment import Environment
    from ..environment.live import LiveEnvironment

T = TypeVar("T")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it."""


def experiment_options(command: Decorated) -> Decorated:
    """-f and -e: which environment."""
    command = click.option(
        "-f",
        "--file",
        type=click.Path(path_type=Path),
        envvar="WARDIAN_EXPERIMENT",
        help="Experiment file (default: experiment.yaml here or above).",
    )(command)
    return click.option(
        "-e", "--instance", envvar="WARDIAN_INSTANCE", metavar="NAME", help="Instance name, to keep several environments of one file apart."
    )(command)


def growth_options(command: Decorated) -> Decorated:
    """-p and --provider: how it is grown."""
    command = click.option(
        "-p",
        "--parameter",
        "parameters",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_parameters,
        help="Set a parameter; may be repeated.",
    )(command)
    return click.option("--provider", metavar="NAME", help="Grow it with this provider or site in place of the file's.")(command)


def settings_option(command: Decorated) -> Decorated:
    """--set: the provider's settings."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SETTING=VALUE",
        callback=_settings,
        help="Set one of the provider's settings, over the file's; VALUE is YAML. May be repeated.",
    )(command)


def json_option(command: Decorated) -> Decorated:
    """--json: output for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def _parameters(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    return _pairs(values, "NAME=VALUE, such as clients=20")


def _settings(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, object]:
    import yaml

    result: dict[str, object] = {}
    for name, text in _pairs(values, "SETTING=VALUE, such as image=debian-12").items():
        try:
            result[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{text!r} of {name} is no YAML: {getattr(error, 'problem', error)}") from None
    return result


def _pairs(values: tuple[str, ...], form: str) -> dict[str, str]:
    result = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not {form}")
        result[name] = text
    return result


def environment(file: Path | None, instance: str | None, *, gone: bool = False, **options: Any) -> Environment:
    """The environment that -f and -e name. Raises ExperimentFileError or NotUpError when there is no such file, unless it may be gone."""
    from ..environment.environment import Environment

    return Environment(_experiment_file(file, gone=gone), instance=instance, **options)


async def live_environment(file: Path | None, instance: str | None, *, glance: bool = True) -> LiveEnvironment:
    """The same as it exists, for commands that need no more of it: what plans and grows it takes longer to import than they take."""
    from ..environment.live import default_instance, find

    return await find(_experiment_file(file), instance or default_instance(), glance=glance)


def _experiment_file(file: Path | None, *, gone: bool = False) -> Path:
    from ..environment.live import FILE, experiment_file
    from ..errors import ExperimentFileError, NotUpError, Problem

    path = file or experiment_file(Path.cwd())
    if path is None:
        raise NotUpError(f"there is no {FILE} in this folder or above it", remedy="write one with `wardian init`, or name it with -f FILE")
    if path.is_dir():
        path = path / FILE
    if not path.exists() and not gone:
        raise ExperimentFileError([Problem("", "there is no such file", file=str(path))])
    return path


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C cancels it, and what it holds is let go of in order."""
    gc.freeze()
    # a comparison makes a million small objects that stay: to look through them after each 700 took a third of its time
    gc.set_threshold(100_000)
    gc.enable()
    return asyncio.run(work)


def console(*, stderr: bool = False) -> Console:
    """A console that obeys NO_COLOR and terminals that have no colours."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, default=str))


def table(rows: list[list[str]], header: list[str]) -> None:
    """Columns aligned with spaces, a header in bold."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    click.echo(style(lines[0], bold=True))
    for line in lines[1:]:
        click.echo(line)


def count(number: int, what: str) -> str:
    """A number of things: "1 run", "2 runs"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def style(text: str, **how: Any) -> str:
    """Coloured text on a terminal, unless NO_COLOR is set."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **how)


def confirm(question: str, yes: bool) -> bool:
    """Ask, unless -y; without a terminal to ask on, it is an error to need an answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: say yes with -y")
    return click.confirm(question)


def fail(error: BaseException) -> int:
    """Print an error as people read it, and give its exit code."""
    from ..errors import ExperimentFileError, WardianError

    if isinstance(error, ExperimentFileError):
        for problem in error.problems:
            click.echo(style("error: ", fg="red", bold=True) + str(problem), err=True)
        return error.exit_code
    if isinstance(error, WardianError):
        click.echo(style("error: ", fg="red", bold=True) + error.message, err=True)
        if error.remedy:
            click.echo(f"  {error.remedy}", err=True)
        return error.exit_code
    raise error
