"""Leases against the testbed's Blazar: `scripts/openstack-testbed start`. Its second host is reserved here, by one test at a time."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest
from keystoneauth1.adapter import Adapter
from openstack_testbed.layout import Layout

from wardian.aio import Environment
from wardian.environment import keeper
from wardian.errors import PlanError, ProviderError

from .proxy import Proxy, failure, proxied

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

HOST = "host-1"


@pytest.fixture
def proxy(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands before Blazar, in the cloud `proxied` of a clouds.yaml."""
    path = tmp_path / "clouds.yaml"
    with proxied(layout, path, {"reservation": "/v1"}) as proxies:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
        yield proxies["reservation"]


class Stage:
    """Experiments in a folder, and the cloud past them."""

    def __init__(self, folder: Path, admin: Any) -> None:
        self.folder, self.admin = folder, admin
        self.cloud = openstack.connect(cloud="testbed")
        self.blazar = Adapter(self.cloud.session, "reservation", interface="public", region_name="testbed")
        self.made: list[Environment] = []

    def experiment(self, name: str, *, lease: str = "{duration: 1h}", nodes: str = "{inside: }", **settings: Any) -> Environment:
        """One with a name that nobody else has."""
        name = f"{name}-{secrets.token_hex(2)}"
        whole = {"cloud": "proxied", "image": "tiny", "flavor": "small", "external": "public", "ready": "active", **settings}
        path = self.folder / f"{name}.yaml"
        path.write_text(f"name: {name}\nprovider: openstack\nsettings: {json.dumps(whole)}\nnodes: {nodes}\nlease: {lease}\n")
        self.made.append(Environment(path))
        return self.made[-1]

    def leases(self, environment: Environment) -> list[dict[str, Any]]:
        found = self.blazar.get("/leases").json()["leases"]
        return [item for item in found if environment.file.stem in item["name"]]

    def hosts_of(self, environment: Environment) -> dict[str, str]:
        found = self.admin.compute.servers(all_projects=True)
        return {item.metadata["wardian-node"]: item.hypervisor_hostname for item in found if environment.file.stem in item.name}


