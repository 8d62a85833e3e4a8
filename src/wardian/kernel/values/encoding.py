"""Python values as streams of bytes, exactly: frames as Arrow, arrays as npy, plain values as JSON; by pickle only on demand.

This file runs at home and, sent as source, on nodes: it needs Python 3.8 and nothing else, and loads pandas, numpy and pyarrow only
for values of theirs. A stream is a length (eight bytes), a JSON description of that length, and the payload, whose size it says. Arrays go
from their own memory, and arrive in that of the new array: a value is at no time held twice.

JSON has no tuples, sets, bytes, complex numbers, NumPy scalars or keys that are not text. These are written as {"!": type, "v": ...}, so
that what comes back equals what was sent, type by type; everything else that JSON would change is refused.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import pickle
import struct
import sys
from contextlib import suppress
from typing import Any

_BLOCK = 1 << 24
"""How much of an array that does not lie in one piece is copied at a time, bytes."""
_PIPE = 1 << 20
_LONGEST = 1 << 24
_NUMPY_KINDS = "biuf"
_GROWTH = {"npy": 1, "bytes": 1, "pickle": 1, "arrow": 2, "json": 6}
"""How much memory a value takes where it arrives, in units of its payload."""


class UnmovableValue(TypeError):
    """A value that has no exact form without pickle, or that there is no room for."""


class Parcel:
    """A value ready to go. head: what is sent first; size: of the payload, bytes; `send(write)` calls `write` with its pieces."""

    def __init__(self, description: Any, size: int, send: Any) -> None:
        text = json.dumps({**description, "size": size}).encode()
        self.head = struct.pack(">Q", len(text)) + text
        self.size = size
        self.send = send


def pack(value: Any, by_pickle: bool = False) -> Parcel:
    """Make `value` ready. Raises UnmovableValue naming the type."""
    if by_pickle:
        return _pickled(value)
    pandas, numpy, arrow = (sys.modules.get(name) for name in ("pandas", "numpy", "pyarrow"))
    if type(value) is bytes:
        return Parcel({"form": "bytes"}, len(value), lambda write: write(value))
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        return _frame(value, pandas)
    if arrow is not None and isinstance(value, arrow.Table):
        return _table({"kind": "table"}, value)
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return _array(value, numpy)
    text = json.dumps(_encode(value, "it")).encode()
    return Parcel({"form": "json"}, len(text), lambda write: write(text))


def describe(source: Any) -> Any:
    """The description at the beginning of a stream. source: has `readinto(view)`, which fills the view or raises."""
    length = struct.unpack(">Q", _read(source, 8))[0]
    if length > _LONGEST:
        raise UnmovableValue("what came is no value")
    description = json.loads(_read(source, length))
    size = description.get("size")
    if not isinstance(size, int) or size < 0 or description.get("form") not in _GROWTH:
        raise UnmovableValue(f"the form {description.get('form')!r} is not known here")
    return description


def unpack(source: Any, description: Any, by_pickle: bool = False, force: bool = False) -> Any:
    """The value of a stream after its description.

    by_pickle: whether code of the sender may run. force: do not ask whether there is room. Raises UnmovableValue.
    """
    form, size = description["form"], description["size"]
    if form == "pickle" and not by_pickle:
        raise UnmovableValue("it came as a pickle, which could run code here")
    room, need = free_memory(), size * _GROWTH[form]
    if not force and room is not None and need > room:
        raise UnmovableValue(f"it takes {_shown(need)} of memory where it goes, and {_shown(room)} are free there (--force tries)")
    payload = _Payload(source, size)
    if form == "bytes":
        return _bytes(payload)
    if form == "json":
        return _decode(json.loads(payload.read(size)))
    if form == "npy":
        array = _load_array(payload)
        return array[()] if description["scalar"] else array
    if form == "arrow":
        return _load_arrow(payload, description)
    if any(length < 0 for length in description["parts"]) or sum(description["parts"]) != size:
        raise UnmovableValue("the pickle is not as long as its description says")
    parts = [bytearray(length) for length in description["parts"]]
    for part in parts:
        payload.readinto(memoryview(part))
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301  # asked for by who accepts it


def send(find: Any, path: str, by_pickle: bool = False) -> None:
    """On a node: write the value that `find` gives to the pipe at `path`."""
    try:
        parcel = pack(find(), by_pickle)
    except BaseException:
        os.unlink(path)
        raise
    with open(path, "wb", buffering=0) as pipe:
        os.unlink(path)
        _widen(pipe)

        def write(data: Any) -> None:
            view = memoryview(data).cast("B")
            while len(view):
                view = view[pipe.write(view) :]

        write(parcel.head)
        parcel.send(write)


def receive(path: str, by_pickle: bool = False, force: bool = False) -> Any:
    """On a node: the value that comes through the pipe at `path`."""
    with open(path, "rb", buffering=0) as pipe:
        os.unlink(path)
        _widen(pipe)
        source = _Pipe(pipe)
        return unpack(source, describe(source), by_pickle, force)


def free_memory() -> Any:
    """How many bytes this process may still take: of the machine's and of its control groups' memory; None where that is not known."""
    try:
        with open("/proc/meminfo") as file:
            found = [int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:")]
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            base, limit, used, idle = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        elif not controllers:
            base, limit, used, idle = "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        else:
            continue
        folder = base + path.rstrip("/")
        while len(folder) >= len(base):
            try:
                most, taken = (_number(os.path.join(folder, name)) for name in (limit, used))
                with open(os.path.join(folder, "memory.stat")) as file:
                    cached = [int(line.split()[1]) for line in file if line.split()[0] == idle]
                found.append(max(0, most - taken + sum(cached)))
            except (OSError, ValueError):
                pass
            folder = os.path.dirname(folder)
    return min(found) if found else None


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())


class _Pipe:
    """A pipe as a source."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def readinto(self, view: Any) -> None:
        while len(view):
            count = self._pipe.readinto(view)
            if not count:
                raise UnmovableValue("the stream ended before it was complete")
            view = view[count:]


