"""Python values as files, exactly, and never by pickle: frames as Arrow, arrays as npy, plain values as JSON.

This file runs at home and, sent as source, on nodes: it needs Python 3.8 and nothing else, and loads pandas, numpy and pyarrow only
for values of theirs. A file is a length (eight bytes), a JSON description, padding to 64 bytes, and the payload.

JSON has no tuples, sets, bytes, complex numbers, NumPy scalars or keys that are not text. These are written as {"!": type, "v": ...}, so
that what comes back equals what was sent, type by type; everything else that JSON would change is refused.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import sys
from typing import Any

_ALIGNMENT = 64
_MAPPED = 1 << 20
_NUMPY_KINDS = "biuf"


class UnmovableValue(TypeError):
    """A value that has no exact form without pickle."""


def dump(value: Any, path: str) -> None:
    """Write `value` to a new file that only we may read. Raises UnmovableValue naming the type."""
    description, write = _form(value)
    text = json.dumps(description).encode()
    padding = -(8 + len(text)) % _ALIGNMENT
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(struct.pack(">Q", len(text) + padding) + text + b" " * padding)
            write(file)
    except BaseException:
        os.unlink(path)
        raise


def load(path: str) -> Any:
    """The value in a file that `dump` wrote; large ones are mapped, so the file may be removed but not changed."""
    with open(path, "rb") as file:
        length = struct.unpack(">Q", file.read(8))[0]
        description = json.loads(file.read(length))
        form, start = description["form"], 8 + length
        if form == "bytes":
            return file.read()
        if form == "json":
            return _decode(json.loads(file.read()))
        if form == "npy":
            array = _load_array(file, path)
            return array[()] if description["scalar"] else array
        if form == "arrow":
            return _load_arrow(path, start, description)
    raise UnmovableValue(f"the form {form!r} is not known here")


def _form(value: Any) -> Any:
    pandas, numpy, arrow = (sys.modules.get(name) for name in ("pandas", "numpy", "pyarrow"))
    if type(value) is bytes:
        return {"form": "bytes"}, lambda file: file.write(value)
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        return _frame(value, pandas)
    if arrow is not None and isinstance(value, arrow.Table):
        return {"form": "arrow", "kind": "table"}, lambda file: _write_table(file, value)
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        array = numpy.asarray(value)
        if array.dtype.hasobject:
            raise UnmovableValue("an array of Python objects cannot be moved without pickle; give it the dtype of what it holds")
        if type(value).__name__ == "MaskedArray":
            raise UnmovableValue("a masked array would lose its mask; move its data and its mask")
        scalar = not isinstance(value, numpy.ndarray)
        return {"form": "npy", "scalar": scalar}, lambda file: numpy.lib.format.write_array(file, array, allow_pickle=False)
    text = json.dumps(_encode(value, "it")).encode()
    return {"form": "json"}, lambda file: file.write(text)


def _frame(value: Any, pandas: Any) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UnmovableValue(f"moving a pandas {type(value).__name__} needs the package pyarrow, which is not installed here") from None
    series = isinstance(value, pandas.Series)
    if series and not isinstance(value.name, (str, int, type(None))):
        raise UnmovableValue(f"a Series named {value.name!r} cannot be moved; give it a name that is text")
    frame = value.to_frame(name="value") if series else value
    try:
        table = pyarrow.Table.from_pandas(frame)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, ValueError) as error:
        raise UnmovableValue(f"this {type(value).__name__} has a column that Arrow cannot hold: {error}") from None
    description = {"form": "arrow", "kind": "series" if series else "frame", "name": value.name if series else None}
    return description, lambda file: _write_table(file, table)


def _write_table(file: Any, table: Any) -> None:
    import pyarrow

    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _load_arrow(path: str, start: int, description: Any) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UnmovableValue("reading a frame needs the package pyarrow, which is not installed here") from None
    with pyarrow.memory_map(path) as file:
        buffer = file.read_buffer()
    table = pyarrow.ipc.open_stream(pyarrow.BufferReader(buffer.slice(start))).read_all()
    if description["kind"] == "table":
        return table
    frame = table.to_pandas()
    return frame["value"].rename(description["name"]) if description["kind"] == "series" else frame


def _load_array(file: Any, path: str) -> Any:
    import numpy

    form = numpy.lib.format
    start = file.tell()
    version = form.read_magic(file)
    readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    if version in readers:
        shape, fortran, dtype = readers[version](file)
        count = 1
        for length in shape:
            count *= length
        if not dtype.hasobject and count * dtype.itemsize >= _MAPPED:
            order = "F" if fortran else "C"
            return numpy.asarray(numpy.memmap(path, dtype=dtype, mode="c", offset=file.tell(), shape=shape, order=order))
    file.seek(start)
    return form.read_array(file, allow_pickle=False)


def _encode(value: Any, where: str) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if kind is dict:
        if "!" not in value and all(type(key) is str for key in value):
            return {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
        pairs = [[_encode(key, "a key of " + where), _encode(item, f"{where}[{key!r}]")] for key, item in value.items()]
        return {"!": "dict", "v": pairs}
    if kind in (tuple, set, frozenset):
        return {"!": kind.__name__, "v": [_encode(item, "an item of " + where) for item in value]}
    if kind is bytes:
        return {"!": "bytes", "v": base64.b64encode(value).decode()}
    if kind is complex:
        return {"!": "complex", "v": [value.real, value.imag]}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in _NUMPY_KINDS and value.dtype.itemsize <= 8:
        return {"!": "numpy", "v": [value.dtype.str, value.item()]}
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    what = where if where != "it" else "the value"
    raise UnmovableValue(f"{what} is of type {name}, which cannot be moved; frames, arrays, bytes and plain values can")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "!" not in value:
        return {key: _decode(item) for key, item in value.items()}
    kind, content = value["!"], value["v"]
    if kind == "dict":
        return {_decode(key): _decode(item) for key, item in content}
    if kind in ("tuple", "set", "frozenset"):
        return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](_decode(item) for item in content)
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "complex":
        return complex(*content)
    if kind == "numpy":
        try:
            import numpy
        except ImportError:
            return content[1]
        return numpy.dtype(content[0]).type(content[1])
    raise UnmovableValue(f"the type {kind!r} is not known here")
