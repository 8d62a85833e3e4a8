"""One experiment at several sites, each with a provider of its own, against providers in memory that can fail."""

import asyncio
from dataclasses import replace

import pytest

from wardian.environment import keeper, live, slots
from wardian.environment.environment import Environment
from wardian.errors import ExperimentFileError, NodeDownError, PlanError, ProviderError
from wardian.experiment.resources import KINDS, Capabilities, Caveat, Observed, Resource
from wardian.providers import registry
from wardian.providers.base import Provider, Slots
from wardian.providers.memory import IN_PLACE, MemoryCloud, MemoryProvider, _started_with
from wardian.providers.several.shares import shares
from wardian.providers.testing import ResourceContract, small_environment

TEXT = """
name: study
provider: uc
parameters: {clients: 2}
sites:
  uc: {provider: north}
  tacc: {provider: south}
networks: {east: {}, west: {}, lan: {}}
links:
  wan: {between: [east, west], delay: 30ms, rate: 10mbit}
nodes:
  server: {networks: [east], roles: [origin], env: {PLANT: fern}}
  client: {count: "${clients}", networks: {west: {delay: 1ms}}}
  mirror: {site: tacc, networks: [lan], env: {PLANT: fern}}
"""

SITES = {"uc": "north", "tacc": "south"}
SERVICE = 'services: {web: {on: "server,mirror", command: "echo serving; exec sleep 1d", ready: {log: serving}}}'

PLAN = """\
+ environment study  (new)
+ site        uc, tacc  (new)
+ network     east, west, lan  (new)
+ node        server, client[0:2], mirror  (new)
+ link        wan  (new)
+ access      client[0:2]/west  (new)
+ names       uc, tacc  (new)
"""

MOVE = """\
- names       tacc  (no longer in the file)
- node        mirror  (remade with network lan)
- network     lan  (site tacc -> utah)
- site        tacc  (no longer in the file)
+ site        utah  (new)
+ network     lan  (site tacc -> utah)
+ node        mirror  (remade with network lan)
+ names       utah  (new)

4 to create, 0 to change, 4 to delete"""


@pytest.fixture
def clouds(monkeypatch, tmp_path):
    """What the providers `north` and `south` hold, each in its memory."""
    clouds = {name: MemoryCloud() for name in ("north", "south", "aside")}
    make = registry.make
    monkeypatch.setattr(
        registry, "make", lambda name, settings=None: MemoryProvider(cloud=clouds[name]) if name in clouds else make(name, settings)
    )
    monkeypatch.setattr(registry, "names", lambda: list(clouds))
    monkeypatch.setattr(registry, "nearest_first", lambda: [registry.SEVERAL, *clouds])
    monkeypatch.setattr(registry, "settings_models", lambda: dict.fromkeys(clouds, MemoryProvider.Settings))
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    yield clouds
    for cloud in clouds.values():
        cloud.close()


@pytest.fixture
def write(tmp_path):
    """Write the experiment file, with changes in it: `write(old, new, …)`; gives its environment."""
    path, opened = tmp_path / "experiment.yaml", []

    def write(*changes: str, **options: object) -> Environment:
        text = TEXT
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        opened.append(Environment(path, **options))
        return opened[-1]

    yield write
    for environment in opened:
        environment.close()


def nodes(cloud: MemoryCloud) -> dict[str, str]:
    """{node: state} of all that a cloud holds."""
    return {name: item.state for held in cloud._environments.values() for (kind, name), item in held.resources.items() if kind == "node"}


def held(clouds: dict[str, MemoryCloud]) -> list[object]:
    return [held for cloud in clouds.values() for held in cloud._environments.values()]


