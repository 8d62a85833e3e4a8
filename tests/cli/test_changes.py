"""Changing the file and running `up` again changes just what differs, in place."""

from __future__ import annotations

import re

import pytest

from ..stage import Stage
from .conftest import TEXT

pytestmark = pytest.mark.root

NODES = ("server", "client[0]", "client[1]")

ECHO = """
import socket
listener = socket.create_server(("", 9000))
print("listening", flush=True)
peer, _ = listener.accept()
while data := peer.recv(1024):
    peer.sendall(data)
"""

TALK = """
import socket, time
peer = socket.create_connection(("server", 9000))
while True:
    peer.sendall(b"tick\\n")
    print(peer.recv(1024).decode(), end="", flush=True)
    time.sleep(0.05)
"""


def pids(stage: Stage) -> dict[str, int]:
    return {node: stage.pid(node) for node in NODES}


@pytest.fixture
def changed(stage: Stage) -> Stage:
    stage.write(TEXT)
    stage.run("up")
    return stage


def round_trip(stage: Stage) -> float:
    """The smallest round trip from a client to the server, milliseconds, of so many that a wait of this machine is not in all."""
    text = stage.run("exec", "client[0]", "--", "ping", "-q", "-c", "10", "-i", "0.1", "server").stdout
    found = re.search(r"= ([\d.]+)/", text)
    assert found, text
    return float(found.group(1))


def test_delay_changes_under_a_connection(changed: Stage) -> None:
    """Another delay of the link leaves nodes, services and an open TCP connection as they are, and is really there."""
    before = pids(changed)
    server = changed.start("exec", "server", "--", "python3", "-c", ECHO)
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    client = changed.start("exec", "client[0]", "--", "python3", "-c", TALK)
    assert client.stdout is not None
    assert client.stdout.readline() == "tick\n"
    assert 10 <= round_trip(changed) < 40
    plan = changed.run("plan", "-p", "delay=40ms").stdout
    assert re.search(r"^~ link +wan +\(.*5ms.*40ms", plan, re.M), plan
    done = changed.run("up", "-p", "delay=40ms")
    assert "done     update link (1)" in done.stderr
    assert "node" not in done.stderr
    assert round_trip(changed) >= 80
    for _ in range(3):
        assert client.stdout.readline() == "tick\n"
    assert client.poll() is None
    assert pids(changed) == before
    assert changed.run("up", "-p", "delay=40ms").stdout.count("Nothing to do") == 1


def test_count_changes_beside_the_others(changed: Stage) -> None:
    """More members of a group come beside those that are there, which stay; everyone knows the new names; fewer go again."""
    before = pids(changed)
    changed.run("exec", "all", "--", "touch", "/root/mine")
    changed.run("up", "-p", "clients=4")
    assert pids(changed) == before
    assert changed.run("exec", "client", "hostname").stdout.count("client-") == 4
    changed.run("exec", "server", "--", "ping", "-c", "1", "-W", "5", "client-3")
    changed.run("exec", "client[3]", "--", "ping", "-c", "1", "-W", "5", "server")
    changed.run("plan", "--exit-code", "-p", "clients=4", code=0)
    changed.run("up", "-y", "-p", "clients=2")
    assert pids(changed) == before
    changed.run("exec", "all", "--", "test", "-e", "/root/mine")
    changed.run("exec", "client[3]", "true", code=3)
    changed.run("exec", "server", "--", "getent", "hosts", "client-3", code=2)


def test_second_up_has_nothing_to_do(changed: Stage) -> None:
    """`up` of what is up says so and touches nothing."""
    before = pids(changed)
    assert "Nothing to do: the environment is as the file says." in changed.run("up").stdout
    assert pids(changed) == before


def test_changed_file_is_copied_anew(changed: Stage) -> None:
    """A file whose content changed is copied again; nothing else happens."""
    changed.write("one\n", "page.txt")
    changed.edit("server: {networks", "server: {files: {page.txt: /srv/page.txt}, networks")
    changed.run("up", "-y")
    before = pids(changed)
    changed.write("two\n", "page.txt")
    assert re.search(r"^~ files +server", changed.run("plan").stdout, re.M)
    changed.run("up")
    assert changed.run("exec", "server", "cat", "/srv/page.txt").stdout == "two\n"
    assert pids(changed) == before
