"""Quantities as people write them (`30ms`, `100mbit`, `0.05%`, `2GiB`), kept as plain numbers.

Durations are seconds, rates bits a second, sizes bytes, fractions between 0 and 1. Each `parse_` function
raises ValueError with what it expected; each `format_` function writes the shortest text that parses back to
the same number. The arithmetic is decimal, so that no digit that was written is lost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

DURATION_UNITS = {
    "us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60), "min": Decimal(60),
    "h": Decimal(3600), "d": Decimal(86400),
}  # fmt: skip
RATE_UNITS = {"bit": Decimal(1), "kbit": Decimal(10**3), "mbit": Decimal(10**6), "gbit": Decimal(10**9)}
SIZE_UNITS = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
}  # fmt: skip
RATE_ALIASES = {"bps": "bit", "kbps": "kbit", "mbps": "mbit", "gbps": "gbit", "bit/s": "bit", "kbit/s": "kbit",
                "mbit/s": "mbit", "gbit/s": "gbit"}  # fmt: skip

DURATION = "a duration with its unit, such as 30ms, 1.5s, 10min or 2h"
RATE = "a rate such as 100mbit, 1gbit or 56kbit"
SIZE = "a size such as 512MiB, 2GiB or 64KiB"
FRACTION = "a percentage such as 0.05%, or a fraction between 0 and 1"

NUMBER_PATTERN = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
_QUANTITY = re.compile(rf"\s*({NUMBER_PATTERN})\s*([A-Za-z/%]*)\s*")
_TERM = re.compile(rf"\s*({NUMBER_PATTERN})\s*([A-Za-z]+)\s*")
# A bound far beyond any use, which keeps arithmetic finite and every result within 64 bits.
_LARGEST = Decimal(10**18)


def parse_duration(value: object) -> float:
    """Seconds from `30ms`, `1.5s`, `1h30m`, or 0. A bare number other than 0 has no unit and is refused."""
    text = _text(value, DURATION).replace("µ", "u").replace("μ", "u")
    if text.strip() in ("0", "0.0"):
        return 0.0
    total, position = Decimal(0), 0
    while position < len(text):
        match = _TERM.match(text, position)
        if not match or match[2].lower() not in DURATION_UNITS:
            raise ValueError(DURATION)
        total += _number(match[1], DURATION) * DURATION_UNITS[match[2].lower()]
        position = match.end()
    if not position or total > _LARGEST:
        raise ValueError(DURATION)
    return float(total)


def as_seconds(value: object) -> float:
    """Seconds from a number of them, as Python programs give, or from text as `parse_duration` reads it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return parse_duration(value)
    if not 0 <= value <= _LARGEST:
        raise ValueError("a number of seconds that is not negative")
    return float(value)


def parse_rate(value: object) -> int:
    """Bits a second from `100mbit`, `1.5Gbit`, `56kbps`. A bare number is bits a second; a capital B (bytes) is refused."""
    number, unit = _split(_text(value, RATE), RATE)
    name = RATE_ALIASES.get(unit.lower(), unit.lower()) or "bit"
    if name not in RATE_UNITS or "B" in unit:
        raise ValueError(RATE)
    bits = round(number * RATE_UNITS[name])
    if not 1 <= bits <= _LARGEST:
        raise ValueError(RATE)
    return bits


def parse_size(value: object) -> int:
    """Bytes from `2GiB`, `64KiB`, `100MB`. A bare number is bytes."""
    number, unit = _split(_text(value, SIZE), SIZE)
    if unit and unit not in SIZE_UNITS:
        raise ValueError(SIZE)
    size = round(number * SIZE_UNITS.get(unit, 1))
    if size > _LARGEST:
        raise ValueError(SIZE)
    return size


def parse_fraction(value: object) -> float:
    """A fraction from `0.05%` or `0.0005`, between 0 and 1."""
    number, unit = _split(_text(value, FRACTION), FRACTION)
    if unit not in ("", "%"):
        raise ValueError(FRACTION)
    fraction = float(number / 100 if unit else number)
    if not 0 <= fraction <= 1:
        raise ValueError(FRACTION)
    return fraction


def format_duration(seconds: float) -> str:
    """`0.03` as `30ms`."""
    exact = _exact(seconds)
    if not exact:
        return "0ms"
    for unit in ("d", "h", "min"):
        if exact >= DURATION_UNITS[unit] and exact % DURATION_UNITS[unit] == 0:
            return _plain(exact / DURATION_UNITS[unit]) + unit
    return _in_largest(exact, DURATION_UNITS, ("s", "ms", "us"))


def format_rate(bits: float) -> str:
    """`100000000` as `100mbit`."""
    return _in_largest(_exact(bits), RATE_UNITS, ("gbit", "mbit", "kbit", "bit"))


def format_size(size: int) -> str:
    """`2147483648` as `2GiB`; a number that no unit divides stays in bytes."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= SIZE_UNITS[unit] and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def approximate_size(size: int) -> str:
    """`1536000000` as `1.4 GiB`: for people, not for a file."""
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def format_fraction(fraction: float) -> str:
    """`0.0005` as `0.05%`."""
    return _plain(_exact(fraction) * 100) + "%"


def _text(value: object, expected: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)
    return value if isinstance(value, str) else repr(value)


def _split(text: str, expected: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(expected)
    return _number(match[1], expected), match[2]


def _number(text: str, expected: str) -> Decimal:
    size = float(text)
    if not math.isfinite(size) or size > _LARGEST:
        raise ValueError(expected)
    return Decimal(text) if size else Decimal(0)


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


def _in_largest(value: Decimal, units: Mapping[str, Decimal], order: Sequence[str]) -> str:
    unit = next((unit for unit in order if value >= units[unit]), order[-1])
    return _plain(value / units[unit]) + unit


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
