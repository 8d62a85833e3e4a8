"""Working on nodes through a channel.

In a notebook this module is a mapping, too, of selectors to what the notebook's kernels there hold: `wardian.nodes["client"]["x"]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..kernel.values.node_values import Nodes, Variables


class _Package(ModuleType):
    """This package. It has no length, so that it is true like every module."""

    def __getitem__(self, selector: str) -> Variables:
        return _nodes()[selector]

    def __iter__(self) -> Iterator[str]:
        return iter(_nodes())

    def __contains__(self, selector: object) -> bool:
        return selector in _nodes()

    def __repr__(self) -> str:
        from ..errors import WardianError

        try:
            return repr(_nodes())
        except WardianError:
            return super().__repr__()

    def keys(self) -> list[str]:
        """The names of the nodes."""
        return list(_nodes())

    _ipython_key_completions_ = keys


def _nodes() -> Nodes:
    # At first use: scripts and the command line never need it.
    from ..kernel.values.node_values import nodes

    return nodes


sys.modules[__name__].__class__ = _Package
