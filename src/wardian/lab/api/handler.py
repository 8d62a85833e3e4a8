"""What every route shares: who may call it, how much it takes, which files it can name, and how it says what went wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jupyter_server.base.handlers import APIHandler
from tornado import web

from ...errors import (
    AgentError,
    BusyError,
    CommandError,
    ExperimentFileError,
    JournalError,
    NodeDownError,
    NotUpError,
    ProviderError,
    SelectorError,
    WardianError,
)
from .operation import LARGEST_BODY, Operation

if TYPE_CHECKING:
    from .desk import Desk

T = TypeVar("T")

EXPERIMENT = "experiment.yaml"

STATUS: Mapping[type[WardianError], int] = {
    SelectorError: 404,
    NotUpError: 404,
    BusyError: 423,
    ProviderError: 502,
    NodeDownError: 503,
    CommandError: 502,
    AgentError: 502,
    JournalError: 500,
}
"""{error: HTTP status}; of what is not named here, 422."""


class Sources:
    """What handlers of requests and of websockets need to know of the server."""

    settings: dict[str, Any]

    async def load(self) -> None:
        """Import what works on environments, at the first request and in a thread: the server goes on meanwhile."""
        desk = await asyncio.to_thread(import_module, ".desk", __package__)
        if "wardian_desk" not in self.settings:
            self.settings["wardian_desk"] = desk.Desk(self.root)

    @property
    def desk(self) -> Desk:
        """What the server holds open. After `load`."""
        desk: Desk = self.settings["wardian_desk"]
        return desk

    @property
    def root(self) -> Path:
        """The folder that the server serves."""
        return Path(self.settings["server_root_dir"]).expanduser().resolve()

    def place(self, path: str) -> Path:
        """A path below the root, links followed. Raises a 404 for one that leads out of it, or is hidden from the server's users."""
        if "\0" in path:
            raise web.HTTPError(400, "a path holds no NUL")
        try:
            place = (self.root / path.strip("/")).resolve()
        except (OSError, RuntimeError) as error:
            raise web.HTTPError(404, f"{path!r} cannot be found: {error}") from None
        if not place.is_relative_to(self.root):
            raise web.HTTPError(404, f"{path!r} is not below the folder that this server serves")
        hidden = any(step.startswith(".") for step in place.relative_to(self.root).parts)
        if hidden and not self.settings["contents_manager"].allow_hidden:
            raise web.HTTPError(404, f"{path!r} is hidden")
        return place

    def experiment_file(self, path: str) -> Path:
        """The experiment file of a path, which may be that of its folder."""
        place = self.place(path)
        return place / EXPERIMENT if place.is_dir() else place

    def relative(self, place: Path | str) -> str:
        """The path of what is below the root, as the server's users know it."""
        return Path(place).relative_to(self.root).as_posix()


@web.stream_request_body
class Handler(Sources, APIHandler):
    """Base of the REST handlers. Bodies are read as they come, so that one that is too large is refused before it is here."""

    query: dict[str, Any]
    body: Any

    async def prepare(self) -> None:  # type: ignore[override]  # as the class that it extends
        """Refuse who may not be here, and a body that says it is too large."""
        self._received = bytearray()
        await super().prepare()
        self._refuse_larger(int(self.request.headers.get("Content-Length") or 0))

    def data_received(self, chunk: bytes) -> None:
        """Take a part of the body."""
        self._refuse_larger(len(self._received) + len(chunk))
        self._received += chunk

    def _refuse_larger(self, size: int) -> None:
        if size > self.limit:
            raise web.HTTPError(413, f"the request's body may have {self.limit} bytes")

    @property
    def limit(self) -> int:
        """How many bytes the body of this request may have."""
        declared: Operation | None = getattr(getattr(self, str(self.request.method).lower(), None), "declared", None)
        return declared.limit if declared else LARGEST_BODY

    async def serve(self, declared: Operation, method: Any, args: tuple[str, ...], kwargs: dict[str, str]) -> None:
        """Check a request against what its operation declares, then do it; errors become answers."""
        await self.load()
        from . import checking

        self.query = checking.query(declared, self.request.query_arguments)
        if declared.body is not None and declared.media == "application/json":
            self.body = checking.body(declared, bytes(self._received))
        try:
            await method(self, *args, **kwargs)
        except WardianError as error:
            status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 422)
            self.answer(error_json(error), status)

    def answer(self, value: Any, status: int = 200) -> None:
        """Send a JSON value."""
        self.set_status(status)
        self.finish(json.dumps(value, separators=(",", ":"), default=str))

    async def work(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run what works on environments, on the desk's own loop: the server's goes on passing kernels' messages."""
        return await self.desk.portal.run(coroutine)


def error_json(error: WardianError) -> dict[str, Any]:
    """An error as answers and tasks have it."""
    told: dict[str, Any] = {"message": error.message, "kind": type(error).__name__}
    if error.remedy:
        told["remedy"] = error.remedy
    if isinstance(error, ExperimentFileError):
        from ...environment.view import problem_json

        told["problems"] = [problem_json(problem) for problem in error.problems]
    return told
