"""What a user asks for: the model, the file, selectors, and the plan from what exists to what is wanted. Pure: no I/O."""

from __future__ import annotations

from .model import Experiment

__all__ = ["Experiment"]
