"""Looking at what exists for somebody who waits, and decides nothing by it: a machine that does not answer for some seconds is silent.

Who decides by what he sees, as `up` does, waits until the machine's connection is given up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SECONDS = 5
"""How long a machine may take to answer, and to be connected to."""
UNNOTICED = 1.0
"""Seconds of waiting of which nothing is said."""

_current: ContextVar[Look | None] = ContextVar("_current", default=None)


class Look:
    """One look. silent: machines that did not answer, with the error of each; they are not asked again."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """tell: is told in words which machines are waited for, once that takes a while."""
        self.silent: dict[str, Exception] = {}
        self._tell = tell
        self._asked: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def heed(self, machine: str) -> None:
        """Raise the error of a machine that is known to be silent."""
        if machine in self.silent:
            raise self.silent[machine]

    def hush(self) -> None:
        """Tell nothing from now on: somebody is asked something."""
        self._tell = lambda words: None

    @contextmanager
    def waiting(self, machine: str) -> Iterator[None]:
        """A machine is asked something. Raises as `heed`."""
        self.heed(machine)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(UNNOTICED, self._say)
        self._asked[machine] += 1
        try:
            yield
        finally:
            self._asked[machine] -= 1

    def _say(self) -> None:
        self._timer = None
        if machines := sorted(+self._asked):
            self._tell(f"waiting for {', '.join(machines)}")


@contextmanager
def look(tell: Callable[[str], None]) -> Iterator[None]:
    """What is observed within is looked at. tell: as for `Look`."""
    token = _current.set(Look(tell))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Look | None:
    """The look that is being taken, if any."""
    return _current.get()


def limit() -> asyncio.Timeout:
    """For what waits for a machine: while somebody looks, TimeoutError after a while."""
    return asyncio.timeout(SECONDS if current() else None)
