"""What is ours on a host: a folder for each node, in the home of who logs in there. It is the truth about the node.

    ~/.cache/wardian/ENVIRONMENT/NODE/host        name of the machine, since homes may be shared by several
                                      node.json   {"record", "name", "spec", "complete"}: one line
                                      env         shell file with the node's variables; without it nothing starts there
                                      notes/NAME  one line of JSON each
                                      paused      while it stands still: a FIFO at which commands that begin wait
                                      cgroup      once it was limited or slowed: the control groups of its processes
                                      killed      after it was
                                      tables/     names of nftables tables that drop packets for it
                                      shaped      while its traffic is: what was on its interfaces before, see `shaping.py`
    ~/.cache/wardian/setup/HASH@MACHINE           a `setup:` that ran

Files are replaced whole. Every process that is started on a node carries WARDIAN_ENVIRONMENT, by which its end finds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from ...errors import ProviderError
from ...experiment.resources import EnvironmentRecord
from . import scripts, shaping
from .command import CACHE, variables
from .inventory import Host
from .refusals import HostError
from .remote import Answer, run


@dataclass(frozen=True, slots=True)
class Facts:
    """A host as it sees itself: name, number and shell of who logs in, its address on the way to it, whether /etc/hosts may be written."""

    machine: str
    user: int
    address: str
    shell: str
    names: bool


@dataclass(frozen=True, slots=True)
class Marker:
    """A node as its host has it. record: of its environment; None, like an empty spec, where its making was cut short early."""

    name: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = False
    record: EnvironmentRecord | None = None
    address: str = ""
    notes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    killed: bool = False


class HostTakenError(HostError):
    """Another environment is on the host; `record` is what is known of it, if anything."""

    record: EnvironmentRecord | None = None


async def facts(host: Host) -> Facts:
    """Ask a host what it is. Raises HostError."""
    return _facts(host, await run(host, scripts.FACTS))


async def put(host: Host, record: EnvironmentRecord, name: str, spec: Mapping[str, Any], *, complete: bool, alone: bool = False) -> Facts:
    """Write a node down on its host. alone: only if no other environment is there. Raises HostTakenError, HostError, ProviderError."""
    fields = {**asdict(record), "spec": dict(record.spec)}
    value = {"record": fields, "name": name, "spec": dict(spec), "complete": complete}
    env = {**({"WARDIAN_PYTHON": host.python} if host.python else {}), **spec["env"]}
    env |= {"WARDIAN_ENVIRONMENT": record.id, "WARDIAN_NODE": name}
    text = json.dumps(value) + "\n" + variables(env) + f'export WARDIAN_RUN_DIR="/tmp/wardian-$(id -u)-{record.id}"\n'
    answer = await run(host, scripts.PUT, record.id, folder(name), "alone" if alone else "", data=text.encode())
    if answer.code == scripts.TAKEN:
        raise taken(host, _marker("", answer.output, {}))
    if answer.code:
        raise _failed(host, "it cannot be marked as ours", answer)
    return _facts(host, answer)


async def read(host: Host, environment: str) -> list[Marker]:
    """The nodes of an environment on a host. Raises HostError."""
    answer = await run(host, scripts.READ, environment)
    machine, _, rest = answer.output.partition("\n")
    names, _, lines = rest.partition("\n\n")
    files = _files(lines)
    result = []
    for place in names.splitlines():
        if place != "*" and files.get(f"{place}/host", machine) == machine:
            notes = {path.rpartition("/")[2]: text for path, text in files.items() if path.startswith(f"{place}/notes/")}
            found = _marker(place, files.get(f"{place}/node.json"), notes)
            result.append(replace(found, killed=f"{place}/killed" in files))
    return result


async def scan(host: Host) -> list[Marker]:
    """The nodes of all environments on a host. Raises HostError."""
    machine, _, lines = (await run(host, scripts.SCAN)).output.partition("\n")
    files = _files(lines)
    places = [path.rpartition("/")[0] for path, text in files.items() if path.endswith("/host") and text == machine]
    return [_marker(place.rpartition("/")[2], files.get(f"{place}/node.json"), {}) for place in places]


async def note(host: Host, environment: str, node: str, name: str, value: Mapping[str, Any] | None) -> bool:
    """Keep a note with a node, or remove it. False where there is no such node. Raises HostError, ProviderError."""
    where = (environment, folder(node), quote(name, safe=""))
    if value is None:
        answer = await run(host, scripts.FORGET, *where)
    else:
        answer = await run(host, scripts.NOTE, *where, data=json.dumps(value).encode() + b"\n")
    if answer.code not in (0, scripts.NOT_THERE):
        raise _failed(host, "a note cannot be written", answer)
    return answer.code == 0


async def clean(host: Host, environment: str) -> None:
    """End everything of an environment on a host, and remove what is written down there. Raises HostError, ProviderError."""
    answer = await run(host, scripts.CLEAN, environment)
    if answer.code == scripts.SHAPED:
        for name in answer.output.splitlines():
            await shaping.clear(host, f"{environment}/{name}")
        answer = await run(host, scripts.CLEAN, environment)
    if answer.code:
        raise _failed(host, "what is ours there cannot be removed", answer)


async def setup(host: Host, environment: str, script: str) -> None:
    """Run a `setup:` unless the same one ran there before; one that is left running ends with the environment.

    Raises HostError, ProviderError with its last lines.
    """
    digest = hashlib.sha256(script.encode()).hexdigest()[:16]
    answer = await run(host, scripts.SETUP, digest, environment, data=script.encode())
    if answer.code:
        said = "".join(f"\n    {line}" for line in answer.output.splitlines()) or f" {answer.last_error}"
        remedy = f"Its whole output is there in ~/{CACHE}/setup/{digest}@*.log."
        raise ProviderError(f"setup ended with exit code {answer.code}:{said}", resource=f"host {host}", remedy=remedy)


async def names(host: Host, environment: str, table: Mapping[str, str]) -> None:
    """Have names {name: address} resolve on a host, where it may be written down there. Raises HostError, ProviderError."""
    rows = "".join(f"{address} {name}\n" for name, address in table.items())
    block = f"# wardian {environment} begin\n{rows}# wardian {environment} end\n"
    answer = await run(host, scripts.NAMES, environment, data=block.encode())
    if answer.code:
        raise _failed(host, "its /etc/hosts cannot be written", answer)


def taken(host: Host, other: Marker | None) -> HostTakenError:
    """The error for a host that another environment has. other: what is known of it."""
    record = other.record if other else None
    whose = f"{record.name} ({record.id}) of {record.user}@{record.host}" if record else "another environment"
    remedy = f"Tear that one down, remove its folder in ~/{CACHE} there if it is long gone, or set `shared: true`."
    error = HostTakenError(host.name, f"{whose} is on it", kind="denied", remedy=remedy)
    error.record = record
    return error


def folder(name: str) -> str:
    """The name of a node's folder."""
    return quote(name, safe="[]")


