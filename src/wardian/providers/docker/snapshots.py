"""A node's container made an image of the Engine's, which starts as the image did that the container was made from."""

from __future__ import annotations

from typing import Any

from ...errors import ProviderError
from ..concurrency import uncut
from .archives import image_called
from .container import USUAL
from .engine import Engine, EngineError
from .names import PREFIX
from .observation import Container

SNAPSHOT = f"{PREFIX}snapshot"
"""Label of such an image: of which node of which environment it is."""


async def commit(engine: Engine, item: Container, name: str, environment: str) -> str:
    """Make it, with the container paused meanwhile, and give its digest. Raises ProviderError where there is one of that name."""
    about = f"node {item.node}"
    if not item.complete:
        raise ProviderError("its making was cut short", resource=about, remedy="`wardian up` makes it anew.")
    if await image_called(engine, name) is not None:
        raise ProviderError(f"there is an image {name}", resource=about, remedy=f"Choose another name, or remove it: docker rmi {name}")
    repository, tag = _parts(name)
    facts = await engine.get(f"/containers/{item.id}/json")
    original = (await image_called(engine, item.image) or {}).get("Config") or {}
    config = _config(original, facts["Config"], f"{item.node} of {environment}")
    try:
        made = await uncut(engine.post("/commit", config, container=item.id, repo=repository, tag=tag, pause=True))
    except EngineError as error:
        raise ProviderError(error.message, resource=about, remedy=error.remedy) from error
    return str(made["Id"])


def _config(original: dict[str, Any], own: dict[str, Any], whose: str) -> dict[str, Any]:
    """What the image says of itself: what the node's image said. The Engine adds what the container has, so that is made empty."""
    before = dict(item.split("=", 1) for item in original.get("Env") or [] if "=" in item)
    ours = [item.partition("=")[0] for item in own.get("Env") or []]
    variables = {**dict.fromkeys(ours, ""), **USUAL, **before}
    labels = {label: "" for label in own.get("Labels") or {} if label.startswith(PREFIX)} | (original.get("Labels") or {})
    config = {key: original.get(key) for key in ("Cmd", "User", "WorkingDir", "StopSignal", "ExposedPorts")}
    # of none the Engine takes the container's
    config["Entrypoint"] = original.get("Entrypoint") or []
    config["Env"] = [f"{key}={value}" for key, value in variables.items()]
    config["Labels"] = {**labels, SNAPSHOT: whose}
    return config


def _parts(name: str) -> tuple[str, str]:
    """Repository and tag; a colon before a slash is that of a port."""
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")
