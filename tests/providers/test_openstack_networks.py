"""Networks that are reserved, at a site that answers as Chameleon's Blazar and Neutron do: the testbed's Blazar has no plugin for them.

What that plugin takes, makes and tells is as in its source, `blazar/plugins/networks` of github.com/ChameleonCloud/blazar, and in the
documentation of the site.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wardian.errors import PlanError, ProviderError
from wardian.experiment.plan import Plan, reconcile
from wardian.experiment.resources import Capabilities, EnvironmentRecord, Observed, ObservedResource, Resource
from wardian.providers.openstack import OpenStackProvider, OpenStackSettings, blazar, budget, leases, slots
from wardian.providers.openstack.blazar import Blazar
from wardian.providers.openstack.cloud import Cloud, RefusedError, UncertainError
from wardian.providers.openstack.leases import Leases
from wardian.providers.openstack.provider import IN_PLACE
from wardian.providers.openstack.reserve import Reserve, said
from wardian.providers.ssh.index import Entry
from wardian.providers.testing import quiet

ID = "study-0123abcd"
LAN, OWN = f"wardian-{ID}-lan", f"wardian-{ID}-own"
STITCHED = {"networks": {"lan": {"properties": "stitch_provider == fabric", "description": "to Chicago"}}}
SEGMENT = {"network_type": "vlan", "physical_network": "exogeni", "segment_id": 3305, "stitch_provider": "fabric"}


class Site(Cloud):
    """A cloud with one stitchable VLAN; its requests go to itself."""

    def __init__(self, free: int = 1) -> None:
        super().__init__(OpenStackSettings())
        self.free, self.works, self.asked = free, True, list[str]()
        self.leases: list[dict[str, Any]] = []
        self.lists: dict[str, list[Any]] = {"networks": [], "subnets": [], "ports": [], "routers": []}
        self.network = self.compute = self

    def _connected(self) -> Any:
        return self

    # Blazar

    def get_endpoint(self) -> str:
        return "https://site.example/v1"

    def request(self, path: str, method: str, **options: Any) -> Any:
        kind, _, which = path.removeprefix("/").partition("/")
        answer: Callable[..., tuple[int, Any]] = getattr(self, f"{method.lower()}_{kind.replace('-', '_')}")
        status, body = answer(*([which] if which else []), *([options["json"]] if "json" in options else []))
        headers: dict[str, str] = {}
        return SimpleNamespace(status_code=status, headers=headers, content=b"{}", json=lambda: body)

    def get_leases(self) -> tuple[int, Any]:
        # of a network's reservation nothing is told but what all have
        return 200, {"leases": self.leases}

    def get_os_hosts(self, part: str = "") -> tuple[int, Any]:
        return 200, {"allocations": []} if part else {"hosts": []}

    def post_leases(self, asked: dict[str, Any]) -> tuple[int, Any]:
        reservations: list[dict[str, Any]] = []
        for number, item in enumerate(asked["reservations"]):
            common = {"id": f"r{number}", "resource_type": item["resource_type"], "status": "active", "missing_resources": False}
            if item["resource_type"] != "network":
                reservations.append({**item, **common})
                continue
            if lacking := {"network_name", "network_properties", "resource_properties"} - set(item):
                return 400, {"error_message": f"Missing parameter {','.join(lacking)}"}
            sign, key, value = json.loads(item["resource_properties"])
            if sign != "==" or str(SEGMENT[key.removeprefix("$")]) != value or not self.free:
                return 500, {"error_message": "Not enough networks available"}
            self.free -= 1
            reservations.append(common)
            if self.works:
                self.create_network(item["network_name"], item["network_description"], lease=True)
        now = int(time.time()) // 60
        dates = {"start_date": said(now), "end_date": asked["end_date"]}
        # in no order
        lease = {"id": "l1", "name": asked["name"], "status": "ACTIVE", **dates, "reservations": reservations[::-1]}
        self.leases.append(lease)
        return 201, {"lease": lease}

    def delete_leases(self, which: str) -> tuple[int, Any]:
        self.asked.append("delete lease")
        for network in [item for item in self.lists["networks"] if item.lease]:
            # it takes routers off them, and nothing else
            if any(port.network_id == network.id and not port.device_owner for port in self.lists["ports"]):
                return 500, {"error_message": f"Failed to delete network {network.id}"}
            self._remove("networks", network.id)
            self.free += 1
        self.leases = [item for item in self.leases if item["id"] != which]
        return 200, {}

    # Neutron

    def _make(self, kind: str, **given: Any) -> Any:
        made = SimpleNamespace(id=f"{kind}-{time.monotonic_ns()}", created_at="", device_owner="", device_id="", **given)
        self.lists[kind].append(made)
        return made

    def _remove(self, kind: str, which: str) -> None:
        self.lists[kind] = [item for item in self.lists[kind] if item.id != which]

    def _listed(self, kind: str, given: Mapping[str, Any]) -> list[Any]:
        return [item for item in self.lists[kind] if all(getattr(item, key) == value for key, value in given.items())]

    def networks(self, **given: Any) -> list[Any]:
        return self._listed("networks", given)

    def subnets(self, **given: Any) -> list[Any]:
        return self._listed("subnets", given)

    def ports(self, **given: Any) -> list[Any]:
        return self._listed("ports", given)

    def routers(self, **given: Any) -> list[Any]:
        return self._listed("routers", given)

    def none(self, **_: Any) -> list[Any]:
        return []

    security_groups = ips = servers = keypairs = none

    def create_network(self, name: str, description: str, *, lease: bool = False) -> Any:
        return self._make("networks", name=name, description=description, subnet_ids=[], lease=lease)

    def update_network(self, network: Any, mtu: int) -> Any:
        network.mtu = mtu
        return network

    def create_subnet(self, *, network_id: str, name: str, **_: Any) -> Any:
        made = self._make("subnets", network_id=network_id, name=name)
        self.networks(id=network_id)[0].subnet_ids = [made.id]
        return made

    def create_router(self, name: str, description: str) -> Any:
        return self._make("routers", name=name, description=description)

    def create_port(self, *, name: str, network_id: str, fixed_ips: list[Any]) -> Any:
        return self._make("ports", name=name, network_id=network_id, fixed_ips=fixed_ips)

    def add_interface_to_router(self, router: Any, port_id: str) -> None:
        port = self.ports(id=port_id)[0]
        port.device_owner, port.device_id = "network:router_interface", router.id

    def remove_interface_from_router(self, router: str, subnet: None, port: str) -> None:
        self._remove("ports", port)

    def delete_port(self, which: str) -> None:
        self._remove("ports", which)

    def delete_subnet(self, which: str) -> None:
        self.asked.append("delete subnet")
        self._remove("subnets", which)
        for network in self.lists["networks"]:
            network.subnet_ids = [item for item in network.subnet_ids if item != which]

    def delete_network(self, which: str) -> None:
        self.asked.append(f"delete network {self.networks(id=which)[0].name}")
        self._remove("networks", which)

    def delete_router(self, which: str) -> None:
        self._remove("routers", which)

    def delete_keypair(self, name: str) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """One whose Blazar is asked at once whether a lease has gone."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    monkeypatch.setattr(blazar, "_client", lambda connection: connection)
    monkeypatch.setattr(leases, "INTERVAL", 0.0)
    return Site()


