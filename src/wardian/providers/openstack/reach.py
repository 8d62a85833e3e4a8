"""Logging in to servers: through the bastion, by the one connection a host that `ssh` keeps, and to nobody who shows another host key.

Once a server can be logged in to, its node is placed there as on any host of `ssh`: what a node needs on its machine is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import ProviderError
from ..base import Progress
from ..concurrency import all_of
from ..ssh import inventory, masters
from ..ssh.index import Entry
from ..ssh.inventory import Host
from ..ssh.refusals import HostError
from ..ssh.remote import run
from ..ssh.settings import HostSettings, SshSettings
from .index import Index
from .names import HOST_KEY, name, node_of
from .observation import Snapshot
from .settings import OpenStackSettings

PAUSE = 1.0
"""Between two tries to log in to a server that boots, seconds."""

_CLOUD_INIT = """
command -v cloud-init >/dev/null 2>&1 || exit 0
cloud-init status --wait >/dev/null 2>&1
[ $? = 1 ] || exit 0
cloud-init status --long
exit 1
"""
"""Newer ones end with 2 where something could be mended."""


class Reach:
    """The way to one environment's servers."""

    def __init__(self, index: Index, settings: OpenStackSettings, environment: str) -> None:
        self._index = index
        self._settings = settings
        self._environment = environment

    def settings(self, seen: Snapshot) -> SshSettings:
        """Its servers as hosts that `ssh` knows."""
        common: dict[str, Any] = {"user": self._settings.user, "key": self._index.key(self._environment)}
        listed, place = [], {}
        for node, server, address, jump in self._ways(seen):
            listed.append(HostSettings(name=server.name, address=address, jump=jump, **common))
            place[node] = [server.name]
        known = self._index.known_hosts(self._environment)
        return SshSettings(hosts=listed, place=place, shared=True, host_keys="known", known_hosts=known, ssh=self._settings.ssh)

    def hosts(self, seen: Snapshot) -> dict[str, Host]:
        """{node: its host}; what their servers show to SSH is written down."""
        self._index.write_private(self._index.known_hosts(self._environment), self._known(seen))
        settings = self.settings(seen)
        listed = {host.name: host for host in inventory.hosts(settings, Path("/"))}
        return {node: listed[names[0]] for node, names in settings.place.items()}

    def renewed(self, entry: Entry, seen: Snapshot) -> Entry:
        """The entry with its nodes reached as they are now: the bastion may be another. Written down where it changed."""
        hosts = self.hosts(seen)
        nodes = {
            node: replace(placed, host=replace(hosts[node], shell=placed.host.shell)) if node in hosts else placed
            for node, placed in entry.nodes.items()
        }
        if nodes != entry.nodes:
            entry.nodes = nodes
            self._index.write(entry)
        return entry

    async def wait(self, nodes: Collection[str], seen: Snapshot, progress: Progress) -> None:
        """Until these answer and are done with their first boot; the bastion before those behind it.

        Raises ProviderError, of the first that is not to be had within the settings' patience.
        """
        hosts = self.hosts(seen)
        end = asyncio.get_running_loop().time() + self._settings.patience
        gate = self.gate(seen)
        for node, host in hosts.items():
            if gate is not None and host.name == gate[0].name:
                await self._answer(node, host, end, progress)
        await all_of(self._ready(node, host, end, progress) for node, host in hosts.items() if node in nodes)

    async def _ready(self, node: str, host: Host, end: float, progress: Progress) -> None:
        await self._answer(node, host, end, progress)
        progress(node, "cloud-init runs")
        try:
            async with asyncio.timeout_at(end):
                answer = await run(host, _CLOUD_INIT)
        except TimeoutError:
            raise ProviderError("cloud-init still runs", resource=f"node {node}", remedy="Give `patience` more, or try again.") from None
        if answer.code:
            said = "".join(f"\n    {line}" for line in answer.output.strip().splitlines()[-10:])
            remedy = "Its log is there in /var/log/cloud-init-output.log; `wardian up` makes it anew."
            raise ProviderError(f"cloud-init failed:{said}", resource=f"node {node}", remedy=remedy)

    async def _answer(self, node: str, host: Host, end: float, progress: Progress) -> None:
        """Until a host lets us in. It refuses us while it boots, too: keys come with cloud-init."""
        told = ""
        while True:
            try:
                await run(host, "exit 0")
                return
            except HostError as error:
                if error.bare != told:
                    told = error.bare
                    progress(node, f"no SSH yet: {told}")
                if asyncio.get_running_loop().time() + PAUSE > end:
                    raise LateError(node, error) from None
            await asyncio.sleep(PAUSE)

    async def leave(self, entry: Entry, nodes: Collection[str]) -> None:
        """End the connections to these: whoever comes next at their addresses is another."""
        for node, placed in entry.nodes.items():
            if node in nodes:
                await masters.disconnect(placed.host)
                if placed.host.jump is not None and len(nodes) == len(entry.nodes):
                    await masters.disconnect(placed.host.jump)

    def _known(self, seen: Snapshot) -> str:
        keys = {address: server.metadata[HOST_KEY] for _, server, address, _ in self._ways(seen) if HOST_KEY in server.metadata}
        return "".join(f"{address} {key}\n" for address, key in keys.items())

    def _ways(self, seen: Snapshot) -> Iterator[tuple[str, Any, str, str | None]]:
        """Node, server, address to connect to, name of the host to go through."""
        gate = self.gate(seen)
        for server in seen.servers:
            node = node_of(server.metadata)
            inner = self._inner(server)
            if node is None or not inner:
                continue
            if gate is not None and server.id == gate[0].id:
                yield node[0], server, gate[1], None
            else:
                yield node[0], server, inner, gate[0].name if gate else None

    def gate(self, seen: Snapshot) -> tuple[Any, str] | None:
        """The server that has the floating IP, and that."""
        ports: Mapping[str, str] = {port.id: port.device_id for port in seen.ports}
        for item in seen.floating:
            for server in seen.servers:
                if ports.get(item.port_id) == server.id:
                    return server, str(item.floating_ip_address)
        return None

    def _inner(self, server: Any) -> str:
        """A server's address on the network by which it is reached."""
        for network, addresses in server.addresses.items():
            if not network.startswith(f"{name(self._environment)}-"):
                return next((str(item["addr"]) for item in addresses if item.get("version") == 4 and _fixed(item)), "")
        return ""


class LateError(ProviderError):
    """A node that cannot be logged in to in time; `node` says which."""

    def __init__(self, node: str, error: HostError) -> None:
        remedy = f"Give `patience` more, or see whether its image has cloud-init and an SSH server. {error.remedy or ''}".strip()
        super().__init__(f"it cannot be logged in to: {error.bare}", resource=f"node {node}", remedy=remedy)
        self.node = node


def _fixed(address: Mapping[str, Any]) -> bool:
    return bool(address.get("OS-EXT-IPS:type", "fixed") == "fixed")
