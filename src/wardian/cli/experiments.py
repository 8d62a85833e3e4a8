"""init, schema: writing experiment files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..experiment import templates
from .common import count, json_option, print_json, style

KINDS = ("containerlab", "kathara", "compose", "mininet")
"""Those of `experiment.importing`, which is loaded only for --from."""


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("-t", "--template", type=click.Choice(templates.ORDER), help="What to start from (default: client-server).")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Import a topology: a file, or a folder with one.",
)
@click.option("--kind", type=click.Choice(KINDS), help="With --from: what FILE is, where it does not show.")
@click.option("--provider", metavar="NAME", help="With --from: what shall grow it (default: local for mininet, docker for the others).")
@click.option("--force", is_flag=True, help="Overwrite an experiment.yaml, and what is imported with it, that is there.")
@json_option
def init_command(
    folder: Path, template: str | None, source: Path | None, kind: str | None, provider: str | None, force: bool, as_json: bool
) -> None:
    """Write a first experiment.yaml into FOLDER (default: here), from a template or from a topology of another tool.

    \b
    wardian init
    wardian init my-study --template wan
    wardian init first-steps --template getting-started     with a notebook that teaches by doing

    With --from it reads one of these, says what it takes over, what differently and what not, and runs nothing of it:

    \b
    containerlab     wardian init --from dc.clab.yml study
    kathara          wardian init --from ospf/lab.conf study
    compose          wardian init --from compose.yaml study
    mininet          wardian init --from topology.py study
    another name     wardian init --from routers.txt --kind kathara study
    without images   wardian init --from ospf/ --provider local study
    """
    path = folder / "experiment.yaml"
    if source is None and (kind or provider):
        raise click.UsageError("--kind and --provider go with --from")
    if source is not None and template:
        raise click.UsageError("either --from or --template")
    if path.exists() and not force:
        raise click.ClickException(f"{path} is there already; --force overwrites it")
    report: dict[str, Any] = {}
    if source is None:
        written = templates.write(template or "client-server", folder, folder.resolve().name)
    else:
        written, report = _import(source, folder, kind, provider, force, as_json)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text(".wardian/\n")
    if as_json:
        print_json({"wrote": [str(item) for item in written], **({"report": report} if source else {})})
        return
    more = f" and {count(len(written) - 1, 'file')} beside it" if len(written) > 1 else ""
    click.echo(f"wrote {style(str(path), bold=True)}{more}; grow it with: wardian up" + ("" if str(folder) == "." else f" -f {path}"))


def _import(
    source: Path, folder: Path, kind: str | None, provider: str | None, force: bool, quiet: bool
) -> tuple[list[Path], dict[str, Any]]:
    """Import a topology into a folder. Gives the files written, and the report."""
    from ..environment import importing as disk
    from ..providers import registry

    if provider is not None and provider not in registry.names():
        raise click.BadParameter(f"{provider!r} is not one of {', '.join(registry.names())}", param_hint="--provider")
    imported = disk.import_path(source, folder, kind=kind, provider=provider)
    if not quiet:
        for line in imported.report.text().splitlines():
            click.echo(line if line.startswith(" ") else style(line, bold=True))
    if not force and (there := disk.in_the_way(imported, source, folder)):
        more = f" and {len(there) - 1} more files of it" if len(there) > 1 else ""
        raise click.ClickException(f"{there[0]}{more} is there already, and is another; --force overwrites it")
    return disk.write(imported, source, folder), imported.report.to_json()


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the experiment file, for editors.

    \b
    wardian schema > experiment.schema.json
    """
    from ..experiment.schema import schema
    from ..providers import registry

    print_json(schema(registry.settings_models()))
