"""Reading a bundle that somebody else made: nothing of it is trusted before it was looked at.

What is refused: names that are absolute, lead upwards or into `.git` and `.wardian`, or occur twice; links, devices, encrypted and
overlapping entries; and bombs, by the sizes that are declared, by those that come out, by their number and by how far they unpack.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ...errors import BundleError
from . import MANIFEST, METADATA, VERSION

MOST_ENTRIES = 20_000
MOST_BYTES = 64 * 2**30
"""Unpacked, of the whole; more than the disk has room for is refused in any case."""
MOST_DIRECTORY = 16 * 2**20
"""Of the list of entries, bytes."""
LARGEST_DESCRIPTION = 64 * 2**20
"""Of the metadata and the manifest each, bytes."""
RATIO, FREE_OF_RATIO = 200, 32 * 2**20
"""An entry that unpacks to more than the second, bytes, may be at most the first times as large as it is packed."""
_CHUNK = 1 << 20
_FORBIDDEN = frozenset({".git", ".wardian", ".hg", ".svn"})
_AGAIN = "Get it again from where it was published; if that does not help, it was not made by `wardian pack`."


class Bundle:
    """An open bundle, of which every entry has been looked at."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path = path
        self._file = file
        self.entries = _checked(path, file)
        self.size = sum(entry.file_size for entry in self.entries)
        self.digests = self._digests()
        self.manifest = self._manifest()

    def write_to(self, folder: Path) -> None:
        """Write all files into a folder that is empty. Raises BundleError for one that is not what the metadata says."""
        for entry in self.entries:
            target = folder / entry.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = self._write(entry, target)
            if self.digests.get(entry.filename, digest) != digest:
                raise self.refused(f"{entry.filename} is not what its SHA-256 in {METADATA} says")
            if entry.external_attr >> 16 & 0o100:
                target.chmod(target.stat().st_mode | 0o111)

    def refused(self, why: str) -> BundleError:
        """The error for a bundle that is not taken."""
        return _refused(self.path, why)

    def _write(self, entry: zipfile.ZipInfo, target: Path) -> str:
        digest, left = hashlib.sha256(), entry.file_size
        # "x": what is there already came from this bundle, under another name that the file system takes for the same
        try:
            with open(target, "xb") as file:
                for chunk in self._chunks(entry):
                    left -= len(chunk)
                    if left < 0:
                        raise self.refused(f"{entry.filename} is larger than it says")
                    digest.update(chunk)
                    file.write(chunk)
        except FileExistsError:
            raise self.refused(f"{entry.filename} is in it twice, for this file system") from None
        if left:
            raise self.refused(f"{entry.filename} is smaller than it says")
        return digest.hexdigest()

    def _chunks(self, entry: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._file.open(entry) as source:
                while chunk := source.read(_CHUNK):
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise self.refused(f"{entry.filename} is damaged: {error}") from error

    def _json(self, name: str) -> dict[str, Any]:
        entry = next((entry for entry in self.entries if entry.filename == name), None)
        if entry is None:
            raise self.refused(f"it has no {name}: it is no bundle of an experiment")
        if entry.file_size > LARGEST_DESCRIPTION:
            raise self.refused(f"{name} is larger than {LARGEST_DESCRIPTION >> 20} MiB")
        try:
            found = json.loads(b"".join(self._chunks(entry)))
        except (ValueError, RecursionError) as error:
            raise self.refused(f"{name} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise self.refused(f"{name} is no JSON object")
        return found

    def _digests(self) -> dict[str, str]:
        """SHA-256 of files as the metadata has them."""
        graph = self._json(METADATA).get("@graph")
        if not isinstance(graph, list):
            raise self.refused(f"{METADATA} has no @graph")
        described = (item for item in graph if isinstance(item, dict) and isinstance(item.get("sha256"), str))
        found = {unquote(str(item.get("@id"))): item["sha256"] for item in described}
        if missing := found.keys() - {entry.filename for entry in self.entries}:
            raise self.refused(f"{min(missing)} is missing")
        return found

    def _manifest(self) -> dict[str, Any]:
        found = self._json(MANIFEST)
        if found.get("version") != VERSION:
            newer = "it was made by another version of Wardian"
            raise BundleError(f"{self.path}: {newer} (layout {found.get('version')!r}, this one reads {VERSION})", remedy="upgrade Wardian")
        names = {entry.filename for entry in self.entries}
        notebooks = found.get("notebooks")
        for name in (found.get("experiment"), *(notebooks if isinstance(notebooks, list) else [None])):
            if name not in names:
                raise self.refused(f"{MANIFEST} names {name!r}, which it does not have")
        return found


@contextmanager
def reading(path: Path) -> Iterator[Bundle]:
    """An open bundle. Raises BundleError where it is none, or is refused."""
    try:
        with open(path, "rb") as file:
            _check_end(path, file.seek(0, os.SEEK_END), file)
            with zipfile.ZipFile(file) as archive:
                yield Bundle(path, archive)
    except zipfile.BadZipFile as error:
        raise _refused(path, f"it is no whole zip file: {error}") from error
    except OSError as error:
        if error.filename == str(path):
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        raise


def room(folder: Path, size: int) -> None:
    """Raise BundleError where a folder's disk has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        said = f"it takes {size / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB left"
        raise BundleError(said, remedy="free some space, or unpack it elsewhere")


def _check_end(path: Path, size: int, file: Any) -> None:
    """Refuse lists of entries that are larger than any bundle's, before they are read: zipfile takes them into memory whole."""
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    start = tail.rfind(b"PK\5\6")
    if start >= 0 and len(tail) >= start + 22:
        count, length = (int.from_bytes(tail[start + first : start + last], "little") for first, last in ((10, 12), (12, 16)))
        # 0xFFFFFFFF stands for a number that is written elsewhere: of a list that takes more than 4 GB, or of large files
        locator = tail.rfind(b"PK\6\7", 0, start)
        if locator >= 0:
            file.seek(int.from_bytes(tail[locator + 8 : locator + 16], "little"))
            record = file.read(56)
            count, length = int.from_bytes(record[32:40], "little"), int.from_bytes(record[40:48], "little")
        if length > MOST_DIRECTORY or count > MOST_ENTRIES:
            raise _refused(path, f"it has more than {MOST_ENTRIES} entries")
    file.seek(0)


def _checked(path: Path, file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a zip. Raises BundleError for the first thing that no bundle has."""
    entries = file.infolist()
    if len(entries) > MOST_ENTRIES:
        raise _refused(path, f"it has more than {MOST_ENTRIES} entries")
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise _refused(path, f"it unpacks to more than {MOST_BYTES >> 30} GiB")
    if sum(entry.compress_size for entry in entries) > path.stat().st_size:
        raise _refused(path, "its entries overlap")
    found: list[zipfile.ZipInfo] = []
    names: set[str] = set()
    for entry in entries:
        if why := _why_not(entry):
            raise _refused(path, f"the entry {entry.orig_filename!r:.200} {why}")
        name = unicodedata.normalize("NFC", entry.filename.rstrip("/"))
        if name in names:
            raise _refused(path, f"{name} is in it twice")
        if entry.is_dir():
            continue
        names.add(name)
        found.append(entry)
    if inside := next((name for name in sorted(names) for parent in PurePosixPath(name).parents if str(parent) in names), None):
        raise _refused(path, f"{inside} is below a file")
    return found


def why_not_named(name: str) -> str:
    """Why a file of this path is refused; empty where it is not."""
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name):
        return "has an absolute path, or one of another system"
    if not name.isprintable() or any(part.strip() in ("", ".", "..") for part in parts):
        return "has a path that leads elsewhere"
    if any(part.lower().rstrip(". ") in _FORBIDDEN for part in parts):
        return "belongs into a folder that programs trust"
    if any(len(os.fsencode(part)) > 255 for part in parts) or len(os.fsencode(name)) > 1024:
        return "has a path that is too long"
    return ""


def _why_not(entry: zipfile.ZipInfo) -> str:
    """Why an entry is refused; empty where it is not."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    if why := why_not_named(name):
        return why
    if entry.filename != name:
        return "has a path that leads elsewhere"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or ((kind == stat.S_IFDIR) != entry.is_dir() and kind):
        return "is a link, a device or something else that is no file"
    if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is encrypted, or packed in a way that no bundle is"
    if entry.file_size > FREE_OF_RATIO and entry.file_size > RATIO * max(1, entry.compress_size):
        return f"unpacks to {entry.file_size / 1e6:,.0f} MB from {entry.compress_size / 1e6:,.1f} MB"
    return ""


def _refused(path: Path, why: str) -> BundleError:
    return BundleError(f"{path} is refused: {why}", remedy=_AGAIN)
