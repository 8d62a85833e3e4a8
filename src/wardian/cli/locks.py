"""lock: what an experiment was resolved to, written down."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from .common import count, environment, experiment_options, json_option, print_json, style, wait
from .runs import complete_run


@click.command("lock")
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
@experiment_options
@click.option("--check", is_flag=True, help="Write nothing; exit with 13 and name what is otherwise.")
@json_option
def lock_command(run: str | None, file: Path | None, instance: str | None, check: bool, as_json: bool) -> int:
    """Write what the experiment is resolved to into experiment.lock: parameters, files, image digests, packages.

    It is taken from the environment that is up, else from the last run that went well, or from RUN. `wardian up --locked` then refuses
    anything else.

    \b
    wardian lock
    wardian lock --check
    wardian lock 4d161934
    """
    from ..replay import lock

    target = environment(file, instance)
    path = target.folder / lock.FILE
    try:
        if check:
            known = lock.load(path)
        found = wait(lock.resolve(target, run))
    finally:
        target.close()
    if check:
        differences = lock.differences(known, found)
        if as_json:
            print_json({"locked": not differences, "differences": [asdict(item) for item in differences]})
        elif differences:
            raise lock.refusal(path, differences)
        else:
            click.echo(style("locked", fg="green", bold=True) + f": all is as {path} says")
        return 13 if differences else 0
    lock.write(path, found)
    if as_json:
        print_json({"file": str(path), **found})
    else:
        click.echo(style("locked", fg="green", bold=True) + f": {path}: {_counts(found)}")
    return 0


def _counts(found: dict[str, dict[str, object]]) -> str:
    parts = [count(len(found[name]), name.removesuffix("s")) for name in ("parameters", "files", "images") if found[name]]
    return ", ".join([*parts, f"packages of {'; '.join(found['packages']) or 'no node'}"])
