"""Servers of a cloud up and down, beside the same one after the other: how long, how many requests, and how soon ACTIVE is noticed."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.testbed import proxy as proxies

from wardian import aio

from .ground import Ground, ground
from .results import Goal, Row, Table

SERVERS = 20
ROUNDS = 3
PEER = "python-chi's way"
AT_ONCE = 10
"""Things that Terraform works on at once, unless told otherwise."""
SERVICES = {"identity": "/v3", **proxies.SERVICES}
BOOT = 20.0, 40.0
"""Between which times after its request a server of `noticed` is shown as ACTIVE, seconds."""


def measure(quick: bool) -> Table:
    """Ours and the peer's in turn, each first in every other round; then servers that become ACTIVE at a known moment."""
    servers, rounds = (3, 1) if quick else (SERVERS, ROUNDS)
    sides: dict[str, Callable[[Ground, int], None]] = {
        "Wardian": _ours,
        PEER: lambda place, servers: _theirs(place, servers, 1),
        f"the same, {AT_ONCE} at once": lambda place, servers: _theirs(place, servers, AT_ONCE),
    }
    samples: dict[str, list[tuple[float, int]]] = {side: [] for side in sides}
    with ground() as place, cloud(place) as (testbed, asked, compute):
        for number in range(rounds):
            for side in sorted(sides, reverse=bool(number % 2)):
                before, start = len(asked()), time.perf_counter()
                sides[side](place, servers)
                samples[side].append((time.perf_counter() - start, len(asked()) - before))
        late, lists = _noticed(place, compute, servers)
    ours, *peers = sides

    def took(side: str) -> list[float]:
        return [seconds for seconds, _ in samples[side]]

    def each(side: str) -> list[float]:
        return [requests / servers for _, requests in samples[side]]

    rows = [
        *(
            Row(f"{servers} servers up and down", "s", took(ours), peer, took(peer), Goal(1 / 3, ratio=True) if peer == PEER else None)
            for peer in peers
        ),
        *(
            Row("requests a server, up and down", "requests", each(ours), peer, each(peer), Goal(4) if peer == PEER else None)
            for peer in peers
        ),
        Row("a server is ACTIVE, until that is noticed", "s", late, goal=Goal(1)),
        Row("lists of servers a second meanwhile", "requests", [lists], goal=Goal(1)),
    ]
    boot = f"boot for {testbed.boot:g} s (`--boot`)" if testbed.boot else "are there at once: there is nothing to wait for but requests"
    note = (
        f"On the testbed, whose servers are pretended and {boot}. Proxies before Keystone, Nova, Neutron and Glance count requests. "
        "The peer makes the same by openstacksdk in the order of python-chi's functions: key, security group, network, "
        "subnet and router, then one server after the other, each waited for by `wait_for_server` (a look every 2 s), a floating IP, and "
        f"removes all of it; or {AT_ONCE} servers at once, as Terraform does. Nobody has a lease: waiting for one is the same for all."
    )
    return Table("openstack", "servers of a cloud up and down", note, rows)


@contextmanager
def cloud(place: Ground) -> Iterator[tuple[proxies.Layout, Any, proxies.Proxy]]:
    """The testbed behind proxies, for this process: it, what gives all requests that were sent so far, and the proxy before Nova."""
    testbed = proxies.running()
    if testbed is None:
        raise SystemExit("run `scripts/openstack-testbed start` first")
    with proxies.proxied(testbed, place.root / "clouds.yaml", SERVICES) as before:
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(place.root / "clouds.yaml")
        try:
            yield testbed, lambda: [request for one in before.values() for request in one.asked], before["compute"]
        finally:
            del os.environ["OS_CLIENT_CONFIG_FILE"]


def _experiment(place: Ground, servers: int) -> aio.Environment:
    folder = place.experiment(servers)
    settings = "{cloud: proxied, image: tiny, flavor: small, external: public, ready: active}"
    file = folder / "experiment.yaml"
    file.write_text(file.read_text() + f"provider: openstack\nsettings: {settings}\n")
    return aio.Environment(file)


