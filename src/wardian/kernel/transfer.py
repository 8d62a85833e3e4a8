"""Home's side of moving values: from and to the files that the router carries."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from ..errors import TransferError
from . import values
from .private import request, router_socket


def get(name: str, selector: str, language: str = "python") -> dict[str, Any]:
    """The values of the variable `name` by node. Raises NotUpError, SelectorError, RouterError."""
    found = request("get", name=name, selector=selector, language=language)["values"]
    return {node: take(value) for node, value in found.items()}


def put(value: Any, name: str, selector: str, language: str = "python") -> list[str]:
    """Set the variable `name` on every node that `selector` picks, and give their names.

    Raises as `get`, and TransferError for a value that cannot be moved.
    """
    path = router_socket().parent / secrets.token_hex(8)
    try:
        if language == "bash":
            if not isinstance(value, str | int | float):
                message = f"a bash variable holds text, not a value of type {type(value).__name__}"
                raise TransferError("", message, remedy="send it to a Python kernel")
            path.touch(mode=0o600)
            path.write_text(str(value))
        else:
            try:
                values.dump(value, str(path))
            except values.UnmovableValue as error:
                raise TransferError("", str(error), remedy="convert it to a frame, an array or plain values first") from None
        nodes: list[str] = request("put", name=name, selector=selector, language=language, path=str(path))["nodes"]
        return nodes
    finally:
        path.unlink(missing_ok=True)


def take(found: dict[str, Any]) -> Any:
    """The value that the router brought; its file is removed."""
    if "path" not in found:
        return found["text"]
    path = Path(found["path"])
    try:
        return path.read_text() if found["text"] else values.load(str(path))
    finally:
        path.unlink(missing_ok=True)
