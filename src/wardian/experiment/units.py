"""Quantities as people write them (`30ms`, `100mbit`, `0.05%`, `2GiB`), kept as plain numbers.

Durations are seconds, rates bits a second, sizes bytes, fractions between 0 and 1. Each `parse_` function
raises ValueError with what it expected; each `format_` function writes the shortest text that parses back to
the same number.
"""

from __future__ import annotations

import math
import re

DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
RATE_UNITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
SIZE_UNITS = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
}  # fmt: skip
RATE_ALIASES = {"bps": "bit", "kbps": "kbit", "mbps": "mbit", "gbps": "gbit", "bit/s": "bit", "kbit/s": "kbit",
                "mbit/s": "mbit", "gbit/s": "gbit"}  # fmt: skip

_QUANTITY = re.compile(r"^\s*([0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)\s*([A-Za-zµ/%]*)\s*$", re.IGNORECASE)
_COMPOUND = re.compile(r"^(?:\s*[0-9]+(?:\.[0-9]+)?\s*[a-zµ]+)+\s*$", re.IGNORECASE)


def _split(text: str, expected: str) -> tuple[float, str]:
    match = _QUANTITY.match(text)
    if not match:
        raise ValueError(expected)
    return float(match[1]), match[2]


def parse_duration(value: object) -> float:
    """Seconds from `30ms`, `1.5s`, `1h30m`, or 0. A bare number other than 0 has no unit and is refused."""
    expected = "a duration with its unit, such as 30ms, 1.5s, 10min or 2h"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)
    if not isinstance(value, str):
        if value == 0:
            return 0.0
        raise ValueError(expected)
    text = value.replace("µ", "u")
    if text.strip() == "0":
        return 0.0
    if not _COMPOUND.match(text):
        raise ValueError(expected)
    total = 0.0
    for number, unit in re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)", text, re.IGNORECASE):
        if unit.lower() not in DURATION_UNITS:
            raise ValueError(expected)
        total += float(number) * DURATION_UNITS[unit.lower()]
    return round(total, 9)


def parse_rate(value: object) -> int:
    """Bits a second from `100mbit`, `1.5Gbit`, `56kbps`. A bare number is bits a second."""
    expected = "a rate such as 100mbit, 1gbit or 56kbit"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)
    number, unit = _split(str(value), expected)
    unit = RATE_ALIASES.get(unit.lower(), unit.lower()) or "bit"
    if unit not in RATE_UNITS or number <= 0:
        raise ValueError(expected)
    return round(number * RATE_UNITS[unit])


def parse_size(value: object) -> int:
    """Bytes from `2GiB`, `64KiB`, `100MB`. A bare number is bytes."""
    expected = "a size such as 512MiB, 2GiB or 64KiB"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)
    number, unit = _split(str(value), expected)
    if unit not in SIZE_UNITS and unit:
        raise ValueError(expected)
    return round(number * SIZE_UNITS.get(unit, 1))


def parse_fraction(value: object) -> float:
    """A fraction from `0.05%` or `0.0005`, between 0 and 1."""
    expected = "a percentage such as 0.05%, or a fraction between 0 and 1"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)
    number, unit = _split(str(value), expected)
    if unit not in ("", "%"):
        raise ValueError(expected)
    # a division, so that 0.1% is the same float as 0.001
    fraction = number / 100 if unit else number
    if not 0 <= fraction <= 1:
        raise ValueError(expected)
    return fraction


def _shortest(value: float, units: dict[str, float], order: tuple[str, ...]) -> str:
    for unit in order:
        number = value / units[unit]
        if number >= 1 or unit == order[-1]:
            text = repr(round(number, 9))
            return (text[:-2] if text.endswith(".0") else text) + unit
    raise AssertionError("order is never empty")


def format_duration(seconds: float) -> str:
    """`0.03` as `30ms`."""
    if seconds == 0:
        return "0ms"
    for unit in ("d", "h"):
        if seconds >= DURATION_UNITS[unit] and math.isclose(seconds % DURATION_UNITS[unit], 0):
            return _shortest(seconds, DURATION_UNITS, (unit,))
    if seconds >= 60 and math.isclose(seconds % 60, 0):
        return _shortest(seconds, DURATION_UNITS, ("min",))
    return _shortest(seconds, DURATION_UNITS, ("s", "ms", "us"))


def format_rate(bits: float) -> str:
    """`100000000` as `100mbit`."""
    return _shortest(bits, RATE_UNITS, ("gbit", "mbit", "kbit", "bit"))


def format_size(size: int) -> str:
    """`2147483648` as `2GiB`; a number that no unit divides stays in bytes."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= SIZE_UNITS[unit] and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def format_fraction(fraction: float) -> str:
    """`0.0005` as `0.05%`."""
    text = repr(round(fraction * 100, 12))
    return (text[:-2] if text.endswith(".0") else text) + "%"
