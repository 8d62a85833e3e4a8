"""What a node's container is created with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..local import nodespec
from .engine import Engine, EngineError
from .names import PINNED, Identity, labels, uplink_name

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETUID")
"""What root may do on a node: install packages, serve any port, ping. More has to be written in the file."""

IDLE = ["/bin/sh", "-c", "while :; do /bin/sh -c 'kill -STOP $$'; done"]
"""The node's first process, which takes a shell and nothing else: it waits for one that stands still, and while it waits it reaps orphans.
Who kills every process of the node kills the second; the first, which no signal from within reaches, starts another."""

_BEGIN = """
for python in python3 python; do
  if "$python" -IS -c "$2" 2>/dev/null; then
    exec "$python" -IS - <<END
$1
END
  fi
done
shift 2
exec "$@"
"""
_SUITS = "import sys, _signal, _socket, posix, select; sys.exit(sys.version_info < (3, 8))"
"""Asked first, since what becomes process 1 and ends takes the node with it."""

USUAL = {"LANG": "C.UTF-8", "PATH": nodespec.PATH}
"""Variables of nodes whose images do not set them."""

NO_LIMIT = 2**60
"""Bytes of memory that say that a container's limit is taken away: the Engine takes no word for it."""

UPLINK_PREFIX = "inet"
"""What the Engine calls the interface that leads out, with a 0 after it."""


def needs_uplink(spec: Mapping[str, Any]) -> bool:
    """Whether a node is on the Engine's network that leads out."""
    return bool(spec["internet"] or spec.get("ports"))


def body(
    identity: Identity, node: str, spec: Mapping[str, Any], image: Mapping[str, Any], endpoint: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """The body of the request that creates it. image: as `Images` tells of it. endpoint: of the wiring. folder: the experiment's."""
    mode, endpoints = endpoint["NetworkMode"], endpoint["Endpoints"]
    if needs_uplink(spec) and mode == "none":
        mode = uplink_name(identity.record.id)
    return {
        "Hostname": spec["hostname"],
        "Image": image["Name"],
        "User": "0",
        "WorkingDir": "/",
        "Env": [f"{name}={value}" for name, value in _variables(node, spec, image).items()],
        "Entrypoint": ["/bin/sh", "-c", _BEGIN, "sh", _init(), _SUITS, *IDLE],
        "Cmd": [],
        "StopSignal": "SIGKILL",
        # made from a number and no name: what the name means from now on is nothing to it
        "Labels": labels(identity, "node", node, spec) | ({PINNED: "yes"} if image["Name"] == image["Id"] else {}),
        "ExposedPorts": {f"{port['node']}/{port['protocol']}": {} for port in spec.get("ports", ())},
        "HostConfig": {
            "NetworkMode": mode,
            "LogConfig": {"Type": "none"},
            "CapDrop": ["ALL"],
            "CapAdd": sorted({*CAPABILITIES, *spec.get("capabilities", ())}),
            "Sysctls": _sysctls(spec),
            "PortBindings": _ports(spec),
            "Mounts": _mounts(spec, folder),
            "DeviceRequests": _gpus(spec),
            **limits(spec),
        },
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }


@cache
def _init() -> str:
    """The program of process 1 where the node has Python."""
    return Path(__file__).with_name("init.py").read_text()


def limits(spec: Mapping[str, Any], *, changed: bool = False) -> dict[str, int]:
    """The limits of a node as the Engine wants them. changed: for a container that exists, where leaving one out would leave it as it is.

    A processor's worth is given as a quota, which, unlike NanoCpus, can be taken back.
    """
    none = NO_LIMIT if changed else 0
    memory = spec["memory"] or none
    cpu = {"CpuPeriod": 100_000, "CpuQuota": round(spec["cpus"] * 100_000)} if spec["cpus"] else {"CpuQuota": -1 if changed else 0}
    return {**cpu, "Memory": memory, "MemorySwap": memory}


async def limit(engine: Engine, identity: str, spec: Mapping[str, Any]) -> None:
    """Bring the limits of a container that runs to those of a spec."""
    wanted = limits(spec, changed=True)
    try:
        await engine.post(f"/containers/{identity}/update", wanted)
    except EngineError as error:
        if error.status != 404:
            raise
        # Podman 4.3 has it in its own API alone
        cpu = {"period": wanted.get("CpuPeriod", 100_000), "quota": wanted["CpuQuota"]}
        memory = {"limit": wanted["Memory"], "swap": wanted["MemorySwap"]}
        await engine.post(f"/v4.0.0/libpod/containers/{identity}/update", {"cpu": cpu, "memory": memory})


def _sysctls(spec: Mapping[str, Any]) -> dict[str, str]:
    # an Engine without root has so many groups for its containers, and its kernel refuses one that they do not have
    parameters = nodespec.sysctls(spec) | {"net/ipv4/ping_group_range": "0 65535"}
    return {name.replace("/", "."): value for name, value in parameters.items() if "/ipv6/" not in name}


def _variables(node: str, spec: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, str]:
    own = dict(item.split("=", 1) for item in (image.get("Config") or {}).get("Env") or [] if "=" in item)
    return {**USUAL, **own, "WARDIAN_NODE": node, **spec["env"]}


def _ports(spec: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in spec.get("ports", ()):
        here = {"HostIp": port["address"], "HostPort": str(port["host"] or "")}
        bindings.setdefault(f"{port['node']}/{port['protocol']}", []).append(here)
    return bindings


def _mounts(spec: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    mounts = []
    for volume in spec.get("volumes", ()):
        source = volume["source"]
        bound = source.startswith(("/", ".", "~"))
        place = str((folder / Path(source).expanduser()).resolve()) if bound else source
        kind = "bind" if bound else "volume"
        mounts.append({"Type": kind, "Source": place, "Target": volume["target"], "ReadOnly": volume["read_only"]})
    return mounts


def _gpus(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    wanted = spec.get("gpus")
    return [{"Count": -1 if wanted == "all" else wanted, "Capabilities": [["gpu"]]}] if wanted else []
