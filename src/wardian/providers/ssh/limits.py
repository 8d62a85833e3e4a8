"""What nodes may take of their hosts: processor time and memory, by control groups there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import marker, scripts
from .inventory import Host
from .remote import Answer, run

CONTROLLERS = {"cpus": "cpu", "memory": "memory"}
"""What limits what, {field of a node: controller}."""

NONE = {"cpus": None, "memory": None}
"""What a node has that is not limited."""

REASONS = {
    scripts.NO_RIGHTS: "there we are not root, and sudo asks for a password",
    scripts.NO_GROUPS: "it has no control groups that limit processor time",
    scripts.NO_MEMORY: "it has no control groups that limit memory",
}


async def look(host: Host) -> dict[str, str]:
    """What cannot be limited on a host, {field of a node: why}. Raises HostError."""
    answer = await run(host, scripts.CONTROLLERS)
    if answer.code:
        return dict.fromkeys(CONTROLLERS, REASONS.get(answer.code, answer.last_error))
    there = answer.output.split()
    return {field: f"it has no control groups with the controller {name}" for field, name in CONTROLLERS.items() if name not in there}


def asked(spec: Mapping[str, Any]) -> bool:
    """Whether a node is to be limited."""
    return any(spec[field] is not None for field in CONTROLLERS)


async def bring(host: Host, environment: str, node: str, spec: Mapping[str, Any], share: float | None = None) -> Answer:
    """Limit a node as its spec says, and to a share of the processors that it then has. What cannot be limited is left out, and the exit

    code is that of `scripts.LIMIT`. Raises HostError.
    """
    thousandths = ["" if value is None else str(max(round(1000 * value), 1)) for value in (share, spec["cpus"])]
    memory = "" if spec["memory"] is None else str(spec["memory"])
    return await run(host, scripts.LIMIT, environment, marker.folder(node), *thousandths, memory)
