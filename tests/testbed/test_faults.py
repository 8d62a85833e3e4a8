"""What goes wrong between us and a cloud's services: `scripts/openstack-testbed start`, and proxies before its Nova, Neutron and Glance."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack
import pytest
from openstack_testbed.layout import Layout

from wardian.aio import Environment
from wardian.errors import ProviderError

from .proxy import Proxy, failure, proxied, with_servers

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

TIMEOUT = 8
"""Seconds after which a request is given up, where many are to be."""

Answer = tuple[int, bytes] | None


class Site:
    """A cloud behind proxies, an experiment on it, and the same cloud without them."""

    def __init__(self, folder: Path, proxies: dict[str, Proxy], **settings: Any) -> None:
        self.proxies = proxies
        self.cloud = openstack.connect(cloud="testbed")
        name = f"faults-{secrets.token_hex(2)}"
        self.file = folder / f"{name}.yaml"
        common = {"cloud": "proxied", "image": "tiny", "flavor": "small", "external": "public", "ready": "active", "timeout": "60s"}
        nodes: dict[str, Any] = {"server": {"networks": ["east"]}, "client": {"count": 2, "networks": ["west"]}}
        said = {"name": name, "provider": "openstack", "settings": {**common, **settings}, "nodes": nodes}
        self.file.write_text(json.dumps({**said, "networks": ["east", "west"], "links": {"wan": {"between": ["east", "west"]}}}))
        self.environment = Environment(self.file)

    def around(self, change: Callable[..., Answer]) -> None:
        """Have each of the services be asked in this way."""
        for proxy in self.proxies.values():
            proxy.around = change

    def quiet(self) -> None:
        """Let all pass."""
        for proxy in self.proxies.values():
            proxy.quiet()

    def there(self) -> Counter[tuple[str, str]]:
        """What the cloud has of the experiment, by kind and name, and how often."""
        network = self.cloud.network
        kinds: dict[str, Callable[[], Any]] = {"server": self.cloud.compute.servers, "key": self.cloud.compute.keypairs}
        kinds |= {"network": network.networks, "subnet": network.subnets, "router": network.routers, "group": network.security_groups}
        found = [(kind, item.name) for kind, listed in kinds.items() for item in listed() if self.file.stem in item.name]
        found += [("floating", "") for item in network.ips() if self.file.stem in item.description]
        return Counter(found)


@pytest.fixture
async def site(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A site whose Nova, Neutron and Glance are behind proxies."""
    path = tmp_path / "clouds.yaml"
    with proxied(layout, path) as proxies:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
        monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
        site = Site(tmp_path, proxies, **getattr(request, "param", {}))
        try:
            yield site
        finally:
            site.quiet()
            await site.environment.down(force=True)
            site.environment.close()
            site.cloud.close()


class First:
    """Does something to each request the first time that it is sent."""

    def __init__(self, does: Callable[[Callable[[], Any]], Answer]) -> None:
        self._does = does
        self._seen: set[tuple[str, str, bytes]] = set()
        self.times = 0

    def __call__(self, method: str, path: str, body: bytes, ask: Callable[[], Any]) -> Answer:
        if (method, path, body) in self._seen:
            return ask()
        self._seen.add((method, path, body))
        self.times += 1
        return self._does(ask)


def lost(ask: Callable[[], Any]) -> Answer:
    """It is done, and the connection ends before that is said."""
    ask()


