"""When an experiment could run, on each of its sites that reserve things for a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import WardianError
from ..experiment.resources import Observed
from ..experiment.topology import expand
from ..providers.base import Slots
from . import sources

if TYPE_CHECKING:
    from .environment import Environment


@dataclass(frozen=True, slots=True)
class SiteSlots:
    """What one site says. slots is None where nothing is reserved there, and where `error` says why that is not known."""

    site: str
    slots: Slots | None
    error: str = ""

    @property
    def first(self) -> float | None:
        """The earliest start, seconds since the epoch."""
        return self.slots.windows[0][0] if self.slots and self.slots.windows else None


async def of_sites(targets: dict[str, Environment], days: int) -> list[SiteSlots]:
    """What each site says, asked all at once; those where it could run the earliest come first."""
    found = await asyncio.gather(*(_of_site(site, target, days) for site, target in targets.items()))
    return sorted(found, key=lambda item: (item.first is None, item.first or 0.0))


async def _of_site(site: str, target: Environment, days: int) -> SiteSlots:
    try:
        desired = target.desired()
        experiment = desired.experiment
        tables = sources.read_tables(experiment, target.folder, str(target.file))
        resources = [desired.environment(Observed()), *expand(experiment, Observed(), tables=tables)]
        return SiteSlots(site, await desired.provider.slots(resources, days))
    except WardianError as error:
        return SiteSlots(site, None, str(error))
