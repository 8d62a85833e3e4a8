"""A root file system made of the layers of an image, each a tar that is not trusted.

The tree lies in a folder that nobody else may enter, so that what is looked up stays as it was. A name is looked up as on the node itself:
links are followed within the tree, as if that were the whole file system, and so never lead out of it.

What is left out: devices, pipes and sockets (every node has its own, and a device 0/0 would hide files of an overlay), and attributes of
files but for capabilities, since an overlay takes some for orders. Setuid and setgid stay where the owner is as written: a node needs them,
and nobody on the host gets there. Source: the OCI image specification 1.1, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...tars import BadArchive, Header
from .archive import Image
from .streams import Hashing, decompressed

MOST_ENTRIES = 4_000_000
"""Names that an image may have in all its layers."""

MARGIN = 256 << 20
"""Bytes of the disk that are left free."""

OWN = ("dev", "proc", "run", "sys", "tmp")
"""Folders of which every node has its own, so that something has to be there to lay it over."""

_CHUNK = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_CAPABILITY = "security.capability"
_MOST_LINKS = 40


@dataclass(slots=True)
class Size:
    """How much an image is. bytes: of its files' content; files: names in it."""

    bytes: int = 0
    files: int = 0


def flatten(image: Image, target: Path, limit: int, report: Callable[[str], None]) -> Size:
    """Make the root file system of an image in a folder, which is made.

    limit: bytes that its files may measure. report: told how far it is.
    Raises BadArchive where a layer is damaged, not what its digest says, too large or not safe; tarfile.TarError, EOFError and OSError.
    """
    target.mkdir(mode=0o700)
    tree = _Tree(target, limit)
    for number, layer in enumerate(image.layers, 1):
        said = f"unpacking layer {number} of {len(image.layers)}" if len(image.layers) > 1 else "unpacking"
        with layer.open() as stream:
            raw = Hashing(stream)
            plain = Hashing(decompressed(raw))  # type: ignore[arg-type]
            tree.apply(plain, lambda size, said=said: report(f"{said}: {size >> 20} MiB"))  # type: ignore[misc]
            if plain.finish() != layer.diff or layer.digest not in (None, raw.finish()):
                raise BadArchive(f"layer {number} is not what its digest says: the archive is damaged, or was changed")
    return tree.finish()


