"""Numbers as they stand in text, with their units, and how far two of them may be apart. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

TIME, RATE, SIZE, PERCENT, RATIO = "time", "rate", "size", "percentage", "ratio"

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _units() -> dict[str, tuple[str, float]]:
    units = {name: (TIME, size) for name, size in {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3}.items()}
    units |= dict.fromkeys(("s", "sec", "secs", "second", "seconds"), (TIME, 1.0))
    units |= {"min": (TIME, 60.0), "minutes": (TIME, 60.0), "h": (TIME, 3600.0), "hours": (TIME, 3600.0)}
    for prefix, size in _DECIMAL.items():
        units |= {f"{prefix}{bit}": (RATE, size) for bit in ("bit/s", "bits/s", "bits/sec", "bps", "b/s")}
        units |= {f"{prefix}{byte}": (RATE, 8 * size) for byte in ("B/s", "Bytes/sec", "bytes/s")}
        units |= {f"{prefix}{byte}": (SIZE, size) for byte in (("B", "Bytes") if prefix else ("B", "bytes", "byte", "Bytes"))}
    for prefix, size in _BINARY.items():
        units |= {f"{prefix}B/s": (RATE, 8 * size), f"{prefix}B": (SIZE, size)}
    return {**units, "%": (PERCENT, 1.0), "x": (RATIO, 1.0), "×": (RATIO, 1.0)}


UNITS = _units()
"""{unit as it is written: (dimension, its size in seconds, bits a second, bytes, or one)}"""

_DIGITS = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
# What begins or ends within a word, a version or an address is a name and no number: client-0, v2, 3.11.2, 5th.
_NUMBER = re.compile(
    rf"(?<![\w.])(?<![A-Za-z_]-)(?:(?<![\w)\]])[-+−])?(?:(?P<digits>{_DIGITS})(?![0-9]|\.[0-9])|(?:nan|NaN|inf|Inf|infinity)(?!\w))"
)
_UNIT = re.compile(r"([ \u00a0]?)([A-Za-zµμ]+(?:/[A-Za-z]+)?|[%×])(?![\w/])")


@dataclass(frozen=True, slots=True)
class Number:
    """A number in text. value: in seconds, bits a second or bytes where it has such a unit; step: what its last digit is worth."""

    text: str
    value: float
    dimension: str
    step: float

    @property
    def whole(self) -> bool:
        """Whether it is written without a fraction and a unit: a count, most likely."""
        return not self.dimension and bool(re.fullmatch(r"[-+−]?[0-9]+", self.text))

    @property
    def measured(self) -> bool:
        """Whether its unit says that it comes from a clock or a counter."""
        return self.dimension in (TIME, RATE)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart two numbers may be: relative to the larger of them, or `absolute`, for numbers of this dimension or (None) of any."""

    relative: float = 0.0
    absolute: float = 0.0
    dimension: str | None = None

    def covers(self, number: Number) -> bool:
        """Whether it is about such a number."""
        return self.dimension is None or self.dimension == number.dimension

    def accepts(self, old: float, new: float) -> bool:
        """Whether they are that close. Symmetric."""
        if math.isnan(old) or math.isnan(new):
            return math.isnan(old) and math.isnan(new)
        return old == new or math.isclose(old, new, rel_tol=self.relative, abs_tol=self.absolute)


def find(text: str, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, int, Number]]:
    """The numbers in a text, with their units: begin, end and number."""
    end = len(text) if end is None else end
    for match in _NUMBER.finditer(text, begin, end):
        stop = match.end()
        unit = _UNIT.match(text, stop, end) if match["digits"] else None
        if unit is not None and unit[2] in UNITS:
            yield match.start(), unit.end(), _number(match, text[match.start() : unit.end()], *UNITS[unit[2]])
        elif stop == end or not (text[stop].isalnum() or text[stop] == "_"):
            yield match.start(), stop, _number(match, match[0], "", 1.0)


def parse(text: str) -> Number | None:
    """The number that a text is, with its unit and nothing else, or None."""
    found = next(find(text), None)
    return found[2] if found and found[:2] == (0, len(text)) else None


def _number(match: re.Match[str], text: str, dimension: str, size: float) -> Number:
    sign, digits = (-1.0 if text[0] in "-−" else 1.0), match["digits"]
    if digits is None:
        return Number(text, sign * float(text.lstrip("-+−")), "", 0.0)
    mantissa, _, exponent = digits.lower().partition("e")
    # an exponent of thousands of digits is infinity to float(), and no reason to fail
    power = max(min(int(exponent or 0), 400), -400) - len(mantissa.partition(".")[2])
    step = 10.0**power if -300 < power < 300 else 0.0
    return Number(text, sign * float(digits) * size, dimension, step * size)


def of_value(value: float | int, text: str | None = None) -> Number:
    """A number that was never text."""
    return Number(repr(value) if text is None else text, float(value), "", 0.0)


def parse_tolerances(text: str) -> tuple[Tolerance, ...]:
    """Tolerances from `5%`, `2ms`, `0.01` or several with commas between. Raises ValueError with what was expected."""
    return tuple(_tolerance(part.strip()) for part in text.split(","))


def _tolerance(text: str) -> Tolerance:
    number = parse(text.removeprefix("±").strip())
    if number is None or number.value < 0 or not math.isfinite(number.value):
        raise ValueError("a tolerance such as 5%, 2ms, 0.01, or several with commas between")
    if number.dimension == PERCENT:
        return Tolerance(relative=number.value / 100)
    return Tolerance(absolute=number.value, dimension=number.dimension or None)


def change(old: float, new: float) -> str:
    """By how much a number changed, in words: `+98 %`."""
    if not (math.isfinite(old) and math.isfinite(new)):
        return ""
    if old == 0:
        return ""
    ratio = new / old - 1
    if abs(ratio) >= 10:
        return f"×{new / old:.3g}"
    return f"{100 * ratio:+.3g} %"
