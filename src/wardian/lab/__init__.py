"""Wardian in JupyterLab: a server extension, and beside it in `labextension/` one of the front end"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "wardian.lab"}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension/built", "dest": "wardian"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    """Called by the server as it starts."""
    from . import api
    from .websocket import prompt_websockets

    prompt_websockets(server)
    api.serve(server)
