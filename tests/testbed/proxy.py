"""A proxy before a service, which does to requests and answers what the service won't do on demand."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from openstack_testbed.layout import Layout, default_folder, existing
from openstack_testbed.services import answers

SERVICES = {"compute": "/v2.1", "network": "/v2.0", "image": "/v2"}
"""{service: where its interface is at its address}"""

PASSED_ON = ("x-openstack-request-id", "x-subject-token")
"""Headers of answers that clients need."""

Change = Callable[[str, str, int, bytes], "tuple[int, bytes] | None"]
"""Of (method, path, status, body) of an answer: what is answered in its place; None cuts the connection without a word."""


@dataclass
class Proxy:
    """before: as `change`, in place of asking the service at all, where it gives something. asked: all requests, in order.

    around: of (method, path, body, ask), what is answered in place of what `ask` gives, which has the service do it; None as in `change`.
    addresses: {service's address: the one that is told in its place}, of all that is answered.
    """

    port: int
    change: Change = lambda method, path, status, body: (status, body)
    before: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None
    around: Callable[[str, str, bytes, Callable[[], tuple[int, bytes]]], tuple[int, bytes] | None] = lambda method, path, body, ask: ask()
    asked: list[tuple[str, str]] = field(default_factory=list)
    addresses: dict[bytes, bytes] = field(default_factory=dict)

    def quiet(self) -> None:
        """Pass everything on as it is."""
        del self.change, self.before, self.around

    def __delattr__(self, name: str) -> None:
        setattr(self, name, type(self).__dataclass_fields__[name].default)


def failure(reason: str, status: int = 500) -> tuple[int, bytes]:
    """An answer as Blazar words its failures; other services' clients take the status."""
    return status, json.dumps({"error_code": status, "error_message": reason, "error_name": status}).encode()


def with_servers(body: bytes, told: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """Nova's list of servers, of each of which something else is told."""
    return json.dumps({"servers": [told(server) for server in json.loads(body)["servers"]]}).encode()


def running() -> Layout | None:
    """The testbed of this machine, where it runs."""
    found = existing(default_folder())
    return found if found and answers(found, "compute") else None


@contextmanager
def proxied(layout: Layout, path: Path, services: Mapping[str, str] = SERVICES) -> Iterator[dict[str, Proxy]]:
    """Write a clouds.yaml which has the testbed as it is, and once more, as `proxied`, with a proxy before each of these services.

    With one before `identity` the cloud's own catalogue leads to the others, so that they are asked all that a cloud is asked.
    """
    clouds = yaml.safe_load(layout.clouds.read_text())
    with ExitStack() as stack:
        proxies = {service: stack.enter_context(serving(layout.port(service))) for service in services}
        proxied = clouds["clouds"]["proxied"] = dict(clouds["clouds"]["testbed"])
        if "identity" in proxies:
            proxied["auth"] = {**proxied["auth"], "auth_url": f"http://127.0.0.1:{proxies['identity'].port}{services['identity']}"}
            told = {f"127.0.0.1:{layout.port(service)}".encode(): f"127.0.0.1:{one.port}".encode() for service, one in proxies.items()}
            for one in proxies.values():
                one.addresses |= told
        else:
            proxied |= {f"{service}_endpoint_override": f"http://127.0.0.1:{proxies[service].port}{at}" for service, at in services.items()}
            # else what the service says of its versions leads past the proxy
            proxied["image_api_version"] = "2"
        path.touch(0o600)
        path.write_text(yaml.safe_dump(clouds))
        yield proxies


@contextmanager
def serving(service: int) -> Iterator[Proxy]:
    """A proxy on a port of its own, before the service on that port."""

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.asked.append((self.command, self.path))
            answered, told = proxy.before(self.command, self.path), dict[str, str | None]()

            def ask() -> tuple[int, bytes]:
                behind = http.client.HTTPConnection("127.0.0.1", service, timeout=300)
                behind.request(self.command, self.path, body, {**dict(self.headers), "Host": f"127.0.0.1:{service}"})
                said = behind.getresponse()
                told.update({name: said.getheader(name) for name in PASSED_ON})
                content = said.read()
                behind.close()
                return said.status, content

            if answered is None:
                answered = proxy.around(self.command, self.path, body, ask)
                answered = proxy.change(self.command, self.path, *answered) if answered else None
            self.close_connection = True
            if answered is None:
                return
            status, content = answered
            for own, shown in proxy.addresses.items():
                content = content.replace(own, shown)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            if status in (429, 503):
                self.send_header("Retry-After", "1")
            for name, value in told.items():
                if value:
                    self.send_header(name, value)
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
