"""What the provider `openstack` decides and says without a cloud."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1.exceptions import ConnectTimeout
from openstack.exceptions import BadRequestException, ConfigException, HttpException
from pydantic import ValidationError

from wardian.errors import NodeDownError, PlanError, ProviderError
from wardian.experiment import file
from wardian.experiment.resources import EnvironmentRecord
from wardian.providers import registry
from wardian.providers.openstack import OpenStackProvider, OpenStackSettings, choice, cloud, growth, images, keys, names, observation
from wardian.providers.openstack.cloud import Cloud, refusal
from wardian.providers.openstack.index import Index
from wardian.providers.openstack.observation import Snapshot
from wardian.providers.openstack.reach import Reach
from wardian.providers.openstack.wiring import Wiring
from wardian.providers.several import SeveralProvider
from wardian.providers.several import index as sites
from wardian.providers.ssh.index import Entry
from wardian.providers.testing import quiet, small_environment

SPEC = small_environment()[3].spec
PAGE = Path(__file__).parents[2] / "docs" / "openstack.md"


def flavor(name: str, vcpus: int, ram: int, disk: int) -> Any:
    return SimpleNamespace(id=f"id-{name}", name=name, vcpus=vcpus, ram=ram, disk=disk)


def image(name: str, created: str, **properties: str) -> Any:
    return SimpleNamespace(id=f"id-{name}-{created}", name=name, created_at=created, properties=properties)


FLAVORS = [flavor("large", 8, 16384, 80), flavor("small", 1, 1024, 10), flavor("wide", 4, 1024, 10)]
IMAGES = [image("debian", "2024", os_distro="debian"), image("debian", "2026", os_distro="debian"), image("old", "2020")]


def test_the_smallest_flavour_that_is_large_enough() -> None:
    """A node gets the flavour named for it, its group or role, or the smallest with its processors, memory and the settings' disk."""
    settings = OpenStackSettings()
    asked = {**SPEC, "cpus": 2.0, "memory": 2**29}
    assert choice.flavor("server", SPEC, settings, FLAVORS).name == "small"
    assert choice.flavor("server", asked, settings, FLAVORS).name == "wide"
    assert choice.flavor("server", asked, OpenStackSettings(disk=20), FLAVORS).name == "large"
    by_role = OpenStackSettings(flavor="small", flavors={"plant": "id-large"})
    assert choice.flavor("server", SPEC, by_role, FLAVORS).name == "large"
    with pytest.raises(ProviderError, match=r"node server: no flavour has 64 processors.*\n.*large \(8 cpus, 16384 MiB, 80 GiB\)"):
        choice.flavor("server", {**SPEC, "cpus": 64}, settings, FLAVORS)


def test_the_newest_image() -> None:
    """An image is named by name, id or properties, of several the newest is taken, and one that is not there is answered with what is."""
    settings = OpenStackSettings(image="debian")
    assert choice.image("server", SPEC, settings, IMAGES).created_at == "2026"
    assert choice.image("server", {**SPEC, "image": "id-debian-2024"}, settings, IMAGES).created_at == "2024"
    assert choice.image("server", {**SPEC, "image": "os_distro=debian"}, settings, IMAGES).created_at == "2026"
    with pytest.raises(ProviderError, match=r"node server: there is no image moss\n.*debian, old"):
        choice.image("server", {**SPEC, "image": "moss"}, settings, IMAGES)
    with pytest.raises(ProviderError, match="no image is named"):
        choice.image("server", SPEC, OpenStackSettings(), IMAGES)


def test_what_a_server_is_told() -> None:
    """User data are a cloud-config with host name, host key and the login's key, and make an account where it is not root."""
    login, host = keys.pair(), keys.pair()
    assert login[0].startswith("-----BEGIN OPENSSH PRIVATE KEY")
    text = keys.user_data(SPEC, "root", login[1], host)
    first, _, rest = text.partition("\n")
    said = json.loads(rest)
    assert first == "#cloud-config"
    assert (said["hostname"], said["disable_root"], said["ssh_authorized_keys"]) == ("server", False, [login[1]])
    assert said["ssh_keys"] == {"ed25519_private": host[0], "ed25519_public": host[1]}
    assert login[0] not in text
    assert keys.public(login[0]) == login[1]
    other = json.loads(keys.user_data(SPEC, "cc", login[1], host).partition("\n")[2])
    assert [account if isinstance(account, str) else account["name"] for account in other["users"]] == ["default", "cc"]


