"""The durable record of what happened: operations, runs, cells and their output, transfers and events.

Importing this is cheap: the database's libraries are loaded when a journal is opened.
"""

from .journal import CellEntry, Entry, Journal
from .postgres import told as journal_changes
from .records import Fact, LogEntry, Output, RunRecord

__all__ = ["CellEntry", "Entry", "Fact", "Journal", "LogEntry", "Output", "RunRecord", "journal_changes"]
