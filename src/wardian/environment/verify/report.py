"""What was measured beside what is written: one check a quantity and direction, and whether all are as they should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...experiment import units

CONFIDENCE = 0.99
_Z = 2.5758
"""Standard deviations on each side that hold so much of a normal distribution."""

DELAY_ABSOLUTE, DELAY_RELATIVE = 0.001, 0.03
"""How far off a delay may be: a millisecond or three per cent, whichever is more."""
JITTER_ABSOLUTE, JITTER_RELATIVE = 0.001, 0.2
RATE_RELATIVE = 0.03
QUEUE_ABSOLUTE, QUEUE_RELATIVE = 0.003, 0.15
EXACT = 20_000
"""Packets up to which an interval of counts is counted out; beyond, and where losses come in bursts, it is approximated."""


@dataclass(frozen=True, slots=True)
class Check:
    """One quantity of one direction between two nodes.

    what: "delay", "jitter", "loss", "duplicate", "reorder", "rate", "queue" (the time that a full one takes), "mtu", or "round trip".
    Seconds, fractions, bits a second or bytes. low, high: what is accepted, None where there is no such bound.
    count: packets that it rests on. ok: None where it could not be decided; note says why, or what else is to be known.
    over: the directions of links that lie between.
    """

    source: str
    target: str
    over: tuple[str, ...]
    what: str
    expected: float | None
    measured: float | None
    low: float | None = None
    high: float | None = None
    count: int = 0
    ok: bool | None = None
    note: str = ""

    def row(self) -> list[str]:
        """For a table: from and to, over which links, what, the file's value, the measured one, what is accepted, packets, verdict."""
        write = WRITTEN[self.what]
        bounds = [write(bound) if bound is not None else "" for bound in (self.low, self.high)]
        verdict = {True: "ok", False: "FAILED", None: "?"}[self.ok]
        return [
            f"{self.source} -> {self.target}",
            ", ".join(self.over) or "-",
            self.what,
            "-" if self.expected is None else write(self.expected),
            "-" if self.measured is None else write(self.measured),
            " … ".join(bounds) if any(bounds) else "-",
            str(self.count or "-"),
            verdict + (f": {self.note}" if self.note else ""),
        ]


HEADER = ["FROM -> TO", "OVER", "WHAT", "FILE", "MEASURED", "ACCEPTED", "PACKETS", "VERDICT"]


@dataclass(frozen=True, slots=True)
class Report:
    """All that `verify` found. environment: its id. changed: links that are other than the file says. seconds: how long it took."""

    environment: str
    checks: tuple[Check, ...]
    changed: tuple[str, ...] = ()
    started: float = 0.0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is outside of what is accepted."""
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        """Those outside of what is accepted."""
        return [check for check in self.checks if check.ok is False]

    def to_json(self) -> dict[str, Any]:
        """As scripts read it."""
        return {"ok": self.ok, **asdict(self)}

    def text(self) -> str:
        """As people read it."""
        return "\n".join([*aligned([HEADER, *(check.row() for check in self.checks)]), "", self.summary()])

    def summary(self) -> str:
        """One line: how many are as they should be."""
        good = sum(check.ok is True for check in self.checks)
        open_ = sum(check.ok is None for check in self.checks)
        parts = [f"{good} as written", f"{len(self.failed)} not"] + ([f"{open_} undecided"] if open_ else [])
        note = f" ({', '.join(self.changed)}: changed since `up`)" if self.changed else ""
        return f"{', '.join(parts)}, in {self.seconds:.0f} s{note}"

    def figure(self, path: str) -> None:
        """Draw it into a file, whose name ends in .svg, .png or .pdf. Raises MissingToolError without matplotlib."""
        from .figure import draw

        draw(self, path)

    def __str__(self) -> str:
        return self.text()


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with their columns one below the other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def interval(count: int, share: float, dispersion: float = 1.0) -> tuple[float, float]:
    """The shares of `count` packets between which 99 % of experiments come out where each is lost with chance `share`.

    dispersion: how many times the variance is that of independent losses.
    """
    if not count or share in (0.0, 1.0):
        return share, share
    if dispersion == 1.0 and count <= EXACT:
        return _exact_interval(count, share)
    half = _Z * math.sqrt(count * share * (1 - share) * dispersion) + 0.5 * dispersion
    return max((count * share - half) / count, 0.0), min((count * share + half) / count, 1.0)


def _exact_interval(count: int, share: float) -> tuple[float, float]:
    tail, cumulated, low = (1 - CONFIDENCE) / 2, 0.0, None
    odds = math.log(share) - math.log1p(-share)
    chance = count * math.log1p(-share)
    for number in range(count + 1):
        cumulated += math.exp(chance)
        if low is None and cumulated > tail:
            low = number
        if cumulated >= 1 - tail:
            return (low or 0) / count, number / count
        chance += math.log(count - number) - math.log(number + 1) + odds
    return (low or 0) / count, 1.0


def packets_for(share: float, dispersion: float = 1.0, precision: float = 0.25) -> int:
    """How many packets tell a share to within a part of itself, at 99 % confidence; 2000 for a share of nothing."""
    if not 0 < share < 1:
        return 2000
    return math.ceil((_Z / precision) ** 2 * (1 - share) / share * dispersion)


def delay_bounds(expected: float, deviation: float, count: int) -> tuple[float, float]:
    """Between what a delay's mean is accepted."""
    slack = max(DELAY_ABSOLUTE, DELAY_RELATIVE * expected) + (_Z * deviation / math.sqrt(count) if count else 0.0)
    return max(expected - slack, 0.0), expected + slack


def around(expected: float, relative: float, absolute: float = 0.0) -> tuple[float, float]:
    """Between a value less and more a part of itself, or an absolute amount if that is more."""
    slack = max(absolute, relative * expected)
    return max(expected - slack, 0.0), expected + slack


def _seconds(value: float) -> str:
    return f"{value * 1e3:.2f} ms"


def _percent(value: float) -> str:
    return f"{value * 100:.4g}%"


def _rate(value: float) -> str:
    return units.format_rate(round(value)) if value < 1000 else units.format_rate(float(f"{value:.4g}"))


WRITTEN: Mapping[str, Callable[[float], str]] = {
    **dict.fromkeys(("delay", "jitter", "queue", "round trip"), _seconds),
    **dict.fromkeys(("loss", "duplicate", "reorder", "loss both ways"), _percent),
    "rate": _rate,
    "mtu": "{:.0f} bytes".format,
}
