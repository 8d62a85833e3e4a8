"""Streams that are decompressed, counted and digested while they are read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import lzma
import zlib
from typing import IO, Any

from ...errors import MissingToolError

_CHUNK = 1 << 20

BROKEN = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
"""What reading a damaged stream raises, besides OSError."""


def decompressed(stream: IO[bytes]) -> IO[bytes]:
    """What is in a stream that may be compressed: by gzip, bzip2, xz or zstd, as its first bytes say. The stream itself where it is not.

    The stream has to be at its beginning, and one in which one can go back, unless it is a pipe of ours.
    Raises MissingToolError for zstd where this Python has none.
    """
    begin = stream.read(6)
    stream = _rewound(stream, begin)
    if begin.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[return-value]
    if begin.startswith(b"BZh"):
        return bz2.BZ2File(stream, "rb")
    if begin.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(stream, "rb")
    if begin.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(stream)
    return stream


class Hashing:
    """Reads a stream on, and digests it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data

    def readable(self) -> bool:
        return True

    def finish(self) -> str:
        """The digest of the whole, after reading what is left."""
        while self.read(_CHUNK):
            pass
        return "sha256:" + self._digest.hexdigest()


class _Begun:
    """A stream of which the first bytes were read already."""

    def __init__(self, begin: bytes, stream: IO[bytes]) -> None:
        self._begin = begin
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not self._begin:
            return self._stream.read(size)
        if size < 0:
            data, self._begin = self._begin + self._stream.read(), b""
        else:
            data, self._begin = self._begin[:size], self._begin[size:]
        return data

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()


def _rewound(stream: Any, begin: bytes) -> Any:
    if hasattr(stream, "seekable") and stream.seekable():
        stream.seek(0)
        return stream
    return _Begun(begin, stream)


class _Zstd:
    """A stream that says of damage what the others say. error: what its module calls it."""

    def __init__(self, stream: IO[bytes], error: type[Exception]) -> None:
        self._stream = stream
        self._error = error

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except self._error as error:
            raise EOFError(str(error)) from error

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    for name, opener in (("compression.zstd", "ZstdFile"), ("backports.zstd", "ZstdFile"), ("zstandard", "open")):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return _Zstd(getattr(module, opener)(stream, "rb"), module.ZstdError)  # type: ignore[return-value]
    raise MissingToolError("it is compressed by zstd, which this Python cannot read", remedy="Install that: pip install backports.zstd.")
