"""Growing, changing and tearing down, against a provider in memory that can fail."""

import asyncio

import pytest

from wardian.environment import environment as core
from wardian.environment.environment import Environment
from wardian.errors import BusyError, NotUpError, PlanError, ProviderError
from wardian.experiment.resources import Capabilities, Caveat


async def test_up_and_down(environment, cloud):
    """`up` makes all that the file names, a second `up` does nothing, `down` removes everything."""
    plan = await environment.up()
    assert plan
    live = await environment.live()
    assert list(live.nodes) == ["client[0]", "client[1]", "server"]
    assert {view.state for view in live.nodes.values()} == {"ready"}
    assert not await environment.up()
    assert (await environment.down()).existed
    assert await core.live.environments() == []
    with pytest.raises(NotUpError, match="wardian up"):
        await environment.live()


async def test_a_change_in_the_file_changes_just_that(environment, cloud, rewrite):
    """After an edit of the delay, `up` updates the link and nothing else."""
    await environment.up()
    done = len(cloud.operations)
    rewrite("delay: 30ms", "delay: 80ms")
    await environment.up()
    assert [item[:2] for item in cloud.operations[done:] if item[0] != "note"] == [("update", "environment"), ("update", "link")]


async def test_a_parameter_sets_the_count(environment, cloud, folder):
    """`-p clients=4` adds two members to the two that exist."""
    await environment.up()
    wider = Environment(folder / "experiment.yaml", parameters={"clients": "4"})
    plan = await wider.up()
    wider.close()
    assert [(item.action, item.names) for item in plan.operations if item.kind == "node"] == [("create", ["client[2]", "client[3]"])]


async def test_instances_stand_side_by_side(environment, cloud, folder):
    """Two instances of one file are two environments; one's end is not the other's."""
    other = Environment(folder / "experiment.yaml", instance="second")
    await environment.up()
    await other.up()
    assert (await environment.live()).record.id != (await other.live()).record.id
    await environment.down()
    assert (await other.live()).nodes
    other.close()


@pytest.mark.parametrize("kind", ["network", "node", "link", "names"])
@pytest.mark.parametrize("share", [0.0, 0.5])
async def test_up_finishes_what_failed(environment, cloud, kind, share):
    """Whatever step of `up` fails, halfway or at once, another `up` finishes the work."""
    cloud.fail("create", kind=kind, share=share)
    with pytest.raises(ProviderError, match="refused"):
        await environment.up()
    assert await environment.up()
    assert not await environment.plan()


async def test_what_depends_on_a_failure_is_not_begun(environment, cloud):
    """Nodes are not attempted when their networks failed, and the journal says what failed."""
    cloud.fail("create", kind="network")
    events = []
    with pytest.raises(ProviderError):
        await environment.up(listen=events.append)
    assert not any(item[:2] == ("create", "node") for item in cloud.operations)
    assert {(event.operation.kind, event.state) for event in events if not event.resource} >= {("network", "failed"), ("node", "skipped")}
    entries = environment.journal.entries(kinds=["operation"])
    assert [(entry.status) for entry in entries] == ["ok", "failed"]
    assert "refused" in entries[-1].error


async def test_cancelled_up_is_finished_by_the_next(environment, cloud, gate):
    """Ctrl-C in the middle leaves something that the next `up` finishes."""
    task = asyncio.create_task(environment.up())
    while not cloud.operations:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await environment.up()
    assert not await environment.plan()
    assert "cancelled" in {entry.status for entry in environment.journal.entries(kinds=["operation"])}


async def test_two_at_once(environment, cloud, folder, gate):
    """A second `up` while one is at work says who holds it."""
    other = Environment(folder / "experiment.yaml")
    task = asyncio.create_task(environment.up())
    while not cloud.operations:
        await asyncio.sleep(0)
    with pytest.raises(BusyError, match="wardian up"):
        await other.up()
    gate.set()
    await task
    other.close()


