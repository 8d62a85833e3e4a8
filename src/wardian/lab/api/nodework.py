"""What the server does on nodes: asks their agents, copies files, opens ports, ends kernels."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...environment.view import without_null
from ...errors import AgentError, BusyError, NodeError, SelectorError, TransferError, WardianError
from ...journal import Entry
from ...nodes import files, listing
from ...nodes.link import AgentLink
from ...nodes.ports import Forward
from ...nodes.run import run
from ...nodes.shell_services import services_of
from ...providers.base import Channel

if TYPE_CHECKING:
    from .desk import Desk

_AGENT_LOG = (
    'for folder in "$WARDIAN_RUN_DIR" /run/wardian "$XDG_RUNTIME_DIR/wardian" "/tmp/wardian-$(id -u)"; do '
    '[ -r "$folder/agent.log" ] && exec tail -n "$1" "$folder/agent.log"; done; :'
)

_RESTARTING = 10.0
"""Seconds that are waited for the notebook's kernel to start another in the place of one that was ended here."""


class Download:
    """A file of a node on its way to a browser. The journal has it as a transfer."""

    def __init__(self, stack: AsyncExitStack, size: int, content: AsyncIterator[bytes], entry: Entry) -> None:
        self.size = size
        self._stack, self._content, self._entry = stack, content, entry
        self._digest = hashlib.sha256()

    async def read(self) -> bytes:
        """The next part; empty at the end. Raises TransferError where the file ends early."""
        try:
            async for chunk in self._content:
                self._digest.update(chunk)
                return chunk
        except WardianError as error:
            self._entry.done("failed", str(error))
            raise
        self._entry.done("ok", bytes=self.size, sha256=self._digest.hexdigest())
        return b""

    async def close(self) -> None:
        """Let go of the node; what was not sent to the end counts as given up."""
        self._entry.done("cancelled")
        await self._stack.aclose()


