"""What links have carried, by the counters of their interfaces as /proc/PID/net/dev (proc(5)) of nodes and gateways shows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from . import fabric
from .state import EnvironmentFolder


def of(environment: EnvironmentFolder) -> dict[str, dict[str, int]]:
    """Bytes by link and way, as `Provider.traffic` says. Blocking."""
    found: dict[str, dict[str, int]] = {}
    for node in environment.resources("node"):
        spec, counters = (node.read() or {}).get("spec") or {}, _counters(node.pid())
        for interface in spec.get("interfaces", ()):
            if counted := counters.get(interface["name"]):
                received, sent = counted
                found[f"{node.name}/{interface['network']}"] = {"up": sent, "down": received}
    gateways = {network.name: _counters(network.pid()) for network in environment.resources("network")}
    for link in environment.resources("link"):
        spec = (link.read() or {}).get("spec") or {}
        first = spec.get("networks", [""])[0]
        if counted := gateways.get(first, {}).get(fabric.link_interface(link.name)):
            received, sent = counted
            found[link.name] = {"there": sent, "back": received}
    return found


def _counters(process: int | None) -> dict[str, tuple[int, int]]:
    """Bytes received and sent, by interface, in the network namespace of a process; nothing where that is gone."""
    try:
        lines = Path(f"/proc/{process}/net/dev").read_text().splitlines() if process else []
    except OSError:
        return {}
    return counters_in(lines)


def counters_in(lines: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Bytes received and sent, by interface, from the lines of a net/dev."""
    split = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): (int(fields[0]), int(fields[8])) for name, _, rest in split if (fields := rest.split())}
