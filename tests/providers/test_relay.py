"""The relay holds, loses and counts frames as it is told, and lives through what happens to its TAPs."""

import json
import os
import random
import select
import signal
import socket
import statistics
import subprocess
import sys
import threading

import pytest

from wardian.providers.local import netlink, relay, relays, shaping
from wardian.providers.local.shaping import Segment

from .fabrics import PORT, Fabric, drain, one_way

A, B = "10.71.0.1", "10.71.0.2"


def seconds(number):
    return round(number * 1e9)


@pytest.fixture
def direction():
    """A direction between two datagram sockets in place of TAPs: (direction, where frames go in, where they come out)."""
    into, source = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    target, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (into, source, target, out):
        end.setblocking(False)
    made = relay.Direction()
    made.source, made.target = source.fileno(), target.fileno()
    yield made, into, out
    for end in (into, source, target, out):
        end.close()


def received(out):
    frames = []
    while True:
        try:
            frames.append(out.recv(4096))
        except BlockingIOError:
            return frames


class TestDirection:
    """One way across, with a clock of the test's own."""

    def test_frames_wait_for_their_delay(self, direction):
        """A frame is sent when its delay is over and not a nanosecond earlier, in the order of arrival."""
        one, into, out = direction
        one.configure({"delay": 0.03, "limit": 10**6})
        for frame in (b"1", b"2"):
            into.send(frame)
        one.receive(seconds(10))
        one.send(seconds(10.03) - 1)
        assert received(out) == []
        one.send(seconds(10.03))
        assert received(out) == [b"1", b"2"]
        assert one.counters() == dict.fromkeys(relay.Direction.COUNTERS, 0) | {"frames": 2, "bytes": 2}

    def test_a_lowered_delay_lets_frames_overtake(self, direction):
        """After the delay was lowered, a frame that is due earlier is sent earlier; raised again, order is kept."""
        one, into, out = direction
        for moment, delay, frame in ((0.0, 0.09, b"slow"), (0.01, 0.03, b"fast"), (0.02, 0.03, b"faster"), (0.03, 0.2, b"last")):
            one.configure({"delay": delay, "limit": 10**6})
            into.send(frame)
            one.receive(seconds(moment))
        one.send(seconds(0.05))
        assert received(out) == [b"fast", b"faster"]
        one.send(seconds(1))
        assert received(out) == [b"slow", b"last"]

    def test_what_is_held_is_bounded(self, direction):
        """Beyond the limit frames are dropped and counted, and there is room again once some were sent."""
        one, into, out = direction
        one.configure({"delay": 0.01, "limit": 3000})
        for _ in range(2):
            for _ in range(5):
                into.send(bytes(1000))
            one.receive(0)
            one.send(seconds(1))
            assert len(received(out)) == 3
        assert (one.frames, one.dropped, one.held) == (6, 4, 0)

    def test_losses_follow_the_seed(self, direction):
        """The same seed loses the same frames, another one others, and changing only the delay goes on with the same draws."""
        one, into, out = direction

        def survivors(seed, delay=0.0):
            one.configure({"loss": 0.3, "limit": 10**6, "seed": None})
            one.configure({"loss": 0.3, "limit": 10**6, "seed": seed})
            for number in range(200):
                if number == 100:
                    one.configure({"loss": 0.3, "limit": 10**6, "seed": seed, "delay": delay})
                into.send(bytes([number]))
                one.receive(0)
                one.send(seconds(5))
            return received(out)

        first = survivors("fern")
        assert 100 < len(first) < 180
        assert survivors("fern") == survivors("fern", 0.5) == first
        assert survivors("moss") != first

    def test_late_frames_are_counted(self, direction):
        """A frame sent more than a millisecond after its time counts as late."""
        one, into, _ = direction
        one.configure({"delay": 0.01, "limit": 10**6})
        for moment in (0.0, 1.0):
            into.send(b"x")
            one.receive(seconds(moment))
            one.send(seconds(moment + (0.0109 if moment else 0.0112)))
        assert (one.frames, one.late) == (2, 1)


