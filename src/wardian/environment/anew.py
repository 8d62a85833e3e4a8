"""Nodes that were killed for a time are made anew: as they were, whatever the experiment file says by now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ..experiment.plan import reconcile
from ..experiment.resources import Observed, Resource
from ..journal import Journal
from ..providers import registry
from ..providers.base import Provider
from . import services
from .apply import Event, apply


async def make_anew(provider: Provider, environment: str, nodes: Collection[str], journal: Journal) -> None:
    """Make those of these nodes anew that do not run, with what hangs on them; nothing else that is amiss is touched.

    Raises BusyError while another command works on the environment, and the first error of what has to be done.
    """
    record = (await provider.observe(environment)).environment
    if record is None:
        return
    # who finds an environment by its record alone holds a provider without its settings, and what is made needs them
    with registry.as_grown(environment):
        provider = registry.make(provider.name, dict(record.spec.get("settings") or {}))
    async with provider.lock(record.file, record.instance, "making killed nodes anew"):
        found = (await services.observe(provider, environment)).resources
        dead = {name for name in nodes if ("node", name) in found and found["node", name].state != "ready"}
        if not dead:
            return
        seen = {key: item if key in {("node", name) for name in dead} else replace(item, state="ready") for key, item in found.items()}
        resources = [Resource(item.kind, item.name, item.spec) for item in seen.values()]
        plan = reconcile(resources, Observed(record, seen), await provider.capabilities(resources))
        await apply(plan, provider, environment, record.instance, Path(record.file).parent, journal, _nobody)


def _nobody(event: Event) -> None:
    """Nobody is told: the journal has it."""