def test_a_server_carries_its_node() -> None:
    """Node and spec are read back from metadata, also where an older and longer spec left parts; what is too long is refused."""
    said = names.metadata("client[0]", SPEC)
    assert all(len(value) <= 255 for value in said.values())
    stale = {**names.metadata("client[0]", {**SPEC, "setup": "true\n" * 200}), **said}
    assert names.node_of(stale) == ("client[0]", json.loads(json.dumps(SPEC)))
    assert names.node_of({}) is None
    assert names.node_of({names.NODE: "server"}) == ("server", {})
    with pytest.raises(ProviderError, match="longer than 25500 characters"):
        names.metadata("server", {"setup": "x" * 30000})


@pytest.mark.parametrize(
    ("name", "belongs"),
    [("wardian-a-1", True), ("wardian-a-1.access", True), ("wardian-a-1-net", True), ("wardian-a-12-net", False), ("wardian-a", False)],
)
def test_what_belongs_to_an_environment(name: str, belongs: bool) -> None:
    """A name on the cloud is one environment's, and not that of another whose id begins alike."""
    assert names.belongs("a-1", name) is belongs


def test_a_refusal_says_what_to_do() -> None:
    """An error has the service's reason, status and request number, and a remedy for what can be remedied."""
    error = failure(403)
    error.details, error.request_id = "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances", "req-1"
    text = str(refusal("node server", error))
    assert text.startswith("node server: Quota exceeded for instances")
    assert "(403); request req-1" in text
    assert "ask the site for a larger quota" in text
    error.details = "No more IP addresses available on network 1"
    assert "`floating: false`" in str(refusal("the bastion", error))
    assert "credentials" in str(refusal("x", failure(401)))
    assert "Is the cloud's address right" in str(refusal("x", ConnectTimeout("timed out")))
    assert "Name a cloud of clouds.yaml" in str(refusal("x", ConfigException("Cloud moss was not found.")))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between tries take no time, and are written down."""
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(cloud, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return paused


class Services(Cloud):
    """A cloud whose service is a list: what was made, and what it answers first."""

    def __init__(self, *answers: Exception, accepts: bool) -> None:
        super().__init__(OpenStackSettings())
        self.made: list[str] = []
        self.answers = list(answers)
        self.accepts = accepts

    def _connected(self) -> Any:
        return self

    def create(self) -> str:
        error = self.answers.pop(0) if self.answers else None
        if error is None or self.accepts:
            self.made.append(f"server {len(self.made)}")
        if error is not None:
            raise error
        return self.made[-1]


def failure(status: int, **headers: str) -> HttpException:
    response = SimpleNamespace(status_code=status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    error = HttpException(message="down", response=response)
    error.status_code = status
    return error


@pytest.mark.parametrize("accepts", [True, False])
async def test_nothing_is_made_twice(silent: list[float], accepts: bool) -> None:
    """Whether or not a request was accepted whose answer was lost, it is done once in the end, at the pace the service asks for."""
    services = Services(ConnectTimeout("lost"), accepts=accepts)
    assert await services.make("node server", Services.create, lambda service: service.made) == "server 0"
    assert services.made == ["server 0"]
    busy = Services(failure(503, Retry_After="7"), failure(500), accepts=False)
    assert await busy.make("node server", Services.create, lambda service: service.made) == "server 0"
    assert silent == [0.5, 7.0, 2.0]


async def test_the_first_request_was_done_late(silent: list[float]) -> None:
    """A repetition that is refused, since what the first request asked for is there by then, gives that; others are refused."""
    services = Services(ConnectTimeout("lost"), BadRequestException(message="overlaps"), accepts=False)
    looks = iter([[], ["subnet"]])
    assert await services.make("network lab", Services.create, lambda service: next(looks)) == "subnet"
    refused = Services(ConnectTimeout("lost"), BadRequestException(message="overlaps"), accepts=False)
    with pytest.raises(ProviderError, match="overlaps"):
        await refused.make("network lab", Services.create, lambda service: [])


async def test_a_token_that_expires() -> None:
    """A request that is refused since its token has expired is sent once more, and a second refusal is final."""
    services = Services(failure(401), accepts=False)
    assert await services.make("node server", Services.create, lambda service: service.made) == "server 0"
    refusing = Services(*(failure(401) for _ in range(3)), accepts=False)
    with pytest.raises(ProviderError, match="Check the credentials"):
        await refusing.make("node server", Services.create, lambda service: service.made)
    assert len(refusing.answers) == 1


async def test_of_two_of_one_name_the_one_in_use_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request made that was believed to be lost is seen beside what is in use, for the next plan to remove."""
    common = {"name": "wardian-lab-1-net", "created_at": "1"}
    listed = {"networks": [SimpleNamespace(id="b", subnet_ids=[], **common), SimpleNamespace(id="a", subnet_ids=["s"], **common)]}

    async def of_service(service: Cloud, resource: str, request: Any) -> list[Any]:
        return listed.get(resource, [])

    monkeypatch.setattr(Cloud, "all", of_service)
    seen = await observation.snapshot(Cloud(OpenStackSettings()), "lab-1")
    assert {name: item.id for name, item in seen.networks.items()} == {"wardian-lab-1-net": "a", "wardian-lab-1-net b": "b"}
    found = observation.observed("lab-1", seen, None, key=True).resources
    assert {key[1] for key in found if key[0] == "network"} == {"net", "net b"}
    servers = [
        SimpleNamespace(id=str(each), created_at=str(each), status=status) for each, status in enumerate(("ERROR", "BUILD", "ACTIVE"))
    ]
    assert [item.status for item in sorted(servers, key=observation.preference)] == ["ACTIVE", "BUILD", "ERROR"]