@pytest.fixture
def fabric():
    fabric = Fabric()
    fabric.bridge("net")
    fabric.node("a", A)
    fabric.node("b", B)
    fabric.apply(segment(), Segment("b/net", "b", far_bridge="net"))
    yield fabric
    fabric.close()


def segment(delay=0.001):
    return Segment("a/net", "a", far_bridge="net", there={"delay": delay}, back={"delay": delay})


@pytest.mark.root
class TestProcess:
    """The process, between real TAPs."""

    def test_frames_arrive_unchanged(self, fabric, tmp_path):
        """Frames of every size come out as they went in, and in order."""
        generator = random.Random(7)
        sent = [generator.randbytes(generator.randint(1, 1472)) for _ in range(2000)]
        with fabric.relay(tmp_path), fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 2)
            for data in sent:
                a.sendto(data, (B, PORT))
            assert [data for _, data in drain(b)] == sent

    def test_many_segments_in_one_process(self, fabric, tmp_path):
        """One process serves every segment, each with its own delay."""
        names = {f"n{number}": (f"10.71.0.{number + 10}", 0.004 * number) for number in range(1, 6)}
        for name, (address, _) in names.items():
            fabric.node(name, address)
        fabric.apply(*(Segment(name, name, far_bridge="net", there={"delay": delay}) for name, (_, delay) in names.items()))
        with fabric.relay(tmp_path), fabric.udp("b") as b:
            for name, (_, delay) in names.items():
                with fabric.udp(name) as sender:
                    one_way(sender, b, B, 1)
                    assert delay <= one_way(sender, b, B, 20)[0] < delay + 0.003

    def test_a_changed_delay_is_taken_up(self, fabric, tmp_path):
        """SIGHUP makes it read its configuration again; its counters go on from where they were."""
        with fabric.relay(tmp_path) as running, fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 10)
            before = running.counters()["pairs"]["a/net"]["there"]["frames"]
            fabric.apply(segment(0.02))
            running.reload()
            assert one_way(a, b, B, 10)[0] >= 0.02
            assert running.counters()["pairs"]["a/net"]["there"]["frames"] >= before + 10

    def test_an_early_signal_is_survived(self, fabric, tmp_path):
        """Started with its signals blocked, it is not ended by one that comes before it is ready, and takes up what changed."""
        way = {"delay": 0.0, "limit": 1000}
        ghost = {"id": "ghost", "near": "ghost0", "far": "ghost1", "there": way, "back": way}
        config = {"netns": None, "counters": str(tmp_path / "counters"), "pairs": [ghost]}
        (tmp_path / "config").write_text(json.dumps(config))
        signals = {signal.SIGHUP, signal.SIGUSR1}
        command = [sys.executable, "-S", "-E", relay.__file__, str(tmp_path / "config")]
        process = subprocess.Popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signals))
        try:
            for number in signals:
                process.send_signal(number)
            while not (tmp_path / "counters").exists():
                assert process.poll() is None
                threading.Event().wait(0.01)
        finally:
            process.kill()
            process.wait()

    def test_a_broken_configuration_is_survived(self, fabric, tmp_path):
        """What cannot be read is reported, and it goes on as before."""
        with fabric.relay(tmp_path) as running, fabric.udp("a") as a, fabric.udp("b") as b:
            good = running.config.read_text()
            running.config.write_text('{"pairs": [{"id": ')
            running.process.send_signal(signal.SIGHUP)
            assert running.counters()["absent"] == []
            assert one_way(a, b, B, 5)[0] >= 0.001
            running.config.write_text(good)

    def test_a_vanished_tap_is_let_go_and_taken_up_again(self, fabric, tmp_path):
        """When a TAP goes the others are served on; when it is back it is used without being told."""
        with fabric.relay(tmp_path) as running, fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 2)
            shaping.remove(fabric.fd, ["a/net"])
            a.sendto(b"into the void", (B, PORT))
            while running.counters()["absent"] != ["a/net"]:
                pass
            fabric.apply(segment())
            while running.counters()["absent"]:
                pass
            assert one_way(a, b, B, 5)[0] >= 0.001

    def test_more_changes_than_can_be_told(self, fabric):
        """When so many interfaces change at once that the kernel drops some of the news, waiting for the relay goes on all the same."""
        with netlink.interface_changes(fabric.fd) as changes:
            changes.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            with netlink.Netlink.into(fabric.fd) as net:
                net.send([netlink.bridge(f"br{number}") for number in range(50)])
            with pytest.raises(OSError, match="buffer space"):
                changes.recv(1 << 16)
            with netlink.Netlink.into(fabric.fd) as net:
                net.send([netlink.remove(f"br{number}") for number in range(50)])
            relays.drain(changes)
            assert not select.select([changes], [], [], 0)[0]

    def test_taps_are_served_by_one_relay_only(self, fabric, tmp_path):
        """A second relay for the same TAPs says that it has none of them, and the first one goes on."""
        (tmp_path / "second").mkdir()
        with fabric.relay(tmp_path), fabric.udp("a") as a, fabric.udp("b") as b:
            with fabric.relay(tmp_path / "second") as second:
                assert second.counters()["absent"] == ["a/net"]
                assert one_way(a, b, B, 5)[0] >= 0.001

    def test_it_ends_with_its_configuration(self, fabric, tmp_path):
        """Once its configuration file is gone the process ends by itself."""
        with fabric.relay(tmp_path) as running:
            running.config.unlink()
            assert running.process.wait(timeout=20) == 0

    def test_it_makes_no_interface(self, fabric, tmp_path):
        """A pair whose TAPs do not exist is absent, and opening it made nothing."""
        before = {link.name for link in fabric.links()}
        way = {"delay": 0.0, "limit": 1000}
        pair = {"id": "ghost", "near": "ghost0", "far": "ghost1", "there": way, "back": way}
        config = {"netns": f"/proc/{os.getpid()}/fd/{fabric.fd}", "counters": str(tmp_path / "counters"), "pairs": [pair]}
        (tmp_path / "config").write_text(json.dumps(config))
        process = subprocess.Popen([sys.executable, "-S", "-E", relay.__file__, str(tmp_path / "config")])
        try:
            while not (tmp_path / "counters").exists():
                threading.Event().wait(0.05)
            assert json.loads((tmp_path / "counters").read_text())["absent"] == ["ghost"]
            assert {link.name for link in fabric.links()} == before
        finally:
            process.kill()
            process.wait()

    def test_large_frames(self, fabric, tmp_path):
        """Where the MTU is larger than Ethernet's, whole frames go through."""
        for namespace, names in (("a", ["eth0"]), ("b", ["eth0"]), ("fabric", [link.name for link in fabric.links() if link.name != "lo"])):
            with netlink.Netlink.into(fabric.namespaces[namespace]) as net:
                net.send([netlink.change(name, mtu=9000) for name in names])
        with fabric.relay(tmp_path), fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 2)
            data = random.Random(7).randbytes(8900)
            a.sendto(data, (B, PORT))
            assert b.recv(9000) == data


