"""Plans as people read them: what is wanted against what exists."""

import copy
import time
from textwrap import dedent

import pytest

from wardian.experiment import file
from wardian.experiment.plan import Plan, compact, reconcile
from wardian.experiment.resources import Capabilities, Caveat, Observed, ObservedResource, Resource
from wardian.experiment.topology import expand

TEXT = """
name: study
networks: [east, west]
links:
  wan: {between: [east, west], delay: 30ms, rate: 10mbit, queue: 100}
nodes:
  server: {networks: [east], files: {serve.py: /srv/serve.py}}
  client: {count: 4, networks: [west]}
services:
  web: {on: server, command: [python3, /srv/serve.py], ready: {port: 80}}
"""
IN_PLACE = Capabilities(frozenset({("link", "there"), ("link", "back"), ("names", "tables"), ("node", "memory")}))


def desired(text: str = TEXT, observed: Observed | None = None) -> list[Resource]:
    experiment = file.loads(text)
    return [Resource("environment", "study", {"name": "study", "lease": None}), *expand(experiment, observed, {"serve.py": "0" * 64})]


def existing(resources: list[Resource], **states: str) -> Observed:
    return Observed.collect(
        None, [ObservedResource(item.kind, item.name, copy.deepcopy(dict(item.spec)), states.get(item.name, "ready")) for item in resources]
    )


def text(plan: Plan) -> str:
    return "\n".join(line.rstrip() for line in plan.text().splitlines())


def expected(block: str) -> str:
    return dedent(block).strip()


def test_everything_is_new():
    """Without an environment, everything is created, from networks to services."""
    assert text(reconcile(desired(), Observed())) == expected("""
        + environment study  (new)
        + network     east, west  (new)
        + node        server, client[0:4]  (new)
        + link        wan  (new)
        + names       hosts  (new)
        + files       server  (new)
        + service     web@server  (new)

        12 to create, 0 to change, 0 to delete
    """)


def test_nothing_to_do():
    """An environment that is as the file says needs nothing."""
    plan = reconcile(desired(), existing(desired()))
    assert not plan
    assert text(plan) == "Nothing to do: the environment is as the file says."


def test_a_delay_changes_in_place():
    """Another delay in the file changes just that link."""
    observed = existing(desired())
    plan = reconcile(desired(TEXT.replace("30ms", "80ms"), observed), observed, IN_PLACE)
    assert text(plan) == expected("""
        ~ link        wan  (there: delay 30ms -> 80ms, back: delay 30ms -> 80ms)

        0 to create, 1 to change, 0 to delete
    """)


def test_a_provider_that_cannot_change_in_place_makes_anew():
    """What cannot be changed in place is deleted and created."""
    observed = existing(desired())
    plan = reconcile(desired(TEXT.replace("30ms", "80ms"), observed), observed, Capabilities())
    assert [(item.action, item.kind, item.names) for item in plan.operations] == [("delete", "link", ["wan"]), ("create", "link", ["wan"])]


def test_more_members_leave_the_others_alone():
    """A larger count creates the new members and tells the others their names; addresses that are given stay."""
    observed = existing(desired())
    plan = reconcile(desired(TEXT.replace("count: 4", "count: 6"), observed), observed, IN_PLACE)
    assert text(plan) == expected("""
        + node        client[4:6]  (new)
        ~ names       hosts  (tables changed)

        2 to create, 1 to change, 0 to delete
    """)


def test_fewer_members():
    """A smaller count deletes the last members."""
    observed = existing(desired())
    plan = reconcile(desired(TEXT.replace("count: 4", "count: 1"), observed), observed, IN_PLACE)
    assert text(plan) == expected("""
        - node        client[1:4]  (no longer in the file)
        ~ names       hosts  (tables changed)

        0 to create, 1 to change, 3 to delete
    """)


def test_addresses_stay_when_an_earlier_group_grows():
    """A group that grows in front of another takes free addresses and moves nobody."""
    grown = "name: a\nnodes:\n  first: {count: %d}\n  last: {}\n"
    before = expand(file.loads(grown % 2))
    observed = existing(before)
    after = {item.name: item.spec for item in expand(file.loads(grown % 3), observed) if item.kind == "node"}
    kept = {item.name: item.spec["interfaces"] for item in before if item.kind == "node"}
    assert {name: after[name]["interfaces"] for name in kept} == kept
    addresses = [spec["interfaces"][0]["address"] for spec in after.values()]
    assert len(set(addresses)) == len(addresses) == 4


