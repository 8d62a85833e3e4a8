"""One thread around one epoll: descriptors, timers, ends of child processes."""

from __future__ import annotations

import collections
import contextlib
import heapq
import os
import select
import signal
import time

from .files import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Timer:
    """Something to be called later."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Don't call it."""
        self.callback = None


class Loop:
    """Calls back for readable and writable descriptors, timers, and children that ended."""

    def __init__(self) -> None:
        self.before_wait: Callable[[], None] = lambda: None
        self.running = True
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._soon: collections.deque[Callable[[], None]] = collections.deque()
        self._children: dict[int, Callable[[int], None]] = {}
        self._adopted: dict[int, Callable[[int], None]] = {}
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._wake = wake_read
        self.watch(wake_read, self._reap)

    def watch(self, fd: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call back with the events of a descriptor; a second call changes what is watched."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching a descriptor, if it was watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back after some time."""
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next round."""
        self._soon.append(callback)

    def child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the exit code of a child (minus the signal's number if one ended it)."""
        self._children[pid] = callback

    def adopt(self, pid: int, callback: Callable[[int], None]) -> None:
        """Likewise of a process that is not our child: somebody will call `ended`."""
        self._adopted[pid] = callback

    def ended(self, pid: int, code: int) -> None:
        """An adopted process has ended."""
        callback = self._adopted.pop(pid, None)
        if callback:
            self._call(callback, code)

    def has_child(self, pid: int) -> bool:
        """Whether a child's end is still to be noticed."""
        return pid in self._children or pid in self._adopted

    def run(self) -> None:
        """Until `running` is False."""
        while self.running:
            self._call(self.before_wait)
            for fd, events in self._epoll.poll(self._timeout()):
                handler = self._handlers.get(fd)
                if handler:
                    self._call(handler, events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                if timer.callback:
                    self._call(timer.callback)
            for _ in range(len(self._soon)):
                self._call(self._soon.popleft())

    def _timeout(self) -> float:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._soon:
            return 0.0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1.0

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        # the kernels of a node live and die with this process: a fault in handling one event must not end the others
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001
            import traceback

            log(traceback.format_exc())

    def _reap(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        for pid in list(self._children):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, status = pid, 0
            if found:
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
                self._call(self._children.pop(pid), code)
