"""The REST interface, its reading side: experiments, environments, plans and the journal, of a real server and real nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stage import Stage, make_stage

from .rest import Rest

pytestmark = pytest.mark.root

TEXT = """
name: NAME
description: two sites
parameters: {clients: 2, delay: 5ms}
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west], delay: "${delay}", rate: 50mbit, queue: 100}
nodes:
  server: {networks: [east], roles: [origin]}
  client: {count: "${clients}", networks: [west]}
services:
  web: {on: server, command: python3 -m http.server 8000, directory: /tmp, ready: {port: 8000}}
lease: {duration: 2h, at_end: keep}
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server behind a link and two clients, up; tests leave them as they are."""
    stage = make_stage(tmp_path_factory.mktemp("lab"))
    stage.write(TEXT)
    stage.run("up", "-p", "delay=20ms")
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def rest(grown: Stage) -> Iterator[Rest]:
    """A Jupyter server beside it."""
    rest = Rest(grown)
    yield rest
    rest.close()


def test_experiments_are_found(rest: Rest) -> None:
    """A folder's experiments are listed by their path, with the instances that are up, and nothing of hidden folders."""
    for folder in ("other/deep", ".hidden"):
        rest.stage.write("name: other\nnodes: [one]\n", f"{folder}/experiment.yaml")
    found = rest.ask("GET", "experiments")
    assert found == {
        "experiments": [
            {"path": "experiment.yaml", "name": rest.stage.name, "instances": ["default"]},
            {"path": "other/deep/experiment.yaml", "name": "other", "instances": []},
        ],
        "complete": True,
    }
    assert [item["path"] for item in rest.ask("GET", "experiments", path="other")["experiments"]] == ["other/deep/experiment.yaml"]


def test_environments_are_listed(rest: Rest) -> None:
    """An environment that exists is listed with who it is and the parameters that it was grown with."""
    (record,) = rest.ask("GET", "environments")["environments"]
    assert record["id"] == rest.stage.identity()
    assert (record["path"], record["instance"], record["provider"]) == ("experiment.yaml", "default", "local")
    assert record["parameters"] == {"clients": 2, "delay": "20ms"}


def test_an_environment_in_full(rest: Rest) -> None:
    """One document has the nodes, networks, links as they are now, services, lease and faults."""
    whole = rest.get("environment")
    assert whole["state"] == "ready"
    assert whole["experiment"]["description"] == "two sites"
    assert list(whole["nodes"]) == ["client[0]", "client[1]", "server"]
    server = whole["nodes"]["server"]
    assert (server["group"], server["roles"], server["state"]) == ("server", ["origin"], "ready")
    assert list(server["addresses"]) == ["east"]
    assert set(whole["networks"]) == {"east", "west"}
    assert whole["links"]["wan"]["ways"]["there"]["delay"] == 0.02
    assert "delay 20ms" in whole["links"]["wan"]["text"]["back"]
    assert whole["services"]["web@server"]["state"] == "ready"
    assert whole["lease"]["at_end"] == "keep"
    assert whole["faults"] == {}
    assert whole["problems"] == []


def test_what_is_not_up_is_shown_as_absent(rest: Rest) -> None:
    """Of an instance that does not exist, the file's nodes and links are there, each absent."""
    whole = rest.get("environment", instance="second")
    assert whole["state"] == "absent"
    assert {node["state"] for node in whole["nodes"].values()} == {"absent"}
    assert whole["links"]["wan"]["state"] == "absent"
    assert "record" not in whole


def test_a_broken_file_is_said_to_be(rest: Rest) -> None:
    """Of an experiment whose file is wrong, the problems are told with line and column, and no error is raised."""
    rest.stage.write("name: broken\nnodes: {one: {cpus: many}}\n", "broken/experiment.yaml")
    (problem,) = rest.get("environment", path="broken")["problems"]
    assert (problem["line"], problem["field"]) == (2, "nodes.one.cpus")
    assert problem["got"] == "'many'"


def test_the_topology_is_a_graph(rest: Rest) -> None:
    """Nodes and networks have positions of their own, links name existing ends, and groups hold their members."""
    graph = rest.get("environment/topology")
    ids = {item["id"] for item in graph["nodes"]}
    assert ids == {"node:server", "node:client[0]", "node:client[1]", "network:east", "network:west"}
    assert len({(item["x"], item["y"]) for item in graph["nodes"]}) == len(ids)
    assert {line["id"] for line in graph["links"]} == {"wan", "server/east", "client[0]/west", "client[1]/west"}
    assert all({line["source"], line["target"]} <= ids for line in graph["links"])
    assert {"id": "client", "members": ["node:client[0]", "node:client[1]"], "state": "ready"} in graph["groups"]


def test_the_plan_has_reasons_and_a_digest(rest: Rest) -> None:
    """A plan is operations with reasons, the text that people read, what it removes, and a digest that is its own."""
    plan = rest.post("environment/plan", path="experiment.yaml", parameters={"clients": 1, "delay": "20ms"})
    assert {(item["action"], item["kind"]) for item in plan["operations"]} >= {("delete", "node"), ("update", "environment")}
    assert plan["removes"] == ["client[1]"]
    assert "no longer in the file" in plan["text"]
    assert all(item["reason"] for item in plan["operations"])
    assert plan["digest"] == rest.post("environment/plan", path="experiment.yaml", parameters={"clients": 1, "delay": "20ms"})["digest"]
    nothing = rest.post("environment/plan", path="experiment.yaml", parameters={"delay": "20ms"})
    assert nothing["operations"] == []
    assert nothing["digest"] != plan["digest"]


