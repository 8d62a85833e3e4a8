"""The lease of an environment: asked for once, found again by its name, waited for, changed, ended.

A lease has no place for a spec: its name says whose it is, and what was asked for stands in the index, written down before the request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import PlanError, ProviderError
from ...experiment import selectors
from ...experiment.resources import Observed, ObservedResource, Resource
from ..base import Progress, Slots
from . import slots
from .blazar import Blazar, Lease, ScarceError, reservation_of
from .cloud import Cloud, UncertainError
from .names import name
from .properties import parse, to_blazar
from .reserve import FIRST_FREE, NOW, Reserve, counts, minute, reservations, said

IN_PLACE = frozenset({("lease", "duration"), ("lease", "counts")})

Kept = Mapping[tuple[str, str], Resource]

COMING = ("CREATING", "PENDING", "STARTING", "UPDATING")
"""States of a lease that becomes ACTIVE."""

INTERVAL, LONGEST_INTERVAL = 1.0, 5.0
"""Between two looks at a lease that is about to change, seconds; at one that starts later a look comes a minute before."""

NETWORKS = "Ask for others by their `properties`, or for another time: of networks there is no calendar."
"""What to do where a site has no network left."""

LATE = 20.0
"""How long a lease may take to show whose request was not answered, seconds."""


def planned(reserve: Reserve | None, site: str, desired: Sequence[Resource], observed: Observed) -> list[Resource]:
    """The resources with the lease that `reserve` asks for, nodes that say which of its reservations they are in, and networks of it.

    Raises PlanError where the file has no `lease:`, a selector picks nothing, a node would be in two reservations, or a network is none.
    """
    if reserve is None:
        return list(desired)
    experiment = next(item.spec for item in desired if item.kind == "environment")
    if not experiment.get("lease"):
        raise PlanError("settings.reserve: what is reserved ends", remedy="Write for how long, such as `lease: {duration: 2h}`.")
    nodes = {item.name: item.spec for item in desired if item.kind == "node"}
    references = [selectors.NodeRef(each, spec["group"], spec["index"], tuple(spec["roles"])) for each, spec in nodes.items()]
    wanted, owner = reservations(reserve), dict[str, int]()
    picked: dict[int, int] = {}
    for position, item in enumerate(wanted):
        if "on" not in item:
            continue
        chosen = selectors.resolve(item["on"], references, experiment.get("names") or [])
        if twice := [each for each in chosen if each in owner]:
            raise PlanError(f"settings.reserve: {twice[0]} is in two reservations", remedy="Have their `on` pick different nodes.")
        owner |= dict.fromkeys(chosen, position)
        picked[position] = len(chosen)
    there = [item.name for item in desired if item.kind == "network"]
    if unknown := [each for each in reserve.networks if each not in there]:
        message = f"settings.reserve.networks: there is no network {unknown[0]}"
        raise PlanError(message, remedy=f"Its networks are: {', '.join(there) or 'none'}.")
    existing = observed.resources.get(("lease", site))
    # a lease that stands is not moved: when it starts was decided when it was asked for
    start = existing.spec["start"] if existing and existing.spec and existing.state == "ready" else reserve.start
    spec = {
        "start": start,
        "duration": experiment["lease"]["duration"],
        "reservations": wanted,
        "counts": counts(reserve, picked),
    }

    def part(item: Resource) -> dict[str, Any]:
        if item.kind == "node" and item.name in owner:
            return {"lease": site, "reservation": owner[item.name]}
        return {"lease": site} if item.kind == "network" and item.name in reserve.networks else {}

    return [*(Resource(item.kind, item.name, {**item.spec, **part(item)}) for item in desired), Resource("lease", site, spec)]


def networks(environment: str, kept: Kept) -> frozenset[str]:
    """How the networks are called on the cloud that go with the lease, of what was asked for last."""
    asked = [part for item in kept.values() if item.kind == "lease" for part in item.spec["reservations"]]
    # of a lease that was refused, and is asked for no more, they may be there all the same, as others are
    own = {item.name for item in kept.values() if item.kind == "network" and "lease" not in item.spec}
    return frozenset(name(environment, part["network"]) for part in asked if part["type"] == "network" and part["network"] not in own)


async def read(cloud: Cloud, environment: str, kept: Kept) -> tuple[Lease, Resource] | None:
    """The lease of an environment, with what was asked for; None where there is none, or where none was asked for.

    kept: what was written down of the environment.
    """
    asked = next((item for item in kept.values() if item.kind == "lease"), None)
    found = await Blazar(cloud).leases(name(environment, "lease")) if asked else []
    return (found[0], asked) if found and asked else None


def held(observed: Observed, lease: tuple[Lease, Resource] | None) -> Observed:
    """An observation with the lease in it, and an environment that knows until when it is held."""
    if lease is None or observed.environment is None:
        return observed
    now, asked = lease
    coming = now.status == "ACTIVE" or now.status in COMING
    detail = f"{now.status}, {said(now.start)} to {said(now.end)} UTC"
    if now.status == "ERROR":
        detail = f"it is in ERROR: {now.trouble()}"
    item = ObservedResource("lease", asked.name, asked.spec, "ready" if coming else "stopped", detail)
    record = replace(observed.environment, held_until=now.end * 60.0)
    return Observed.collect(record, [*observed.resources.values(), item])


async def slots_of(cloud: Cloud, reserve: Reserve | None, desired: Sequence[Resource], days: int) -> Slots | None:
    """When a site could hold an experiment whose settings ask for a reservation there; None where they do not."""
    if reserve is None:
        return None
    spec = next(item.spec for item in planned(reserve, "", desired, Observed()) if item.kind == "lease")
    found = await slots.find(Blazar(cloud), spec, reserve.gap, days)
    return Slots(found.needs, found.there, tuple((first * 60.0, last * 60.0) for first, last in found.windows))


class Leases:
    """Work on the lease of one environment, by who holds its lock."""

    def __init__(self, cloud: Cloud, environment: str, reserve: Reserve, progress: Progress) -> None:
        self._cloud = cloud
        self._blazar = Blazar(cloud)
        self._environment = environment
        self._name = name(environment, "lease")
        self._reserve = reserve
        self._progress = progress

    async def create(self, resource: Resource) -> None:
        """Have the lease, whether an earlier request made it or this one does, and wait until it is ACTIVE. Raises ProviderError."""
        found = await self._blazar.leases(self._name)
        if not found:
            found = [await self._request(resource)]
        # two requests under way at once, of which one was given up for lost
        for double in found[1:]:
            await self._blazar.delete(str(resource), double.id)
        await self.active(resource)

    async def active(self, resource: Resource) -> Lease:
        """Wait until it is ACTIVE, and say in which state it is until then. Raises ProviderError as soon as it cannot become so."""
        interval, told = INTERVAL, ""
        while True:
            found = await self._blazar.leases(self._name)
            if not found:
                raise ProviderError("its lease is gone", resource=str(resource), remedy="`wardian up` asks for a new one.")
            lease, now = found[0], time.time()
            state = f"PENDING, starts {said(lease.start)} UTC" if lease.status == "PENDING" else lease.status
            if state != told:
                self._progress(resource.name, "ready" if state == "ACTIVE" else state)
                interval = INTERVAL
            told = state
            if lease.status == "ACTIVE":
                return lease
            if lease.status not in COMING:
                reason = lease.trouble() if lease.status == "ERROR" else f"it ended {said(lease.end)} UTC"
                remedy = "`wardian up` ends it and asks for a new one; the site's operators find it by its id."
                raise ProviderError(f"its lease {lease.id} is {lease.status}: {reason}", resource=str(resource), remedy=remedy)
            if now > lease.start * 60 + self._reserve.patience:
                remedy = "Give `reserve.patience` more, or run the command again."
                raise ProviderError(f"its lease {lease.id} is still {lease.status}", resource=str(resource), remedy=remedy)
            await asyncio.sleep(max(interval, lease.start * 60 - now - 60))
            interval = min(2 * interval, LONGEST_INTERVAL)

    async def started(self, resources: Sequence[Resource], kept: Kept) -> tuple[Resource, Lease] | None:
        """The lease that some of these are of, waited for as by `active`; None where they are of none."""
        site = next((item.spec["lease"] for item in resources if "lease" in item.spec), None)
        return None if site is None else (kept["lease", site], await self.active(kept["lease", site]))

    async def placing(self, nodes: Sequence[Resource], kept: Kept) -> dict[str, dict[str, Any]]:
        """{node: what the request for its server says besides}, of the nodes that are in a reservation, whose lease is waited for."""
        found = await self.started(nodes, kept)
        if found is None:
            return {}
        resource, lease = found
        held = reservation_of(lease, await self._wanted(resource))
        result: dict[str, dict[str, Any]] = {}
        for node in nodes:
            if (position := node.spec.get("reservation")) is None:
                continue
            one = held[position]
            if one["resource_type"] == "physical:host":
                result[node.name] = {"scheduler_hints": {"reservation": one["id"]}}
            else:
                # the reservation's own flavour, which can be had while it lasts
                group = {"scheduler_hints": {"group": one["server_group_id"]}} if one.get("server_group_id") else {}
                result[node.name] = {"flavor_id": one.get("flavor_id") or one["id"], **group}
        return result

    async def addresses(self, kept: Kept) -> frozenset[str]:
        """The tags of floating IPs that are the project's while the lease lasts; none where it has none."""
        asked = [part["type"] for item in kept.values() if item.kind == "lease" for part in item.spec["reservations"]]
        found = await self._blazar.leases(self._name) if "floating_ip" in asked else []
        held = [part for lease in found[:1] for part in lease.reservations if part["resource_type"] == "virtual:floatingip"]
        return frozenset(f"reservation:{part['id']}" for part in held)

    async def update(self, resource: Resource, before: Mapping[str, Any]) -> None:
        """Have it end at another time, or hold more hosts. A running lease gives no hosts back before its end."""
        found = await self._blazar.leases(self._name)
        if not found:
            raise ProviderError("its lease is gone", resource=str(resource), remedy="`wardian up` asks for a new one.")
        lease, spec = found[0], resource.spec
        changes: dict[str, Any] = {}
        end = lease.start + _minutes(spec["duration"])
        if end * 60 <= time.time():
            raise ProviderError("it would end in the past", resource=str(resource), remedy="`wardian down` ends it now.")
        if end != lease.end:
            changes["end_date"] = said(end)
        more = [new > old for new, old in zip(spec["counts"], before["counts"], strict=True)]
        fewer = lease.status != "ACTIVE" and spec["counts"] != before["counts"]
        if any(more) or fewer:
            held = reservation_of(lease, await self._wanted(Resource("lease", resource.name, {**spec, "counts": before["counts"]})))
            asked = await self._wanted(resource)
            changes["reservations"] = [
                {"id": one["id"], **{key: new[key] for key in ("min", "max", "amount") if key in new}}
                for one, new, larger in zip(held, asked, more, strict=True)
                if larger or fewer
            ]
        if not changes:
            return
        try:
            await self._blazar.update(str(resource), lease.id, changes)
        except ScarceError as error:
            error.remedy = await self._until(lease, end)
            raise
        self._progress(resource.name, f"until {said(end)} UTC")

    async def delete(self, about: str) -> None:
        """End it, and return once it is gone. Of one that starts or changes just now, Blazar takes no end: it is asked again."""
        refused: ProviderError | None = None
        deadline = time.time() + self._reserve.patience
        asked: set[str] = set()
        while found := await self._blazar.leases(self._name):
            if time.time() > deadline:
                raise refused or ProviderError(f"its lease is still {found[0].status}", resource=about)
            for lease in found:
                if lease.id in asked or lease.status == "DELETING":
                    continue
                try:
                    await self._blazar.delete(about, lease.id)
                    asked.add(lease.id)
                except UncertainError as error:
                    refused = error
            await asyncio.sleep(INTERVAL if asked else LONGEST_INTERVAL)

    async def end(self, about: str) -> None:
        """As `delete`, where it is not known that there ever was one, or whether the cloud has reservations at all."""
        if await self._blazar.there():
            await self.delete(about)

    async def _request(self, resource: Resource) -> Lease:
        spec, about = resource.spec, str(resource)
        # Blazar takes a start now as the minute that has begun
        now = int(time.time()) // 60
        start = spec["start"]
        if start == FIRST_FREE:
            start = await self._first_free(resource)
        elif start != NOW and minute(start) < now:
            remedy = "Write a later time, `now` or `first-free`."
            raise ProviderError(f"it should start {start} UTC, which is past", resource=about, remedy=remedy)
        first = now if start == NOW else minute(start)
        wanted = {
            "name": self._name,
            "start_date": start,
            "end_date": said(first + _minutes(spec["duration"])),
            "reservations": await self._wanted(resource),
            "events": [],
        }
        self._progress(resource.name, "asking for it")
        try:
            return await self._blazar.create(about, wanted)
        except ScarceError as error:
            error.remedy = NETWORKS if "network" in error.message.lower() else await self._next_slot(resource)
            raise
        except UncertainError as error:
            # done or not, nobody said: a lease of this name tells
            if late := await self._appeared():
                return late
            error.remedy = "It is not known whether it was made. Run the command again: it takes the lease if there is one."
            raise

    async def _appeared(self) -> Lease | None:
        deadline, interval = time.monotonic() + LATE, INTERVAL
        while True:
            try:
                if found := await self._blazar.leases(self._name):
                    return found[0]
            except UncertainError:
                pass
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(interval)
            interval = min(2 * interval, LONGEST_INTERVAL)

    async def _first_free(self, resource: Resource) -> str:
        found = await slots.find(self._blazar, resource.spec, self._reserve.gap)
        if not found.windows:
            raise ProviderError(
                f"no slot is free within {slots.DAYS} days", resource=str(resource), remedy=f"It needs {found.needs}; ask for less."
            )
        first = found.windows[0][0]
        return NOW if first * 60 <= time.time() else said(first)

    async def _next_slot(self, resource: Resource) -> str:
        try:
            found = await slots.find(self._blazar, resource.spec, self._reserve.gap)
        except ProviderError:
            return "Ask for less, for another time, or for other hosts; this site does not show who holds what."
        if not found.windows:
            return f"No slot is free within {slots.DAYS} days: it needs {found.needs}, and there are {found.there} such hosts."
        first = found.windows[0][0]
        if first * 60 <= time.time():
            return "Its hosts seem to be free now: they may have been taken and given back meanwhile. Run the command again."
        return f"The next free slot starts {said(first)} UTC; `start: first-free` takes it, `wardian slots` shows more."

    async def _until(self, lease: Lease, end: int) -> str:
        """How long a lease can be held, where others come after it."""
        try:
            held = await self._blazar.allocations()
        except ProviderError:
            return "Others hold its hosts afterwards."
        ours = [host for host, holders in held.items() if any(holder == lease.id for holder, _ in holders)]
        next_ = [when[0] for host in ours for holder, when in held[host] if holder != lease.id and lease.end <= when[0] < end]
        return f"Others hold its hosts from {said(min(next_))} UTC on." if next_ else "Others hold what it needs afterwards."

    async def _wanted(self, resource: Resource) -> list[dict[str, Any]]:
        """Its reservations as Blazar takes them, in the order of the spec."""
        result = []
        for item, count in zip(resource.spec["reservations"], resource.spec["counts"], strict=True):
            if item["type"] == "floating_ip":
                network = await self._network(resource, item["network"])
                result.append({"resource_type": "virtual:floatingip", "network_id": network, "amount": count})
                continue
            properties = to_blazar(parse(item["properties"]))
            if item["type"] == "network":
                called = {"network_name": name(self._environment, item["network"]), "network_description": item["description"]}
                result.append({"resource_type": "network", **called, "network_properties": "", "resource_properties": properties})
                continue
            if item["type"] == "host":
                hosts = {"resource_type": "physical:host", "min": count, "max": count, "hypervisor_properties": ""}
                result.append({**hosts, "resource_properties": properties})
                continue
            size = {"vcpus": item["cpus"], "memory_mb": math.ceil(item["memory"] / 2**20), "disk_gb": math.ceil(item["disk"] / 2**30)}
            apart = {"affinity": False if item["apart"] else None}
            result.append({"resource_type": "virtual:instance", "amount": count, **size, **apart, "resource_properties": properties})
        return result

    async def _network(self, resource: Resource, wanted: str) -> str:
        found = await self._cloud.ask(str(resource), lambda connection: connection.network.find_network(wanted))
        if found is None:
            outside = await self._cloud.all(str(resource), lambda connection: connection.network.networks(is_router_external=True))
            there = ", ".join(item.name for item in outside) or "none"
            raise ProviderError(f"there is no network {wanted}", resource=str(resource), remedy=f"Networks outside are: {there}.")
        return str(found.id)


def _minutes(duration: float) -> int:
    return math.ceil(duration / 60)
