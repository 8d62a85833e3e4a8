"""The SSH provider on real OpenSSH servers: what it does beyond the contract, and when hosts misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.sshd import PASSWORD, USER, Lab
from tests.stage import require
from wardian.errors import CommandError, NodeDownError, PlanError, ProviderError
from wardian.experiment.resources import EnvironmentRecord, Observed, Resource
from wardian.nodes.run import run as run_command
from wardian.providers.ssh import SshProvider, SshSettings, inventory, marker, masters, mux, remote
from wardian.providers.ssh.channel import SshChannel
from wardian.providers.ssh.inventory import Host
from wardian.providers.ssh.refusals import HostError
from wardian.providers.testing import converse, create, quiet, run, small_environment, states

pytestmark = pytest.mark.root

HOSTILE = [
    "", "a b", "it's", '"', "$HOME `id` $(id)", "back\\slash \\\\ \\n", "wow! !! !$", "two\nlines\n", "-n",
    "*", "~", "#x", "grün ☃", "a;b&c|d>e", "%s %n",
]  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Machines of all kinds."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lab = Lab("10.96.0")
    try:
        for name in ("fern", "moss", "ivy"):
            lab.machine(name)
        lab.machine("narrow", options="MaxSessions 2\n")
        lab.machine("locked", options="PasswordAuthentication yes\nPubkeyAuthentication no\n")
        lab.machine("full", size="256k")
        lab.behind("fern", "hidden")
        yield lab
    finally:
        lab.close()


@pytest.fixture(autouse=True)
def clean(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test finds machines that are on and plugged in, and a state folder of its own."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.runtime))
    yield
    for machine in lab.machines.values():
        machine.start()
        machine.run("rm -rf /root/.cache /root/* /tmp/*")


def host(lab: Lab, name: str, settings: dict[str, object] | None = None, **others: object) -> Host:
    """A host of the lab, as the provider sees it."""
    model = SshSettings.model_validate({**lab.settings(), "hosts": [lab.host(name, **others)], **(settings or {})})
    return inventory.hosts(model, lab.root)[0]


def provider(lab: Lab, *names: str, **settings: object) -> SshProvider:
    """A provider with these machines."""
    return SshProvider(SshSettings.model_validate(lab.settings(*names, **settings)))


def box(lab: Lab, name: str, **others: object) -> tuple[Host, SshChannel]:
    """A host, and the way to a node called "box" on it, as soon as that is marked."""
    there = host(lab, name, **others)
    return there, SshChannel("box", marker.place("test-1", "box"), lambda: there)


async def mark(there: Host, **env: str) -> None:
    """Put the node "box" onto a host."""
    record = EnvironmentRecord("test-1", "test", "default", "/test/experiment.yaml", "ssh", "tester", "here", 1.0)
    await marker.put(there, record, "box", {"env": env}, complete=True)


def boxes(count: int, **spec: object) -> list[Resource]:
    """An environment of so many nodes."""
    environment = small_environment()[0]
    node = {"group": "box", "roles": [], "env": {}, "setup": None, "interfaces": [], "site": None, "image": None, "cpus": None}
    node |= {"memory": None, "internet": False, "routes_between": False, "routes": []}
    nodes = [Resource("node", f"box[{number}]", {**node, "index": number, "hostname": f"box-{number}", **spec}) for number in range(count)]
    return [environment, *nodes]


# The command that a login shell gets


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/tcsh", "/usr/bin/fish"])
async def test_arguments_arrive_unharmed(lab: Lab, shell: str) -> None:
    """Whatever the login shell, arguments, variables and the folder arrive byte for byte."""
    require(shell)
    machine = lab.machines["fern"]
    machine.run(f"sed -i 's|^\\(root:.*\\):[^:]*$|\\1:{shell}|' /etc/passwd; mkdir -p '/root/wow! it'\"'\"'s'")
    there, channel = box(lab, "fern")
    await masters.disconnect(there)
    await mark(there, PLANT="it's \\ a `fern`!\n")
    script = 'printf "%s\\0" "$@" "$PLANT" "$SOIL" "$PWD"'
    for text in [HOSTILE, *([item] for item in HOSTILE)]:
        result = await run_command(channel, "box", ["sh", "-c", script, "sh", *text], env={"SOIL": "a!'\\\n"}, cwd="/root/wow! it's")
        assert result.stdout.split("\0")[:-1] == [*text, "it's \\ a `fern`!\n", "a!'\\\n", "/root/wow! it's"]
    machine.run("sed -i 's|^\\(root:.*\\):[^:]*$|\\1:/bin/bash|' /etc/passwd")
    await masters.disconnect(there)


async def test_start_up_files_that_talk(lab: Lab) -> None:
    """What a shell's start-up file prints is no output of a command, and does not disturb what is read from a host."""
    lab.machines["fern"].run("echo 'echo Welcome to the greenhouse; echo {}' > /root/.bashrc")
    there, channel = box(lab, "fern")
    await mark(there)
    assert [item.name for item in await marker.read(there, "test-1")] == ["box"]
    assert (await run_command(channel, "box", ["echo", "hello"])).stdout == "hello\n"
    lab.machines["fern"].run("rm /root/.bashrc")


