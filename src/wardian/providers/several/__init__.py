"""Environments that grow at several sites. See `docs/several-sites.md`."""

from .provider import SeveralProvider

__all__ = ["SeveralProvider"]