def test_a_stopped_node_is_made_anew_with_what_hangs_on_it():
    """A node that no longer runs is remade, and so are its files and services."""
    plan = reconcile(desired(), existing(desired(), server="stopped"), IN_PLACE)
    assert text(plan) == expected("""
        - service     web@server  (remade with node server)
        - files       server  (remade with node server)
        - node        server  (no longer running)
        + node        server  (no longer running)
        + files       server  (remade with node server)
        + service     web@server  (remade with node server)

        3 to create, 0 to change, 3 to delete
    """)


def test_what_was_cut_short_is_finished():
    """A resource whose making was interrupted is made anew, and what is missing is created."""
    resources = [item for item in desired() if item.kind not in ("link", "names", "files", "service")]
    plan = reconcile(desired(), existing(resources, **{"client[2]": "incomplete"}), IN_PLACE)
    assert text(plan) == expected("""
        - node        client[2]  (its making was cut short)
        + node        client[2]  (its making was cut short)
        + link        wan  (new)
        + names       hosts  (new)
        + files       server  (new)
        + service     web@server  (new)

        5 to create, 0 to change, 1 to delete
    """)


def test_changed_files_start_their_services_anew():
    """A service may have read the files of its node, so it is started anew when they change."""
    observed = existing(desired())
    experiment = file.loads(TEXT)
    wanted = [desired()[0], *expand(experiment, observed, {"serve.py": "1" * 64})]
    kinds = {item.kind for item in reconcile(wanted, observed, IN_PLACE).operations}
    assert kinds == {"files", "service"}


def test_order():
    """Every operation waits for those it needs: nodes for networks, services for everything on their node."""
    plan = reconcile(desired(), Observed())
    ids = {item.kind: item.id for item in plan.operations}
    after = {item.kind: set(item.after) for item in plan.operations}
    assert ids["network"] in after["node"]
    assert ids["network"] in after["link"]
    assert ids["node"] not in after["link"]
    assert {ids["node"], ids["files"], ids["names"], ids["link"]} <= after["service"]


def test_deletions_go_the_other_way_round():
    """A node is deleted before its network, and its service before it."""
    plan = reconcile([desired()[0]], existing(desired()))
    kinds = [item.kind for item in plan.operations]
    assert kinds.index("service") < kinds.index("node") < kinds.index("network")
    assert all(item.action == "delete" for item in plan.operations)


def test_caveats_are_said():
    """What cannot be honoured is in the text and the JSON, with what stands in."""
    caveat = Caveat("link wan", "delay", "this kernel has no netem", "a user-space relay stands in")
    plan = reconcile(desired(), existing(desired()), Capabilities(caveats=(caveat,)))
    assert "! link wan: delay: this kernel has no netem; a user-space relay stands in" in text(plan)
    assert plan.to_json()["caveats"][0]["stand_in"] == "a user-space relay stands in"


def test_a_lease_changes_in_place():
    """Another lease is a change of the environment, not a new one."""
    observed = existing(desired())
    wanted = [Resource("environment", "study", {"name": "study", "lease": {"duration": 60.0, "at_end": "down"}}), *desired()[1:]]
    plan = reconcile(wanted, observed, Capabilities(frozenset({("environment", "lease")})))
    assert [(item.action, item.kind) for item in plan.operations] == [("update", "environment")]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a"], "a"),
        (["c[0]", "c[1]", "c[2]", "s"], "c[0:3], s"),
        (["c[0]", "c[2]"], "c[0], c[2]"),
        (["c[1]/lan", "c[2]/lan"], "c[1:3]/lan"),
        ([f"n{index}" for index in range(9)], "n0, n1, n2, n3, n4, n5 and 3 more"),
    ],
)
def test_compact(names, shown):
    """Lists of names are shortened for reading."""
    assert compact(names) == shown


def test_500_nodes_are_planned_in_no_time():
    """The work grows with the number of resources, not with its square: ten times the nodes, far less than a hundred times the work."""

    def seconds(count: int) -> float:
        experiment = file.loads(f"name: big\nnodes:\n  client: {{count: {count}}}\n")
        observed = existing(expand(experiment))
        begun = time.thread_time()
        assert not reconcile(expand(experiment, observed), observed)
        return time.thread_time() - begun

    small = min(seconds(100) for _ in range(3))
    assert min(seconds(1000) for _ in range(3)) < 50 * small