class TestImpairments:
    """What else one way across does, with a clock of the test's own."""

    @pytest.fixture
    def passed(self, direction):
        """Send numbered frames through a direction, a millisecond apart: [(when it came, its number)], nanoseconds from its sending."""
        one, into, out = direction

        def run(count, **asked):
            one.clear()
            one.configure({"limit": 10**9, "seed": None, **asked})
            one.configure({"limit": 10**9, "seed": "fern", **asked})
            sent, came = 0, []
            for moment in range(count + 2000):
                now = seconds(moment / 1000)
                if sent < count:
                    into.send(sent.to_bytes(4, "big"))
                    sent += 1
                    one.receive(now)
                while one.due() <= now:
                    due = one.due()
                    one.send(due)
                    came += [(due, int.from_bytes(frame, "big")) for frame in received(out)]
            return came

        return run

    @pytest.mark.parametrize(("distribution", "deviation"), [("uniform", 3**-0.5), ("normal", 1.0), ("pareto", 0.737)])
    def test_jitter_has_its_distribution(self, passed, distribution, deviation):
        """Delays vary about the one written, as much as the distribution says, and nothing comes before it was sent."""
        came = passed(4000, delay=0.1, jitter=0.01, distribution=distribution)
        delays = [due / 1e9 - number / 1000 for due, number in came]
        assert len(delays) == 4000
        assert statistics.mean(delays) == pytest.approx(0.1, abs=0.001)
        assert statistics.stdev(delays) == pytest.approx(0.01 * deviation, rel=0.1)
        assert min(delays) >= 0.1 - 0.0401
        if distribution == "uniform":
            assert max(delays) <= 0.11
        assert [due for due, _ in came] == sorted(due for due, _ in came)

    def test_jitter_larger_than_the_delay_sends_at_once(self, passed):
        """No delay is less than nothing."""
        came = passed(500, delay=0.001, jitter=0.05)
        assert min(due / 1e9 - number / 1000 for due, number in came) == 0

    @pytest.mark.parametrize(("loss", "burst"), [(0.1, 5), (0.02, 10), (0.3, 1.5)])
    def test_losses_come_in_bursts(self, passed, loss, burst):
        """The share lost is as written, and so is how many in a row are lost on average."""
        count = 40_000
        there = {number for _, number in passed(count, loss=loss, loss_burst=burst)}
        runs, length = [], 0
        for number in range(count):
            if number in there:
                if length:
                    runs.append(length)
                length = 0
            else:
                length += 1
        assert statistics.mean(runs) == pytest.approx(burst, rel=0.2)
        assert 1 - len(there) / count == pytest.approx(loss, rel=0.2)

    def test_duplicates(self, passed):
        """So many frames come twice, both as they were sent."""
        came = passed(10_000, duplicate=0.2, delay=0.005)
        twice = len(came) - len({number for _, number in came})
        assert twice == pytest.approx(2000, abs=3.3 * 40)
        assert {number for _, number in came} == set(range(10_000))

    def test_reordered_frames_do_not_wait(self, passed):
        """So many frames are sent at once and overtake those that wait for the delay."""
        came = passed(10_000, reorder=0.25, delay=0.05)
        at_once = [number for due, number in came if due == seconds(number / 1000)]
        late = [due / 1e9 - number / 1000 for due, number in came if due != seconds(number / 1000)]
        assert len(at_once) == pytest.approx(2500, abs=3.3 * 43)
        assert len(at_once) + len(late) == 10_000
        assert min(late) == pytest.approx(0.05)

    def test_a_trace_is_followed(self, direction, monkeypatch):
        """Each frame has the delay and loss of the moment at which it comes; after its end the trace begins again, or stays as it is."""
        one, into, out = direction
        wall = [1000.0]
        monkeypatch.setattr(relay.time, "time", lambda: wall[0])
        steps = [[0.0, {"delay": 0.01}], [2.0, {"delay": 0.05}], [3.0, {"delay": 0.02}]]
        for repeat, expected in ((True, [0.01, 0.01, 0.05, 0.02, 0.01, 0.01, 0.05]), (False, [0.01, 0.01, 0.05, 0.02, 0.02, 0.02, 0.02])):
            trace = {"began": 1000.0, "length": 4.0, "repeat": repeat, "steps": steps}
            one.configure({"limit": 10**6, "seed": "x", "delay": 7.0, "trace": trace})
            for second, delay in enumerate(expected):
                wall[0] = 1000.5 + second
                now = seconds(50 + second)
                into.send(b"x")
                one.receive(now)
                assert one.due() - now == seconds(delay), (repeat, second)
                one.send(one.due())
                assert received(out) == [b"x"]
