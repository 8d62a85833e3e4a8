"""The server extension: which servers' websockets it makes prompt."""

from __future__ import annotations

import gzip
import json
import tomllib
from types import SimpleNamespace

import pytest
from jupyter_server.gateway.connections import GatewayWebSocketConnection
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from tests.kernel.conftest import ROOT
from wardian.lab.websocket import PromptWebsocketConnection, prompt_websockets


class Chosen(ZMQChannelsWebsocketConnection):
    """A connection that the user has chosen."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ZMQChannelsWebsocketConnection, PromptWebsocketConnection),
        (Chosen, Chosen),
        (GatewayWebSocketConnection, GatewayWebSocketConnection),
    ],
)
def test_the_connection_class(given: type, expected: type) -> None:
    """The server's own class is replaced; a gateway's and the user's are left."""
    settings = {"kernel_websocket_connection_class": given}
    server = SimpleNamespace(kernel_websocket_connection_class=given, web_app=SimpleNamespace(settings=settings))
    prompt_websockets(server)  # type: ignore[arg-type]
    assert server.kernel_websocket_connection_class is settings["kernel_websocket_connection_class"] is expected


def test_it_is_installed_enabled() -> None:
    """The wheel brings the file that enables the server extension, and the page's extension with all files that it names."""
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    (config,) = [ROOT / source for source, target in shared.items() if target == "etc/jupyter/jupyter_server_config.d"]
    assert json.loads((config / "wardian.json").read_text())["ServerApp"]["jpserver_extensions"] == {"wardian.lab": True}
    (front,) = [ROOT / source for source, target in shared.items() if target == "share/jupyter/labextensions/wardian"]
    package = json.loads((front / "package.json").read_text())
    assert (front / package["jupyterlab"]["_build"]["load"]).is_file()


def test_the_bundle_is_small() -> None:
    """All that the page's extension loads is less than 400 kB when compressed, and names no host that it was built from."""
    built = ROOT / "src" / "wardian" / "lab" / "labextension" / "built"
    files = [path for path in (built / "static").iterdir() if path.suffix == ".js"]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 400_000
    assert "://" not in (built.parent / "yarn.lock").read_text()
