"""`wardian.nodes`: the variables of nodes' Python kernels, as if they were in dictionaries at home."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import SelectorError, TransferError
from ..session.private import request
from . import transfer


class Nodes(Mapping[str, "Variables"]):
    """The nodes of the environment: `wardian.nodes["client"]["x"]`. A key is a selector; iteration goes over the names of all nodes."""

    def __getitem__(self, selector: str) -> Variables:
        """The variables on the nodes that `selector` picks. KeyError where it picks none."""
        try:
            return Variables(selector, self._names(selector))
        except SelectorError as error:
            raise UnknownNode(error) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names("all"))

    def __len__(self) -> int:
        return len(self._names("all"))

    def __repr__(self) -> str:
        return f"<nodes: {', '.join(self)}>"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    @staticmethod
    def _names(selector: str) -> list[str]:
        names: list[str] = request("nodes", selector=selector)["nodes"]
        return names


class UnknownNode(SelectorError, KeyError):
    """There is no such node: to dictionaries a KeyError."""

    def __init__(self, error: SelectorError) -> None:
        super().__init__(error.message, remedy=error.remedy)


class Variables:
    """The variables of the Python kernels that this notebook has on one node or several. From several nodes comes a dict by node."""

    def __init__(self, selector: str, nodes: list[str]) -> None:
        self.nodes = nodes
        self._selector = selector

    def __getitem__(self, name: str) -> Any:
        """The value of a variable, brought home now. Raises TransferError where there is none, or it cannot be moved."""
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a variable on each of the nodes. Raises TransferError."""
        self.put(name, value)

    def __delitem__(self, name: str) -> None:
        """Delete a variable on each of the nodes. Raises TransferError where there is none."""
        request("delete", name=name, selector=self._selector)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a variable on every one of the nodes."""
        return all(name in names for names in self._listed().values())

    def __iter__(self) -> Iterator[str]:
        """The names that the user has given on all of the nodes, in the order of the first."""
        first, *others = self._listed().values()
        return (name for name in first if all(name in names for names in others))

    def get(self, name: str, *, pickle: bool = False, force: bool = False) -> Any:
        """The value of a variable; from several nodes a dict by node.

        pickle: accept any object. It lets the nodes run code here: only for nodes that you trust.
        force: try it also where there seems to be too little memory. Raises TransferError.
        """
        found = transfer.get(name, self._selector, by_pickle=pickle, force=force)
        return next(iter(found.values())) if len(found) == 1 else found

    def put(self, name: str, value: Any, *, pickle: bool = False, force: bool = False) -> None:
        """Set a variable on each of the nodes. Arguments and errors as for `get`."""
        if not name.isidentifier():
            raise TransferError("", f"{name!r} is no name of a variable", remedy="use letters, digits and _")
        transfer.put(value, name, self._selector, by_pickle=pickle, force=force)

    def __repr__(self) -> str:
        lines = [f"{node} │ {', '.join(names) or 'no variables'}" for node, names in self._listed().items()]
        return "\n".join(lines)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def _listed(self) -> dict[str, list[str]]:
        return transfer.names(self.nodes)


nodes = Nodes()
