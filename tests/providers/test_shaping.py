"""Segments do to real traffic what their shapes say, and change under it."""

import hashlib
import os
import socket
import statistics
import threading
import time

import pytest

from wardian.errors import ProviderError
from wardian.providers.local import netlink, qdiscs, shaping
from wardian.providers.local.shaping import Segment, layout

from .fabrics import PORT, Fabric, carried, drain, flood, one_way, usual

A, B, C = "10.70.0.1", "10.70.0.2", "10.70.0.3"
WIRE = 1514

pytestmark = pytest.mark.root


@pytest.fixture
def fabric():
    fabric = Fabric()
    fabric.bridge("net")
    fabric.node("a", A)
    fabric.node("b", B)
    yield fabric
    fabric.close()


def access(there=None, back=None, near="a", identity="a/net"):
    return Segment(identity, near, far_bridge="net", there=there or {}, back=back or {})


OPEN = access(near="b", identity="b/net")


def reaches(fabric, sender="a", receiver="b", address=B):
    with fabric.udp(sender) as source, fabric.udp(receiver) as target:
        source.sendto(b"hello", (address, PORT))
        return target.recv(100) == b"hello"


class TestLayout:
    """What a segment is made of, worked out without a kernel."""

    def test_nothing_shaped_is_nothing_made(self):
        """A segment without shapes is its port in the bridge, and nothing else."""
        made = layout(access(), netem=False)
        assert (made.form, made.interfaces, made.masters, made.qdiscs) == ("plain", set(), {"a": "net"}, {})

    @pytest.mark.parametrize("netem", [False, True])
    @pytest.mark.parametrize("there", [{}, {"rate": 10**7}, {"delay": 0.01}, {"loss": 0.1}])
    @pytest.mark.parametrize("far", [{"far_bridge": "net"}, {"far_port": "b"}])
    def test_names_fit_and_ends_meet(self, netem, there, far):
        """Names fit the kernel's fifteen characters, every made interface that is no bridge is in one, and every one is marked."""
        made = layout(Segment("client[119]/a-rather-long-network-name", "a", **far, there=there), netem=netem)
        assert all(len(name) <= 15 for name in made.interfaces)
        bridges = {name for name, kind in made.kinds.items() if kind == "bridge"}
        assert made.interfaces - bridges <= made.masters.keys()
        assert set(made.masters.values()) - {"net"} == bridges
        assert made.aliases.keys() == made.interfaces
        assert all(len(alias) < 256 for alias in made.aliases.values())

    def test_netem_follows_the_rate(self):
        """With netem, a direction's token bucket and its netem stand on two interfaces, the bucket first, sized for what is under way."""
        there = {"rate": 100_000_000, "delay": 0.09, "loss": 0.0005, "queue": {"packets": 50}}
        made = layout(access(there, {"delay": 0.03}), netem=True)
        pairs = {first[-2:]: second[-2:] for first, second in made.pairs.items()}
        kinds = {name[-2:]: kind for name, (kind, _) in made.qdiscs.items()}
        assert (made.form, pairs) == ("netem", {"u0": "v0", "u1": "v1"})
        assert kinds == {"u0": "tbf", "u1": "netem", "v0": "netem"}
        assert {name[-2:] for name in made.whole_frames} == {"u0", "v1"}
        smallest_frames_under_way = 100_000_000 * 0.09 / 8 / 64
        limit = qdiscs.netem_limit(there, 1500)
        assert limit >= smallest_frames_under_way
        expected = netlink.netem(limit=limit, delay=0.09, loss=0.0005)
        assert [options for name, (kind, options) in made.qdiscs.items() if name.endswith("u1")] == [expected]

    def test_netem_between_ports(self):
        """Between two ports each direction's netem stands on the port that it leaves by."""
        shape = {"rate": 10**7, "delay": 0.03}
        made = layout(Segment("wan", "a", far_port="b", there=shape, back=shape), netem=True)
        kinds = {name if len(name) == 1 else name[-2:]: kind for name, (kind, _) in made.qdiscs.items()}
        assert kinds == {"u0": "tbf", "b": "netem", "v0": "tbf", "a": "netem"}

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ({"rate": 10**8, "queue": {"packets": 100, "discipline": "codel"}}, 100 * WIRE),
            ({"rate": 10**8, "queue": {"packets": 100}}, 100 * WIRE),
            ({"rate": 10**8, "queue": {"bytes": 65536}}, 65536),
            ({"rate": 10**8, "queue": {"bytes": 100}}, WIRE),
            ({"rate": 10**8}, 1_250_000),
            ({"rate": 10**5}, 10 * WIRE),
        ],
    )
    def test_queue_sizes(self, shape, expected):
        """A queue is as long as written, never too short for one frame, and a tenth of a second of the rate where nothing is written."""
        assert qdiscs.queue_bytes(shape, 1500) == expected

    def test_an_alias_holds_the_longest_shape(self):
        """Whatever is written, an alias stays within the kernel's 255 characters, and says all of it."""
        identity = f"link:{'a' * 40}-{'b' * 40}-{'c' * 40}"
        odd = 0.123456789012
        trace = {"repeat": True, "length": 2.0, "steps": [[0.0, {"delay": odd}], [1.0, {"delay": 0.2}]]}
        shape = {"delay": odd, "jitter": odd, "distribution": "uniform", "loss": odd, "loss_burst": 1 + odd, "duplicate": odd}
        shape |= {"reorder": odd, "rate": 10**9 + 7, "trace": trace}
        segment = Segment(identity, "a", far_port="b", there=shape, back=shape, began=1795387447.155131)
        made = layout(segment, netem=False)
        assert max(len(alias) for alias in made.aliases.values()) <= 255
        links = [netlink.Link(n, name, "tun", True, 1500, "", 0, 0, made.aliases[name], "") for n, name in enumerate(made.aliases)]
        (pair,) = shaping.relay_config(links, counters="", segments=[segment])["pairs"]
        for part in ("delay", "jitter", "loss", "loss_burst", "duplicate", "reorder"):
            assert pair["there"][part] == pytest.approx(shape[part], rel=1e-5)
        assert pair["there"]["distribution"] == "uniform"
        assert pair["back"]["trace"] == {"began": segment.began, **shape["trace"]}

    def test_a_trace_keeps_the_form(self):
        """While a trace goes on, however slow, fast or nothing a value is, a segment is made of the same interfaces, marked the same."""
        trace = {"repeat": True, "length": 4.0, "steps": [[0.0, {"delay": 0.0, "rate": 10**6}], [2.0, {"delay": 0.05, "rate": 10**7}]]}
        segment = access({"trace": trace}, {})
        for netem in (False, True):
            first, second = (layout(segment.at(moment), netem=netem) for moment in (1.0, 3.0))
            assert (first.interfaces, first.aliases) == (second.interfaces, second.aliases)
            assert first.form == ("netem" if netem else "relay")
            assert first.qdiscs != second.qdiscs

    @pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto"])
    def test_quantiles_have_mean_nothing(self, distribution):
        """A table for netem is centred, ascends, and fits the kernel's sixteen bits."""
        table = qdiscs.quantiles(distribution)
        assert list(table) == sorted(table)
        assert abs(statistics.mean(table)) < 0.03 * qdiscs.SCALE
        assert -32768 <= table[0] <= table[-1] <= 32767

    def test_the_relay_is_told_what_the_aliases_say(self):
        """The relay's configuration is made from the interfaces alone, each direction with its own shape, limit and seed."""
        made = layout(access({"delay": 0.03, "loss": 0.0005, "rate": 10**8}, {"delay": 0.01}), netem=False)
        links = [netlink.Link(n, name, "tun", True, 1500, "", 0, 0, made.aliases[name], "") for n, name in enumerate(made.aliases)]
        (pair,) = shaping.relay_config(links, counters="/counters", seed="fern")["pairs"]
        assert pair["id"] == "a/net"
        assert (pair["near"][-2:], pair["far"][-2:]) == ("t0", "t1")
        assert (pair["there"]["delay"], pair["there"]["loss"], pair["back"]["delay"]) == (0.03, 0.0005, 0.01)
        assert "loss" not in pair["back"]
        assert pair["there"]["limit"] >= 10**8 / 8 * 0.03
        assert pair["there"]["seed"] != pair["back"]["seed"]
        assert shaping.relay_config([], counters="/counters")["pairs"] == []