async def test_each_site_has_its_own(clouds, write):
    """`up` makes each node at its site; all is one environment to look at and to work on, and `down` leaves nothing anywhere."""
    environment = write("nodes:", SERVICE + "\nnodes:")
    assert str(await environment.plan()).startswith(PLAN)
    await environment.up()
    assert not await environment.plan()
    assert nodes(clouds["north"]) == dict.fromkeys(["client[0]", "client[1]", "server"], "ready")
    assert nodes(clouds["south"]) == {"mirror": "ready"}
    said = {result.node: result.stdout for result in await environment.exec("origin,mirror", ["sh", "-c", "echo $PLANT"])}
    assert said == {"server": "fern\n", "mirror": "fern\n"}
    observed = await environment.observe()
    assert {item.state for item in observed.resources.values()} == {"ready"}
    assert {item.name for item in observed.of("service")} == {"web@server", "web@mirror"}
    names = [["10.64.0.2", "server"], ["10.64.1.2", "client-0"], ["10.64.1.3", "client-1"]]
    assert {item.name: item.spec["tables"] for item in observed.of("names")} == {
        "uc": {"east": names, "west": names},
        "tacc": {"lan": [["10.64.2.2", "mirror"]]},
    }
    ((record, _),) = await live.environments()
    assert (record.provider, record.instance) == ("north+south", "default")
    for name in registry.holders():
        assert await registry.make(name).collect_garbage(quiet) == []
    assert nodes(clouds["south"]) == {"mirror": "ready"}
    (there,) = clouds["south"]._environments
    of_mirror = f"WARDIAN_RUN_DIR={clouds['south'].folder(there, 'mirror')}/run"
    assert _started_with(of_mirror)
    assert (await environment.down()).existed
    assert held(clouds) == [] == await live.environments() == _started_with(of_mirror)


@pytest.mark.parametrize("site", ["north", "south"])
@pytest.mark.parametrize("kind", ["environment", "network", "node", "names"])
async def test_up_finishes_what_failed_at_one_site(clouds, write, site, kind):
    """Whatever fails at one site, another `up` finishes the work, and so does `down`, from what exists."""
    environment = write()
    clouds[site].fail("create", kind=kind)
    with pytest.raises(ProviderError, match="refused"):
        await environment.up()
    await environment.up()
    assert not await environment.plan()
    assert {item.state for item in (await environment.observe()).resources.values()} == {"ready"}
    await environment.down()
    clouds[site].fail("create", kind=kind)
    with pytest.raises(ProviderError, match="refused"):
        await environment.up()
    clouds["south"].fail("destroy")
    with pytest.raises(ProviderError, match="refused"):
        await environment.down()
    ((record, _),) = await live.environments()
    assert record.provider == "north+south"
    await environment.down()
    assert held(clouds) == [] == await live.environments()


async def test_up_that_is_cut_short_between_sites(clouds, write):
    """Cut short while one site is made and the other not begun, as by a kill, nothing is lost sight of."""
    clouds["south"].gate = asyncio.Event()
    growing = asyncio.create_task(write().up())
    while not held(clouds):
        await asyncio.sleep(0)
    growing.cancel()
    await asyncio.wait([growing])
    clouds["south"].gate = None
    environment = write()
    ((record, _),) = await live.environments()
    assert record.provider == "north+south"
    await environment.up()
    assert not await environment.plan()
    await environment.down()
    assert held(clouds) == []


async def test_a_node_moves(clouds, write):
    """With another site in the file the node is made there and removed where it was, and a site without anything is ended."""
    await write().up()
    moved = write("site: tacc", "site: utah", "sites:", "sites:\n  utah: {provider: aside}")
    plan = await moved.plan()
    assert str(plan) == MOVE
    await moved.up()
    assert nodes(clouds["aside"]) == {"mirror": "ready"}
    assert not clouds["south"]._environments
    assert not await moved.plan()
    wider = write("site: tacc", "site: utah", "sites:", "sites:\n  utah: {provider: aside}", "clients: 2", "clients: 3")
    assert [(item.kind, item.names) for item in (await wider.up()).operations if item.kind == "node"] == [("node", ["client[2]"])]
    with pytest.raises(PlanError, match="is up on several sites, not on memory"):
        await write("site: tacc", "site: uc").plan()
    await wider.down()
    assert held(clouds) == []


async def test_what_a_site_can_do_is_its_own(clouds, write):
    """What changes in place at one site is made anew at another that cannot, and what cannot be honoured names its site."""
    await write().up()
    caveat = Caveat("node mirror", "cpus", "there is no limit")
    clouds["south"].capabilities = Capabilities(IN_PLACE - {("node", "env")}, (caveat,))
    plan = await write("fern", "moss").plan()
    assert [(item.action, item.names) for item in plan.operations if item.kind == "node"] == [
        ("delete", ["mirror"]),
        ("update", ["server"]),
        ("create", ["mirror"]),
    ]
    assert [str(item) for item in plan.caveats] == ["node mirror: cpus: at tacc: there is no limit"]
    await write("fern", "moss").up()
    assert not await write("fern", "moss").plan()
    await write().down()


