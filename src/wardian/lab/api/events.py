"""The websocket of events: what an environment is, then every difference, to everybody who looks at it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from .handler import Sources
from .operation import TEXT, WHOLE, Operation, query
from .shapes import ENVIRONMENT_QUERY

if TYPE_CHECKING:
    from .watch import Reader

_QUERY = {
    **ENVIRONMENT_QUERY,
    "epoch": query(TEXT, "of the snapshot that the client has", default="", maxLength=40),
    "number": query(WHOLE, "of the last difference that it has", default=-1, minimum=-1, maximum=2**53),
    "sequence": query(WHOLE, "of the last entries that it has", default=0, minimum=0, maximum=2**53),
}

LARGEST_MESSAGE = 4096
"""Of a client's message, bytes."""


class Events(Sources, WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One who looks on."""

    auth_resource = "wardian:events"
    _reader: Reader | None = None
    _sending: asyncio.Task[None] | None = None

    @ws_authenticated
    @authorized
    async def get(self) -> None:
        """Begin, where the environment's folder is there."""
        await self.load()
        from . import checking

        self.asked = checking.query(Operation("", query=_QUERY), self.request.query_arguments)
        self.file = self.experiment_file(self.asked["path"])
        if not self.file.parent.is_dir():
            raise web.HTTPError(404, f"{self.asked['path']!r} is not there")
        await WebSocketHandler.get(self)

    def set_default_headers(self) -> None:
        """Those of a page mean nothing here."""

    def get_compression_options(self) -> Any:
        """As for the server's other websockets."""
        return self.settings.get("websocket_compression_options", None)

    @property
    def max_message_size(self) -> int:
        """Clients have little to say."""
        return LARGEST_MESSAGE

    async def open(self, *args: str, **kwargs: str) -> None:
        """Send what there is, and then what changes."""
        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        desk = self.desk
        self._reader = await desk.portal.run(desk.join(self.file, self.asked["instance"], self.relative(self.file)))
        try:
            self._reader.resume(self.asked["epoch"], self.asked["number"], self.asked["sequence"])
            if self._reader.number >= 0:
                await self.write_message(json.dumps({"type": "resumed", "number": self._reader.number, "sequence": self._reader.sequence}))
            while messages := await desk.portal.run(self._reader.next()):
                for message in messages:
                    # waits until it is sent: a client that does not read is not sent more
                    await self.write_message(message)
            self.close(1011, "the watch ended")
        except WebSocketClosedError:
            return
        finally:
            await desk.portal.run(desk.leave(self._reader))

    def on_message(self, message: str | bytes) -> None:
        """`{"type": "look"}` has the environment looked at again; `{"type": "traffic", "wanted": true}` what links carry told, too."""
        try:
            wanted = json.loads(message)
        except ValueError:
            wanted = None
        if not isinstance(wanted, dict) or self._reader is None:
            return
        if wanted.get("type") == "traffic":
            self._reader.traffic = wanted.get("wanted") is True
        if wanted.get("type") in ("look", "traffic"):
            self.desk.portal.start(self.desk.stir(self._reader.watch))

    def on_close(self) -> None:
        """Stop."""
        if self._sending is not None:
            self._sending.cancel()
        super().on_close()
