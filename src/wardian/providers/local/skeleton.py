"""Folders that a node's root may write to although the host's root owns them: for the nodes of ordinary users.

In a user namespace the host's root is nobody, and what he owns is read-only even to a node's root. A folder, however, that lies over one of
the same name in an overlay shows what is in both, and belongs to whoever owns the upper one. So a layer of empty folders, owned by the
user, lets nodes make, replace and remove files in all of them. Files of the host can be replaced, as package managers do, but not
written in place; of those that people and programs do that to (settings, logs, locks) nodes have their own. Folders that the user may
not look into are empty on nodes, and files that he may not read are not there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from ..images.store import making
from . import images, mounts
from .state import remove_tree

DEPTHS = {"/usr": 4, "/var": 4, "/etc": 4, "/opt": 2, "/srv": 2, "/root": 1, "/home": 1}
"""How deep folders below these are taken along; of all others none. Packages put new files no deeper, into folders that were there."""

_NAME = "skeleton-"
_SHADOWED = {"/etc/shadow": ("/etc/passwd", ":!:::::::"), "/etc/gshadow": ("/etc/group", ":!::")}
"""Files of passwords: {file: (whose names are in it, what follows a name that has none)}."""


def layers(state: Path, base: str) -> list[str]:
    """What lies over `base` in the views of nodes here: the skeleton where that is the host's files in a user namespace, else nothing."""
    return [_layer(state)] if base == images.HOST.path and mounts.in_user_namespace() else []


def forget_old(state: Path, *, in_use: bool) -> list[str]:
    """Remove skeletons of the host as it was; one line for each. in_use: whether there are environments, which may stand on one."""
    if in_use or not mounts.in_user_namespace():
        return []
    current = f"{_NAME}{_identity(mounts.host_layout())}"
    old = [folder for folder in sorted((state / "layers").glob(f"{_NAME}*")) if folder.name != current]
    for folder in old:
        remove_tree(folder)
    return ["the layer of this host's folders as they were" for _ in old]


def _layer(state: Path) -> str:
    layout = mounts.host_layout()
    target = state / "layers" / f"{_NAME}{_identity(layout)}"
    with making(target) as part:
        if part is not None:
            part.mkdir(mode=0o700)
            for point, lower in layout:
                if lower is not None and mounts.is_folder(point):
                    _copy(point, part / mounts.layer_name(point), _depth(point))
                elif lower is not None and not os.path.islink(point):
                    _lone(point, part / mounts.layer_name("/") / point.lstrip("/"))
            part.rename(target)
    return str(target)


def _identity(layout: mounts.Layout) -> str:
    """What changes when folders of the host do, as far as that shows at a glance."""
    folders = ("/etc", "/usr/bin", "/usr/lib", "/usr/share", "/var/lib/dpkg", "/var/lib/rpm", "/etc/alternatives")
    seen = [(folder, os.stat(folder).st_mtime_ns) for folder in folders if os.path.isdir(folder)]
    return hashlib.sha256(repr((sorted(layout, key=str), seen, DEPTHS)).encode()).hexdigest()[:32]


def _depth(point: str) -> int:
    for top, depth in DEPTHS.items():
        if point == top or point.startswith(f"{top}/"):
            return depth - point.count("/") + top.count("/")
    return 0


def _copy(source: str, target: Path, depth: int) -> None:
    status = os.stat(source)
    if status.st_uid != _overflow():
        return
    target.mkdir(mode=0o700)
    readable = os.access(source, os.R_OK | os.X_OK)
    if not readable:
        os.setxattr(target, "user.overlay.opaque", b"y")
    elif depth > 0:
        with os.scandir(source) as entries:
            for entry in entries:
                # the host goes on meanwhile: what is gone by now is not there
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False) and not os.path.ismount(entry.path):
                        _copy(entry.path, target / entry.name, depth - 1)
                    elif entry.is_file(follow_symlinks=False):
                        _stand_in(entry.path, target / entry.name)
    target.chmod(stat.S_IMODE(status.st_mode) | 0o700)
    # who asks whether a folder has changed is not to be misled
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _lone(source: str, target: Path) -> None:
    """A file in a folder that had to be laid out, see `mounts.host_layout`."""
    with suppress(FileNotFoundError):
        if stat.S_ISREG(os.stat(source).st_mode):
            target.parent.mkdir(parents=True, exist_ok=True)
            _stand_in(source, target)


def _stand_in(source: str, target: Path) -> None:
    """What nodes have in place of a file that their root could not write: settings, locks and logs of their own, and no keys."""
    if not source.startswith(("/etc/", "/var/")):
        return
    status = os.stat(source)
    if status.st_size == 0 or source.startswith("/var/log/"):
        target.touch(mode=0o600)
        target.chmod(stat.S_IMODE(status.st_mode) | 0o600)
    elif source in _SHADOWED:
        # without one nobody can be added, or log in by a key; nobody has a password in it
        names, fields = _SHADOWED[source]
        target.write_text("".join(f"{line.partition(':')[0]}{fields}\n" for line in Path(names).read_text().splitlines()))
        target.chmod(0o640)
    elif not os.access(source, os.R_OK):
        # how an overlay says that there is nothing, overlayfs.rst, "whiteouts"
        os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
    elif source.startswith("/etc/") or os.path.dirname(source) == "/var/lib/dpkg":
        shutil.copy2(source, target)


def _overflow() -> int:
    with open("/proc/sys/kernel/overflowuid") as file:
        return int(file.read())
