"""lab: JupyterLab, with the experiment beside the notebook."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from .nodes import PASS_ON


@click.command("lab", context_settings=PASS_ON)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    envvar="WARDIAN_EXPERIMENT",
    help="Experiment file or folder (default: experiment.yaml here or above, else this folder).",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[JUPYTERLAB OPTIONS]...")
def lab_command(file: Path | None, options: tuple[str, ...]) -> None:
    """Open JupyterLab in the experiment's folder, with the environment beside the notebook.

    What follows goes to JupyterLab: `wardian lab --help-all` lists its options.

    \b
    wardian lab
    wardian lab -f study/experiment.yaml --no-browser --port 9999
    """
    from ..environment.live import experiment_file
    from ..errors import MissingToolError

    if find_spec("jupyterlab") is None:
        raise MissingToolError("JupyterLab is not installed beside Wardian", remedy="pip install 'wardian[lab]'")
    if file is not None and not file.exists():
        raise click.UsageError(f"there is no {file}")
    found = file or experiment_file(Path.cwd())
    folder = Path.cwd() if found is None else (found if found.is_dir() else found.parent).resolve()
    argv = [sys.executable, "-m", "jupyterlab"]
    if not any(option.partition("=")[0] in ("--notebook-dir", "--ServerApp.root_dir", "--preferred-dir") for option in options):
        argv.append(f"--ServerApp.root_dir={folder}")
    if os.geteuid() == 0:
        # whom nodes of `local` need, and who would be refused without
        argv.append("--allow-root")
    sys.stdout.flush()
    # in our place: its own Ctrl-C, its own exit code
    os.execv(argv[0], [*argv, *options])  # noqa: S606
