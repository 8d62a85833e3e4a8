"""The topology of an environment as a graph that is ready to be drawn: node-link JSON with groups and positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import ceil, sqrt
from typing import Any

from .view import View, without_null

Graph = dict[str, Any]


def graph(view: View, most: int | None = None) -> Graph:
    """{"nodes", "links", "groups"} of a view.

    most: a group with more members than that is one node, with its `count`.

    nodes: nodes and networks, {"id", "kind": "node" | "network", "name", "group", "roles", "state", "x", "y"}. links: {"id", "source",
    "target", "kind": "link" | "access", "name", "state", "text"}; text is what is set, by direction. groups: {"id", "members", "state"},
    in which members are ids and the state that of its worst. Positions are in steps of one from the top left.
    """
    nodes, networks = view.nodes(), view.networks()
    if most is not None:
        nodes = _gathered(nodes, most)
    places = _places(nodes, networks)
    drawn = [{"id": _id("network", name), "kind": "network", "name": name, "state": item["state"]} for name, item in networks.items()]
    drawn += [
        {"id": _id("node", name), "kind": "node", "name": name, **{key: item.get(key) for key in ("group", "roles", "state", "count")}}
        for name, item in nodes.items()
    ]
    for item in drawn:
        item["x"], item["y"] = places[item["id"]]
    return without_null({"nodes": drawn, "links": list(_lines(view, nodes)), "groups": _groups(nodes)})


def _lines(view: View, nodes: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shaped = view.links()
    for name, node in nodes.items():
        for network in node["addresses"]:
            access = f"{name}/{network}"
            set_ = shaped.get(access, {"state": node["state"], "text": None})
            yield {
                "id": access, "name": access, "kind": "access", "source": _id("node", name), "target": _id("network", network),
                "state": set_["state"], "text": set_["text"],
            }  # fmt: skip
    for name, link in shaped.items():
        if link["kind"] == "link":
            source, target = (_id("network", end) for end in link["ends"])
            yield {
                "id": name, "name": name, "kind": "link", "source": source, "target": target, "state": link["state"], "text": link["text"],
            }  # fmt: skip


def _groups(nodes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"id": group, "members": [_id("node", name) for name in names], "state": worst(nodes[name]["state"] for name in names)}
        for group, names in _members(nodes).items()
    ]


def _members(nodes: Mapping[str, Any]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for name, node in nodes.items():
        members.setdefault(str(node.get("group") or name), []).append(name)
    return members


def _gathered(nodes: Mapping[str, Any], most: int) -> dict[str, Any]:
    gathered: dict[str, Any] = {}
    for group, names in _members(nodes).items():
        if len(names) <= most:
            gathered |= {name: nodes[name] for name in names}
            continue
        # an access link of each, so no address is that of all
        addresses = {network: "" for name in names for network in nodes[name]["addresses"]}
        state = worst(nodes[name]["state"] for name in names)
        gathered[group] = {**nodes[names[0]], "addresses": addresses, "state": state, "count": len(names)}
    return gathered


def worst(states: Iterable[str]) -> str:
    """What to call several things of which each is in one of these states."""
    found = set(states)
    return next((state for state in ("stopped", "unreachable", "incomplete", "absent") if state in found), "ready")


def _places(nodes: Mapping[str, Any], networks: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Networks side by side, the nodes of one below it in a square, those of several above between them, those of none at the end."""
    places: dict[str, tuple[float, float]] = {}
    inside: dict[str | None, list[str]] = {name: [] for name in networks}
    between: list[str] = []
    for name, node in nodes.items():
        member = [network for network in node["addresses"] if network in networks]
        if len(member) > 1:
            between.append(name)
        else:
            inside.setdefault(member[0] if member else None, []).append(name)
    left, top = 0, 1 if between else 0
    for network, names in inside.items():
        width = max(1, ceil(sqrt(len(names))))
        if network is not None:
            places[_id("network", network)] = (left + (width - 1) / 2, top)
        for number, name in enumerate(names):
            places[_id("node", name)] = (left + number % width, top + 1 + number // width)
        left += width + 1
    taken: set[float] = set()
    for name in between:
        spots = [places[_id("network", network)][0] for network in nodes[name]["addresses"] if network in networks]
        x = sum(spots) / len(spots)
        while x in taken:
            x += 1
        taken.add(x)
        places[_id("node", name)] = (x, 0)
    return places


def _id(kind: str, name: str) -> str:
    return f"{kind}:{name}"
