"""Faults: what is inflicted on nodes and links of an environment. Blocking: the provider calls it in a worker thread."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from ...errors import MissingToolError, NodeDownError, ProviderError
from ..base import Fault
from . import fabric, netlink, processes
from .cgroups import LACKING, Cgroups
from .fabric import Fabric
from .state import EnvironmentFolder

TABLE = "wardian_faults"
"""The name of a node's nftables table; nothing of it remains without a partition."""


def inflict(environment: EnvironmentFolder, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
    """Have these targets suffer just these faults of that kind, see `Provider.inflict`."""
    try:
        if kind == "flap":
            _carriers(environment, targets, {target for fault in faults for target in fault.targets})
            return
        for node in targets:
            mine = [fault for fault in faults if node in fault.targets]
            if environment.resource("node", node).pid() is not None:
                _KINDS[kind](environment, node, mine)
    except OSError as error:
        raise ProviderError(f"{kind}: {error.strerror or error}", remedy="`wardian doctor` tries what is needed.") from error


def kill(environment: EnvironmentFolder, nodes: Sequence[str]) -> None:
    """End all that runs on these nodes, on each at once."""
    groups = Cgroups.find()
    doomed: set[int] = set()
    for node in nodes:
        pid = environment.resource("node", node).pid()
        if pid is None:
            raise NodeDownError(node, "the node is not running", remedy="`wardian up` makes it anew.")
        # the death of its init is that of its whole process table; where it stands still, it dies as soon as it moves
        os.kill(pid, signal.SIGKILL)
        doomed |= {pid, *groups.members(environment.id, node)}
        groups.thaw(environment.id, node)
    processes.end(doomed)


def _pause(environment: EnvironmentFolder, node: str, faults: Sequence[Fault]) -> None:
    groups = Cgroups.find()
    if faults:
        groups.freeze(environment.id, node)
    else:
        groups.thaw(environment.id, node)


def _slow(environment: EnvironmentFolder, node: str, faults: Sequence[Fault]) -> None:
    groups = Cgroups.find()
    if "cpu" not in groups.roots or not groups.folders(environment.id, node):
        raise MissingToolError("it cannot be slowed: it is in no control group for processors", resource=f"node {node}", remedy=LACKING)
    spec = _spec(environment, node)
    cpus = spec["cpus"]
    if faults:
        cpus = min(fault.values["cpu"] for fault in faults) * (cpus or os.cpu_count() or 1)
    groups.change(environment.id, node, cpus, spec["memory"])


def _partition(environment: EnvironmentFolder, node: str, faults: Sequence[Fault]) -> None:
    """Drop what comes from the other side before anything on the node sees it; who sends is told nothing."""
    addresses = ", ".join(sorted({address for fault in faults for address in fault.values["deaf"].get(node, ())}))
    text = "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("ip", "arp"))
    if addresses:
        text += "".join(f"add table {family} {TABLE}\n" for family in ("ip", "arp"))
        text += (
            f"add chain ip {TABLE} hear {{ type filter hook prerouting priority -310; }}\n"
            f"add rule ip {TABLE} hear ip saddr {{ {addresses} }} drop\n"
            f"add chain arp {TABLE} hear {{ type filter hook input priority 0; }}\n"
            f"add rule arp {TABLE} hear arp saddr ip {{ {addresses} }} drop\n"
        )
    if shutil.which("nft") is None:
        raise MissingToolError("a partition needs the program nft", resource=f"node {node}", remedy="Install it: apt install nftables.")
    pid = environment.resource("node", node).pid()
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # its rules are those of the namespace of the thread that starts it
        done = netlink.in_namespace(namespace, lambda: subprocess.run(["nft", "-f", "-"], input=text.encode(), capture_output=True))
    finally:
        os.close(namespace)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise ProviderError(f"its packets cannot be filtered: {reason[0] if reason else 'nft gave no reason'}", resource=f"node {node}")


_KINDS = {"pause": _pause, "slow": _slow, "partition": _partition}


def _carriers(environment: EnvironmentFolder, links: Sequence[str], down: set[str]) -> None:
    """Take the near ends of links down, or back up: what stands at their far ends then has no carrier."""
    pid = environment.fabric_pid()
    if pid is None:
        return
    with Fabric(pid) as wiring:
        there = {link.name for link in wiring.interfaces()}
        for link in links:
            node, slash, network = link.rpartition("/")
            ports = [fabric.node_port(node, network)] if slash else list(fabric.link_ports(link))
            wiring.socket.send([netlink.change(port, up=link not in down) for port in ports if port in there])


def _spec(environment: EnvironmentFolder, node: str) -> dict[str, Any]:
    known = environment.resource("node", node).read()
    if known is None:
        raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
    spec: dict[str, Any] = known["spec"]
    return spec
