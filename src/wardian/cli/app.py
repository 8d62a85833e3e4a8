"""The command group, and what every command does about errors."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import click

from .common import INTERRUPTED, fail, style

COMMANDS = {
    "demo": "demo",
    "init": "experiments",
    "schema": "experiments",
    "plan": "environments",
    "up": "environments",
    "status": "environments",
    "ls": "environments",
    "down": "environments",
    "gc": "environments",
    "exec": "nodes",
    "shell": "nodes",
    "cp": "nodes",
    "snapshot": "treatment",
    "reboot": "treatment",
    "rebuild": "treatment",
    "forward": "ports",
    "link": "links",
    "verify": "links",
    "fault": "faults",
    "capture": "capture",
    "clocks": "clocks",
    "run": "notebooks",
    "replay": "replays",
    "runs": "runs",
    "show": "runs",
    "diff": "runs",
    "report": "reports",
    "sweep": "sweeps",
    "lock": "locks",
    "pack": "bundles",
    "unpack": "bundles",
    "image": "images",
    "lab": "lab",
    "lease": "leases",
    "admin": "admin",
    "slots": "slots",
    "log": "records",
    "doctor": "records",
}
"""{command: module that has it}. Modules are imported only for the command at hand."""

EPILOG = """\b
Exit codes: 0 done; 1 failed; 2 wrong usage (or, for `plan --exit-code`, changes);
3 wrong experiment file, selector or plan; 4 not up; 5 held by another command;
6 provider failed; 7 node failed; 8 journal failed; 9 notebook run failed;
10 replay found differences; 11 replay could not be honoured here;
12 bundle refused or not to be made; 13 not as the lock says;
130 interrupted. `exec` and `shell` give the command's own code.

\b
Tab completion:  eval "$(_WARDIAN_COMPLETE=bash_source wardian)"   (or zsh_source, fish_source)
"""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(f".{module}", __package__), f"{cmd_name}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wardian")
def wardian() -> None:
    """Grow the environment of an experiment, and run each notebook cell on the node it belongs to.

    \b
    wardian demo                     see it work: three nodes and a notebook
    wardian init                     write a first experiment.yaml
    wardian up                       grow what it describes
    wardian run notebook.ipynb       run a notebook's cells on their nodes
    wardian lab                      the same in JupyterLab
    wardian down                     tear it down
    """


def run() -> None:
    """Run the command line, and exit with its code."""
    from ..descriptors import explained
    from ..errors import WardianError

    try:
        code = wardian.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except WardianError as error:
        sys.exit(fail(error))
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError):
        click.echo(style("\ninterrupted", fg="yellow") + ": what is half done is finished by running the command again", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        # a disk that is full, a folder that may not be written: the system's own words say it best
        where = f"{error.filename}: " if error.filename else ""
        known = explained(error)
        sys.exit(fail(known if isinstance(known, WardianError) else WardianError(f"{where}{error.strerror or error}")))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
