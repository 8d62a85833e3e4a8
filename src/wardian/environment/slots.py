"""When an experiment could run, on each of its sites that reserve things for a time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import WardianError
from ..experiment.resources import Observed, Resource
from ..experiment.topology import expand
from ..providers.base import Provider, Slots
from . import sources

if TYPE_CHECKING:
    from .environment import Environment


Windows = tuple[tuple[float, float], ...]

TOGETHER = "all sites"
"""In place of a site's name: what is so of all at once."""


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


async def of_parts(target: Environment, sites: Sequence[str], days: int) -> list[SiteSlots]:
    """What each of these sites says of its part of an experiment; then, where several reserve something, when all of it could run."""
    try:
        parts = _parts(target)
    except WardianError as error:
        return [SiteSlots(site, None, str(error)) for site in sites]
    found = await asyncio.gather(*(_of_part(site, *parts[site], days) for site in sites))
    limited = [item.slots for item in found if item.slots]
    if len(limited) > 1 and not any(item.error for item in found):
        windows = functools.reduce(common, (slots.windows for slots in limited))
        found.append(SiteSlots(TOGETHER, Slots("all of it at one time", sum(slots.there for slots in limited), windows)))
    return found


def common(first: Windows, second: Windows) -> Windows:
    """What two lists of windows share."""
    pairs = ((max(a, c), min(b, d)) for a, b in first for c, d in second)
    return tuple(sorted((begin, end) for begin, end in pairs if begin <= end))


def _parts(target: Environment) -> Mapping[str, tuple[Provider, Sequence[Resource]]]:
    desired = target.desired()
    tables = sources.read_tables(desired.experiment, target.folder, str(target.file))
    return desired.provider.parts([desired.environment(Observed()), *expand(desired.experiment, Observed(), tables=tables)])


async def _of_part(site: str, provider: Provider, resources: Sequence[Resource], days: int) -> SiteSlots:
    try:
        return SiteSlots(site, await provider.slots(resources, days))
    except WardianError as error:
        return SiteSlots(site, None, str(error))


async def _of_site(site: str, target: Environment, days: int) -> SiteSlots:
    try:
        return await _of_part(site, *_parts(target)[""], days)
    except WardianError as error:
        return SiteSlots(site, None, str(error))
