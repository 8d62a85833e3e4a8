"""Services and files of nodes: what the environment itself puts on nodes, whichever provider grew them.

What was put is kept as a note with its node, so it is found again as long as the node lives; whether a service still runs is asked
of the node's agent, which owns it.
"""

from __future__ import annotations

import asyncio
import posixpath
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CommandError, NodeError, NotUpError
from ..experiment.resources import Observed, ObservedResource, Resource
from ..nodes import files
from ..nodes.run import run
from ..nodes.shell_services import as_user, services_of
from ..providers.base import Channel, Progress, Provider
from . import faults

KINDS = ("files", "service")
CONCURRENCY = 16


async def observe(provider: Provider, environment: str) -> Observed:
    """What exists, with the files and services that notes tell of."""
    observed = await provider.observe(environment)
    if observed.environment is None:
        return observed
    notes = await provider.notes(environment)
    record = observed.environment
    found = {("environment", record.name): ObservedResource("environment", record.name, record.spec), **observed.resources}
    running = {key[1] for key, item in found.items() if key[0] == "node" and item.state == "ready"}
    still = {node for node in notes if faults.paused(notes[node])}
    asked = [node for node in notes if node in running - still and any(name.startswith("service:") for name in notes[node])]
    states = dict(zip(asked, await asyncio.gather(*(_states(provider.channel(environment, node), node) for node in asked)), strict=True))
    for node, kept in notes.items():
        for name, spec in kept.items():
            kind, _, service = name.partition(":")
            if kind == "files":
                item = ObservedResource("files", node, spec, "ready" if node in running else "stopped")
            elif kind == "service":
                item = _observed_service(service, node, spec, states.get(node))
                if node in running & still:
                    item = replace(item, state="unreachable", detail="its node is paused")
            else:
                continue
            found[item.key] = item
    for node in running & still:
        found["node", node] = replace(found["node", node], detail="paused")
    return Observed(observed.environment, found)


def _observed_service(service: str, node: str, spec: Mapping[str, Any], states: Mapping[str, Any] | None) -> ObservedResource:
    name = f"{service}@{node}"
    if states is None:
        return ObservedResource("service", name, spec, "stopped", "its node or agent does not answer")
    state = states.get(service)
    if state is None:
        return ObservedResource("service", name, spec, "incomplete", "it was never started")
    if state["state"] in ("failed", "stopped"):
        return ObservedResource("service", name, spec, "stopped", f"it ended with exit code {state.get('exit_code')}")
    if state["state"] == "starting":
        return ObservedResource("service", name, spec, "incomplete", "it is not ready yet")
    return ObservedResource("service", name, spec)


async def _states(channel: Channel, node: str) -> Mapping[str, Any] | None:
    try:
        link = await services_of(channel, node)
    except NodeError:
        return None
    try:
        services: Mapping[str, Any] = (await link.request("service.list"))["services"]
        return services
    except NodeError:
        return None
    finally:
        await link.close()


async def put(provider: Provider, environment: str, folder: Path, resources: Sequence[Resource], progress: Progress) -> None:
    """Copy files in, or start services and wait until they are ready."""

    async def one(resource: Resource) -> None:
        node = resource.spec["node"]
        channel = provider.channel(environment, node)
        if resource.kind == "files":
            progress(resource.name, "copying files")
            for item in resource.spec["items"]:
                await _copy(channel, node, folder / item["source"], item)
            await provider.note(environment, node, "files", resource.spec)
        else:
            await _start(provider, environment, channel, resource, progress)
        progress(resource.name, "ready")

    await _each(resources, one)


async def _copy(channel: Channel, node: str, source: Path, item: Mapping[str, Any]) -> None:
    """Copy to the very path that is written, also where a folder of that name is there already."""
    mode = int(item["mode"], 8) if item["mode"] else None
    parent, name = posixpath.split(item["target"].rstrip("/"))
    await run(channel, node, ["mkdir", "-p", "--", parent], check=True)
    if not source.is_dir():
        await files.put(channel, node, source, item["target"], mode=mode)
        return
    with tempfile.TemporaryDirectory() as folder:
        # a folder lands under its own name, so it is sent under the name that it shall have
        renamed = Path(folder, name)
        renamed.symlink_to(source.resolve())
        await files.put(channel, node, renamed, parent)


async def _start(provider: Provider, environment: str, channel: Channel, resource: Resource, progress: Progress) -> None:
    spec = resource.spec
    progress(resource.name, "starting")
    await provider.note(environment, spec["node"], f"service:{spec['service']}", spec)
    command, directory = await _command(provider, environment, spec)
    link = await services_of(channel, spec["node"])
    try:
        await link.request(
            "service.start",
            service=spec["service"],
            command=command,
            env=spec["env"],
            cwd=directory,
            restart=spec["restart"],
            ready=spec["ready"],
        )
        if spec["ready"]:
            progress(resource.name, "waiting until it is ready")
            await link.request("service.wait", service=spec["service"], ready=spec["ready"], timeout=spec["ready"]["timeout"])
    finally:
        await link.close()


async def _command(provider: Provider, environment: str, spec: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """What a service runs, and in which folder."""
    if isinstance(spec["command"], list):
        return spec["command"], spec["directory"]
    own = await provider.image_command(environment, spec["node"])
    given = spec["command"]["image"]
    command = [*own.entrypoint, *(own.arguments if given is None else given)]
    if not command:
        remedy = f"Write the `command:` of the service {spec['service']}."
        raise CommandError(spec["node"], "its image starts nothing by itself: it has neither ENTRYPOINT nor CMD", remedy=remedy)
    return as_user(own.user, command), spec["directory"] or own.directory or "/"


async def remove(provider: Provider, environment: str, resources: Sequence[Resource], progress: Progress) -> None:
    """Stop services and forget files (which stay on the node until something else takes their place)."""

    async def one(resource: Resource) -> None:
        node = resource.spec["node"]
        if resource.kind == "service":
            try:
                link = await services_of(provider.channel(environment, node), node)
            except NodeError:
                # a node that is gone has no service left to stop
                pass
            else:
                try:
                    await link.request("service.stop", service=resource.spec["service"])
                finally:
                    await link.close()
        note = "files" if resource.kind == "files" else f"service:{resource.spec['service']}"
        with suppress(NodeError, NotUpError):
            await provider.note(environment, node, note, None)
        progress(resource.name, "removed")

    await _each(resources, one)


async def _each(resources: Iterable[Resource], work: Callable[[Resource], Awaitable[None]]) -> None:
    """At most CONCURRENCY at once; the first failure is raised once all have ended."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def gated(resource: Resource) -> None:
        async with gate:
            await work(resource)

    outcomes = await asyncio.gather(*(gated(resource) for resource in resources), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
