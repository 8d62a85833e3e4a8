"""A proxy before Blazar, which does to answers what the service won't do on demand."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Change = Callable[[str, str, int, bytes], "tuple[int, bytes] | None"]
"""Of (method, path, status, body) of an answer: what is answered in its place; None cuts the connection without a word."""


@dataclass
class Proxy:
    """before: as `change`, in place of asking the service at all, where it gives something. asked: all requests, in order."""

    port: int
    change: Change = lambda method, path, status, body: (status, body)
    before: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None
    asked: list[tuple[str, str]] = field(default_factory=list)

    def quiet(self) -> None:
        """Pass everything on as it is."""
        del self.change, self.before

    def __delattr__(self, name: str) -> None:
        setattr(self, name, type(self).__dataclass_fields__[name].default)


def failure(reason: str, status: int = 500) -> tuple[int, bytes]:
    """An answer as Blazar words its failures."""
    return status, json.dumps({"error_code": status, "error_message": reason, "error_name": status}).encode()


@contextmanager
def serving(service: int) -> Iterator[Proxy]:
    """A proxy on a port of its own, before the service on that port."""

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.asked.append((self.command, self.path))
            answered, number = proxy.before(self.command, self.path), None
            if answered is None:
                behind = http.client.HTTPConnection("127.0.0.1", service, timeout=300)
                behind.request(self.command, self.path, body, {**dict(self.headers), "Host": f"127.0.0.1:{service}"})
                said = behind.getresponse()
                number = said.getheader("x-openstack-request-id")
                answered = proxy.change(self.command, self.path, said.status, said.read())
                behind.close()
            self.close_connection = True
            if answered is None:
                return
            status, content = answered
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            if number:
                self.send_header("x-openstack-request-id", number)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Proxy(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
