"""What a sweep measured, against what was varied: a figure for each column of numbers."""

from __future__ import annotations

import importlib
import itertools
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MissingToolError
from ..rows import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by colour-blind people, too."""
MARKERS = "osD^vP*"
MOST_VALUES, MOST_PANELS, MOST_FIGURES = 7, 6, 24
"""Values of a dimension that are drawn, panels in a figure, and figures."""
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z%/]*)")


@dataclass(frozen=True)
class Dimension:
    """Something that rows differ in: a parameter, or a column of text. values: in order."""

    name: str
    values: tuple[Any, ...]

    def scale(self) -> tuple[list[float], list[str], str]:
        """Where its values lie on an axis, with their labels and the axis's: to scale if all are numbers of one unit, else side by side."""
        found = [_QUANTITY.fullmatch(str(value)) for value in self.values]
        units = {match[2] for match in found if match}
        if all(found) and len(units) == 1:
            (unit,) = units
            numbers = [match[1] for match in found if match]
            return [float(number) for number in numbers], numbers, f"{self.name}, {unit}" if unit else self.name
        return [float(place) for place in range(len(self.values))], [str(value) for value in self.values], self.name


def draw(rows: Sequence[Row], parameters: Sequence[str], known: Sequence[str], folder: Path) -> list[Path]:
    """Draw each column of measured numbers; gives the files. Raises MissingToolError without matplotlib.

    parameters: the columns that were varied; known: all columns that were not measured. The first dimension is the horizontal axis, the
    second is told by colour and marker, further ones by panels. Dots are rows, lines go through medians, bars hold the middle half.
    """
    try:
        backend = importlib.import_module("matplotlib.backends.backend_agg")
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingToolError("figures take matplotlib", remedy="pip install 'wardian[data]'") from error
    found = list(dimensions(rows, parameters, known))
    paths = []
    for name in list(measured(rows, known))[:MOST_FIGURES]:
        figure = figures.Figure(layout="constrained")
        backend.FigureCanvasAgg(figure)
        _fill(figure, name, [row for row in rows if _is_number(row.get(name))], found)
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / (re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_") + ".png"))
        figure.savefig(paths[-1], dpi=130)
    return paths


def dimensions(rows: Sequence[Row], parameters: Sequence[str], known: Sequence[str]) -> Iterator[Dimension]:
    """What tells rows apart: parameters with several values, and columns of text whose few values occur at every combination of these."""
    for name in [*parameters, *dict.fromkeys(name for row in rows for name in row if name not in known)]:
        values = tuple(dict.fromkeys(row[name] for row in rows if row.get(name) is not None))
        if len(values) > 1 and (name in parameters or _crossed(rows, parameters, name, values)):
            yield Dimension(name, values)


def _crossed(rows: Sequence[Row], parameters: Sequence[str], name: str, values: Sequence[Any]) -> bool:
    if len(values) > MOST_VALUES or not all(isinstance(value, str) for value in values):
        return False
    found: dict[tuple[Any, ...], set[Any]] = {}
    for row in rows:
        if row.get(name) is not None:
            found.setdefault(tuple(row.get(parameter) for parameter in parameters), set()).add(row[name])
    return all(len(each) == len(values) for each in found.values())


def measured(rows: Sequence[Row], known: Sequence[str]) -> Iterator[str]:
    """The columns of numbers that runs wrote down."""
    for name in dict.fromkeys(name for row in rows for name in row if name not in known):
        values = [row[name] for row in rows if row.get(name) is not None]
        if values and all(_is_number(value) for value in values):
            yield name


def _fill(figure: Any, name: str, rows: Sequence[Row], found: Sequence[Dimension]) -> None:
    across, series, *rest = [*found, *[Dimension("", ("",))] * max(2 - len(found), 0)]
    panels = list(itertools.islice(itertools.product(*(item.values for item in rest)), MOST_PANELS))
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure.set_size_inches(1.2 + 4.4 * columns, 0.6 + 3.2 * lines)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axis, panel in itertools.zip_longest(axes.flat, panels):
        if panel is None:
            axis.set_visible(False)
            continue
        shown = [
            row for row in rows if all(item.name == "" or row.get(item.name) == value for item, value in zip(rest, panel, strict=True))
        ]
        _panel(axis, name, shown, across, series)
        axis.set_title(", ".join(f"{item.name}={value}" for item, value in zip(rest, panel, strict=True) if item.name), fontsize=9)
    axes[0][0].set_ylabel(name)
    if series.name:
        axes[0][0].legend(title=series.name, fontsize=8, title_fontsize=8)


def _panel(axis: Any, name: str, rows: Sequence[Row], across: Dimension, series: Dimension) -> None:
    places, labels, title = across.scale()
    step = min((abs(b - a) for a, b in itertools.pairwise(sorted(set(places)))), default=1.0)
    for number, value in enumerate(series.values):
        own = [row for row in rows if not series.name or row.get(series.name) == value]
        # series side by side, so that none hides another
        shift = step * 0.06 * (number - (len(series.values) - 1) / 2)
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        middles = []
        for place, point in zip(places, across.values, strict=True):
            numbers = sorted(float(row[name]) for row in own if not across.name or row.get(across.name) == point)
            if not numbers:
                continue
            axis.plot([place + shift] * len(numbers), numbers, linestyle="", markersize=3, alpha=0.45, **look)
            low, middle, high = _quartiles(numbers)
            axis.plot([place + shift] * 2, [low, high], color=look["color"], linewidth=4, alpha=0.35, solid_capstyle="butt")
            middles.append((place + shift, middle))
        axis.plot(*zip(*middles, strict=True) if middles else ([], []), linewidth=1.4, markersize=6, label=str(value), **look)
    axis.set_xticks(places, labels)
    axis.set_xlabel(title)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.08)


def _quartiles(ordered: Sequence[float]) -> tuple[float, float, float]:
    if len(ordered) == 1:
        return ordered[0], ordered[0], ordered[0]
    low, middle, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return low, middle, high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
