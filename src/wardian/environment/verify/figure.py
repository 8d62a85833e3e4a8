"""A report as a figure: what is written, what is accepted, and what was measured, side by side."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ...errors import MissingToolError

if TYPE_CHECKING:
    from .report import Check, Report

SCALES = {
    "delay": (1e3, "ms"),
    "round trip": (1e3, "ms"),
    "jitter": (1e3, "ms"),
    "queue": (1e3, "ms"),
    "loss": (100.0, "%"),
    "loss both ways": (100.0, "%"),
    "duplicate": (100.0, "%"),
    "reorder": (100.0, "%"),
    "rate": (1e-6, "Mbit/s"),
    "mtu": (1.0, "bytes"),
}
COLOURS = {True: "#2a7a3b", False: "#c0392b", None: "#7f8c8d"}


def draw(report: Report, path: str) -> None:
    """Draw a report into a file, whose name says the format. Raises MissingToolError without matplotlib."""
    try:
        canvas = importlib.import_module("matplotlib.backends.backend_agg")
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingToolError("a figure takes matplotlib", remedy="pip install 'wardian[data]'") from error
    panels = [(what, checks) for what in SCALES if (checks := [item for item in report.checks if item.what == what])]
    rows = max(sum(len(checks) for _, checks in panels), 1)
    figure = figures.Figure(figsize=(9, 1.2 * max(len(panels), 1) + 0.28 * rows), layout="constrained")
    canvas.FigureCanvasAgg(figure)
    heights = [len(checks) + 1.5 for _, checks in panels] or [1]
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (what, checks), axis in zip(panels, axes[:, 0], strict=False):
        _panel(axis, what, checks)
    figure.suptitle(report.summary(), fontsize=10)
    figure.savefig(path)


def _panel(axis: Any, what: str, checks: list[Check]) -> None:
    scale, unit = SCALES[what]
    for position, check in enumerate(checks):
        if check.low is not None and check.high is not None:
            axis.barh(position, (check.high - check.low) * scale, left=check.low * scale, height=0.6, color="#dfe6e9", zorder=1)
        if check.expected is not None:
            axis.plot([check.expected * scale] * 2, [position - 0.3, position + 0.3], color="#2d3436", linewidth=1.2, zorder=2)
        if check.measured is not None:
            axis.plot(check.measured * scale, position, "o", color=COLOURS[check.ok], markersize=5, zorder=3)
    axis.set_yticks(range(len(checks)), [f"{check.source} → {check.target}" for check in checks], fontsize=8)
    axis.set_ylim(len(checks) - 0.4, -0.6)
    axis.set_title(f"{what}, {unit}", loc="left", fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.margins(x=0.08)
