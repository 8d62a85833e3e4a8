"""Nodes as the machines that they are: their disks kept as images, rebooted, made anew from an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import NodeDownError, ProviderError, SelectorError, WardianError
from ..experiment.plan import Plan, renewing
from ..providers import registry
from ..providers.base import Provider
from . import faults, keeper, services
from .apply import Listener, apply

if TYPE_CHECKING:
    from .environment import Environment
    from .live import LiveEnvironment


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An image that was made of a node's disk. digest: as its provider knows it; seconds: what it took."""

    node: str
    name: str
    digest: str
    seconds: float


async def snapshot(environment: Environment, node: str, name: str, report: Callable[[str, str], None] | None) -> Snapshot:
    """As `Environment.snapshot`."""
    live = await environment.live()
    picked = live.select(node)
    provider = _able(live, "snapshot", "makes no images of nodes", picked[:1])
    if len(picked) != 1:
        raise SelectorError(f"{node!r} is {len(picked)} nodes, and an image is of one", remedy=f"name one, such as {picked[0]!r}")
    if live.nodes[picked[0]].state == "incomplete":
        raise NodeDownError(picked[0], live.nodes[picked[0]].detail, remedy="`wardian up` makes it anew.")
    record = live.record
    begun = time.monotonic()
    async with AsyncExitStack() as during:
        await during.enter_async_context(provider.lock(record.file, record.instance, "wardian snapshot"))
        entry = environment.journal.operation(
            environment=record.id, instance=record.instance, action="snapshot", kind="node", targets=picked, reason=f"image {name}"
        )
        try:
            of_node, identity = provider.of_node(record.id, picked[0])
            if of_node.still and live.nodes[picked[0]].state == "ready":
                # should we be killed meanwhile, the keeper lets it go on
                await during.enter_async_context(environment.fault.pause(picked[0]))
            digest = await of_node.snapshot(identity, picked[0], name, report or _nobody)
        except WardianError as error:
            entry.done("failed", str(error))
            raise
        except BaseException:
            entry.done("cancelled")
            raise
        entry.done("ok")
        made = Snapshot(picked[0], name, digest, time.monotonic() - begun)
        detail = {"summary": f"{picked[0]} is image {name}", "name": name, "digest": digest, "seconds": made.seconds}
        environment.journal.event(environment=record.id, kind="snapshot", node=picked[0], detail=detail)
    return made


async def renew(
    environment: Environment,
    action: Literal["reboot", "rebuild"],
    selector: str,
    how: Mapping[str, Any],
    announce: Callable[[Plan], None] | None,
    listen: Listener,
) -> Plan:
    """Reboot or rebuild nodes, and make anew what hangs on them. how: as `Provider.reboot` and `Provider.rebuild` take it."""
    live = await environment.live()
    provider = _able(live, action, f"does not {action} nodes", live.select(selector))
    record = live.record
    async with provider.lock(record.file, record.instance, f"wardian {action}"):
        nodes, found = live.select(selector), await services.observe(provider, record.id)
        for node in nodes:
            item = found.resources.get(("node", node))
            if item is None or not item.spec:
                raise NodeDownError(node, "its making was cut short" if item else "it is gone", remedy="`wardian up` makes it anew.")
        # before anything is touched: it may not be there
        image = await _digest(provider, record.id, nodes, how["image"]) if how.get("image") else None
        given = {"image": image} if action == "rebuild" else how
        plan = renewing(action, nodes, found, _reason(action, how), given)
        if announce is not None:
            announce(plan)
        await faults.free(provider, record.id, f"wardian {action}", environment.journal, nodes)
        await apply(plan, provider, record.id, record.instance, Path(record.file).parent, environment.journal, listen)
        await keeper.ensure(provider, record.id, bool(record.spec.get("lease")))
        anew = await provider.own_clocks(record.id)
    if anew:
        await environment.clocks()
    return plan


def _able(live: LiveEnvironment, treatment: str, not_so: str, nodes: Sequence[str]) -> Provider:
    """The provider with the settings that the environment was grown with. Raises ProviderError where that of a node cannot do it."""
    with registry.as_grown(live.record.id):
        provider = registry.make(live.provider.name, dict(live.record.spec.get("settings") or {}))
    for node in nodes:
        there, _ = provider.of_node(live.record.id, node)
        if treatment not in there.treatments:
            raise ProviderError(f"{there.name} {not_so}", resource=f"node {node}", remedy="Do it on the host itself.")
    return provider


async def _digest(provider: Provider, environment: str, nodes: Sequence[str], image: str) -> str:
    """What the provider of these nodes knows an image by. Raises ProviderError where there are several of these."""
    (there, identity), *others = dict.fromkeys(provider.of_node(environment, node) for node in nodes)
    if others:
        raise ProviderError(f"image {image} is another at each site", remedy="Name nodes of one site at a time.")
    return await there.image_digest(identity, image, _nobody)


def _reason(action: str, how: Mapping[str, Any]) -> str:
    if action == "reboot":
        return "power is cut" if how["hard"] else "its disk stays"
    return f"from image {how['image']}; its disk is lost" if how["image"] else "from its image; its disk is lost"


def _nobody(node: str, state: str) -> None:
    """Nobody is told."""
