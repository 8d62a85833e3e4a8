"""Ports and files of nodes in the notebook: `%forward`, `wardian.forward`, `wardian.fetch`."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wardian.kernel.session import links

from .conftest import Notebook

pytestmark = pytest.mark.slow

SERVE = """%%on server
import http.server, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = b"x" * 3_000_000 if self.path == "/large" else b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *arguments):
        pass
serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=serving.serve_forever, daemon=True).start()
port = serving.server_port
"""


@pytest.fixture
def served(notebook: Notebook) -> str:
    """A web server on the node "server"; its port."""
    serving = notebook.run(SERVE)
    assert serving.status == "ok", serving.error
    return notebook.run("%%on server\nport").value


def test_a_web_page_of_a_node(notebook: Notebook, served: str) -> None:
    """A forwarded port gives a link, as HTML and text, behind which is the node's server, for many requests at once."""
    shown = notebook.run(f"%forward server:{served}").contents("execute_result")[0]["data"]
    address = shown["text/plain"].partition(" → ")[2]
    assert f'href="{address}"' in shown["text/html"]
    assert urllib.request.urlopen(address).read() == b"hello"
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda _: len(urllib.request.urlopen(f"{address}large").read()), range(16))
        assert set(found) == {3_000_000}
    assert notebook.run(f"import wardian; wardian.forward('server:{served}').url").value == repr(address)
    assert address in notebook.run("%forward").value
    assert notebook.run("%forward --stop").text() == f"server:{served} is no longer forwarded\n"
    assert notebook.run("%forward").text() == "no port is forwarded\n"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)


def test_several_nodes(notebook: Notebook) -> None:
    """A selector of several nodes gives a port here for each; they can be closed one by one."""
    assert notebook.run("import wardian; [port.node for port in wardian.forward('client:4711')]").value == "['client[0]', 'client[1]']"
    assert "cannot share port" in notebook.run("%forward client:4711 --port 4711").error
    notebook.run("%forward --stop client[0]:4711")
    assert "client[1]:4711" in notebook.run("%forward").value
    assert "is not forwarded" in notebook.run("%forward --stop client[0]:4711").error
    notebook.run("%forward --stop")


def test_mistakes(notebook: Notebook) -> None:
    """What is no port, no node or no number says so."""
    assert "NODE:PORT" in notebook.run("%forward server").error
    assert "no node" in notebook.run("%forward nowhere:80").error
    assert "is no port" in notebook.run("%forward server:80 --port x").error


def test_it_ends_with_the_kernel(start: Callable[..., Notebook]) -> None:
    """The listener is on loopback only, and is gone when the kernel is."""
    notebook = start()
    here = int(notebook.run("import wardian; wardian.forward('server:80').here").value)
    socket.create_connection(("127.0.0.1", here)).close()
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{here:04X}")] == [f"0100007F:{here:04X}"]
    notebook.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", here))


def test_links_through_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under a Jupyter server that has jupyter-server-proxy a link goes through it, below a hub's prefix or the server's base URL."""
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setattr(links, "find_spec", lambda name: object())
    assert links.link(8080) == "http://127.0.0.1:8080/"
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
    assert links.link(8080) == "http://127.0.0.1:8080/"
    (tmp_path / f"jpserver-{os.getpid()}.json").write_text(json.dumps({"base_url": "/base/"}))
    assert links.link(8080) == "/base/proxy/8080/"
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    assert links.link(8080) == "/user/ada/proxy/8080/"
    monkeypatch.setattr(links, "find_spec", lambda name: None)
    assert links.link(8080) == "http://127.0.0.1:8080/"


def test_files(notebook: Notebook, tmp_path: Path) -> None:
    """A file that a node's cell made comes beside the notebook, and is shown as a link that leads there from it."""
    (tmp_path / "notebooks").mkdir()
    notebook.run(f"import os, wardian; os.chdir({str(tmp_path / 'notebooks')!r})")
    notebook.run(f"%%on server\nopen({str(tmp_path / 'a plot.txt')!r}, 'w').write('drawn')")
    shown = notebook.run(f"wardian.fetch('server', {str(tmp_path / 'a plot.txt')!r})").contents("execute_result")[0]["data"]
    assert 'href="fetched/server/a%20plot.txt"' in shown["text/html"]
    assert (tmp_path / "notebooks" / "fetched" / "server" / "a plot.txt").read_text() == "drawn"
    notebook.run(f"%%on server\nopen({str(tmp_path / 'a plot.txt')!r}, 'w').write('anew')")
    notebook.run(f"found = wardian.fetch('client', {str(tmp_path / 'a plot.txt')!r}, 'elsewhere')")
    assert notebook.run("{node: open(file).read() for node, file in found.items()}").value == "{'client[0]': 'anew', 'client[1]': 'anew'}"
    assert "nothere" in notebook.run("wardian.fetch('server', '/nothere')").error
