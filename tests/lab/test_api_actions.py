"""The REST interface, its acting side: growing, links, faults, leases, files, terminals, ports and kernels, on real nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import websocket

from tests.stage import eventually, make_stage
from wardian.nodes.link import AgentLink
from wardian.providers import registry

from .rest import Rest

pytestmark = pytest.mark.root

TEXT = """
name: NAME
parameters: {clients: 1}
networks: {east: {}, west: {}}
links: {wan: {between: [east, west], delay: 5ms}}
nodes:
  server: {networks: [east]}
  client: {count: "${clients}", networks: [west]}
services:
  web: {on: server, command: python3 -m http.server 8000, directory: /tmp, ready: {port: 8000}}
lease: {duration: 2h, at_end: keep}
"""


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A Jupyter server beside an experiment that is up."""
    stage = make_stage(tmp_path_factory.mktemp("actions"))
    stage.write(TEXT)
    stage.run("up")
    rest = Rest(stage)
    yield rest
    rest.close()
    stage.close()


def finished(rest: Rest, task: dict[str, Any], **query: Any) -> dict[str, Any]:
    """A task, once it has ended."""

    def ended() -> Any:
        found = rest.get("environment/tasks", **query)["tasks"][task["id"]]
        return found if found["state"] != "running" else None

    return eventually(ended, "the task ends")


def plan(rest: Rest, **asked: Any) -> dict[str, Any]:
    """What `up` would do."""
    return rest.post("environment/plan", path="experiment.yaml", **asked)


def test_growing_from_nothing_to_nothing(rest: Rest) -> None:
    """A second instance is grown by the plan that was shown, each operation told live, joined when asked again, and torn down."""
    which = {"path": "experiment.yaml", "instance": "second"}
    listener = rest.listen(instance="second")
    listener.read()
    shown = rest.post("environment/plan", **which)
    task = rest.post("environment/up", code=202, digest=shown["digest"], **which)
    assert rest.post("environment/up", code=202, digest=shown["digest"], **which)["id"] == task["id"]
    assert {step["state"] for step in task["operations"].values()} <= {"waiting", "started", "done"}
    listener.until(lambda seen: seen.state["tasks"].get(task["id"], {}).get("state") == "done" and seen.state["state"] == "ready")
    done = listener.state["tasks"][task["id"]]
    assert {step["state"] for step in done["operations"].values()} == {"done"}
    assert [entry["status"] for entry in rest.stage.json("log", "--json", "--kind", "operation")][-1] == "ok"
    assert rest.stage.json("status", "--json", "-e", "second")["instance"] == "second"
    down = rest.post("environment/down", code=202, **which)
    listener.until(lambda seen: seen.state["state"] == "absent" and seen.state["tasks"].get(down["id"], {}).get("state") == "done")
    listener.close()


def test_a_plan_that_has_changed_is_not_carried_out(rest: Rest) -> None:
    """When the file was changed after the plan was shown, nothing is done, and the answer is the plan as it is now."""
    shown = plan(rest)
    rest.stage.edit("delay: 5ms", "delay: 6ms")
    answer = rest.post("environment/up", code=409, path="experiment.yaml", digest=shown["digest"])
    assert answer["kind"] == "PlanChanged"
    assert [item["kind"] for item in answer["plan"]["operations"]] == ["link"]
    assert rest.get("environment")["links"]["wan"]["ways"]["there"]["delay"] == 0.005
    task = rest.post("environment/up", code=202, path="experiment.yaml", digest=answer["plan"]["digest"])
    assert finished(rest, task)["state"] == "done"
    assert rest.get("environment")["links"]["wan"]["ways"]["there"]["delay"] == 0.006


def test_a_failure_is_told_in_the_providers_words_and_retried(rest: Rest) -> None:
    """A step that fails says why, what hangs on it is skipped, and after mending the cause a retry does the rest."""
    which = {"path": "broken", "instance": "third"}
    text = rest.stage.write("name: NAME\nnodes: {one: {setup: 'exit 3'}}\n", "broken/experiment.yaml")
    shown = rest.post("environment/plan", **which)
    task = finished(rest, rest.post("environment/up", code=202, digest=shown["digest"], **which), **which)
    assert task["state"] == "failed"
    assert "exit code 3" in task["error"]["message"]
    assert "failed" in {step["state"] for step in task["operations"].values()}
    assert any("exit code 3" in step.get("error", "") for step in task["operations"].values())
    text.write_text(text.read_text().replace("exit 3", "true"))
    again = finished(rest, rest.post(f"tasks/{task['id']}/retry", code=202), **which)
    assert again["state"] == "done"
    rest.stage.run("down", "-f", str(text), "-e", "third")


