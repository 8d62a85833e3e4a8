"""Where unpacked images are kept, shared by all environments of a user:

    sha256/NUMBER/rootfs/         the files; nobody but the user gets here, since there are setuid programs among them
                  image.json      {"kind", "config", "size", "files", "added"}
    archives/SHA256               JSON {"image", "names"} of an archive that was unpacked: the image's number, what its maker called it
    names/NAME                    the number of the image that has this name
    users/HASH                    JSON {"image", "folder", "who"}: it is used while that folder exists

What is made has its final name only once it is whole, so that any process may be killed at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ...errors import ProviderError
from ...tars import BadArchive
from . import archive
from .flatten import OWN, flatten
from .streams import BROKEN

LIMIT = 64 << 30
"""Bytes that an image may measure unpacked, unless another limit is named."""

_PART = "%part"
"""In the names of files that are written just now, and in no name that is quoted."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stored:
    """An image of the store. digest: "sha256:…"; size: bytes of its files; added, used: times, seconds; users: in words."""

    digest: str
    names: tuple[str, ...]
    kind: str
    size: int
    files: int
    added: float
    used: float
    users: tuple[str, ...]
    rootfs: Path
    config: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it sets."""
        listed = self.config.get("Env")
        pairs = [item.partition("=") for item in listed if isinstance(item, str)] if isinstance(listed, list) else []
        return {name: value for name, equals, value in pairs if name and equals and "\0" not in name + value}


class Store:
    """The store in a folder, which is made when something is put there."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def add(
        self, path: Path, *, name: str | None = None, named: bool = True, limit: int = LIMIT, report: Report = lambda said: None
    ) -> Stored:
        """The image of an archive or a folder, unpacked if it is not there yet.

        name: given to it. named: whether it is given its maker's names, too. Another image that has one of these loses it.
        Raises ProviderError where it cannot be read, is damaged or not safe.
        """
        with _explaining(f"image {path} cannot be unpacked"):
            number, names = self._unpacked(path, limit, report)
        for each in (*(names if named else ()), *([name] if name is not None else ())):
            _write(self.root / "names" / _file_name(each), number)
        return self._stored(number)

    def take(self, root: str, name: str, variables: Mapping[str, str], report: Report) -> Stored:
        """Make what lies below a node's root an image of this name, without what every node has of its own.

        variables: that it sets. Raises ProviderError where there is one of that name.
        """
        if _read(self.root / "names" / _file_name(name)) is not None:
            remedy = f"Choose another name, or remove it: wardian image rm {name}"
            raise ProviderError(f"there is an image {name}", remedy=remedy)
        report("reading its disk")
        with _explaining(f"image {name} cannot be made"):
            self._begin()
            with archive.packed(root, self.root, LIMIT, without=OWN, variables=variables) as image:
                number = self._put(image, LIMIT, report)
        _write(self.root / "names" / _file_name(name), number)
        return self._stored(number)

    def find(self, image: str) -> Stored | None:
        """That of a name, or of a digest or the beginning of one that no other has."""
        for name in (image, f"{image}:latest"):
            number = _read(self.root / "names" / _file_name(name))
            if number is not None and self._whole(number):
                return self._stored(number)
        begin = image.removeprefix("sha256:")
        if len(begin) < 6:
            return None
        found = [number for number in self._numbers() if number.startswith(begin)]
        return self._stored(found[0]) if len(found) == 1 else None

    def get(self, image: str) -> Stored:
        """The same. Raises ProviderError, naming what is there."""
        found = self.find(image)
        if found is None:
            there = [name for stored in self.all() for name in stored.names or (stored.digest[7:19],)]
            remedy = f"There are: {', '.join(there)}." if there else "There are none; `wardian image add` makes one."
            raise ProviderError(f"there is no image {image}", remedy=remedy)
        return found

    def all(self) -> list[Stored]:
        """All images, the last added first."""
        return sorted((self._stored(number) for number in self._numbers()), key=lambda stored: -stored.added)

    def claim(self, stored: Stored, folder: Path, who: str) -> bool:
        """Say that an image is used as long as a folder exists. False where it was removed just now. who: in words."""
        target = self._folder(stored.digest)
        with _locked(target, fcntl.LOCK_SH):
            if not target.is_dir():
                return False
            name = hashlib.sha256(os.fsencode(folder)).hexdigest()
            _write(self.root / "users" / name, json.dumps({"image": target.name, "folder": str(folder), "who": who}))
            os.utime(target / "image.json")
            return True

    def remove(self, stored: Stored) -> None:
        """Remove an image and its names. Raises ProviderError where it is used."""
        target = self._folder(stored.digest)
        with _locked(target, fcntl.LOCK_EX):
            if users := self._users().get(target.name):
                who = f"{users[0]} and {len(users) - 1} more" if len(users) > 1 else users[0]
                raise ProviderError(f"image {_shown(stored)} is used by {who}", remedy="`wardian down` ends an environment.")
            for name in stored.names:
                (self.root / "names" / _file_name(name)).unlink(missing_ok=True)
            if target.exists():
                part = _part(target)
                _remove_tree(part)
                target.rename(part)
                _remove_tree(part)

    def unname(self, name: str) -> None:
        """Take a name away, and leave the image."""
        (self.root / "names" / _file_name(name)).unlink(missing_ok=True)

    def collect(self, unused_since: float, *, named: bool, really: bool = True) -> list[Stored]:
        """Remove images that nothing uses and nothing used after a time, those with names only if `named`; and what was left half done."""
        gone = [stored for stored in self.all() if not stored.users and stored.used <= unused_since and (named or not stored.names)]
        if really:
            gone = [stored for stored in gone if self._removed(stored)]
            self._forget()
        return gone

    def unfinished(self) -> list[str]:
        """Remove what was left half done; one line for each."""
        return ["an unfinished image"] * cleared(self.root / "sha256")

    def _unpacked(self, path: Path, limit: int, report: Report) -> tuple[str, list[str]]:
        """The number of the image, and what its maker called it."""
        folder = path.is_dir()
        stamp = _stamp(path)
        key = None if folder else _file_digest(path, stamp)
        known = self._archive(key) if key else None
        if known is not None and self._whole(known["image"]):
            return known["image"], known["names"]
        self._begin()
        report("reading")
        with archive.opened(path, self.root, limit) as image:
            number = self._put(image, limit, report)
        names = list(image.names)
        # what was written over meanwhile is not what was digested
        if key and _stamp(path) == stamp:
            _write(self.root / "archives" / key, json.dumps({"image": number, "names": names}))
        return number, names

    def _begin(self) -> None:
        (self.root / "sha256").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.chmod(0o700)

    def _put(self, image: archive.Image, limit: int, report: Report) -> str:
        """Unpack an image unless it is there, and give its number."""
        number = image.digest.removeprefix("sha256:")
        target = self.root / "sha256" / number
        with making(target) as part:
            if part is not None:
                part.mkdir(mode=0o700)
                size = flatten(image, part / "rootfs", limit, report)
                config = json.loads(image.config).get("config")
                about = {"kind": image.kind, "config": config if isinstance(config, dict) else {}, "size": size.bytes}
                _write(part / "image.json", json.dumps(about | {"files": size.files, "added": time.time()}))
                part.rename(target)
        return number

    def _archive(self, key: str) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads(_read(self.root / "archives" / key) or "null")
        except ValueError:
            return None
        return known

    def _folder(self, digest: str) -> Path:
        return self.root / "sha256" / digest.removeprefix("sha256:")

    def _whole(self, number: str) -> bool:
        return (self.root / "sha256" / number / "image.json").is_file()

    def _numbers(self) -> list[str]:
        try:
            return [name for name in sorted(os.listdir(self.root / "sha256")) if not name.startswith(".") and self._whole(name)]
        except FileNotFoundError:
            return []

    def _stored(self, number: str) -> Stored:
        folder = self.root / "sha256" / number
        try:
            about = json.loads((folder / "image.json").read_text())
            used = (folder / "image.json").stat().st_mtime
        except (OSError, ValueError) as error:
            raise ProviderError(f"image {number[:12]} is gone or damaged", remedy=f"Remove {folder}, and add it again.") from error
        names = tuple(sorted(name for name, other in self._names().items() if other == number))
        users = tuple(self._users().get(number, ()))
        facts = {key: about[key] for key in ("kind", "size", "files", "added", "config")}
        return Stored(f"sha256:{number}", names, used=used, users=users, rootfs=folder / "rootfs", **facts)

    def _names(self) -> dict[str, str]:
        return {unquote(path.name[1:]): number for path in _listed(self.root / "names") if (number := _read(path)) is not None}

    def _users(self) -> dict[str, list[str]]:
        """{number of an image: who uses it, in words}."""
        found: dict[str, list[str]] = {}
        for path in _listed(self.root / "users"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                user = json.loads(path.read_text())
                if os.path.isdir(user["folder"]):
                    found.setdefault(user["image"], []).append(user["who"])
        return {number: sorted(users) for number, users in found.items()}

    def _removed(self, stored: Stored) -> bool:
        try:
            self.remove(stored)
        except ProviderError:
            # somebody took it meanwhile
            return False
        return True

    def _forget(self) -> None:
        """Remove notes about what is gone."""
        self.unfinished()
        for path in _listed(self.root / "archives"):
            known = self._archive(path.name)
            if known is None or not self._whole(known["image"]):
                path.unlink(missing_ok=True)
        for path in _listed(self.root / "users"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                if not os.path.isdir(json.loads(path.read_text())["folder"]):
                    path.unlink(missing_ok=True)


@contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Have what goes wrong raised as ProviderError that begins so."""
    try:
        yield
    except (BadArchive, tarfile.TarError, *BROKEN) as error:
        remedy = "Write it anew with `docker save -o`, `skopeo copy … oci-archive:…`, or as a tar of a root file system."
        raise ProviderError(f"{what}: {error}", remedy=remedy) from error
    except ProviderError as error:
        raise ProviderError(f"{what}: {error.message}", remedy=error.remedy) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ProviderError(f"{what}: {where}{error.strerror or error}") from error


def default_root() -> Path:
    """`$XDG_CACHE_HOME/wardian/images`, else ~/.cache/wardian/images."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wardian" / "images"


@contextmanager
def making(target: Path) -> Iterator[Path | None]:
    """Make what shall be called `target` under a name of its own, alone; None where it exists already."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = _part(target)
    with _locked(target, fcntl.LOCK_EX):
        if target.exists():
            yield None
            return
        _remove_tree(part)
        try:
            yield part
        finally:
            _remove_tree(part)


def cleared(folder: Path) -> int:
    """Remove what was begun by `making` in a folder and is worked on no more; how many."""
    count = 0
    for part in sorted(folder.glob(".new-*")):
        with suppress(BlockingIOError), _locked(part.with_name(part.name.removeprefix(".new-")), fcntl.LOCK_EX | fcntl.LOCK_NB):
            if part.exists():
                _remove_tree(part)
                count += 1
    return count


@contextmanager
def _locked(target: Path, how: int) -> Iterator[None]:
    descriptor = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _part(target: Path) -> Path:
    return target.with_name(f".new-{target.name}")


def _remove_tree(path: Path) -> None:
    """Remove a folder with all in it, also where its own folders may not be written."""
    if not path.exists():
        return
    if os.geteuid() != 0:
        path.chmod(stat.S_IRWXU)
        for folder, folders, _ in os.walk(path):
            for name in folders:
                if not os.path.islink(f"{folder}/{name}"):
                    os.chmod(f"{folder}/{name}", stat.S_IRWXU)
    shutil.rmtree(path)


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@cache
def _file_digest(path: Path, stamp: tuple[int, ...]) -> str:
    """Of a file as it was at a stamp: many nodes boot from one, and each asks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_name(name: str) -> str:
    # Docker's registry is where a name without one is looked for, and Podman's own images have none
    short = name.removeprefix("docker.io/").removeprefix("library/").removeprefix("localhost/")
    # the beginning keeps names such as ".." apart from those of folders
    return "=" + quote(short, safe="")[:250]


def _shown(stored: Stored) -> str:
    return stored.names[0] if stored.names else stored.digest[7:19]


def _listed(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if _PART not in name]
    except FileNotFoundError:
        return []


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name[:200]}{_PART}{os.getpid()}-{threading.get_ident()}")
    part.write_text(text)
    part.rename(path)
