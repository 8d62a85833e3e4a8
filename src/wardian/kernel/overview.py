"""What there is to see: which nodes, where cells run and how they fare, for pages that ask for it and for every change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .cells.cell_queue import CellQueue
from .cells.earlier import Earlier
from .cells.told import sticky_as_told
from .front.clients import Clients
from .front.sockets import Client
from .places.home import HomePlace
from .places.reach import Reach
from .wire import Message

Written = Callable[[], tuple[list[dict[str, Any]], list[str]]]
"""Reads the nodes that the experiment file asks for, as pages are told nodes, and the names of its groups and roles."""


class Overview:
    """Answers `wardian_watch_request`, and tells which nodes there are when that changes. Cells tell of themselves."""

    def __init__(
        self, clients: Clients, home: HomePlace, reach: Reach, cells: CellQueue, earlier: Earlier, written: Written | None
    ) -> None:
        """written: None where there is no file."""
        self._clients = clients
        self._durations: dict[str, float] = {}
        self._written = written
        self._wanted: tuple[list[dict[str, Any]], list[str]] = [], []
        self._home = home
        self._reach = reach
        self._cells = cells
        self._earlier = earlier
        self._told: dict[str, Any] | None = None
        reach.on_read = self._nodes_read
        reach.on_stale = self._look

    def watch(self, client: Client, request: Message) -> None:
        """Tell a page what is known, and look what there is by now; if that is otherwise, it is told like every later change."""
        sequence = self._clients.watching.begin()
        self._told = self._environment()
        told = {
            "environment": self._told,
            "sticky": sticky_as_told(self._cells.sticky),
            "cells": [*self._earlier.unfinished(), *self._cells.unfinished()],
            "durations": self._durations,
        }
        self._clients.answer(client, request, {"status": "ok", "sequence": sequence, **told})
        self._look()

    def _look(self) -> None:
        if self._clients.watching.active:
            self._reach.spawn(self._look_now())

    async def _look_now(self) -> None:
        await self._reach.look()
        if self._reach.lacking is not None and self._written is not None:
            # reading the file loads a good deal
            self._wanted = await asyncio.to_thread(self._written)
            self._nodes_read()
        durations = await self._cells.recorder.durations(self._cells.notebook)
        if durations != self._durations:
            self._durations = durations
            self._clients.watching.changed("durations", durations)

    def _nodes_read(self) -> None:
        if self._clients.watching.active and (environment := self._environment()) != self._told:
            self._told = environment
            self._clients.watching.changed("environment", environment)

    def _environment(self) -> dict[str, Any] | None:
        """Nodes and languages; None before anybody has looked."""
        known, lacking = self._reach.known, self._reach.lacking
        if known is None and lacking is None:
            return None
        if known is None:
            nodes, names = self._wanted
        else:
            names = list(known.names)
            nodes = [
                {"name": name, "group": node.group, "index": node.index, "roles": node.roles, "state": node.state, "detail": node.detail}
                for name, node in known.nodes.items()
            ]
        languages = {"python": (self._home.info or {}).get("language_info", {}), **self._reach.languages()}
        told: dict[str, Any] = {"nodes": nodes, "names": names, "languages": languages}
        if known is not None and known.lease is not None:
            told["lease"] = known.lease
        if lacking is not None:
            told["lacking"] = {"message": lacking.message, "remedy": lacking.remedy}
        return told
