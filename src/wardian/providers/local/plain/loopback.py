"""Addresses and names of nodes without a network: each has an address of 127.0.0.0/8, all of which is every Linux host's own.

Names go to the host's /etc/hosts where this user may write it, as in most containers: a line for each, marked with the environment's id.
Elsewhere they are in a table of the environment's, which Python on nodes looks into (`_RESOLVER`) and nothing else does.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from ..state import EnvironmentFolder, State, alone

HOSTS = Path("/etc/hosts")

_FIRST, _COUNT = int(IPv4Address("127.64.0.0")), 2**22
_MARK = "# wardian "
_RESOLVER = '''"""Wardian: names of an experiment's nodes, on a host whose own table of names may not be written."""

import os
import socket


def _resolving(original):
    def resolve(host, *arguments, **options):
        try:
            with open(os.environ["WARDIAN_HOSTS"]) as table:
                known = {name: address for address, name in map(str.split, table)}
        except (KeyError, OSError, ValueError):
            known = {}
        return original(known.get(host, host), *arguments, **options)

    return resolve


for _name in ("getaddrinfo", "gethostbyname"):
    setattr(socket, _name, _resolving(getattr(socket, _name)))
'''


def refusal() -> str | None:
    """Why nodes cannot have addresses here, if they cannot."""
    try:
        with socket.socket() as probe:
            probe.bind((str(IPv4Address(_FIRST + 1)), 0))
    except OSError as error:
        return error.strerror or str(error)
    return None


@contextmanager
def allocating(state: State, environment: str) -> Iterator[Iterator[str]]:
    """Addresses that no node of this state folder has. To be written down before this ends."""
    (state.root / "locks").mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone(state.root / "locks" / "addresses"):
        taken = {address_of(known) for each in state.environments() for node in each.resources("node") if (known := node.read())}
        # apart from those of other users and state folders, most likely
        begin = int.from_bytes(hashlib.sha256(f"{os.getuid()} {state.root} {environment}".encode()).digest()[:8])
        candidates = (str(IPv4Address(_FIRST + (begin + number) % _COUNT)) for number in range(_COUNT))
        yield (address for address in candidates if address not in taken and not address.endswith((".0", ".255")))


def address_of(known: Mapping[str, Any]) -> str:
    """The address of a node, of which this is written down; empty of one that is made of namespaces."""
    return str(known["facts"].get("address", ""))


def table_of(environment: EnvironmentFolder) -> Path:
    """The file with an environment's names: an address and a name on each line."""
    return environment.path / "hosts"


def resolving(environment: EnvironmentFolder) -> dict[str, str]:
    """Variables by which programs on nodes find names that the host's own table has not."""
    if can_publish():
        return {}
    folder = environment.path / "python"
    folder.mkdir(exist_ok=True, mode=0o700)
    (folder / "sitecustomize.py").write_text(_RESOLVER)
    return {"PYTHONPATH": str(folder)}


def can_publish() -> bool:
    """Whether this user may write the host's table of names."""
    return os.access(HOSTS, os.W_OK)


def publish(state: State, environment: EnvironmentFolder, tables: Mapping[str, Any]) -> None:
    """Have names mean nodes. tables: as a resource `names` has them, with the addresses that nodes have elsewhere."""
    own: dict[str, str] = {}
    for folder in environment.resources("node"):
        if known := folder.read():
            own |= {interface["address"].partition("/")[0]: address_of(known) for interface in known["spec"]["interfaces"]}
    names = {name: own[address] for table in tables.values() for address, name in table if address in own}
    lines = [f"{address} {name}\n" for name, address in sorted(names.items())]
    part = table_of(environment).with_suffix(f".{os.getpid()}")
    part.write_text("".join(lines))
    part.rename(table_of(environment))
    _rewrite(state, environment.id, lines)


def withdraw(state: State, environment: str) -> None:
    """Have the host's table forget an environment's names."""
    _rewrite(state, environment, [])


def foreign(own: set[str]) -> dict[str, str]:
    """Names that the host's table has already: {name: the id of the environment, empty of none}, without those of `own` ids."""
    found: dict[str, str] = {}
    for line in _read().splitlines():
        text, _, mark = line.partition(_MARK)
        if mark not in own or not mark:
            for name in text.partition("#")[0].split()[1:]:
                found.setdefault(name, mark)
    return found


def _rewrite(state: State, environment: str, lines: list[str]) -> None:
    if not can_publish():
        return
    (state.root / "locks").mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone(state.root / "locks" / "hosts"):
        before = _read()
        kept = [line for line in before.splitlines(keepends=True) if line.rstrip("\n").partition(_MARK)[2] != environment]
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        after = "".join([*kept, *(f"{line.rstrip()} {_MARK}{environment}\n" for line in lines)])
        if after != before:
            # in place: a container's is mounted, and cannot be replaced. What is not ours comes first and stays as it is
            with open(HOSTS, "r+b", buffering=0) as file:
                file.write(after.encode())
                file.truncate()


def _read() -> str:
    try:
        return HOSTS.read_text(errors="surrogateescape")
    except OSError:
        return ""
