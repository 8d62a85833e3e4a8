"""What things of an environment are called on the Engine, and the labels that say whose they are and what they were made from."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...experiment.resources import EnvironmentRecord, digest
from ...paths import user_name

PREFIX = "wardian."
ENVIRONMENT, KIND, NAME, SPEC, OWNER, PINNED = (PREFIX + word for word in ("environment", "kind", "name", "spec", "owner", "pinned"))

BEGUN = ".new"
"""Follows the name of a container until it is complete: the last step of its making takes it away."""


def container_name(environment: str, node: str) -> str:
    """The name of a node's container."""
    return f"{environment}.{node.replace('[', '-').rstrip(']')}"


def network_name(environment: str, network: str) -> str:
    """The name of a network on the Engine."""
    return f"{environment}.{network}"


def uplink_name(environment: str) -> str:
    """The name of the Engine's network that leads out; no network of an experiment can be called that."""
    return f"{environment}..internet"


@dataclass(frozen=True, slots=True)
class Identity:
    """What each thing says of its environment. wiring: how its networks are made, "host" or "engine" (see `wiring.py`)."""

    record: EnvironmentRecord
    wiring: str


def labels(identity: Identity, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """Those of a thing that belongs to an environment: enough to know the environment by this thing alone."""
    record = identity.record
    words = {
        "environment": record.id,
        "kind": kind,
        "name": name,
        "spec": json.dumps(spec, separators=(",", ":")),
        "digest": digest(spec),
        "owner": owner(),
        "experiment": record.name,
        "instance": record.instance,
        "file": record.file,
        "user": record.user,
        "host": record.host,
        "created": repr(record.created),
        "wiring": identity.wiring,
    }
    return {PREFIX + word: value for word, value in words.items()}


def identity_of(given: Mapping[str, str], spec: Mapping[str, Any] | None = None) -> Identity:
    """What a thing with these labels says of its environment. spec: that of the environment, where it is known."""
    word = {name.removeprefix(PREFIX): value for name, value in given.items() if name.startswith(PREFIX)}
    record = EnvironmentRecord(
        id=word["environment"],
        name=word.get("experiment", word["environment"]),
        instance=word.get("instance", ""),
        file=word.get("file", ""),
        provider="docker",
        user=word.get("user", ""),
        host=word.get("host", ""),
        created=float(word.get("created", 0)),
        spec=dict(spec or {}),
    )
    return Identity(record, word.get("wiring", "engine"))


def filters(*given: str, **others: Iterable[str]) -> dict[str, list[str]]:
    """For the `filters` of a list: things with all of these labels, each `NAME=VALUE`, or `NAME` for any value."""
    return {"label": list(given), **{name: list(values) for name, values in others.items()}}


def carries(given: Mapping[str, str] | None, *wanted: str) -> bool:
    """Whether a thing has all of these labels, written as for `filters`. Podman lists volumes and networks that have any of them."""
    return all(
        (given or {}).get(name) == value if equals else name in (given or {})
        for name, equals, value in (item.partition("=") for item in wanted)
    )


@cache
def owner() -> str:
    """Who we are to an Engine that others use, too: the user of this machine, whatever it is called today."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return f"{user_name()}@{hashlib.sha256((machine or socket.gethostname()).encode()).hexdigest()[:12]}"