class _Payload:
    """What is left of a stream, to be read as a file; never more than was announced."""

    def __init__(self, source: Any, size: int) -> None:
        self._source = source
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return _read(self._source, size)

    def readinto(self, view: Any) -> None:
        if len(view) > self.left:
            raise UnmovableValue("the stream is shorter than its description says")
        self.left -= len(view)
        self._source.readinto(view)


def _read(source: Any, size: int) -> bytes:
    data = bytearray(size)
    source.readinto(memoryview(data))
    return bytes(data)


def _bytes(payload: _Payload) -> bytes:
    # What this gives is its own buffer, and no copy of it.
    file = io.BytesIO()
    while payload.left:
        file.write(payload.read(_BLOCK))
    return file.getvalue()


def _widen(pipe: Any) -> None:
    # past the user's share of pipe memory the default stays
    with suppress(OSError):
        fcntl.fcntl(pipe, 1031, _PIPE)  # F_SETPIPE_SZ


def _shown(size: int) -> str:
    value, unit = float(size), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _pickled(value: Any) -> Parcel:
    buffers: Any = []
    try:
        main = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise UnmovableValue(f"it cannot be pickled: {error}") from None
    parts = [memoryview(main), *(buffer.raw() for buffer in buffers)]

    def send(write: Any) -> None:
        for part in parts:
            write(part)

    sizes = [len(part) for part in parts]
    return Parcel({"form": "pickle", "parts": sizes}, sum(sizes), send)


def _array(value: Any, numpy: Any) -> Parcel:
    array = numpy.asarray(value)
    if array.dtype.hasobject:
        raise UnmovableValue("an array of Python objects cannot be moved without pickle; give it the dtype of what it holds")
    if type(value).__name__ == "MaskedArray":
        raise UnmovableValue("a masked array would lose its mask; move its data and its mask")
    header = io.BytesIO()
    description = numpy.lib.format.header_data_from_array_1_0(array)
    try:
        numpy.lib.format.write_array_header_1_0(header, description)
    except ValueError:
        header = io.BytesIO()
        try:
            numpy.lib.format.write_array_header_2_0(header, description)
        except ValueError as error:
            raise UnmovableValue(f"the names of this array's fields cannot be written: {error}") from None
    beginning = header.getvalue()

    def send(write: Any) -> None:
        write(beginning)
        _pieces(array.T if description["fortran_order"] else array, write, numpy)

    form = {"form": "npy", "scalar": not isinstance(value, numpy.ndarray)}
    return Parcel(form, len(beginning) + array.nbytes, send)


def _pieces(array: Any, write: Any, numpy: Any) -> None:
    """Write an array's data in C order, from where it lies, or a block at a time."""
    if not array.nbytes:
        return
    if array.flags.c_contiguous or array.nbytes <= _BLOCK:
        write(memoryview(numpy.ascontiguousarray(array).reshape(-1).view("u1")))
        return
    rows = _BLOCK // array[:1].nbytes
    for start in range(0, len(array), rows or 1):
        _pieces(array[start : start + rows] if rows else array[start], write, numpy)


def _load_array(payload: _Payload) -> Any:
    import numpy

    form = numpy.lib.format
    readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    version = form.read_magic(payload)
    if version not in readers:
        raise UnmovableValue(f"arrays of npy version {version} are not known here")
    shape, fortran, dtype = readers[version](payload)
    if dtype.hasobject:
        raise UnmovableValue("it holds Python objects, which cannot be moved without pickle")
    count = 1
    for length in shape:
        count *= length
    if count * dtype.itemsize != payload.left:
        raise UnmovableValue("the array's shape is not that of its data")
    array = numpy.empty(shape, dtype, order="F" if fortran else "C")
    if array.nbytes:
        payload.readinto(memoryview((array.T if fortran else array).reshape(-1).view("u1")))
    return array


def _frame(value: Any, pandas: Any) -> Parcel:
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
    return _table({"kind": "series" if series else "frame", "name": value.name if series else None}, table)


def _table(description: Any, table: Any) -> Parcel:
    import pyarrow

    measured = pyarrow.MockOutputStream()
    _write_table(measured, table)
    return Parcel({"form": "arrow", **description}, measured.size(), lambda write: _write_table(_Sink(write), table))


class _Sink(io.RawIOBase):
    """A function to write with, as a file for pyarrow."""

    def __init__(self, write: Any) -> None:
        super().__init__()
        self._write = write

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._write(view)
        return view.nbytes


def _write_table(file: Any, table: Any) -> None:
    import pyarrow

    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _load_arrow(payload: _Payload, description: Any) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UnmovableValue("reading a frame needs the package pyarrow, which is not installed here") from None
    buffer = pyarrow.allocate_buffer(payload.left)
    payload.readinto(memoryview(buffer).cast("B"))
    table = pyarrow.ipc.open_stream(pyarrow.BufferReader(buffer)).read_all()
    if description["kind"] == "table":
        return table
    frame = table.to_pandas()
    return frame["value"].rename(description["name"]) if description["kind"] == "series" else frame


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