async def test_saying_no_changes_nothing(environment, cloud):
    """A plan that is not confirmed is not carried out."""
    assert await environment.up(confirm=lambda plan, lost: False)
    assert cloud.operations == []
    assert await core.live.environments() == []


async def test_strict(environment, cloud):
    """With `strict`, what cannot be honoured is an error that names it, and nothing is made."""
    cloud.capabilities = Capabilities(caveats=(Caveat("link wan", "delay", "not here"),))
    with pytest.raises(PlanError, match="link wan: delay: not here"):
        await environment.up(strict=True)
    assert cloud.operations == []


async def test_a_dead_node(environment, cloud):
    """A node that died shows as stopped with the others untouched, and `up` makes it anew."""
    await environment.up()
    live = await environment.live()
    cloud.stop(live.record.id, "client[1]")
    await live.refresh()
    assert {name: view.state for name, view in live.nodes.items()} == {"server": "ready", "client[0]": "ready", "client[1]": "stopped"}
    plan = await environment.up()
    assert {name for item in plan.operations for name in item.names} == {"client[1]"}


async def test_exec_and_files(environment, cloud, folder):
    """Commands and copies reach the nodes that a selector picks, and are in the journal."""
    await environment.up()
    results = await environment.exec("client", ["sh", "-c", "echo $WARDIAN_NODE"])
    assert [result.node for result in results] == ["client[0]", "client[1]"]
    await environment.put("origin", folder / "serve.py", "copied.py")
    [transfer] = await environment.get("server", "copied.py", folder / "back.py")
    assert (folder / "back.py").read_text() == "print('hello')\n"
    assert transfer.bytes == 15
    assert [entry.status for entry in environment.journal.entries(kinds=["transfer"])] == ["ok", "ok"]


async def test_files_are_copied_in(environment, cloud, folder, rewrite):
    """Files of a node are there when it is up, and copied again when they change."""
    rewrite("roles: [origin]", f"roles: [origin], files: {{serve.py: {folder}/there/serve.py}}")
    await environment.up()
    assert (folder / "there" / "serve.py").read_text() == "print('hello')\n"
    assert not await environment.plan()
    (folder / "serve.py").write_text("print('changed')\n")
    plan = await environment.up()
    assert [item.kind for item in plan.operations] == ["files"]
    assert (folder / "there" / "serve.py").read_text() == "print('changed')\n"


async def test_collecting(environment, cloud, folder, rewrite):
    """`down` fetches what the file names before anything is removed; if it cannot, nothing is removed."""
    await environment.up()
    rewrite("nodes:", f'collect: ["{folder}/log-*.txt"]\nnodes:')
    await environment.up()
    (folder / "log-1.txt").write_text("one")
    live = await environment.live()
    cloud.stop(live.record.id, "client[0]")
    from wardian.errors import TransferError

    with pytest.raises(TransferError, match="nothing was torn down"):
        await environment.down()
    assert (await environment.live()).nodes
    await environment.up()
    outcome = await environment.down()
    assert len(outcome.collected) == 3
    collected = outcome.folder / "server" / str(folder).lstrip("/") / "log-1.txt"
    assert collected.read_text() == "one"


async def test_missing_file_to_copy(environment, cloud, rewrite):
    """A file to copy that does not exist is an error before anything is made."""
    from wardian.errors import ExperimentFileError

    rewrite("roles: [origin]", "roles: [origin], files: {nothere.py: /srv/x.py}")
    with pytest.raises(ExperimentFileError, match=r"nodes\.server\.files\[0\]\.source"):
        await environment.up()
    assert cloud.operations == []


async def test_another_provider(environment, cloud, monkeypatch):
    """An environment that is up on one provider is not silently grown on another."""
    from wardian.providers import registry
    from wardian.providers.memory import MemoryProvider

    await environment.up()

    class Other(MemoryProvider):
        name = "other"

    monkeypatch.setattr(registry, "make", lambda name, settings=None: (Other if name == "other" else MemoryProvider)(cloud=cloud))
    other = Environment(environment.file, provider="other")
    with pytest.raises(PlanError, match="is up on memory, not on other"):
        await other.plan()