def test_a_wrong_parameter_is_named(rest: Rest) -> None:
    """A parameter that the file does not declare is refused as the command line refuses it."""
    answer = rest.post("environment/plan", code=422, path="experiment.yaml", parameters={"client": 1})
    assert answer["kind"] == "ExperimentFileError"
    assert answer["problems"][0]["suggestion"] == "clients"


def test_validation_of_a_text(rest: Rest) -> None:
    """The text of an editor is checked: each problem with its place, and nothing for a text that is right."""
    wrong = rest.post("experiments/validate", text="name: x\nnodes: {a: {count: -1}}\nlinks: {wan: {between: [east]}}\n", path="x.yaml")
    assert (wrong["problems"][0]["line"], wrong["problems"][0]["field"]) == (2, "nodes.a.count")
    assert wrong["problems"][0]["file"] == "x.yaml"
    right = rest.post("experiments/validate", text=TEXT.replace("NAME", "x"))
    assert right["problems"] == []
    assert right["experiment"]["parameters"]["clients"]["default"] == 2


def test_the_schema_for_editors(rest: Rest) -> None:
    """The schema is that of `wardian schema`, settings of providers and all."""
    assert rest.ask("GET", "experiments/schema") == rest.stage.json("schema")


def test_templates_become_experiments(rest: Rest) -> None:
    """Each template is listed, and a new experiment is written from one, once."""
    templates = rest.ask("GET", "experiments/templates")
    assert [item["name"] for item in templates] == ["single", "client-server", "cluster", "wan", "getting-started"]
    made = rest.post("experiments", code=201, folder="made/study", template="wan")
    assert made["path"] == "made/study/experiment.yaml"
    assert (rest.stage.folder / made["path"]).read_text().startswith("# Two sites")
    assert rest.post("experiments", code=409, folder="made/study", template="wan")["message"] == "experiment.yaml is there already"


def test_other_tools_topologies_become_experiments(rest: Rest) -> None:
    """A topology of another tool is shown as the experiment that it would be, then written, with the report of what is otherwise."""
    rest.stage.write("services: {web: {image: nginx, privileged: true}}\n", "compose/compose.yaml")
    shown = rest.ask("GET", "experiments/import", source="compose/compose.yaml", provider="local")
    assert "web:" in shown["text"]
    assert not (rest.stage.folder / "compose" / "experiment.yaml").exists()
    made = rest.post("experiments", code=201, folder="imported", source="compose", provider="local")
    assert made["report"]["kind"] == "compose"
    assert made["written"] == ["imported/experiment.yaml"]


def test_a_node_with_its_services(rest: Rest) -> None:
    """A node's agent tells of its kernels and of the process of each service."""
    node = rest.get("environment/node", node="server")
    assert node["reachable"] is True
    assert node["kernels"] == []
    (service,) = node["services"]
    assert (service["service"], service["state"]) == ("web", "ready")
    assert service["pid"] > 0
    assert rest.get("environment/node", code=404, node="nobody")["kind"] == "SelectorError"


def test_the_log_of_a_service(rest: Rest) -> None:
    """What a service printed is read from its node."""
    rest.stage.run("exec", "client[0]", "--", "python3", "-c", "import urllib.request; urllib.request.urlopen('http://server:8000/')")
    assert '"GET / HTTP/1.1" 200' in rest.get("environment/log", node="server", service="web")["text"]
    assert rest.get("environment/log", code=404, node="server", service="none")["message"].endswith("there is no service none")


def test_the_journal_by_pages(rest: Rest) -> None:
    """The timeline is read from the latest page backwards, each entry once, and filtered by kind and node."""
    everything = rest.get("journal")["entries"]
    assert {entry["kind"] for entry in everything} >= {"operation"}
    page, seen = rest.get("journal", limit=3), []
    while True:
        seen = page["entries"] + seen
        if "before" not in page:
            break
        page = rest.get("journal", limit=3, before=page["before"])
    assert [entry["id"] for entry in seen] == [entry["id"] for entry in everything]
    about = rest.get("journal", node="server", kind="operation")["entries"]
    assert about
    assert all("server" in " ".join(entry["nodes"]) for entry in about)
    middle = everything[len(everything) // 2]["started"]
    assert all(entry["started"] < middle for entry in rest.get("journal", until=middle)["entries"])
    assert all(entry["ended"] >= middle for entry in rest.get("journal", since=middle)["entries"])


def test_looking_makes_no_journal(rest: Rest) -> None:
    """The timeline of an experiment that was never grown is empty, and its folder stays as it is."""
    rest.stage.write("name: fresh\nnodes: [one]\n", "fresh/experiment.yaml")
    assert rest.get("journal", path="fresh/experiment.yaml") == {"entries": []}
    rest.get("environment", path="fresh")
    assert sorted(path.name for path in (rest.stage.folder / "fresh").iterdir()) == ["experiment.yaml"]
