"""Images as files: out of an Engine, as `docker save` writes them, and into another without touching what that calls by the same names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import ProviderError
from ..images.archive import is_path
from .engine import Engine, EngineError

_CHUNK = 1 << 20
_OURS = "wardian-"
"""What the names begin with of images that were built, unpacked or prepared here."""


async def save(engine: Engine, wanted: Iterable[Mapping[str, str]], target: Path) -> dict[str, str]:
    """Write images into one file, each layer once, and give {name: digest} of what is in it.

    wanted: {"name": as nodes ask for it, "digest"}, as `Provider.images` gives them. What a `setup:` began with goes along.
    Raises ProviderError for one that the Engine does not have any more.
    """
    names: dict[str, str] = {}
    for item in wanted:
        asked = "" if is_path(item["name"]) else _whole(item["name"])
        found = await image_called(engine, item["digest"])
        if found is None:
            said = f"image {asked or item['digest']} of a recorded run is not at the Engine any more"
            raise ProviderError(said, remedy="pull or load it, run the notebook again, or pack without --with-images")
        base = await image_called(engine, asked) if asked else None
        if base is not None:
            names[asked] = base["Id"]
        if base is None or base["Id"] != found["Id"]:
            tags = sorted(found.get("RepoTags") or [], key=lambda tag: not tag.startswith(_OURS))
            names[tags[0] if tags else found["Id"]] = found["Id"]
    with open(target, "wb") as file:
        async for chunk in engine.download("/images/get", names=tuple(sorted(names))):
            await asyncio.to_thread(file.write, chunk)
    return names


async def load(engine: Engine, archive: Path, names: Mapping[str, str]) -> list[str]:
    """Have an Engine take the images of a file that it lacks, and give their names. names: {name: digest} of what is in it.

    Where the Engine calls another image by a name, that keeps it, and the file's is known by its digest.
    """
    known = {name: found["Id"] for name in names if (found := await image_called(engine, name)) is not None}
    lacking = [name for name, number in names.items() if name not in known or await image_called(engine, number) is None]
    if lacking:
        async for _ in engine.lines("POST", "/images/load", body=_chunks(archive), query={"quiet": True}):
            pass
    for name, number in known.items() if lacking else ():
        # the file's images took these names away from what they named
        await _tag(engine, number, name)
    for name in lacking:
        if await image_called(engine, name) is None:
            await _tag(engine, names[name], name)
    return lacking


async def image_called(engine: Engine, name: str) -> dict[str, Any] | None:
    """What the Engine tells of an image, or None where it has none of that name."""
    try:
        found: dict[str, Any] = await engine.get(f"/images/{name}/json")
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    return found


async def _tag(engine: Engine, number: str, name: str) -> None:
    repository, _, tag = name.rpartition(":")
    if not name.startswith("sha256:") and "@" not in name:
        await engine.post(f"/images/{number}/tag", repo=repository, tag=tag)


def _whole(name: str) -> str:
    """A name with its tag: without one, all that an Engine has of that name are meant."""
    bare, _, tag = name.rpartition(":")
    return name if not name or "@" in name or (bare and "/" not in tag) else f"{name}:latest"


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
