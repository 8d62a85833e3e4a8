"""Topologies of other tools on disk: read from their folder, written as an experiment with what it needs beside it."""

from __future__ import annotations

import filecmp
import os
import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..errors import ExperimentFileError, Problem
from ..experiment import importing
from ..experiment.importing import Imported
from .live import FILE

LARGEST_FILE = 4 * 2**20
"""A file of a topology larger than this is not read, bytes. What is copied as it is may be larger."""

MOST_FILES = 10_000
"""How many files of one folder are looked at."""


class DiskFolder:
    """A folder of the disk. What links lead to outside of it is not there."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def read(self, path: str) -> bytes | None:
        """What a file of the folder holds; None where there is none, or none of which so much could be read."""
        place = self._place(path)
        if place is None or not place.is_file():
            return None
        with place.open("rb") as stream:
            return stream.read(LARGEST_FILE + 1)

    def files(self, path: str) -> list[str] | None:
        """The files below a folder, relative to it, sorted."""
        top = self._place(path)
        if top is None or not top.is_dir():
            return None
        found: list[str] = []
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(name for name in folders if name not in (".git", ".wardian"))
            inner = Path(folder).relative_to(top)
            found += [(inner / name).as_posix() for name in names if self._place(str(PurePosixPath(path, inner, name))) is not None]
            if len(found) > MOST_FILES:
                break
        return sorted(name for name in found if (top / name).is_file())

    def _place(self, path: str) -> Path | None:
        place = (self.root / path).resolve()
        return place if place.is_relative_to(self.root) else None


def import_path(
    path: Path, into: Path | None = None, *, kind: str | None = None, provider: str | None = None, name: str | None = None
) -> Imported:
    """The experiment that a topology of another tool describes; nothing is written.

    path: its file, or a folder with one such file.
    into: the folder that the experiment will lie in; that of the topology when not given.
    kind, provider, name: as for `import_topology`.

    Raises ExperimentFileError, with file, line and field, for what is no such topology.
    """
    file = _file_in(path, kind) if path.is_dir() else path
    folder = _folder_of(file)
    prefix = "" if into is None else os.path.relpath(folder, into.resolve())
    try:
        return importing.import_topology(
            file.name, DiskFolder(folder), kind=kind, provider=provider, name=name or folder.name, prefix="" if prefix == "." else prefix
        )
    except ExperimentFileError as error:
        # by the path that was given, which tells more than the name in its folder
        named = [replace(problem, file=str(file)) if problem.file == file.name else problem for problem in error.problems]
        raise ExperimentFileError(named) from None
    except OSError as error:
        raise ExperimentFileError([Problem("", f"cannot be read: {error.strerror or error}", str(path))]) from error


def write(imported: Imported, source: Path, into: Path) -> list[Path]:
    """Write an imported experiment into a folder, and what it needs from that of its topology. Gives the files written."""
    into.mkdir(parents=True, exist_ok=True)
    written = [into / FILE]
    written[0].write_text(imported.text, encoding="utf-8")
    for original, target in _copies(imported, source, into):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(original, target)
        written.append(target)
    return written


def in_the_way(imported: Imported, source: Path, into: Path) -> list[Path]:
    """What `write` would overwrite that is something else, without the experiment file itself."""
    return [target for original, target in _copies(imported, source, into)
            if target.exists() and (target.is_dir() or not filecmp.cmp(original, target, shallow=False))]  # fmt: skip


def _copies(imported: Imported, source: Path, into: Path) -> list[tuple[Path, Path]]:
    origin = _folder_of(source)
    return [] if origin == into.resolve() else [(origin / name, into / name) for name in imported.files]


def _folder_of(source: Path) -> Path:
    return (source if source.is_dir() else source.parent).resolve()


def _file_in(folder: Path, kind: str | None) -> Path:
    """The one topology that lies in a folder."""
    kinds = [kind] if kind else [known for known in importing.KINDS if known != "mininet"]
    found = {path: None for known in kinds for pattern in importing.NAMES[known] for path in sorted(folder.glob(pattern))}
    if len(found) == 1:
        return next(iter(found))
    if not found:
        expected = ", ".join(pattern for known in kinds for pattern in importing.NAMES[known][:2])
        raise ExperimentFileError([Problem("", "there is no topology in this folder", str(folder), expected=expected)])
    names = ", ".join(path.name for path in found)
    raise ExperimentFileError([Problem("", f"has several topologies ({names})", str(folder), expected="the name of one")])
