"""demo: see it work, from an installation that has nothing else yet."""

from __future__ import annotations

import importlib.util
import shutil
from importlib.resources import files
from pathlib import Path

import click

from .common import growth_options, json_option, settings_option, style
from .notebooks import run_command

GETTING_STARTED, VIDEO = "getting-started", "video-qoe"
_FILES = ("experiment.yaml", "server.py", "video-qoe.ipynb")
_NEEDS = {"modules": ("matplotlib", "pandas"), "programs": ("iperf3",)}


@click.command("demo")
@click.argument("name", type=click.Choice([GETTING_STARTED, VIDEO]), default=GETTING_STARTED)
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where it goes (default: NAME here).")
@click.option("--keep", is_flag=True, help="Leave the nodes up afterwards.")
@growth_options
@settings_option
@json_option
@click.pass_context
def demo_command(
    ctx: click.Context,
    name: str,
    into: Path | None,
    keep: bool,
    parameters: dict[str, str],
    provider: str | None,
    settings: dict[str, object],
    as_json: bool,
) -> None:
    """Write a finished experiment here, grow its nodes, run its notebook on them and tear them down.

    getting-started (the default): switching nodes, changing a line, breaking it. Needs nothing but this installation.
    video-qoe: adaptive video over a shared link, with figures. Needs iperf3, pandas and matplotlib.

    \b
    wardian demo
    wardian demo -p delay=40ms
    wardian demo video-qoe
    wardian demo --provider openstack --set cloud=mycloud --set image=debian-12
    """
    folder = into or Path(name)
    if name == VIDEO:
        _require()
    notebook = _written(name, folder)
    if not as_json:
        click.echo(f"{style(str(notebook), bold=True)} runs now; open it with: wardian lab -f {folder / 'experiment.yaml'}")
    ctx.invoke(
        run_command,
        source=str(notebook),
        file=folder / "experiment.yaml",
        instance=None,
        parameters=parameters,
        provider=provider,
        settings=settings,
        as_json=as_json,
        output=None,
        as_html=True,
        verify=False,
        keep=keep,
        allow_errors=False,
        timeout=None,
        into=None,
        which=None,
    )


def _require() -> None:
    """Raise MissingToolError, saying how to get it, for what the demo needs and this host lacks."""
    from ..errors import MissingToolError

    if lacking := [module for module in _NEEDS["modules"] if importlib.util.find_spec(module) is None]:
        remedy = "Install it: pip install 'wardian[data]'. Or begin with `wardian demo`, which needs nothing."
        raise MissingToolError(f"{VIDEO} needs {' and '.join(lacking)}", remedy=remedy)
    if lacking := [program for program in _NEEDS["programs"] if shutil.which(program) is None]:
        raise MissingToolError(f"{VIDEO} needs {' and '.join(lacking)}", remedy=f"Install it: apt install {' '.join(lacking)}.")


def _written(name: str, folder: Path) -> Path:
    """The notebook of the demo, written into a folder with all that it needs. What is there already stays."""
    from ..experiment import templates

    if name == GETTING_STARTED:
        if not (folder / "experiment.yaml").exists():
            templates.write(name, folder, GETTING_STARTED)
        return folder / f"{name}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    shipped = files("wardian").joinpath("demo")
    # a checkout has it where it is worked on
    source = shipped if shipped.is_dir() else Path(__file__).parents[3] / "examples" / VIDEO
    for item in _FILES:
        if not (folder / item).exists():
            (folder / item).write_bytes(source.joinpath(item).read_bytes())
    return folder / f"{VIDEO}.ipynb"
