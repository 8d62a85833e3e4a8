"""When a site's hosts could hold a lease, from what its reservation service tells of them and of who holds them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ProviderError
from .blazar import Blazar, HiddenError
from .calendar import Need, Period, windows
from .properties import matching, parse

DAYS = 30
"""How far ahead slots are looked for unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Found:
    """needs: in words. there: hosts that are meant at all. windows: first to last minute at which the lease may start."""

    needs: str
    there: int
    windows: list[Period]


async def find(blazar: Blazar, spec: Mapping[str, Any], gap: float = 0.0, days: int = DAYS) -> Found:
    """When the lease of this spec could start. Raises ProviderError, also where the site does not show its hosts.

    Room for servers counts only hosts that nobody holds anything of: how much others hold of a host is not told.
    """
    try:
        hosts, held = await blazar.hosts(), await blazar.allocations()
    except HiddenError as error:
        raise ProviderError(
            "this site does not show its hosts to users, so that no calendar can be made",
            remedy="Give a time, or `now`; or ask the site to allow blazar:oshosts:get and blazar:oshosts:get_allocations.",
        ) from error
    needs = wanted(spec["reservations"], spec["counts"], hosts)
    rest = math.ceil(gap / 60)
    periods = {host: [(start - rest, end + rest) for _, (start, end) in holders] for host, holders in held.items()}
    now = int(time.time()) // 60
    there = len(frozenset().union(*(need.hosts for need in needs)))
    within = (now, now + days * 24 * 60)
    untold = any(item["type"] == "network" for item in spec["reservations"])
    said = words(spec) + "; of networks there is no calendar" * untold
    return Found(said, there, windows(needs, periods, math.ceil(spec["duration"] / 60), within))


def wanted(reservations: Sequence[Mapping[str, Any]], counts: Sequence[int], hosts: Sequence[Mapping[str, Any]]) -> list[Need]:
    """The hosts that reservations take. Floating IPs and networks take none."""
    result = []
    for item, count in zip(reservations, counts, strict=True):
        if item["type"] in ("floating_ip", "network"):
            continue
        meant = [host for host in hosts if matching(parse(item["properties"]), host)]
        if item["type"] == "instance":
            fits = {str(host["id"]): room(host, item) for host in meant}
            fits = {host: many for host, many in fits.items() if many}
            if not item["apart"] and fits:
                count = math.ceil(count / min(fits.values()))
            result.append(Need(count, frozenset(fits)))
        else:
            result.append(Need(count, frozenset(str(host["id"]) for host in meant)))
    return result


def room(host: Mapping[str, Any], item: Mapping[str, Any]) -> int:
    """How many servers of a reservation's size a host takes."""
    asked = {"vcpus": item["cpus"], "memory_mb": math.ceil(item["memory"] / 2**20), "local_gb": math.ceil(item["disk"] / 2**30)}
    return min(int(host[key]) // max(1, int(size)) for key, size in asked.items())


def words(spec: Mapping[str, Any]) -> str:
    """What a lease holds: `2 hosts (node_type == compute), 1 address of public, 1 network (stitch_provider == fabric)`."""
    parts = []
    for item, count in zip(spec["reservations"], spec["counts"], strict=True):
        if item["type"] == "floating_ip":
            parts.append(f"{count} address{'' if count == 1 else 'es'} of {item['network']}")
            continue
        what = item["type"]
        if what == "instance":
            what = f"server of {item['cpus']} cpus and {item['memory'] / 2**30:g} GiB"
        plural = what.replace("host", "hosts").replace("server", "servers") if count != 1 else what
        parts.append(f"{count} {plural}{' (' + item['properties'] + ')' if item['properties'] else ''}")
    return ", ".join(parts) or "nothing"
