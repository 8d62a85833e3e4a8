"""Values as files: what comes back equals what was written, and nothing is unpickled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardian.kernel.values import UnmovableValue, dump, load


def there_and_back(value: Any, folder: Path) -> Any:
    path = folder / "value"
    path.unlink(missing_ok=True)
    dump(value, str(path))
    result = load(str(path))
    path.unlink()
    return result


numbers = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
leaves = st.none() | numbers | st.text() | st.binary(max_size=20)
hashable = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
plain_values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.frozensets(hashable, max_size=4)
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(plain_values)
def test_plain_values_are_exact(tmp_path: Path, value: Any) -> None:
    """Any nesting of plain values comes back equal and of the same types."""
    result = there_and_back(value, tmp_path)
    assert result == value
    assert repr(type(result)) == repr(type(value))


def test_odd_floats(tmp_path: Path) -> None:
    """NaN and the infinities are values like others."""
    nan, infinity = there_and_back([math.nan, -math.inf], tmp_path)
    assert math.isnan(nan)
    assert infinity == -math.inf


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12, dtype="i4").reshape(3, 4),
        numpy.asfortranarray(numpy.random.default_rng(1).normal(size=(300, 500))),
        numpy.array(3.5),
        numpy.array([], dtype="f4"),
        numpy.array(["2024-01-01", "NaT"], dtype="M8[D]"),
        numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("ä", "f8")]),
        numpy.array(["x", "yz"]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays(tmp_path: Path, array: numpy.ndarray) -> None:
    """Arrays of all kinds but objects come back with their dtype and shape, also the large ones that are mapped; they can be changed."""
    result = there_and_back(array, tmp_path)
    assert type(result) is numpy.ndarray
    assert result.dtype == array.dtype
    numpy.testing.assert_array_equal(result, array)
    if result.size:
        result.flat[0] = result.flat[-1]


def test_numpy_scalars(tmp_path: Path) -> None:
    """A NumPy number stays one, alone and within a dict."""
    assert type(there_and_back(numpy.float32(1.5), tmp_path)) is numpy.float32
    inner = there_and_back({"mean": numpy.float64(0.1)}, tmp_path)["mean"]
    assert type(inner) is numpy.float64
    assert inner == numpy.float64(0.1)


def test_frames(tmp_path: Path) -> None:
    """Frames and series come back with index, names, categories and time zones."""
    frame = pandas.DataFrame(
        {
            "a": [1, 2, 3],
            "b": ["x", None, "z"],
            "t": pandas.date_range("2024-01-01", periods=3, tz="UTC"),
            "c": pandas.Categorical(["u", "v", "u"]),
        },
        index=pandas.Index([10, 20, 30], name="key"),
    )
    pandas.testing.assert_frame_equal(there_and_back(frame, tmp_path), frame)
    series = pandas.Series([1.0, 2.0], name="rate")
    pandas.testing.assert_series_equal(there_and_back(series, tmp_path), series)
    unnamed = there_and_back(pandas.Series([1]), tmp_path)
    assert unnamed.name is None


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (Odd(), "Odd"),
        ([1, Odd()], r"it\[1\]"),
        (numpy.array([Odd()], dtype=object), "objects"),
        (pandas.DataFrame({"a": [1, "x", Odd()]}), "column"),
        (lambda: 1, "function"),
        ({"frame": pandas.DataFrame()}, r"it\['frame'\]"),
    ],
)
def test_others_are_refused(tmp_path: Path, value: Any, what: str) -> None:
    """What has no exact form is refused with the type or the place named, and leaves no file."""
    with pytest.raises(UnmovableValue, match=what):
        dump(value, str(tmp_path / "value"))
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    """An array of objects in a file, which only pickle can read, is an error and runs nothing."""

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    good = tmp_path / "good"
    dump(numpy.zeros(2), str(good))
    head = good.read_bytes()
    length = 8 + int.from_bytes(head[:8], "big")
    payload = tmp_path / "objects.npy"
    numpy.save(payload, numpy.array([Trap()], dtype=object), allow_pickle=True)
    bad = tmp_path / "bad"
    bad.write_bytes(head[:length] + payload.read_bytes())
    with pytest.raises(ValueError, match="allow_pickle"):
        load(str(bad))
    assert not (tmp_path / "sprung").exists()