async def test_operations_at_once_give_one_floating_ip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of operations of one plan that are done at once, one gives the bastion its address, and the others see that it has it."""
    made: list[Any] = []
    server = SimpleNamespace(id="server", status="ACTIVE", security_groups=[{"name": "wardian-lab-1.bastion"}])
    port = SimpleNamespace(id="port", device_id="server")

    async def look(service: Cloud, environment: str) -> Snapshot:
        await asyncio.sleep(0)
        return Snapshot(servers=[server], ports=[port], floating=list(made))

    async def way(self: Wiring, *others: Any) -> Any:
        return SimpleNamespace(id="network")

    async def give(self: Wiring, *others: Any) -> tuple[Any, Any]:
        await asyncio.sleep(0)
        made.append(SimpleNamespace(port_id="port"))
        return port, made[-1]

    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    monkeypatch.setattr(growth, "snapshot", look)
    monkeypatch.setattr(Wiring, "create_access", way)
    monkeypatch.setattr(Wiring, "create_floating", give)
    provider = OpenStackProvider()
    await asyncio.gather(*(provider._growth("lab-1", quiet).choose_bastion() for _ in range(3)))
    assert len(made) == 1


def test_an_environment_whose_servers_hear_nobody_is_not_complete() -> None:
    """A security group that still lacks the rules which are made after it has the environment made again."""
    entry = Entry(EnvironmentRecord("lab-1", "lab", "default", "f", "openstack", "u", "h", 1.0))
    for directions, state in ((["egress"], "incomplete"), (["egress", "ingress"], "ready")):
        group = SimpleNamespace(security_group_rules=[{"direction": each} for each in directions])
        found = observation.observed("lab-1", Snapshot(groups={"wardian-lab-1": group}), entry, key=True)
        assert [item.state for item in found.of("environment")] == [state]


async def test_who_waits_at_once_shares_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are listed once for all who wait, never for what was asked after the list was begun, and not before its time has come.

    A cloud that was long in answering is left alone for as long.
    """
    looks: list[float] = []

    async def listed(service: Cloud, environment: str) -> list[Any]:
        looks.append(time.monotonic())
        await asyncio.sleep(0 if len(looks) < 2 else 0.1)
        return [len(looks)]

    monkeypatch.setattr(observation, "servers", listed)
    monkeypatch.setattr(observation, "INTERVAL", 0.05)
    look = observation.Look(Cloud(OpenStackSettings()), "lab-1")
    moment = time.monotonic()
    assert await asyncio.gather(*(look.after(moment) for _ in range(3))) == [[1]] * 3
    assert await look.after(time.monotonic()) == [2]
    assert looks[1] - looks[0] >= 0.05
    assert await look.after(time.monotonic()) == [3]
    assert looks[2] - looks[1] >= 0.2