def test_a_task_survives_its_client_and_can_be_stopped(rest: Rest) -> None:
    """A task goes on when who asked for it has gone; stopping it lets go of the environment, and `up` finishes what it leaves."""
    which = {"path": "slow", "instance": "default"}
    rest.stage.write(
        "name: NAME\nnodes: {one: {}}\nservices: {late: {on: one, command: sleep 60, ready: {port: 9}}}\n", "slow/experiment.yaml"
    )
    shown = rest.post("environment/plan", **which)
    task = rest.post("environment/up", code=202, digest=shown["digest"], **which)

    def waits() -> bool:
        steps = rest.get("environment/tasks", **which)["tasks"][task["id"]]["operations"].values()
        return any("waiting until it is ready" in step["resources"].values() for step in steps)

    eventually(waits, "the service is waited for")
    assert rest.post("environment/down", code=423, **which)["kind"] == "BusyError"
    assert rest.ask("DELETE", f"tasks/{task['id']}")["state"] == "cancelled"
    down = rest.post("environment/down", code=202, **which)
    assert finished(rest, down, **which)["result"]["existed"] is True


def test_a_killed_server_leaves_what_running_again_finishes(rest: Rest) -> None:
    """A server that is killed while it grows leaves an environment that a new one finishes; the journal says what was cut short."""
    which = {"path": "cut", "instance": "default"}
    rest.stage.write("name: NAME\nnodes: {one: {setup: 'sleep 60'}}\n", "cut/experiment.yaml")
    task = rest.post("environment/up", code=202, digest=rest.post("environment/plan", **which)["digest"], **which)
    assert task["state"] == "running"
    eventually(lambda: [entry for entry in rest.get("journal", path="cut")["entries"] if entry["status"] == "running"], "it is being made")
    os.killpg(rest.process.pid, signal.SIGKILL)
    rest.process.wait()
    rest.start()
    assert "interrupted" in {entry["status"] for entry in rest.get("journal", path="cut")["entries"]}
    rest.stage.write("name: NAME\nnodes: {one: {}}\n", "cut/experiment.yaml")
    again = rest.post("environment/up", code=202, digest=rest.post("environment/plan", **which)["digest"], **which)
    assert finished(rest, again, **which)["state"] == "done"
    assert rest.get("environment", **which)["state"] == "ready"
    finished(rest, rest.post("environment/down", code=202, **which), **which)


def test_links_change_and_wrong_values_are_refused(rest: Rest) -> None:
    """A link takes new values under traffic, in one direction or both; a wrong one is refused by its field; the journal has it."""
    rest.post("environment/links", path="experiment.yaml", link="wan", way="there", changes={"delay": "40ms", "loss": "1%"})
    link = rest.get("environment")["links"]["wan"]
    assert (link["ways"]["there"]["delay"], link["ways"]["there"]["loss"]) == (0.04, 0.01)
    assert link["ways"]["back"]["delay"] != 0.04
    rest.post("environment/links", path="experiment.yaml", link="client[0]/west", changes={"rate": "10mbit"})
    assert rest.get("environment")["links"]["client[0]/west"]["ways"]["up"]["rate"] == 1e7
    wrong = rest.post("environment/links", code=422, path="experiment.yaml", link="wan", changes={"delay": "soon"})
    assert wrong["problems"][0]["field"] == "delay"
    assert rest.post("environment/links", code=404, path="experiment.yaml", link="wam", changes={"delay": 1})["kind"] == "SelectorError"
    assert "link set" in rest.get("journal", kind="operation", limit=1)["entries"][-1]["summary"]


