"""Whole experiments on OpenSSH servers: the commands, the kernel, and who is asked what."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty

import pexpect
import pytest
from jupyter_client.manager import KernelManager

from tests.providers.sshd import PASSWORD, USER, Lab
from tests.stage import WARDIAN, Stage, eventually, require
from wardian.journal import Journal

pytestmark = [pytest.mark.root, pytest.mark.slow]

CELL = """%%on box
import itertools, os, time
for number in itertools.count():
    print(number, flush=True)
    with open("/tmp/count", "w") as file:
        file.write(str(number))
    if os.path.exists("/tmp/enough"):
        break
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two machines that take keys, one that only takes passwords, and one whose clock is ahead."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lab = Lab("10.95.0")
    try:
        for name in ("fern", "moss"):
            lab.machine(name)
        lab.machine("locked", options="PasswordAuthentication yes\nPubkeyAuthentication no\n")
        lab.machine("ahead", options=f"SetEnv LD_PRELOAD={faketime()} FAKETIME=+2.5s FAKETIME_DONT_FAKE_MONOTONIC=1\n")
        yield lab
    finally:
        lab.close()


def faketime() -> Path:
    """The library that gives programs another time: the kernel has one clock for all machines here."""
    require("faketime")
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.fixture
def grounds(lab: Lab, stage: Stage) -> Iterator[Stage]:
    """A stage whose experiments grow in the lab; what is up is torn down."""
    stage.env["XDG_RUNTIME_DIR"] = str(lab.runtime)
    yield stage
    for path in (stage.state / "ssh" / "environments").glob("*.json"):
        stage.run("down", path.stem, "--force", "--no-collect")


def write(stage: Stage, settings: dict[str, object], nodes: dict[str, object], **others: object) -> None:
    """An experiment file. JSON is YAML."""
    stage.write(json.dumps({"name": "NAME", "provider": "ssh", "settings": settings, "nodes": nodes, **others}))


def test_from_up_to_down(lab: Lab, grounds: Stage) -> None:
    """An experiment with files, a service, names, and files to collect runs by the same commands as anywhere, and leaves nothing."""
    grounds.write("<h1>spores</h1>", "index.html")
    service = {"on": "server", "command": "cd /tmp/site && python3 -m http.server 8000", "ready": {"port": 8000}}
    nodes: dict[str, object] = {"server": {"files": {"index.html": "/tmp/site/index.html"}}, "client": {"env": {"PLANT": "ivy"}}}
    collect = [{"on": "client", "path": "/tmp/page.html"}]
    write(grounds, lab.settings("fern", "moss", place={"client": "moss"}), nodes, services={"http": service}, collect=collect)
    assert "+ node        server, client" in grounds.run("plan").stdout
    grounds.run("up")
    page = "import urllib.request; open('/tmp/page.html', 'wb').write(urllib.request.urlopen('http://server:8000').read())"
    grounds.run("exec", "client", "python3", "-c", page)
    said = grounds.run("exec", "client", "sh", "-c", "echo $PLANT; uname -n").stdout
    assert "ivy" in said
    assert "moss" in said
    (server,) = [item for item in grounds.json("status", "--json")["resources"] if (item["kind"], item["name"]) == ("node", "server")]
    assert (server["state"], server["detail"], server["addresses"]) == ("ready", "on fern", {"net": lab.machines["fern"].address})
    assert "Nothing to do" in grounds.run("up").stdout
    capturing = grounds.start("capture", "server", "--filter", "tcp", "--json", "-w", "seen.pcap", "-c", "20")
    while capturing.poll() is None:
        lab.machines["moss"].run(f"python3 -c {shlex.quote(page)}")
    assert capturing.returncode == 0
    read = ["tcpdump", "-n", "-r", str(grounds.folder / "seen.pcap")]
    assert subprocess.run([*read, "port", "8000"], capture_output=True, text=True, check=True).stdout.count("\n") == 20
    grounds.run("down")
    assert [path.read_text() for path in grounds.folder.rglob("page.html")] == ["<h1>spores</h1>"]
    for name in ("fern", "moss"):
        ours = (
            f"find /root/.cache /tmp -name '*{grounds.name}*'; grep wardian /etc/hosts; grep -ls WARDIAN_ENVIRONMENT /proc/[0-9]*/environ"
        )
        assert lab.machines[name].run(f"{ours}; true") == ""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_links_and_faults(lab: Lab, grounds: Stage) -> None:
    """A rate between hosts is planned, measured, changed by command and by the file, mended when it was taken away, and gone at the end."""
    links = {"wan": {"between": ["east", "west"], "rate": "5mbit", "queue": "64KiB"}}
    nodes: dict[str, object] = {"server": {"networks": ["east"]}, "client": {"networks": ["west"]}}

    def file(rate: str) -> None:
        write(grounds, lab.settings("fern", "moss"), nodes, networks=["east", "west"], links={"wan": {**links["wan"], "rate": rate}})

    def shaped(rate: str) -> bool:
        return all(f"rate {rate} " in lab.machines[name].run("tc qdisc show dev eth0") for name in ("fern", "moss"))

    file("5mbit")
    assert "link wan: rate" not in grounds.run("plan").stdout
    grounds.run("up")
    assert shaped("5Mbit")
    assert "Nothing to do" in grounds.run("up").stdout
    # how long packets take on a busy machine is left out
    measured, _ = grounds.start("verify", "--json", "--seconds", "2").communicate(timeout=120)
    checks = [check for check in json.loads(measured)["checks"] if check["what"] in ("rate", "queue")]
    assert [check["ok"] for check in checks] == [True] * 4, checks
    grounds.run("link", "set", "wan", "--rate", "7mbit")
    assert shaped("7Mbit")
    lab.machines["moss"].run("tc qdisc del dev eth0 root")
    (wan,) = [item for item in grounds.json("status", "--json")["resources"] if item["kind"] == "link"]
    assert (wan["state"], wan["detail"]) == ("stopped", "host moss: eth0 is not shaped")
    file("9mbit")
    grounds.run("up", "-y")
    assert shaped("9Mbit")
    ping = ["exec", "client", "--", "ping", "-c", "1", "-W", "1", "server"]
    grounds.run("fault", "partition", "client", "server")
    grounds.run(*ping, code=1)
    grounds.run("fault", "undo")
    grounds.run("fault", "kill", "server", "--for", "1h")
    assert [item["state"] for item in grounds.json("status", "--json")["resources"] if item["name"] == "server"] == ["stopped"]
    grounds.run("fault", "undo")
    grounds.run(*ping)
    grounds.run("fault", "partition", "client", "server")
    grounds.run("down")
    for name in ("fern", "moss"):
        left = lab.machines[name].run("tc qdisc show dev eth0 | grep -v noqueue; nft list tables; ls /root/.cache/wardian; true")
        assert grounds.name not in left
        assert "htb" not in left
        assert "wardian_" not in left


