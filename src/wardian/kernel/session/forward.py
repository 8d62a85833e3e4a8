"""Ports of nodes in the user's browser: the router's listeners, and `wardian.forward` at home."""

from __future__ import annotations

import asyncio
import html
from dataclasses import dataclass
from typing import Any

from ...errors import WardianError
from ...nodes.ports import Forward, parse_target
from ..places.reach import Reach
from .links import link
from .private import Lenders, Loan, request


class Forwards:
    """The router's side: the listeners of this kernel, which end with it. `operations` serve home's requests."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._open: dict[tuple[str, int], Forward] = {}
        self._changing = asyncio.Lock()
        self.operations: Lenders = {"forward": self._forward, "forwards": self._list, "unforward": self._stop}

    async def close(self) -> None:
        """End all of them."""
        ended, self._open = list(self._open.values()), {}
        await asyncio.gather(*(forward.close() for forward in ended))

    async def _forward(self, asked: dict[str, Any], _loan: Loan) -> dict[str, Any]:
        target = parse_target(str(asked["target"]))
        nodes = await self._reach.nodes(target.selector)
        here = asked.get("port")
        if here is not None and len(nodes) > 1:
            raise WardianError(f"{target.selector} is {len(nodes)} nodes, which cannot share port {here} here", remedy="leave out --port")
        async with self._changing:
            for node in nodes:
                known = self._open.get((node, target.port))
                if known is not None and here in (None, known.here):
                    continue
                opened = await Forward.open(await self._reach.channel(node), node, target.port, here)
                if known is not None:
                    await known.close()
                self._open[node, target.port] = opened
        return {"forwards": [_described(self._open[node, target.port]) for node in nodes]}

    async def _list(self, _asked: dict[str, Any], _loan: Loan) -> dict[str, Any]:
        return {"forwards": [_described(forward) for forward in self._open.values()]}

    async def _stop(self, asked: dict[str, Any], _loan: Loan) -> dict[str, Any]:
        async with self._changing:
            keys = list(self._open)
            if asked.get("target"):
                target = parse_target(str(asked["target"]))
                nodes = await self._reach.nodes(target.selector)
                keys = [key for key in keys if key[0] in nodes and key[1] == target.port]
                if not keys:
                    there_are = ", ".join(f"{node}:{port}" for node, port in self._open) or "none"
                    raise WardianError(f"{asked['target']} is not forwarded", remedy=f"what is forwarded: {there_are}")
            ended = [self._open.pop(key) for key in keys]
            await asyncio.gather(*(forward.close() for forward in ended))
        return {"forwards": [_described(forward) for forward in ended]}


def _described(forward: Forward) -> dict[str, Any]:
    return {"node": forward.node, "port": forward.port, "here": forward.here, "trouble": forward.trouble, "url": link(forward.here)}


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A port of a node that is open here.

    here: the port on this machine; url: where a browser finds it; trouble: why the last connection that failed did.
    """

    node: str
    port: int
    here: int
    url: str
    trouble: str = ""

    def stop(self) -> None:
        """Close it."""
        request("unforward", target=f"{self.node}:{self.port}")

    def __repr__(self) -> str:
        through = "" if self.url.startswith("http:") else f" (http://127.0.0.1:{self.here}/)"
        trouble = f", last connection: {self.trouble}" if self.trouble else ""
        return f"{self.node}:{self.port} → {self.url}{through}{trouble}"

    def _repr_html_(self) -> str:
        trouble = f" <small>last connection: {html.escape(self.trouble)}</small>" if self.trouble else ""
        address = html.escape(self.url, quote=True)
        return f'<a href="{address}" target="_blank" rel="noopener">{html.escape(f"{self.node}:{self.port}")}</a> → {address}{trouble}'


class ForwardedPorts(list[Forwarded]):
    """Several of them."""

    def stop(self) -> None:
        """Close them."""
        for forwarded in self:
            forwarded.stop()

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        return "<br>".join(forwarded._repr_html_() for forwarded in self)


def forward(target: str, port: int | None = None) -> Forwarded | ForwardedPorts:
    """Open a port of a node here: `wardian.forward("client:8080")`. Shown in a notebook it is a link.

    port: our port; where None the node's own if that is free, else any. From several nodes come several.
    Raises NotUpError, SelectorError, NodeError, RouterError.
    """
    opened = _all(request("forward", target=target, port=port))
    return opened[0] if len(opened) == 1 else opened


def forwards() -> ForwardedPorts:
    """The ports that are open."""
    return _all(request("forwards"))


def stop(target: str | None = None) -> ForwardedPorts:
    """Close the ports of `target`, or all of them, and give what was closed."""
    return _all(request("unforward", target=target))


def _all(answer: dict[str, Any]) -> ForwardedPorts:
    return ForwardedPorts(Forwarded(**item) for item in answer["forwards"])
