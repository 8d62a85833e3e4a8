"""The command: parses, calls, prints."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import SetupError, configuration, machine, packages, processes, services, setting_up
from .debian import Debian
from .layout import FIRST_PORT, HOSTS, Layout, default_folder, existing, locked, prepare

DESCRIPTION = """\
A real OpenStack on this machine, on a loopback interface alone. Its servers are pretended (Nova's fake driver);
with --full they are virtual machines that QEMU emulates, and all of it is in namespaces of its own.
"""
EXAMPLES = """\
examples:
  scripts/openstack-testbed install            Debian's packages, and Blazar from PyPI; once
  scripts/openstack-testbed start              all services; databases, users and an image at the first time
  export OS_CLIENT_CONFIG_FILE=$(scripts/openstack-testbed clouds --path)
  scripts/openstack-testbed status --json
  scripts/openstack-testbed stop               ends what start began; what is in the databases stays
  scripts/openstack-testbed remove             the databases, too
  scripts/openstack-testbed --full install     the form whose servers are virtual machines, and the image that they boot
  scripts/openstack-testbed --full start
  scripts/openstack-testbed --full enter wardian up        its cloud can be reached from within alone

exit codes: 0 done (status: all runs), 1 it failed, 3 status: not all runs
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit code."""
    parser = argparse.ArgumentParser(
        prog="openstack-testbed",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", action="store_true", help="the form whose servers are virtual machines")
    folders = f"{default_folder()}, with --full {default_folder(full=True)}"
    parser.add_argument("--folder", type=Path, help=f"where all of it is ($WARDIAN_TESTBED; {folders})")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("install", help="install what is missing (as root)")
    start = commands.add_parser("start", help="start what does not run, and wait until it is ready")
    start.add_argument("--port", type=int, default=FIRST_PORT, help="the first of ten ports in a row (%(default)s)")
    start.add_argument("--hosts", type=int, help=f"compute hosts, of which all but the first can be reserved (as before, or {HOSTS})")
    start.add_argument("--boot", type=_seconds, metavar="SECONDS", help="how long a server takes to boot (as before, or 0)")
    status = commands.add_parser("status", help="what runs")
    status.add_argument("--json", action="store_true", help="as JSON")
    clouds = commands.add_parser("clouds", help="print the clouds.yaml for its users; it holds passwords")
    clouds.add_argument("--path", action="store_true", help="print where that file is")
    enter = commands.add_parser("enter", help="run a command where the cloud of --full can be reached")
    enter.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="without one, a shell")
    commands.add_parser("stop", help="end what start began")
    commands.add_parser("remove", help="end it, and remove all but what install made")
    chosen = parser.parse_args(arguments)
    chosen.folder = (chosen.folder or default_folder(full=chosen.full)).absolute()
    try:
        return int(globals()[f"_{chosen.command}"](chosen))
    except SetupError as error:
        print(f"openstack-testbed: {error}", file=sys.stderr)
        return 1


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 3600")
    return value


def _install(chosen: argparse.Namespace) -> int:
    with locked(chosen.folder):
        packages.install(chosen.folder / "blazar", chosen.full)
        if chosen.full and not (image := Debian(chosen.folder / "debian")).there():
            image.make()
    return 0


def _start(chosen: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise SetupError("start it as root: its network agents and its database want that")
    whole = packages.has_blazar(chosen.folder / "blazar") and (not chosen.full or Debian(chosen.folder / "debian").there())
    if packages.missing(chosen.full) or not whole:
        raise SetupError(f"not all of it is installed; run `openstack-testbed {'--full ' if chosen.full else ''}install` first")
    with locked(chosen.folder):
        begun = time.monotonic()
        layout = prepare(chosen.folder, chosen.port, chosen.hosts, chosen.boot, chosen.full)
        if layout.full and not machine.inside():
            machine.start(layout)
            machine.again(layout)
        configuration.write_all(layout)
        processes.stop(layout, [processes.SETTING_UP])
        for name, step in _steps(layout):
            print(f"{time.monotonic() - begun:6.1f} s  {name}", file=sys.stderr, flush=True)
            step()
        print(f"{time.monotonic() - begun:6.1f} s  ready: {_use(layout)}", file=sys.stderr)
    return 0


def _use(layout: Layout) -> str:
    return "openstack-testbed --full enter COMMAND" if layout.full else f"export OS_CLIENT_CONFIG_FILE={layout.clouds}"


def _steps(layout: Layout) -> list[tuple[str, Any]]:
    once = partial(partial, setting_up.once, layout)
    return [
        ("the database's files", once("database-files", partial(setting_up.database_files, layout))),
        (
            "MariaDB and RabbitMQ",
            partial(services.start, layout, [services.database(layout), *services.messages(layout), *services.hypervisor(layout)]),
        ),
        ("the services' account", once("account", partial(setting_up.account, layout))),
        ("Keystone's tables", once("keystone", partial(setting_up.keystone, layout))),
        ("tables", once("tables", partial(setting_up.tables, layout))),
        ("Keystone", partial(services.start, layout, [services.identity(layout)])),
        ("the catalogue", once("catalogue", partial(setting_up.catalogue, layout))),
        ("the other services", partial(services.start, layout, services.others(layout))),
        ("agents", partial(services.start, layout, services.agents(layout))),
        ("hosts", partial(processes.wait, layout, "nova-api", None, partial(setting_up.hosts_up, layout), services.PATIENCE)),
        ("hosts of the cell", once("hosts", partial(setting_up.hosts, layout))),
        ("flavours, image, network", once("contents", partial(setting_up.contents, layout))),
    ]


def _status(chosen: argparse.Namespace) -> int:
    layout = existing(chosen.folder)
    found = processes.running(layout) if layout else {}
    rows = [
        {
            "service": service.name,
            "state": "running" if service.name in found else "stopped",
            "processes": sorted(found.get(service.name, ())),
            "address": services.address(layout, service),
            "memory": processes.memory(found.get(service.name, ())),
        }
        for service in (services.every(layout) if layout else ())
    ]
    whole = bool(rows) and all(row["state"] == "running" for row in rows)
    if chosen.json:
        clouds = str(layout.clouds) if layout else None
        print(json.dumps({"running": whole, "folder": str(chosen.folder), "clouds": clouds, "services": rows}, indent=1))
    else:
        for row in rows:
            print(f"{row['service']:24} {row['state']:8} {row['address'] or '':16} {row['memory'] / 2**20:6.0f} MiB")
        print(f"{sum(row['memory'] for row in rows) / 2**20:.0f} MiB in all" if rows else f"there is no testbed in {chosen.folder}")
    return 0 if whole else 3


def _clouds(chosen: argparse.Namespace) -> int:
    layout = existing(chosen.folder)
    if layout is None:
        raise SetupError(f"there is no testbed in {chosen.folder}; run `openstack-testbed start` first")
    print(layout.clouds if chosen.path else layout.clouds.read_text(), end="\n" if chosen.path else "")
    return 0


def _enter(chosen: argparse.Namespace) -> int:
    layout = existing(chosen.folder)
    if layout is None or not layout.full:
        raise SetupError(f"there is nothing to enter in {chosen.folder}: `enter` is for --full")
    given = chosen.argv[1:] if chosen.argv[:1] == ["--"] else chosen.argv
    argv = [*machine.command(layout, "--net"), *(given or [os.environ.get("SHELL", "/bin/sh")])]
    os.environ |= {"OS_CLIENT_CONFIG_FILE": str(layout.clouds), "WARDIAN_TESTBED": str(layout.folder)}
    os.execvp(argv[0], argv)  # noqa: S606


def _stop(chosen: argparse.Namespace) -> int:
    layout = existing(chosen.folder)
    if layout is not None:
        with locked(chosen.folder):
            _end(layout)
    return 0


def _remove(chosen: argparse.Namespace) -> int:
    with locked(chosen.folder):
        if layout := existing(chosen.folder):
            _end(layout)
        shutil.rmtree(chosen.folder / "state", ignore_errors=True)
    return 0


def _end(layout: Layout) -> None:
    """What the others stand on ends last."""
    below = [service.name for service in (services.database(layout), *services.messages(layout))]
    processes.stop(layout, processes.running(layout).keys() - {*below, machine.NAME})
    processes.stop(layout, below)
    machine.stop(layout)
