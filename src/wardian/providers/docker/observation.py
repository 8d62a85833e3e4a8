"""Reading an environment back from the Engine: containers, records, networks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ProviderError
from ...experiment.resources import Observed, ObservedResource
from ...experiment.selectors import natural_order
from .engine import Engine
from .names import BEGUN, ENVIRONMENT, KIND, NAME, PINNED, SPEC, Identity, carries, filters, identity_of, network_name
from .records import Entry, Records

RUNNING = ("running", "paused")
NOTE = "note"
"""Kind of the records that are notes; their names are NODE and NOTE with a slash between."""


@dataclass(frozen=True)
class Container:
    """A node's container as it is now."""

    id: str
    node: str
    spec: Mapping[str, Any]
    state: str
    complete: bool
    image: str
    networks: frozenset[str]
    labels: Mapping[str, str] = field(repr=False)

    @property
    def runs(self) -> bool:
        return self.state in RUNNING


@dataclass(frozen=True)
class Snapshot:
    """What the Engine knows of one environment. identity is None where it knows nothing."""

    identity: Identity | None
    recorded: bool
    containers: list[Container]
    entries: list[Entry]

    def specs(self) -> dict[str, Mapping[str, Any]]:
        """{node: its spec as it is now} of those that have one."""
        changed = {(entry.name, entry.of): entry.value for entry in self.entries if entry.kind == "node"}
        return {item.node: changed.get((item.node, item.id), item.spec) for item in self.containers}

    def container(self, node: str) -> Container | None:
        """That of a node."""
        return next((item for item in self.containers if item.node == node), None)

    def tables(self) -> Mapping[str, Any]:
        """The tables of names that nodes have."""
        return next((entry.value["tables"] for entry in self.entries if entry.kind == "names"), {})

    def notes(self) -> dict[str, dict[str, dict[str, Any]]]:
        """{node: {name: value}}, of containers that are there."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        alive = {item.id for item in self.containers}
        for entry in self.entries:
            if entry.kind == NOTE and entry.of in alive:
                node, _, name = entry.name.partition("/")
                found.setdefault(node, {})[name] = dict(entry.value)
        return found


async def snapshot(engine: Engine, environment: str) -> Snapshot:
    """What the Engine knows of an environment now."""
    containers, entries = await asyncio.gather(list_containers(engine, f"{ENVIRONMENT}={environment}"), Records(engine, environment).read())
    own = next((entry for entry in entries if entry.kind == "environment"), None)
    if own is not None:
        identity: Identity | None = own.identity
    else:
        given = [*(entry.labels for entry in entries), *(item.labels for item in containers)]
        identity = identity_of(given[0]) if given else None
    return Snapshot(identity, own is not None, containers, entries)


async def list_containers(engine: Engine, *wanted: str) -> list[Container]:
    """The containers of nodes with these labels, whatever their state."""
    wanted = (f"{KIND}=node", *wanted)
    found = await engine.get("/containers/json", all=True, filters=filters(*wanted))
    made = [
        Container(
            id=item["Id"],
            node=item["Labels"][NAME],
            spec=json.loads(item["Labels"][SPEC]),
            state=item["State"],
            complete=not any(name.endswith(BEGUN) for name in item["Names"]),
            image=item["ImageID"],
            networks=frozenset((item.get("NetworkSettings") or {}).get("Networks") or ()),
            labels=item["Labels"],
        )
        for item in found
        if carries(item["Labels"], *wanted)
    ]
    # one that is being removed is as good as gone
    return sorted((item for item in made if item.state != "removing"), key=lambda item: natural_order(item.node))


def observed(
    seen: Snapshot, wiring: Mapping[tuple[str, str], ObservedResource] | None = None, images: Mapping[str, str] | None = None
) -> Observed:
    """All of an environment. wiring: what that sees. images: {name of an image: its number now}. None of what was not looked at."""
    if seen.identity is None:
        return Observed()
    wired, images = wiring or {}, images or {}
    specs = seen.specs()
    nodes = [
        ObservedResource(
            "node", item.node, _with_image(specs[item.node], item, images), *_state(item, wired.get(("node", item.node)), seen)
        )
        for item in seen.containers
    ]
    others = [item for item in wired.values() if item.kind not in ("environment", "node")]
    kept = [ObservedResource(entry.kind, entry.name, entry.value) for entry in seen.entries if entry.kind in ("link", "access", "names")]
    return Observed.collect(seen.identity.record, [_environment(seen, seen.identity, wiring), *others, *nodes, *kept])


def _environment(seen: Snapshot, identity: Identity, wiring: Mapping[tuple[str, str], ObservedResource] | None) -> ObservedResource:
    record = identity.record
    found = wiring.get(("environment", record.name)) if wiring is not None else None
    state, detail = (found.state, found.detail) if found else ("ready", "")
    if not seen.recorded:
        state, detail = "incomplete", "its record is gone"
    elif identity.wiring == "host" and wiring is not None and found is None:
        state, detail = "incomplete", "its making was cut short"
    return ObservedResource("environment", record.name, record.spec, state, detail)


async def image_numbers(engine: Engine) -> dict[str, str]:
    """{name of each image on the Engine: its number}."""
    listed = await engine.get("/images/json")
    # Podman writes names out
    return {name.removeprefix("docker.io/").removeprefix("library/"): item["Id"] for item in listed for name in item.get("RepoTags") or ()}


async def image_digest(engine: Engine, number: str) -> dict[str, str]:
    """{"digest": an image's number, "registry": how a registry calls it, where it came from one}."""
    try:
        found = (await engine.get(f"/images/{number}/json")).get("RepoDigests") or []
    except ProviderError:
        # a container may outlive the image that it was made from
        found = []
    return {"digest": number} | ({"registry": found[0]} if found else {})


def _state(item: Container, wired: ObservedResource | None, seen: Snapshot) -> tuple[str, str]:
    if not item.complete:
        return "incomplete", "its making was cut short"
    if not item.runs:
        return "stopped", f"its container is {item.state}"
    if wired is not None and wired.state != "ready":
        return "stopped", wired.detail.replace("its init ended", "its container was restarted, and joins no network")
    if seen.identity is not None and seen.identity.wiring == "engine":
        for interface in item.spec["interfaces"]:
            if network_name(seen.identity.record.id, interface["network"]) not in item.networks:
                return "stopped", f"its interface {interface['name']} is gone"
    return "ready", ""


def _with_image(spec: Mapping[str, Any], item: Container, images: Mapping[str, str]) -> Mapping[str, Any]:
    """The spec, with the number of its image where the name in it means another one by now."""
    name = spec["image"]
    if name is None or spec["setup"] is not None or spec.get("build") or PINNED in item.labels:
        return spec
    now = images.get(name) or images.get(f"{name}:latest")
    return spec if now in (None, item.image) else {**spec, "image": item.image}
