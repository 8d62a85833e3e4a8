"""The REST interface and the events of the server extension, below `/wardian/api` of the server's base URL.

Handlers import what works on environments only when they are called: a server starts as fast with them as without.
"""

from __future__ import annotations

from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join

from . import actions, environments, experiments, nodes, timeline
from .events import Events
from .handler import Handler
from .operation import Operation, Route, operation

BASE = "wardian/api"


class Description(Handler):
    """The OpenAPI document."""

    auth_resource = "wardian:openapi"

    @operation(Operation("This document", gives={200: {"type": "object"}}))
    async def get(self) -> None:
        """Make it."""
        from .openapi import document

        self.answer(document(ROUTES, url_path_join(self.base_url, BASE)))


ROUTES = [
    Route("openapi.json", Description),
    *experiments.ROUTES,
    *environments.ROUTES,
    *actions.ROUTES,
    *nodes.ROUTES,
    *timeline.ROUTES,
    Route("events", Events),
]


def serve(server: ServerApp) -> None:
    """Add the routes to a server."""
    base = url_path_join(server.web_app.settings["base_url"], BASE)
    server.web_app.add_handlers(
        ".*$",  # type: ignore[no-untyped-call]
        [(route.pattern(base), route.handler) for route in ROUTES],
    )