FAULTS: dict[str, Callable[[Callable[[], Any]], Answer]] = {
    "500": lambda ask: failure("out of order", 500),
    "503": lambda ask: failure("busy", 503),
    "429": lambda ask: failure("slow down", 429),
    "401": lambda ask: failure("token has expired", 401),
    "lost": lost,
    "504": lambda ask: (ask(), failure("upstream timed out", 504))[1],
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_request_goes_wrong_once(site: Site, fault: str) -> None:
    """Whatever happens to each request when it is first sent, each thing is made once, and nothing is left in the end."""
    first = First(FAULTS[fault])
    site.around(first)
    await site.environment.up()
    assert first.times > 30
    there = site.there()
    assert {kind: sum(count for (each, _), count in there.items() if each == kind) for kind, _ in there} == {
        **{"server": 3, "key": 1, "network": 3, "subnet": 3, "router": 2, "group": 2, "floating": 1}
    }
    assert set(there.values()) == {1}
    assert not await site.environment.plan()
    await site.environment.down()
    assert site.there() == {}


class Late:
    """Lets each request that makes something wait until it is sent again, then has the service do both; first lists come too late."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, bytes], tuple[threading.Event, threading.Event]] = {}
        self._listed: set[str] = set()
        self.times = self.lists = 0

    def __call__(self, method: str, path: str, body: bytes, ask: Callable[[], Any]) -> Answer:
        if method == "GET" and path not in self._listed:
            self._listed.add(path)
            self.lists += 1
            time.sleep(TIMEOUT + 1)
        if method != "POST":
            return ask()
        if (path, body) not in self._first:
            again, done = self._first[path, body] = threading.Event(), threading.Event()
            again.wait(120)
            ask()
            done.set()
            return None
        again, done = self._first[path, body]
        again.set()
        done.wait(120)
        self.times += 1
        return ask()


@pytest.mark.parametrize("site", [{"timeout": f"{TIMEOUT}s"}], indirect=True)
async def test_requests_that_are_done_after_they_were_given_up(site: Site) -> None:
    """What a service does for a request that was given up, and sent again, does not stay beside what the second one made."""
    late = Late()
    site.around(late)
    await site.environment.up()
    site.quiet()
    assert late.times > 10
    assert late.lists > 5
    assert [each for each, count in site.there().items() if count > 1] == []
    assert not await site.environment.plan()
    await site.environment.down()
    assert site.there() == {}


async def test_a_server_that_goes_into_error(site: Site) -> None:
    """A server that goes into ERROR ends the wait with Nova's reason, and the next `up` makes it anew; those that run stay as they are."""
    broken: list[str] = []

    def told(server: dict[str, Any]) -> dict[str, Any]:
        reason = {"status": "ERROR", "fault": {"message": "the disk is full", "code": 500, "created": ""}}
        return server | (reason if server["id"] in broken else {})

    def change(method: str, path: str, status: int, body: bytes) -> Answer:
        listed = json.loads(body)["servers"] if method == "GET" and "/servers/detail" in path else []
        if {server["status"] for server in listed} != {"ACTIVE"}:
            return status, body
        if not broken:
            # on a busy machine a request may be believed to be lost, and be done twice
            broken.extend(server["id"] for server in listed if server["name"].endswith("-client-1"))
        return status, with_servers(body, told)

    site.proxies["compute"].change = change
    with pytest.raises(ProviderError, match=r"client\[1\]: its server is ERROR: the disk is full\n.*`wardian up` again"):
        await site.environment.up()
    kept = {server.id for server in site.cloud.compute.servers() if site.file.stem in server.name} - set(broken)
    await site.environment.up()
    now = {server.id for server in site.cloud.compute.servers() if site.file.stem in server.name}
    assert (len(now), kept <= now, set(broken) & now) == (3, True, set())


async def test_a_pool_of_addresses_that_is_empty(layout: Layout, site: Site) -> None:
    """Where no floating IP is left the error says so and what to do, and all that was made before goes with `down`."""
    admin = openstack.connect(cloud="testbed-admin")
    network = admin.network.create_network(name=f"outside-{secrets.token_hex(2)}", is_router_external=True)
    try:
        # one address, which the router takes
        pool = [{"start": "198.51.101.10", "end": "198.51.101.10"}]
        admin.network.create_subnet(
            network_id=network.id, ip_version=4, cidr="198.51.101.0/24", is_dhcp_enabled=False, allocation_pools=pool
        )
        site.file.write_text(site.file.read_text().replace('"external": "public"', f'"external": "{network.name}"'))
        with pytest.raises(ProviderError, match=r"(?s)No more IP addresses available.*request req-.*`floating: false`"):
            await site.environment.up()
        await site.environment.down()
        assert site.there() == {}
    finally:
        await site.environment.down(force=True)
        admin.network.delete_network(network.id)
        admin.close()


async def test_killed_at_any_moment(site: Site) -> None:
    """`up` and `down` that are killed again and again finish when they are run once more; each thing is there once, and then nothing."""
    command = [sys.executable, "-m", "wardian"]

    async def killed(*arguments: str, after: int) -> bool:
        """Kill it at the moment when it sends its request of this number. Gives whether it came to that."""
        reached, left = threading.Event(), [after]

        def count(method: str, path: str, body: bytes, ask: Callable[[], Any]) -> Answer:
            left[0] -= 1
            if left[0] == 0:
                reached.set()
            return ask()

        site.around(count)
        process = await asyncio.create_subprocess_exec(
            *command, *arguments, "-f", str(site.file), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        ended = asyncio.create_task(process.communicate())
        while not reached.is_set() and not ended.done():
            await asyncio.sleep(0.01)
        if not ended.done():
            process.send_signal(signal.SIGKILL)
        await ended
        return reached.is_set()

    moments = 0
    for after in (12, 16, 20, 24, 28, 32, 38, 50):
        moments += await killed("up", after=after)
    assert moments >= 5
    site.quiet()
    await site.environment.up()
    assert set(site.there().values()) == {1}
    assert not await site.environment.plan()
    for after in (12, 16, 20, 24):
        await killed("down", "--force", after=after)
    site.quiet()
    await site.environment.down(force=True)
    assert site.there() == {}
