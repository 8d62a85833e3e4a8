"""`wardian doctor` for this provider: everything is tried, not guessed."""

from __future__ import annotations

from ..base import Finding
from .state import State


def diagnose(state: State) -> list[Finding]:
    """What works here. Blocking."""
    return []
