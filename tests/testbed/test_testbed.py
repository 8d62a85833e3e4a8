"""The OpenStack of scripts/openstack-testbed as a whole: one that is made here, on ports of its own. Minutes, and 3 GiB of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openstack_testbed import packages
from openstack_testbed.layout import Layout, default_folder, existing
from openstack_testbed.setting_up import Api

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(3600)]

PROGRAM = Path(packages.__file__).parents[1] / "openstack-testbed"
PORT = 21750


def command(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([PROGRAM, "--folder", folder, *arguments], capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def status(folder: Path, code: int = 0) -> Any:
    return json.loads(command(folder, "status", "--json", code=code))


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """One that runs; it uses what is installed already."""
    installed = default_folder() / "blazar"
    if packages.missing() or not packages.has_blazar(installed):
        if os.environ.get("WARDIAN_REQUIRE_ALL"):
            pytest.fail("run `scripts/openstack-testbed install` first")
        pytest.skip("needs `scripts/openstack-testbed install`")
    folder = tmp_path_factory.mktemp("openstack") / "testbed"
    folder.mkdir(mode=0o700)
    (folder / "blazar").symlink_to(installed)
    try:
        command(folder, "start", "--port", str(PORT))
        layout = existing(folder)
        assert layout is not None
        yield layout
    finally:
        command(folder, "remove")
        assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and carries(int(pid), folder)]


def carries(pid: int, folder: Path) -> bool:
    """Whether a process has anything to do with a folder."""
    try:
        return str(folder).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def until(done: Callable[[], bool], timeout: float = 600) -> None:
    end = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < end
        time.sleep(1)


def test_it_listens_on_loopback_alone(testbed: Layout) -> None:
    """Nothing of it can be reached from another machine, and no password is an argument of a process."""
    pids = [pid for service in status(testbed.folder)["services"] for pid in service["processes"]]
    listed = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    listening = [line.split()[3] for line in listed if any(f"pid={pid}," in line for pid in pids)]
    assert {address.rpartition(":")[0] for address in listening} <= {"127.0.0.1", "[::1]"}
    assert {int(address.rpartition(":")[2]) for address in listening} == set(range(PORT, PORT + 10))
    shown = " ".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)
    assert not any(password in shown for password in testbed.passwords.values())


def test_servers_and_hosts_to_reserve(testbed: Layout) -> None:
    """A server gets the address of its port and becomes ACTIVE; a lease of a host does, too; both can be ended."""
    api = Api(testbed)
    network = api.ensure("network", "/v2.0/networks", "network", {"name": "garden"})
    subnet = api.ensure(
        "network", "/v2.0/subnets", "subnet", {"name": "garden", "network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24"}
    )
    fixed = [{"subnet_id": subnet, "ip_address": "10.9.0.7"}]
    port = api.ensure("network", "/v2.0/ports", "port", {"name": "fern", "network_id": network, "fixed_ips": fixed})
    image = api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
    wanted = {"name": "fern", "flavorRef": "small", "imageRef": image, "networks": [{"port": port}]}
    server = api.post("compute", "/v2.1/servers", {"server": wanted})["server"]["id"]
    until(lambda: api.get("compute", f"/v2.1/servers/{server}")["server"]["status"] != "BUILD")
    found = api.get("compute", f"/v2.1/servers/{server}")["server"]
    assert (found["status"], found["addresses"]["garden"][0]["addr"]) == ("ACTIVE", "10.9.0.7")
    api.call("DELETE", "compute", f"/v2.1/servers/{server}")
    until(lambda: not api.get("compute", "/v2.1/servers")["servers"])

    day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(time.time() + 86400))
    host = {"resource_type": "physical:host", "min": 1, "max": 1, "hypervisor_properties": "", "resource_properties": ""}
    asked = {"name": "garden", "start_date": "now", "end_date": day, "reservations": [host], "events": []}
    lease = api.post("reservation", "/v1/leases", asked)["lease"]["id"]
    until(lambda: api.get("reservation", f"/v1/leases/{lease}")["lease"]["status"] == "ACTIVE")
    api.call("DELETE", "reservation", f"/v1/leases/{lease}")
    until(lambda: not api.get("reservation", "/v1/leases")["leases"])


def test_it_is_started_and_stopped_again(testbed: Layout) -> None:
    """Starting what runs starts just what has died since; what was stopped comes back, with what was in it."""
    before = {item["service"]: item["processes"] for item in status(testbed.folder)["services"]}
    for pid in before["glance"]:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not status(testbed.folder, code=3)["running"])
    command(testbed.folder, "start", "--port", str(PORT))
    after = {item["service"]: item["processes"] for item in status(testbed.folder)["services"]}
    assert {name for name in before if not set(before[name]) & set(after[name])} == {"glance"}
    networks = {item["name"] for item in Api(testbed).get("network", "/v2.0/networks")["networks"]}
    command(testbed.folder, "stop")
    assert {item["state"] for item in status(testbed.folder, code=3)["services"]} == {"stopped"}
    command(testbed.folder, "start", "--port", str(PORT))
    assert {item["name"] for item in Api(testbed).get("network", "/v2.0/networks")["networks"]} == networks >= {"public"}
