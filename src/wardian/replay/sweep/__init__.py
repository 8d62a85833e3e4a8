"""One notebook, run for every combination of parameters, as often as asked, with one table of what came of it."""

from . import figures, results
from .grid import Point, grid, values
from .sweeping import Progress, Run, Sweep

__all__ = ["Point", "Progress", "Run", "Sweep", "figures", "grid", "results", "values"]
