"""`wardian doctor` for this provider: everything is tried, in namespaces that nobody sees, not guessed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ...errors import ProviderError
from ..base import Finding
from ..images.store import making
from . import ceiling, limits, mounts, netlink, room, shaping
from .cgroups import Cgroups
from .kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MNT_DETACH,
    MS_PRIVATE,
    MS_REC,
    mount,
    unmount,
    unshare,
)
from .netlink import Netlink
from .state import State

USER = "user namespaces"
PLAIN = "nodes without namespaces"
PLAIN_REMEDY = "The plan says what such nodes do not honour. The findings above say what would allow more; another provider may."

_NAMESPACES = {"mount": CLONE_NEWNS, "PID": CLONE_NEWPID, "network": CLONE_NEWNET, "UTS": CLONE_NEWUTS, "IPC": CLONE_NEWIPC}
DELEGATION = (
    "With systemd, have root run `loginctl enable-linger USER` with your name, once. Without, start it as `systemd-run --user --scope "
    "-p Delegate=yes wardian up`; its nodes then end with your last session."
)
_BOOTED = "Boot with these controllers enabled, or in a container use --privileged and --cgroupns=host."
_CONTROLLERS = (
    "With systemd, root writes [Service] and Delegate=cpu memory pids into /etc/systemd/system/user@.service.d/delegate.conf, and runs "
    "systemctl daemon-reload; then log in anew."
)
_PRIVILEGED = "Run as root, or in a container started with --privileged."


def diagnose(state: State) -> list[Finding]:
    """What works here, for a process that may do what root may: on the host, or in a user namespace. Blocking."""
    return [*_namespaces(), overlay(state), *_network(), _delay(state), *_groups(), _translation(), *room.findings()]


def refused() -> str | None:
    """The kernel's reason, where it does not let this process make what nodes of namespaces take first."""

    def attempt() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)

    return _attempt(attempt)


def _namespaces() -> Iterator[Finding]:
    for name, flag in _NAMESPACES.items():
        problem = _attempt(lambda flag=flag: unshare(flag))  # type: ignore[misc]
        yield _finding(f"{name} namespaces", problem, "can be made", _PRIVILEGED)


def overlay(state: State) -> Finding:
    """Whether the state folder can hold what nodes write; if not, which other could."""

    def there() -> None:
        with making(state.root / "tried") as part:
            if part is not None:
                part.mkdir()
                _lay_over(part)

    def elsewhere(place: str) -> None:
        with tempfile.TemporaryDirectory(prefix="wardian-", dir=place) as folder:
            _lay_over(folder)

    problem = _attempt(there)
    if problem is None:
        return Finding("overlay file systems", "ok", f"with changes below {state.root}")
    remedy = "Set WARDIAN_STATE to a folder on ext4, xfs, btrfs or tmpfs; an overlay cannot hold another one's changes."
    fitting = [place for place in ("/var/tmp", "/tmp", "/dev/shm") if _attempt(partial(elsewhere, place)) is None]  # noqa: S108
    if fitting:
        remedy += f" Here, for all commands: export WARDIAN_STATE={fitting[0]}/wardian-$(id -un)"
    elif mounts.in_user_namespace():
        remedy += " An ordinary user needs Linux 5.11 or newer, too."
    reason = problem.rpartition(": ")[2]
    return Finding("overlay file systems", "missing", f"what nodes write cannot be kept below {state.root}: {reason}", remedy)


def _lay_over(folder: str | Path) -> None:
    """Mount an overlay with its changes in this folder, and write to it."""
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    # this thread's own by now; and what the names of folders are made of means something in an overlay's options
    os.chdir(folder)
    for name in ("upper", "work", "view"):
        os.mkdir(name)
    # in a user namespace the host's root cannot lie below one as a whole, see `mounts.host_layout`
    mounts.overlay("/usr" if mounts.in_user_namespace() else "/", "upper", "work", "view")
    try:
        Path("view/wardian-doctor").write_text("seen in the overlay only")
    finally:
        unmount("view", MNT_DETACH)


def _network() -> Iterator[Finding]:
    def veth() -> None:
        with _private() as link:
            link.send([netlink.bridge("b0")])
            link.send([netlink.veth("p0", "p1", master=link.index("b0"))])

    def tbf() -> None:
        with _private() as link:
            link.send([netlink.qdisc(link.index("lo"), "tbf", netlink.tbf(1e6, burst=5000, limit=20000))])

    def tap() -> None:
        with _private():
            os.close(netlink.tap("t0"))

    yield _finding(
        "veth and bridges", _attempt(veth), "can be made", "Use a kernel with CONFIG_VETH and CONFIG_BRIDGE (modprobe veth bridge)."
    )
    yield _finding("rate of links (tbf)", _attempt(tbf), "works", "Use a kernel with CONFIG_NET_SCH_TBF (modprobe sch_tbf).")
    yield _finding(
        "TAP devices", _attempt(tap), "can be made", "Use a kernel with CONFIG_TUN (modprobe tun), and let /dev/net/tun through."
    )


