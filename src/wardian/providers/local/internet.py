"""The way of nodes with `internet: true` to the host's network.

An environment that has such nodes gets an *uplink*: a bridge in its fabric, a veth from there to the host's namespace, a subnet that the
host does not use, and a table of nftables that masquerades it. The bridge keeps its members apart, so that no traffic between nodes goes
around the experiment's links. These are the only things an environment has outside of its own namespaces; all carry its id.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import MissingToolError, ProviderError
from ...experiment.resources import Caveat, Resource
from . import netlink
from .netlink import Netlink
from .state import EnvironmentFolder, State, read_json, write_json

INTERFACE = "inet0"
"""What the way to the internet is called on a node."""

BRIDGE = "uplink"

# for tests of network devices (RFC 2544), and for carriers (RFC 6598): neither is used on ordinary networks
RANGES = (ipaddress.IPv4Network("198.18.0.0/15"), ipaddress.IPv4Network("100.64.0.0/10"))
LENGTH = 22

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def host_interface(environment: str) -> str:
    """The name of an environment's interface in the host's namespace."""
    return "wd" + hashlib.sha256(environment.encode()).hexdigest()[:10]


def table(environment: str) -> str:
    """The name of an environment's nftables table."""
    return "wardian_" + hashlib.sha256(environment.encode()).hexdigest()[:16]


def ensure(environment: EnvironmentFolder, state: State, fabric: Netlink, namespace: int) -> ipaddress.IPv4Network:
    """Make the uplink, unless it is there, and give its subnet. fabric: a socket into the fabric, whose namespace this is."""
    if shutil.which("nft") is None:
        raise MissingToolError("nodes with internet need the program nft", remedy="Install it: apt install nftables.")
    with _alone(state):
        known = read_json(environment.path / "uplink.json")
        if known is None:
            known = {"subnet": str(_free_subnet(environment.id)), "forwarding": _FORWARD.read_text().strip()}
            write_json(environment.path / "uplink.json", known)
        subnet = ipaddress.IPv4Network(known["subnet"])
        name = host_interface(environment.id)
        if fabric.link(BRIDGE) is None:
            fabric.send([netlink.bridge(BRIDGE)])
        with Netlink() as host:
            if host.link(name) is None:
                host.send([netlink.veth(name, "uplink0", peer_namespace=namespace)])
                fabric.send([netlink.change("uplink0", master=fabric.index(BRIDGE), up=True)])
                host.send(
                    [netlink.change(name, alias=f"wardian {environment.id}"), netlink.address(host.index(name), f"{subnet[1]}/{LENGTH}")]
                )
        _nft(_rules(environment.id, name, subnet), "setting up address translation")
        _admit(environment.id, name)
        _FORWARD.write_text("1")
    return subnet


def remove(environment: str, state: State, known: Mapping[str, Any] | None) -> None:
    """Remove what an uplink has outside of the environment. known: what `uplink.json` said. Safe to repeat."""
    with Netlink() as host:
        host.send([netlink.remove(host_interface(environment))], ignore=(19,))
    for family, chain, handle in _admissions(environment):
        with suppress(ProviderError):
            _nft(f"delete rule ip {family} {chain} handle {handle}", "removing a rule")
    if table(environment) in _tables():
        _nft(f"delete table ip {table(environment)}", "removing address translation")
    others = [folder for folder in state.environments() if folder.id != environment and (folder.path / "uplink.json").exists()]
    # environments of other state folders need the host to forward, too
    if known is not None and not others and not any(link.alias.startswith("wardian ") for link in _links()):
        _FORWARD.write_text(known["forwarding"])


def forget_lost(state: State) -> list[str]:
    """Remove what uplinks of environments without a record left on the host; one line for each.

    An interface goes with its environment's fabric by itself, and one that is left belongs to another state folder. So a table is lost
    when its interface is gone and no environment here has it.
    """
    known = {table(folder.id) for folder in state.environments()}
    used = {table(link.alias.partition(" ")[2]) for link in _links() if link.alias.startswith("wardian ")}
    lost = sorted(name for name in _tables() - known - used if name.startswith("wardian_"))
    for name in lost:
        _nft(f"delete table ip {name}", "removing address translation")
        for family, chain, handle in _rules_commented(f"wardian {name}"):
            _nft(f"delete rule ip {family} {chain} handle {handle}", "removing a rule")
    return [f"address translation {name}, which no environment uses" for name in lost]


