"""`wardian.results`: the last values by node, fetched when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from ..session.private import request
from . import transfer


class Results(Mapping[str, Any]):
    """The values of the last cell that ran on nodes, by node: of Python what its last line gave, of bash what it printed."""

    def __getitem__(self, node: str) -> Any:
        """The value from `node`, fetched now. KeyError if the cell did not run there; TransferError if it failed there."""
        if node not in self._nodes():
            raise KeyError(node)
        found = request("result", node=node)
        return found["text"] if "text" in found else transfer.output(node, found["number"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes())

    def __len__(self) -> int:
        return len(self._nodes())

    def __repr__(self) -> str:
        nodes = self._nodes()
        if not nodes:
            return "<results: no cell has run on nodes>"
        return "<results: " + ", ".join(node if status == "ok" else f"{node} (failed)" for node, status in nodes.items()) + ">"

    @property
    def each(self) -> ItemResults:
        """The values of the last cell with `--each`, in the order of its list."""
        return ItemResults(request("items")["items"])

    def _nodes(self) -> dict[str, str]:
        nodes: dict[str, str] = request("results")["nodes"]
        return nodes


class ItemResults(Sequence[Any]):
    """The values of a cell that ran once for each item of a list, in the order of the list, each fetched when it is asked for."""

    def __init__(self, items: list[dict[str, str]]) -> None:
        self._items = items

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """The value for one item, fetched now. IndexError if there is no such item; TransferError if the cell failed for it."""
        places = range(len(self._items))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        found = request("item", index=places)
        return found["text"] if "text" in found else transfer.get(found["name"], found["node"])[found["node"]]

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        shown = [f"{item['label']} {_how(item)}" for item in self._items]
        return f"<results of {len(shown)} items: {', '.join(shown)}>" if shown else "<results: no cell has run with --each>"


def _how(item: dict[str, str]) -> str:
    how = {"ok": f"on {item['node']}", "error": f"(failed on {item['node']})"}
    return how.get(item["status"], f"({item['status']})")


results = Results()
