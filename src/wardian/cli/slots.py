"""slots: when the experiment could run, and where."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import environment, experiment_options, growth_options, json_option, print_json, style, wait

if TYPE_CHECKING:
    from ..environment.slots import SiteSlots

HOUR, DAY = 3600, 86400


def complete_site(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the file's sites, for tab completion."""
    from ..errors import WardianError

    try:
        sites = environment(context.params.get("file"), context.params.get("instance")).load().sites
    except WardianError:
        return []
    return [name for name in sites if name.startswith(incomplete)]


@click.command("slots")
@click.argument("sites", nargs=-1, metavar="[SITE]...", shell_complete=complete_site)
@experiment_options
@growth_options
@json_option
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="How far ahead.")
@click.option("--first", is_flag=True, help="Print just the site where it can run the earliest.")
def slots_command(
    sites: tuple[str, ...],
    file: Path | None,
    instance: str | None,
    parameters: dict[str, str],
    provider: str | None,
    as_json: bool,
    days: int,
    first: bool,
) -> None:
    """Show when the experiment could run, on each of the file's sites that reserve hosts (`settings.reserve`), or on SITEs.

    Of an experiment that grows at several, each site is asked for what it holds of it; the last calendar is that of all at once.

    A calendar with an hour a character, times in UTC: `#` where all that it reserves is free from some minute of that hour on, for
    as long as the file's lease lasts.

    \b
    wardian slots
    wardian slots --days 30 -p clients=20
    wardian slots --json | jq '.[0].windows[0]'
    wardian up --provider "$(wardian slots --first)"
    """
    target = environment(file, instance, parameters=parameters, provider=provider)
    found = wait(target.slots(sites or None, days=days))
    if as_json:
        print_json([_summary(item) for item in found])
        return
    if first:
        if len(target.providers()) > 1:
            raise _several()
        click.echo(_first(found).site)
        return
    lease = target.load().lease
    click.echo(f"{target.load().name}, for {_hours(lease.duration) if lease else 'as long as it is up'}; times are UTC")
    for item in found:
        _print(item, days)


def _several() -> Exception:
    from ..errors import PlanError

    remedy = "`wardian slots` says when all of it can be held; write that time as each site's `reserve.start`"
    return PlanError("it grows at several sites, and not at one of them", remedy=remedy)


def _first(found: list[SiteSlots]) -> SiteSlots:
    from ..errors import PlanError

    known = [item for item in found if item.first is not None]
    if not known:
        raise PlanError("no site has a slot", remedy="; ".join(f"{item.site}: {_words(item)}" for item in found))
    return known[0]


def _summary(item: SiteSlots) -> dict[str, Any]:
    slots = item.slots
    windows = [{"from": begin, "until": end} for begin, end in slots.windows] if slots else []
    return {
        "site": item.site,
        "needs": slots.needs if slots else None,
        "there": slots.there if slots else None,
        "windows": windows,
        "error": item.error or None,
    }


def _print(item: SiteSlots, days: int) -> None:
    click.echo(style(item.site, bold=True) + f"  {_words(item)}")
    if item.slots is None or not item.slots.windows:
        return
    today = int(time.time()) // DAY * DAY
    for day in range(today, today + (days + 1) * DAY, DAY):
        marks = "".join("#" if _free(item, day + hour * HOUR) else "." for hour in range(24))
        click.echo(f"  {time.strftime('%a %d %b', time.gmtime(day))}  {marks}")


def _free(item: SiteSlots, hour: int) -> bool:
    return item.slots is not None and any(begin < hour + HOUR and end >= hour for begin, end in item.slots.windows)


def _words(item: SiteSlots) -> str:
    if item.error:
        return item.error.replace("\n", "")
    if item.slots is None:
        return "at any time: nothing is reserved there"
    needs, first = f"{item.slots.needs}; {item.slots.there} such hosts", item.first
    if first is None:
        return f"{needs}; never free together within these days"
    return f"{needs}; first: {'now' if first <= time.time() else time.strftime('%a %d %b %H:%M', time.gmtime(first))}"


def _hours(seconds: float) -> str:
    from ..experiment.units import format_duration

    return format_duration(math.ceil(seconds))
