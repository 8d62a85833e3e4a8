"""What a notebook measured, as rows of a table: written down by its cells, and read from its outputs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MIME = "application/vnd.wardian.rows+json"
"""{"columns": [names], "rows": [[values]]}; values are numbers, text, truth values or null."""
LARGEST = 1_000_000
"""Most values in one call: what is more makes a notebook that nothing opens."""
SHOWN = 20

Row = dict[str, Any]


def record(rows: Any = None, /, **columns: Any) -> None:
    """Write down what was measured, as one row or several; the notebook keeps them, and `wardian sweep` gathers them from all runs.

    wardian.record(player=1, bitrate=3.67)                   one row
    wardian.record([{"player": 1, "bitrate": 3.67}, …])      several
    wardian.record(frame, phase="loaded")                    a pandas DataFrame's, each with a further column

    columns: of every row. Values are numbers (NumPy's, too; NaN becomes None), text, truth values, None, and times, which become text in
    the form of ISO 8601.
    Raises TypeError for other values, and ValueError for more than a million.
    """
    from IPython.display import publish_display_data

    found = [{**row, **columns} for row in ([{}] if rows is None else _rows(rows))]
    names = list(dict.fromkeys(name for row in found for name in row))
    if len(found) * len(names) > LARGEST:
        raise ValueError(f"{len(found)} rows of {len(names)} columns are too much for a notebook: write a file, and name it in `collect:`")
    values = [[_plain(name, row.get(name)) for name in names] for row in found]
    publish_display_data({MIME: {"columns": names, "rows": values}, "text/plain": _text(names, values)})


def rows_of(document: Mapping[str, Any]) -> list[Row]:
    """All rows that a notebook's cells wrote down, in its order. document: as nbformat reads it."""
    return [dict(zip(table["columns"], row, strict=True)) for table in _tables(document) for row in table["rows"]]


def _tables(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for cell in document["cells"]:
        for output in cell.get("outputs", ()):
            if MIME in output.get("data", {}):
                yield output["data"][MIME]


def _rows(rows: Any) -> Iterable[Mapping[str, Any]]:
    if hasattr(rows, "to_dict") and hasattr(rows, "reset_index"):
        frame = rows.to_frame() if not hasattr(rows, "columns") else rows
        named = any(name is not None for name in frame.index.names)
        records: list[Row] = (frame.reset_index() if named else frame).to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in records]
    if isinstance(rows, Mapping):
        return [rows]
    found = list(rows)
    for row in found:
        if not isinstance(row, Mapping):
            raise TypeError(f"a row is a mapping from columns to values, not {type(row).__name__}")
    return found


def _plain(name: str, value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "isoformat"):
        # pandas has a time that is none
        return value.isoformat() if value == value else None
    raise TypeError(f"{name}: a value is a number, text, a truth value or None, not {type(value).__name__}")


def _text(names: list[str], values: list[list[Any]]) -> str:
    shown = [[_short(value) for value in row] for row in values[:SHOWN]]
    widths = [max(map(len, column)) for column in zip(names, *shown, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [names, *shown]]
    return "\n".join(lines + ([f"and {len(values) - SHOWN} more rows"] if len(values) > SHOWN else []))


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
