"""Changing links while they are up, against a provider in memory."""

import pytest

from wardian.errors import BusyError, ExperimentFileError, PlanError, SelectorError
from wardian.experiment.resources import Capabilities

TRACE = "time,delay_ms\n0,10\n1,20\n"


def shape(live, kind, name, way):
    return live.observed.resources[kind, name].spec[way]


async def test_a_link_changes_in_place_and_the_journal_has_it(environment, cloud):
    """Both directions get the new value, nothing else is touched, and the journal says what was done."""
    await environment.up()
    done = len(cloud.operations)
    plan = await environment.set_link("wan", delay="80ms", jitter="2ms")
    assert [(item.action, item.kind, item.names) for item in plan.operations] == [("update", "link", ["wan"])]
    assert [item[:2] for item in cloud.operations[done:]] == [("update", "link")]
    live = await environment.live()
    for way in ("there", "back"):
        assert shape(live, "link", "wan", way) == {"delay": 0.08, "jitter": 0.002, "rate": 10**7, "queue": {"packets": 100}}
    (entry,) = [entry for entry in environment.journal.entries(kinds=["operation"]) if "link set" in entry.summary]
    assert "delay 30ms -> 80ms" in entry.summary
    assert not await environment.set_link("wan", delay="80ms")


async def test_one_direction_and_parts_that_go(environment, cloud):
    """A direction can be changed alone; what goes takes along what means nothing without it."""
    await environment.up()
    await environment.set_link("wan", way="back", rate=None, loss="1%")
    live = await environment.live()
    assert shape(live, "link", "wan", "there") == {"delay": 0.03, "rate": 10**7, "queue": {"packets": 100}}
    assert shape(live, "link", "wan", "back") == {"delay": 0.03, "loss": 0.01}


async def test_access_links_are_made_changed_and_shown(environment, cloud):
    """An access link of which nothing was written gets a shape, for one node or many, and shows with the others."""
    await environment.up()
    plan = await environment.set_link("client/west", delay="5ms", mtu=1400)
    assert [(item.action, item.names) for item in plan.operations] == [("create", ["client[0]/west", "client[1]/west"])]
    plan = await environment.set_link("client[1]/*", way="up", rate="1mbit", queue="64KiB")
    assert [(item.action, item.names) for item in plan.operations] == [("update", ["client[1]/west"])]
    shown = {view.name: view for view in await environment.links()}
    assert list(shown) == ["wan", "client[0]/west", "client[1]/west", "server/east"]
    assert shown["client[1]/west"].text("up") == "delay 5ms, rate 1mbit, queue 64KiB, mtu 1400"
    assert shown["client[1]/west"].text("down") == "delay 5ms, mtu 1400"
    assert shown["server/east"].plain


async def test_up_brings_links_back_to_the_file(environment, cloud):
    """What was set lasts until the next `up`."""
    await environment.up()
    await environment.set_link("wan", delay="80ms")
    await environment.set_link("server/east", loss="1%")
    plan = await environment.up()
    assert [(item.action, item.kind, item.names) for item in plan.operations] == [
        ("delete", "access", ["server/east"]),
        ("update", "link", ["wan"]),
    ]
    assert shape(await environment.live(), "link", "wan", "there")["delay"] == 0.03


async def test_a_matrix_is_named_as_a_whole(environment, cloud, rewrite):
    """The name of a matrix means all its links, a pattern those that it fits."""
    rewrite("{between: [east, west], delay", "{among: [east, west, south], delay")
    rewrite("west: {}}", "west: {}, south: {}}")
    await environment.up()
    plan = await environment.set_link("wan", loss="1%")
    assert plan.operations[0].names == ["wan-east-south", "wan-east-west", "wan-west-south"]
    plan = await environment.set_link("wan-*-south", loss="2%")
    assert plan.operations[0].names == ["wan-east-south", "wan-west-south"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"delay": "80"}, "delay: wrong value; expected a duration with its unit"),
        ({"delay": 0.08}, "got 0.08"),
        ({"rate": "fast"}, "expected a rate such as"),
        ({"queue": "5 cows"}, "a number of packets"),
        ({"mtu": "huge"}, "between 68 and 65521"),
        ({"loss_burst": "3"}, "a loss beside the loss_burst"),
        ({"loss": "90%", "loss_burst": "3"}, "at least 9"),
        ({"colour": "red"}, "unknown field"),
        ({"trace": "none.csv"}, "No such file"),
        ({"mtu": 1400, "way": "there"}, "no direction"),
    ],
)
async def test_wrong_values(environment, cloud, changes, expected):
    """What cannot be is refused with what was expected, and nothing changes."""
    await environment.up()
    done = len(cloud.operations)
    with pytest.raises(ExperimentFileError) as caught:
        await environment.set_link("wan", **changes)
    assert expected in str(caught.value)
    assert len(cloud.operations) == done


