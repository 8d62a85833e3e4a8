"""`ProviderContract`, the suite that every provider passes: subclass it, give it the provider, and pytest runs all of it.

    class TestMemoryProvider(ProviderContract):
        @pytest.fixture
        def provider(self):
            return MemoryProvider()

        def fresh(self, provider):
            return MemoryProvider(cloud=provider.cloud)

        async def stop_node(self, provider, environment, node):
            provider.cloud.stop(environment, node)

Needs pytest with pytest-asyncio in its auto mode. Nodes need a shell and the common tools (`cat`, `env`, `seq`, `sleep`, `stty`).
"""
# ruff: noqa: S101, PT012

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from ..errors import BusyError, CommandError, NodeDownError
from ..experiment.resources import Observed, Resource
from .base import Fault, Process, Provider

Key = tuple[str, str]

VARIATIONS: Mapping[Key, Any] = {
    ("link", "there"): {"delay": 0.015, "rate": 50_000_000},
    ("link", "back"): {"delay": 0.005, "rate": 50_000_000},
    ("access", "up"): {"rate": 30_000_000},
    ("access", "down"): {"delay": 0.002},
    ("access", "mtu"): 1400,
    ("link", "mtu"): 1400,
    ("network", "mtu"): 1400,
    ("names", "tables"): {"east": [["10.61.0.2", "server"]], "west": [["10.62.0.2", "client-0"]]},
    ("network", "routes"): [],
    ("node", "env"): {"PLANT": "moss"},
    ("node", "roles"): ["plant", "shade"],
    ("environment", "lease"): {"duration": 7200.0, "at_end": "keep"},
    ("environment", "parameters"): {"plants": 3},
    ("environment", "collect"): [{"on": "all", "path": "/var/log/growth"}],
}
"""Another value for each key that a provider may be able to change in place."""


def quiet(name: str, state: str) -> None:
    """A progress callback that says nothing."""


def small_environment(instance: str = "default", provider: str = "memory") -> list[Resource]:
    """Two networks, a link between them, a server on one and two clients on the other, in the order of their making."""
    networks = {"east": "10.61.0", "west": "10.62.0"}
    other = {"east": "west", "west": "east"}
    members = {"server": ("east", 2), "client[0]": ("west", 2), "client[1]": ("west", 3)}
    hostnames = {name: name.replace("[", "-").rstrip("]") for name in members}
    identity = {"name": "contract", "instance": instance, "file": "/contract/experiment.yaml", "user": "tester", "host": "here"}
    asked: dict[str, Any] = {"provider": provider, "settings": {}, "parameters": {}, "collect": [], "lease": None}
    resources = [Resource("environment", "contract", {**identity, **asked})]
    for network, prefix in networks.items():
        routes = [{"to": f"{networks[other[network]]}.0/24", "link": "wan"}]
        resources.append(Resource("network", network, {"subnet": f"{prefix}.0/24", "gateway": f"{prefix}.1", "routes": routes}))
    for name, (network, number) in members.items():
        prefix, group = networks[network], name.partition("[")[0]
        index = int(name[-2]) if "[" in name else None
        interfaces = [{"name": "eth0", "network": network, "address": f"{prefix}.{number}/24"}]
        routes = [{"to": f"{networks[other[network]]}.0/24", "via": f"{prefix}.1"}]
        spec: dict[str, Any] = {
            "hostname": hostnames[name],
            "group": group,
            "index": index,
            "roles": ["plant"],
            "site": None,
            "image": None,
        }
        spec |= {"cpus": None, "memory": None, "env": {"PLANT": "fern"}, "setup": None, "internet": False, "routes_between": False}
        resources.append(Resource("node", name, spec | {"interfaces": interfaces, "routes": routes}))
    there, back = {"rate": 100_000_000, "delay": 0.01}, {"rate": 100_000_000, "delay": 0.01}
    resources.append(Resource("link", "wan", {"networks": ["east", "west"], "there": there, "back": back}))
    for name, (network, _) in members.items():
        resources.append(Resource("access", f"{name}/{network}", {"node": name, "network": network, "up": {}, "down": {}}))
    table = [[f"{networks[network]}.{number}", hostnames[name]] for name, (network, number) in members.items()]
    resources.append(Resource("names", "hosts", {"tables": {"east": table, "west": table}}))
    return resources