async def test_why_a_server_failed_is_told_a_moment_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nova says that a server is in ERROR before it says why: the reason is in the error all the same."""
    bare = SimpleNamespace(id="1", status="ERROR", fault=None)
    told = SimpleNamespace(id="1", status="ERROR", fault={"message": "No valid host was found."})

    async def listed(service: Cloud, environment: str) -> list[Any]:
        return [told]

    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    monkeypatch.setattr(observation, "servers", listed)
    error = await OpenStackProvider()._growth("lab-1", quiet)._failed("server", "ERROR", bare)
    assert "its server is ERROR: No valid host was found." in str(error)


async def test_what_is_refused_is_not_asked_again(silent: list[float]) -> None:
    """A refusal is final; a service that goes on failing ends with its own words."""
    refusing = Services(BadRequestException(message="no such flavour"), accepts=False)
    with pytest.raises(ProviderError, match="no such flavour"):
        await refusing.make("node server", Services.create, lambda service: service.made)
    assert (refusing.made, silent) == ([], [])
    failing = Services(*(failure(500) for _ in range(9)), accepts=False)
    with pytest.raises(ProviderError, match=r"\(500\)\n.*failed, several times"):
        await failing.make("node server", Services.create, lambda service: service.made)
    assert len(failing.answers) == 5


def server(node: str, address: str, **others: str) -> Any:
    addresses = {
        "wardian-lab-1.access": [{"addr": address, "version": 4, "OS-EXT-IPS:type": "fixed"}],
        "wardian-lab-1-net": [{"addr": "10.0.0.9", "version": 4, "OS-EXT-IPS:type": "fixed"}],
    }
    said = {**names.metadata(node, SPEC), names.HOST_KEY: f"ssh-ed25519 {node}"}
    return SimpleNamespace(id=node, name=f"wardian-lab-1-{node}", addresses=addresses, metadata=said, **others)


def test_servers_are_reached_through_the_bastion(tmp_path: Path) -> None:
    """The one with the floating IP is reached there, the others through it, each by the host key that it was given."""
    index = Index(tmp_path)
    servers = [server("gate", "10.255.240.5"), server("leaf", "10.255.240.6")]
    port = SimpleNamespace(id="p", device_id="gate", network_id="n", device_owner="compute:nova")
    seen = Snapshot(servers=servers, ports=[port], floating=[SimpleNamespace(port_id="p", floating_ip_address="203.0.113.9")])
    hosts = Reach(index, OpenStackSettings(user="cc"), "lab-1").hosts(seen)
    assert (hosts["gate"].address, hosts["gate"].jump) == ("203.0.113.9", None)
    assert (hosts["leaf"].address, hosts["leaf"].jump) == ("10.255.240.6", hosts["gate"])
    assert (hosts["leaf"].user, hosts["leaf"].host_keys, hosts["leaf"].key) == ("cc", "known", str(index.key("lab-1")))
    assert index.known_hosts("lab-1").read_text() == "203.0.113.9 ssh-ed25519 gate\n10.255.240.6 ssh-ed25519 leaf\n"
    inside = Reach(index, OpenStackSettings(floating=False), "lab-1").hosts(Snapshot(servers=servers))
    assert [(host.address, host.jump) for host in inside.values()] == [("10.255.240.5", None), ("10.255.240.6", None)]


async def test_nobody_works_on_servers_that_are_just_active(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command on a node that counts as ready once it is ACTIVE says that nobody logs in there, not that there is no such node."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    provider = OpenStackProvider(OpenStackSettings(ready="active"))
    provider.index.write(Entry(EnvironmentRecord("lab-1", "lab", "default", "f", "openstack", "u", "h", 1.0)))
    with pytest.raises(NodeDownError, match=r"nobody logs in.*\n.*`ready: ssh`"):
        await provider.channel("lab-1", "server").start(["true"])


def test_what_is_kept_here_is_private(tmp_path: Path) -> None:
    """Keys can be read by their owner alone, and go with their environment; the folder's own word stays what it was."""
    index = Index(tmp_path / "state")
    assert index.owner == Index(tmp_path / "state").owner
    index.write(Entry(EnvironmentRecord("lab-1", "lab", "default", "f", "openstack", "u", "h", 1.0)))
    index.write_private(index.key("lab-1"), "secret")
    index.note("lab-1", "client[0]", "a/b", {"x": 1}, "server-1")
    assert index.key("lab-1").stat().st_mode & 0o077 == 0
    assert index.notes("lab-1") == {"client[0]": {"a/b": ("server-1", {"x": 1})}}
    index.remove("lab-1")
    assert not index.key("lab-1").exists()
    assert index.notes("lab-1") == {}
    assert index.read("lab-1") is None


