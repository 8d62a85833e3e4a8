"""What the user of this process holds; as a program, the hands of root among a user's things (`admin.py`).

`python -m wardian.environment.holdings list | end ID | extend ID DURATION` prints {"done": what} or {"failed": why}, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import NotUpError, WardianError
from ..experiment.resources import EnvironmentRecord
from ..providers.base import Provider
from . import keeper, live


async def held() -> list[dict[str, Any]]:
    """Each environment with its nodes, what they use of memory now in bytes, and when its lease ends."""
    return list(await asyncio.gather(*(_holding(record, provider) for record, provider in await live.environments())))


async def _holding(record: EnvironmentRecord, provider: Provider) -> dict[str, Any]:
    observed, usage = await asyncio.gather(provider.glance(record.id), provider.usage(record.id))
    return {
        "id": record.id,
        "instance": record.instance,
        "provider": record.provider,
        "file": record.file,
        "created": record.created,
        "nodes": len(nodes := list(observed.of("node"))),
        "parts": sorted({provider.of_node(record.id, node.name)[1] for node in nodes}),
        "memory": sum(node.memory for node in usage.values()),
        "lease_end": keeper.lease_end(record),
    }


async def _do(action: str, identity: str = "", *arguments: str) -> Any:
    if action == "list":
        return await held()
    from .environment import Environment, open_journal, tear_down

    found = [pair for pair in await live.environments() if pair[0].id == identity]
    if not found:
        raise NotUpError(f"there is no environment {identity!r}")
    record, provider = found[0]
    if action == "extend":
        environment = Environment(record.file, instance=record.instance)
        try:
            return await environment.extend_lease(arguments[0], bounded=False)
        finally:
            environment.close()
    journal = open_journal(Path(record.file))
    try:
        async with provider.lock(record.file, record.instance, "the end that root put to it"):
            await tear_down(record, provider, journal, force=True, gather="collect" in arguments)
    finally:
        journal.close()
    return None


def main() -> None:
    """Do one thing, and say how it went."""
    try:
        answer = {"done": asyncio.run(_do(*sys.argv[1:]))}
    except (WardianError, OSError) as error:
        answer = {"failed": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
