"""Reading an environment back: what is written down, checked against what the kernel shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...experiment.resources import Observed, ObservedResource
from . import fabric
from .fabric import Fabric
from .kernel import is_running
from .state import EnvironmentFolder, ResourceFolder, read_json

KINDS = ("network", "node", "link", "access", "names")


def observe(environment: EnvironmentFolder) -> Observed:
    """Everything that exists of the environment. Blocking."""
    record = environment.record()
    pid = environment.fabric_pid()
    ports = _ports(pid) if pid is not None else set()
    found = []
    if record is not None:
        state, detail = _fabric_state(environment, pid)
        found.append(ObservedResource("environment", record.name, record.spec, state, detail))
    for kind in KINDS:
        for folder in environment.resources(kind):
            known = folder.read()
            if known is None:
                # its folder was made, and no more
                found.append(ObservedResource(kind, folder.name, {}, "incomplete", "its making was cut short"))
                continue
            state, detail = _state(folder, known, ports)
            found.append(ObservedResource(kind, folder.name, known["spec"], state, detail))
    return Observed.collect(record, found)


def _ports(pid: int) -> set[str]:
    try:
        with Fabric(pid) as wiring:
            return {link.name for link in wiring.interfaces()}
    except OSError:
        # it died between the look at its process and this one
        return set()


def _fabric_state(environment: EnvironmentFolder, pid: int | None) -> tuple[str, str]:
    if pid is not None:
        return "ready", ""
    if read_json(environment.fabric / "process.json") is None:
        return "incomplete", "its making was cut short"
    return "stopped", "the process that holds its networks ended"


def _state(folder: ResourceFolder, known: Mapping[str, Any], ports: set[str]) -> tuple[str, str]:
    if not known["complete"]:
        return "incomplete", "its making was cut short"
    spec = known["spec"]
    if folder.kind == "node" or (folder.kind == "network" and spec["gateway"]):
        identity = folder.process()
        if identity is None or not is_running(identity):
            return "stopped", "its init ended" if folder.kind == "node" else "its gateway ended"
    for port, what in _needed(folder, spec):
        if port not in ports:
            return "stopped", f"{what} is gone"
    return "ready", ""


def _needed(folder: ResourceFolder, spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The interfaces in the fabric without which it does not work."""
    if folder.kind == "network":
        yield fabric.bridge(folder.name), "its bridge"
        if spec["gateway"]:
            yield fabric.gateway_port(folder.name), "its gateway's interface"
    elif folder.kind == "node":
        for interface in spec["interfaces"]:
            yield fabric.node_port(folder.name, interface["network"]), f"its interface {interface['name']}"
    elif folder.kind == "link":
        for port in fabric.link_ports(folder.name):
            yield port, "one of its ends"
    elif folder.kind == "access":
        yield fabric.node_port(spec["node"], spec["network"]), "its node's interface"
