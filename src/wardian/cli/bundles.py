"""pack, unpack: an experiment as one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import count, environment, experiment_options, json_option, print_json, style, table, wait
from .notebooks import take_images
from .runs import complete_run

if TYPE_CHECKING:
    from ..replay.bundle.packing import Packed

_LARGEST = 5
"""Files that are named with their sizes."""
_LISTED = 10


@click.command("pack")
@experiment_options
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where to (default: NAME.crate.zip).")
@click.option("--run", "runs", multiple=True, metavar="RUN", shell_complete=complete_run, help="Take this run along; may be repeated.")
@click.option("--as-is", multiple=True, metavar="PATTERN", help="Do not look for secrets in these files, as .gitignore names them.")
@click.option("--with-images", is_flag=True, help="Take the images of docker's nodes along, as docker save writes them.")
@json_option
def pack_command(
    file: Path | None,
    instance: str | None,
    output: Path | None,
    runs: tuple[str, ...],
    as_is: tuple[str, ...],
    with_images: bool,
    as_json: bool,
) -> None:
    """Write the experiment with its notebooks, recorded runs and outputs into one file, an RO-Crate, for somebody else to run.

    Of each notebook those runs go along that a replay would be compared with, unless --run names others. What .gitignore and
    .wardianignore name stays out, but for what the experiment needs and what the runs wrote; secrets are taken out as in the journal.

    \b
    wardian pack
    wardian pack -o study.crate.zip --run last --with-images
    """
    from ..replay.bundle.packing import pack

    target = environment(file, instance)
    try:
        packed = wait(pack(target, output, runs=runs, as_is=as_is, with_images=with_images))
    finally:
        target.close()
    if as_json:
        print_json(packed.to_json())
    else:
        _tell(packed)


@click.command("unpack")
@click.argument("bundle", metavar="FILE|URL")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--load-images", is_flag=True, help="Give the experiment's provider the images that it lacks, too; `wardian run` does.")
@click.option("--provider", metavar="NAME", help="With --load-images: which one, in place of the file's.")
@json_option
def unpack_command(bundle: str, folder: Path | None, load_images: bool, provider: str | None, as_json: bool) -> None:
    """Unpack a bundle into a folder of its own, with the journal of its recorded runs, ready for `wardian run` and `wardian replay`.

    Nothing of it is run. A bundle whose names lead elsewhere, that holds links or unpacks to too much is refused, and leaves nothing.

    \b
    wardian unpack study.crate.zip
    wardian unpack https://example.org/study.crate.zip
    wardian unpack study.crate.zip elsewhere && wardian replay elsewhere/study.ipynb
    """
    from ..replay.bundle.origin import bring

    if provider and not load_images:
        raise click.UsageError("--provider goes with --load-images")
    found = bring(bundle, folder)
    images = take_images(environment(found.experiment, None, provider=provider), found) if load_images else []
    notebooks = [str(path) for path in found.notebooks]
    if as_json:
        paths = {"folder": str(found.folder), "experiment": str(found.experiment)}
        print_json({**paths, "notebooks": notebooks, "runs": list(found.runs), "images": images})
        return
    click.echo(style("unpacked", fg="green", bold=True) + f" into {found.folder}, with {count(len(found.runs), 'recorded run')}")
    verb = "replay" if found.runs else "run"
    for notebook in notebooks:
        click.echo(f"  wardian {verb} {notebook}")


def _tell(packed: Packed) -> None:
    rows = [[part, str(files), _size(size)] for part, (files, size) in sorted(packed.parts().items(), key=lambda item: -item[1][1])]
    table(rows, ["PART", "FILES", "SIZE"])
    largest = sorted(packed.stored, key=lambda item: -item.size)[:_LARGEST]
    click.echo("largest: " + ", ".join(f"{item.name} {_size(item.size)}" for item in largest))
    for title, lines in (
        ("Secrets were taken out of:", list(packed.redacted)),
        ("Left out:", [f"{name}: {why}" for name, why in packed.left_out.items()]),
        ("To publish it:", list(packed.lacking)),
        ("Nobody can compare with it:", [] if packed.runs else ["no run that went well is recorded: `wardian run` a notebook first"]),
    ):
        if lines:
            click.echo(style(title, fg="yellow"))
            for line in lines[:_LISTED]:
                click.echo(f"  {line}")
            if len(lines) > _LISTED:
                click.echo(f"  and {len(lines) - _LISTED} more")
    click.echo(
        style("packed", fg="green", bold=True) + f" {packed.path}, {_size(packed.size)}, with {count(len(packed.runs), 'recorded run')}"
    )


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
