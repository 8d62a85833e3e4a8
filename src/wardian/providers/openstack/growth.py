"""Making an environment's servers on a cloud, and removing them."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import ProviderError
from ...experiment.resources import Resource
from ..base import Progress
from ..concurrency import all_of
from . import choice, keys
from .cloud import NO_HOST, Cloud, RefusedError
from .index import Index
from .leases import Leases, networks
from .names import HOST_KEY, NODE, OWNER, access, bastion, metadata, name, node_of
from .observation import CHANGING, Look, Snapshot, fault, preference, servers, snapshot
from .reserve import Reserve
from .settings import OpenStackSettings
from .wiring import Wiring

TAIL = 15
"""Lines of a server's console that an error shows."""


class Growth:
    """Work on one environment, by who holds its lock.

    Several operations of a plan work at once. gate: held while the way to its servers is looked at and changed; look: at the servers.
    """

    def __init__(
        self,
        cloud: Cloud,
        index: Index,
        settings: OpenStackSettings,
        environment: str,
        progress: Progress,
        gate: asyncio.Lock | None = None,
        look: Look | None = None,
    ) -> None:
        self._cloud = cloud
        self._index = index
        self._settings = settings
        self._environment = environment
        self._progress = progress
        self._gate = gate or asyncio.Lock()
        self._look = look or Look(cloud, environment)
        self._owner = index.owner
        self._about = f"environment {environment}"
        self.leases = Leases(cloud, environment, settings.reserve or Reserve(), progress)
        self.wiring = Wiring(cloud, settings, environment, f"wardian {self._owner}", progress)

    # The environment itself

    async def create_environment(self) -> Snapshot:
        """Its security groups, and its key. Gives what there is then, of an environment that is new."""
        private, public = keys.pair()
        self._index.write_private(self._index.key(self._environment), private)
        seen = Snapshot()

        async def create_groups() -> None:
            seen.groups.update(await self.wiring.create_groups())

        await all_of([create_groups(), self._create_key(public)])
        return seen

    async def _create_key(self, public: str) -> None:
        async def create() -> None:
            await self._cloud.make(
                self._about,
                lambda cloud: cloud.compute.create_keypair(name=name(self._environment), public_key=public),
                lambda cloud: [key for key in cloud.compute.keypairs() if key.public_key.strip() == public],
            )

        try:
            await create()
        except RefusedError as error:
            if error.status != 409:
                raise
            # what is left there of a try that was cut short goes with another private half
            await self._delete_key()
            await create()

    async def _delete_key(self) -> None:
        await self._gone(lambda cloud: cloud.compute.delete_keypair(name(self._environment)))

    async def delete_environment(self, seen: Snapshot) -> None:
        """What belongs to no network and no node."""
        await self.wiring.delete_access(seen)
        await self._delete_key()

    async def destroy(self) -> None:
        """All of it, the servers first."""
        await self.delete_servers(await servers(self._cloud, self._environment))
        entry = self._index.read(self._environment)
        if reserved := networks(self._environment, entry.resources if entry else {}):
            await self.wiring.delete_networks(sorted(reserved), await snapshot(self._cloud, self._environment, listed=()), reserved)
        # with their servers gone, since it would end them without asking; of a lease, what was asked for is written down first
        if entry is None or any(kind == "lease" for kind, _ in entry.resources):
            await self.leases.end(self._about)
        after = await snapshot(self._cloud, self._environment, listed=())
        await self.wiring.delete_networks([item for item in after.networks if item != access(self._environment)], after)
        await self.delete_environment(after)

    # Servers

    async def create_nodes(self, resources: Sequence[Resource], begun: Snapshot | None) -> Snapshot:
        """A server each, and one look a second at all of them until they are ACTIVE; then the way to them. Gives what there is then.

        begun: what there is before, where that is known without asking.
        """
        placing = await self.leases.placing(resources, self._kept())
        flavors, images = await asyncio.gather(self._cloud.flavors(), self._cloud.images())

        def chosen(item: Resource) -> dict[str, Any]:
            placed = placing.get(item.name, {})
            made_from = {"image_id": choice.image(item.name, item.spec, self._settings, images).id}
            if "flavor_id" not in placed:
                made_from["flavor_id"] = choice.flavor(item.name, item.spec, self._settings, flavors).id
            return made_from | placed

        # before anything is made: what is named may not be there
        made_from = {item.name: chosen(item) for item in resources}
        async with self._gate:
            seen = begun or await snapshot(self._cloud, self._environment)
            network = await self._create_access(seen)
        first = self._first(resources, seen)
        wanted = {item.name: self._server(item, made_from[item.name], network, seen, item.name == first) for item in resources}
        await all_of(self._create_server(item, wanted[item.name]) for item in resources)
        listed = await self._wait({node: server["name"] for node, server in wanted.items()})
        known = begun is not None and not self._cloud.doubtful
        return await self.choose_bastion(replace(seen, servers=listed) if known else None, network)

    async def reboot_nodes(self, resources: Sequence[Resource], *, hard: bool) -> Snapshot:
        """Have these nodes' servers boot again, and wait until they are ACTIVE. Gives what there is then."""
        how = "HARD" if hard else "SOFT"
        return await self._renew(resources, "reboot", lambda cloud, server, _: cloud.compute.reboot_server(server, how))

    async def rebuild_nodes(self, resources: Sequence[Resource], image: str | None) -> Snapshot:
        """Have these nodes' servers made anew where they are: with their ports, addresses, user data and host keys. image: its id."""
        images = [] if image else await self._cloud.images()
        chosen = {item.name: image or choice.image(item.name, item.spec, self._settings, images).id for item in resources}
        return await self._renew(resources, "rebuild", lambda cloud, server, node: cloud.compute.rebuild_server(server, chosen[node]))

    async def _renew(self, resources: Sequence[Resource], action: str, request: Callable[[Any, Any, str], Any]) -> Snapshot:
        there = {node[0]: item for item in await servers(self._cloud, self._environment) if (node := node_of(item.metadata))}

        async def renew(node: str) -> None:
            if node not in there:
                raise ProviderError("it has no server", resource=f"node {node}", remedy="`wardian up` makes it.")
            self._progress(node, f"{action}ing")
            try:
                await self._cloud.ask(f"node {node}", lambda cloud: request(cloud, there[node], node))
            except RefusedError as error:
                # asked for before: by a request whose answer was lost, or by a command that was killed
                if error.status != 409 or f"task_state {action[:6]}" not in error.message:
                    error.remedy = "`--hard` starts it." if "vm_state stopped" in error.message else error.remedy
                    raise

        await all_of(renew(resource.name) for resource in resources)
        await self._wait({resource.name: there[resource.name].name for resource in resources})
        return await self.choose_bastion()

    async def _create_access(self, seen: Snapshot) -> Any:
        subnets = [item.spec["subnet"] for item in self._kept().values() if item.kind == "network"]
        return await self.wiring.create_access(seen, subnets)

    def _first(self, resources: Sequence[Resource], seen: Snapshot) -> str | None:
        """The node that gets the floating IP, where no server has it yet."""
        if not self._settings.floating or any(item.port_id for item in seen.floating):
            return None
        names = [item.name for item in resources]
        chosen = self._settings.bastion
        return chosen if chosen in names else names[0] if not chosen or not seen.servers else None

    def _server(self, resource: Resource, made_from: Mapping[str, Any], outer: Any, seen: Snapshot, first: bool) -> dict[str, Any]:
        """The request for a node's server. Ports are made with it, and go with it."""
        spec = resource.spec
        networks = [{"uuid": outer.id}]
        for interface in spec["interfaces"]:
            network = seen.networks.get(name(self._environment, interface["network"]))
            if network is None or not network.subnet_ids:
                raise ProviderError(f"there is no network {interface['network']}", resource=str(resource))
            networks.append({"uuid": network.id, "fixed_ip": interface["address"].partition("/")[0]})
        host_key = keys.pair()
        login = keys.public(self._index.key(self._environment).read_text())
        groups = [seen.groups[each].id for each in (name(self._environment), *([bastion(self._environment)] if first else []))]
        return {
            **made_from,
            "name": name(self._environment, spec["hostname"]),
            "networks": networks,
            "security_groups": [{"name": group} for group in groups],
            "key_name": name(self._environment),
            "metadata": {**metadata(resource.name, spec), OWNER: self._owner, HOST_KEY: host_key[1]},
            "user_data": base64.b64encode(keys.user_data(spec, self._settings.user, login, host_key).encode()).decode(),
        }

    async def _create_server(self, resource: Resource, wanted: Mapping[str, Any]) -> None:
        self._progress(resource.name, "creating")
        pattern = f"^{wanted['name']}$"
        await self._cloud.make(
            str(resource), lambda cloud: cloud.compute.create_server(**wanted), lambda cloud: cloud.compute.servers(name=pattern)
        )

    async def _wait(self, wanted: Mapping[str, str]) -> list[Any]:
        """All servers, once these, {node: name}, are ACTIVE. Raises ProviderError with Nova's reason as soon as one is in ERROR."""
        end = time.monotonic() + self._settings.patience
        told: dict[str, str] = {}
        while True:
            listed = await self._look.after(time.monotonic())
            found: dict[str, Any] = {}
            for server in sorted(listed, key=preference):
                if found.setdefault(server.name, server) is not server and found[server.name].status == "ACTIVE":
                    # a request that was believed to be lost was done as well
                    await self._gone(lambda cloud, server=server: cloud.compute.delete_server(server.id))
            states = {node: found[server].status if server in found else "gone" for node, server in wanted.items()}
            for node, now in states.items():
                if told.get(node) != now:
                    self._progress(node, now)
            told = states
            for node, now in states.items():
                if now not in ("ACTIVE", *CHANGING):
                    raise await self._failed(node, now, found.get(wanted[node]))
            if all(now == "ACTIVE" for now in states.values()):
                return listed
            if time.monotonic() > end:
                late = next(node for node, now in states.items() if now != "ACTIVE")
                raise ProviderError(
                    f"its server is still {states[late]}", resource=f"node {late}", remedy="Give `patience` more, or try again."
                )

    async def _failed(self, node: str, now: str, server: Any) -> ProviderError:
        if now == "ERROR" and not fault(server):
            # Nova says why a moment later
            server = next((item for item in await self._look.after(time.monotonic()) if item.id == server.id), server)
        reason = fault(server) if server is not None else ""
        console = await self.console(server) if server is not None and now != "ERROR" else ""
        remedy = NO_HOST if "no valid host" in reason.lower() else "Run `wardian up` again: it is made anew."
        return ProviderError(f"its server is {now}{f': {reason}' if reason else ''}{console}", resource=f"node {node}", remedy=remedy)

    async def console(self, server: Any) -> str:
        """The last lines of a server's console, for an error; nothing where its cloud shows none."""
        try:
            said = await self._cloud.ask(self._about, lambda cloud: cloud.compute.get_server_console_output(server.id, length=TAIL))
        except ProviderError:
            return ""
        lines = str((said or {}).get("output") or "").splitlines()[-TAIL:]
        return "\n  its console:" + "".join(f"\n    {line}" for line in lines) if lines else ""

    async def choose_bastion(self, known: Snapshot | None = None, network: Any = None) -> Snapshot:
        """Have one server be reached from outside: the one that was, while it is there. What is there twice is removed.

        known, network: what there is, and the network by which servers are reached, where that is known without asking.
        """
        async with self._gate:
            seen = known or await snapshot(self._cloud, self._environment)
            if known is None:
                await self.wiring.delete_doubles(seen)
            return await self._choose_bastion(seen, network) if self._settings.floating else seen

    async def _choose_bastion(self, seen: Snapshot, network: Any) -> Snapshot:
        ports = {port.id: port.device_id for port in seen.ports}
        there = {server.id: server for server in seen.servers}
        now = next((there[ports[item.port_id]] for item in seen.floating if ports.get(item.port_id) in there), None)
        # others are another operation's, or of no use
        active = [item for item in seen.servers if item.status == "ACTIVE"]
        if now is not None or not active:
            return seen
        groups = [item for item in active if any(group["name"] == bastion(self._environment) for group in item.security_groups or ())]
        server = groups[0] if groups else active[0]
        if not groups:
            await self._cloud.ask(
                self._about, lambda cloud: cloud.compute.add_security_group_to_server(server, seen.groups[bastion(self._environment)])
            )
        reserved = await self.leases.addresses(self._kept())
        port, floating = await self.wiring.create_floating(server, network or await self._create_access(seen), seen, reserved)
        return replace(seen, ports=[*seen.ports, port], floating=[floating])

    async def update_nodes(self, resources: Sequence[Resource]) -> None:
        """Have servers say what their nodes are now."""
        there = await servers(self._cloud, self._environment)

        async def update(resource: Resource) -> None:
            ours, said = name(self._environment, resource.spec["hostname"]), metadata(resource.name, resource.spec)
            for server in [item for item in there if item.name == ours]:
                await self._gone(lambda cloud, server=server: cloud.compute.set_server_metadata(server, **said))

        await all_of(update(resource) for resource in resources)

    async def delete_nodes(self, nodes: Sequence[str], seen: Snapshot) -> None:
        """Servers, with their ports."""
        await self.delete_servers([server for node in nodes for server in seen.servers_of(node)])
        for node in nodes:
            self._progress(node, "gone")

    async def delete_servers(self, doomed: Sequence[Any]) -> None:
        """Servers, until they are gone."""
        for server in doomed:
            self._progress(server.metadata.get(NODE, server.name), "deleting")
        await all_of(self._gone(lambda cloud, item=item: cloud.compute.delete_server(item.id)) for item in doomed)
        left = {server.id for server in doomed}
        end = time.monotonic() + self._settings.patience
        while left:
            left &= {server.id for server in await self._look.after(time.monotonic())}
            if left and time.monotonic() > end:
                raise ProviderError(f"servers {', '.join(sorted(left))} do not go away", resource=self._about)

    def _kept(self) -> Mapping[tuple[str, str], Resource]:
        """What is written down of the environment."""
        entry = self._index.read(self._environment)
        return entry.resources if entry else {}

    async def _gone(self, request: Any) -> None:
        await self._cloud.gone(self._about, request)