async def test_arguments_that_are_too_long(lab: Lab) -> None:
    """Arguments that no command over SSH can have are an error that says so."""
    there, channel = box(lab, "fern")
    await mark(there)
    assert len((await run_command(channel, "box", ["echo", "x" * 100_000])).stdout) == 100_001
    with pytest.raises(CommandError, match="too long"):
        await channel.start(["echo", "x" * 200_000])


async def test_ends_by_signals_are_told(lab: Lab) -> None:
    """A command that a signal ends gives 128 + its number, whoever sent it, and says nothing of it on its standard error."""
    there, channel = box(lab, "fern")
    await mark(there)
    for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGHUP):
        result = await run_command(channel, "box", ["sh", "-c", f"kill -{int(number)} $$"])
        assert (result.exit_code, result.stderr) == (128 + number, "")


async def test_variables_of_a_node_are_not_in_its_process_list(lab: Lab) -> None:
    """A secret in a node's `env:` is seen by its commands, and in no command line on the host."""
    there, channel = box(lab, "fern")
    await mark(there, TOKEN="spore-4711")
    result = await run_command(channel, "box", ["sh", "-c", "echo $TOKEN; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])
    assert result.stdout.startswith("spore-4711\n")
    assert result.stdout.count("spore-4711") == 1


# One connection


async def test_processes_share_one_connection(lab: Lab, tmp_path: Path) -> None:
    """Commands of several processes of the user go over one connection, which outlives them."""
    there, channel = box(lab, "moss")
    await masters.disconnect(there)
    await mark(there)
    code = f"""
import asyncio
from wardian.providers.ssh import inventory, remote
host = inventory.Host.of_json({there.to_json()!r})
print(asyncio.run(remote.run(host, "echo hello")).output)
"""
    for _ in range(2):
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "hello"
    await asyncio.gather(*(run_command(channel, "box", ["true"]) for _ in range(5)))
    assert lab.machines["moss"].connections() == 1


async def test_more_processes_than_a_connection_takes(lab: Lab) -> None:
    """Where a host takes two sessions a connection, nine commands run side by side all the same, are signalled, and end."""
    there, channel = box(lab, "narrow")
    await mark(there)
    processes = await asyncio.gather(*(channel.start(["cat"]) for _ in range(9)))
    for number, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write(b"%d\n" % number)
    assert [await process.stdout.readline() for process in processes if process.stdout] == [b"%d\n" % number for number in range(9)]
    await processes[0].signal(signal.SIGTERM)
    assert await processes[0].wait() == 128 + signal.SIGTERM
    for process in processes:
        await process.close()
    assert lab.machines["narrow"].connections() > 1


async def test_a_connection_that_was_killed_is_made_anew(lab: Lab) -> None:
    """When the process that holds a connection is killed, what ran over it says so, and the next command has a new one."""
    there, channel = box(lab, "ivy")
    await mark(there)
    process = await channel.start(["sleep", "600"])
    os.kill(await mux.process_of(masters.control_socket(there)), signal.SIGKILL)
    with pytest.raises(NodeDownError, match="ivy"):
        await process.wait()
    await process.close()
    assert (await run_command(channel, "box", ["echo", "again"])).stdout == "again\n"


async def test_a_cancelled_start_leaves_the_connection_whole(lab: Lab) -> None:
    """Starts that are cancelled at any moment disturb nothing else on the connection."""
    there, channel = box(lab, "ivy")
    await mark(there)
    other = await channel.start(["cat"])
    for delay in (0, 0.0005, 0.001, 0.002, 0.004, 0.008):
        starting = asyncio.create_task(channel.start(["true"]))
        await asyncio.sleep(delay)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            await starting.result().close()
    assert await converse(other, b"alive") == (b"alive", b"")
    await other.close()


# Bastions, passwords, host keys


@pytest.mark.parametrize("way", ["jump", "inventory", "config"])
async def test_behind_a_bastion(lab: Lab, tmp_path: Path, way: str) -> None:
    """A host that only a bastion reaches is reached through it, over the bastion's one connection, however the bastion is named."""
    options = {"jump": "fern"} if way == "jump" else {}
    model = lab.settings()
    model["hosts"] = [lab.host("fern"), lab.host("hidden", **options)]
    if way == "inventory":
        gate = lab.machines["fern"].address
        (tmp_path / "hosts.ini").write_text(
            f"hidden ansible_host={lab.machines['hidden'].address} ansible_user=root ansible_ssh_private_key_file={lab.root}/id "
            f"ansible_ssh_common_args='-o ProxyJump=root@{gate}'\n"
        )
        model["hosts"] = []
        model["inventory"] = tmp_path / "hosts.ini"
        (lab.root / "config").write_text(f"Host {gate}\n  IdentityFile {lab.root}/id\n")
    elif way == "config":
        gate = lab.machines["fern"].address
        (lab.root / "config").write_text(f"Host hidden\n  ProxyJump root@{gate}\nHost {gate}\n  IdentityFile {lab.root}/id\n")
    there = next(item for item in inventory.hosts(SshSettings.model_validate(model), tmp_path) if item.name == "hidden")
    try:
        assert (await remote.run(there, "uname -n")).output == "hidden\n"
        before = lab.machines["fern"].connections()
        await masters.disconnect(there)
        assert (await remote.run(there, "echo $SSH_CONNECTION")).output.split()[2] == lab.machines["hidden"].address
        assert lab.machines["fern"].connections() == before
        await masters.disconnect(there)
    finally:
        (lab.root / "config").write_text("")


async def test_a_password_from_a_variable(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that only takes passwords gets that of the variable, which goes nowhere else: no file, no argument, no environment."""
    there = host(lab, "locked", user=USER, password_env="GREENHOUSE")
    monkeypatch.setenv("GREENHOUSE", PASSWORD)
    assert (await remote.run(there, "id -un")).output == f"{USER}\n"
    number = await mux.process_of(masters.control_socket(there))
    for part in ("environ", "cmdline"):
        assert PASSWORD.encode() not in Path(f"/proc/{number}/{part}").read_bytes()
    assert PASSWORD not in str(there.to_json())
    written = [path for folder in (tmp_path, lab.runtime) for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]
    await masters.disconnect(there)


@pytest.mark.parametrize(("value", "said"), [(None, "GREENHOUSE is not set"), ("wrong", "does not take the password")])
async def test_a_password_that_is_missing_or_wrong(lab: Lab, monkeypatch: pytest.MonkeyPatch, value: str | None, said: str) -> None:
    """A password that is not there, or not right, is an error that names the variable and not its value."""
    if value:
        monkeypatch.setenv("GREENHOUSE", value)
    with pytest.raises(HostError, match=said) as caught:
        await remote.run(host(lab, "locked", user=USER, password_env="GREENHOUSE"), "true")
    assert caught.value.kind == "denied"
    assert value is None or value not in caught.value.message


async def test_a_password_with_nobody_to_ask(lab: Lab) -> None:
    """A host that asks for a password, with no terminal to ask on, is an error that says what to do."""
    with pytest.raises(HostError, match="no terminal") as caught:
        await remote.run(host(lab, "locked", user=USER), "true")
    assert "password_env" in str(caught.value.remedy)


async def test_an_unknown_host_key(lab: Lab) -> None:
    """A host key never seen is refused, with its fingerprint, where nobody can be asked; named by its fingerprint it is taken, and kept."""
    lab.known_hosts.unlink(missing_ok=True)
    shown = lab.machines["moss"].fingerprint
    unknown = host(lab, "moss", {"host_keys": "ask", "patience": "9s"})
    with pytest.raises(HostError, match="is not known") as caught:
        await remote.run(unknown, "true")
    assert shown in caught.value.message
    strict = host(lab, "moss", {"host_keys": "known", "patience": "9s"})
    with pytest.raises(HostError, match="is not known"):
        await remote.run(strict, "true")
    other = lab.machines["ivy"].fingerprint
    with pytest.raises(HostError, match="settings say") as caught:
        await remote.run(host(lab, "moss", {"patience": "9s"}, fingerprint=other), "true")
    assert shown in caught.value.message
    await remote.run(host(lab, "moss", {"patience": "9s"}, fingerprint=shown), "true")
    await masters.disconnect(strict)
    await remote.run(strict, "true")
    await masters.disconnect(strict)


async def test_a_changed_host_key(lab: Lab) -> None:
    """A host that shows another key than it had is refused, saying which key it shows, where the old one is, and how to forget it."""
    there = host(lab, "ivy")
    await masters.disconnect(there)
    await remote.run(there, "true")
    lab.machines["ivy"].change_key()
    await masters.disconnect(there)
    with pytest.raises(HostError, match="is not the one it had") as caught:
        await remote.run(there, "true")
    assert caught.value.kind == "denied"
    assert lab.machines["ivy"].fingerprint in caught.value.message
    assert f"ssh-keygen -f {lab.known_hosts} -R" in str(caught.value.remedy)
    command = str(caught.value.remedy).partition("anew: ")[2].partition(". If not")[0]
    await asyncio.to_thread(subprocess.run, command, shell=True, check=True, capture_output=True)
    await remote.run(there, "true")


async def test_a_user_who_is_not_let_in(lab: Lab) -> None:
    """A host that does not let us in says as whom, and what to try."""
    with pytest.raises(HostError, match="does not let us in as stranger"):
        await remote.run(host(lab, "moss", user="stranger"), "true")
    with pytest.raises(HostError, match="runs no commands: This account is currently not available"):
        await marker.facts(host(lab, "moss", user="nobody"))


# Hosts that fail


async def test_a_host_that_falls_silent(lab: Lab) -> None:
    """When a cable is unplugged a running command says so after the patience set; the node is unreachable, not stopped; and comes back."""
    there = provider(lab, "moss", patience="1s")
    resources = boxes(1)
    await create(there, "silent-1", resources)
    channel = there.channel("silent-1", "box[0]")
    process = await channel.start(["sleep", "600"])
    lab.machines["moss"].plug(False)
    try:
        with pytest.raises(NodeDownError, match="moss"):
            await process.wait()
        await process.close()
        observed = await there.observe("silent-1")
        node = observed.resources["node", "box[0]"]
        assert (node.state, node.spec) == ("unreachable", resources[1].spec)
        with pytest.raises(NodeDownError, match="moss"):
            await channel.start(["true"])
    finally:
        lab.machines["moss"].plug(True)
    assert states(await there.observe("silent-1"))["node", "box[0]"] == "ready"
    assert (await run(there, "silent-1", "box[0]", "echo back"))[1] == b"back\n"
    await there.destroy("silent-1", quiet)


async def test_a_full_disk(lab: Lab) -> None:
    """A host whose home is full is an error that says so, and what was begun there is removed by destroy."""
    there = provider(lab, "full")
    await remote.run(host(lab, "full"), "true")
    lab.machines["full"].run("dd if=/dev/zero of=/root/filler bs=1k count=300 2>/dev/null; true")
    try:
        with pytest.raises(ProviderError, match="No space left") as caught:
            await create(there, "full-1", boxes(1))
        assert "room" in str(caught.value.remedy)
        assert states(await there.observe("full-1")).get(("node", "box[0]")) in (None, "incomplete")
    finally:
        lab.machines["full"].run("rm /root/filler")
    await there.destroy("full-1", quiet)
    assert await there.observe("full-1") == Observed()
    assert lab.machines["full"].run("find /root -mindepth 1") == ""


async def test_what_a_dead_host_keeps_is_removed_later(lab: Lab) -> None:
    """Destroying while a host is off succeeds; garbage collection removes what is left there once it is on again."""
    there = provider(lab, "moss", "ivy")
    await create(there, "left-1", boxes(2))
    dead = there.index.read("left-1").nodes["box[0]"].host.name  # type: ignore[union-attr]
    lab.machines[dead].stop()
    await there.destroy("left-1", quiet)
    assert await there.observe("left-1") == Observed()
    assert await there.collect_garbage(quiet) == []
    lab.machines[dead].start()
    assert "left-1" in lab.machines[dead].run("ls /root/.cache/wardian")
    (line,) = await there.collect_garbage(quiet)
    assert dead in line
    assert lab.machines[dead].run("ls -A /root") == ""
    assert await there.collect_garbage(quiet) == []


async def test_processes_that_outlive_their_command_are_ended(lab: Lab) -> None:
    """What commands left running on a host ends when the environment does, also what ignores being asked; other processes stay."""
    there = provider(lab, "moss")
    await create(there, "busy-1", boxes(1))
    stubborn = "trap '' TERM HUP; while :; do sleep 0.05; done"
    for script in ("sleep 700", stubborn):
        await run(there, "busy-1", "box[0]", f"setsid sh -c {script!r} >/dev/null 2>&1 </dev/null &" if script == stubborn else
                  "setsid sleep 700 >/dev/null 2>&1 </dev/null &")  # fmt: skip
    lab.machines["moss"].run("setsid sleep 800 >/dev/null 2>&1 </dev/null &")
    await there.destroy("busy-1", quiet)
    left = lab.machines["moss"].run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; pkill -f '[s]leep 800'; true")
    assert "sleep 800" in left
    assert "sleep 700" not in left
    assert "trap" not in left


# Placing


async def test_too_few_hosts(lab: Lab) -> None:
    """More nodes than hosts are a plan error with both numbers, before anything is done."""
    with pytest.raises(PlanError, match=r"3 nodes need a host each, and 2 can be had \(moss, ivy\)"):
        await provider(lab, "moss", "ivy").capabilities(boxes(3))
    with pytest.raises(PlanError, match="no hosts are listed"):
        await SshProvider().capabilities(boxes(1))


async def test_hosts_that_are_down_or_taken_are_passed_over(lab: Lab) -> None:
    """A host that is off, or that another environment has, is passed over while others suffice, and named when they do not."""
    first, second = provider(lab, "moss"), provider(lab, "moss", "ivy", "fern")
    await create(first, "first-1", boxes(1))
    lab.machines["ivy"].stop()
    await second.capabilities(boxes(1))
    await create(second, "second-1", boxes(1))
    assert second.index.read("second-1").nodes["box[0]"].host.name == "fern"  # type: ignore[union-attr]
    with pytest.raises(PlanError) as caught:
        await second.capabilities([small_environment("third")[0], *boxes(2)[1:]])
    assert "moss: contract (first-1) of tester@here is on it" in caught.value.message
    assert "ivy: " in caught.value.message
    shared = provider(lab, "moss", "fern", shared=True)
    await create(shared, "third-1", boxes(2))
    assert states(await first.observe("first-1"))["node", "box[0]"] == "ready"
    for environment in ("first-1", "second-1", "third-1"):
        await shared.destroy(environment, quiet)


async def test_setup_runs_once(lab: Lab) -> None:
    """A setup runs once on a host for each content, with its own words when it fails; a failed one is not marked as done."""
    there = provider(lab, "moss")
    for environment, script in (("setup-1", "echo grown >> ~/log"), ("setup-2", "echo grown >> ~/log"), ("setup-3", "echo other >> ~/log")):
        await create(there, environment, boxes(1, setup=script))
        await there.destroy(environment, quiet)
    assert lab.machines["moss"].run("cat /root/log") == "grown\nother\n"
    for _ in range(2):
        with pytest.raises(ProviderError, match=r"(?s)exit code 3.*no soil"):
            await create(there, "setup-4", boxes(1, setup="echo no soil\nexit 3\necho never"))
        assert states(await there.observe("setup-4"))["node", "box[0]"] == "incomplete"
        await there.destroy("setup-4", quiet)


async def test_an_environment_that_was_lost_sight_of(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its state folder lost, planning the same experiment finds the environment again on its hosts, with what runs there."""
    import getpass
    import socket

    there = provider(lab, "moss", "ivy")
    resources = boxes(2)
    spec = {**resources[0].spec, "user": getpass.getuser(), "host": socket.gethostname()}
    resources[0] = Resource("environment", "contract", spec)
    await create(there, "lost-1", resources)
    await there.note("lost-1", "box[0]", "setup", {"hash": "abc"})
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "another"))
    fresh = provider(lab, "moss", "ivy")
    assert await fresh.environments() == []
    with pytest.raises(PlanError, match="lost-1"):
        await fresh.capabilities(resources)
    assert [record.id for record in await fresh.environments()] == ["lost-1"]
    assert states(await fresh.observe("lost-1")) == {resource.key: "ready" for resource in resources}
    assert await fresh.notes("lost-1") == {"box[0]": {"setup": {"hash": "abc"}}}
    await fresh.capabilities(resources)
    await fresh.destroy("lost-1", quiet)
