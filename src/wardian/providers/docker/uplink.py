"""The interface of a container that leads out, which the Engine makes before the wiring joins the container to its networks."""

from __future__ import annotations

import os

from ..local import netlink
from ..local.internet import INTERFACE
from ..local.netlink import Netlink


def make_way(pid: int) -> None:
    """Leave the names of a container's interfaces, but of the one that leads out, to the wiring.

    pid: its first process. Docker calls the interface as it is asked to, Podman always eth0. Raises OSError.
    """
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Netlink.into(namespace) as inside:
            for link in inside.links():
                if link.kind == "veth" and link.name != INTERFACE:
                    _rename(inside, link.index)
    finally:
        os.close(namespace)


def _rename(inside: Netlink, index: int) -> None:
    # a name changes only while the interface is down, and routes go with that
    routes = [route for route in inside.routes() if route.index == index and route.via]
    changes = [netlink.change(index, up=False), netlink.change(index, name=INTERFACE), netlink.change(index, up=True)]
    inside.send([*changes, *(netlink.route(route.to, via=route.via) for route in routes)])
