"""From a bundle to a folder in which the experiment runs, with the journal of its packed runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...environment.live import FOLDER as STATE
from ...environment.live import journal_target
from ...errors import BundleError, JournalError
from ...journal import Journal
from . import JOURNAL, PARTIAL, SUFFIX
from .reading import reading, room

_ORIGIN = "bundle.sha256"
"""In the state folder: which bundle this was unpacked from."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A folder with an experiment. notebooks: of it, the main one first. runs: ids of those that the journal has of it.

    images: the table of images, of `images.load`.
    """

    folder: Path
    experiment: Path
    notebooks: tuple[Path, ...]
    runs: tuple[str, ...] = ()
    images: Mapping[str, Any] = field(default_factory=dict)


def unpack(bundle: Path, target: Path | None = None) -> Unpacked:
    """Unpack a bundle into a folder that is not there yet, or is empty; the folder is there when it is whole.

    target: where to; the bundle's name without its ending, here, when None. One that this bundle was unpacked into already stays as it is.
    Raises BundleError where the bundle is refused or something else stands there.
    """
    folder = (target or Path(_stem(bundle))).resolve()
    if folder == Path("/"):
        raise BundleError(f"{folder} is no place to unpack into")
    with reading(bundle) as opened:
        mark = _digest(bundle)
        if not _is_from(folder, mark):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise BundleError(f"{folder} is there already, and is not empty", remedy="name another folder")
            folder.parent.mkdir(parents=True, exist_ok=True)
            room(folder.parent, opened.size)
            with making(folder) as partial:
                opened.write_to(partial)
                (partial / STATE).mkdir()
                (partial / STATE / _ORIGIN).write_text(mark + "\n")
        experiment = folder / opened.manifest["experiment"]
        notebooks = tuple(folder / name for name in opened.manifest["notebooks"])
        images = opened.manifest.get("images")
    known = images if isinstance(images, dict) else {}
    return Unpacked(folder, experiment, notebooks, tuple(_take_in(folder, experiment)), known)


def _take_in(folder: Path, experiment: Path) -> list[str]:
    """Put the packed runs into the journal, and give their ids. Again is no harm: what is there stays."""
    extract = folder / JOURNAL
    if not extract.is_file():
        return []

    def absolute(path: str) -> str:
        found = os.path.normpath(folder / path)
        if not Path(found).is_relative_to(folder):
            raise ValueError(f"{path!r} leads out of the folder")
        return found

    with Journal.open(journal_target(experiment)) as journal, open(extract, encoding="utf-8", newline="\n") as lines:
        try:
            return journal.take_in(lines, absolute)
        except UnicodeDecodeError as error:
            raise JournalError(f"{extract}: is no text: {error}", remedy="get the bundle again") from error


def _stem(bundle: Path) -> str:
    name = bundle.name
    for ending in (SUFFIX, ".zip"):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending)
    return f"{name}-unpacked"


def _is_from(folder: Path, mark: str) -> bool:
    with suppress(OSError):
        return (folder / STATE / _ORIGIN).read_text().strip() == mark
    return False


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes a name once the block has ended well; what an earlier process left half-made is removed.

    Raises BundleError where another process makes it.
    """
    partial = folder.with_name(f".{folder.name}{PARTIAL}")
    partial.mkdir(exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(f"another command is making {folder}", remedy="wait for it, or name another folder") from None
        try:
            for left in partial.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield partial
            # an empty folder of that name gives way
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)
