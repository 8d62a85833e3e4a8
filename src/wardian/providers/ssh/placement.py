"""Finding a host for each node: those of the inventory that fit, answer, and are free."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ...errors import PlanError
from . import marker, placing
from .adoption import is_ours
from .hosts import each
from .index import Entry
from .inventory import Host, hosts
from .marker import Facts, HostTakenError
from .refusals import HostError
from .settings import SshSettings

T = TypeVar("T")
Specs = Mapping[str, Mapping[str, Any]]


class LostError(PlanError):
    """The environment that is asked for is on the hosts, and not in the index."""


class Placement:
    """Places the nodes of one environment.

    asked: its file and instance. entry: what is known of it, if it exists.
    left: {environment: hosts with something of it that is to be removed before they are taken}.
    """

    def __init__(self, settings: SshSettings, asked: tuple[str, str], entry: Entry | None, left: Mapping[str, list[Host]]) -> None:
        self._settings = settings
        self._asked = asked
        self._folder = Path(asked[0]).parent
        self._entry = entry
        self._left = left

    async def foresee(self, nodes: Specs) -> dict[str, tuple[Host, Facts]]:
        """{node: host that it has, or would be given, and what that says}; nothing is changed. Raises PlanError, HostError as `settle`."""
        kept = {name: placed.host for name, placed in (self._entry.nodes if self._entry else {}).items() if name in nodes}
        outcomes = zip(kept.items(), await each(kept.values(), marker.facts), strict=True)
        found = {name: (host, outcome) for (name, host), outcome in outcomes if isinstance(outcome, Facts)}
        missing = {name: spec for name, spec in nodes.items() if name not in found}
        own = {self._entry.record.id} if self._entry else set()

        async def look(node: str, host: Host) -> tuple[Host, Facts]:
            if not self._settings.shared:
                left = {id_ for id_, hosts in self._left.items() if any(item.name == host.name for item in hosts)}
                await self._require_free(host, own | left)
            return host, await marker.facts(host)

        return found | await self.settle(missing, {kept[name].name for name in found}, look)

    async def _require_free(self, host: Host, ours: set[str]) -> None:
        """Raises HostTakenError where an environment other than `ours` is, and LostError where it is the very one that is asked for."""
        others = [item for item in await marker.scan(host) if item.record is None or item.record.id not in ours]
        for item in others:
            if item.record and is_ours(item.record) and (item.record.file, item.record.instance) == self._asked:
                raise LostError(
                    f"this environment is up already ({item.record.id}), and this machine had lost sight of it",
                    remedy="it is known again now: run the command once more",
                )
        if others:
            raise marker.taken(host, others[0])

    async def settle(self, nodes: Specs, taken: set[str], take: Callable[[str, Host], Awaitable[T]]) -> dict[str, T]:
        """Give each node a host, and {node: what `take` gave for it}.

        taken: names of hosts that other nodes of the environment have. take: takes a host for a node.
        Hosts that do not answer, or that another environment has, are passed over. Raises PlanError when too few are left, and the
        HostError of one that refuses us: somebody has to look at that.
        """
        if not nodes:
            return {}
        listed = hosts(self._settings, self._folder)
        if not listed:
            raise PlanError("no hosts are listed", remedy="list machines under `settings.hosts`, or name an `inventory:`")
        by_name = {host.name: host for host in listed}
        wanted = {wish.node: wish for wish in placing.wishes(nodes, listed, self._settings.place)}
        unusable: dict[str, str] = {}
        taken, result = set(taken), {}
        while wanted:
            places = placing.match(list(wanted.values()), taken, unusable)
            pairs = [(node, by_name[name]) for node, name in places.items()]
            for (node, host), outcome in zip(pairs, await each(pairs, lambda pair: take(*pair)), strict=True):
                if not isinstance(outcome, HostError):
                    result[node] = outcome
                    taken.add(host.name)
                    del wanted[node]
                elif outcome.kind == "denied" and not isinstance(outcome, HostTakenError):
                    raise outcome
                else:
                    unusable[host.name] = outcome.bare
        return result
