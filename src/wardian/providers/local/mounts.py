"""What a node sees as its filesystem: an overlay of the host's root or of an image, with everything private laid over it.

Runs in the spawner's child, inside the new namespaces. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
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
_UNSEEN = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug")
_UNCHANGED = ("/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")


def submounts() -> list[str]:
    """The mount points of the host, besides its root, that hold ordinary files."""
    found: dict[str, bool] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            place, _, source = line.partition(" - ")
            fields = place.split(" ")
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
            kind = source.split(" ", 1)[0]
            # a read-only tmpfs is how supervisors hand programs of their own into a machine
            found[point] = kind in ORDINARY and not (kind == "tmpfs" and "ro" in fields[5].split(","))
    return [point for point, ordinary in found.items() if ordinary and point != "/" and not _below(point, PRIVATE)]


def layer_name(point: str) -> str:
    """The name of the folder that holds a mount point's part of a layer."""
    return "root" + point.rstrip("/").replace("%", "%25").replace("/", "%2F").replace(":", "%3A").replace(",", "%2C")


def enter(node: dict[str, Any], host_submounts: list[str]) -> None:
    """Make the node's view and enter it for good. The working folder is the node's state folder.

    node: "base": what lies at the bottom, "/" for the host's own files; "layer": folder of a `setup:` layer or None;
    "hidden": folders to be seen empty; "shown": folders of the host to be seen although they lie in one of which a node has its own;
    "hostname"; "files": {path: text} written into the node's own layer.
    """
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    for folder in ("upper", "work", "view"):
        os.makedirs(folder, exist_ok=True)
    base, layer, root = node["base"], node["layer"], os.path.abspath("view")
    _write_files(f"upper/{layer_name('/')}", node["files"])
    _overlay(base, layer, "/", root)
    if base == "/":
        for point in host_submounts:
            if not _below(point, node["hidden"]) and os.path.isdir(point):
                _overlay_submount(point, layer, root)
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


def _overlay(lower: str, layer: str | None, point: str, target: str) -> None:
    name = layer_name(point)
    os.makedirs(f"upper/{name}", exist_ok=True)
    os.makedirs(f"work/{name}", exist_ok=True)
    lowers = _escape(lower)
    if layer and os.path.isdir(f"{layer}/{name}"):
        lowers = f"{_escape(f'{layer}/{name}')}:{_apart(lower, name)}"
    options = f"lowerdir={lowers},upperdir=upper/{name},workdir=work/{name}"
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


def _overlay_submount(point: str, layer: str | None, root: str) -> None:
    target = root + point
    with suppress(OSError):
        os.makedirs(target, exist_ok=True)
    try:
        _overlay(point, layer, point, target)
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
        os.mknod(f"{dev}/{name}", 0o666 | stat.S_IFCHR, os.makedev(*numbers))
    os.umask(umask)
    for name, target in _LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=25%")
    with suppress(OSError):
        mount("mqueue", f"{dev}/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for folder in ("lock", "wardian"):
        os.mkdir(f"{root}/run/{folder}", 0o755 if folder == "lock" else 0o700)


def _write_files(upper: str, files: dict[str, str]) -> None:
    for path, text in files.items():
        target = upper + path
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
