"""The provider `openstack` with leases: what a reservation service holds comes before servers, and goes after them."""

from __future__ import annotations

from collections.abc import Sequence

from ...experiment.plan import Plan
from ...experiment.resources import Capabilities, Observed, Resource
from ..base import Progress, Slots
from . import budget, leases
from .blazar import Blazar
from .observation import snapshot
from .provider import OpenStackProvider
from .reserve import Reserve


class LeasedProvider(OpenStackProvider):
    """Nodes that are servers of a cloud, in a reservation where the settings ask for one."""

    async def complete(self, desired: Sequence[Resource], observed: Observed) -> Sequence[Resource]:
        return leases.planned(self._chosen.reserve, self._chosen.cloud or "site", desired, observed)

    async def estimate(self, desired: Sequence[Resource], plan: Plan) -> Sequence[str]:
        return await budget.estimate(self._reached(self._chosen), self._chosen, desired, plan)

    async def slots(self, desired: Sequence[Resource], days: int) -> Slots | None:
        return await leases.slots_of(Blazar(self._reached(self._chosen)), self._chosen.reserve, desired, days)

    async def capabilities(self, desired: Sequence[Resource]) -> Capabilities:
        able = await super().capabilities([item for item in desired if item.kind != "lease"])
        return Capabilities(able.in_place | leases.IN_PLACE, able.caveats)

    async def observe(self, environment: str) -> Observed:
        found, entry = await super().observe(environment), self.index.read(environment)
        return leases.held(found, await leases.read(self._cloud(environment), environment, entry.resources if entry else {}))

    async def create(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        if resources[0].kind == "lease":
            # written down first: of a request that is cut short, what it asked for is known
            self._remember(environment, resources)
            await self._leases(environment, progress).create(resources[0])
        else:
            await super().create(environment, resources, progress)

    async def update(self, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
        if resources[0].kind == "lease":
            before = self._entry(environment).resources[resources[0].key].spec
            await self._leases(environment, progress).update(resources[0], before)
            self._remember(environment, resources)
        else:
            await super().update(environment, resources, progress)

    async def delete(self, environment: str, resources: Sequence[tuple[str, str]], progress: Progress) -> None:
        if not resources or resources[0][0] != "lease":
            return await super().delete(environment, resources, progress)
        await self._leases(environment, progress).delete(f"lease {resources[0][1]}")
        if entry := self.index.read(environment):
            for key in resources:
                entry.resources.pop(key, None)
            self.index.write(entry)
        return None

    async def destroy(self, environment: str, progress: Progress) -> None:
        # servers, so that none is ended by its lease's end; with them gone, the record stays until the lease is gone, too
        entry, seen = self.index.read(environment), await snapshot(self._cloud(environment), environment)
        if entry is not None:
            await self._reach(environment).leave(entry, entry.nodes)
        await self._growth(environment, progress).delete_servers(seen.servers)
        if await Blazar(self._cloud(environment)).there():
            await self._leases(environment, progress).delete(f"lease of {environment}")
        await super().destroy(environment, progress)

    def _leases(self, environment: str, progress: Progress) -> leases.Leases:
        reserve = self._settings(environment).reserve or Reserve()
        return leases.Leases(self._cloud(environment), environment, reserve, progress)
