"""`wardian link` and `wardian verify` on links that are really there."""

from __future__ import annotations

import fcntl
import json
import re

import pytest

from ..stage import Stage, eventually

pytestmark = pytest.mark.root

TEXT = """
name: NAME
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west], delay: 10ms, loss: 5%, rate: 20mbit, queue: 60, mtu: 1400}
nodes:
  server: {networks: [east]}
  client: {networks: [west]}
"""


@pytest.fixture
def up(stage: Stage) -> Stage:
    stage.write(TEXT)
    stage.run("up")
    return stage


def round_trip(stage: Stage) -> float:
    """The smallest round trip from the client to the server, milliseconds."""
    text = stage.run("exec", "client", "--", "ping", "-q", "-c", "5", "-i", "0.05", "-W", "2", "server").stdout
    found = re.search(r"= ([\d.]+)/", text)
    assert found, text
    return float(found.group(1))


def test_what_stays_holds_nothing_of_the_callers(stage: Stage) -> None:
    """Nodes and relays that go on after `up` have none of the files that its caller passed on: a lock on one is free when it has ended."""
    stage.write(TEXT)
    with (stage.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage.run("up", pass_fds=(lock.fileno(),))
    with (stage.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_set_show_and_up(up: Stage) -> None:
    """A delay that is set is there at once, shows, can be cleared, and gives way to the file at the next `up`."""
    before = up.pid("server")
    said = up.run("link", "set", "wan", "--delay", "60ms", "--loss", "none").stdout
    assert "delay 10ms -> 60ms" in said
    assert round_trip(up) >= 120
    shown = up.run("link", "show").stdout.splitlines()
    assert re.search(r"^wan +there +east -> west +ready +delay 60ms, rate 20mbit, queue 60 packets, mtu 1400$", shown[1])
    up.run("link", "set", "wan", "--way", "back", "--delay", "none")
    assert 60 <= round_trip(up) < 120
    (view,) = up.json("link", "show", "wan", "--json")
    assert (view["ways"]["there"]["delay"], "delay" in view["ways"]["back"]) == (0.06, False)
    assert re.search(r"^~ link +wan", up.run("plan").stdout, re.M)
    up.run("up")
    assert round_trip(up) >= 20
    assert up.pid("server") == before
    assert up.run("log", "--kind", "operation").stdout.count("link set") == 2


def test_an_access_link_comes_and_goes(up: Stage) -> None:
    """A node's access link gets a shape and an MTU, and when they go the node still reaches everyone."""
    up.run("link", "set", "client/west", "--delay", "30ms", "--mtu", "1200")
    assert round_trip(up) >= 80
    assert "mtu 1200" in up.run("exec", "client", "ip", "link", "show", "eth0").stdout
    up.run("up")
    assert 20 <= round_trip(up) < 80
    assert "mtu 1500" in up.run("exec", "client", "ip", "link", "show", "eth0").stdout


def test_an_mtu_is_kept(up: Stage) -> None:
    """A packet larger than a link's MTU that may not be cut is refused by the router before it, one of the size is not."""
    up.run("link", "set", "wan", "--loss", "none")
    up.run("exec", "client", "--", "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1372", "server")
    said = up.run("exec", "client", "--", "ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1373", "server", code=1).stdout
    assert "mtu = 1400" in said


def test_errors(up: Stage) -> None:
    """Wrong values, names and nothing at all are each one clear error."""
    assert "expected a duration with its unit" in up.error("link", "set", "wan", "--delay", "80", code=3)
    assert "there are wan, " in up.error("link", "set", "wam", "--delay", "80ms", code=3)
    assert "nothing to change" in up.error("link", "set", "wan", code=2)
    assert "name it .svg, .png or .pdf" in up.error("verify", "--figure", "x.doc", code=1)
    assert "no link is called" in up.error("verify", "lan", code=3)
    assert "the environment of" in up.error("link", "show", "-e", "other", code=4)


def test_a_trace_is_played(up: Stage) -> None:
    """Delay and rate follow a file while nobody looks, and begin again on command."""
    up.write("time,delay_ms,rate_mbit\n0,5,20\n0.5,45,3\n", "walk.csv")
    up.edit("delay: 10ms, loss: 5%, rate: 20mbit", "trace: {file: walk.csv, repeat: no}")
    up.run("up")
    assert "trace walk.csv (1 s, 2 steps, once)" in up.run("link", "show").stdout
    eventually(lambda: round_trip(up) >= 90, "the trace comes to its second step")
    began = beginning(up)
    up.run("link", "restart", "wan")
    assert beginning(up) > began
    helpers = [words for words in up.processes().values() if "player" in words or "relay.py" in words]
    assert len(helpers) == 2
    up.run("link", "set", "wan", "--trace", "none", "--delay", "1ms")
    eventually(lambda: not [words for words in up.processes().values() if "player" in words], "the player ends, with nothing to play")
    assert round_trip(up) < 90


def beginning(stage: Stage) -> float:
    """When the relay takes the link's trace to have begun."""
    config = json.loads((stage.state / "environments" / stage.identity() / "relay.json").read_text())
    return float(config["pairs"][0]["there"]["trace"]["began"])


@pytest.mark.long
@pytest.mark.slow
def test_verify(up: Stage) -> None:
    """Everything that is written of a link is measured both ways, and lies near it; what was changed comes out wrong, with exit code 1."""
    figure = up.folder / "links.svg"
    # whether a busy machine's delays are within a millisecond is not this test's matter
    done = json.loads(up.start("verify", "--json", "--figure", str(figure), "--seconds", "1").communicate(timeout=100)[0])
    found = {(check["source"], check["what"]): check for check in done["checks"]}
    for source in ("server", "client"):
        delay, loss, rate = (found[source, what]["measured"] for what in ("delay", "loss", "rate"))
        assert 0.0099 <= delay < 0.03
        assert 0.02 < loss < 0.09
        assert 15e6 < rate < 21e6
        assert found[source, "queue"]["expected"] == pytest.approx(60 * 1414 * 8 / 20e6)
        assert found[source, "loss"]["over"] == ["wan there" if source == "server" else "wan back"]
    assert [check["measured"] for check in done["checks"] if check["what"] == "mtu"] == [1400]
    assert figure.read_text().startswith("<?xml")
    up.run("link", "set", "wan", "--way", "there", "--delay", "50ms", "--loss", "none")
    said = up.run("verify", "wan", "--seconds", "1", code=1).stdout
    assert re.search(r"^server -> client +wan there +delay +10.00 ms .*FAILED$", said, re.M)
    assert re.search(r"^server -> client +wan there +loss +5% +0% .*FAILED$", said, re.M)
    assert "wan: changed since `up`" in said
    kinds = [entry["summary"] for entry in up.json("log", "--json")]
    assert len([words for words in kinds if words.startswith("verify")]) >= 2