def desired(**reserve: Any) -> list[Resource]:
    """An experiment of two networks, with a node on each, and what is reserved for it."""
    wired = {"hostname": "x", "group": "x", "index": None, "roles": [], "cpus": None, "memory": None}
    spec = {"name": "study", "lease": {"duration": 7200.0, "at_end": "down"}, "names": ["near", "far"]}
    network = {"gateway": "10.1.0.1", "mtu": 1450, "routes": []}
    made = [
        Resource("environment", "study", spec),
        Resource("network", "lan", {**network, "subnet": "10.1.0.0/24"}),
        Resource("network", "own", {"gateway": None, "subnet": "10.2.0.0/24", "routes": []}),
        *(
            Resource("node", node, {**wired, "hostname": node, "group": node, "interfaces": [{"network": each, "address": "10.1.0.2/24"}]})
            for node, each in (("near", "lan"), ("far", "own"))
        ),
    ]
    return leases.planned(Reserve(**{**STITCHED, **reserve}), "site", made, Observed())


def of(kind: str, resources: list[Resource]) -> list[Resource]:
    return [item for item in resources if item.kind == kind]


def planned(wanted: list[Resource], there: Observed) -> Plan:
    return reconcile(wanted, there, Capabilities(IN_PLACE))


def test_networks_in_the_plan() -> None:
    """A reserved network comes after its lease and is made anew with it, as is what is on it; others are left alone."""
    wanted = desired()
    (lease,) = of("lease", wanted)
    assert lease.spec["reservations"] == [{"type": "network", "network": "lan", **STITCHED["networks"]["lan"]}]
    made = planned(wanted, Observed())
    assert [item.kind for item in made.operations] == ["environment", "lease", "network", "node"]
    assert made.operations[1].id in made.operations[2].after
    assert budget.costs(wanted, {}, None) == ["1 network (stitch_provider == fabric): 0 node-hours in 2h"]

    there = Observed.collect(None, [ObservedResource(item.kind, item.name, item.spec) for item in wanted])
    assert not planned(wanted, there)
    other = planned(desired(networks={"lan": {"properties": "segment_id == 3306"}}), there)
    assert str(other).splitlines()[:6] == [
        "- node        near  (remade with network lan)",
        "- network     lan  (remade with lease site)",
        "- lease       site  (reservations changed)",
        "+ lease       site  (reservations changed)",
        "+ network     lan  (remade with lease site)",
        "+ node        near  (remade with network lan)",
    ]
    assert [item.after for item in other.operations[:3]] == [(), (1,), (1, 2)]
    with pytest.raises(PlanError, match=r"reserve.networks: there is no network wan\n.*Its networks are: lan, own"):
        desired(networks={"wan": {}})


