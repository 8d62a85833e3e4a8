"""The player: has the kernel's queueing disciplines follow the traces of an environment's links.

    python -m wardian.providers.local.player CONFIG

One process serves a whole environment: it sets token buckets, and netem where the kernel has it. What the relay does of a trace it
does itself. The configuration, a JSON file, is what `config` gives. SIGHUP: read it again; start the process with that blocked. It ends
when the file is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from . import netlink, qdiscs, shaping, traces
from .netlink import Netlink, Request
from .relay import enter_netns, go_first
from .shaping import Segment

LONGEST_WAIT = 60.0
"""Seconds after which it looks whether its configuration is still there, when nothing changes."""
ENODEV, EINVAL, ENOENT = 19, 22, 2


def config(segments: Iterable[Segment], *, netns: str) -> dict[str, Any]:
    """What the player of these segments must do; no segments when it is not needed. netns: path of the namespace they stand in."""
    netem = shaping.netem_available()
    played = {"rate", *(qdiscs.IMPAIRMENTS if netem else ())}
    wanted = [segment for segment in segments if any(traces.columns(shape) & played for shape in (segment.there, segment.back))]
    return {"netns": netns, "netem": netem, "segments": [asdict(segment) for segment in wanted]}


class Player:
    """Sets what changes when it changes, until its configuration is gone."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.segments: list[Segment] = []
        self.netem = False
        self.set: dict[str, tuple[Any, ...]] = {}

    def run(self) -> None:
        """Play."""
        settings = self._read()
        enter_netns(settings["netns"])
        with Netlink() as socket:
            later: dict[str, Any] | None = settings
            while later is not None:
                self._take(later)
                later = self._play(socket)

    def _read(self) -> dict[str, Any]:
        with open(self.path, encoding="utf-8") as file:
            settings: dict[str, Any] = json.load(file)
        return settings

    def _take(self, settings: dict[str, Any]) -> None:
        self.netem = settings["netem"]
        self.segments = [Segment(**segment) for segment in settings["segments"]]
        self.set = {}

    def _play(self, socket: Netlink) -> dict[str, Any] | None:
        """Until there is another configuration, which it gives, or none."""
        while True:
            now = time.time()
            self._send(socket, [request for segment in self.segments for request in self._changes(socket, segment, now)])
            wait = min((self._next(segment, now) for segment in self.segments), default=LONGEST_WAIT)
            heard = signal.sigtimedwait([signal.SIGHUP], min(max(now + wait - time.time(), 0.0), LONGEST_WAIT))
            if heard or not os.path.exists(self.path):
                with suppress(OSError, ValueError):
                    return self._read()
                if not os.path.exists(self.path):
                    return None

    def _next(self, segment: Segment, now: float) -> float:
        return min(traces.next_change(shape, now - segment.began) for shape in (segment.there, segment.back))

    def _changes(self, socket: Netlink, segment: Segment, now: float) -> Iterator[Request]:
        near = socket.link(segment.near)
        if near is None:
            return
        made = shaping.layout(shaping.current(segment, now), near.mtu, netem=self.netem)
        for name, wanted in made.qdiscs.items():
            inner = made.inner.get(name)
            link = near if name == segment.near else socket.link(name)
            if link is None or self.set.get(name) == (link.index, wanted, inner):
                continue
            self.set[name] = link.index, wanted, inner
            yield netlink.qdisc(link.index, *wanted, handle=qdiscs.BUCKET)
            if inner is not None:
                yield shaping.inner_request(link.index, inner)

    def _send(self, socket: Netlink, requests: Sequence[Request]) -> None:
        # a segment may be made anew just now; it is made as its trace says, and set at the next change
        socket.send(requests, ignore=(ENODEV, EINVAL, ENOENT))


def main() -> None:
    """The command."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    go_first()
    Player(sys.argv[1]).run()


if __name__ == "__main__":
    main()
