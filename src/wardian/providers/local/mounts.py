"""What a node sees as its filesystem: an overlay of the host's root or of an image, with everything private laid over it.

Runs in the spawner's child, inside the new namespaces. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .kernel import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    bind,
    group_ids,
    mount,
    pivot_root,
    set_hostname,
)

ORDINARY = frozenset(
    (
        *("9p", "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "iso9660", "jfs", "nfs", "nfs4"),
        *("ntfs3", "overlay", "reiserfs", "squashfs", "tmpfs", "vfat", "virtiofs", "xfs", "zfs"),
    )
)
"""File systems that hold files of people, not the kernel's own views."""

PRIVATE = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/run")  # noqa: S108 - nothing is put there
"""Folders of which every node has its own."""

SECRET_FOLDERS = (".ssh", ".gnupg", ".aws", ".azure", ".docker", ".kube", ".config/openstack", ".config/gcloud", ".config/gh")
SECRET_FILES = (".netrc", ".git-credentials", ".pypirc", ".pgpass")

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0), "net/tun": (10, 200)}
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
_TERMINALS = 5
"""The group that terminals belong to, everywhere."""

Layout = list[tuple[str, str | None]]
"""What a node's view of the host is laid out of: (where, the host's folder that is seen there; None where only what is laid over it is)."""

_UNSEEN = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug")
_UNCHANGED = ("/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")


def host_layout() -> Layout:
    """How this host's files are laid out: its root, then what else holds ordinary files.

    In a user namespace no overlay takes a folder below which something is mounted, since that would show what the mount covers. There
    such a folder is laid out by what is in it.
    """
    points = _mount_points()
    if in_user_namespace():
        return list(_apart_from_mounts("/", points))
    return [("/", "/"), *((point, point) for point, ordinary in points.items() if ordinary and point != "/" and not _below(point, PRIVATE))]


def _apart_from_mounts(folder: str, points: dict[str, bool]) -> Iterator[tuple[str, str | None]]:
    within = folder.rstrip("/") + "/"
    if not any(point.startswith(within) and point != folder for point in points):
        # what its user may not look into, /root mostly, would stay closed to the node's root, too
        yield folder, folder if os.access(folder, os.R_OK | os.X_OK) else None
        return
    yield folder, None
    if folder == "/var/tmp":  # noqa: S108 - it is others' and changes all the time
        return
    for entry in _entries(folder):
        if _below(entry.path, PRIVATE):
            continue
        if entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
            yield entry.path, entry.path
        elif points.get(entry.path, True):
            yield from _apart_from_mounts(entry.path, points)


def _mount_points() -> dict[str, bool]:
    """The mount points of the host, and whether what is mounted there holds ordinary files."""
    found: dict[str, bool] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            place, _, source = line.partition(" - ")
            fields = place.split(" ")
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
            kind = source.split(" ", 1)[0]
            # a read-only tmpfs is how supervisors hand programs of their own into a machine
            found[point] = kind in ORDINARY and not (kind == "tmpfs" and "ro" in fields[5].split(","))
    return found


def layer_name(point: str) -> str:
    """The name of the folder that holds a mount point's part of a layer."""
    return "root" + point.rstrip("/").replace("%", "%25").replace("/", "%2F").replace(":", "%3A").replace(",", "%2C")


def enter(node: dict[str, Any], layout: Layout) -> None:
    """Make the node's view and enter it for good. The working folder is the node's state folder.

    node: "base": what lies at the bottom, "/" for the host's own files; "layers": folders of what lies over that, the topmost first;
    "hidden": folders to be seen empty; "shown": folders of the host to be seen although they lie in one of which a node has its own;
    "hostname"; "files": {path: text} written into the node's own layer.
    """
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    for folder in ("upper", "work", "view"):
        os.makedirs(folder, exist_ok=True)
    base, layers, root = node["base"], node["layers"], os.path.abspath("view")
    if base != "/":
        _write_files(node["files"], ["/"])
        _overlay(base, layers, "/", root)
    else:
        parts = [part for part in layout if not _below(part[0], node["hidden"])]
        _write_files(node["files"], [point for point, lower in parts if point == "/" or (lower is not None and is_folder(point))])
        _lay_out(parts, layers, root)
        _hide(root, node["hidden"])
    _kernel_views(root)
    _private_folders(root)
    for path in node["shown"]:
        if base == "/" and _below(path, PRIVATE):
            os.makedirs(root + path, exist_ok=True)
            bind(path, root + path, read_only=True)
    set_hostname(node["hostname"])
    pivot_root(root)


def set_sysctls(values: dict[str, str]) -> None:
    """Set network parameters {"net/ipv4/ip_forward": "1"} of this network namespace; those that the kernel lacks are skipped."""
    for name, value in values.items():
        with suppress(FileNotFoundError), open(f"/proc/sys/{name}", "w") as file:
            file.write(value)


def _lay_out(layout: Layout, layers: list[str], root: str) -> None:
    for point, lower in layout:
        target = root + point
        if point == "/":
            _overlay(lower, layers, point, root)
        elif lower is None:
            os.makedirs(target, exist_ok=True)
            os.chmod(target, stat.S_IMODE(os.stat(point).st_mode) | 0o700)
        elif is_folder(point):
            _overlay_submount(point, layers, root)
        elif not os.path.lexists(target):
            _show_file(point, target)


def _show_file(point: str, target: str) -> None:
    """What is no folder, in one that had to be laid out: there once, unless a layer or the node has its own."""
    if os.path.islink(point):
        os.symlink(os.readlink(point), target)
    elif os.path.isfile(point) and os.access(point, os.R_OK):
        open(target, "x").close()
        bind(point, target, read_only=True)