class ResourceContract(ABC):
    """What a provider promises of resources, promise by promise: all that can be seen without starting anything on a node."""

    # What a provider's suite gives

    pause: ClassVar[float] = 0.0
    """Between two looks at what is being made, seconds: services that are asked at each look need time for the making, too."""

    @pytest.fixture
    @abstractmethod
    def provider(self) -> Provider:
        """A provider to test, sharing nothing with that of another test."""

    def fresh(self, provider: Provider) -> Provider:
        """Another object for the same things, as another process would have it."""
        return type(provider)(provider.settings)

    def resources(self, instance: str = "default") -> list[Resource]:
        """A small environment that this provider can make."""
        return small_environment(instance)

    @abstractmethod
    async def stop_node(self, provider: Provider, environment: str, node: str) -> None:
        """Let a node die, from outside of the provider."""

    async def check_node(self, provider: Provider, environment: str, node: str) -> None:  # noqa: B027
        """See that a node can be used. Where there is no channel, being observed as ready is all that can be seen."""

    @asynccontextmanager
    async def undisturbed(self, provider: Provider, environment: str, node: str) -> AsyncIterator[None]:
        """See that what runs on a node meanwhile goes on."""
        yield

    async def check_apart(self, provider: Provider, first: str, second: str, node: str) -> None:  # noqa: B027
        """See that what is done on a node of one environment does not show on that of the other."""

    # What the tests share

    @pytest_asyncio.fixture
    async def environment(self, provider: Provider) -> AsyncIterator[str]:
        """An id under which nothing exists yet, and nothing exists any more afterwards."""
        environment = new_id()
        yield environment
        await provider.destroy(environment, quiet)

    @pytest_asyncio.fixture
    async def grown(self, provider: Provider, environment: str) -> str:
        """The id of an environment that exists."""
        await create(provider, environment, self.resources())
        return environment

    # Creating and observing

    async def test_nothing_is_observed_of_an_unknown_environment(self, provider: Provider) -> None:
        """An id that nothing carries is observed as empty."""
        assert await provider.observe(new_id()) == Observed()

    async def test_capabilities_create_nothing(self, provider: Provider, environment: str) -> None:
        """Asking what can be done changes nothing."""
        await provider.capabilities(self.resources())
        assert await provider.observe(environment) == Observed()

    async def test_usage_is_of_nodes_that_exist(self, provider: Provider, grown: str) -> None:
        """What nodes use, as far as it is known, is of nodes that exist and is more than nothing."""
        used = await provider.usage(grown)
        assert set(used) <= {item.name for item in (await provider.observe(grown)).of("node")}
        assert all(item.memory > 0 and item.cpu_seconds >= 0 for item in used.values())
        assert await provider.usage(new_id()) == {}

    async def test_created_resources_are_observed_ready(self, provider: Provider, grown: str) -> None:
        """What was created is read back ready and with an equal spec, and nothing else is."""
        observed = await provider.observe(grown)
        assert {key: (item.state, item.spec) for key, item in observed.resources.items()} == {
            resource.key: ("ready", resource.spec) for resource in self.resources()
        }

    async def test_the_record_identifies_the_environment(self, provider: Provider, grown: str) -> None:
        """The record carries the id and what the environment resource said."""
        record = (await provider.observe(grown)).environment
        spec = self.resources()[0].spec
        assert record is not None
        assert record.id == grown
        assert record.created > 0
        assert {key: getattr(record, key) for key in ("name", "instance", "file", "user", "host")} == {
            key: spec[key] for key in ("name", "instance", "file", "user", "host")
        }

    async def test_a_fresh_provider_finds_everything(self, provider: Provider, grown: str) -> None:
        """Another process sees the same environment, from its id alone."""
        fresh = self.fresh(provider)
        assert await fresh.observe(grown) == await provider.observe(grown)
        assert grown in [record.id for record in await fresh.environments()]

    async def test_observe_during_create_never_raises(self, provider: Provider, environment: str) -> None:
        """While resources are being made they can be observed, and none is ready that was not asked for."""
        making = asyncio.create_task(create(provider, environment, self.resources()))
        wanted = {resource.key for resource in self.resources()}
        fresh = self.fresh(provider)
        while not making.done():
            observed = await fresh.observe(environment)
            assert set(observed.resources) <= wanted
            await asyncio.sleep(self.pause)
        await making

    async def test_a_cancelled_create_can_be_repeated(self, provider: Provider, environment: str) -> None:
        """After a create was cut short, deleting and creating what is not ready makes the environment whole."""
        await self._cut_short(provider, environment)
        fresh = self.fresh(provider)
        observed = await fresh.observe(environment)
        ready = {key for key, item in observed.resources.items() if item.state == "ready"}
        missing = [resource for resource in self.resources() if resource.key not in ready]
        await fresh.delete(environment, [resource.key for resource in missing], quiet)
        await create(fresh, environment, missing)
        assert states(await fresh.observe(environment)) == {resource.key: "ready" for resource in self.resources()}

    async def test_a_cancelled_create_can_be_destroyed(self, provider: Provider, environment: str) -> None:
        """After a create was cut short, destroy leaves nothing of it."""
        await self._cut_short(provider, environment)
        await self.fresh(provider).destroy(environment, quiet)
        assert await provider.observe(environment) == Observed()
        assert environment not in [record.id for record in await provider.environments()]

    async def test_two_environments_do_not_see_each_other(self, provider: Provider, grown: str) -> None:
        """Equal environments live side by side, and the end of one leaves the other whole."""
        second = new_id()
        try:
            await create(provider, second, self.resources("second"))
            assert {grown, second} <= {record.id for record in await provider.environments()}
            await self.check_apart(provider, second, grown, "client[0]")
        finally:
            await provider.destroy(second, quiet)
        assert states(await provider.observe(grown)) == {resource.key: "ready" for resource in self.resources()}

    # Updating

    async def test_update_changes_just_that(self, provider: Provider, grown: str) -> None:
        """Each key that can change in place does, while all else and what runs on the nodes stays as it is."""
        in_place = (await provider.capabilities(self.resources())).in_place
        expected = {resource.key: dict(resource.spec) for resource in self.resources()}
        async with self.undisturbed(provider, grown, "client[0]"):
            for kind, key in sorted(in_place & VARIATIONS.keys()):
                resource = next(resource for resource in self.resources() if resource.kind == kind)
                expected[resource.key][key] = VARIATIONS[kind, key]
                await provider.update(grown, [Resource(*resource.key, expected[resource.key])], quiet)
                observed = await self.fresh(provider).observe(grown)
                assert {key: (item.state, item.spec) for key, item in observed.resources.items()} == {
                    key: ("ready", spec) for key, spec in expected.items()
                }

    # Deleting

    async def test_delete_removes_just_that(self, provider: Provider, grown: str) -> None:
        """A deleted node is gone with its access link, and the rest is as it was."""
        removed = [("access", "client[1]/west"), ("node", "client[1]")]
        for key in removed:
            await provider.delete(grown, [key], quiet)
        assert states(await self.fresh(provider).observe(grown)) == {
            resource.key: "ready" for resource in self.resources() if resource.key not in removed
        }

    async def test_delete_is_idempotent(self, provider: Provider, grown: str) -> None:
        """Deleting what is gone, or never was, is no error."""
        await provider.delete(grown, [("access", "client[1]/west")], quiet)
        for _ in range(2):
            await provider.delete(grown, [("node", "client[1]"), ("node", "client[77]")], quiet)
        await provider.delete(new_id(), [("node", "client[1]")], quiet)
        assert ("node", "client[1]") not in (await provider.observe(grown)).resources

    async def test_a_deleted_node_can_be_made_anew(self, provider: Provider, grown: str) -> None:
        """Once deleted, a node and its access link can be created again and work."""
        again = [resource for resource in self.resources() if resource.name in ("client[1]", "client[1]/west")]
        await provider.delete(grown, [("access", "client[1]/west")], quiet)
        await provider.delete(grown, [("node", "client[1]")], quiet)
        await create(provider, grown, again)
        assert states(await provider.observe(grown)) == {resource.key: "ready" for resource in self.resources()}
        await self.check_node(provider, grown, "client[1]")

    async def test_destroy_is_complete_and_repeatable(self, provider: Provider, grown: str) -> None:
        """After destroy nothing carries the id, nothing lists it, and destroying it again is no error."""
        for _ in range(2):
            await provider.destroy(grown, quiet)
            assert await self.fresh(provider).observe(grown) == Observed()
            assert grown not in [record.id for record in await provider.environments()]
        assert await provider.notes(grown) == {}

    # The lock

    async def test_the_lock_excludes_and_names_its_holder(self, provider: Provider) -> None:
        """A second holder is refused and told who has it and what for."""
        async with provider.lock("/contract/experiment.yaml", "locked", "up of the contract"):
            with pytest.raises(BusyError) as caught:
                async with self.fresh(provider).lock("/contract/experiment.yaml", "locked", "down"):
                    pass
        assert str(os.getpid()) in str(caught.value)
        assert "up of the contract" in str(caught.value)

    async def test_the_lock_is_let_go(self, provider: Provider) -> None:
        """The lock is free again after its holder is done, also when that failed, and is one for each instance."""
        with pytest.raises(ZeroDivisionError):
            async with provider.lock("/contract/experiment.yaml", "locked", "up"):
                async with self.fresh(provider).lock("/contract/experiment.yaml", "other", "up"):
                    raise ZeroDivisionError
        async with self.fresh(provider).lock("/contract/experiment.yaml", "locked", "up"):
            pass

    # Notes

    async def test_notes_are_kept_with_the_node(self, provider: Provider, grown: str) -> None:
        """A note is read back by any process, replaced, and removed."""
        await provider.note(grown, "server", "setup", {"hash": "abc", "depth": [1, None]})
        await provider.note(grown, "server", "agent", {"pid": 1})
        assert await self.fresh(provider).notes(grown) == {"server": {"setup": {"hash": "abc", "depth": [1, None]}, "agent": {"pid": 1}}}
        await provider.note(grown, "server", "setup", {"hash": "def"})
        await provider.note(grown, "server", "agent", None)
        await provider.note(grown, "server", "never", None)
        assert await provider.notes(grown) == {"server": {"setup": {"hash": "def"}}}

    async def test_notes_end_with_the_node(self, provider: Provider, grown: str) -> None:
        """The notes of a deleted node are gone, also once it is made anew; those of the others stay."""
        await provider.note(grown, "client[1]", "setup", {"hash": "abc"})
        await provider.note(grown, "server", "setup", {"hash": "def"})
        await provider.delete(grown, [("access", "client[1]/west")], quiet)
        await provider.delete(grown, [("node", "client[1]")], quiet)
        await create(provider, grown, [resource for resource in self.resources() if resource.key == ("node", "client[1]")])
        assert await provider.notes(grown) == {"server": {"setup": {"hash": "def"}}}

    # Stopped nodes

    async def test_a_stopped_node_is_observed_as_such(self, provider: Provider, grown: str) -> None:
        """A node that died is observed as stopped, and the others as ready."""
        await self.stop_node(provider, grown, "client[0]")
        observed = states(await self.fresh(provider).observe(grown))
        assert observed["node", "client[0]"] == "stopped"
        assert observed["node", "client[1]"] == observed["node", "server"] == "ready"

    async def test_a_stopped_node_can_be_made_anew(self, provider: Provider, grown: str) -> None:
        """Deleting and creating a stopped node brings it back."""
        again = [resource for resource in self.resources() if resource.name in ("client[0]", "client[0]/west")]
        await self.stop_node(provider, grown, "client[0]")
        await provider.delete(grown, [("access", "client[0]/west")], quiet)
        await provider.delete(grown, [("node", "client[0]")], quiet)
        await create(provider, grown, again)
        assert states(await provider.observe(grown)) == {resource.key: "ready" for resource in self.resources()}
        await self.check_node(provider, grown, "client[0]")

    # Looking after it

    async def test_keep_and_diagnose(self, provider: Provider, grown: str) -> None:
        """What must run can be started twice, and every finding says what it is about and what was seen."""
        assert await provider.keep(grown) == await self.fresh(provider).keep(grown)
        findings = await provider.diagnose()
        assert findings
        for finding in findings:
            assert finding.state in ("ok", "limited", "missing")
            assert finding.what
            assert finding.detail

    async def test_garbage_collection_spares_what_lives(self, provider: Provider, grown: str) -> None:
        """An environment that lives is not garbage."""
        await provider.collect_garbage(quiet)
        assert states(await provider.observe(grown)) == {resource.key: "ready" for resource in self.resources()}

    async def _cut_short(self, provider: Provider, environment: str) -> None:
        """Begin to create, and be cancelled once the first node is being made."""
        begun = asyncio.Event()
        nodes = {resource.name for resource in self.resources() if resource.kind == "node"}

        def progress(name: str, state: str) -> None:
            if name in nodes:
                begun.set()

        making = asyncio.create_task(create(provider, environment, self.resources(), progress))
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait([making, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        making.cancel()
        await asyncio.wait([making])


class ProviderContract(ResourceContract):
    """What a provider promises in `base.py`, promise by promise."""

    async def check_node(self, provider: Provider, environment: str, node: str) -> None:
        assert (await run(provider, environment, node, "echo back"))[1] == b"back\n"

    @asynccontextmanager
    async def undisturbed(self, provider: Provider, environment: str, node: str) -> AsyncIterator[None]:
        running = await provider.channel(environment, node).start(["cat"])
        try:
            yield
            output, _ = await converse(running, b"still here\n")
            assert output == b"still here\n"
        finally:
            await running.close()

    async def check_apart(self, provider: Provider, first: str, second: str, node: str) -> None:
        await run(provider, first, node, "echo first > here.txt")
        code, _, _ = await run(provider, second, node, "cat here.txt")
        assert code != 0

    async def test_a_command_on_a_node_that_dies_says_so(self, provider: Provider, grown: str) -> None:
        """Waiting for a command whose node goes away raises NodeDownError, and the other nodes go on."""
        process = await provider.channel(grown, "client[0]").start(["sleep", "600"])
        other = await provider.channel(grown, "client[1]").start(["cat"])
        waiting = asyncio.create_task(process.wait())
        await self.stop_node(provider, grown, "client[0]")
        with pytest.raises(NodeDownError) as caught:
            await waiting
        assert caught.value.node == "client[0]"
        assert await converse(other, b"alive") == (b"alive", b"")
        for item in (process, other):
            await item.close()

    async def test_nothing_starts_on_a_node_that_is_not_there(self, provider: Provider, grown: str) -> None:
        """Starting a command on a stopped or an unknown node raises NodeDownError that names it."""
        await self.stop_node(provider, grown, "client[0]")
        for environment, node in ((grown, "client[0]"), (grown, "client[9]"), (new_id(), "server")):
            with pytest.raises(NodeDownError) as caught:
                await provider.channel(environment, node).start(["true"])
            assert caught.value.node == node

    # Faults

    async def test_a_paused_node_stands_still_and_goes_on(self, provider: Provider, grown: str) -> None:
        """What runs on a paused node says nothing until the pause is undone, loses nothing by it, and the other nodes go on."""
        fault = self._fault(provider, "pause", "client[0]")
        still = await provider.channel(grown, "client[0]").start(["cat"])
        other = await provider.channel(grown, "client[1]").start(["cat"])
        for _ in range(2):
            await provider.inflict(grown, "pause", ["client[0]"], [fault])
        talking = asyncio.create_task(converse(still, b"hello"))
        assert await converse(other, b"alive") == (b"alive", b"")
        assert not talking.done()
        for _ in range(2):
            await self.fresh(provider).inflict(grown, "pause", ["client[0]"], [])
        assert await talking == (b"hello", b"")
        for process in (still, other):
            await process.close()

    async def test_a_paused_node_can_be_removed(self, provider: Provider, grown: str) -> None:
        """Under a pause a node can be deleted and made anew, free of it, and an environment destroyed."""
        faults = [self._fault(provider, "pause", node) for node in ("client[0]", "client[1]")]
        await provider.inflict(grown, "pause", ["client[0]", "client[1]"], faults)
        await provider.delete(grown, [("access", "client[0]/west")], quiet)
        await provider.delete(grown, [("node", "client[0]")], quiet)
        await create(provider, grown, [resource for resource in self.resources() if resource.name in ("client[0]", "client[0]/west")])
        assert (await run(provider, grown, "client[0]", "echo back"))[1] == b"back\n"
        await self.fresh(provider).destroy(grown, quiet)
        assert await provider.observe(grown) == Observed()

    @pytest.mark.parametrize("kind", ["pause", "slow", "partition", "flap"])
    async def test_faults_can_be_repeated_and_undone(self, provider: Provider, grown: str, kind: str) -> None:
        """A fault can be inflicted twice and undone twice; everything is ready and answers afterwards."""
        targets = ("wan",) if kind == "flap" else ("server",)
        values: dict[str, dict[str, Any]] = {"slow": {"cpu": 0.5}, "partition": {"deaf": {"server": ["10.62.0.2"]}}}
        fault = self._fault(provider, kind, *targets, values=values.get(kind))
        for faults in ([fault], [fault], [], []):
            await self.fresh(provider).inflict(grown, kind, targets, faults)
        assert states(await provider.observe(grown)) == {resource.key: "ready" for resource in self.resources()}
        assert (await run(provider, grown, "server", "echo back"))[1] == b"back\n"

    async def test_faults_of_what_is_gone(self, provider: Provider, grown: str) -> None:
        """Undoing a fault of a node that died, or of a link that is not there, is no error."""
        fault = self._fault(provider, "pause", "client[0]")
        await provider.inflict(grown, "pause", ["client[0]"], [fault])
        await provider.kill(grown, ["client[0]"])
        await provider.inflict(grown, "pause", ["client[0]", "client[9]"], [fault])
        for kind, target in (("pause", "client[0]"), ("pause", "client[9]"), ("partition", "client[0]"), ("flap", "nowhere")):
            if kind in provider.faults:
                await provider.inflict(grown, kind, [target], [])

    async def test_a_killed_node(self, provider: Provider, grown: str) -> None:
        """Killing a node ends what runs there; it is observed as stopped at once, and the others as ready."""
        self._fault(provider, "kill")
        process = await provider.channel(grown, "client[0]").start(["sleep", "600"])
        await provider.kill(grown, ["client[0]"])
        observed = states(await self.fresh(provider).observe(grown))
        assert observed["node", "client[0]"] == "stopped"
        assert observed["node", "client[1]"] == observed["node", "server"] == "ready"
        with pytest.raises(NodeDownError):
            await process.wait()
        await process.close()

    def _fault(self, provider: Provider, kind: str, *targets: str, values: Mapping[str, Any] | None = None) -> Fault:
        if kind not in provider.faults:
            pytest.skip(f"{provider.name} knows no {kind}")
        return Fault(f"{kind}1", kind, targets, values or {})

    # The channel

    async def test_exit_code_and_streams(self, provider: Provider, grown: str) -> None:
        """The exit code and both output streams come back, each on its own."""
        assert await run(provider, grown, "server", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")

    async def test_standard_input(self, provider: Provider, grown: str) -> None:
        """What is written to stdin arrives, and so does its end."""
        process = await provider.channel(grown, "server").start(["sh", "-c", "wc -c"])
        output, _ = await converse(process, b"x" * 300_000)
        assert int(output) == 300_000
        assert await process.wait() == 0
        await process.close()

    async def test_no_standard_input(self, provider: Provider, grown: str) -> None:
        """Streams asked for as DEVNULL are not there: the command reads nothing and its output goes nowhere."""
        null = asyncio.subprocess.DEVNULL
        process = await provider.channel(grown, "server").start(["cat"], stdin=null, stdout=null, stderr=null)
        assert await process.wait() == 0
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        await process.close()

    async def test_stderr_merged(self, provider: Provider, grown: str) -> None:
        """With stderr=STDOUT both streams arrive as one, in the order in which they were written."""
        channel = provider.channel(grown, "server")
        process = await channel.start(["sh", "-c", "echo 1; echo 2 >&2; echo 3"], stderr=asyncio.subprocess.STDOUT)
        assert process.stderr is None
        assert await converse(process, b"") == (b"1\n2\n3\n", b"")
        await process.close()

    async def test_environment_variables(self, provider: Provider, grown: str) -> None:
        """A command sees the node's variables, those of the call over them, and a PATH and HOME."""
        script = 'echo "$PLANT $SOIL"; test -n "$PATH" && test -d "$HOME"'
        assert await run(provider, grown, "server", script, env={"SOIL": "peat"}) == (0, b"fern peat\n", b"")
        assert (await run(provider, grown, "server", script, env={"PLANT": "ivy", "SOIL": "loam"}))[1] == b"ivy loam\n"

    async def test_our_variables_stay_here(self, provider: Provider, grown: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Variables of our own process do not leak onto a node."""
        monkeypatch.setenv("WARDIAN_CONTRACT_SECRET", "leaked")
        assert b"leaked" not in (await run(provider, grown, "server", "env"))[1]

    async def test_working_directory(self, provider: Provider, grown: str) -> None:
        """A command runs in the folder asked for, else in the home; a folder that is not there is an error that names it."""
        assert await run(provider, grown, "server", "pwd", cwd="/usr") == (0, b"/usr\n", b"")
        assert (await run(provider, grown, "server", 'test "$(pwd -P)" = "$(cd ~ && pwd -P)"'))[0] == 0
        with pytest.raises(CommandError, match="/no/such/folder"):
            await provider.channel(grown, "server").start(["pwd"], cwd="/no/such/folder")

    async def test_a_missing_program(self, provider: Provider, grown: str) -> None:
        """A program that is not there, or is none, raises CommandError that names node and program."""
        for program in ("no-such-program", "/no/such/program", "/etc/passwd"):
            with pytest.raises(CommandError, match=program) as caught:
                await provider.channel(grown, "server").start([program])
            assert caught.value.node == "server"

    async def test_signals(self, provider: Provider, grown: str) -> None:
        """A signal reaches the command and its process group; its end by one is 128 + its number; after its end it is ignored."""
        script = "trap 'echo caught; exit 5' USR1; sh -c 'echo ready; exec sleep 600' & wait"
        process = await provider.channel(grown, "server").start(["sh", "-c", script])
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        await process.signal(signal.SIGUSR1)
        assert await process.stdout.read() == b"caught\n", "its child still holds the stream"
        assert await process.wait() == 5
        await process.signal(signal.SIGKILL)
        await process.close()
        process = await provider.channel(grown, "server").start(["sleep", "600"])
        await process.signal(signal.SIGTERM)
        assert await process.wait() == 128 + signal.SIGTERM
        await process.close()

    async def test_much_output(self, provider: Provider, grown: str) -> None:
        """Twenty megabytes of output arrive whole and in order."""
        expected = hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, 2_700_001)))
        process = await provider.channel(grown, "server").start(["seq", "1", "2700000"])
        assert process.stdout is not None
        received, size = hashlib.sha256(), 0
        while data := await process.stdout.read(2**16):
            received.update(data)
            size += len(data)
        assert size > 20_000_000
        assert received.digest() == expected.digest()
        assert await process.wait() == 0
        await process.close()

    async def test_streams_are_live(self, provider: Provider, grown: str) -> None:
        """Output arrives while the command runs, not only at its end."""
        process = await provider.channel(grown, "server").start(["cat"])
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            await process.stdin.drain()
            assert await process.stdout.readline() == line
        process.stdin.close()
        assert await process.wait() == 0
        await process.close()

    @pytest.mark.parametrize("script", ["sleep 600", "trap '' HUP; echo ready; while :; do sleep 600; done"])
    async def test_close_ends_it(self, provider: Provider, grown: str, script: str) -> None:
        """Letting go of a running command ends it, also one that ignores being hung up on; doing so again is no error."""
        process = await provider.channel(grown, "server").start(["sh", "-c", f"echo $$; {script}"])
        assert process.stdout is not None
        pid = int(await process.stdout.readline())
        if "ready" in script:
            await process.stdout.readline()
        for _ in range(2):
            await process.close()
        assert await process.wait() in (128 + signal.SIGHUP, 128 + signal.SIGKILL)
        assert (await run(provider, grown, "server", f"kill -0 {pid}"))[0] != 0

    async def test_a_session_of_its_own(self, provider: Provider, grown: str) -> None:
        """A command leads its own session."""
        script = "read -r _ _ _ _ group session _ < /proc/$$/stat; echo $(($$ == group)) $(($$ == session))"
        assert (await run(provider, grown, "server", script))[1] == b"1 1\n"

    async def test_a_terminal(self, provider: Provider, grown: str) -> None:
        """With a terminal the command has one of the size asked for, hears of a new size, and is interrupted by Ctrl-C."""
        script = "stty size; trap 'stty size' WINCH; trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.05; done"
        process = await provider.channel(grown, "server").start(["sh", "-c", script], terminal=(24, 100))
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is None
        assert await process.stdout.readline() == b"24 100\r\n"
        assert await process.stdout.readline() == b"ready\r\n"
        await process.resize(50, 120)
        assert await process.stdout.readline() == b"50 120\r\n"
        process.stdin.write(b"\x03")
        assert b"interrupted" in await process.stdout.read()
        assert await process.wait() == 7
        await process.close()

    async def test_many_commands_at_once(self, provider: Provider, grown: str) -> None:
        """Commands run side by side without mixing their output."""
        nodes = ["server", "client[0]", "client[1]"] * 8
        results = await asyncio.gather(
            *(run(provider, grown, node, f"seq {number} {number + 999}; exit {number}") for number, node in enumerate(nodes))
        )
        for number, (code, output, _) in enumerate(results):
            assert code == number
            assert output == b"".join(b"%d\n" % item for item in range(number, number + 1000))


def new_id() -> str:
    """An id that no environment has."""
    return uuid.uuid4().hex[:10]


def states(observed: Observed) -> dict[Key, str]:
    """The state of each resource."""
    return {key: item.state for key, item in observed.resources.items()}


async def create(provider: Provider, environment: str, resources: Sequence[Resource], progress: Any = quiet) -> None:
    """Create resources as `environment.apply` does: one call a kind, in order."""
    for _, group in groupby(resources, key=lambda resource: resource.kind):
        await provider.create(environment, list(group), progress)


async def run(
    provider: Provider, environment: str, node: str, script: str, *, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a shell script on a node."""
    process = await provider.channel(environment, node).start(["sh", "-c", script], env=env, cwd=cwd)
    output, errors = await converse(process, b"")
    try:
        return await process.wait(), output, errors
    finally:
        await process.close()


async def converse(process: Process, data: bytes) -> tuple[bytes, bytes]:
    """Write `data` to a process and read its streams to their ends."""
    received: dict[int, bytes] = defaultdict(bytes)

    async def read(number: int, stream: asyncio.StreamReader | None) -> None:
        if stream is not None:
            received[number] = await stream.read()

    async def write() -> None:
        if process.stdin is not None:
            # a command may well end without having read all of it
            with suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(data)
                await process.stdin.drain()
            process.stdin.close()

    await asyncio.gather(write(), read(1, process.stdout), read(2, process.stderr))
    return received[1], received[2]
