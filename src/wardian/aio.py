"""The asynchronous mirror of the public API: the same names, whose methods are coroutines."""

from __future__ import annotations

from .environment.environment import Environment
from .environment.live import LiveEnvironment, NodeView, find

__all__ = ["Environment", "LiveEnvironment", "NodeView", "find"]
