"""Quantities: what is read, what is refused, and that what is written reads back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardian.experiment import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30ms", 0.03), ("1.5s", 1.5), ("10min", 600), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1h 30min", 5400), ("100us", 1e-4),
     ("100µs", 1e-4), ("1d", 86400), ("0", 0), (0, 0), ("3e1ms", 0.03), ("0ms", 0), (" 5 s ", 5), ("0.1ms", 0.0001)],
)  # fmt: skip
def test_durations_are_read(text: object, seconds: float) -> None:
    """A duration in any accepted spelling is the number of seconds that it says."""
    assert units.parse_duration(text) == seconds


def test_seconds_of_a_program() -> None:
    """Where a program may give a number of seconds, that is what it is; text still needs its unit."""
    assert [units.as_seconds(value) for value in (7200.0, 30, 0, "30min")] == [7200, 30, 0, 1800]
    for value in (-1, float("nan"), float("inf"), True, None, "30"):
        with pytest.raises(ValueError, match=r"such as|not negative"):
            units.as_seconds(value)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("100mbit", 10**8), ("1.5Gbit", 15 * 10**8), ("56kbps", 56_000), ("8bit", 8), ("10 mbit/s", 10**7), (1000, 1000), ("2.5e3", 2500)],
)
def test_rates_are_read(text: object, bits: int) -> None:
    """A rate in any accepted spelling is the number of bits a second that it says."""
    assert units.parse_rate(text) == bits


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2**31),
        ("64KiB", 65536),
        ("100MB", 10**8),
        ("5", 5),
        (5, 5),
        ("1.5KiB", 1536),
        ("9007199254740993B", 9007199254740993),
        ("512M", 2**29),
    ],
)
def test_sizes_are_read(text: object, size: int) -> None:
    """A size in any accepted spelling is the number of bytes that it says, exactly."""
    assert units.parse_size(text) == size


@pytest.mark.parametrize(("text", "fraction"), [("0.05%", 0.0005), ("0.1%", 0.001), (0.25, 0.25), ("1", 1.0), ("100%", 1.0), ("0", 0.0)])
def test_fractions_are_read(text: object, fraction: float) -> None:
    """A percentage and a fraction are the same float."""
    assert units.parse_fraction(text) == fraction


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        *[
            (units.parse_duration, value)
            for value in ("30", 30, "", "ms", "-5ms", "1x", "5 ms 3", "9e999s", True, None, [], "1s\n2", "9" * 400 + "s")
        ],
        *[(units.parse_rate, value) for value in ("0", "0.1bit", "10MBps", "10MB/s", "fast", "9e999", "1e300gbit", None, False)],
        *[(units.parse_size, value) for value in ("2gb", "1 parsec", "-1", "1e999", "9" * 400, 1e300, None, True)],
        *[(units.parse_fraction, value) for value in ("101%", "1.5", "-0.1", "half", "1e999", None, True)],
    ],
)
def test_what_is_no_quantity_is_refused_with_an_example(parse: object, value: object) -> None:
    """Anything else raises ValueError, and the message shows how it is written."""
    with pytest.raises(ValueError, match=r"such as") as caught:
        parse(value)  # type: ignore[operator]
    assert any(character.isdigit() for character in str(caught.value))


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    """No text raises anything but ValueError."""
    for parse in (units.parse_duration, units.parse_rate, units.parse_size, units.parse_fraction):
        with suppress(ValueError):
            assert parse(text) >= 0


@given(st.floats(0, 1e12, allow_nan=False))
def test_durations_read_back(seconds: float) -> None:
    """A duration that is written out reads back as the same float."""
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@given(st.integers(1, 10**18))
def test_rates_read_back(bits: int) -> None:
    """A rate that is written out reads back as the same number of bits."""
    assert units.parse_rate(units.format_rate(bits)) == bits


@given(st.integers(0, 10**18))
def test_sizes_read_back(size: int) -> None:
    """A size that is written out reads back as the same number of bytes."""
    assert units.parse_size(units.format_size(size)) == size


@given(st.floats(0, 1))
def test_fractions_read_back(fraction: float) -> None:
    """A fraction that is written out reads back as the same float."""
    assert units.parse_fraction(units.format_fraction(fraction)) == fraction


def test_quantities_are_written_as_people_write_them() -> None:
    """The largest unit that keeps the number short is chosen."""
    assert [units.format_duration(value) for value in (0.03, 0, 1.5, 600, 7200, 90, 86400, 1e-4)] == [
        "30ms", "0ms", "1.5s", "10min", "2h", "90s", "1d", "100us"]  # fmt: skip
    assert [units.format_rate(value) for value in (10**8, 1500, 5, 25 * 10**8)] == ["100mbit", "1.5kbit", "5bit", "2.5gbit"]
    assert [units.format_size(value) for value in (2**31, 1000, 65536)] == ["2GiB", "1000B", "64KiB"]
    assert [units.format_fraction(value) for value in (0.0005, 1, 0)] == ["0.05%", "100%", "0%"]
