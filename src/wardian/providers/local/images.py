"""What nodes boot from: the host's own files, a folder or a tar (`image:`), and what a `setup:` script made of that.

A tar is unpacked once for all that name it, into `images/SHA256`; a script runs once for each image and text, into `layers/HASH`. Two
that need the same at once make it once; what was cut short never has the final name.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import ProviderError
from .state import remove_tree

HOST = "/"


def base(root: Path, image: str | None, folder: Path) -> tuple[str, str]:
    """Where an image's files lie, unpacked if need be, and what identifies it.

    root: the state folder. image: as written in the experiment file. folder: what a relative path starts from.
    Raises ProviderError when there is no such image or it is not safe to unpack.
    """
    if image is None:
        return HOST, "host"
    path = folder / Path(image).expanduser()
    if path.is_dir():
        return str(path.resolve()), f"folder {path.resolve()}"
    if not path.is_file():
        raise ProviderError(f"there is no image {path}", remedy="Write the path of a folder or of a tar; see `debootstrap` for making one.")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = root / "images" / digest
    with making(target) as part:
        if part is not None:
            part.mkdir()
            _unpack(path, part)
            part.rename(target)
    return str(target), digest


def layer_path(root: Path, identity: str, script: str) -> Path:
    """Where the layer that `script` makes of an image is kept."""
    return root / "layers" / hashlib.sha256(json.dumps([identity, script]).encode()).hexdigest()[:32]


@contextmanager
def making(target: Path) -> Iterator[Path | None]:
    """Make what shall be called `target` under a name of its own, alone; None where it exists already."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_name(f".new-{target.name}")
    descriptor = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        if part.exists():
            remove_tree(part)
        try:
            yield part
        finally:
            if part.exists():
                remove_tree(part)
    finally:
        os.close(descriptor)


def _unpack(path: Path, target: Path) -> None:
    try:
        with tarfile.open(path) as archive:
            archive.extractall(target, numeric_owner=True, filter=_safe)  # noqa: S202 - filtered
    except tarfile.TarError as error:
        raise ProviderError(f"image {path} cannot be unpacked: {error}", remedy="Make it anew, as a tar of a root filesystem.") from error


def _safe(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    """The member as it shall be extracted: nothing lands outside of `target`, and devices are left out."""
    if member.ischr() or member.isblk() or member.isfifo():
        return None
    checked = tarfile.tar_filter(member, target)
    if checked.islnk():
        real = os.path.realpath(os.path.join(target, checked.linkname))
        if os.path.commonpath([real, os.path.realpath(target)]) != os.path.realpath(target):
            raise tarfile.LinkOutsideDestinationError(member, real)
    # the filter takes setuid and the sticky bit away, which a root filesystem needs
    kept = copy.copy(checked)
    kept.mode = member.mode
    return kept
