"""image: root file systems of nodes, unpacked once for all environments."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..experiment.units import approximate_size
from .common import count, json_option, print_json, style, table
from .progress import show_words

if TYPE_CHECKING:
    from ..providers.images.store import Stored

_T = TypeVar("_T")


class _Image(click.ParamType[str]):
    """A name, a digest, or the beginning of one."""

    name = "image"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from ..errors import ProviderError
        from ..providers.images.store import Store

        try:
            found = Store().all()
        except ProviderError:
            return []
        names = [(name, stored) for stored in found for name in stored.names or (stored.digest[7:19],)]
        return [CompletionItem(name, help=approximate_size(stored.size)) for name, stored in names if name.startswith(incomplete)]


@click.group("image")
def image_command() -> None:
    """Root file systems that nodes of the local provider boot from, unpacked once for all environments.

    \b
    docker save debian:12 -o debian.tar
    wardian image add debian.tar            nodes write image: debian:12, or image: ./debian.tar
    wardian image ls
    wardian image gc
    """


@image_command.command("add")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--name", metavar="NAME", help="What nodes call it, such as lab:1, besides what its maker called it.")
@click.option("--limit", metavar="SIZE", help="What it may measure unpacked (default: 64 GiB).")
@json_option
def add_command(source: Path, name: str | None, limit: str | None, as_json: bool) -> None:
    """Unpack SOURCE: a tar of `docker save`, an OCI archive or layout, a tar or folder with a root file system (debootstrap).

    \b
    wardian image add debian.tar
    wardian image add rootfs.tar.xz --name lab:1
    debootstrap --variant=minbase bookworm bookworm/ && wardian image add bookworm/ --name bookworm
    """
    from ..experiment import units
    from ..providers.images.store import LIMIT
    from ..providers.local import work

    try:
        most = LIMIT if limit is None else units.parse_size(limit)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from error
    with show_words(quiet=as_json) as report:
        stored = _done(work.add_image, source, name, most, report=report)
    if as_json:
        print_json(_facts(stored))
    else:
        called = f", called {', '.join(stored.names)}" if stored.names else ""
        click.echo(f"{style(stored.digest, bold=True)}{called}: {approximate_size(stored.size)} in {count(stored.files, 'file')}")


@image_command.command("ls")
@json_option
def ls_command(as_json: bool) -> None:
    """List the images that are unpacked here, the last added first.

    \b
    wardian image ls
    wardian image ls --json
    """
    from ..providers.images.store import Store

    found = Store().all()
    if as_json:
        print_json([_facts(stored) for stored in found])
        return
    if not found:
        click.echo("There are none; `wardian image add` unpacks one, and so does a node with `image:`.")
        return
    rows = [
        [
            ", ".join(stored.names) or "-",
            stored.digest[7:19],
            approximate_size(stored.size),
            time.strftime("%F %R", time.localtime(stored.used)),
            who,
        ]
        for stored in found
        for who in [count(len(stored.users), "node") if stored.users else "-"]
    ]
    table(rows, ["NAME", "DIGEST", "SIZE", "LAST USED", "USED BY"])


@image_command.command("rm")
@click.argument("images", nargs=-1, required=True, type=_Image(), metavar="IMAGE...")
@json_option
def rm_command(images: tuple[str, ...], as_json: bool) -> None:
    """Remove IMAGEs, each a name, a digest or the beginning of one; not one that a node uses. Of several names, only the one given goes.

    \b
    wardian image rm lab:1
    wardian image rm 3f2a91bc
    """
    from ..providers.images.store import Store
    from ..providers.local import work

    store = Store()
    removed = []
    for image in images:
        stored = store.get(image)
        others = [name for name in stored.names if name != image]
        if others and len(others) < len(stored.names):
            store.unname(image)
            said = f"{image} names it no more; {', '.join(others)} still does"
        else:
            _done(work.remove_image, stored)
            said = f"removed {', '.join(stored.names) or stored.digest[7:19]}"
        removed.append(stored)
        if not as_json:
            click.echo(said)
    if as_json:
        print_json([_facts(stored) for stored in removed])


@image_command.command("gc")
@click.option("--all", "named", is_flag=True, help="Also those that have a name.")
@click.option("--unused", metavar="DURATION", default="0s", help="Only those that no node was made from for so long, such as 30d.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
@json_option
def gc_command(named: bool, unused: str, dry_run: bool, as_json: bool) -> None:
    """Remove images that no node uses and that have no name, and what killed commands left half unpacked.

    \b
    wardian image gc
    wardian image gc --all --unused 30d
    """
    from ..experiment import units
    from ..providers.images.store import Store
    from ..providers.local import work

    try:
        age = units.parse_duration(unused)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--unused") from error
    since = time.time() - age
    gone = Store().collect(since, named=named, really=False) if dry_run else _done(work.collect_images, since, named)
    if as_json:
        print_json([_facts(stored) for stored in gone])
        return
    for stored in gone:
        click.echo(
            f"{'would remove' if dry_run else 'removed'} {', '.join(stored.names) or stored.digest[7:19]}: {approximate_size(stored.size)}"
        )
    if not gone:
        click.echo("nothing to remove")


def _done(function: Callable[..., _T], *arguments: Any, report: Callable[[str], None] = lambda said: None) -> _T:
    """Have a function of `work.py` done where nodes are made: only there an ordinary user has the ids that files of images belong to."""
    from ..paths import state_folder
    from ..providers.local import ground
    from ..providers.local.layers import Stop
    from ..providers.local.state import State

    return ground.of_namespaces(State(state_folder().absolute())).do(None, function, arguments, lambda _, said: report(said), Stop())


def _facts(stored: Stored) -> dict[str, Any]:
    keys = ("digest", "names", "kind", "size", "files", "added", "used", "users")
    return {key: getattr(stored, key) for key in keys} | {"rootfs": str(stored.rootfs)}
