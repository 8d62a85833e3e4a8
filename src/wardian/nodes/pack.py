"""Writing the tar stream of a local file or directory."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from .bridge import Outlet

OnProgress = Callable[[int, int], None]
"""Called with the bytes of content copied and those there are in all; the latter is 0 where it is not known."""

CHUNK = 1 << 20


def content_size(source: Path) -> int:
    """Bytes of content in a file, or in all files of a directory. Raises OSError, also when the file cannot be read."""
    if not source.is_dir():
        # not opened before it is known to be a file: opening a named pipe would wait for its other side
        if not source.is_file():
            source.stat()
            raise OSError(0, "neither a file nor a directory")
        with source.open("rb"):
            return source.stat().st_size
    total = 0
    for folder, _, names in os.walk(source):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


class Changed(Exception):
    """A file was not what it was a moment ago."""


class Packer:
    """Writes the tar stream of a local file or directory, in a worker thread."""

    def __init__(self, outlet: Outlet, total: int, on_progress: OnProgress | None) -> None:
        self._outlet = outlet
        self._total = total
        self._on_progress = on_progress
        self._digests: dict[bytes, str] = {}
        self.bytes = 0
        self.files = 0

    def sha256(self) -> str:
        return tree_digest(self._digests)

    def file(self, source: Path, mode: int | None) -> None:
        """A single file as `data`, and its SHA-256 as `sum`."""
        with source.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "neither a file nor a directory")
            header = tarfile.TarInfo("data")
            header.size, header.mtime = status.st_size, int(status.st_mtime)
            header.mode = stat.S_IMODE(status.st_mode) if mode is None else mode
            self._member(header, stream, b"")
        line = self._digests[b""].encode() + b"\n"
        header = tarfile.TarInfo("sum")
        header.size = len(line)
        self._outlet.write(header.tobuf(tarfile.GNU_FORMAT) + line.ljust(tarfile.BLOCKSIZE, b"\0") + bytes(2 * tarfile.BLOCKSIZE))

    def directory(self, source: Path, _mode: int | None) -> None:
        """A directory as `.`, with everything in it; links are copied as links."""
        waiting = [(source, ".")]
        while waiting:
            path, name = waiting.pop()
            waiting += reversed(self._entry(path, name))
        self._outlet.write(bytes(2 * tarfile.BLOCKSIZE))

    def _entry(self, path: Path, name: str) -> list[tuple[Path, str]]:
        """Write one entry; gives what is in it."""
        status = path.stat() if name == "." else path.lstat()
        header = tarfile.TarInfo(name)
        header.mode, header.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as stream:
                header.size = os.fstat(stream.fileno()).st_size
                self._member(header, stream, os.fsencode(name[2:]))
        elif stat.S_ISDIR(status.st_mode):
            header.type = tarfile.DIRTYPE
            self._header(header)
            with os.scandir(path) as listing:
                names = sorted(entry.name for entry in listing)
            return [(path / child, f"{name}/{child}") for child in names]
        elif stat.S_ISLNK(status.st_mode):
            header.type, header.linkname = tarfile.SYMTYPE, os.readlink(path)
            self._header(header)
        else:
            raise OSError(0, f"{name[2:]} is neither a file, a directory nor a link")
        return []

    def _header(self, header: tarfile.TarInfo) -> None:
        self._outlet.write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def _member(self, header: tarfile.TarInfo, stream: io.BufferedReader, name: bytes) -> None:
        self._header(header)
        digest = hashlib.sha256()
        left = header.size
        while left:
            chunk = stream.read(min(CHUNK, left))
            if not chunk:
                raise Changed("became shorter while it was copied")
            digest.update(chunk)
            self._outlet.write(chunk)
            left -= len(chunk)
            self.bytes += len(chunk)
            if self._on_progress:
                self._outlet.call(self._on_progress, self.bytes, self._total)
        self._outlet.write(bytes(-header.size % tarfile.BLOCKSIZE))
        self.files += 1
        self._digests[name] = digest.hexdigest()


def tree_digest(files: Mapping[bytes, str]) -> str:
    """Of a single file (its name is empty) its own digest; else the SHA-256 over each digest and name, sorted by name."""
    if b"" in files:
        return files[b""]
    return hashlib.sha256(b"".join(digest.encode() + b"  " + name + b"\0" for name, digest in sorted(files.items()))).hexdigest()
