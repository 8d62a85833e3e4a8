"""`wardian doctor` for this provider."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ProviderError
from ..base import Finding
from .address import engine_address
from .engine import Engine, EngineError

OLDEST = (1, 40)
"""The oldest version of the API that is known to suffice: Engine 19.03."""


async def diagnose(address: str | None, image: str) -> list[Finding]:
    """What works with the Engine of this address, as the settings say it. image: that of nodes that name none."""
    try:
        engine = Engine(engine_address(address))
        version, facts = await engine.get("/version"), await engine.get("/info")
    except ProviderError as error:
        # nothing is wrong with a host that has none, as long as no experiment asks for it
        return [Finding("Docker Engine", "limited", error.message, error.remedy)]
    return [_engine(engine, version), *_limits(facts), _wiring(engine, facts), await _image(engine, image)]


def _engine(engine: Engine, version: Mapping[str, Any]) -> Finding:
    told = f"{version['Version']} (API {version['ApiVersion']}) at {engine.address}"
    spoken = tuple(int(part) for part in version["ApiVersion"].split("."))
    if spoken < OLDEST:
        return Finding("Docker Engine", "missing", told, "Use Engine 19.03 or newer.")
    return Finding("Docker Engine", "ok", told)


def _limits(facts: Mapping[str, Any]) -> Iterator[Finding]:
    lacking = [name for name, key in (("cpus", "CpuCfsQuota"), ("memory", "MemoryLimit")) if not facts.get(key)]
    remedy = "Boot its machine with these control group controllers enabled."
    if lacking:
        yield Finding("limits of nodes", "limited", f"the Engine cannot limit {' and '.join(lacking)}", remedy)
    else:
        yield Finding("limits of nodes", "ok", f"processors and memory, by control groups {facts.get('CgroupVersion', '1')}")


def _wiring(engine: Engine, facts: Mapping[str, Any]) -> Finding:
    here = os.uname()
    if os.geteuid() == 0 and engine.peer() is not None and (facts["Name"], facts["KernelVersion"]) == (here.nodename, here.release):
        return Finding("links between nodes", "ok", "by this host's kernel, as for the provider local")
    reason = "we are not root" if os.geteuid() else "the Engine is not on this machine"
    return Finding("links between nodes", "limited", f"{reason}: networks, but no delay, loss, rate, and no links between networks")


async def _image(engine: Engine, image: str) -> Finding:
    what = "image of nodes that name none"
    try:
        await engine.get(f"/images/{image}/json")
    except EngineError:
        return Finding(
            what, "limited", f"{image} is not here yet; `up` pulls it", f"docker pull {image}, or name another in WARDIAN_DOCKER_IMAGE."
        )
    return Finding(what, "ok", image)
