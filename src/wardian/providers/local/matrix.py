"""How much each node sends to each other one: nftables counts by pairs of addresses what comes into the fabric from nodes.

One rule and one set of pairs, whatever the number of nodes, so that a packet costs one look into a hash table; and that only between the
first call and `end`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from . import fabric, netlink
from .state import EnvironmentFolder

TABLE = "wardian_matrix"

MOST = 16384
"""Pairs that are counted at once; one that has sent nothing for two minutes makes room."""

RULES = f"""
create table bridge {TABLE}
add set bridge {TABLE} pairs {{ type ifname . ipv4_addr . ipv4_addr; size {MOST}; flags dynamic,timeout; timeout 2m; }}
add chain bridge {TABLE} enter {{ type filter hook prerouting priority -300; }}
add rule bridge {TABLE} enter iifname "n*" update @pairs {{ iifname . ip saddr . ip daddr counter }}
"""
"""Names of nodes' ports alone begin so (`fabric.node_port`). What passes several bridges, or nodes that route, is known by its port.

Of two that begin at once one is refused as a whole: a rule that is there twice counts twice.
"""


def of(environment: EnvironmentFolder) -> dict[tuple[str, str], int]:
    """Bytes by sender and receiver, as `Provider.traffic_matrix` says; begins to count where nothing counts yet. Blocking."""
    listed = _nft(environment, "-j", "list", "set", "bridge", TABLE, "pairs")
    if not listed:
        _nft(environment, "-f", "-", text=RULES)
        return {}
    names, ports = {}, {}
    for node in environment.resources("node"):
        for interface in ((node.read() or {}).get("spec") or {}).get("interfaces", ()):
            address = interface["address"].partition("/")[0]
            names[address] = node.name
            ports[address] = fabric.node_port(node.name, interface["network"])
    found: dict[tuple[str, str], int] = {}
    for port, source, target, count in _counts(listed):
        if ports.get(source) == port and target in names:
            pair = names[source], names[target]
            found[pair] = found.get(pair, 0) + count
    return found


def end(environment: EnvironmentFolder) -> None:
    """Count no longer. Blocking."""
    _nft(environment, "delete", "table", "bridge", TABLE)


def _counts(listed: str) -> list[tuple[str, str, str, int]]:
    elements = [element["elem"] for item in json.loads(listed)["nftables"] for element in item.get("set", {}).get("elem", ())]
    return [(*element["val"]["concat"], element["counter"]["bytes"]) for element in elements]


def _nft(environment: EnvironmentFolder, *arguments: str, text: str = "") -> str:
    """What nft prints in the fabric; nothing where it is refused, or cannot be asked."""
    pid = environment.fabric_pid()
    if pid is None or shutil.which("nft") is None:
        return ""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # its rules are those of the namespace of the thread that starts it
        done = netlink.in_namespace(namespace, lambda: subprocess.run(["nft", *arguments], input=text.encode(), capture_output=True))
    finally:
        os.close(namespace)
    return "" if done.returncode else done.stdout.decode()
