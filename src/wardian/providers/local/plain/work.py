"""What the provider has done on an environment whose nodes are processes: in place of the functions of `..work` with these names."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

from ....errors import NodeDownError, ProviderError
from ....experiment.resources import Caveat, Observed, ObservedResource, Resource
from ...base import Fault, Usage
from .. import ending, observation
from .. import usage as used
from ..kernel import is_running
from ..state import EnvironmentFolder, ResourceFolder
from ..work import Job
from . import caveats as lacking
from . import loopback
from .growth import end_nodes


def observe(job: Job, environment: str) -> Observed:
    folder = job.state.environment(environment)
    record = folder.record()
    found = [] if record is None else [ObservedResource("environment", record.name, record.spec)]
    found += [_observed(each) for kind in observation.KINDS for each in folder.resources(kind)]
    return Observed.collect(record, found)


def _observed(folder: ResourceFolder) -> ObservedResource:
    known = folder.read()
    if known is None or not known["complete"]:
        return ObservedResource(folder.kind, folder.name, known["spec"] if known else {}, "incomplete", "its making was cut short")
    if folder.kind != "node":
        return ObservedResource(folder.kind, folder.name, known["spec"])
    addresses = {interface["network"]: loopback.address_of(known) for interface in known["spec"]["interfaces"]}
    identity = folder.process()
    state, detail = ("ready", "") if identity and is_running(identity) else ("stopped", "its processes ended")
    return ObservedResource("node", folder.name, known["spec"], state, detail, addresses)


def usage(job: Job, environment: str) -> Mapping[str, Usage]:
    pids = {folder.name: pid for folder in job.state.environment(environment).resources("node") if (pid := folder.pid()) is not None}
    return {node: used.added({pid, *ending.descendants(pid)}) for node, pid in pids.items()}


def traffic(job: Job, environment: str) -> Mapping[str, Mapping[str, int]]:
    return {}


def traffic_matrix(job: Job, environment: str, counting: bool) -> Mapping[tuple[str, str], int]:
    return {}


def keep(job: Job, environment: str) -> list[int]:
    return []


def inflict(job: Job, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
    if kind != "pause":
        if faults:
            remedy = "`wardian doctor` says what refuses namespaces here, and how they are allowed."
            raise ProviderError(f"nodes without namespaces cannot suffer {kind}", resource=f"node {', '.join(targets)}", remedy=remedy)
        return
    paused = {target for fault in faults for target in fault.targets}
    for folder in _nodes(job.state.environment(environment), targets):
        pid = folder.pid()
        if pid is not None and folder.name in paused:
            ending.stop_below(pid)
        elif pid is not None:
            for each in ending.descendants(pid):
                ending.send(each, signal.SIGCONT)


def kill(job: Job, environment: str, nodes: Sequence[str]) -> None:
    folders = _nodes(job.state.environment(environment), nodes)
    for folder in folders:
        if folder.pid() is None:
            raise NodeDownError(folder.name, "the node is not running", remedy="`wardian up` makes it anew.")
    end_nodes(folders)


def _nodes(environment: EnvironmentFolder, names: Sequence[str]) -> list[ResourceFolder]:
    return [environment.resource("node", name) for name in names]


def caveats(job: Job, desired: Sequence[Resource]) -> list[Caveat]:
    return lacking.caveats(desired, job.state)