async def test_faults_over_sites(clouds, write, monkeypatch):
    """A fault reaches the nodes and links of each site, is undone there, and one that a site does not know is refused before it begins."""
    environment = write()
    await environment.up()
    async with environment.fault.pause("server,mirror"):
        suffering = {target for cloud in clouds.values() for _, _, target in cloud.suffered}
        assert suffering == {"server", "mirror"}
    async with environment.fault.flap("client[0]/west", every="1d", down="12h"), environment.fault.flap("wan", every="1d", down="12h"):
        assert {target for _, _, target in clouds["north"].suffered} == {"client[0]/west", "wan"}
    async with environment.fault.partition("client", "mirror"):
        assert [len(cloud.suffered) for cloud in clouds.values()] == [2, 1, 0]
    assert not any(cloud.suffered for cloud in clouds.values())
    assert await environment.fault.kill("client[1],mirror") == ["client[1]", "mirror"]
    assert (nodes(clouds["north"])["client[1]"], nodes(clouds["south"])["mirror"]) == ("stopped", "stopped")
    await environment.up()

    made = registry.make

    class Calm(MemoryProvider):
        faults = frozenset({"slow"})

    calm = lambda name, settings=None: Calm(cloud=clouds[name]) if name == "south" else made(name, settings)  # noqa: E731
    monkeypatch.setattr(registry, "make", calm)
    with pytest.raises(ProviderError, match="site tacc, knows no pause"):
        await environment.fault.pause("server,mirror")
    assert not any(cloud.suffered for cloud in clouds.values())
    assert await environment.fault.in_force() == []
    await environment.down()


async def test_nodes_made_anew_over_sites(clouds, write, monkeypatch):
    """A rebuild reaches the nodes of each site; what one of the sites cannot do, or knows by another name, is refused before it begins."""
    environment = write()
    await environment.up()
    before = {name: len(cloud.operations) for name, cloud in clouds.items()}
    with pytest.raises(ProviderError, match="memory does not reboot nodes"):
        await environment.reboot("server,mirror")
    with pytest.raises(ProviderError, match="image moss is another at each site"):
        await environment.rebuild("server,mirror", image="moss")
    assert before == {name: len(cloud.operations) for name, cloud in clouds.items()}
    plan = await environment.rebuild("server,mirror")
    assert {name for item in plan.operations if item.action == "rebuild" for name in item.names} == {"server", "mirror"}
    assert not await environment.plan()


async def test_one_place_in_spite_of_the_file(clouds, write):
    """`--provider` has all of it grow at one place, and sites of one provider with the same settings are one place."""
    alone = write(provider="tacc")
    await alone.up()
    assert set(nodes(clouds["south"])) == {"server", "client[0]", "client[1]", "mirror"}
    assert not clouds["north"]._environments
    with pytest.raises(PlanError, match="is up on memory, not on several sites"):
        await write().plan()
    await alone.down()
    same = write("{provider: south}", "{provider: north}", "networks: [lan]", "networks: [east]")
    assert same.provider().name == "memory"


@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        ("networks: [lan]", "networks: [east]", "nodes.mirror.site", "is at tacc, and its network east at uc, with node server"),
        ("[east, west]", "[east, lan]", "links.wan.between", "joins network east at uc to lan at tacc"),
        ("networks: [lan]", "networks: [lan, west]", "nodes.mirror.site", "is at tacc, and its network west at uc, with node client"),
    ],
)
def test_no_network_between_sites(clouds, write, old, new, field, said):
    """A network or a link that would have to lead from one site to another is an error at its place in the file, which says what to do."""
    with pytest.raises(ExperimentFileError, match=said) as caught:
        write(old, new).load()
    (problem,) = caught.value.problems
    assert problem.field == field
    assert problem.line
    assert problem.expected == "networks of one site: no network or link reaches from one to another"


