"""init, schema: writing experiment files."""

from __future__ import annotations

from pathlib import Path

import click

from ..experiment import templates
from .common import print_json, style


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option(
    "-t", "--template", type=click.Choice(templates.ORDER), default="client-server", show_default=True, help="What to start from."
)
@click.option("--force", is_flag=True, help="Overwrite an experiment.yaml that is there.")
def init_command(folder: Path, template: str, force: bool) -> None:
    """Write a first experiment.yaml into FOLDER (default: here).

    \b
    wardian init
    wardian init my-study --template wan
    """
    path = folder / "experiment.yaml"
    if path.exists() and not force:
        raise click.ClickException(f"{path} is there already; --force overwrites it")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(templates.read(template, folder.resolve().name))
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text(".wardian/\n")
    click.echo(f"wrote {style(str(path), bold=True)}; grow it with: wardian up" + ("" if str(folder) == "." else f" -f {path}"))


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the experiment file, for editors.

    \b
    wardian schema > experiment.schema.json
    """
    from ..experiment.schema import schema
    from ..providers import registry

    print_json(schema(registry.settings_models()))