def test_the_page_on_openstack() -> None:
    """Its example is an experiment whose settings hold, and it leaves no setting out."""
    text = PAGE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert OpenStackSettings.model_validate(file.loads(example).settings).image == "debian-12"
    assert [name for name in OpenStackSettings.model_fields if not re.search(rf"^\|.*`{name}`.*\|.*\|", text, re.MULTILINE)] == []


def test_settings_are_checked() -> None:
    """What no cloud could do with is refused before one is asked."""
    with pytest.raises(ValidationError):
        OpenStackSettings(admit=["everyone"])
    with pytest.raises(PlanError, match="refuses its settings"):
        registry.make("openstack", {"flavour": "small"})


async def test_settings_of_a_newer_wardian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment grown with settings that are not known here is one error, at a site of several, too, and with each provider."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    newer = {"cloud": "here", "ready": "warm", "reserve": {"racks": 2}}
    record = EnvironmentRecord("lab-1", "lab", "default", "f", "openstack", "u", "h", 1.0, {"settings": newer})
    said = r"environment lab-1: a newer Wardian grew it, .*\) does not know: ready: 'warm', reserve.racks\n.*upgrade"
    provider, several = OpenStackProvider(), SeveralProvider()
    provider.index.write(Entry(record))
    with pytest.raises(ProviderError, match=said):
        await provider.observe("lab-1")
    site = {"provider": "openstack", "settings": newer}
    several.index.write(sites.Entry(record, {"tacc": site}, {("node", "server"): "tacc"}))
    with pytest.raises(ProviderError, match=said):
        several.of_node("lab-1", "server")
    for name in registry.holders():
        with pytest.raises(ProviderError, match="does not know: colour\n"), registry.as_grown("lab-1"):
            registry.make(name, {"colour": "red"})


