"""Whose a cloud's resource is: said in its name, and in what else the request that creates it can carry.

    wardian-ID           security group and key pair of an environment; the router between its networks
    wardian-ID.access    network, subnet and router by which its servers are reached
    wardian-ID.bastion   security group of the server that has the floating IP
    wardian-ID-NAME      network and subnet; server, where `client[0]` is written client-0
    wardian-ID-lease     lease

What has a description says there for whom it was made (`Index.owner`), and so do a server's metadata. These hold which node it is, its
spec, and the key that it shows to SSH, too: from the creating request on, and not as tags, which come after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import ProviderError

PREFIX = "wardian-"
PART = 255
"""Longest value of a server's metadata."""

PARTS = 100
"""Of a spec, at most: clouds allow 128 values a server."""

SPEC = "wardian-spec-"
COUNT = "wardian-spec"
NODE = "wardian-node"
OWNER = "wardian-owner"
HOST_KEY = "wardian-host-key"


def name(environment: str, what: str = "") -> str:
    """How a resource of an environment is called on the cloud."""
    return f"{PREFIX}{environment}-{what}" if what else f"{PREFIX}{environment}"


def access(environment: str) -> str:
    """How that is called by which its servers are reached."""
    return f"{PREFIX}{environment}.access"


def bastion(environment: str) -> str:
    """How the security group is called that lets SSH in."""
    return f"{PREFIX}{environment}.bastion"


def belongs(environment: str, given: str) -> bool:
    """Whether a name on the cloud is one of this environment's."""
    return given in (name(environment), access(environment), bastion(environment)) or given.startswith(f"{name(environment)}-")


def metadata(node: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """What a server carries of its node. Raises ProviderError for more than it can carry."""
    text = json.dumps(spec, separators=(",", ":"), sort_keys=True)
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    if len(parts) > PARTS:
        remedy = "Put a long `setup:` into a script, and have it copied by `files:`."
        raise ProviderError(f"its entry is longer than {PART * PARTS} characters", resource=f"node {node}", remedy=remedy)
    return {NODE: node, COUNT: str(len(parts)), **{f"{SPEC}{number}": part for number, part in enumerate(parts)}}


def node_of(given: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Node and spec, from what its server carries; None where it is no node."""
    node = given.get(NODE)
    if node is None:
        return None
    try:
        return node, json.loads("".join(given[f"{SPEC}{number}"] for number in range(int(given[COUNT]))))
    except (KeyError, ValueError):
        return node, {}