class _Tree:
    def __init__(self, root: Path, limit: int) -> None:
        self._root = os.path.realpath(root)
        self._limit = limit
        self._size = Size()
        self._folders: dict[str, tarfile.TarInfo] = {}
        self._made: set[str] = set()
        self._known: dict[str, str] = {}
        self._reported = 0

    def apply(self, stream: Any, report: Callable[[int], None]) -> None:
        """Lay a layer over what is there."""
        self._made = set()
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, bufsize=_CHUNK, encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                # the reader remembers every member, which a stream has no use for
                archive.members = []  # type: ignore[attr-defined]
                self._size.files += 1
                if self._size.files > MOST_ENTRIES:
                    raise BadArchive(f"it has more than {MOST_ENTRIES} names")
                self._member(archive, member)
                if self._size.bytes - self._reported > 16 << 20:
                    self._reported = self._size.bytes
                    report(self._size.bytes)

    def finish(self) -> Size:
        """Set what writing would have changed, and have folders where nodes need them."""
        if not os.listdir(self._root):
            raise BadArchive("it is empty")
        for path, member in reversed(self._folders.items()):
            # a later layer may have something else there, or a link on the way there
            if os.path.realpath(path) != path or not os.path.isdir(path):
                continue
            self._own(path, member)
            os.utime(path, (member.mtime, member.mtime))
        for name in OWN:
            path = f"{self._root}/{name}"
            if os.path.islink(path) or not os.path.isdir(path):
                self._clear(path)
                _make(path)
        os.chmod(self._root, 0o755)  # noqa: S103 - the folder above is closed
        return self._size

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        folder, name = self._place(member.name)
        if not name:
            if not member.isdir():
                raise BadArchive(f"{member.name!r} is no name of a file")
            self._folders[self._root] = member
            return
        if name.startswith(_WHITEOUT):
            self._whiteout(folder, name)
            return
        path = f"{folder}/{name}"
        self._mark(path)
        if member.isdir():
            if not _is_folder(path):
                self._clear(path)
                os.mkdir(path, 0o700)
            self._folders.pop(path, None)
            self._folders[path] = member
        elif member.isreg():
            self._clear(path)
            self._file(archive, member, path)
        elif member.issym():
            self._clear(path)
            os.symlink(member.linkname, path)
            self._own(path, member)
        elif member.islnk():
            self._link(member, path)
        elif not (member.ischr() or member.isblk() or member.isfifo()):
            raise BadArchive(f"{member.name!r} is of a kind that is not known")

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        self._check_room(member)
        stream = archive.extractfile(member)
        if stream is None:
            raise BadArchive(f"{member.name!r} has no content")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            _copy(stream, file, member)
            self._own(descriptor, member)
            os.utime(descriptor, (member.mtime, member.mtime))
        self._size.bytes += member.size

    def _link(self, member: tarfile.TarInfo, path: str) -> None:
        folder, name = self._place(member.linkname)
        origin = f"{folder}/{name}"
        if not name or not os.path.lexists(origin) or _is_folder(origin):
            raise BadArchive(f"{member.name!r} is a link to {member.linkname!r}, which is no file of it")
        if origin != path:
            self._clear(path)
            os.link(origin, path, follow_symlinks=False)

    def _own(self, path: str | int, member: tarfile.TarInfo) -> None:
        """Owner, mode and capabilities as written, as far as we may."""
        link = member.issym()
        owned = _is_ours(member)
        if os.geteuid() == 0:
            try:
                if isinstance(path, int):
                    os.chown(path, member.uid, member.gid)
                else:
                    os.chown(path, member.uid, member.gid, follow_symlinks=False)
                owned = True
            except (OSError, OverflowError):
                # in a user namespace, an owner that is not mapped there
                owned = False
        if link:
            return
        os.chmod(path, member.mode & (0o7777 if owned else 0o1777))
        capability = member.pax_headers.get(f"SCHILY.xattr.{_CAPABILITY}")
        if capability and member.isreg() and owned:
            try:
                os.setxattr(path, _CAPABILITY, capability.encode("utf-8", "surrogateescape"))
            except OSError:
                # who is not root may not, nor does every file system keep it; without it only root can do what the program does
                return

    def _whiteout(self, folder: str, name: str) -> None:
        """What an earlier layer has and this one has not."""
        if name == _OPAQUE:
            self._remove_older(folder)
            return
        gone = name.removeprefix(_WHITEOUT)
        if gone.startswith(_WHITEOUT):
            # of an old union file system's own
            return
        if gone in ("", ".", ".."):
            raise BadArchive(f"{name!r} removes nothing that has a name")
        path = f"{folder}/{gone}"
        if path in self._made and _is_folder(path):
            self._remove_older(path)
        elif path not in self._made:
            self._clear(path)

    def _remove_older(self, folder: str) -> None:
        """Remove what earlier layers put into a folder."""
        for entry in list(os.scandir(folder)):
            if entry.path not in self._made:
                self._clear(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                self._remove_older(entry.path)

    def _mark(self, path: str) -> None:
        while path not in self._made and path != self._root:
            self._made.add(path)
            path = os.path.dirname(path)

    def _clear(self, path: str) -> None:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        if not stat.S_ISREG(mode):
            # names that led through it lead elsewhere now
            self._known = {}

    def _place(self, name: str) -> tuple[str, str]:
        """Where a name is: the folder, made if need be, and the last part; that is empty for the root itself."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in name:
            raise BadArchive(f"the name {name!r} leads out of it")
        if not parts:
            return self._root, ""
        above = "/".join(parts[:-1])
        folder = self._known.get(above)
        if folder is None:
            folder = self._known[above] = self._walk(parts[:-1])
        return folder, parts[-1]

    def _walk(self, parts: list[str]) -> str:
        """The folder that this leads to, within the tree; what is not there is made."""
        path, left, followed = self._root, parts[::-1], 0
        while left:
            part = left.pop()
            if part == "..":
                path = os.path.dirname(path) if path != self._root else path
                continue
            here = f"{path}/{part}"
            try:
                mode = os.lstat(here).st_mode
            except FileNotFoundError:
                _make(here)
                self._mark(here)
                mode = stat.S_IFDIR
            if stat.S_ISLNK(mode):
                followed += 1
                target = os.readlink(here)
                if followed > _MOST_LINKS:
                    raise BadArchive(f"{'/'.join(parts)!r} leads through links without end")
                path = self._root if target.startswith("/") else path
                left += [item for item in reversed(target.split("/")) if item not in ("", ".")]
            elif stat.S_ISDIR(mode):
                path = here
            else:
                raise BadArchive(f"{'/'.join(parts)!r} leads through a file")
        return path

    def _check_room(self, member: tarfile.TarInfo) -> None:
        if self._size.bytes + member.size > self._limit:
            raise BadArchive(f"unpacked it is larger than the {self._limit >> 20} MiB allowed")
        free = shutil.disk_usage(self._root).free - MARGIN
        if member.size > free:
            raise BadArchive(
                f"{member.name!r} measures {member.size >> 20} MiB, and {max(free, 0) >> 20} are free: no space left on device"
            )


def _make(path: str) -> None:
    """A folder that no layer describes."""
    os.mkdir(path)
    # whatever our umask is: all users of the node are to get through
    os.chmod(path, 0o755)  # noqa: S103 - the folder above the tree is closed


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _is_ours(member: tarfile.TarInfo) -> bool:
    """Whether a file that belongs to us stands for what is written: root is who an ordinary user is on a node of theirs."""
    return (member.uid, member.gid) in ((0, 0), (os.geteuid(), os.getegid()))


def _copy(stream: IO[bytes], file: IO[bytes], member: tarfile.TarInfo) -> None:
    left = member.size
    while left:
        chunk = stream.read(min(_CHUNK, left))
        if not chunk:
            raise BadArchive("it ends in the middle of a file")
        left -= len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) :]
