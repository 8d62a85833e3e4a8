"""What a server is made from: which image, which flavour. Pure, but for what a cloud lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ProviderError
from .settings import OpenStackSettings


def flavor(node: str, spec: Mapping[str, Any], settings: OpenStackSettings, flavors: Sequence[Any]) -> Any:
    """The flavour that is named for a node, or the smallest that is large enough. Raises ProviderError."""
    chosen = next((settings.flavors[key] for key in (node, spec["group"], *spec["roles"]) if key in settings.flavors), settings.flavor)
    if chosen:
        found = [item for item in flavors if chosen in (item.name, item.id)]
        wrong = f"there is no flavour {chosen}"
    else:
        cpus, memory = spec["cpus"] or 0, (spec["memory"] or 0) / 2**20
        fitting = [item for item in flavors if item.vcpus >= cpus and item.ram >= memory and item.disk >= settings.disk]
        found = sorted(fitting, key=lambda item: (item.vcpus, item.ram, item.disk))
        wrong = f"no flavour has {cpus:g} processors, {memory:g} MiB of memory and {settings.disk} GiB of disk"
    if not found:
        there = ", ".join(sorted(f"{item.name} ({item.vcpus} cpus, {item.ram} MiB, {item.disk} GiB)" for item in flavors)) or "none"
        raise ProviderError(wrong, resource=f"node {node}", remedy=f"There are: {there}.")
    return found[0]


def image(node: str, spec: Mapping[str, Any], settings: OpenStackSettings, images: Sequence[Any]) -> Any:
    """The image that is named for a node: by its name, its id, or as property=value,…; the newest of them. Raises ProviderError."""
    chosen = spec["image"] or settings.image
    matching = [item for item in images if chosen in (item.name, item.id)]
    if not matching and chosen and "=" in chosen:
        wanted = dict(part.strip().split("=", 1) for part in chosen.split(",") if "=" in part)
        matching = [item for item in images if all(_property(item, key) == value for key, value in wanted.items())]
    if not matching:
        there = ", ".join(sorted({item.name for item in images if item.name})) or "none"
        message = f"there is no image {chosen}" if chosen else "no image is named"
        raise ProviderError(message, resource=f"node {node}", remedy=f"Set `image`; there are: {there}.")
    return max(matching, key=lambda item: item.created_at)


def checksum(image: Any) -> str:
    """What tells an image's content from any other, as Glance says: "sha512:…"."""
    if image.hash_algo and image.hash_value:
        return f"{image.hash_algo}:{image.hash_value}"
    return f"md5:{image.checksum}" if image.checksum else ""


def _property(image: Any, key: str) -> str | None:
    value = {**(image.properties or {})}.get(key, getattr(image, key, None))
    return None if value is None else str(value)
