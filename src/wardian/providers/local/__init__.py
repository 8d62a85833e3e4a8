"""Nodes made of Linux namespaces on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .provider import LocalProvider as LocalProvider
    from .provider import LocalSettings as LocalSettings

__all__ = ["LocalProvider", "LocalSettings"]


def __getattr__(name: str) -> Any:
    # imported at first use: a process that is forked into a node has need of `entry` only
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import provider

    return getattr(provider, name)
