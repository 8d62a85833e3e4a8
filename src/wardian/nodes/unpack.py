"""Unpacking an archive that is not trusted.

Everything is made in a fresh directory of ours. Nothing is ever written through a link: each parent must be a directory that the archive
itself made, and links are made last, and then resolved for real, so that no chain of them leads out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from ..tars import BadArchive, Header

CHUNK = 1 << 20


class Source(Protocol):
    """Where the archive comes from."""

    def read(self, size: int) -> bytes: ...


@dataclass(slots=True)
class Unpacked:
    """What was unpacked. files: sha256 by name within the tree; the name of a single file is empty."""

    size: int = 0
    files: dict[bytes, str] = field(default_factory=dict)


def unpack(source: Source, folder: Path, *, single: bool, limit: int | None, on_progress: Callable[[int, int], None]) -> Unpacked:
    """Unpack a tar stream as `folder/tree`: one file if `single`, else a directory. Raises BadArchive, tarfile.TarError and OSError.

    limit: how many bytes of content are accepted, besides what the disk has free.
    """
    unpacker = _Unpacker(folder, limit, on_progress)
    archive: tarfile.TarFile
    with tarfile.open(fileobj=source, mode="r|", tarinfo=Header, bufsize=CHUNK, encoding="utf-8", errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for member in archive:
            # the reader remembers every member, which a stream has no use for
            archive.members = []  # type: ignore[attr-defined]
            if single:
                unpacker.single(archive, member)
            else:
                unpacker.member(archive, member)
    return unpacker.finish(single)


def place(tree: Path, final: Path) -> None:
    """Move what was unpacked to its final name; a directory that exists is merged into, as `cp -r` does. Raises OSError."""
    if tree.is_symlink() or not tree.is_dir() or not final.exists():
        tree.replace(final)
        return
    for name in os.listdir(tree):
        place(tree / name, final / name)


class _Unpacker:
    def __init__(self, folder: Path, limit: int | None, on_progress: Callable[[int, int], None]) -> None:
        self._folder = folder
        self._root = folder / "tree"
        self._limit = limit
        self._on_progress = on_progress
        self._found = Unpacked()
        self._links: dict[PurePosixPath, str] = {}
        self._directories: dict[Path, tarfile.TarInfo] = {}

    def single(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """The one file of an archive, whatever its name."""
        if not member.isreg() or self._found.files:
            raise BadArchive(f"one file was expected, {member.name!r} came")
        self._file(archive, member, self._root, b"")

    def member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """One member of a directory's archive."""
        name = _safe(member.name)
        path = self._root / name
        if name == PurePosixPath("."):
            if not member.isdir():
                raise BadArchive("a directory was expected")
        else:
            self._check_parent(name)
        if member.isdir():
            if not (path.is_dir() and not path.is_symlink()):
                path.mkdir(mode=0o700)
            self._directories[path] = member
        elif member.isreg():
            self._clear(name)
            self._file(archive, member, path, os.fsencode(name))
        elif member.issym():
            self._clear(name)
            self._links[name] = member.linkname
        elif member.islnk():
            self._hard_link(member, name)
        else:
            raise BadArchive(f"{member.name!r} is neither a file, a directory nor a link")

    def finish(self, single: bool) -> Unpacked:
        """Make the links, then set what writing would have changed."""
        if not (self._found.files if single else self._directories):
            raise BadArchive("the archive is empty")
        for name, target in self._links.items():
            self._check_parent(name)
            (self._root / name).symlink_to(target)
        root = os.path.realpath(self._root)
        for name, target in self._links.items():
            end = os.path.realpath(self._root / name)
            if os.path.isabs(target) or not (end == root or end.startswith(root + os.sep)):
                raise BadArchive(f"the link {str(name)!r} leads out of the directory, to {target!r}")
        for path, member in reversed(self._directories.items()):
            path.chmod(member.mode & 0o777)
            os.utime(path, (member.mtime, member.mtime))
        return self._found

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, name: bytes) -> None:
        self._check_room(member)
        stream = archive.extractfile(member)
        if stream is None:
            raise BadArchive(f"{member.name!r} has no content")
        digest = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as target:
            left = member.size
            while left:
                chunk = stream.read(min(CHUNK, left))
                if not chunk:
                    raise BadArchive("the stream ended in the middle of a file")
                digest.update(chunk)
                _write_all(target.fileno(), chunk)
                left -= len(chunk)
                self._found.size += len(chunk)
                self._on_progress(self._found.size, member.size if not name else 0)
            os.fchmod(descriptor, member.mode & 0o777)
            os.utime(descriptor, (member.mtime, member.mtime))
        self._found.files[name] = digest.hexdigest()

    def _hard_link(self, member: tarfile.TarInfo, name: PurePosixPath) -> None:
        origin_name = _safe(member.linkname)
        self._check_parent(origin_name)
        origin = self._root / origin_name
        if not origin.exists() or not stat.S_ISREG(origin.lstat().st_mode):
            raise BadArchive(f"{member.name!r} is a link to {member.linkname!r}, which is no file of the archive")
        if origin_name != name:
            self._clear(name)
            os.link(origin, self._root / name, follow_symlinks=False)
            self._found.files[os.fsencode(name)] = self._found.files[os.fsencode(origin_name)]

    def _clear(self, name: PurePosixPath) -> None:
        """A name that comes twice: the later one counts."""
        self._links.pop(name, None)
        path = self._root / name
        if path.is_dir():
            raise BadArchive(f"{str(name)!r} comes twice, once as a directory")
        if path.exists():
            path.unlink()
            self._found.files.pop(os.fsencode(name), None)

    def _check_parent(self, name: PurePosixPath) -> None:
        """Every directory on the way is one that the archive made."""
        for parent in name.parents:
            if parent in self._links or self._root / parent not in self._directories:
                raise BadArchive(f"{str(name)!r} is not in a directory of the archive")

    def _check_room(self, member: tarfile.TarInfo) -> None:
        if self._limit is not None and self._found.size + member.size > self._limit:
            raise BadArchive(f"it is larger than the {self._limit} bytes allowed")
        free = shutil.disk_usage(self._folder).free
        if member.size > free:
            raise BadArchive(f"{member.name!r} announces {member.size} bytes, and {free} are free here: No space left on device")


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not name:
        raise BadArchive(f"the name {name!r} leads out of the directory")
    return path


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
