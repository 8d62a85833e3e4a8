"""admin: what everybody on this host holds, for root."""

from __future__ import annotations

import os
import time
from dataclasses import asdict

import click

from ..errors import WardianError
from .common import json_option, print_json, style, table


@click.group("admin")
def admin_command() -> None:
    """See who holds which environments on this host, and end or extend one. For root.

    \b
    wardian admin ls
    wardian admin end video-qoe-3f2a91bc
    wardian admin extend video-qoe-3f2a91bc 2h
    """
    if os.geteuid() != 0:
        raise click.UsageError("only root may look into what others hold; `wardian ls` shows what you hold")


user_option = click.option("--user", metavar="NAME", help="Whose environment it is, where several users say that they hold it.")


@admin_command.command("ls")
@click.option("--user", metavar="NAME", help="Only what this user holds.")
@json_option
def ls_command(user: str | None, as_json: bool) -> None:
    """List every user's environments: nodes, the memory that they use now, and how long they are held.

    \b
    wardian admin ls
    wardian admin ls --user ada --json
    """
    from ..environment.admin import holdings
    from ..experiment.units import approximate_size

    found, silent = holdings(user, _waiting)
    if as_json:
        kept = [{name: value for name, value in asdict(holding).items() if name not in ("place", "parts")} for holding in found]
        print_json({"environments": kept, "unanswered": [{"user": item.place.user, "reason": item.reason} for item in silent]})
        return
    rows = [
        [item.user, item.id, item.instance, item.provider, str(item.nodes), approximate_size(item.memory), _until(item.lease_end)]
        for item in found
    ]
    if rows:
        table(rows, ["USER", "ID", "INSTANCE", "PROVIDER", "NODES", "MEMORY NOW", "LEASE UNTIL"])
    else:
        click.echo("Nobody holds an environment here.")
    for item in silent:
        click.echo(style("unknown: ", fg="yellow") + item.reason, err=True)


@admin_command.command("end")
@click.argument("identities", metavar="ID...", nargs=-1)
@user_option
@click.option("--all", "everything", is_flag=True, help="All that `wardian admin ls` shows; with --user, all of that user.")
@click.option("--force", is_flag=True, help="Kill all that runs in it first, and collect nothing.")
def end_command(identities: tuple[str, ...], user: str | None, everything: bool, force: bool) -> None:
    """Collect the files that the experiments name, then remove everything of the environments, as their users would.

    \b
    wardian admin end video-qoe-3f2a91bc
    wardian admin end video-qoe-3f2a91bc --force
    wardian admin end --all --user ada
    """
    from ..environment.admin import end

    if bool(identities) == everything:
        raise click.UsageError("say which environments to end by their ids, or all of them with --all")
    failed: list[WardianError] = []
    identity = None
    for identity, outcome in end(identities, user, force=force, waiting=_waiting):
        if isinstance(outcome, WardianError):
            failed.append(outcome)
        else:
            click.echo(f"ended {identity}" + (f" of {outcome.user}" if outcome else ", of which only processes were left"))
    if identity is None:
        click.echo("Nobody holds an environment here.")
    if len(failed) > 1:
        raise WardianError(f"{len(failed)} were not ended: " + "; ".join(error.message for error in failed), remedy=failed[0].remedy)
    if failed:
        raise failed[0]


@admin_command.command("extend")
@click.argument("identity", metavar="ID")
@click.argument("duration")
@user_option
def extend_command(identity: str, duration: str, user: str | None) -> None:
    """Add DURATION, such as 30min, to what is left of a lease, also beyond what the policy allows.

    \b
    wardian admin extend video-qoe-3f2a91bc 2h
    """
    from ..environment.admin import extend
    from ..experiment.units import parse_duration

    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}") from None
    click.echo(f"held until {_until(extend(identity, seconds, user))}")


def _waiting(what: str) -> None:
    from ..environment.admin import PATIENCE

    click.echo(f"waiting for {what}, {PATIENCE:.0f} s at most", err=True)


def _until(moment: float | None) -> str:
    return "-" if moment is None else time.strftime("%F %T", time.localtime(moment))
