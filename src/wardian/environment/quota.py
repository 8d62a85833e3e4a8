"""What the policy of this host allows the user of this process, and what of it he holds.

The policy is a file of the host's administrator in one place, which no variable moves. Whoever may change it is not bound by it.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import PlanError
from ..experiment import policy
from ..experiment.policy import Held, Limit, Share
from ..experiment.resources import EnvironmentRecord, Resource
from ..paths import state_folder
from . import live

POLICY = Path("/etc/wardian/policy.yaml")


async def shares(desired: Sequence[Resource], existing: EnvironmentRecord | None) -> tuple[Share, ...]:
    """What is used of each limit once these resources of one environment are there; nothing where there is no policy.

    existing: that environment, where it exists.
    Raises PlanError where it is too much, ExperimentFileError where the policy is wrong.
    """
    bounds = _bounds()
    if not bounds:
        return ()
    disk = await asyncio.to_thread(_size, state_folder()) if "disk" in bounds else 0
    nodes, memory = await _held(existing.id if existing else None)
    return policy.shares(bounds, desired, Held(nodes, memory, disk), str(POLICY))


def check_lease(environment: Resource) -> None:
    """Raises PlanError where an environment would be held for longer than the policy allows."""
    bounds = {what: limit for what, limit in _bounds().items() if what == "lease"}
    policy.shares(bounds, [environment], Held(), str(POLICY))


def _bounds() -> Mapping[str, Limit]:
    try:
        text = POLICY.read_bytes()
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise PlanError(f"{POLICY} cannot be read", remedy=f"have root make it readable for all: chmod 644 {POLICY}") from None
    if os.access(POLICY, os.W_OK):
        return {}
    return policy.limits(policy.loads(text, str(POLICY)), *_who())


def _who() -> tuple[str, set[str]]:
    """The user of this process and his groups, by name where they have one."""
    user, groups = str(os.getuid()), set()
    with suppress(KeyError):
        user = pwd.getpwuid(os.getuid()).pw_name
    for group in {os.getgid(), *os.getgroups()}:
        with suppress(KeyError):
            groups.add(grp.getgrgid(group).gr_name)
    return user, groups


async def _held(except_for: str | None) -> tuple[int, int]:
    """Nodes, and the sum of their memory limits, of all environments of this user but one."""
    others = [(record, provider) for record, provider in await live.environments() if record.id != except_for]
    observed = await asyncio.gather(*(provider.glance(record.id) for record, provider in others))
    nodes = [node for found in observed for node in found.of("node")]
    return len(nodes), sum(node.spec.get("memory") or 0 for node in nodes)


def _size(folder: Path) -> int:
    """Bytes on the disk below a folder, as far as this user may look."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
