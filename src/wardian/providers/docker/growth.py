"""Making, changing and removing the nodes of one environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import NodeError, ProviderError
from ...experiment.resources import Resource
from ..base import Progress
from ..concurrency import all_of, uncut
from ..local import nodespec
from . import container
from .channel import DockerChannel
from .engine import Engine, EngineError
from .images import Images
from .names import BEGUN, Identity, container_name, labels, uplink_name
from .observation import NOTE, Container, Snapshot, snapshot
from .records import Records
from .wiring import Wiring

PARALLEL = 8
"""How many containers are worked on at once; the Engine takes no more in less time."""

STOPPED = 304
"""The Engine's answer where a container that it shall stop does not run."""

_REMEDY = "Run `wardian up` again to make it anew."


class Growth:
    """The nodes of one environment, to be worked on. default: the image of those that name none. pins: see `Provider.pins`."""

    def __init__(
        self, engine: Engine, identity: Identity, wiring: Wiring, default: str, progress: Progress, pins: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._id = identity.record.id
        self._wiring = wiring
        self._default = default
        self._pins = pins
        self._progress = progress
        self._records = Records(engine, self._id)
        self._gate = asyncio.Semaphore(PARALLEL)

    # Making

    async def create(self, resources: Sequence[Resource]) -> None:
        """Make these nodes."""
        seen = await snapshot(self._engine, self._id)
        for resource in resources:
            if seen.container(resource.name) is not None:
                raise ProviderError("it exists already", resource=str(resource), remedy="Delete it first.")
        if any(container.needs_uplink(resource.spec) for resource in resources):
            await self._ensure_uplink()
        images = Images(self._engine, self._folder, self._default)
        try:
            await all_of(self._create_node(resource, images, seen.tables()) for resource in resources)
        finally:
            await images.close()

    async def _create_node(self, resource: Resource, images: Images, tables: Mapping[str, Any]) -> None:
        name, spec = resource.name, resource.spec
        self._progress(name, "creating")
        image = await images.image(name, spec, lambda state: self._progress(name, state), self._pins.get(name))
        async with self._gate:
            endpoint = self._wiring.endpoint(self._identity, spec)
            body = container.body(self._identity, name, spec, image, endpoint, self._folder)
            try:
                made = await uncut(self._create_container(name, body))
                await images.require_shell(name, made["Id"], image)
                await uncut(self._start(made["Id"], name, spec, tables))
            except EngineError as error:
                raise _explained(error, resource, body) from error
        self._progress(name, "ready")

    async def reboot(self, resources: Sequence[Resource]) -> None:
        """Have the containers of these nodes start anew, with the files that they have."""
        seen = await snapshot(self._engine, self._id)
        await all_of(self._reboot(resource.name, seen) for resource in resources)

    async def _reboot(self, node: str, seen: Snapshot) -> None:
        item = seen.container(node)
        if item is None:
            raise ProviderError("there is no such node", resource=f"node {node}", remedy="`wardian up` makes it.")
        async with self._gate:
            self._progress(node, "stopping")
            try:
                await self._engine.post(f"/containers/{item.id}/stop", t=0)
            except EngineError as error:
                if error.status != STOPPED:
                    raise
            self._progress(node, "starting")
            await uncut(self._start(item.id, node, seen.specs()[node], seen.tables(), again=item.complete))
        self._progress(node, "ready")

    async def _create_container(self, name: str, body: Mapping[str, Any]) -> Any:
        begun = container_name(self._id, name) + BEGUN
        try:
            return await self._engine.post("/containers/create", body, name=begun)
        except EngineError as error:
            if error.status != 409:
                raise
        # what a killed process had asked for came into being after the last look
        await self._engine.delete(f"/containers/{begun}", force=True, v=True)
        return await self._engine.post("/containers/create", body, name=begun)

    async def _start(self, identity: str, name: str, spec: Mapping[str, Any], tables: Mapping[str, Any], *, again: bool = False) -> None:
        """again: it ran before, and has its name and the Engine's networks."""
        await self._engine.post(f"/containers/{identity}/start")
        facts = await self._engine.get(f"/containers/{identity}/json")
        join = self._wiring.rejoin if again else self._wiring.join
        await join(self._identity, name, identity, facts["State"]["Pid"], spec)
        if container.needs_uplink(spec) and uplink_name(self._id) not in facts["NetworkSettings"]["Networks"]:
            await self._engine.post(f"/networks/{uplink_name(self._id)}/connect", {"Container": identity})
        if not again:
            await self._engine.post(f"/containers/{identity}/rename", name=container_name(self._id, name))
        if tables:
            await self._write_hosts(name, facts, nodespec.hosts(spec, tables))

    async def _ensure_uplink(self) -> None:
        """The Engine's network that leads out; its members do not see each other there."""
        name = uplink_name(self._id)
        options = {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.container_iface_prefix": container.UPLINK_PREFIX}
        given = labels(self._identity, "uplink", name, {})
        body = {"Name": name, "Driver": "bridge", "CheckDuplicate": True, "Options": options, "Labels": given}
        try:
            await self._engine.post("/networks/create", body)
        except EngineError as error:
            # Podman has another status for one that is there
            if error.status != 409 and "already exists" not in error.message:
                raise

    # Changing

    async def update(self, resources: Sequence[Resource]) -> None:
        """Bring these nodes to another spec."""
        seen = await snapshot(self._engine, self._id)
        await all_of(self._update_node(resource, seen) for resource in resources)

    async def _update_node(self, resource: Resource, seen: Snapshot) -> None:
        item = seen.container(resource.name)
        if item is None or not item.runs:
            raise ProviderError("it is not running", resource=str(resource), remedy=_REMEDY)
        before, after = seen.specs()[resource.name], resource.spec
        self._progress(resource.name, "updating")
        try:
            if (before["cpus"], before["memory"]) != (after["cpus"], after["memory"]):
                await container.limit(self._engine, item.id, after)
        except EngineError as error:
            raise ProviderError(error.message, resource=str(resource), remedy=error.remedy) from error
        if (before["routes"], before["routes_between"]) != (after["routes"], after["routes_between"]):
            await self._wiring.change(self._id, resource.name, after)
        await self._records.put(self._identity, "node", resource.name, after, of=item.id)
        self._progress(resource.name, "ready")

    async def write_names(self, tables: Mapping[str, Any]) -> None:
        """Have all nodes that run know these names."""
        seen = await snapshot(self._engine, self._id)
        specs = seen.specs()
        await all_of(self._write_names(item, nodespec.hosts(specs[item.node], tables)) for item in seen.containers if item.runs)

    async def _write_names(self, item: Container, text: str) -> None:
        async with self._gate:
            try:
                facts = await self._engine.get(f"/containers/{item.id}/json")
            except EngineError as error:
                if error.status == 404:
                    return
                raise
            await self._write_hosts(item.node, facts, text)

    async def _write_hosts(self, node: str, facts: Mapping[str, Any], text: str) -> None:
        """Replace a node's /etc/hosts: in the Engine's folder where the Engine is of this host's, else from within."""
        if self._identity.wiring == "host" and await asyncio.to_thread(_overwritten, facts["HostsPath"], text):
            return
        try:
            await DockerChannel(self._engine, self._id, node).write("/etc/hosts", text)
        except NodeError as error:
            raise ProviderError(f"the names could not be written: {error.message}", resource=f"node {node}") from error

    # Removing

    async def delete(self, nodes: Sequence[str]) -> None:
        """Remove these nodes, in whatever state they are, with what is written down of them."""
        seen = await snapshot(self._engine, self._id)
        await all_of(self._remove(item) for item in seen.containers if item.node in nodes)
        await self._wiring.part(self._id, nodes)
        gone = {item.id for item in seen.containers if item.node in nodes}
        await all_of(self._engine.delete(f"/volumes/{entry.volume}") for entry in seen.entries if entry.of in gone)
        for node in nodes:
            self._progress(node, "gone")

    async def _remove(self, item: Container) -> None:
        async with self._gate:
            await uncut(self._engine.delete(f"/containers/{item.id}", force=True, v=True))
            self._progress(item.node, "gone")

    # Notes

    async def note(self, item: Container, name: str, value: Mapping[str, Any] | None) -> None:
        """Keep a note with a node, or remove it."""
        if value is None:
            await self._records.remove(NOTE, f"{item.node}/{name}", item.id)
        else:
            await self._records.put(self._identity, NOTE, f"{item.node}/{name}", value, of=item.id)

    @property
    def _folder(self) -> Path:
        return Path(self._identity.record.file).parent


def _overwritten(path: str, text: str) -> bool:
    """Whether the file could be written, in place, since it is mounted on the node."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _explained(error: EngineError, resource: Resource, body: Mapping[str, Any]) -> ProviderError:
    remedy = error.remedy
    if "port is already allocated" in error.message or "address already in use" in error.message:
        remedy = "Another program uses the port on the Engine's machine: write another in `ports:`."
    elif "device driver" in error.message and body["HostConfig"]["DeviceRequests"]:
        remedy = "The Engine cannot give GPUs to containers: install the NVIDIA Container Toolkit on its machine."
    elif "bind source path does not exist" in error.message:
        remedy = "The folder has to be on the Engine's machine."
    return ProviderError(error.message, resource=str(resource), remedy=remedy)
