"""`wardian doctor` for this provider: everything is tried, in namespaces that nobody sees, not guessed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import ProviderError
from ..base import Finding
from . import ceiling, limits, netlink, shaping
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

_NAMESPACES = {"mount": CLONE_NEWNS, "PID": CLONE_NEWPID, "network": CLONE_NEWNET, "UTS": CLONE_NEWUTS, "IPC": CLONE_NEWIPC}
_PRIVILEGED = "Run as root, or in a container started with --privileged."


def diagnose(state: State) -> list[Finding]:
    """What works here. Blocking."""
    if os.geteuid() != 0:
        return [Finding("root", "missing", f"this is user {os.geteuid()}", "Run as root: sudo wardian doctor.")]
    return [Finding("root", "ok", "user 0"), *_namespaces(), _overlay(state), *_network(), _delay(state), *_groups(), _translation()]


def _namespaces() -> Iterator[Finding]:
    for name, flag in _NAMESPACES.items():
        problem = _attempt(lambda flag=flag: unshare(flag))  # type: ignore[misc]
        yield _finding(f"{name} namespaces", problem, "can be made", _PRIVILEGED)


def _overlay(state: State) -> Finding:
    def attempt() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        state.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=state.root) as folder:
            for name in ("upper", "work", "view"):
                os.mkdir(f"{folder}/{name}")
            mount("overlay", f"{folder}/view", "overlay", 0, f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work")
            try:
                Path(f"{folder}/view/wardian-doctor").write_text("seen in the overlay only")
            finally:
                unmount(f"{folder}/view", MNT_DETACH)

    remedy = "Set WARDIAN_STATE to a folder on ext4, xfs, btrfs or tmpfs; an overlay cannot hold another one's changes."
    return _finding("overlay file systems", _attempt(attempt), f"with changes below {state.root}", remedy)


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
    if groups.member is None:
        yield Finding("control groups", "missing", "none are mounted", "Mount them: mount -t cgroup2 none /sys/fs/cgroup.")
        return
    lacking = [name for name in ("cpu", "memory", "pids") if name not in groups.roots]
    problem = _attempt(lambda: _try_group(groups))
    detail = f"version {groups.version}, {'without ' + ', '.join(lacking) if lacking else 'with processor, memory and process limits'}"
    remedy = "Boot with these controllers enabled, or in a container use --privileged and --cgroupns=host."
    if problem is not None:
        yield Finding("control groups", "missing", f"{detail}: {problem}", remedy)
    else:
        yield Finding("control groups", "limited" if lacking else "ok", detail, remedy if lacking else None)


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
