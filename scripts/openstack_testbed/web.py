"""One HTTP request to a service of the testbed, past any proxy that this machine's user has set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import IO

from .layout import HOST, Layout


@dataclass(frozen=True)
class Answer:
    """What came back. headers: by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def request(
    layout: Layout, service: str, method: str, path: str, data: bytes | IO[bytes] | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Ask a service. Raises OSError or HTTPException where none answers."""
    connection = HTTPConnection(HOST, layout.port(service), timeout=300)
    try:
        connection.request(method, path, data, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()
