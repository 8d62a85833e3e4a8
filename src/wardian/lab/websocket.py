"""Kernel websockets that send at once."""

from __future__ import annotations

from asyncio import Future

from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptWebsocketConnection(ZMQChannelsWebsocketConnection):
    """The server's own connection with TCP_NODELAY: a cell's end is two small messages, and the second would wait 40 ms for the
    browser's delayed acknowledgement of the first."""

    def connect(self) -> Future[None] | None:  # type: ignore[override]  # as the class that it extends
        """Begin to pass messages."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()


def prompt_websockets(server: ServerApp) -> None:
    """Make a server's kernel websockets prompt; one that was given another class (a gateway's, the user's) keeps it."""
    if server.kernel_websocket_connection_class is not ZMQChannelsWebsocketConnection:
        return
    server.kernel_websocket_connection_class = PromptWebsocketConnection
    # Extensions are loaded when the web application has taken its settings already.
    server.web_app.settings["kernel_websocket_connection_class"] = PromptWebsocketConnection
