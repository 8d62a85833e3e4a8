"""What containers use, as the Engine tells it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from ...errors import ProviderError
from ..base import Usage
from ..concurrency import all_of
from .engine import Engine
from .observation import Container


async def of(engine: Engine, containers: Iterable[Container]) -> dict[str, Usage]:
    """What those that run use, by node."""
    found: dict[str, Usage] = {}

    async def ask(container: Container) -> None:
        # it may end between two looks
        with suppress(ProviderError):
            stats = await engine.get(f"/containers/{container.id}/stats", **{"stream": False, "one-shot": True})
            if stats is None:
                # Podman, where it has not measured it
                return
            memory = stats["memory_stats"]
            # what it only caches could be had back at once
            cached = memory.get("stats", {}).get("inactive_file", memory.get("stats", {}).get("total_inactive_file", 0))
            seconds = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
            found[container.node] = Usage(seconds, max(0, memory.get("usage", 0) - cached))

    await all_of(ask(container) for container in containers if container.runs)
    return found