def test_faults_come_and_go(rest: Rest) -> None:
    """A fault is inflicted, shown as in force, and undone; what a fault needs and lacks is said."""
    made = rest.post("environment/faults", path="experiment.yaml", kind="pause", targets=["client[0]"], **{"for": "5min"})
    assert rest.get("environment")["faults"][made["id"]]["kind"] == "pause"
    assert rest.ask("DELETE", "environment/faults", path="experiment.yaml", id=made["id"])["undone"][made["id"]]["targets"] == ["client[0]"]
    assert rest.get("environment")["faults"] == {}
    assert rest.post("environment/faults", code=422, path="experiment.yaml", kind="slow", targets=["server"])["message"] == "slow needs cpu"
    rest.ask("DELETE", "environment/faults", code=404, path="experiment.yaml", id="nothing")
    parted = rest.post("environment/faults", path="experiment.yaml", kind="partition", targets=["client", "server"])
    assert set(parted["nodes"]) == {"client[0]", "server"}
    assert list(rest.ask("DELETE", "environment/faults", path="experiment.yaml")["undone"]) == [parted["id"]]


def test_the_lease_is_extended(rest: Rest) -> None:
    """A lease ends later by what is added, also for other commands, and the journal has it."""
    before = rest.get("environment")["lease"]["end"]
    end = rest.post("environment/lease", path="experiment.yaml", extend="30min")["end"]
    assert end == pytest.approx(before + 1800)
    assert rest.stage.json("status", "--json")["lease_end"] == pytest.approx(end)
    assert "lease extend 30min" in rest.get("journal", kind="operation", limit=1)["entries"][-1]["summary"]
    assert rest.post("environment/lease", code=422, path="experiment.yaml", extend="long")["kind"] == "PlanError"


def test_files_go_both_ways(rest: Rest) -> None:
    """A file is put on a node, listed there and read back byte by byte, whatever its name; the journal has both ways."""
    data, name = os.urandom(3_000_001), "übung 1\n.bin"
    made = rest.session.put(f"{rest.url}/environment/file", data=data, timeout=60,
                            params={"path": "experiment.yaml", "node": "client[0]", "folder": "/tmp", "name": name})  # fmt: skip
    assert made.status_code == 201, made.text
    assert made.json()["target"] == f"/tmp/{name}"
    listing = rest.get("environment/files", node="client[0]", folder="/tmp")
    assert listing["folder"] == "/tmp"
    (item,) = [item for item in listing["items"] if item["name"] == name]
    assert (item["kind"], item["size"], item["mode"]) == ("file", len(data), 0o644)
    got = rest.session.get(f"{rest.url}/environment/file", timeout=60,
                           params={"path": "experiment.yaml", "node": "client[0]", "file": f"/tmp/{name}"})  # fmt: skip
    assert got.content == data
    assert got.headers["Content-Disposition"].startswith("attachment")
    ways = [
        (entry["detail"]["direction"], entry["detail"]["sha256"], entry["status"])
        for entry in rest.get("journal", kind="transfer")["entries"]
    ]
    assert ways == [(way, made.json()["sha256"], "ok") for way in ("put", "get")]


def test_files_that_cannot_be_copied(rest: Rest) -> None:
    """A folder, what is not there, and a name that is none are refused in the node's words, with nothing left behind."""
    which = {"node": "client[0]"}
    assert "no such file" in rest.get("environment/file", code=422, file="/nothing", **which)["message"]
    assert "is a folder" in rest.get("environment/file", code=422, file="/etc", **which)["message"]
    assert "is no file" in rest.get("environment/file", code=422, file="/dev/zero", **which)["message"]
    assert rest.get("environment/files", code=422, folder="/nothing", **which)["kind"] == "TransferError"
    for folder, name, code in (("/nowhere", "x", 422), ("/tmp", "..", 400), ("/tmp", "a/b", 400)):
        answer = rest.session.put(f"{rest.url}/environment/file", data=b"x", timeout=60,
                                  params={"path": "experiment.yaml", **which, "folder": folder, "name": name})  # fmt: skip
        assert answer.status_code == code, answer.text