def resolver() -> str:
    """A resolv.conf for nodes with internet: the host's, or what stands behind its stub."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        with suppress(OSError):
            lines = Path(path).read_text().splitlines()
            servers = [line for line in lines if line.startswith("nameserver") and not line.split()[1].startswith(("127.", "::1"))]
            if servers:
                return "\n".join(servers + [line for line in lines if line.startswith(("search", "options"))]) + "\n"
    return "# The host has no name server that a node could reach.\n"


def caveats(desired: Sequence[Resource]) -> Iterator[Caveat]:
    """Subnets of the experiment that the host reaches otherwise: nodes with internet will not reach those of the host."""
    if not any(resource.kind == "node" and resource.spec["internet"] for resource in desired):
        return
    taken = list(_host_subnets())
    for resource in desired:
        if resource.kind == "network":
            subnet = ipaddress.ip_network(resource.spec["subnet"])
            for other in taken:
                if subnet.overlaps(other):
                    message = f"{subnet} overlaps {other}, which this host reaches otherwise"
                    yield Caveat(str(resource), "subnet", message, "nodes with internet reach the experiment's, not the host's")


def _rules(environment: str, interface: str, subnet: ipaddress.IPv4Network) -> str:
    name = table(environment)
    # made and emptied first, so that the same text serves for making and repairing
    return f"""
        add table ip {name}
        flush table ip {name}
        add chain ip {name} nat {{ type nat hook postrouting priority 100; }}
        add chain ip {name} forward {{ type filter hook forward priority 0; }}
        add rule ip {name} nat ip saddr {subnet} oifname != "{interface}" masquerade
        add rule ip {name} forward iifname "{interface}" accept
        add rule ip {name} forward oifname "{interface}" ct state established,related accept
        add rule ip {name} forward oifname "{interface}" drop
    """


def _admit(environment: str, interface: str) -> None:
    """Have chains of others that drop what is forwarded, as Docker's host has them, let this environment's pass."""
    if _admissions(environment):
        return
    comment = f"wardian {table(environment)}"
    for chain in _closed_chains():
        for direction in ("iifname", "oifname"):
            _nft(
                f'insert rule ip filter {chain} {direction} "{interface}" counter accept comment "{comment}"', "opening the host's firewall"
            )


def _closed_chains() -> list[str]:
    chains = {
        item["chain"]["name"]: item["chain"]
        for item in _listing("list chains ip")
        if "chain" in item and item["chain"]["table"] == "filter"
    }
    if "DOCKER-USER" in chains:
        return ["DOCKER-USER"]
    return ["FORWARD"] if chains.get("FORWARD", {}).get("policy") == "drop" else []


def _admissions(environment: str) -> list[tuple[str, str, int]]:
    return _rules_commented(f"wardian {table(environment)}")


def _rules_commented(comment: str) -> list[tuple[str, str, int]]:
    found = []
    for chain in ("DOCKER-USER", "FORWARD"):
        for item in _listing(f"list chain ip filter {chain}"):
            if item.get("rule", {}).get("comment") == comment:
                found.append(("filter", chain, item["rule"]["handle"]))
    return found


def _tables() -> set[str]:
    return {item["table"]["name"] for item in _listing("list tables ip") if "table" in item}


def _listing(command: str) -> list[dict[str, Any]]:
    if shutil.which("nft") is None:
        return []
    result = subprocess.run(["nft", "-a", "-j", *command.split()], capture_output=True, check=False)
    if result.returncode:
        return []
    items: list[dict[str, Any]] = json.loads(result.stdout or b"{}").get("nftables", [])
    return items


def _nft(text: str, what: str) -> None:
    result = subprocess.run(["nft", "-f", "-"], input=text.encode(), capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip().splitlines()
        raise ProviderError(
            f"{what} failed: {reason[0] if reason else 'nft gave no reason'}", remedy="`wardian doctor` tries what is needed."
        )


def _free_subnet(environment: str) -> ipaddress.IPv4Network:
    taken = list(_host_subnets())
    start = int(hashlib.sha256(environment.encode()).hexdigest(), 16)
    for whole in RANGES:
        count = 2 ** (LENGTH - whole.prefixlen)
        for offset in range(count):
            first = int(whole.network_address) + ((start + offset) % count << (32 - LENGTH))
            subnet = ipaddress.IPv4Network((first, LENGTH))
            if not any(subnet.overlaps(other) for other in taken):
                return subnet
    raise ProviderError("every subnet for nodes with internet is in use on this host", remedy="Take down environments with internet.")


def _links() -> list[netlink.Link]:
    with Netlink() as host:
        return host.links()


def _host_subnets() -> Iterable[ipaddress.IPv4Network]:
    with Netlink() as host:
        for route in host.routes():
            subnet = ipaddress.IPv4Network(route.to, strict=False)
            if subnet.prefixlen > 0 and not subnet.is_loopback and not subnet.is_multicast:
                yield subnet


@contextmanager
def _alone(state: State) -> Iterator[None]:
    # two environments must not choose the same subnet
    (state.root / "locks").mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state.root / "locks" / "uplink", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
