"""What the spawner and the init are told about a node: its variables, its files, its view."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import images, internet
from .kernel import group_ids

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PYTHON = sorted({sys.prefix, sys.base_prefix})
"""Where the interpreter lives that kernels on nodes are started with, which may be a virtual environment in /tmp."""

OFFLINE = "# This node does not reach the internet; the names of the experiment are in /etc/hosts.\n"

NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
ROUTER_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


def child(
    name: str,
    folder: Path,
    spec: Mapping[str, Any],
    tables: Mapping[str, Any],
    *,
    base: images.Base,
    layers: Sequence[str],
    hidden: Path,
    cgroups: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A node as `spawn.py` and `mounts.py` want it. tables: those of the environment's names. hidden: a folder to be seen empty."""
    return {
        "key": f"node {name}",
        "kind": "node",
        "directory": str(folder),
        "hostname": spec["hostname"],
        "base": base.path,
        "layers": list(layers),
        "hidden": [str(hidden)],
        "shown": PYTHON,
        "host_network": False,
        "sysctls": sysctls(spec),
        "cgroups": list(cgroups),
        "env": variables(name, spec, base.variables),
        "files": {
            "/etc/hostname": f"{spec['hostname']}\n",
            "/etc/hosts": hosts(spec, tables),
            "/etc/resolv.conf": internet.resolver() if spec["internet"] else OFFLINE,
        },
    }


def sysctls(spec: Mapping[str, Any]) -> dict[str, str]:
    """The network parameters of a node."""
    # everyone may ping, as far as this user namespace knows of anyone
    pinging = {"net/ipv4/ping_group_range": f"0 {(group_ids() or 2**31) - 1}"}
    return {**NODE_SYSCTLS, **pinging, **(ROUTER_SYSCTLS if spec["routes_between"] else {})}


def variables(node: str, spec: Mapping[str, Any], image: Mapping[str, str]) -> dict[str, str]:
    """The variables that every process on a node starts with. image: those that its image sets."""
    own = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "LANG": os.environ.get("LANG", "C.UTF-8")}
    return {**own, **image, "HOSTNAME": spec["hostname"], "WARDIAN_NODE": node, **spec["env"]}


def hosts(spec: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    """A node's /etc/hosts: itself, then the names that nodes on its networks go by."""
    table = tables.get(",".join(sorted({interface["network"] for interface in spec["interfaces"]})), [])
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    if spec["hostname"] not in [name for _, name in table]:
        own = spec["interfaces"][0]["address"].partition("/")[0] if spec["interfaces"] else "127.0.1.1"
        lines.append(f"{own} {spec['hostname']}")
    return "\n".join([*lines, *(f"{address} {name}" for address, name in table)]) + "\n"
