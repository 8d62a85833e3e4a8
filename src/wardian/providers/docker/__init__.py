"""Nodes that are containers of a Docker Engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .provider import DockerProvider as DockerProvider
    from .provider import DockerSettings as DockerSettings

__all__ = ["DockerProvider", "DockerSettings"]


def __getattr__(name: str) -> Any:
    # imported at first use: most processes have need of none of it
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import provider

    return getattr(provider, name)
