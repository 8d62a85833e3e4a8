"""A thread with an event loop of its own, for callers that have none, or whose loop must not be held up."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """One thread with one event loop, started at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there and wait for it; Ctrl-C cancels it and waits until it has let go."""
        future = self.start(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work` there."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there and wait for it without holding up our own loop; cancelled, it is cancelled there."""
        return await asyncio.wrap_future(self.start(work))

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # a forked child has the loop but not the thread that runs it
            if self._loop is None or self._process != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._process = os.getpid()
                threading.Thread(target=self._loop.run_forever, name="wardian", daemon=True).start()
                atexit.register(self._loop.call_soon_threadsafe, self._loop.stop)
            return self._loop


shared = Portal()
"""That of the synchronous face, and of whatever has to wait inside a running loop."""
