"""The few system calls and facts of Linux that Python's standard library does not give. Standard library only."""

from __future__ import annotations

import array
import ctypes
import os
import socket
import struct
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
_KEPT = MS_NOSUID | MS_NODEV | MS_NOEXEC

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NAME = 23, 24, 15
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CAPABILITY_VERSION = 0x20080522

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_LIBC.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones, unshare(2)."""
    _check(_LIBC.unshare(flags), "making namespaces")


def setns(namespace: int, kind: int = 0) -> None:
    """Enter the namespace behind a file descriptor, setns(2)."""
    _check(_LIBC.setns(namespace, kind), "entering a namespace")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _LIBC.mount(source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None)
    _check(result, f"mounting {kind or source} on {target}")


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_LIBC.umount2(target.encode(), flags), f"unmounting {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Have `source` appear at `target` too."""
    mount(source, target, flags=MS_BIND)
    if read_only:
        # in a user namespace none of those may be taken away that it has
        kept = os.statvfs(target).f_flag & _KEPT
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def pivot_root(root: str) -> None:
    """Make `root`, a mount point, the root of this mount namespace and let go of the old one."""
    os.chdir(root)
    # with both arguments "." the old root ends up on top of the new one, where it can be detached without a folder for it
    _check(_LIBC.pivot_root(b".", b"."), f"pivot_root to {root}")
    unmount(".", MNT_DETACH)
    os.chdir("/")


def set_hostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    raw = name.encode()
    _check(_LIBC.sethostname(raw, len(raw)), "setting the host name")


def set_name(name: str) -> None:
    """Name this process as `ps` shows it, at most 15 bytes."""
    _LIBC.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent ends."""
    _check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "adopting orphans")


def hear_of_parents_end(number: int) -> None:
    """Be sent a signal when the parent of this process ends."""
    _check(_LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "hearing of a parent's end")


def keep_capabilities(kept: frozenset[int]) -> None:
    """Take all capabilities but these from every program executed from here on (capabilities(7), the bounding set)."""
    number = 0
    while (held := _LIBC.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if held and number not in kept:
            _check(_LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"dropping capability {number}")
        number += 1


def drop_capabilities(kept: frozenset[int]) -> None:
    """Take all capabilities but these from this process itself, also those that it could take back (capset(2))."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = (ctypes.c_uint32 * 6)()
    _check(_LIBC.capget(header, held), "reading the capabilities")
    masks = (sum(1 << number for number in kept) & 0xFFFFFFFF, sum(1 << number - 32 for number in kept if number >= 32))
    # effective, permitted, inheritable of the first 32, then of the others
    changed = (ctypes.c_uint32 * 6)(*(held[place] & masks[place // 3] for place in range(6)))
    _check(_LIBC.capset(header, changed), "dropping capabilities")


def receive(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """One packet of at most `size` bytes and the descriptors, at most `most`, that came with it; they are not inherited by programs."""
    space = socket.CMSG_SPACE(most * array.array("i").itemsize)
    # socket.recv_fds would leave them inheritable: it ignores its flags
    raw, ancillary, _, _ = connection.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return raw, list(descriptors)


def group_ids() -> int | None:
    """How many group ids this process's user namespace has; None in the host's own, which has all."""
    with open("/proc/self/gid_map") as table:
        rows = [line.split() for line in table]
    return None if rows == [["0", "0", "4294967295"]] else sum(int(row[2]) for row in rows)


def namespace_of(pid: int, kind: str = "user") -> str:
    """Which namespace of a kind a process is in; nothing where it is gone or another user's."""
    try:
        os.stat(f"/proc/{pid}/ns/net")  # a zombie has none, but still a user namespace
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def own_namespace() -> str:
    """The user namespace of this process."""
    return os.readlink("/proc/self/ns/user")


def boot_id() -> str:
    """What tells this run of the host from every other."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def process_identity(pid: int) -> dict[str, Any]:
    """What tells this process from any other that ever had its number: {"pid", "start", "boot"}. Raises OSError when it is gone."""
    return {"pid": pid, "start": _start(pid)[0], "boot": boot_id()}


def is_running(identity: dict[str, Any]) -> bool:
    """Whether the very process of this identity still runs; a zombie does not."""
    try:
        start, state = _start(identity["pid"])
    except (OSError, KeyError, IndexError):
        return False
    return start == identity["start"] and state not in "ZX" and identity["boot"] == boot_id()


def _start(pid: int) -> tuple[int, str]:
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[19]), fields[0].decode()


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
