"""Nodes made of Linux namespaces on this host."""

from .provider import LocalProvider, LocalSettings

__all__ = ["LocalProvider", "LocalSettings"]
