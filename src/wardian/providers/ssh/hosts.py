"""The same on many hosts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ..concurrency import all_of
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

    return await all_of(one(item) for item in items)
