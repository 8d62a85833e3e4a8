"""Writing a bundle: the same bytes for the same content, and whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...errors import BundleError
from . import METADATA, PARTIAL
from .contents import Item
from .crate import Stored
from .reading import FREE_OF_RATIO, MOST_ENTRIES, RATIO

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip has: when a file was written is no part of what it is."""
_CHUNK = 1 << 20


class Archive:
    """A bundle that is being written."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.stored: list[Stored] = []

    def add(self, item: Item) -> None:
        """Add a file. Raises BundleError for one that cannot be read, and for more than a bundle may have."""
        if len(self.stored) >= MOST_ENTRIES - 10:
            raise BundleError(f"more than {MOST_ENTRIES} files", remedy="name in .wardianignore what nobody needs")
        info = zipfile.ZipInfo(item.name, _EPOCH)
        info.create_system = 3
        info.external_attr = (stat.S_IFREG | (0o755 if item.executable else 0o644)) << 16
        try:
            info.compress_type = zipfile.ZIP_STORED if _looks_like_a_bomb(item.source) else zipfile.ZIP_DEFLATED
            info.file_size = len(item.source) if isinstance(item.source, bytes) else item.source.stat().st_size
            digest, size = hashlib.sha256(), 0
            with self._file.open(info, "w", force_zip64=info.file_size >= 1 << 31) as target:
                for chunk in _chunks(item.source):
                    target.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
        except (OSError, RuntimeError) as error:
            # what zipfile says where a file grew past what the header has room for is a RuntimeError
            raise BundleError(f"{item.name} cannot be packed: {getattr(error, 'strerror', None) or error}") from error
        self.stored.append(Stored(item.name, size, digest.hexdigest()))


@contextmanager
def writing(path: Path) -> Iterator[Archive]:
    """Write a bundle that is there, under its name, once the block has ended well, in place of an earlier one.

    Raises BundleError where something else stands there, or another process writes it.
    """
    if path.exists() and not _is_bundle(path):
        raise BundleError(f"{path} is there already, and is no bundle", remedy="name another file with -o")
    partial = path.with_name(f".{path.name}{PARTIAL}")
    with open(partial, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(f"another command is writing {path}", remedy="wait for it, or name another file with -o") from None
        try:
            lock.truncate(0)
            with open(partial, "r+b") as file:
                with zipfile.ZipFile(file, "w", compresslevel=6) as archive:
                    yield Archive(archive)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _looks_like_a_bomb(source: Path | bytes) -> bool:
    """Whether a file packs so well that a reader would refuse it. The fastest packing tells by far less."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size <= FREE_OF_RATIO:
        return False
    packer = zlib.compressobj(1)
    packed = sum(len(packer.compress(chunk)) for chunk in _chunks(source)) + len(packer.flush())
    return size > packed * RATIO / 5


def _is_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return METADATA in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with open(source, "rb") as file:
        yield from _read(file)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
