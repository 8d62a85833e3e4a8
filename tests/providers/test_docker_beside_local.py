"""Nodes of the local provider on a host where a Docker Engine has set up its firewall."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..engine import Daemon
from ..stage import require

pytestmark = [pytest.mark.root, pytest.mark.slow]

OUTSIDE = "192.0.2.2"

SCRIPT = """
import asyncio, json, sys
from itertools import groupby
from pathlib import Path
from wardian.experiment.resources import Resource
from wardian.providers.local import LocalProvider, LocalSettings
from wardian.providers.testing import quiet, run, small_environment

async def main(state, address, port):
    provider = LocalProvider(LocalSettings(state=Path(state)))
    resources = [item for item in small_environment(provider="local") if item.kind in ("environment", "network", "node")]
    resources = [Resource(item.kind, item.name, {**item.spec, "internet": item.name == "server"} if item.kind == "node" else item.spec)
                 for item in resources]
    try:
        for _, group in groupby(resources, key=lambda item: item.kind):
            await provider.create("beside", list(group), quiet)
        connect = f"import socket; print(socket.create_connection(({address!r}, {port}), 5).recv(99).decode())"
        results = {}
        for node in ("server", "client[0]"):
            code, output, _ = await run(provider, "beside", node, f'"{sys.executable}" -c "{connect}"')
            results[node] = code, output.decode()
        print(json.dumps(results))
    finally:
        await provider.destroy("beside", quiet)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
"""

LISTEN = """
import socket
server = socket.create_server(("192.0.2.2", 0))
print(server.getsockname()[1], flush=True)
while True:
    peer, address = server.accept()
    peer.sendall(address[0].encode())
    peer.close()
"""


def run(network: str, *argv: str, **options: Any) -> str:
    """Output of a command in a network namespace."""
    done = subprocess.run(["nsenter", f"--net={network}", *argv], capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def namespace() -> Iterator[str]:
    """The path of a network namespace that ends with the `with`."""
    holder = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield f"/proc/{holder.pid}/ns/net"
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture
def host() -> Iterator[tuple[str, int]]:
    """A host of the test's own with an Engine on it, and beyond it another one that listens at a port: (path of its namespace, port)."""
    for program in ("dockerd", "nft", "nsenter", "ip"):
        require(program)
    with namespace() as inside, namespace() as outside:
        run(inside, "ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan0", "netns", outside.split("/")[2])
        for network, address in ((inside, "192.0.2.1/24"), (outside, f"{OUTSIDE}/24")):
            run(network, "ip", "addr", "add", address, "dev", "wan0")
            run(network, "ip", "link", "set", "wan0", "up")
        run(inside, "ip", "route", "add", "default", "via", OUTSIDE)
        listener = subprocess.Popen(["nsenter", f"--net={outside}", sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
        daemon = Daemon(network=inside)
        try:
            assert listener.stdout is not None
            port = int(listener.stdout.readline())
            daemon.start()
            yield inside, port
        finally:
            daemon.close()
            listener.kill()
            listener.communicate()


def rules(network: str) -> list[dict[str, Any]]:
    """The firewall's rules, without counters and handles."""
    text = run(network, "nft", "-j", "list", "ruleset")
    return [_plain(item) for item in json.loads(text)["nftables"] if "metainfo" not in item]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in ("handle", "packets", "bytes")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def test_a_local_node_with_internet_passes_dockers_firewall(host: tuple[str, int], state_folder: Path) -> None:
    """Docker drops what is forwarded; a node with internet reaches beyond the host, another does not, and the rules end as they were."""
    network, port = host
    before = rules(network)
    assert [item["chain"]["policy"] for item in before if item.get("chain", {}).get("name") == "FORWARD"] == ["drop"]
    environment = {**os.environ, "WARDIAN_STATE": str(state_folder)}
    said = run(network, sys.executable, "-c", SCRIPT, str(state_folder), OUTSIDE, str(port), env=environment)
    results = json.loads(said)
    assert results["server"] == [0, "192.0.2.1\n"], "seen from beyond it is the host"
    assert results["client[0]"][0] != 0
    assert rules(network) == before