async def test_gc_and_what_is_left(clouds, write):
    """A part that was lost at one site is made again, and the record goes once no site has anything."""
    await write().up()
    ((record, provider),) = await live.environments()
    (part,) = clouds["south"]._environments
    await MemoryProvider(cloud=clouds["south"]).destroy(part, quiet)
    assert await provider.collect_garbage(quiet) == []
    observed = await provider.observe(record.id)
    assert (observed.resources["site", "tacc"].state, observed.resources["site", "uc"].state) == ("stopped", "ready")
    await write().up()
    assert not await write().plan()
    for cloud in clouds.values():
        for part in list(cloud._environments):
            await MemoryProvider(cloud=cloud).destroy(part, quiet)
    async with provider.lock(record.file, record.instance, "up"):
        assert await registry.make(registry.SEVERAL).collect_garbage(quiet) == []
    assert await registry.make(registry.SEVERAL).collect_garbage(quiet) == [
        f"environment {record.id}: none of its sites has anything of it"
    ]
    assert await live.environments() == []


async def test_a_lease_is_one(clouds, write):
    """The lease of the environment is that of all its parts: changed for all, and over as soon as one site ends its own."""
    environment = write("nodes:", "lease: {duration: 2h}\nnodes:")
    await environment.up()
    before = keeper.lease_end((await environment.live()).record)
    assert await environment.extend_lease("1h") == pytest.approx(before + 3600)
    leases = [held.record.spec["lease"]["duration"] for held in held(clouds)]
    assert leases == [10800.0, 10800.0]
    await environment.down()


async def test_slots_of_parts(clouds, write, monkeypatch):
    """Each site says when it could hold its part; the last line says when all could be held at once."""
    windows = {"server": ((100.0, 200.0), (300.0, 400.0)), "mirror": ((150.0, 320.0), (500.0, 600.0))}

    async def said(self: Provider, desired: list[Resource], days: int) -> Slots | None:
        (first, *_) = [item.name for item in desired if item.kind == "node"]
        return Slots(first, 3, windows[first])

    monkeypatch.setattr(MemoryProvider, "slots", said)
    found = await write().slots()
    assert [(item.site, item.slots.needs) for item in found] == [
        ("uc", "server"),
        ("tacc", "mirror"),
        ("all sites", "all of it at one time"),
    ]
    assert found[-1].slots.windows == ((150.0, 200.0), (300.0, 320.0))
    assert [item.site for item in await write().slots(["tacc"])] == ["tacc"]
    assert slots.common(((0.0, 1.0),), ((2.0, 3.0),)) == ()


class TestContract(ResourceContract):
    """What every provider promises of resources, with all that the suite works on at one of two sites."""

    @pytest.fixture
    def provider(self, clouds):
        return registry.make(registry.SEVERAL, {"sites": {"uc": {"provider": "north"}, "tacc": {"provider": "south"}}})

    def fresh(self, provider):
        return registry.make(registry.SEVERAL)

    def resources(self, instance="default"):
        environment, *others = small_environment(instance)
        placed = [replace(item, spec={**item.spec, "site": "uc"}) if item.kind == "node" else item for item in others]
        far = Resource("network", "far", {"subnet": "10.63.0.0/24", "gateway": None, "routes": []})
        interface = {"name": "eth0", "network": "far", "address": "10.63.0.2/24"}
        spec = {**placed[2].spec, "hostname": "mirror", "group": "mirror", "site": "tacc", "interfaces": [interface], "routes": []}
        parts = shares([environment, *placed, far, Resource("node", "mirror", spec)], ["uc", "tacc"])
        sites = [Resource("site", site, {"site": site, "provider": name, "settings": {}}) for site, name in SITES.items()]
        whole = [environment, *sites, *(item for items in parts.values() for item in items if item.kind != "environment")]
        return sorted(whole, key=lambda item: KINDS.index(item.kind))

    async def stop_node(self, provider, environment, node):
        _, part = provider.of_node(environment, node)
        provider.of_node(environment, node)[0].cloud.stop(part, node)


async def test_a_node_that_is_not_there(clouds, write):
    """A node of no site is an error that names it."""
    provider = registry.make(registry.SEVERAL)
    with pytest.raises(NodeDownError, match="ghost"):
        await provider.channel("none", "ghost").start(["true"])
    assert await provider.observe("none") == Observed()


def quiet(name: str, state: str) -> None:
    """Nobody listens."""