def _overlay(lower: str | None, layers: list[str], point: str, target: str) -> None:
    name = layer_name(point)
    for folder in ("upper", "work"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    over = [part for layer in layers if os.path.isdir(part := f"{layer}/{name}")]
    lowers = [_escape(part) for part in over]
    if lower is None:
        os.makedirs("nothing", exist_ok=True)
        lowers += [] if lowers else ["nothing"]
    elif any(_below(part, [lower]) or lower == "/" for part in over):
        lowers.append(_apart(lower, name))
    else:
        lowers.append(_escape(lower))
    overlay(":".join(lowers), f"upper/{name}", f"work/{name}", target)


def overlay(lower: str, upper: str, work: str, target: str) -> None:
    """Have `target` show what is in `lower`, with the changes in `upper`. lower: folders as an overlay's option has them."""
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    if in_user_namespace():
        options += ",userxattr"
    try:
        # volatile: nobody needs these writes after a crash of the host, so that leaving need not wait for the disk
        mount("overlay", target, "overlay", MS_NODEV, f"{options},volatile")
    except OSError as error:
        try:
            mount("overlay", target, "overlay", MS_NODEV, options)
        except OSError:
            raise error from None


def _apart(lower: str, name: str) -> str:
    """The same files as below `lower`, as a file system of its own: no overlay takes two folders of which one holds the other."""
    folder = f"apart/{name}"
    os.makedirs(folder, exist_ok=True)
    mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=755")
    for part in ("nothing", "files"):
        os.mkdir(f"{folder}/{part}")
    mount("overlay", f"{folder}/files", "overlay", MS_RDONLY, f"lowerdir={folder}/nothing:{_escape(lower)}")
    return f"{folder}/files"


def _overlay_submount(point: str, layers: list[str], root: str) -> None:
    target = root + point
    with suppress(OSError):
        os.makedirs(target, exist_ok=True)
    try:
        _overlay(point, layers, point, target)
    except OSError:
        # a file system that cannot lie below an overlay is shown as it is, read-only; one that cannot even that is not shown
        with suppress(OSError):
            bind(point, target, read_only=True)


def _hide(root: str, hidden: list[str]) -> None:
    homes = ["/root", *(entry.path for entry in _entries("/home") if entry.is_dir(follow_symlinks=False))]
    folders = [*hidden, *(f"{home}/{name}" for home in homes for name in SECRET_FOLDERS)]
    files = [f"{home}/{name}" for home in homes for name in SECRET_FILES]
    for path in folders:
        if os.path.isdir(root + path) and not os.path.islink(root + path):
            mount("tmpfs", root + path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,mode=700")
    for path in files:
        if os.path.isfile(root + path) and not os.path.islink(root + path):
            bind("/dev/null", root + path)


def _kernel_views(root: str) -> None:
    for folder in ("proc", "sys"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", f"{root}/proc", "proc", safe)
    # a network namespace that is not this user namespace's has none to show
    with suppress(PermissionError):
        mount("sysfs", f"{root}/sys", "sysfs", safe | MS_RDONLY)
    bind(f"{root}/proc/sys", f"{root}/proc/sys", read_only=True)
    bind(f"{root}/proc/sys/net", f"{root}/proc/sys/net")
    mount("none", f"{root}/proc/sys/net", flags=MS_BIND | MS_REMOUNT | safe)
    for path in _UNSEEN:
        if os.path.exists(root + path):
            bind("/dev/null", root + path)
    for path in _UNCHANGED:
        if os.path.exists(root + path):
            bind(root + path, root + path, read_only=True)


def _private_folders(root: str) -> None:
    for folder, mode, size in (("dev", "755", "64k"), ("run", "755", "10%"), ("tmp", "1777", "25%")):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
        noexec = MS_NOEXEC if folder == "dev" else 0
        mount("tmpfs", f"{root}/{folder}", "tmpfs", MS_NOSUID | noexec | (0 if folder == "dev" else MS_NODEV), f"mode={mode},size={size}")
    dev = f"{root}/dev"
    for folder in ("net", "pts", "shm", "mqueue"):
        os.mkdir(f"{dev}/{folder}")
    umask = os.umask(0)
    for name, numbers in _DEVICES.items():
        _device(f"{dev}/{name}", name, os.makedev(*numbers))
    os.umask(umask)
    for name, target in _LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    have = group_ids()
    group = f",gid={_TERMINALS}" if have is None or have > _TERMINALS else ""
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}")
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=25%")
    with suppress(OSError):
        mount("mqueue", f"{dev}/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for folder in ("lock", "wardian"):
        os.mkdir(f"{root}/run/{folder}", 0o755 if folder == "lock" else 0o700)


def _device(path: str, name: str, number: int) -> None:
    if not in_user_namespace():
        os.mknod(path, 0o666 | stat.S_IFCHR, number)
        return
    # there nobody makes devices, and the host's own serve
    if os.path.exists(f"/dev/{name}"):
        open(path, "x").close()
        bind(f"/dev/{name}", path)


def is_folder(point: str) -> bool:
    """Whether an overlay can be laid over what is there; a single file can be mounted, too, as containers have it of /etc/hosts."""
    return os.path.isdir(point) and not os.path.islink(point)


def in_user_namespace() -> bool:
    """Whether mounts are made by a user who is root in a user namespace only."""
    return group_ids() is not None


def _write_files(files: dict[str, str], points: list[str]) -> None:
    """Write files of the node's own into what lies uppermost of the view. points: of which overlays there will be, with "/" among them."""
    for path, text in files.items():
        point = max((point for point in points if point == "/" or _below(path, [point])), key=len)
        target = f"upper/{layer_name(point)}/{path.removeprefix(point).lstrip('/')}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _below(path: str, folders: list[str] | tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _escape(path: str) -> str:
    return re.sub(r"([\\:,])", r"\\\1", path)
