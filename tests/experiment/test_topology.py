"""What an experiment asks for, resource by resource."""

import pytest

from wardian.errors import PlanError
from wardian.experiment import file
from wardian.experiment.topology import expand, members


def resources(text: str) -> dict:
    return {(item.kind, item.name): item.spec for item in expand(file.loads("name: t\n" + text))}


def test_members_and_hostnames():
    """A group's members are numbered from 0, a single node is not."""
    found = members(file.loads("name: t\nnodes: {client: {count: 2}, server: {}}\n"))
    assert [(member.name, member.hostname) for member in found] == [
        ("client[0]", "client-0"),
        ("client[1]", "client-1"),
        ("server", "server"),
    ]


def test_a_file_without_networks_has_one():
    """Where the file names no network, all nodes share one."""
    found = resources("nodes: {a: {}, b: {}}")
    assert [key for key in found if key[0] == "network"] == [("network", "net")]
    assert {found["node", name]["interfaces"][0]["network"] for name in "ab"} == {"net"}


def test_a_node_may_have_no_network():
    """An empty list of networks means none."""
    found = resources("nodes: {a: {networks: []}, b: {}}")
    assert found["node", "a"]["interfaces"] == []


def test_routes_over_a_link():
    """Nodes reach the network behind a link through their gateway, and the gateway through the link."""
    found = resources(
        "networks: [east, west]\nlinks: {wan: {between: [east, west]}}\nnodes: {a: {networks: [east]}, b: {networks: [west]}}"
    )
    east, west = found["network", "east"], found["network", "west"]
    assert found["node", "a"]["routes"] == [{"to": west["subnet"], "via": east["gateway"]}]
    assert east["routes"] == [{"to": west["subnet"], "link": "wan"}]


def test_routes_through_a_node():
    """A node that routes is the next hop for those on its networks, and needs no route itself."""
    found = resources("networks: [x, y]\nnodes: {a: {networks: [x]}, r: {networks: [x, y], routes: true}, b: {networks: [y]}}")
    address = found["node", "r"]["interfaces"][0]["address"].partition("/")[0]
    assert found["node", "a"]["routes"] == [{"to": found["network", "y"]["subnet"], "via": address}]
    assert found["node", "r"]["routes"] == []
    assert found["network", "x"]["gateway"] is None


def test_the_faster_path_is_taken():
    """Of two ways the one with less delay is taken, even over more hops."""
    found = resources(
        "networks: [a, b, c]\n"
        "links: {slow: {between: [a, c], delay: 100ms}, one: {between: [a, b], delay: 5ms}, two: {between: [b, c], delay: 5ms}}\n"
        "nodes: {n: {networks: [a]}}"
    )
    routes = {route["to"]: route["link"] for route in found["network", "a"]["routes"]}
    assert routes[found["network", "c"]["subnet"]] == "one"


def test_a_loop_of_links_ends():
    """Links that form a ring are no endless way."""
    found = resources(
        "networks: [a, b, c]\nlinks: {x: {between: [a, b]}, y: {between: [b, c]}, z: {between: [c, a]}}\nnodes: {n: {networks: [a]}}"
    )
    assert {route["link"] for route in found["network", "a"]["routes"]} == {"x", "z"}


def test_delay_on_a_network_is_between_every_pair():
    """Each member's access link takes half of a delay between pairs, in both directions, and adds its own."""
    found = resources("networks: {lan: {delay: 10ms}}\nnodes: {a: {networks: {lan: {delay: 1ms}}}, b: {}}")
    assert found["access", "a/lan"]["up"] == {"delay": 0.006}
    assert found["access", "b/lan"]["down"] == {"delay": 0.005}


def test_loss_on_a_network_compounds():
    """Two halves of a loss between pairs make the whole."""
    found = resources("networks: {lan: {loss: 19%}}\nnodes: {a: {}, b: {}}")
    half = found["access", "a/lan"]["up"]["loss"]
    assert 1 - (1 - half) ** 2 == pytest.approx(0.19)


def test_directions_of_a_link():
    """What is written for one direction stands over what both share."""
    found = resources(
        "networks: [e, w]\nlinks: {l: {between: [e, w], delay: 5ms, rate: 10mbit, back: {rate: 1mbit}}}\nnodes: {a: {networks: [e]}}"
    )
    assert found["link", "l"]["there"] == {"delay": 0.005, "rate": 10_000_000}
    assert found["link", "l"]["back"] == {"delay": 0.005, "rate": 1_000_000}


def test_names_resolve_to_the_shared_network():
    """A name stands for the address on a network that the asker is on, too."""
    found = resources("networks: [x, y]\nnodes: {s: {networks: [x, y]}, a: {networks: [y]}}")
    table = {name: address for address, name in found["names", "hosts"]["tables"]["y"]}
    assert table["s"] == found["node", "s"]["interfaces"][1]["address"].partition("/")[0]


def test_large_groups_get_large_subnets():
    """A network of 1,000 members has room for them."""
    found = resources("nodes: {n: {count: 1000}}")
    assert found["network", "net"]["subnet"].endswith("/22")
    assert len({spec["interfaces"][0]["address"] for (kind, _), spec in found.items() if kind == "node"}) == 1000


def test_too_few_addresses():
    """A written subnet that is too small is an error that says what to do."""
    with pytest.raises(PlanError, match="too few addresses"):
        resources("networks: {n: {subnet: 10.0.0.0/29}}\nnodes: {a: {count: 6}}")


def test_services_run_where_their_selector_says():
    """A service on a group is one resource a node."""
    found = resources("nodes: {c: {count: 2}}\nservices: {web: {on: c, command: sleep 1}}")
    assert ("service", "web@c[1]") in found
    assert found["service", "web@c[0]"]["command"] == ["/bin/sh", "-c", "sleep 1"]