def _delay(state: State) -> Finding:
    try:
        available = shaping.netem_available()
    except OSError as error:
        return Finding("delay and loss of links", "missing", error.strerror or str(error), _PRIVILEGED)
    if available:
        return Finding("delay and loss of links (netem)", "ok", "by the kernel")
    try:
        stand_in = limits.relay(ceiling.measure(state.root))
    except (OSError, ProviderError) as error:
        return Finding(
            "delay and loss of links (netem)", "missing", f"this kernel has no netem, and its stand-in fails: {error}", _PRIVILEGED
        )
    return Finding(
        "delay and loss of links (netem)",
        "limited",
        f"this kernel has no netem; {stand_in} stands in",
        "Load it where the kernel has it as a module (modprobe sch_netem), or use a distribution's full kernel.",
    )


def _groups() -> Iterator[Finding]:
    groups = Cgroups.find()
    if groups.member is None or not groups.enters:
        yield _no_groups()
        return
    wanted = ("cpu", "memory", "pids", *(["freezer"] if groups.version == 1 else []))
    lacking = [name for name in wanted if name not in groups.roots]
    problem = _attempt(lambda: _try_group(groups))
    detail = f"version {groups.version}, {'without ' + ', '.join(lacking) if lacking else 'with processor, memory and process limits'}"
    remedy = _CONTROLLERS if mounts.in_user_namespace() else _BOOTED
    if problem is not None:
        yield Finding("control groups", "missing", f"{detail}: {problem}", remedy)
    else:
        yield Finding("control groups", "limited" if lacking else "ok", detail, remedy if lacking else None)


def _no_groups() -> Finding:
    if not mounts.in_user_namespace():
        return Finding("control groups", "missing", "none are mounted", "Mount them: mount -t cgroup2 none /sys/fs/cgroup.")
    detail = "none were delegated to this user, so that nodes have no limits, and cannot be paused or slowed"
    return Finding("control groups", "limited", detail, DELEGATION)


def _try_group(groups: Cgroups) -> None:
    name = f"doctor-{os.getpid()}"
    try:
        for group in groups.plan(name, "node", 1.0, 2**26):
            path = Path(group["path"])
            path.mkdir(exist_ok=True)
            for file, value in group["files"].items():
                (path / file).write_text(value)
    finally:
        groups.remove(name)


def _translation() -> Finding:
    what = "internet for nodes (nftables)"
    if shutil.which("nft") is None:
        return Finding(what, "missing", "there is no program nft", "Install it: apt install nftables.")
    rules = b"add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c masquerade"

    def attempt() -> None:
        unshare(CLONE_NEWNET)
        result = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, check=False)
        if result.returncode:
            raise OSError(0, result.stderr.decode(errors="replace").strip().splitlines()[0])

    return _finding(
        what, _attempt(attempt), "masquerading works", "Use a kernel with CONFIG_NFT_MASQ and CONFIG_NF_NAT (modprobe nft_masq)."
    )


def lacking(reason: str, settings: Path = Path("/proc/sys"), own: str = "") -> Finding:
    """Why an ordinary user has no user namespaces here, and what root can do. reason: the kernel's.

    settings: where the kernel's lie. own: the program that was refused.
    """
    python = own or os.path.realpath(sys.executable)
    # what each distribution turns it off by, and how it is turned on for good
    for name, refused, detail in (
        ("user/max_user_namespaces", "0", "none may be made"),
        ("kernel/unprivileged_userns_clone", "0", "only root may make them"),
    ):
        if _setting(settings / name) == refused:
            value = "15000" if refused == "0" and "max" in name else "1"
            key = name.replace("/", ".")
            remedy = f"As root: echo {key}={value} > /etc/sysctl.d/60-wardian.conf && sysctl --system"
            return Finding(USER, "missing", f"{detail} ({key}={refused}): {reason}", remedy)
    if _setting(settings / "kernel/apparmor_restrict_unprivileged_userns") == "1":
        profile = f"abi <abi/4.0>, include <tunables/global> profile wardian {python} flags=(unconfined) {{ userns, }}"
        remedy = f"As root: echo '{profile}' > /etc/apparmor.d/wardian && apparmor_parser -r /etc/apparmor.d/wardian"
        return Finding(USER, "missing", f"AppArmor keeps this program from using them: {reason}", remedy)
    remedy = "In a container, start that with --privileged, or run Wardian on its host. Elsewhere ask who runs this host what forbids them."
    return Finding(USER, "missing", f"they are refused, as containers and sandboxes do: {reason}", remedy)


def _setting(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _private() -> Netlink:
    unshare(CLONE_NEWNET)
    return Netlink()


def _attempt(work: Callable[[], None]) -> str | None:
    """Do it in a thread that ends with whatever namespaces it made; the kernel's reason if it failed."""
    reasons: list[str] = []

    def attempt() -> None:
        try:
            work()
        except OSError as error:
            reasons.append(error.strerror or str(error))

    thread = threading.Thread(target=attempt, name="wardian-doctor")
    thread.start()
    thread.join()
    return reasons[0] if reasons else None


def _finding(what: str, problem: str | None, works: str, remedy: str) -> Finding:
    return Finding(what, "ok", works) if problem is None else Finding(what, "missing", problem, remedy)
