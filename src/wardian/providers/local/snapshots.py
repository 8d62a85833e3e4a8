"""A node's files made an image of the user's store."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import NodeDownError, ProviderError
from ..images.store import Store
from .state import EnvironmentFolder


def snapshot(environment: EnvironmentFolder, node: str, name: str, report: Callable[[str], None]) -> str:
    """Make it, of a node that stands still, and give its digest. Raises ProviderError, NodeDownError."""
    folder = environment.resource("node", node)
    known, pid = folder.read(), folder.pid()
    if known is None or pid is None:
        raise NodeDownError(node, "the node is not running", remedy="`wardian up` makes it anew.")
    if environment.plain or known["spec"]["image"] is None:
        remedy = "Give it an `image:`, such as a folder made by debootstrap; `wardian cp` copies single files and folders."
        raise ProviderError("it has no image of its own: most of its files are this host's", resource=f"node {node}", remedy=remedy)
    variables = known["facts"].get("image", {}).get("variables", {})
    try:
        # with the dot it is the folder, and no link to it
        return Store().take(f"/proc/{pid}/root/.", name, variables, report).digest
    except ProviderError as error:
        raise ProviderError(error.message, resource=f"node {node}", remedy=error.remedy) from error
