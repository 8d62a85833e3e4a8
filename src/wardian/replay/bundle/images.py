"""Images that go along with an experiment, since digests outlive registries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...environment.environment import Environment
from ...environment.facts import IMAGE
from ...errors import BundleError
from ...journal.records import RunRecord
from ...providers.base import Provider
from . import IMAGES

Table = dict[str, dict[str, Any]]
"""{provider: {"nodes": {node: {"name", "digest", "registry"}}, "archive": its name in the bundle, "images": {name: digest} in that}}"""


def table(records: Sequence[RunRecord]) -> Table:
    """Which images the nodes of runs were made from, by provider, as far as they are known."""
    found: Table = {}
    for record in records:
        nodes = {fact.node: dict(fact.value) for fact in record.facts if fact.name == IMAGE and fact.node and "digest" in fact.value}
        if nodes:
            for node, image in nodes.items():
                # of several sites, each image says whose it is
                provider = image.pop("provider", record.run.detail["provider"])
                found.setdefault(provider, {"nodes": {}})["nodes"][node] = image
    return found


async def save(environment: Environment, images: Table, folder: Path) -> dict[str, Path]:
    """Write the images of each provider that keeps some into a file, and add to the table what is in it: {name in the bundle: file}.

    Raises BundleError where no run tells of one, ProviderError where one is gone.
    """
    files: dict[str, Path] = {}
    for name, known in images.items():
        provider = Environment(environment.file, provider=name).provider()
        path = folder / f"{name}.tar"
        unique = {(item.get("name", ""), item["digest"]): item for item in known["nodes"].values()}
        saved = await provider.save_images(list(unique.values()), path)
        if saved:
            known |= {"archive": f"{IMAGES}/{name}.tar", "images": dict(sorted(saved.items()))}
            files[known["archive"]] = path
    if not files:
        raise BundleError("no recorded run has images that could go along", remedy="run a notebook on docker, then pack it with its images")
    return files


async def load(environment: Environment, folder: Path, images: Mapping[str, Any]) -> list[str]:
    """Give the environment's providers the images of an unpacked bundle that they lack; gives their names."""
    return [name for provider in environment.providers() for name in await _load(provider, folder, images.get(provider.name))]


async def _load(provider: Provider, folder: Path, known: Any) -> list[str]:
    if not isinstance(known, dict) or "archive" not in known:
        return []
    archive, names = known["archive"], known.get("images")
    if (
        archive != f"{IMAGES}/{provider.name}.tar"
        or not isinstance(names, dict)
        or not all(isinstance(item, str) for item in names.values())
    ):
        raise BundleError(f"{folder}: its table of images is damaged", remedy="get the bundle again")
    return await provider.load_images(folder / archive, names)