def grown(site: Site, wanted: list[Resource]) -> OpenStackProvider:
    """A provider with the environment, of which nothing else is there."""
    provider = OpenStackProvider(OpenStackSettings(reserve=Reserve(**STITCHED), ready="active"))
    provider._clouds[None, None] = site
    record = EnvironmentRecord(ID, "study", "default", "f", "openstack", "u", "h", 1.0, spec=dict(wanted[0].spec))
    provider.index.write(Entry(record))
    return provider


async def state(provider: OpenStackProvider) -> dict[str, str]:
    found = await provider.observe(ID)
    return {f"{item.kind} {item.name}": item.state for item in (*found.of("lease"), *found.of("network"))}


async def test_a_reserved_network_lives_as_long_as_its_lease(site: Site) -> None:
    """The network that came with the lease gets its subnet and its router; only these are removed, and the network ends with the lease."""
    wanted = desired()
    provider = grown(site, wanted)
    await provider.create(ID, of("lease", wanted), quiet)
    assert await state(provider) == {"lease site": "ready", "network lan": "incomplete"}
    await provider.create(ID, of("network", wanted), quiet)
    assert await state(provider) == {"lease site": "ready", "network lan": "ready", "network own": "ready"}
    lan, own = sorted(site.networks(), key=lambda item: item.name)
    assert (lan.name, lan.description, lan.lease, lan.mtu) == (LAN, "to Chicago", True, 1450)
    assert (own.name, own.lease) == (OWN, False)
    assert [port.network_id for port in site.ports(device_owner="network:router_interface")] == [lan.id]

    await provider.delete(ID, [item.key for item in of("network", wanted)], quiet)
    assert sorted(site.asked) == [f"delete network {OWN}", "delete subnet"]
    assert ([item.id for item in site.networks()], site.ports()) == ([lan.id], [])
    # cut short between that and the end of its lease, it is still the lease's
    await provider.delete(ID, [("network", "lan")], quiet)
    assert site.networks() == [lan]
    await provider.delete(ID, [("lease", "site")], quiet)
    assert (site.networks(), site.leases, site.free) == ([], [], 1)

    await provider.create(ID, of("lease", wanted), quiet)
    await provider.create(ID, of("network", wanted), quiet)
    # what a killed command left on it would keep the service from removing it
    site.create_port(name=LAN, network_id=site.networks(name=LAN)[0].id, fixed_ips=[])
    site.asked.clear()
    await provider.destroy(ID, quiet)
    assert site.asked == ["delete subnet", "delete lease", f"delete network {OWN}"]
    assert (site.networks(), site.routers(), site.ports()) == ([], [], [])


async def test_a_network_whose_lease_was_refused_and_given_up_is_ours(site: Site) -> None:
    """A network that is made without a reservation is removed as others are, though one was asked for before, which nobody gave."""
    site.free = 0
    wanted = desired()
    provider = grown(site, wanted)
    with pytest.raises(ProviderError, match="Not enough networks available"):
        await provider.create(ID, of("lease", wanted), quiet)
    await provider.create(ID, [Resource("network", "lan", {"gateway": None, "subnet": "10.1.0.0/24", "routes": []})], quiet)
    await provider.delete(ID, [("network", "lan")], quiet)
    assert site.asked == [f"delete network {LAN}"]


async def test_what_a_site_has_not(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no network is left, none is there though its lease is ACTIVE, or none are reserved at all, the error says what to do."""
    wanted = desired(hosts=[{"on": "near"}])
    (lease,) = of("lease", wanted)
    work = Leases(site, ID, Reserve(**STITCHED), quiet)
    site.works = False
    await work.create(lease)
    # its reservations are known apart, though nothing is told of the network
    placing = await work.placing(of("node", wanted), {lease.key: lease})
    assert placing == {"near": {"scheduler_hints": {"reservation": "r0"}}}
    provider = grown(site, wanted)
    provider._remember(ID, [lease])
    with pytest.raises(ProviderError, match=rf"network lan: its lease is ACTIVE, and there is no network {LAN}\n.*asks for another"):
        await provider.create(ID, of("network", wanted), quiet)

    site.leases.clear()
    with pytest.raises(ProviderError, match=r"Not enough networks available \(500\)\n.*others by their `properties`.*no calendar"):
        await work.create(lease)
    found = await slots.find(Blazar(site), desired()[-1].spec)
    assert found.needs == "1 network (stitch_provider == fabric); of networks there is no calendar"

    refusal = 500, {"error_message": "The network resource type is not supported"}
    monkeypatch.setattr(Site, "post_leases", lambda self, asked: refusal)
    with pytest.raises(RefusedError, match=r"not supported \(500\)\n.*Leave it out of `reserve`") as caught:
        await work.create(lease)
    # nobody waits for a lease that may still show
    assert not isinstance(caught.value, UncertainError)
