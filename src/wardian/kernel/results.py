"""`wardian.results`: the last values by node, fetched when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .private import request
from .transfer import take


class Results(Mapping[str, Any]):
    """The values of the last cell that ran on nodes, by node: of Python what its last line gave, of bash what it printed."""

    def __getitem__(self, node: str) -> Any:
        """The value from `node`, fetched now. KeyError if the cell did not run there; TransferError if it failed there."""
        if node not in self._nodes():
            raise KeyError(node)
        return take(request("result", node=node))

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes())

    def __len__(self) -> int:
        return len(self._nodes())

    def __repr__(self) -> str:
        nodes = self._nodes()
        if not nodes:
            return "<results: no cell has run on nodes>"
        return "<results: " + ", ".join(node if status == "ok" else f"{node} (failed)" for node, status in nodes.items()) + ">"

    def _nodes(self) -> dict[str, str]:
        nodes: dict[str, str] = request("results")["nodes"]
        return nodes


results = Results()
