"""Whose a cloud's resource is: said in its name, and in what else the request that creates it can carry.

    wardian-ID           security group, key pair and router of an environment
    wardian-ID-NAME      network and subnet, server and (with -port) its ports; `client[0]` is written client-0

A server's metadata hold which node it is, and its spec, from the creating request on: tags would come after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PREFIX = "wardian-"
PART = 255
"""Longest value of a server's metadata."""

SPEC = "wardian-spec-"
NODE = "wardian-node"


def name(environment: str, what: str = "") -> str:
    """How a resource of an environment is called on the cloud."""
    return f"{PREFIX}{environment}-{what}" if what else f"{PREFIX}{environment}"


def belongs(environment: str, given: str) -> bool:
    """Whether a name on the cloud is one of this environment's."""
    return given == name(environment) or given.startswith(name(environment, "") + "-")


def metadata(node: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """What a server carries of its node."""
    text = json.dumps(spec, separators=(",", ":"), sort_keys=True)
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    return {NODE: node, **{f"{SPEC}{number}": part for number, part in enumerate(parts)}}


def node_of(given: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Node and spec, from what its server carries; None where it is no node."""
    node = given.get(NODE)
    if node is None:
        return None
    parts: list[str] = []
    while (part := given.get(f"{SPEC}{len(parts)}")) is not None:
        parts.append(part)
    try:
        return node, json.loads("".join(parts))
    except ValueError:
        return node, {}
