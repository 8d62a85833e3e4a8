"""Images that are files or folders beside the experiment: a folder goes along as a tar that takes its place."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ...errors import BundleError
from ...experiment.model import Experiment


def named(experiment: Experiment, folder: Path) -> tuple[list[str], dict[str, Path], dict[str, str]]:
    """Images by path: the files that go along, {path in the bundle: folder} of those that become a tar, and what stays here, with why."""
    files: list[str] = []
    folders: dict[str, Path] = {}
    apart: dict[str, str] = {}
    for image in dict.fromkeys(node.image for node in experiment.nodes.values() if node.image):
        path = Path(os.path.normpath(folder / Path(image).expanduser()))
        inside = path.resolve().is_relative_to(folder) and path != folder
        if not path.exists():
            continue
        if not inside or Path(image).is_absolute():
            apart[image] = "an image outside of the folder" if not inside else "an image by its absolute path"
        elif path.is_dir():
            folders[path.relative_to(folder).as_posix()] = path.resolve()
        else:
            files.append(image)
    return files, folders, apart


def pack_root(root: Path, target: Path) -> Path:
    """Write the root file system in a folder into a tar: the same bytes for the same files. Devices and sockets are no part of an image.

    Raises BundleError for a file or folder that cannot be read.
    """
    try:
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(_within(root)):
                member = archive.gettarinfo(path, arcname=path.relative_to(root).as_posix())
                if member is None or member.ischr() or member.isblk() or member.isfifo():
                    continue
                member.uname = member.gname = ""
                # whole seconds, as a tar has them everywhere; compiled Python modules name those of their sources
                member.mtime = int(member.mtime)
                if member.isreg():
                    with open(path, "rb") as file:
                        archive.addfile(member, file)
                else:
                    archive.addfile(member)
    except OSError as error:
        said = f"image {root}: {error.filename or ''} cannot be packed: {error.strerror or error}"
        raise BundleError(said, remedy="pack it as the user who may read all of it") from error
    return target


def _within(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    # not by rglob, which passes over folders that may not be read
    for folder, folders, files in os.walk(root, onerror=refuse):
        yield from (Path(folder, name) for name in (*folders, *files))