def place(environment: str, name: str) -> str:
    """The path of a node's folder below `command.CACHE`."""
    return f"{environment}/{folder(name)}"


def _facts(host: Host, answer: Answer) -> Facts:
    words = answer.output.split()
    if answer.code or len(words) < 4 or not words[1].isdigit():
        message = f"its shell runs no commands: {answer.last_error or answer.output.strip() or f'exit code {answer.code}'}"
        raise HostError(host.name, message, kind="denied", remedy="Wardian needs a POSIX shell and the usual tools there.")
    return Facts(words[0], int(words[1]), words[2], words[3], "hosts" in words[4:])


def _files(lines: str) -> dict[str, str]:
    """{path: text} of files of one line, as grep prints them."""
    return {path: text for path, colon, text in (line.partition(":") for line in lines.splitlines()) if colon}


def _marker(place: str, text: str | None, notes: Mapping[str, str]) -> Marker:
    name = unquote(place)
    value = _json(text)
    if value is None:
        return Marker(name)
    record = EnvironmentRecord(**value["record"])
    kept = {unquote(key): read for key, item in notes.items() if (read := _json(item)) is not None}
    return Marker(value["name"], value["spec"], value["complete"], record, notes=kept)


def _json(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _failed(host: Host, what: str, answer: Answer) -> ProviderError:
    full = "No space left" in answer.errors or "quota" in answer.errors.lower()
    remedy = "Make room in the home there." if full else "Is the home there writable, for who logs in?"
    return ProviderError(f"{what}: {answer.last_error or f'exit code {answer.code}'}", resource=f"host {host}", remedy=remedy)