def test_a_terminal_is_on_its_node(rest: Rest) -> None:
    """A terminal of the server's own runs a shell on the node, and is named after it."""
    names = [rest.post("environment/terminals", code=201, path="experiment.yaml", node="client[0]")["name"] for _ in range(2)]
    assert names == ["client_0", "client_0_2"]
    url = rest.url.replace("http", "ws", 1).replace("wardian/api", f"terminals/websocket/{names[0]}")
    terminal = websocket.create_connection(url, header=[f"Authorization: token {rest.token}"], timeout=60)
    terminal.send(json.dumps(["stdin", "echo on-$(hostname)-now\r"]))
    seen = ""
    while "on-client-0-now" not in seen:
        kind, *content = json.loads(terminal.recv())
        seen += content[0] if kind == "stdout" else ""
    terminal.close()
    for name in names:
        rest.session.delete(rest.url.replace("wardian/api", f"api/terminals/{name}"), timeout=60)
    assert rest.post("environment/terminals", code=404, path="experiment.yaml", node="nobody")["kind"] == "SelectorError"


def test_ports_of_nodes_are_opened(rest: Rest) -> None:
    """A node's port is reached on loopback until it is closed; opening it twice is opening it once."""
    opened = rest.post("environment/ports", code=201, path="experiment.yaml", node="server", port=8000)
    assert rest.post("environment/ports", code=201, path="experiment.yaml", node="server", port=8000)["id"] == opened["id"]
    assert requests.get(opened["url"], timeout=60).ok
    (listed,) = rest.get("environment/ports")["ports"]
    assert (listed["here"], listed["node"], listed["connections"]) == (opened["here"], "server", 1)
    rest.ask("DELETE", f"ports/{opened['id']}", code=204)
    assert rest.get("environment/ports")["ports"] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", opened["here"]), timeout=10)


def test_kernels_that_no_notebook_has_are_ended(rest: Rest) -> None:
    """A kernel that a notebook has can be interrupted and restarted, and is not ended; one that it left is ended; another is not there."""
    which = {"path": "experiment.yaml", "node": "client[0]", "kernel": "shell"}
    provider = registry.make("local", {"state": str(rest.stage.state)})
    (identity,) = [record["id"] for record in rest.ask("GET", "environments")["environments"] if record["path"] == "experiment.yaml"]

    async def have_one() -> None:
        link = await AgentLink.open(provider.channel(identity, "client[0]"), "client[0]")
        try:
            await link.request("kernel.start", kernel="shell", language="bash", env={}, cwd=None)
            await link.request("kernel.attach", kernel="shell", after=None)
            (kernel,) = (await asyncio.to_thread(rest.get, "environment/node", node="client[0]"))["kernels"]
            assert (kernel["id"], kernel["language"], kernel["attached"]) == ("shell", "bash", True)
            await asyncio.to_thread(rest.post, "environment/kernels", code=204, action="interrupt", **which)
            refused = await asyncio.to_thread(rest.post, "environment/kernels", code=423, action="stop", **which)
            assert refused["remedy"] == "restart it"
            stopped = asyncio.Event()
            link.on_event = lambda event: stopped.set() if event["event"] == "kernel.stopped" else None
            restarting = asyncio.create_task(asyncio.to_thread(rest.post, "environment/kernels", code=204, action="restart", **which))
            await stopped.wait()
            await link.request("kernel.start", kernel="shell", language="bash", env={}, cwd=None)
            await link.request("kernel.attach", kernel="shell", after=None)
            await restarting
        finally:
            await link.close()

    asyncio.run(have_one())
    assert rest.post("environment/kernels", code=423, action="restart", **which)["remedy"] == "end it"
    rest.post("environment/kernels", code=204, action="stop", **which)
    assert rest.get("environment/node", node="client[0]")["kernels"] == []
    assert rest.post("environment/kernels", code=404, action="stop", **which)["kind"] == "SelectorError"
    assert rest.get("journal", kind="event", limit=1)["entries"][0]["summary"] == "kernel.stopped"


def test_a_port_on_the_network_is_not_opened(rest: Rest) -> None:
    """What is opened listens on loopback only."""
    opened = rest.post("environment/ports", code=201, path="experiment.yaml", node="server", port=8000)
    with open("/proc/net/tcp", encoding="ascii") as table:
        listening = [line.split()[1] for line in table if line.split()[3] == "0A" and line.split()[1].endswith(f":{opened['here']:04X}")]
    assert [address.partition(":")[0] for address in listening] == ["0100007F"]
    rest.ask("DELETE", f"ports/{opened['id']}", code=204)