async def test_doctor_without_a_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no cloud is named that is said, in one finding with what to do."""
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_CLIENT_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (finding,) = await OpenStackProvider().diagnose()
    assert finding.state == "limited"
    assert finding.remedy


class Disks(Services):
    """A cloud with one server, whose service of images goes through these states."""

    def __init__(self, *states: str, answers: list[Exception] | None = None, accepts: bool = True) -> None:
        super().__init__(*(answers or []), accepts=accepts)
        self.states = list(states)
        self.listed: list[Any] = []
        self.deleted: list[str] = []
        server = SimpleNamespace(id="s1", name="wardian-a-1-server", status="ACTIVE", metadata=names.metadata("server", SPEC))
        server.create_image = self.create_image
        self.compute = SimpleNamespace(servers=lambda **_: [server])
        self.image = SimpleNamespace(images=self.images_of, get_image=self.get, delete_image=self.deleted.append)

    def create_image(self, compute: Any, name: str, properties: dict[str, str]) -> str:
        error = self.answers.pop(0) if self.answers else None
        if error is None or self.accepts:
            self.listed.append(
                SimpleNamespace(id=f"i{len(self.listed)}", name=name, status="queued", properties=properties, created_at="now")
            )
        if error is not None:
            raise error
        return str(self.listed[-1].id)

    def images_of(self, name: str) -> list[Any]:
        return [item for item in self.listed if item.name == name]

    def get(self, image: str) -> Any:
        found = next(item for item in self.listed if item.id == image)
        found.status = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if found.status == "gone":
            raise failure(404)
        return SimpleNamespace(status=found.status, hash_algo="sha512", hash_value="abc", checksum=None)


async def snapped(cloud: Disks, told: list[str] | None = None) -> str:
    states = told if told is not None else []
    return await images.snapshot(cloud, OpenStackSettings(), "a-1", "server", "moss", lambda node, state: states.append(state))


async def test_a_snapshot_is_made_once(silent: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is asked for once, also where an answer is lost or a command was killed, is waited for in its states, says whose it is, and
    never takes the place of another; what the cloud gives up is an error."""
    monkeypatch.setattr(images, "INTERVAL", 0)
    told: list[str] = []
    cloud = Disks("queued", "saving", "saving", "active", answers=[failure(503)])
    assert await snapped(cloud, told) == "sha512:abc"
    assert told == ["its image is queued", "its image is saving", "its image is active"]
    assert [item.properties for item in cloud.listed] == [{"wardian-server": "s1", "wardian-environment": "a-1", "wardian-node": "server"}]
    with pytest.raises(ProviderError, match=r"node server: there is an image moss, made at now of server\n.*openstack image delete i0"):
        await snapped(cloud)
    cloud.listed[0].status, cloud.states = "saving", ["active"]
    assert await snapped(cloud) == "sha512:abc"
    assert len(cloud.listed) == 1
    with pytest.raises(ProviderError, match="its image is gone"):
        await snapped(Disks("queued", "gone"))


async def test_an_interrupted_snapshot_is_removed() -> None:
    """Ctrl-C while an image is being made removes that image."""
    cloud, waiting = Disks("queued"), asyncio.Event()
    task = asyncio.create_task(images.snapshot(cloud, OpenStackSettings(), "a-1", "server", "moss", lambda node, state: waiting.set()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cloud.deleted == ["i0"]


@pytest.mark.parametrize(("said", "done"), [("while it is in task_state rebooting", True), ("while it is in vm_state stopped", False)])
async def test_a_reboot_that_is_under_way_is_waited_for(
    silent: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, done: bool
) -> None:
    """A server that reboots already, since an answer was lost or a command was killed, is waited for; one that is shut off says so."""
    states = iter(["REBOOT", "REBOOT", "ACTIVE", "ACTIVE"])
    server = SimpleNamespace(id="s1", name="wardian-a-1-server", metadata=names.metadata("server", SPEC), created_at="", fault=None)

    async def listed(*_: Any) -> list[Any]:
        server.status = next(states)
        return [server]

    def refuse(*_: Any) -> None:
        error = failure(409)
        error.details = f"Cannot 'reboot' instance s1 {said}"
        raise error

    monkeypatch.setattr(growth, "servers", listed)
    monkeypatch.setattr(observation, "servers", listed)
    seen = Snapshot()

    async def nothing(*_: Any) -> Snapshot:
        return seen

    asked = Services(accepts=True)
    asked.compute = SimpleNamespace(reboot_server=refuse)  # type: ignore[attr-defined]
    told: list[str] = []
    work = growth.Growth(asked, Index(tmp_path), OpenStackSettings(floating=False), "a-1", lambda node, state: told.append(state))
    monkeypatch.setattr(work, "choose_bastion", nothing)
    node = next(item for item in small_environment() if item.name == "server")
    if done:
        assert await work.reboot_nodes([node], hard=False) is seen
        assert told == ["rebooting", "REBOOT", "ACTIVE"]
    else:
        with pytest.raises(ProviderError, match=r"vm_state stopped.*\n  `--hard` starts it"):
            await work.reboot_nodes([node], hard=False)
