"""Services declared in the file: readiness, failure, restart, change, end."""

from __future__ import annotations

import re

import pytest

from ..stage import Stage, eventually

pytestmark = pytest.mark.root

TEXT = "name: NAME\nnodes: [one, two]\nservices:\n  svc:\n    on: one\n"


def service(stage: Stage, **entries: str) -> None:
    """Write the experiment with a service like this."""
    stage.write(TEXT + "".join(f"    {key}: {value}\n" for key, value in entries.items()))


def state(stage: Stage, name: str = "svc@one") -> dict[str, str]:
    return next(item for item in stage.json("status", "--json")["resources"] if (item["kind"], item["name"]) == ("service", name))


def running(stage: Stage, pattern: str, node: str = "one") -> list[str]:
    """Numbers of the processes on a node whose command line matches."""
    listed = stage.run("exec", node, "--", "ps", "-eo", "pid=,args=").stdout
    return [line.split()[0] for line in listed.splitlines() if re.search(pattern, line) and "ps -eo" not in line]


def test_ready_by_port(stage: Stage) -> None:
    """`up` returns only once the port accepts connections, also when the service takes its time."""
    service(stage, command="sleep 0.7; exec python3 -m http.server 8000", ready="{port: 8000}")
    stage.run("up")
    stage.run("exec", "one", "--", "python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8000))")
    assert state(stage)["state"] == "ready"


def test_ready_by_command(stage: Stage) -> None:
    """`up` returns only once the command succeeds on the node."""
    service(stage, command="sleep 0.5; touch /run/made; sleep 1d", ready="{command: test -e /run/made}")
    stage.run("up")
    stage.run("exec", "one", "--", "test", "-e", "/run/made")


def test_ready_by_log(stage: Stage) -> None:
    """`up` returns only once a line of the log matches."""
    service(stage, command="sleep 0.5; touch /run/made; echo now serving; sleep 1d", ready='{log: "^now serv"}')
    stage.run("up")
    stage.run("exec", "one", "--", "test", "-e", "/run/made")


def test_never_ready(stage: Stage) -> None:
    """A service that is not ready in its time makes `up` fail with its log's last lines; a second `up` fails in the same way."""
    service(stage, command="echo waiting for godot; sleep 1d", ready="{port: 8000, timeout: 300ms}")
    for _ in range(2):
        said = stage.error("up", code=7)
        assert "svc" in said
        assert "not ready after 0.3 s" in said
        assert "waiting for godot" in said


def test_failing_service(stage: Stage) -> None:
    """A service that ends makes `up` fail with the exit code and the last lines of its log; mended in the file, it goes up."""
    service(stage, command="'echo cannot bind, no luck >&2; exit 3'", ready="{port: 8000, timeout: 20s}", restart='"no"')
    said = stage.error("up", code=7)
    assert "cannot bind, no luck" in said
    assert re.search(r"\b3\b", said)
    assert state(stage)["state"] != "ready"
    service(stage, command="sleep 1d")
    stage.run("up")
    assert state(stage)["state"] == "ready"


def test_restart_on_failure(stage: Stage) -> None:
    """A service that is killed is started again by its node, with no command's help."""
    service(stage, command="exec sleep 86399", restart="on-failure")
    stage.run("up")
    (first,) = eventually(lambda: running(stage, "^ *[0-9]+ sleep 86399"), "it runs")
    stage.run("exec", "one", "--", "kill", "-9", first)
    (second,) = eventually(lambda: [pid for pid in running(stage, "sleep 86399") if pid != first], "it runs again")
    assert second != first
    assert state(stage)["state"] == "ready"


def test_changed_command_restarts_only_it(stage: Stage) -> None:
    """Another command restarts that service on its node, and neither nodes nor other services."""
    service(stage, command="exec sleep 86391")
    stage.write((stage.folder / "experiment.yaml").read_text() + "  other: {on: two, command: exec sleep 86392}\n")
    stage.run("up")
    nodes = stage.pid("one"), stage.pid("two")
    other = running(stage, "sleep 86392", "two")
    stage.edit("86391", "86393")
    done = stage.run("up")
    assert {line.split(maxsplit=1)[1] for line in done.stderr.splitlines()} <= {
        "delete service (1)",
        "create service (1)",
        "update service (1)",
    }
    assert running(stage, "sleep 86391") == []
    assert len(running(stage, "sleep 86393")) == 1
    assert running(stage, "sleep 86392", "two") == other
    assert (stage.pid("one"), stage.pid("two")) == nodes


def test_service_taken_out_of_the_file_ends(stage: Stage) -> None:
    """`up` of a file without the service ends it."""
    service(stage, command="exec sleep 86394")
    stage.run("up")
    stage.write(TEXT.partition("services")[0])
    stage.run("up", "-y")
    assert running(stage, "sleep 86394") == []
    stage.run("plan", "--exit-code", code=0)


def test_ended_service_is_shown_and_repaired(stage: Stage) -> None:
    """A service that ended for good is `stopped` in `status` with its exit code, and `up` starts it again."""
    service(stage, command="exec sleep 86395", restart='"no"')
    stage.run("up")
    stage.run("exec", "one", "--", "kill", "-9", *running(stage, "sleep 86395"))
    seen = eventually(lambda: (found := state(stage))["state"] == "stopped" and found, "status tells of it")
    assert "137" in seen["detail"]
    assert "svc (stopped)" in stage.run("status").stdout
    stage.run("up")
    assert state(stage)["state"] == "ready"
    assert len(running(stage, "sleep 86395")) == 1


def test_service_environment(stage: Stage) -> None:
    """Variables and the working directory reach the service; those of the node, too."""
    stage.write(
        "name: NAME\nnodes: {one: {env: {COLOUR: green}}}\nservices:\n"
        '  svc: {on: one, command: "echo $COLOUR $SHAPE $(pwd) > /srv/out; sleep 1d",\n'
        "    env: {SHAPE: round}, directory: /usr, ready: {command: test -s /srv/out}}\n"
    )
    stage.run("up")
    assert stage.run("exec", "one", "cat", "/srv/out").stdout == "green round /usr\n"


def test_service_goes_with_its_node(stage: Stage) -> None:
    """`down` ends services with their nodes."""
    service(stage, command="exec sleep 86396")
    stage.run("up")
    stage.run("down")
    stage.assert_nothing_left()
