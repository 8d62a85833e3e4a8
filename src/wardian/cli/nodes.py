"""exec, shell, cp: working on nodes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import console, environment, experiment_options, json_option, live_environment, print_json, style, wait

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..nodes.files import Transfer

PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What follows the command's own arguments belongs to the program on the node."""


NOT_STARTED = (126, 127, 255)
"""Exit codes of commands that a node could not start, or that went away with their node."""


def complete_selector(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of nodes, groups and roles, for tab completion."""
    from ..errors import WardianError
    from ..experiment import selectors

    try:
        live = wait(live_environment(context.params.get("file"), context.params.get("instance")))
    except WardianError:
        return []
    return [name for name in selectors.names(live.references()) if name.startswith(incomplete)]


def complete_endpoint(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """NODE: for each name, and files of this host, for tab completion."""
    from click.shell_completion import CompletionItem

    names = complete_selector(context, parameter, incomplete)
    # the shell's script drops what came before an item of type file
    return [CompletionItem(incomplete, type="file"), *(CompletionItem(f"{name}:") for name in names)]


@click.command("exec", context_settings=PASS_ON)
@experiment_options
@json_option
@click.option("--timeout", type=float, metavar="SECONDS", help="End the command after this long.")
@click.option("--concurrency", type=click.IntRange(min=1), default=64, show_default=True, help="Most nodes at once.")
@click.option("-w", "--directory", metavar="PATH", help="Working directory on the node.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Environment variable; may be repeated.")
@click.option("-i", "--stdin", "with_input", is_flag=True, help="Send our standard input to it.")
@click.argument("selector", shell_complete=complete_selector)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(
    file: Path | None,
    instance: str | None,
    as_json: bool,
    timeout: float | None,
    concurrency: int,
    directory: str | None,
    variables: tuple[str, ...],
    with_input: bool,
    selector: str,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND on every node that SELECTOR picks, all at once.

    Output comes as it is printed, each line headed by its node when there are several. The exit code is the command's, or the
    largest where nodes differ.

    \b
    wardian exec client uname -a
    wardian exec 'all,!server' -- ping -c 3 server
    wardian exec --json 'client[0:4]' cat /proc/loadavg
    """
    from ..nodes.prefix import LinePrefixer

    env = dict(variable.partition("=")[::2] for variable in variables)
    argv = list(command[1:] if command[0] == "--" else command)

    async def work() -> list[Any]:
        live = await live_environment(file, instance)
        nodes = live.select(selector)
        printer = None if as_json else LinePrefixer(nodes) if len(nodes) > 1 else _Plain()
        from ..nodes.run import run_on

        results = await run_on(
            live.channels(nodes),
            argv,
            concurrency=concurrency,
            env=env or None,
            cwd=directory,
            timeout=timeout,
            input=sys.stdin.buffer.read() if with_input else b"",
            on_output=printer,
        )
        if printer is not None:
            printer.flush()
        return results

    results = wait(work())
    if as_json:
        print_json([
            {"node": r.node, "argv": list(r.argv), "exit_code": r.exit_code, "stdout": r.stdout, "stderr": r.stderr,
             "started": r.started, "seconds": r.seconds}
            for r in results
        ])  # fmt: skip
    for result in results:
        # what could not even be started printed nothing, so its record says why
        if result.exit_code in NOT_STARTED and result.stderr.startswith(f"{result.node}: ") and not as_json:
            click.echo(style("error: ", fg="red", bold=True) + result.stderr.strip(), err=True)
    return max((result.exit_code for result in results), default=0)


class _Plain:
    """Output of one node, as it is."""

    def __call__(self, node: str, stream: str, data: bytes) -> None:
        target = sys.stderr.buffer if stream == "stderr" else sys.stdout.buffer
        target.write(data)
        target.flush()

    def flush(self) -> None:
        """Nothing is held back."""


@click.command("shell", context_settings=PASS_ON)
@experiment_options
@click.argument("node", shell_complete=complete_selector)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell_command(file: Path | None, instance: str | None, node: str, command: tuple[str, ...]) -> int:
    """Open a shell on NODE, or run COMMAND there in a terminal.

    \b
    wardian shell server
    wardian shell 'client[0]' htop
    """
    from ..errors import SelectorError
    from ..nodes.terminal import interact

    async def work() -> int:
        live = await live_environment(file, instance)
        names = live.select(node)
        if len(names) != 1:
            raise SelectorError(f"{node!r} is {len(names)} nodes, and a shell is on one", remedy=f"name one, such as {names[0]!r}")
        return await interact(live.channel(names[0]), names[0], list(command) or None)

    return wait(work())


@click.command("cp")
@experiment_options
@json_option
@click.argument("source", shell_complete=complete_endpoint)
@click.argument("target", shell_complete=complete_endpoint)
def cp_command(file: Path | None, instance: str | None, as_json: bool, source: str, target: str) -> None:
    """Copy a file or folder to or from nodes. One side is NODE:PATH; NODE may be a selector.

    Copying from several nodes puts each one's into a folder named like the node.

    \b
    wardian cp data.csv client:/root/
    wardian cp 'client:/var/log/player.log' logs/
    """
    from ..nodes.files import parse_endpoint

    origin, destination = parse_endpoint(source), parse_endpoint(target)
    if (origin.node is None) == (destination.node is None):
        raise click.UsageError("exactly one of SOURCE and TARGET is on a node, written NODE:PATH")
    place = environment(file, instance)

    async def work() -> list[Transfer]:
        if destination.node is not None:
            return await place.put(destination.node, origin.path, destination.path)
        return await place.get(str(origin.node), origin.path, destination.path)

    try:
        if sys.stderr.isatty() and not as_json:
            with console(stderr=True).status(f"copying {source} to {target}"):
                transfers = wait(work())
        else:
            transfers = wait(work())
    finally:
        place.close()
    if as_json:
        print_json([asdict(item) for item in transfers])
    else:
        for item in transfers:
            click.echo(f"{item.node}: {item.files} file{'s' if item.files != 1 else ''}, {item.bytes} bytes")