async def test_wrong_names_and_directions(environment, cloud):
    """A link that does not exist, and a direction that it does not have, are refused naming what there is."""
    await environment.up()
    with pytest.raises(SelectorError, match="'wam'") as caught:
        await environment.set_link("wam", delay="1ms")
    assert "there are wan, client[0]/west, client[1]/west, server/east" in str(caught.value)
    with pytest.raises(SelectorError):
        await environment.set_link("nobody/west", delay="1ms")
    with pytest.raises(PlanError, match="there and back"):
        await environment.set_link("wan", way="up", delay="1ms")


async def test_a_provider_that_cannot_change_links(environment, cloud):
    """Nothing is made anew behind the user's back."""
    await environment.up()
    cloud.capabilities = Capabilities()
    with pytest.raises(PlanError, match="cannot be changed in place"):
        await environment.set_link("wan", delay="80ms")


async def test_who_works_on_it_goes_first(environment, cloud):
    """While another command holds the environment, links cannot be set."""
    await environment.up()
    live = await environment.live()
    async with live.provider.lock(str(environment.file), environment.instance, "something else"):
        with pytest.raises(BusyError, match="something else"):
            await environment.set_link("wan", delay="80ms")


async def test_a_trace_is_read_set_and_begins_again(environment, cloud, folder):
    """A trace comes with its steps from a file beside the experiment's; begun again, it is taken off and put on."""
    (folder / "lte.csv").write_text(TRACE)
    await environment.up()
    await environment.set_link("wan", way="there", trace="lte.csv")
    trace = shape(await environment.live(), "link", "wan", "there")["trace"]
    assert trace == {"file": "lte.csv", "repeat": True, "length": 2.0, "steps": [[0.0, {"delay": 0.01}], [1.0, {"delay": 0.02}]]}
    done = len(cloud.operations)
    await environment.restart_traces("wan")
    assert [item[:2] for item in cloud.operations[done:]] == [("update", "link")] * 2
    assert shape(await environment.live(), "link", "wan", "there")["trace"] == trace
    with pytest.raises(PlanError, match="no trace"):
        await environment.restart_traces("server/east")


async def test_a_trace_in_the_file(environment, cloud, folder, rewrite):
    """`up` reads the file of a trace, names what is wrong in it, and sees when it changed."""
    rewrite("rate: 10mbit", "trace: lte.csv, rate: 10mbit")
    with pytest.raises(ExperimentFileError, match=r"links\.wan\.trace: No such file"):
        await environment.up()
    (folder / "lte.csv").write_text("time,delay\n0,10\n")
    with pytest.raises(ExperimentFileError, match=r"lte\.csv:2:1: delay: wrong value"):
        await environment.up()
    (folder / "lte.csv").write_text(TRACE)
    await environment.up()
    assert not await environment.up()
    (folder / "lte.csv").write_text(TRACE.replace("20", "30"))
    plan = await environment.up()
    assert [(item.action, item.kind) for item in plan.operations] == [("update", "link")]


async def test_a_matrix_in_a_file(environment, cloud, folder, rewrite):
    """`up` reads the delays of a matrix from its file, and names what that lacks."""
    rewrite('{between: [east, west], delay: "${delay}"', "{among: [east, west], delays: rtt.csv")
    (folder / "rtt.csv").write_text(",east,west\neast,,\n")
    with pytest.raises(ExperimentFileError, match=r"rtt\.csv.*says nothing of east and west"):
        await environment.up()
    (folder / "rtt.csv").write_text(",east,west\neast,,35\n")
    await environment.up()
    assert shape(await environment.live(), "link", "wan-east-west", "back")["delay"] == 0.035
