"""What nodes of processes alone cannot honour of what an experiment asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ....experiment.plan import compact
from ....experiment.resources import SHAPE, Caveat, Resource
from ..limits import WAYS, container_caveats
from ..state import State
from . import loopback


def caveats(desired: Sequence[Resource], state: State) -> list[Caveat]:
    """One caveat for each thing that cannot be honoured as written, beside what is said of all nodes (`of_all`)."""
    nodes = [resource for resource in desired if resource.kind == "node"]
    return [*_link_caveats(desired), *_node_caveats(nodes), *container_caveats(nodes), *_name_caveats(desired, nodes, state)]


def of_all(reason: str) -> Iterator[Caveat]:
    """What holds for every such node. reason: why they are no more."""
    said = f"{reason}: nodes are processes, which see the host's files, other processes and hostname"
    yield Caveat("every node", "isolation", said, "home, temporary folder and variables for each")
    said = "there are none: all nodes, and this host, reach each other, and a port that one listens on at all addresses is taken for all"
    yield Caveat("every node", "networks", said, "a loopback address for each ($WARDIAN_ADDRESS)")


def _link_caveats(desired: Iterable[Resource]) -> Iterator[Caveat]:
    groups: dict[tuple[str, str], list[str]] = {}
    for resource in desired:
        shapes = [resource.spec[way] for way in WAYS.get(resource.kind, ())]
        asked = [part for part in SHAPE if any(part in shape for shape in shapes)] + ["mtu"] * ("mtu" in resource.spec)
        if asked:
            groups.setdefault((resource.kind, ", ".join(asked)), []).append(resource.name)
    for (kind, fields), names in groups.items():
        yield Caveat(f"{kind} {compact(names)}", fields, "there are no links without namespaces", None)


def _node_caveats(nodes: Sequence[Resource]) -> Iterator[Caveat]:
    for field, message, stand_in in (
        ("cpus", "what limits them comes with namespaces", None),
        ("memory", "what limits it comes with namespaces", None),
        ("image", "a node without namespaces boots from nothing", "the host's files"),
        ("setup", "it is not run, since it would change the host", "what is installed on the host"),
    ):
        asking = [node.name for node in nodes if node.spec[field] is not None]
        if asking:
            yield Caveat(f"node {compact(asking)}", field, message, stand_in)


def _name_caveats(desired: Sequence[Resource], nodes: Sequence[Resource], state: State) -> Iterator[Caveat]:
    names = sorted(node.spec["hostname"] for node in nodes)
    if not names:
        return
    if not loopback.can_publish():
        said = f"{loopback.HOSTS} may not be written here: only Python on nodes knows them"
        yield Caveat("every node", "names", said, "the table in $WARDIAN_HOSTS")
        return
    wanted = {(item.spec["file"], item.spec["instance"]) for item in desired if item.kind == "environment"}
    records = [record for folder in state.environments() if (record := folder.record())]
    taken = loopback.foreign({record.id for record in records if (record.file, record.instance) in wanted})
    for name in names:
        if name in taken:
            whose = f"environment {taken[name]}" if taken[name] else "the host"
            yield Caveat(
                f"node {name}", "name", f"{whose} has this name already, and it means what it means there", "the table in $WARDIAN_HOSTS"
            )
