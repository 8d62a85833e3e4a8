"""The same on many hosts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from .refusals import HostError

T = TypeVar("T")
U = TypeVar("U")

CONCURRENCY = 48


async def each(items: Iterable[T], work: Callable[[T], Awaitable[U]]) -> list[U | HostError]:
    """What `work` gives for each, or the HostError that it raises; any other error is raised once all have ended."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(item: T) -> U | HostError:
        async with gate:
            try:
                return await work(item)
            except HostError as error:
                return error

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    results: list[U | HostError] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, HostError):
            raise outcome
        results.append(outcome)
    return results