class TestForms:
    """Making, reading back, changing and removing."""

    def test_the_kernel_is_asked_for_netem(self):
        """The probe leaves this process in its namespace and answers the same when asked again."""
        before = os.readlink("/proc/self/ns/net")
        assert shaping.netem_available() is shaping.netem_available()
        assert os.readlink("/proc/self/ns/net") == before

    @pytest.mark.parametrize("far", ["bridge", "port"])
    @pytest.mark.parametrize("shape", [{}, {"rate": 10**7}])
    def test_plain_and_rate_connect(self, fabric, far, shape):
        """Both forms connect what they stand between, both ways, and are read back as asked for."""
        segments = [Segment("wan", "a", far_port="b", there=shape, back=shape)] if far == "port" else [access(shape, shape), OPEN]
        fabric.apply(*segments)
        assert shaping.differences(fabric.fd, segments, netem=False) == {}
        assert reaches(fabric)
        assert reaches(fabric, "b", "a", A)

    @pytest.mark.parametrize("far", ["bridge", "port"])
    def test_a_relayed_segment_connects(self, fabric, far, tmp_path):
        """So does a segment whose frames go through the relay, once the relay runs."""
        shape = {"delay": 0.005, "rate": 10**8}
        segments = [Segment("wan", "a", far_port="b", there=shape, back=shape)] if far == "port" else [access(shape, shape), OPEN]
        fabric.apply(*segments)
        assert shaping.differences(fabric.fd, segments, netem=False) == {}
        assert shaping.describe(fabric.links()) == {segments[0].id: "relay"}
        with fabric.relay(tmp_path):
            assert reaches(fabric)
            assert reaches(fabric, "b", "a", A)

    def test_applying_again_changes_nothing(self, fabric):
        """What is as it should be is left alone: every interface keeps its index."""
        segments = [access({"rate": 10**7}, {"rate": 10**6}), OPEN]
        fabric.apply(*segments)
        before = fabric.links()
        fabric.apply(*segments)
        assert fabric.links() == before

    def test_changing_numbers_keeps_interfaces(self, fabric):
        """Another delay, loss, rate or queue keeps every interface; only marks and queueing disciplines differ."""
        before = access({"delay": 0.01, "rate": 10**7}, {"delay": 0.01})
        after = access({"delay": 0.05, "loss": 0.1, "rate": 2 * 10**7, "queue": {"packets": 9}}, {"delay": 0.02, "rate": 10**6})
        fabric.apply(before, OPEN)
        indices = {link.name: link.index for link in fabric.links()}
        assert list(shaping.differences(fabric.fd, [after, OPEN], netem=False)) == ["a/net"]
        fabric.apply(after, OPEN)
        assert {link.name: link.index for link in fabric.links()} == indices
        assert shaping.differences(fabric.fd, [after, OPEN], netem=False) == {}

    def test_changing_the_form_keeps_the_ports(self, fabric):
        """From any form to any other the ports stay, nothing of the old form is left, and nothing loops."""
        shapes = [{}, {"rate": 10**7}, {"delay": 0.01}, {"rate": 10**7}, {}, {"delay": 0.01, "rate": 10**7}, {}]
        bare = {link.name for link in fabric.links()}
        ports = {link.name: link.index for link in fabric.links() if link.name in ("a", "b")}
        for shape in shapes:
            segment = access(shape, shape)
            fabric.apply(segment, OPEN)
            assert shaping.differences(fabric.fd, [segment, OPEN], netem=False) == {}
            links = {link.name: link for link in fabric.links()}
            assert links.keys() - bare == layout(segment, netem=False).interfaces
            assert {name: links[name].index for name in ports} == ports
            if "delay" not in shape:
                assert reaches(fabric)

    def test_another_kind_of_queue_takes_the_place(self, fabric):
        """From packets to bytes, to another rate and back, the queue in the bucket is as asked for each time."""
        queues = [{"packets": 10}, {"bytes": 30000}, {"packets": 7}, {"packets": 70}, None]
        for rate in (10**7, 3 * 10**6):
            for queue in queues:
                segment = access({"rate": rate, **({"queue": queue} if queue else {})})
                fabric.apply(segment, OPEN)
                assert shaping.differences(fabric.fd, [segment, OPEN], netem=False) == {}

    def test_all_of_a_segment_has_the_mtu_of_its_port(self, fabric):
        """Whatever is made for a segment carries packets as large as its port does, also when that changes."""
        for mtu in (9000, 1400):
            with netlink.Netlink.into(fabric.fd) as net:
                net.send([netlink.change("a", mtu=mtu)])
            segment = access({"rate": 10**7, "delay": 0.001})
            fabric.apply(segment, OPEN)
            made = layout(segment, mtu, netem=False).interfaces
            assert {link.mtu for link in fabric.links() if link.name in made} == {mtu}

    def test_what_was_broken_is_seen_and_repaired(self, fabric):
        """A missing interface, a missing token bucket and a port in the wrong place are each named, and applying again mends them."""
        segment = access({"rate": 10**7}, {"rate": 10**7})
        fabric.apply(segment, OPEN)
        with netlink.Netlink.into(fabric.fd) as net:
            bucket = next(link for link in net.links() if link.name.endswith("v0"))
            net.send([netlink.remove_qdisc(bucket.index), netlink.change("a", master=0)])
        words = " ".join(shaping.differences(fabric.fd, [segment], netem=False)["a/net"])
        assert "a is not in" in words
        assert "not tbf" in words
        with netlink.Netlink.into(fabric.fd) as net:
            net.send([netlink.remove(bucket.name)])
        assert "is missing" in " ".join(shaping.differences(fabric.fd, [segment], netem=False)["a/net"])
        fabric.apply(segment, OPEN)
        assert shaping.differences(fabric.fd, [segment], netem=False) == {}
        assert reaches(fabric)

    def test_remove_leaves_ports_only(self, fabric):
        """Removing takes all that was made for a segment, and is no error when repeated."""
        bare = {link.name for link in fabric.links()}
        fabric.apply(access({"delay": 0.01}, {"rate": 10**7}), Segment("wan", "b", far_bridge="net", there={"rate": 10**6}))
        for _ in range(2):
            shaping.remove(fabric.fd, ["a/net", "wan"])
            assert {link.name for link in fabric.links()} == bare

    def test_a_missing_port_is_an_error(self, fabric):
        """A port or bridge that is not there is named, and nothing is made."""
        before = fabric.links()
        with pytest.raises(ProviderError, match="no interface nowhere"):
            fabric.apply(access(near="nowhere"))
        assert fabric.links() == before


