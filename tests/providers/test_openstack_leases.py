"""What reservations are made of, without a cloud: expressions, the calendar, what the plan says, and where a lease comes in it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wardian.errors import PlanError, SelectorError
from wardian.experiment import file
from wardian.experiment.plan import reconcile
from wardian.experiment.resources import Observed, ObservedResource, Resource
from wardian.providers.openstack import OpenStackSettings, budget, leases, reserve, slots
from wardian.providers.openstack.calendar import Need, enough, windows
from wardian.providers.openstack.properties import matching, parse, to_blazar
from wardian.providers.openstack.reserve import Rates, Reserve

DURATION = 20
PAGE = Path(__file__).parents[2] / "docs" / "leases.md"


def node(name: str, group: str, index: int | None) -> Resource:
    spec = {"hostname": name, "group": group, "index": index, "roles": [], "interfaces": [], "cpus": None, "memory": None}
    return Resource("node", name, spec)


def resources(lease: dict[str, Any] | None = None) -> list[Resource]:
    spec = {"name": "study", "lease": lease or {"duration": 7200.0, "at_end": "down"}, "names": ["client", "server"]}
    return [Resource("environment", "study", spec), node("server", "server", None), *(node(f"client[{i}]", "client", i) for i in range(3))]


def planned(**given: Any) -> list[Resource]:
    return leases.planned(Reserve(**given), "site", resources(), Observed())


def lease_of(found: list[Resource]) -> dict[str, Any]:
    return dict(next(item.spec for item in found if item.kind == "lease"))


hosts = st.sampled_from("abcd")
periods = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 30)).map(lambda item: (item[0], item[0] + item[1])), max_size=3)
needs = st.lists(st.builds(Need, st.integers(1, 2), st.frozensets(hosts, min_size=1)), min_size=1, max_size=3)


@given(needs, st.dictionaries(hosts, periods))
def test_the_calendar_is_as_if_each_minute_were_tried(needs: list[Need], held: dict[str, list[tuple[int, int]]]) -> None:
    """A minute is in a window just where enough hosts are free from it for the whole duration; windows are in order, and none touch."""
    found = windows(needs, held, DURATION, (0, 120))
    free_at = {
        minute: {host for host in "abcd" if all(end <= minute or minute + DURATION <= start for start, end in held.get(host, ()))}
        for minute in range(120)
    }
    assert [minute for minute in range(120) if any(first <= minute <= last for first, last in found)] == [
        minute for minute, free in free_at.items() if enough(needs, free)
    ]
    assert all(first <= last for first, last in found)
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(found))


@given(needs, st.sets(hosts))
def test_no_host_serves_two(needs: list[Need], free: set[str]) -> None:
    """Needs can be met together just where each set of them has at least as many hosts as they ask for (Hall's theorem)."""
    wanted = [need.hosts & free for need in needs for _ in range(need.count)]
    subsets = ([item for bit, item in enumerate(wanted) if number >> bit & 1] for number in range(1, 2 ** len(wanted)))
    assert enough(needs, free) == all(len(frozenset().union(*subset)) >= len(subset) for subset in subsets)


def test_expressions() -> None:
    """What people write is what Blazar gets, and picks the same hosts here; what it does not know is refused with what it does."""
    text = "node_type == compute_skylake and memory_mb >= 65536 and gpu.count != '0'"
    assert json.loads(to_blazar(parse(text))) == [
        "and",
        ["==", "$node_type", "compute_skylake"],
        [">=", "$memory_mb", "65536"],
        ["!=", "$gpu.count", "0"],
    ]
    assert (to_blazar(parse(" ")), json.loads(to_blazar(parse("a=b")))) == ("", ["==", "$a", "b"])
    large = {"node_type": "compute_skylake", "memory_mb": 131072, "gpu.count": "2"}
    assert matching(parse(text), large)
    assert not matching(parse(text), {**large, "memory_mb": 9000})
    assert not matching(parse(text), {**large, "gpu.count": None})
    for wrong in ("a == b or c == d", "a ==", "node_type", "(a == b)", "a == b c == d"):
        with pytest.raises(ValidationError, match="joined by `and`"):
            Reserve.model_validate({"hosts": [{"properties": wrong}]})


def test_when_it_starts() -> None:
    """A time is taken as UTC unless it says otherwise, and settings read back from an environment are the same."""
    assert Reserve(start="2026-12-01 09:00").start == "2026-12-01 09:00"
    assert Reserve(start="2026-12-01T09:00:00+02:00").start == "2026-12-01 07:00"
    with pytest.raises(ValidationError, match="now, first-free, or a time"):
        Reserve(start="soon")
    settings = OpenStackSettings.model_validate(
        {"reserve": {"start": "first-free", "hosts": [{"on": "client"}], "gap": "5min"}, "rates": {"host": 1}}
    )
    assert OpenStackSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_nodes_say_where_they_are() -> None:
    """Each node is in the reservation that picks it; a lease has as many hosts as nodes unless told; nobody is in two."""
    found = planned(
        hosts=[{"on": "client", "count": 1}], instances=[{"on": "server", "cpus": 2, "memory": 2**30}], floating_ips={"public": 1}
    )
    assert {item.name: item.spec["reservation"] for item in found if item.kind == "node"} == {
        "server": 1,
        **{f"client[{i}]": 0 for i in range(3)},
    }
    assert lease_of(found)["counts"] == [1, 1, 1]
    assert lease_of(planned(hosts=[{"on": "client"}]))["counts"] == [3]
    with pytest.raises(PlanError, match=r"client\[0\] is in two reservations"):
        planned(hosts=[{"on": "client"}, {"on": "all"}])
    with pytest.raises(SelectorError, match="clients"):
        planned(hosts=[{"on": "clients"}])
    bare = [Resource("environment", "study", {"lease": None}), *resources()[1:]]
    with pytest.raises(PlanError, match=r"lease: \{duration"):
        leases.planned(Reserve(hosts=[{"on": "all"}]), "site", bare, Observed())
    assert leases.planned(None, "site", bare, Observed()) == bare


def test_a_lease_in_the_plan() -> None:
    """It comes before the nodes in it, which are made anew with it; one that stands keeps its start, whatever the file says later."""
    wanted = planned(hosts=[{"on": "client"}], start="first-free")
    made = reconcile(wanted, Observed(), None)
    assert str(made).splitlines()[:4] == [
        "+ environment study  (new)",
        "+ lease       site  (new)",
        "+ node        server, client[0:3]  (new)",
        "",
    ]
    there = [ObservedResource(item.kind, item.name, item.spec) for item in wanted]
    again = leases.planned(Reserve(hosts=[{"on": "client"}], start="now"), "site", resources(), Observed.collect(None, there))
    assert not reconcile(again, Observed.collect(None, there), None)

    ended = [
        ObservedResource(item.kind, item.name, item.spec, "stopped", "its lease is TERMINATED") if item.kind == "lease" else item
        for item in there
    ]
    assert str(reconcile(wanted, Observed.collect(None, ended), None)).splitlines()[:4] == [
        "- node        client[0:3]  (remade with lease site)",
        "- lease       site  (no longer running: its lease is TERMINATED)",
        "+ lease       site  (no longer running: its lease is TERMINATED)",
        "+ node        client[0:3]  (remade with lease site)",
    ]


def test_what_it_costs() -> None:
    """Node-hours are nodes times hours, money is by the site's rates; without a lease it is by the hour."""
    found = planned(hosts=[{"on": "client", "count": 2, "properties": "node_type == compute"}], floating_ips={"public": 1})
    rates = Rates(host=1.5, floating_ip=0.25, flavors={"small": 0.1}, currency="SU")
    assert budget.costs(found, {"server": "small"}, rates) == [
        "2 hosts (node_type == compute), 1 address of public: 4 node-hours in 2h, 6.5 SU",
        "1 server (small): 2 node-hours in 2h, 0.2 SU",
        "in all 6.7 SU",
    ]
    bare = [Resource("environment", "study", {"lease": None}), *resources()[1:]]
    assert budget.costs(bare, {"server": "small", "client[0]": "small"}, None) == [
        "2 servers (small): 2 node-hours an hour, until `wardian down`"
    ]


def test_over_a_quota() -> None:
    """All that is over is told with its figures; what is removed makes room, and what is not limited is not asked for."""
    made = reconcile(resources(), Observed(), None)
    needed = budget.needed(made, OpenStackSettings(access="shared", floating=False), lambda item: (2, 512))
    assert (needed["servers"], needed["cpus"], needed["MiB of memory"], needed["ports"]) == (4, 8, 2048, 4)
    way = budget.needed(made, OpenStackSettings(), lambda item: (2, 512)) - needed
    assert way == {"networks": 1, "subnets": 1, "routers": 1, "ports": 1, "floating IPs": 1}
    budget.check(needed, {"servers": (4, 0), "cpus": (10, 2)}, "site")
    with pytest.raises(PlanError) as caught:
        budget.check(needed, {"servers": (10, 7), "cpus": (6, 6), "networks": (0, 0)}, "site")
    assert caught.value.message.splitlines()[1:] == [
        "  servers: 4 more are needed, 3 are left of 10",
        "  cpus: 8 more are needed, 0 are left of 6",
    ]


def test_hosts_that_room_for_servers_takes() -> None:
    """Servers fill hosts by the scarcest of what they need; apart, each takes a host; a host too small takes none."""
    two = [{"id": "1", "vcpus": 8, "memory_mb": 4096, "local_gb": 100}, {"id": "2", "vcpus": 1, "memory_mb": 4096, "local_gb": 100}]
    item = {"type": "instance", "properties": "", "cpus": 2, "memory": 2**30, "disk": 2**30, "apart": False}
    assert slots.wanted([item], [5], two) == [Need(2, frozenset("1"))]
    assert slots.wanted([{**item, "apart": True}], [5], two) == [Need(5, frozenset("1"))]


def test_the_page_on_leases() -> None:
    """Its examples are an experiment whose settings hold and a part of `reserve`, and it leaves no field out."""
    text = PAGE.read_text(encoding="utf-8")
    example, networks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    part = OpenStackSettings.model_validate(file.loads(f"name: part\nnodes: {{server: }}\n{networks}").settings).reserve
    assert part is not None
    assert list(part.networks) == ["lan", "storage", "other"]
    experiment = file.loads(example)
    settings = OpenStackSettings.model_validate(experiment.settings)
    assert settings.reserve is not None
    assert "20 node-hours in 4h, 20 SU" in text
    parts = (reserve.Reserve, reserve.Hosts, reserve.Instances, reserve.Segment, reserve.Rates)
    assert [name for part in parts for name in part.model_fields if not re.search(rf"`{name}[`:]", text)] == []
