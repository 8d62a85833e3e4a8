"""Links to ports of this machine, as the user's browser can follow them."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path


def link(port: int) -> str:
    """Where the user finds a port that is listened on here.

    Through jupyter-server-proxy where this kernel runs under a Jupyter server that has it, since the browser may be on another machine;
    else on loopback.
    """
    base = server_base()
    if base is not None and find_spec("jupyter_server_proxy") is not None:
        return f"{base.rstrip('/')}/proxy/{port}/"
    return f"http://127.0.0.1:{port}/"


def server_base() -> str | None:
    """The base URL of the Jupyter server that started this kernel, as a path; None where there is none."""
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix:
        return prefix
    parent = os.environ.get("JPY_PARENT_PID", "")
    if not parent.isdigit():
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        server = json.loads((Path(jupyter_runtime_dir()) / f"jpserver-{parent}.json").read_text())
    except (OSError, ValueError):
        return None
    base = server.get("base_url") if isinstance(server, dict) else None
    return base if isinstance(base, str) else None
