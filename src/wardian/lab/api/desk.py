"""What one server holds open: environments with their journals, and the loop that everything about them runs on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...environment import view
from ...environment.environment import FOLDER, Environment, lost
from ...environment.live import environments
from ...environment.view import View, without_null
from ...errors import AgentError, NodeError, SelectorError
from ...experiment.resources import EnvironmentRecord
from ...journal import Journal, LogEntry
from ...nodes.link import AgentLink
from ...nodes.run import run
from ...portal import Portal
from ...providers.base import Channel
from .watch import Reader, Watch

LONGEST_SOURCE = 4000
"""Of a cell, in the timeline, characters."""

_AGENT_LOG = (
    'for folder in "$WARDIAN_RUN_DIR" /run/wardian "$XDG_RUNTIME_DIR/wardian" "/tmp/wardian-$(id -u)"; do '
    '[ -r "$folder/agent.log" ] && exec tail -n "$1" "$folder/agent.log"; done; :'
)


class Desk:
    """One a server. Its coroutines run on its portal's loop."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.portal = Portal()
        self._environments: dict[tuple[Path, str], Environment] = {}
        self._watches: dict[tuple[Path, str], Watch] = {}

    def environment(self, file: Path, instance: str) -> Environment:
        """The environment of a file, whose journal stays open."""
        return self._environments.setdefault((file, instance), Environment(file, instance=instance))

    async def records(self) -> list[EnvironmentRecord]:
        """The environments that exist whose experiment is below the root."""
        return [record for record, _ in await environments() if Path(record.file).is_relative_to(self.root)]

    async def look(self, file: Path, instance: str) -> View:
        """An environment as it is now."""
        return await view.look(self.environment(file, instance))

    async def plan(
        self,
        file: Path,
        instance: str,
        *,
        strict: bool = False,
        parameters: Mapping[str, object] | None = None,
        provider: str | None = None,
    ) -> dict[str, Any]:
        """What `up` would do."""
        environment = Environment(file, instance=instance, parameters=parameters, provider=provider)
        plan, observed = await environment.planned(strict=strict)
        return plan_json(plan, lost(plan, observed))

    async def node(self, file: Path, instance: str, name: str) -> dict[str, Any]:
        """One node, with what its agent knows."""
        seen = await self.look(file, instance)
        nodes = seen.nodes()
        if name not in nodes:
            raise SelectorError(f"there is no node {name!r}", remedy=f"there are {', '.join(list(nodes)[:20]) or 'none'}")
        whole: dict[str, Any] = {"name": name, "node": nodes[name], "reachable": False}
        if nodes[name]["state"] == "ready" and nodes[name].get("detail") != "paused":
            try:
                whole |= await _ask(await self._link(file, instance, name))
            except NodeError as error:
                whole["trouble"] = str(error)
        else:
            whole["trouble"] = nodes[name].get("detail") or nodes[name]["state"]
        return without_null(whole)

    async def log(self, file: Path, instance: str, node: str, service: str | None, lines: int) -> str:
        """The last lines of a service's log, or of the agent's."""
        if service is None:
            channel = await self.channel(file, instance, node)
            return (await run(channel, node, ["sh", "-c", _AGENT_LOG, "sh", str(lines)], timeout=10)).stdout
        link = await self._link(file, instance, node)
        try:
            return str((await link.request("service.log", service=service, lines=lines))["text"])
        except AgentError as error:
            raise SelectorError(error.message, remedy=error.remedy) from error
        finally:
            await link.close()

    async def entries(self, file: Path, **wanted: Any) -> list[LogEntry]:
        """A part of the journal, as `Journal.entries` gives it; nothing where there is none yet."""
        journal = await asyncio.to_thread(self.journal, file)
        return await asyncio.to_thread(journal.entries, **wanted) if journal else []

    def journal(self, file: Path) -> Journal | None:
        """The journal of a file, unless there is none: looking does not make one. Blocking."""
        there = os.environ.get("WARDIAN_JOURNAL") or (file.parent / FOLDER / "journal.db").is_file()
        return self.environment(file, "default").journal if there else None

    async def join(self, file: Path, instance: str, path: str) -> Reader:
        """A reader of what happens to an environment. path: what its file is called there."""
        key = file, instance
        if key not in self._watches:
            self._watches[key] = Watch(
                self.environment(file, instance),
                path,
                entries=partial(self.entries, file),
                told=self.entry,
                tasks=dict,
                over=partial(self._forget, key),
            )
        return await self._watches[key].join()

    def _forget(self, key: tuple[Path, str]) -> None:
        del self._watches[key]

    async def leave(self, reader: Reader) -> None:
        """A reader has gone."""
        reader.watch.leave(reader)

    async def stir(self, watch: Watch) -> None:
        """Have an environment looked at again."""
        watch.look()

    def entry(self, entry: LogEntry) -> dict[str, Any]:
        """An entry of the journal as answers have it; a notebook below the root by its path there."""
        detail = {key: value for key, value in entry.detail.items() if key not in ("session", "request", "source_digest")}
        notebook = detail.get("notebook")
        if notebook and Path(notebook).is_relative_to(self.root):
            detail["notebook"] = Path(notebook).relative_to(self.root).as_posix()
        if len(detail.get("source") or "") > LONGEST_SOURCE:
            detail["source"] = detail["source"][:LONGEST_SOURCE] + "…"
        keys = ("id", "kind", "started", "ended", "status", "environment", "run", "summary", "error")
        return without_null({**{key: getattr(entry, key) for key in keys}, "nodes": list(entry.nodes), "detail": detail})

    async def close(self) -> None:
        """End the watches, and write what the journals still hold."""
        for watch in self._watches.values():
            await watch.close()
        for environment in self._environments.values():
            await asyncio.to_thread(environment.close)
        self._environments.clear()

    async def channel(self, file: Path, instance: str, node: str) -> Channel:
        """The way to one node. Raises NotUpError and SelectorError."""
        live = await self.environment(file, instance).live(glance=True)
        if node not in live.nodes:
            raise SelectorError(f"there is no node {node!r}", remedy=f"there are {', '.join(list(live.nodes)[:20]) or 'none'}")
        return live.channel(node)

    async def _link(self, file: Path, instance: str, node: str) -> AgentLink:
        return await AgentLink.open(await self.channel(file, instance, node), node)


def plan_json(plan: Any, removes: list[str]) -> dict[str, Any]:
    """A plan as answers have it."""
    return {"digest": plan.digest, "text": plan.text(), "summary": plan.summary(), "removes": removes, **plan.to_json()}


async def _ask(link: AgentLink) -> dict[str, Any]:
    try:
        kernels = (await link.request("kernel.list"))["kernels"]
        services = (await link.request("service.list"))["services"]
    finally:
        await link.close()
    return {
        "reachable": True,
        "kernels": [
            {"id": name, **{key: item[key] for key in ("language", "state", "pid")}, "attached": item["attached"] is not None}
            for name, item in kernels.items()
        ],
        "services": [{"service": name, **item} for name, item in services.items()],
    }
