"""Values as streams: what arrives equals what was sent, and nothing is unpickled unless that is asked for."""

from __future__ import annotations

import datetime
import io
import json
import math
import struct
import tracemalloc
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardian.kernel.values.encoding import UnmovableValue, describe, pack, unpack


class Source:
    """Bytes as what the other side sends."""

    def __init__(self, data: bytes) -> None:
        self.left = memoryview(data)

    def readinto(self, view: memoryview) -> None:
        if len(view) > len(self.left):
            raise UnmovableValue("the stream ended")
        view[:], self.left = self.left[: len(view)], self.left[len(view) :]


def packed(value: Any, **options: bool) -> bytes:
    parcel = pack(value, **options)
    data = bytearray(parcel.head)
    parcel.send(lambda piece: data.extend(memoryview(piece).cast("B")))
    assert len(data) == len(parcel.head) + parcel.size
    return bytes(data)


def unpacked(data: bytes, **options: bool) -> Any:
    source = Source(data)
    value = unpack(source, describe(source), **options)
    assert not len(source.left)
    return value


def there_and_back(value: Any, **options: bool) -> Any:
    return unpacked(packed(value, **options), **options)


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


@settings(deadline=None)
@given(plain_values)
def test_plain_values_are_exact(value: Any) -> None:
    """Any nesting of plain values comes back equal and of the same types."""
    result = there_and_back(value)
    assert result == value
    assert repr(type(result)) == repr(type(value))


def test_odd_floats() -> None:
    """NaN and the infinities are values like others."""
    nan, infinity = there_and_back([math.nan, -math.inf])
    assert math.isnan(nan)
    assert infinity == -math.inf


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12, dtype="i4").reshape(3, 4),
        numpy.asfortranarray(numpy.random.default_rng(1).normal(size=(300, 500))),
        numpy.arange(6_000_000.0).reshape(2000, 3000)[::2, ::3],
        numpy.arange(5_000_000.0)[::2],
        numpy.arange(48.0).reshape(2, 3, 8).transpose(2, 0, 1),
        numpy.zeros((3, 0, 2)),
        numpy.array(3.5),
        numpy.array([], dtype="f4"),
        numpy.array(["2024-01-01", "NaT"], dtype="M8[D]"),
        numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("ä", "f8")]),
        numpy.array(["x", "yz"]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays(array: numpy.ndarray) -> None:
    """Arrays of all kinds but objects come back with their dtype and shape, whatever way they lie in memory; they can be changed."""
    result = there_and_back(array)
    assert type(result) is numpy.ndarray
    assert result.dtype == array.dtype
    numpy.testing.assert_array_equal(result, array)
    if result.size:
        result.flat[0] = result.flat[-1]


def test_numpy_scalars() -> None:
    """A NumPy number stays one, alone and within a dict."""
    assert type(there_and_back(numpy.float32(1.5))) is numpy.float32
    inner = there_and_back({"mean": numpy.float64(0.1)})["mean"]
    assert type(inner) is numpy.float64
    assert inner == numpy.float64(0.1)


def test_frames() -> None:
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
    pandas.testing.assert_frame_equal(there_and_back(frame), frame)
    series = pandas.Series([1.0, 2.0], name="rate")
    pandas.testing.assert_series_equal(there_and_back(series), series)
    unnamed = there_and_back(pandas.Series([1]))
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
def test_others_are_refused(value: Any, what: str) -> None:
    """What has no exact form is refused with the type or the place named."""
    with pytest.raises(UnmovableValue, match=what):
        pack(value)


class Trap:
    """Runs code when it is unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return (setattr, (Trap, "sprung", True))


def test_a_pickle_is_loaded_only_on_demand() -> None:
    """A stream that holds a pickle is an error and runs nothing, unless pickles are asked for; so is an array of objects."""
    with pytest.raises(UnmovableValue, match="pickle"):
        unpacked(packed(Trap(), by_pickle=True))
    objects = io.BytesIO()
    numpy.save(objects, numpy.array([Trap()], dtype=object), allow_pickle=True)
    data = objects.getvalue()
    with pytest.raises(UnmovableValue, match="pickle"):
        unpacked(stream({"form": "npy", "scalar": False, "size": len(data)}, data))
    assert not Trap.sprung


def test_by_pickle() -> None:
    """By pickle goes what has no other form, with its arrays beside it."""
    value = {"when": datetime.timedelta(seconds=2), "array": numpy.arange(100_000.0)}
    result = there_and_back(value, by_pickle=True)
    assert result["when"] == value["when"]
    numpy.testing.assert_array_equal(result["array"], value["array"])
    result["array"][0] = 1


def stream(description: dict[str, Any], payload: bytes = b"") -> bytes:
    text = json.dumps(description).encode()
    return struct.pack(">Q", len(text)) + text + payload


def npy(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return header.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">Q", 2**60),
        stream({"form": "code", "size": 1}, b"1"),
        stream({"form": "json", "size": -1}),
        stream({"form": "npy", "scalar": False, "size": len(npy((4,))) + 8}, npy((4,)) + bytes(8)),
        stream({"form": "npy", "scalar": False, "size": len(npy((-1, -1))) + 8}, npy((-1, -1)) + bytes(8)),
        packed(numpy.ones(1000))[:-1],
        stream({"form": "pickle", "parts": [10**9], "size": 10}, bytes(10)),
    ],
    ids=["length", "form", "size", "too-short", "negative", "cut", "pickle"],
)
def test_lies_are_refused(data: bytes) -> None:
    """A stream that is not what it says is an error, and nothing large is allocated for it."""
    with pytest.raises((UnmovableValue, ValueError)):
        unpacked(data)


def test_too_large() -> None:
    """A value that there is no room for is refused by its size alone, before any of it is read."""
    source = Source(stream({"form": "npy", "scalar": False, "size": 2**50}))
    with pytest.raises(UnmovableValue, match=r"1048576\.0 GiB of memory where it goes, and .* are free"):
        unpack(source, describe(source))


def test_an_array_is_sent_from_where_it_lies() -> None:
    """Sending an array takes no memory of the array's size, also where it does not lie in one piece."""
    for array in (numpy.ones(12_000_000), numpy.ones((6_000, 4_000))[:, ::2]):
        tracemalloc.start()
        pack(array).send(lambda piece: None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 24 * 2**20
