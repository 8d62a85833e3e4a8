"""What nodes boot from: the host's own files, a folder, or an image of the user's store (`providers.images`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ProviderError
from ..base import Progress
from ..images import archive
from ..images.archive import is_path
from ..images.store import Store, Stored

_VARIABLES = {"LANG": "C.UTF-8"}
"""What images that say nothing else start with: they need not have the host's language."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a node boots from. path: its files; identity: of what they are; digest: "sha256:…", where it has one."""

    path: str
    identity: str
    digest: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, object]:
        """What is written down with the node."""
        return {"image": {"digest": self.digest, "variables": dict(self.variables)}} if self.digest else {}


HOST = Base("/", "host")


def base(image: str | None, folder: Path, user: Path, who: str, report: Callable[[str], None]) -> Base:
    """What an image is, unpacked if need be.

    image: as written in the experiment file. folder: what a relative path starts from. user: a folder that exists while it is used.
    Raises ProviderError when there is no such image or it is not safe to unpack.
    """
    if image is None:
        return HOST
    path = folder / Path(image).expanduser()
    if path.is_dir() and not archive.is_layout(path):
        return Base(str(path.resolve()), f"folder {path.resolve()}")
    store = Store()
    while True:
        stored = _stored(store, image, path, report)
        if store.claim(stored, user, who):
            return Base(str(stored.rootfs), stored.digest, stored.digest, _VARIABLES | stored.environment)


def digest(image: str, folder: Path, report: Callable[[str], None]) -> str:
    """What an image is known by: its digest, or of a folder the path. Arguments and errors as of `base`."""
    path = folder / Path(image).expanduser()
    if path.is_dir() and not archive.is_layout(path):
        return str(path.resolve())
    return _stored(Store(), image, path, report).digest


def _stored(store: Store, image: str, path: Path, report: Callable[[str], None]) -> Stored:
    if path.exists():
        # an experiment of somebody else's is not to say what `debian:12` is from now on
        return store.add(path, named=False, report=report)
    named = None if is_path(image) else store.find(image)
    if named is None:
        remedy = "Write the path of a folder or an archive; or give an archive that name: wardian image add FILE --name " + image + "."
        if is_path(image):
            remedy = "Write the path of a folder or an archive: of `docker save`, of an OCI image, or a tar of a root file system."
        raise ProviderError(f"there is no image {path if is_path(image) else image}", remedy=remedy)
    return named


def fetched(image: Mapping[str, str], folder: Path, report: Progress) -> str | None:
    """Have an image in the store, out of its archive if need be; else why that cannot be, and what to do.

    image: as of `Provider.images`. folder: what a relative path starts from.
    """
    store, digest = Store(), image["digest"]
    if store.find(digest) is not None:
        return None
    path = folder / Path(image["name"]).expanduser()
    if not path.exists():
        return "give it the archive: wardian image add FILE"
    try:
        now = store.add(path, named=False, report=lambda said: report(str(path), said)).digest
    except ProviderError as error:
        return error.message
    return None if now == digest else f"{image['name']} is {now} now"


def layer_path(root: Path, identity: str, script: str) -> Path:
    """Where the layer that `script` makes of an image is kept."""
    return root / "layers" / hashlib.sha256(json.dumps([identity, script]).encode()).hexdigest()[:32]