class TestTraffic:
    """What happens to packets."""

    @pytest.mark.parametrize("delay", [0.01, 0.03])
    def test_delay_is_one_way_and_as_written(self, fabric, delay, tmp_path):
        """No packet is earlier than the delay of its direction, and most are little later; the other direction has its own."""
        fabric.apply(access({"delay": delay}, {"delay": delay / 2}), OPEN)
        with fabric.relay(tmp_path), fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 2)
            there, back = one_way(a, b, B), one_way(b, a, A)
        assert delay <= there[0]
        assert statistics.median(there) < delay + 0.01
        assert delay / 2 <= back[0]
        assert statistics.median(back) < delay / 2 + 0.01

    def test_loss_is_as_written(self, fabric, tmp_path):
        """Of many packets the share written is lost, within five deviations; none is lost the other way or doubled or reordered."""
        count, loss = 6000, 0.05
        fabric.apply(access({"loss": loss}), OPEN)
        with fabric.relay(tmp_path) as relay, fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(b, a, A, 2)
            for sender, receiver, address in ((a, b, B), (b, a, A)):
                for number in range(count):
                    sender.sendto(number.to_bytes(8, "big"), (address, PORT))
                    if number % 50 == 0:
                        threading.Event().wait(0.002)
                arrived = [int.from_bytes(data, "big") for _, data in drain(receiver)]
                assert arrived == sorted(set(arrived))
                if sender is a:
                    expected, spread = count * loss, 5 * (count * loss * (1 - loss)) ** 0.5
                    assert abs(count - len(arrived) - expected) <= spread + 1
                else:
                    assert len(arrived) == count
            counted = relay.counters()["pairs"]["a/net"]
        assert counted["there"]["lost"] >= expected - spread - 1
        assert (counted["back"]["lost"], counted["there"]["dropped"], counted["back"]["dropped"]) == (0, 0, 0)

    @pytest.mark.parametrize("delay", [0.0, 0.02])
    def test_rate_is_as_written(self, fabric, delay, tmp_path):
        """What arrives of a flood is the rate written, within five per cent, with and without a delay behind it."""
        rate, seconds = 20_000_000, 2.0
        # a queue that lasts while a busy machine lets the sender wait
        fabric.apply(access({"rate": rate, "delay": delay, "queue": {"packets": 400}}), OPEN)
        with fabric.relay(tmp_path), fabric.udp("a") as a, fabric.udp("b") as b:
            sender = threading.Thread(target=flood, args=(a, B, 2 * rate, seconds))
            sender.start()
            arrived = [moment for moment, _ in drain(b)]
            sender.join()
        assert carried(arrived[len(arrived) // 5 :], WIRE) == pytest.approx(rate, rel=0.05)
        # what a wait held up may come faster after it, but not more than the rate in all
        assert (len(arrived) - 1) * WIRE * 8 / (arrived[-1] - arrived[0]) < 1.05 * rate

    @pytest.mark.parametrize(("queue", "octets"), [({"packets": 20}, 20 * WIRE), ({"packets": 80}, 80 * WIRE), ({"bytes": 65536}, 65536)])
    def test_a_full_queue_delays_by_its_length(self, fabric, queue, octets, tmp_path):
        """Under overload packets wait as long as the queue takes to empty at the rate; then comes the delay, and the rest is lost."""
        shape = {"rate": 10_000_000, "queue": queue, "delay": 0.01}
        fabric.apply(access(shape), OPEN)
        with fabric.relay(tmp_path), fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 2)
            received = []
            reader = threading.Thread(target=lambda: received.extend(drain(b)))
            reader.start()
            sent = flood(a, B, 20_000_000, 1.5)
            reader.join()
        waits = [moment - float(data.split()[0]) for moment, data in received]
        full = usual(waits[len(waits) // 4 :]) - shape["delay"]
        assert full == pytest.approx(octets * 8 / shape["rate"], rel=0.25)
        assert len(received) < 0.75 * sent

    def test_a_queue_of_packets_counts_packets(self, fabric):
        """However small packets are, and however many the kernel hands on as one, a queue of ten holds ten."""
        fabric.apply(access({"rate": 1_000_000, "queue": {"packets": 10}}), OPEN)
        with fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(a, b, B, 2)
            began = time.monotonic()
            for number in range(200):
                a.sendto(number.to_bytes(8, "big") + bytes(92), (B, PORT))
            meanwhile = (time.monotonic() - began) * 1_000_000 / 8
            small = len(drain(b))
            a.setsockopt(socket.IPPROTO_UDP, 103, 1000)
            a.sendto(bytes(40_000), (B, PORT))
            cut = [data for _, data in drain(b)]
        # what the bucket lets pass at once goes beside the queue, and what the link carries while we send
        burst = qdiscs.burst_bytes({"rate": 1_000_000}, 1500)
        assert 10 <= small <= 10 + (burst + meanwhile) // 142 + 2
        assert {len(data) for data in cut} == {1000}
        assert 10 <= len(cut) <= 10 + burst // 1042 + 2

    def test_a_lossy_jittery_link_does_all_of_it(self, fabric, tmp_path):
        """Jitter, losses in a row, copies and packets that overtake come through the relay together, and none of it the other way."""
        shape = {"delay": 0.02, "jitter": 0.005, "distribution": "normal", "loss": 0.1, "loss_burst": 3, "duplicate": 0.1, "reorder": 0.1}
        count = 3000
        fabric.apply(access(shape), OPEN)
        with fabric.relay(tmp_path) as relay, fabric.udp("a") as a, fabric.udp("b") as b:
            one_way(b, a, A, 2)
            for number in range(count):
                a.sendto(number.to_bytes(8, "big"), (B, PORT))
                if number % 20 == 0:
                    threading.Event().wait(0.002)
            arrived = [int.from_bytes(data, "big") for _, data in drain(b)]
            back = one_way(b, a, A, 20)
            counted = relay.counters()["pairs"]["a/net"]
        there = counted["there"]
        # a few frames are not datagrams: who has which address
        assert 0 <= there["frames"] - len(arrived) < 10
        assert 200 < there["duplicated"] < 400
        assert 150 < there["lost"] < 480
        assert 200 < there["reordered"] < 420
        assert arrived != sorted(arrived)
        assert back[0] < 0.02
        assert (counted["back"]["lost"], counted["back"]["duplicated"], counted["back"]["reordered"]) == (0, 0, 0)

    def test_what_crosses_a_link_shares_its_queue(self, fabric):
        """Two nodes' floods across one link together get its rate, and a third party's small packets wait behind them."""
        fabric.node("c", C)
        fabric.bridge("west")
        with netlink.Netlink.into(fabric.fd) as net:
            net.send([netlink.veth("uplink", "port")])
            net.send([netlink.change("uplink", up=True, master=net.index("west")), netlink.change("port", up=True)])
        rate = 10_000_000
        shape = {"rate": rate, "queue": {"packets": 50}}
        fabric.apply(
            Segment("a/west", "a", far_bridge="west"),
            Segment("c/west", "c", far_bridge="west"),
            Segment("wan", "port", far_port="b", there=shape, back=shape),
        )
        with fabric.udp("a", port=4001) as a, fabric.udp("c", port=4003) as c, fabric.udp("b") as b:
            senders = [threading.Thread(target=flood, args=(item, B, rate, 1.5)) for item in (a, c)]
            for sender in senders:
                sender.start()
            received = drain(b)
            for sender in senders:
                sender.join()
        settled = received[len(received) // 5 :]
        assert carried([moment for moment, _ in settled], WIRE) == pytest.approx(rate, rel=0.05)
        shares = [sum(data.split()[1] == port for _, data in settled) for port in (b"4001", b"4003")]
        assert min(shares) > len(settled) * 0.1
        waits = [moment - float(data.split()[0]) for moment, data in settled]
        assert usual(waits) == pytest.approx(50 * WIRE * 8 / rate, rel=0.25)

    def test_a_stream_survives_every_change(self, fabric, tmp_path):
        """A TCP stream goes on, byte for byte, while delay, loss and rate change and while the form does."""
        shapes = [
            {"delay": 0.01, "rate": 30_000_000},
            {"delay": 0.03, "rate": 30_000_000},
            {"delay": 0.005, "rate": 60_000_000},
            {"rate": 20_000_000},
            {},
            {"delay": 0.01, "loss": 0.001},
        ]
        fabric.apply(access(shapes[0], shapes[0]), OPEN)
        with fabric.relay(tmp_path) as relay, fabric.listener("b") as listener:
            stream = fabric.connect("a", B)
            connection, _ = listener.accept()
            connection.settimeout(20)
            stopping = threading.Event()
            sent = hashlib.sha256()

            def write():
                number = 0
                with stream:
                    while not stopping.is_set():
                        data = number.to_bytes(8, "big") * 1024
                        stream.sendall(data)
                        sent.update(data)
                        number += 1
                    stream.shutdown(socket.SHUT_WR)
                    stream.recv(1)

            writer = threading.Thread(target=write)
            writer.start()
            received = hashlib.sha256()
            for shape in [*shapes[1:], shapes[0]]:
                fabric.apply(access(shape, shape), OPEN)
                relay.reload()
                size = 0
                while size < 1_000_000:
                    data = connection.recv(65536)
                    assert data, "the stream broke"
                    received.update(data)
                    size += len(data)
            stopping.set()
            while data := connection.recv(65536):
                received.update(data)
            connection.close()
            writer.join()
        assert received.digest() == sent.digest()
