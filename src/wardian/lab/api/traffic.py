"""What links carry and who talks to whom, from counts of bytes that a provider keeps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ...providers.base import Provider

SHORTEST = 1.0
"""Seconds that traffic is averaged over, at least."""

MOST_PAIRS = 100
"""Of nodes that talk to each other, those with the most traffic that are told of."""


class Traffic:
    """The traffic of one environment, between one measurement and the next."""

    def __init__(self) -> None:
        self._counted: tuple[float, Mapping[str, Mapping[str, int]], Mapping[tuple[str, str], int]] | None = None
        self._told: dict[str, Any] = {}
        self._counting = False

    def to_json(self) -> dict[str, Any]:
        """`traffic`, by link and way, and `talk`, by sender and receiver, both in bits a second; only what is not nothing."""
        return self._told

    async def measure(self, provider: Provider, identity: str) -> None:
        """Count again; there is something to tell from the second time on."""
        now, before = time.monotonic(), self._counted
        if before and now - before[0] < SHORTEST:
            return
        # known before it is so: whoever is ended amid the first count ends that, too
        self._counting = True
        carried, matrix = await provider.traffic(identity), await provider.traffic_matrix(identity)
        self._counted = now, carried, matrix
        if before is None:
            return
        then, links, pairs = before
        rates = {
            link: {way: _rate(count, links[link].get(way, count), now - then) for way, count in ways.items()}
            for link, ways in carried.items()
            if link in links
        }
        # a pair that was not there has sent all of it since
        talking = {pair: rate for pair, count in matrix.items() if (rate := _rate(count, pairs.get(pair, 0), now - then))}
        talk: dict[str, dict[str, int]] = {}
        for sender, receiver in sorted(talking, key=lambda pair: talking[pair], reverse=True)[:MOST_PAIRS]:
            talk.setdefault(sender, {})[receiver] = talking[sender, receiver]
        told = {"traffic": {link: ways for link, ways in rates.items() if any(ways.values())}, "talk": talk}
        self._told = {key: value for key, value in told.items() if value}

    async def end(self, provider: Provider, identity: str) -> None:
        """Nobody wants to know any more."""
        if self._counting:
            self.forget()
            await provider.traffic_matrix(identity, counting=False)

    def forget(self) -> None:
        """What was counted is no more."""
        self._counted, self._told, self._counting = None, {}, False


def _rate(count: int, before: int, seconds: float) -> int:
    """Bits a second of bytes that were counted; of none where the count began anew."""
    return round(8 * max(0, count - before) / seconds)
