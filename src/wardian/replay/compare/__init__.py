"""What a recorded execution printed and showed, compared with a new one. Pure: no I/O, no asyncio."""

from .outputs import Message
from .results import CellComparison, Comparison, Difference, Finding, Place, Test, Times, Verdict
from .rules import RuleError, Rules, rules
from .runs import ExecutedCell, ExecutedRun, compare

__all__ = [
    "CellComparison",
    "Comparison",
    "Difference",
    "ExecutedCell",
    "ExecutedRun",
    "Finding",
    "Message",
    "Place",
    "RuleError",
    "Rules",
    "Test",
    "Times",
    "Verdict",
    "compare",
    "rules",
]