def test_clocks_of_hosts(lab: Lab, grounds: Stage) -> None:
    """How far clocks of hosts are off is measured at `up` and by command, within the error that is told; journal and runs have it."""
    write(grounds, lab.settings("fern", "ahead", place={"right": "fern", "wrong": "ahead"}), {"right": {}, "wrong": {}})
    grounds.run("up")
    with Journal.open(grounds.folder / ".wardian" / "journal.db") as journal:
        with journal.run(notebook="study.ipynb", environment=grounds.json("status", "--json")["id"]) as run:
            journal.fact("machine", {}, run=run.id, node="wrong")
            journal.flush()
            found = grounds.json("clocks", "--json")
    assert "+2" in next(line for line in grounds.run("show", run.id).stdout.splitlines() if line.startswith("wrong")).split("  ")[-1]
    log = [entry for entry in grounds.json("log", "--json") if entry["summary"].startswith("clocks")]
    assert [entry["summary"].partition(";")[0] for entry in log] == ["clocks: 2 of 2 nodes measured"] * 2
    assert log[1]["detail"]["offsets"] == found
    for measured in (found, log[0]["detail"]["offsets"]):
        for item, offset in zip(measured, (0, 2.5), strict=True):
            assert abs(item["offset"] - offset) <= item["error"] + 0.0001, item
            assert item["error"] < 1
    grounds.run("down")


def test_up_that_was_killed(lab: Lab, grounds: Stage) -> None:
    """When `wardian up` is killed while a host is set up, its node shows as incomplete; `up` again ends what was begun, and finishes."""
    waits = "echo $$ > /tmp/setup-pid\nwhile [ ! -e /tmp/go ]; do sleep 0.05; done\necho set up > ~/setup.txt"
    write(grounds, lab.settings("fern", "moss"), {"box": {"count": 2, "setup": waits}})
    machines = [lab.machines[name] for name in ("fern", "moss")]
    for machine in machines:
        machine.run("rm -rf /tmp/setup-pid /tmp/go /root/setup.txt /root/.cache/wardian/setup")
    killed = grounds.start("up")
    for machine in machines:
        eventually(lambda machine=machine: machine.run("cat /tmp/setup-pid 2>/dev/null; true"), "the setup runs")
    killed.kill()
    killed.wait()
    (first, second) = [item["state"] for item in grounds.json("status", "--json")["resources"] if item["kind"] == "node"]
    assert (first, second) == ("incomplete", "incomplete")
    begun = [machine.run("cat /tmp/setup-pid").strip() for machine in machines]
    for machine in machines:
        machine.run("rm /tmp/setup-pid")
    again = grounds.start("up", "-y")
    for machine, number in zip(machines, begun, strict=True):
        eventually(lambda machine=machine: machine.run("cat /tmp/setup-pid 2>/dev/null; true"), "the setup runs again")
        assert machine.run(f"kill -0 {number} 2>/dev/null && echo runs; touch /tmp/go") == ""
    output, errors = again.communicate(timeout=60)
    assert again.returncode == 0, output + errors
    assert {item["state"] for item in grounds.json("status", "--json")["resources"] if item["kind"] == "node"} == {"ready"}
    assert grounds.run("exec", "box", "cat", "setup.txt").stdout.count("set up") == 2
    grounds.run("down")