@pytest.fixture
async def stage(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder, and a cloud with the proxy before its Blazar."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    stage = Stage(tmp_path, openstack.connect(cloud="testbed-admin"))
    yield stage
    proxy.quiet()
    for environment in stage.made:
        await environment.down(force=True)
        environment.close()
    stage.cloud.close()
    stage.admin.close()


@pytest.fixture
def outside(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A network whose addresses Blazar has in its hands: made by the administrator, and removed after all that is leased."""
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(layout.clouds))
    admin = openstack.connect(cloud="testbed-admin")
    network = admin.network.create_network(name=f"outside-{secrets.token_hex(2)}", is_router_external=True)
    reservation = Adapter(admin.session, "reservation", interface="public", region_name="testbed")
    address = ""
    try:
        pool = [{"start": "198.51.100.10", "end": "198.51.100.99"}]
        admin.network.create_subnet(
            network_id=network.id, name=network.name, ip_version=4, cidr="198.51.100.0/24", is_dhcp_enabled=False, allocation_pools=pool
        )
        asked = {"floating_network_id": network.id, "floating_ip_address": "198.51.100.200"}
        address = reservation.post("/floatingips", json=asked).json()["floatingip"]["id"]
        yield network.name
    finally:
        if address:
            reservation.delete(f"/floatingips/{address}", raise_exc=False)
        admin.network.delete_network(network.id)
        admin.close()


def whole(host: str = HOST, **more: Any) -> dict[str, Any]:
    """Settings that reserve a host for the node `inside`."""
    return {"hosts": [{"on": "inside", "properties": f"hypervisor_hostname == {host}"}], **more}


def told(into: list[str]) -> Callable[[Any], None]:
    """A listener that keeps the states of leases."""
    return lambda event: into.append(event.state) if event.operation.kind == "lease" and event.resource else None


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    while not await done():
        await asyncio.sleep(1)


def minute(text: str) -> float:
    return time.mktime(time.strptime(text[:16], "%Y-%m-%dT%H:%M")) - time.timezone


async def test_a_lease_and_those_after_it(outside: str, stage: Stage) -> None:
    """Reserved nodes are on the host that is held, others are not; it ends when told to; who comes after waits, or is told until when."""
    nodes = "{inside: {count: 2}, beside: }"
    reserve = whole(floating_ips={outside: 1}) | {"hosts": [{**whole()["hosts"][0], "count": 1}]}
    first = stage.experiment("first", nodes=nodes, external=outside, reserve=reserve)
    plan = await first.plan()
    assert "+ lease       proxied  (new)" in str(plan)
    assert f"1 host (hypervisor_hostname == {HOST}), 1 address of {outside}: 1 node-hour in 1h" in str(plan)
    states: list[str] = []
    await first.up(listen=told(states))
    assert (states[0], states[-1]) == ("asking for it", "ready")
    assert stage.hosts_of(first) == {"inside[0]": HOST, "inside[1]": HOST, "beside": "host-0"}
    (address,) = (item for item in stage.cloud.network.ips() if first.file.stem in item.description)
    assert (address.floating_ip_address, "blazar" in address.tags, bool(address.port_id)) == ("198.51.100.200", True, True)
    assert not await first.plan()
    (lease,) = stage.leases(first)
    live = await first.live()
    assert live.lease == {"end": minute(lease["end_date"]), "at_end": "down"}

    assert await first.extend_lease("30min") == minute(lease["end_date"]) + 1800
    assert await first.shrink_lease("50min") == minute(lease["end_date"]) - 1200
    (lease,) = stage.leases(first)
    assert live.lease["end"] - minute(lease["end_date"]) == 1200
    assert "lease changed" in str(await first.plan())

    second = stage.experiment("second", reserve=whole())
    at = lease["end_date"][:16].replace("T", " ")
    with pytest.raises(ProviderError, match=rf"Not enough hosts available \(500\); request req-.*\n.*next free slot starts {at} UTC"):
        await second.up()
    assert stage.leases(second) == []
    (site,) = await second.slots()
    assert (site.site, site.first, site.slots and site.slots.there) == ("openstack", minute(lease["end_date"]), 1)

    third = stage.experiment("third", reserve=whole(start="first-free"))
    states.clear()
    growing = asyncio.create_task(third.up(listen=told(states)))
    await until(lambda: _has(states, f"PENDING, starts {at} UTC"))
    growing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await growing
    (pending,) = stage.leases(third)
    assert "lease" not in [item.kind for item in (await third.plan()).operations]
    with pytest.raises(ProviderError, match=rf"Others hold its hosts from {at} UTC on"):
        await first.extend_lease("30min")
    assert [item["end_date"] for item in stage.leases(first)] == [lease["end_date"]]
    await third.down()
    assert (pending["status"], stage.leases(third)) == ("PENDING", [])

    await first.down()
    assert (stage.leases(first), stage.hosts_of(first)) == ([], {})
    assert list(stage.cloud.network.ips(tags=["blazar"])) == []


async def _has(states: list[str], state: str) -> bool:
    return state in states


async def test_room_for_servers(stage: Stage) -> None:
    """A server in a reservation of instances has its size, and is where the room is held; over a quota, the plan says by how much."""
    room = {"instances": [{"on": "inside", "cpus": 2, "memory": "1GiB", "disk": "1GiB", "properties": f"hypervisor_hostname == {HOST}"}]}
    experiment = stage.experiment("room", reserve=room)
    await experiment.up()
    assert stage.hosts_of(experiment) == {"inside": HOST}
    (server,) = (item for item in stage.cloud.compute.servers() if experiment.file.stem in item.name)
    assert (server.flavor["vcpus"], server.flavor["ram"]) == (2, 1024)
    many = stage.experiment("many", nodes="{inside: {count: 600}}", reserve=room)
    with pytest.raises(PlanError, match=r"servers: 600 more are needed, \d+ are left of 500\n.*cpus: 1200 more are needed"):
        await many.plan()


async def test_requests_that_go_wrong(stage: Stage, proxy: Proxy) -> None:
    """An answer that is lost makes no second lease; a failure is told with the service's reason; what went into ERROR is replaced."""
    experiment = stage.experiment("faults", reserve=whole())
    proxy.change = lambda method, path, status, body: (
        failure("out of order") if (method, path) == ("POST", "/v1/leases") else (status, body)
    )
    proxy.before = lambda method, path: failure("out of order") if (method, path) == ("POST", "/v1/leases") else None
    with pytest.raises(ProviderError, match=r"lease proxied: out of order \(500\)\n.*Run the command again"):
        await experiment.up()
    assert stage.leases(experiment) == []

    proxy.quiet()
    proxy.change = lambda method, path, status, body: None if method == "POST" else (status, in_error(body))
    with pytest.raises(
        ProviderError, match=r"is ERROR: start_lease failed; a reservation of physical:host is in error\n.*asks for a new one"
    ):
        await experiment.up()
    (lease,) = stage.leases(experiment)
    assert [item for item in proxy.asked if item[0] == "POST"] == [("POST", "/v1/leases")] * 2

    refused = [failure("Invalid lease status.")] * 2
    proxy.change = lambda method, path, status, body: (status, in_error(body, lease["id"]))
    proxy.before = lambda method, path: refused.pop() if method == "DELETE" and refused else None
    plan = await experiment.up()
    assert "- lease       proxied  (no longer running: it is in ERROR: start_lease failed" in str(plan)
    (again,) = stage.leases(experiment)
    assert again["id"] != lease["id"]
    assert refused == []

    proxy.quiet()
    proxy.before = lambda method, path: failure("Policy doesn't allow it", 403) if "os-hosts" in path else None
    (site,) = await experiment.slots()
    assert "does not show its hosts to users" in site.error


def in_error(body: bytes, only: str | None = None) -> bytes:
    """Leases as they are told of once their start failed."""
    said = json.loads(body or b"{}")
    for lease in said.get("leases", []):
        if only in (None, lease["id"]):
            lease["status"] = "ERROR"
            for reservation in lease["reservations"]:
                reservation["status"] = "error"
            for event in lease["events"]:
                event["status"] = "ERROR" if event["event_type"] == "start_lease" else event["status"]
    return json.dumps(said).encode()


async def test_killed_while_it_asks(stage: Stage, proxy: Proxy) -> None:
    """A process that is killed after its request, and before it hears of it, leaves a lease that the next one takes."""
    experiment = stage.experiment("killed", reserve=whole())
    made, heard = threading.Event(), threading.Event()

    def holding(method: str, path: str, status: int, body: bytes) -> tuple[int, bytes] | None:
        if method == "POST":
            made.set()
            heard.wait(300)
        return status, body

    proxy.change = holding
    command = [sys.executable, "-m", "wardian", "up", "-f", str(experiment.file)]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    assert await asyncio.to_thread(made.wait, 300)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    heard.set()
    proxy.quiet()
    (lease,) = stage.leases(experiment)
    await experiment.up()
    assert [item["id"] for item in stage.leases(experiment)] == [lease["id"]]
    assert stage.hosts_of(experiment) == {"inside": HOST}


async def test_servers_that_nobody_reserved_end_too(stage: Stage) -> None:
    """Without a reservation the keeper ends an environment at the end of its lease; with no keeper left, `wardian gc` does."""
    kept, left = (stage.experiment(name, lease="{duration: 30s}") for name in ("kept", "left"))
    await left.up()
    identity = (await left.observe()).environment
    assert identity is not None
    answer = await keeper.request(identity.id, {"op": "look"})
    assert answer is not None
    os.kill(answer["pid"], signal.SIGKILL)
    await kept.up()
    await until(lambda: _gone(stage, kept))
    if stage.hosts_of(left):
        command = [sys.executable, "-m", "wardian", "gc"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, cwd=stage.folder)
        assert done.returncode == 0, done.stderr
        assert f"removed environment {identity.id}, whose lease ended" in done.stdout
    assert stage.hosts_of(left) == {}
    endings = [item.summary for item in kept.journal.entries(kinds=["event"])]
    assert any("lease.ended" in item for item in endings)


async def _gone(stage: Stage, environment: Environment) -> bool:
    return await asyncio.to_thread(stage.hosts_of, environment) == {}