def _ours(place: Ground, servers: int) -> None:
    async def work() -> None:
        environment = _experiment(place, servers)
        try:
            await environment.up()
        finally:
            await environment.down(force=True)
            environment.close()

    asyncio.run(work())


def _theirs(place: Ground, servers: int, at_once: int) -> None:
    import openstack

    name = f"peer-{secrets.token_hex(2)}"
    with openstack.connect(cloud="proxied") as connection:
        compute, network = connection.compute, connection.network
        key = compute.create_keypair(name=name)
        group = network.create_security_group(name=name)
        rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
        network.create_security_group_rule(security_group_id=group.id, **rule)
        net = network.create_network(name=name)
        subnet = network.create_subnet(name=name, network_id=net.id, ip_version=4, cidr="10.94.0.0/24")
        outside = network.find_network("public")
        router = network.create_router(name=name, external_gateway_info={"network_id": outside.id})
        network.add_interface_to_router(router, subnet_id=subnet.id)

        def create(number: int) -> Any:
            # each call looks up what it is given by name
            image, flavor, where = connection.image.find_image("tiny"), compute.find_flavor("small"), network.find_network(name)
            wanted = {"image_id": image.id, "flavor_id": flavor.id, "networks": [{"uuid": where.id}], "key_name": name}
            server = compute.create_server(name=f"{name}-{number}", security_groups=[{"name": name}], **wanted)
            return compute.wait_for_server(server, wait=900)

        def delete(server: Any) -> None:
            compute.delete_server(server)
            compute.wait_for_delete(server, wait=900)

        threads = ThreadPoolExecutor(at_once)
        made = list(threads.map(create, range(servers)))
        address = network.create_ip(floating_network_id=outside.id)
        port = next(iter(network.ports(device_id=made[0].id)))
        network.update_ip(address, port_id=port.id)
        network.delete_ip(address)
        list(threads.map(delete, made))
        network.remove_interface_from_router(router, subnet_id=subnet.id)
        network.delete_router(router)
        network.delete_network(net)
        network.delete_security_group(group)
        compute.delete_keypair(key)


def _noticed(place: Ground, compute: proxies.Proxy, servers: int) -> tuple[list[float], float]:
    """Seconds from the moment from which Nova would say that a server is ACTIVE until we tell so, of each; lists a second in that time.

    Nova's pretended servers become ACTIVE at once. In what it answers they are still building until moments drawn beforehand.
    """
    moments: dict[str, float] = {}
    looks: list[float] = []

    def change(method: str, path: str, status: int, body: bytes) -> tuple[int, bytes]:
        if method != "GET" or "/servers/detail" not in path:
            return status, body
        now = time.monotonic()
        looks.append(now)
        return status, proxies.with_servers(body, lambda server: _building(server, moments, now))

    async def work() -> list[float]:
        environment = _experiment(place, servers)
        told: dict[str, float] = {}

        def listen(event: Any) -> None:
            if event.state == "ACTIVE" and event.resource:
                told.setdefault(event.resource, time.monotonic())

        try:
            await environment.up(listen=listen)
        finally:
            compute.quiet()
            await environment.down(force=True)
            environment.close()
        return [told[node] - moment for node, moment in moments.items()]

    compute.change = change
    late = asyncio.run(work())
    waiting = [look for look in looks if look <= max(moments.values())]
    return late, (len(waiting) - 1) / (waiting[-1] - waiting[0])


def _building(server: dict[str, Any], moments: dict[str, float], now: float) -> dict[str, Any]:
    node = server["metadata"].get("wardian-node", "")
    if server["status"] == "ACTIVE" and now < moments.setdefault(node, now + random.uniform(*BOOT)):
        return {**server, "status": "BUILD"}
    return server