@pytest.mark.long
def test_status_with_a_frozen_host(lab: Lab, grounds: Stage) -> None:
    """`status` names a host that has frozen without waiting for its connection's end, and tells what it knows of the others."""
    write(grounds, lab.settings("fern", "moss", patience="10min"), {"box": {"count": 2}})
    grounds.run("up")
    lab.machines["moss"].plug(False)
    try:
        done = grounds.run("status")
    finally:
        lab.machines["moss"].plug(True)
    assert "waiting for moss" in done.stderr
    first, second = [line for line in done.stdout.splitlines() if line.startswith("box[")]
    assert "fern" in first
    assert "unreachable: host moss: it has not answered for" in second
    grounds.run("down")


def test_a_cell_goes_on_through_a_cut_cable(lab: Lab, grounds: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a cable is out and the connection lost, a cell goes on; afterwards all that it printed is there, in order and once."""
    write(grounds, lab.settings("fern", patience="2s"), {"box": {}})
    machine = lab.machines["fern"]
    machine.run("rm -f /tmp/count /tmp/enough")
    grounds.run("up")
    for name in ("WARDIAN_STATE", "XDG_RUNTIME_DIR", "JUPYTER_PATH", "IPYTHONDIR"):
        monkeypatch.setenv(name, grounds.env[name])
    manager = KernelManager(kernel_name="wardian")
    manager.start_kernel(cwd=str(grounds.folder), env=grounds.env)
    client = manager.client()
    printed = ""
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        number = client.execute(CELL)

        def read(timeout: float) -> bool:
            """Take one message of the cell; whether it was its end."""
            nonlocal printed
            message = client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != number:
                return False
            assert message["msg_type"] != "error", message["content"]
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed += message["content"]["text"]
            return bool(message["content"].get("execution_state") == "idle")

        while "\n" not in printed:
            assert not read(60)
        folder = lab.runtime / "wardian-ssh"
        sockets = set(folder.glob("*.[0-9]"))
        machine.plug(False)
        try:
            before = int(machine.run("cat /tmp/count"))
            # the process that holds the connection gives up, and takes its socket with it
            eventually(lambda: sockets - set(folder.glob("*.[0-9]")), "the connection is given up")
            eventually(lambda: int(machine.run("cat /tmp/count") or 0) > before + 20, "the cell goes on")
            with suppress(Empty):
                while True:
                    assert not read(0.01)
            seen = len(printed.split())
            assert seen <= int(machine.run("cat /tmp/count"))
        finally:
            machine.plug(True)
        while len(printed.split()) <= seen:
            assert not read(60)
        machine.run("touch /tmp/enough")
        while not read(60):
            pass
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    assert printed.split() == [str(item) for item in range(int(machine.run("cat /tmp/count")) + 1)]
    grounds.run("down")


def test_questions_on_a_terminal(lab: Lab, grounds: Stage, tmp_path: Path) -> None:
    """In a terminal an unknown host key is asked about with its fingerprint, then the password; once connected nothing is asked again."""
    entry = {**lab.host("locked"), "user": USER}
    settings = {**lab.settings(), "hosts": [entry], "host_keys": "ask", "known_hosts": str(tmp_path / "known_hosts")}
    write(grounds, settings, {"box": {}})
    refused = grounds.error("plan", code=6)
    assert lab.machines["locked"].fingerprint in refused
    terminal = pexpect.spawn(WARDIAN, ["plan"], cwd=str(grounds.folder), env=grounds.env, encoding="utf-8", timeout=30)
    terminal.expect_exact(lab.machines["locked"].fingerprint)
    terminal.expect("yes/no")
    terminal.sendline("yes")
    terminal.expect("password:")
    terminal.sendline(PASSWORD)
    terminal.expect("to create")
    assert PASSWORD not in terminal.before
    terminal.expect(pexpect.EOF)
    assert "ssh-ed25519" in (tmp_path / "known_hosts").read_text()
    grounds.run("up")
    assert "fern" in grounds.run("exec", "box", "id", "-un").stdout
    grounds.run("down")


def test_too_few_hosts_is_an_error_of_the_plan(lab: Lab, grounds: Stage) -> None:
    """More nodes than hosts end `wardian plan` and `up` with the exit code of a wrong plan and both numbers."""
    write(grounds, lab.settings("fern", "moss"), {"box": {"count": 3}})
    for name in ("plan", "up"):
        said = grounds.error(name, code=3)
        assert "3 nodes need a host each, and 2 can be had" in said