class Nodes:
    """Work on the nodes of a desk's environments."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ports: dict[str, tuple[tuple[Path, str], Forward]] = {}

    async def node(self, file: Path, instance: str, name: str) -> dict[str, Any]:
        """One node, with what its agent knows."""
        seen = await self._desk.look(file, instance)
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
        link = await services_of(await self.channel(file, instance, node), node)
        try:
            return str((await link.request("service.log", service=service, lines=lines))["text"])
        except AgentError as error:
            raise SelectorError(error.message, remedy=error.remedy) from error
        finally:
            await link.close()

    async def listing(self, file: Path, instance: str, node: str, folder: str) -> dict[str, Any]:
        """What is in a folder of a node."""
        found = await listing.entries(await self.channel(file, instance, node), node, folder)
        return {"folder": found.path, "items": [asdict(item) for item in found.items], "whole": found.whole}

    async def download(self, file: Path, instance: str, node: str, source: str, most: int) -> Download:
        """Begin to read a file of a node. Raises TransferError for what is no file, or is larger than `most` bytes."""
        channel = await self.channel(file, instance, node)
        stack = AsyncExitStack()
        try:
            size, content = await stack.enter_async_context(listing.reading(channel, node, source))
            if size > most:
                raise TransferError(node, f"{source} has {size} bytes, and {most} are sent at most", remedy="copy it with `wardian cp`")
        except BaseException:
            await stack.aclose()
            raise
        entry = await self._transfer(file, instance, node, "get", source, "a browser")
        return Download(stack, size, content, entry)

    async def upload(self, file: Path, instance: str, node: str, source: Path, folder: str, name: str) -> dict[str, Any]:
        """Put a file on a node that was received here. Raises TransferError where the folder is not there."""
        channel = await self.channel(file, instance, node)
        target = folder.rstrip("/") + "/"
        try:
            named = source.rename(source.with_name(name))
        except OSError as error:
            raise TransferError(node, f"{name[:80]!r} is no name of a file here: {error.strerror}") from error
        with await self._transfer(file, instance, node, "put", "a browser", target + name) as entry:
            done = await files.put(channel, node, named, target, mode=0o644)
            entry.done("ok", bytes=done.bytes, sha256=done.sha256)
        return {"target": done.target, "bytes": done.bytes, "sha256": done.sha256}

    async def _transfer(self, file: Path, instance: str, node: str, direction: str, source: str, target: str) -> Entry:
        environment = self._desk.environment(file, instance)
        record = (await environment.live(glance=True)).record
        return environment.journal.transfer(environment=record.id, node=node, direction=direction, source=source, target=target)

    async def open_port(self, file: Path, instance: str, node: str, port: int, here: int | None) -> dict[str, Any]:
        """Open a port of a node on this machine, on loopback; one that is open already is given again."""
        async with self._desk.changing(file, instance):
            for id_, (key, forward) in self._ports.items():
                if key == (file, instance) and (forward.node, forward.port) == (node, port) and here in (None, forward.here):
                    return _port(id_, forward)
            forward = await Forward.open(await self.channel(file, instance, node), node, port, here)
            id_ = secrets.token_hex(6)
            self._ports[id_] = (file, instance), forward
            self._desk.touch(file, instance)
            return _port(id_, forward)

    async def ports(self, file: Path, instance: str) -> list[dict[str, Any]]:
        """The ports of an environment that are open here."""
        return [_port(id_, forward) for id_, (key, forward) in self._ports.items() if key == (file, instance)]

    def ports_by_id(self, file: Path, instance: str) -> dict[str, dict[str, Any]]:
        """The same by their ids, without what changes with each connection. On the portal's loop."""
        open_ = {id_: forward for id_, (key, forward) in self._ports.items() if key == (file, instance)}
        return {id_: {"node": forward.node, "port": forward.port, "here": forward.here} for id_, forward in open_.items()}

    async def close_port(self, id_: str) -> None:
        """Close one. Raises SelectorError."""
        if id_ not in self._ports:
            raise SelectorError(f"no port {id_!r} is open")
        key, forward = self._ports.pop(id_)
        self._desk.touch(*key)
        await forward.close()

    async def close_ports(self, file: Path, instance: str) -> None:
        """Close those of an environment."""
        for id_ in [id_ for id_, (key, _) in self._ports.items() if key == (file, instance)]:
            await self.close_port(id_)

    async def kernel(self, file: Path, instance: str, node: str, kernel: str, action: str) -> None:
        """Interrupt a kernel of a node; end one that no notebook has; or restart one that a notebook has, which starts another then."""
        link = await self._link(file, instance, node)
        try:
            known = (await link.request("kernel.list"))["kernels"]
            if kernel not in known:
                raise SelectorError(f"there is no kernel {kernel!r} on {node}", remedy=f"there are {', '.join(known) or 'none'}")
            if action == "interrupt":
                await link.request("kernel.interrupt", kernel=kernel)
                return
            if (known[kernel]["attached"] is None) == (action == "restart"):
                message = f"kernel {kernel} of {node} " + ("has no notebook" if action == "restart" else "belongs to a notebook")
                raise BusyError(message, remedy="end it" if action == "restart" else "restart it")
            attached = asyncio.Event()
            link.on_event = lambda event: attached.set() if (event["event"], event.get("kernel")) == ("kernel.attached", kernel) else None
            await link.request("kernel.stop", kernel=kernel)
            if action == "restart":
                # its notebook's kernel may hang itself: then the next cell's kernel is the new one
                with suppress(TimeoutError):
                    await asyncio.wait_for(attached.wait(), _RESTARTING)
            environment = self._desk.environment(file, instance)
            record = (await environment.live(glance=True)).record
            environment.journal.event(
                environment=record.id,
                kind="kernel.restarted" if action == "restart" else "kernel.stopped",
                node=node,
                detail={"kernel": kernel},
            )
        finally:
            await link.close()

    async def channel(self, file: Path, instance: str, node: str) -> Channel:
        """The way to one node. Raises NotUpError and SelectorError."""
        live = await self._desk.environment(file, instance).live(glance=True)
        if node not in live.nodes:
            raise SelectorError(f"there is no node {node!r}", remedy=f"there are {', '.join(list(live.nodes)[:20]) or 'none'}")
        return live.channel(node)

    async def _link(self, file: Path, instance: str, node: str) -> AgentLink:
        return await AgentLink.open(await self.channel(file, instance, node), node)


def _port(id_: str, forward: Forward) -> dict[str, Any]:
    told = {"id": id_, "node": forward.node, "port": forward.port, "here": forward.here, "connections": forward.connections}
    return {**told, "trouble": forward.trouble} if forward.trouble else told


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
