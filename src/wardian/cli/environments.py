"""plan, up, status, ls, down, gc: environments as a whole."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import (
    confirm,
    environment,
    experiment_options,
    fail,
    growth_options,
    json_option,
    print_json,
    settings_option,
    style,
    table,
    wait,
)
from .progress import show_down, watch

if TYPE_CHECKING:
    from ..environment.environment import Environment
    from ..experiment.plan import Plan
    from ..experiment.resources import EnvironmentRecord, Observed, ObservedResource


@click.command("plan")
@experiment_options
@growth_options
@settings_option
@json_option
@click.option("--strict", is_flag=True, help="Refuse what cannot be honoured here exactly as written.")
@click.option("--exit-code", is_flag=True, help="Exit with 0 for nothing to do, 2 for changes, 1 for an error.")
def plan_command(
    file: Path | None,
    instance: str | None,
    parameters: dict[str, str],
    provider: str | None,
    settings: dict[str, object],
    as_json: bool,
    strict: bool,
    exit_code: bool,
) -> int:
    """Show what `up` would do, and why.

    \b
    wardian plan
    wardian plan -p clients=20 --json
    """
    from ..errors import WardianError

    try:
        plan = wait(environment(file, instance, parameters=parameters, provider=provider, settings=settings).plan(strict=strict))
    except WardianError as error:
        if exit_code:
            fail(error)
            return 1
        raise
    if as_json:
        print_json(plan.to_json())
    else:
        _print_plan(plan)
    return 2 if exit_code and plan else 0


@click.command("up")
@experiment_options
@growth_options
@settings_option
@json_option
@click.option("--strict", is_flag=True, help="Refuse what cannot be honoured here exactly as written.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before nodes that exist are removed or made anew.")
@click.option("--locked", is_flag=True, help="Refuse whatever is otherwise than experiment.lock says.")
def up_command(
    file: Path | None,
    instance: str | None,
    parameters: dict[str, str],
    provider: str | None,
    settings: dict[str, object],
    as_json: bool,
    strict: bool,
    yes: bool,
    locked: bool,
) -> None:
    """Grow the environment, or bring it to what the file says now.

    Running it again finishes what was interrupted and changes only what differs.

    \b
    wardian up
    wardian up -p clients=20 -e second
    wardian up --locked
    wardian up --provider openstack --set cloud=mycloud --set image=debian-12
    """
    target = environment(file, instance, parameters=parameters, provider=provider, settings=settings)

    def agree(plan: Plan, lost: Sequence[str]) -> bool:
        if not as_json:
            _print_plan(plan)
        if not lost or confirm("Go on?", yes):
            return True
        raise click.Abort

    begun = time.monotonic()
    try:
        with watch(quiet=as_json) as listen:
            plan = wait(_growing(target, provider, locked, as_json, strict=strict, confirm=agree, listen=listen))
    finally:
        target.close()
    if as_json:
        print_json(plan.to_json())
    elif plan:
        click.echo(style("up", fg="green", bold=True) + f" in {time.monotonic() - begun:.1f} s")
    else:
        _print_plan(plan)


async def _growing(target: Environment, provider: str | None, locked: bool, quiet: bool, **options: Any) -> Plan:
    if not locked:
        return await target.up(**options)
    from ..replay import lock

    def report(said: str) -> None:
        if not quiet:
            click.echo(said, err=True)

    return await lock.up(target, target.folder / lock.FILE, provider=provider, report=report, **options)


@click.command("down")
@click.argument("identity", metavar="[ID]", required=False)
@experiment_options
@json_option
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; `down` does not ask.")
@click.option("--force", is_flag=True, help="Tear down even if files could not be collected.")
@click.option("--no-collect", is_flag=True, help="Do not collect files first.")
def down_command(
    identity: str | None, file: Path | None, instance: str | None, as_json: bool, yes: bool, force: bool, no_collect: bool
) -> None:
    """Collect the files that the experiment names, then remove everything of the environment.

    ID, as `wardian ls` shows it, names an environment whose file is elsewhere or gone.

    \b
    wardian down
    wardian down video-qoe-3f2a91bc
    """
    target = _by_identity(identity) if identity else environment(file, instance, gone=True)
    try:
        with show_down(quiet=as_json) as listen:
            outcome = wait(target.down(force=force, gather=not no_collect, listen=listen))
    finally:
        target.close()
    if as_json:
        print_json({"existed": outcome.existed, "collected": [asdict(item) for item in outcome.collected], "folder": outcome.folder})
    elif not outcome.existed:
        click.echo("Nothing to do: it is not up.")
    else:
        if outcome.collected:
            click.echo(f"collected {len(outcome.collected)} into {outcome.folder}")
        click.echo(style("down", fg="green", bold=True))


@click.command("status")
@experiment_options
@json_option
def status_command(file: Path | None, instance: str | None, as_json: bool) -> int:
    """Show the nodes, links and services that exist, and how they are.

    A host of `ssh` that does not answer for five seconds is shown as unreachable. Exits with 4 when the environment is not up.

    \b
    wardian status
    wardian status --json -e second
    """
    from ..environment.keeper import lease_end
    from ..environment.live import not_up
    from ..providers.looking import look

    target = environment(file, instance, gone=True)
    with look(lambda words: click.echo(words, err=True)):
        observed = wait(target.observe())
    record = observed.environment
    if record is None:
        raise not_up(str(target.file), target.instance)
    end = lease_end(record)
    if as_json:
        resources = [asdict(item) for item in observed.resources.values()]
        print_json({**_summary(record), "lease_end": end, "resources": resources})
        return 0
    click.echo(style(record.name, bold=True) + f" ({record.id}) on {record.provider}, up for {_age(time.time() - record.created)}")
    if end is not None:
        click.echo(f"lease ends in {_age(end - time.time())}, then: {record.spec['lease']['at_end']}")
    for item in observed.of("lease"):
        click.echo(f"lease on {item.name}: {item.detail}")
    _print_resources(observed)
    return 0


@click.command("ls")
@json_option
def ls_command(as_json: bool) -> None:
    """List the environments that exist on this host.

    \b
    wardian ls
    wardian ls --json
    """
    from ..environment.live import environments

    found = [record for record, _ in wait(environments())]
    if as_json:
        print_json([_summary(record) for record in found])
    elif found:
        rows = [[r.id, r.instance, r.provider, r.user, _age(time.time() - r.created), r.file] for r in found]
        table(rows, ["ID", "INSTANCE", "PROVIDER", "USER", "AGE", "FILE"])
    else:
        click.echo("No environment is up here.")


@click.command("gc")
@json_option
def gc_command(as_json: bool) -> None:
    """Remove what dead processes and reboots left behind, and what should have ended with its lease while no keeper ran.

    Of other environments that are up, only faults that are over are undone.

    \b
    wardian gc
    """
    from ..environment.inflicting import settle
    from ..environment.keeper import end_overdue
    from ..providers import registry

    removed = wait(end_overdue())
    for name in registry.holders():
        removed += wait(registry.make(name).collect_garbage(lambda item, state: None))
    removed += wait(settle())
    if as_json:
        print_json(removed)
    else:
        for line in removed:
            click.echo(f"removed {line}")
        if not removed:
            click.echo("Nothing to remove.")


def _summary(record: EnvironmentRecord) -> dict[str, Any]:
    return {key: getattr(record, key) for key in ("id", "name", "instance", "provider", "user", "host", "created", "file")}


def _by_identity(identity: str) -> Any:
    from ..environment.environment import Environment
    from ..environment.live import environments
    from ..errors import NotUpError

    found = [record for record, _ in wait(environments())]
    for record in found:
        if record.id == identity:
            return Environment(record.file, instance=record.instance)
    names = ", ".join(record.id for record in found) or "none"
    raise NotUpError(f"there is no environment {identity!r}", remedy=f"those that exist: {names}")


def _print_plan(plan: Plan) -> None:
    colours = {"+": "green", "~": "yellow", "-": "red", "!": "magenta"}
    for line in plan.text().splitlines():
        colour = colours.get(line[:1]) if line[1:2] == " " else None
        click.echo(style(line, fg=colour) if colour else line)
    sys.stdout.flush()


def _print_resources(observed: Observed) -> None:
    sites = list(observed.of("site"))
    services: dict[str, list[str]] = {}
    for item in observed.of("service"):
        mark = "" if item.state == "ready" else f" ({item.state})"
        services.setdefault(item.spec["node"], []).append(item.spec["service"] + mark)
    rows = []
    for item in observed.of("node"):
        written = {part["network"]: part["address"].partition("/")[0] for part in item.spec.get("interfaces", ())}
        addresses = ", ".join(dict.fromkeys((written | dict(item.addresses)).values()))
        state = item.state + (f": {item.detail}" if item.detail else "")
        at = [item.spec.get("site") or "?"] if sites else []
        rows.append([item.name, *at, state, addresses, ", ".join(item.spec.get("roles", ())), ", ".join(services.get(item.name, ()))])
    click.echo()
    if sites:
        table([[item.name, item.state, item.spec["provider"]] for item in sites], ["SITE", "STATE", "PROVIDER"])
        click.echo()
    table(rows, ["NODE", *(["SITE"] if sites else []), "STATE", "ADDRESS", "ROLES", "SERVICES"])
    links = [
        [item.name, item.state, " - ".join(item.spec.get("networks", ())), _shape(item, "there"), _shape(item, "back")]
        for item in observed.of("link")
    ]
    links += [[item.name, item.state, "", _shape(item, "up"), _shape(item, "down")] for item in observed.of("access")]
    if links:
        click.echo()
        table(links, ["LINK", "STATE", "BETWEEN", "THERE", "BACK"])


def _shape(link: ObservedResource, direction: str) -> str:
    from ..experiment.plan import shape_text

    parts = [f"{part} {shape_text(part, value)}" for part, value in link.spec.get(direction, {}).items()]
    return ", ".join(parts + ([f"mtu {link.spec['mtu']}"] if "mtu" in link.spec else [])) or "-"


def _age(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
