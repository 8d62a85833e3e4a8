"""Captures: whole pcap files here of what nodes and links see, whatever is installed on the node."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from wardian.environment.capture import SNIFFER, Records

from ..stage import WARDIAN, Stage, eventually, require

TEXT = """
name: NAME
networks: {east: {}, west: {}}
links:
  wan: {between: [east, west]}
nodes:
  a: {networks: [east]}
  b: {networks: [west]}
  bare: {networks: [east], env: {PATH: /nothing}}
"""


def pcap(packets: list[bytes], order: str = "<") -> bytes:
    head = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return head + b"".join(struct.pack(f"{order}IIII", 1, 2, len(packet), len(packet)) + packet for packet in packets)


def parse(data: bytes) -> list[bytes]:
    """The packets of a whole pcap file; fails for one that is cut short."""
    packets, place = [], 24
    while place < len(data):
        (size,) = struct.unpack_from("=I", data, place + 8)
        assert place + 16 + size <= len(data), "the last record is cut short"
        packets.append(data[place + 16 : place + 16 + size])
        place += 16 + size
    return packets


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_records_are_whole(order: str, step: int) -> None:
    """However a file arrives, what is given on ends with a whole record, and all of it is given on."""
    data = pcap([b"x" * size for size in (0, 1, 60, 1500)], order)
    records, given = Records(), b""
    for start in range(0, len(data), step):
        given += records.feed(data[start : start + step])
        assert given in {data[:end] for end in (0, 24, 40, 57, 133, 1649)}
    assert given == data
    assert (records.packets, records.bytes) == (4, len(data))


def test_records_up_to_a_count() -> None:
    """With a count, just so many are given on."""
    records = Records()
    assert records.feed(pcap([b"a", b"b", b"c"]), 2) == pcap([b"a", b"b"])
    assert records.packets == 2


def test_records_of_something_else() -> None:
    """What is no pcap file is refused."""
    with pytest.raises(ValueError, match="pcap"):
        Records().feed(b"tcpdump: you don't have permission")


@pytest.mark.root
@pytest.mark.parametrize("interface", ["lo", "any"])
def test_reader_leaves_out_the_connection_that_it_runs_over(interface: str) -> None:
    """Of two connections our own reader shows the one that does not bring its output here."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        own, other = (stack.enter_context(socket.create_connection(server.getsockname())) for _ in range(2))
        env = {**os.environ, "SSH_CONNECTION": "{0[0]} {0[1]} {1[0]} {1[1]}".format(own.getsockname(), own.getpeername())}
        reader = stack.enter_context(
            subprocess.Popen([sys.executable, str(SNIFFER), interface, ""], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        )
        assert reader.stdout is not None
        seen = reader.stdout.read(24)
        own.sendall(b"what nobody shall see")
        other.sendall(b"what shall be seen")
        while b"what shall be seen" not in seen:
            seen += os.read(reader.stdout.fileno(), 65536)
        reader.send_signal(signal.SIGINT)
        assert b"what nobody shall see" not in seen + reader.stdout.read()


@pytest.mark.root
def test_reader_without_rights_over_the_network() -> None:
    """Our own reader serves where it may see packets and nothing more, as in a container."""
    restricted = [require("setpriv"), "--inh-caps=-net_admin", "--bounding-set=-net_admin", sys.executable, str(SNIFFER), "lo", ""]
    with subprocess.Popen(restricted, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.read(24)[:4] == struct.pack("=I", 0xA1B23C4D)
        reader.send_signal(signal.SIGINT)
        _, said = reader.communicate(timeout=60)
    assert reader.returncode == 0, said


@pytest.fixture
def up(stage: Stage) -> Stage:
    require("ping")
    stage.write(TEXT)
    stage.run("up")
    return stage


def pings(stage: Stage, source: str, other: str) -> None:
    """Send packets until the stage ends."""
    process = stage.start("exec", source, "--", require("ping"), "-n", "-i", "0.1", "-w", "60", other)
    assert process.stdout is not None
    eventually(lambda: "time=" in process.stdout.readline(), "packets pass")


@pytest.mark.root
@pytest.mark.slow
def test_capture_without_any_program(up: Stage) -> None:
    """A node without tcpdump is captured by its Python: on one interface, and on all, without the header of the link."""
    pings(up, "bare", "b")
    for place, header in (("bare/east", 14), ("bare", 16)):
        found = up.json("capture", place, "-c", "4", "-w", "x.pcap", "--json")
        packets = parse((up.folder / "x.pcap").read_bytes())
        assert found["packets"] == len(packets) == 4
        assert found["dropped"] == 0
        # the protocol of an IPv4 packet: ICMP
        assert {packet[header + 9] for packet in packets if packet[header - 2 : header] == b"\x08\x00"} == {1}
    assert "4 packets of bare" in up.run("log", "-n", "2").stdout


@pytest.mark.root
@pytest.mark.slow
def test_capture_with_tcpdump(up: Stage) -> None:
    """Where there is tcpdump its filters are obeyed, also by our own reader; a wrong one is said, and leaves no file."""
    require("tcpdump")
    pings(up, "a", "b")
    for place in ("a/east", "a"):
        up.run("capture", place, "-c", "2", "-w", "x.pcap", "--filter", "icmp[icmptype] == icmp-echoreply")
        assert len(parse((up.folder / "x.pcap").read_bytes())) == 2
    pings(up, "bare", "b")
    up.run("capture", "bare/east", "-c", "4", "-w", "x.pcap", "--filter", "icmp[icmptype] == icmp-echoreply")
    assert {packet[34] for packet in parse((up.folder / "x.pcap").read_bytes())} == {0}
    (up.folder / "x.pcap").unlink()
    assert "foo" in up.error("capture", "a", "-w", "x.pcap", "--filter", "icmp foo", code=7)
    assert not (up.folder / "x.pcap").exists()


@pytest.mark.root
@pytest.mark.slow
def test_capture_of_a_link(up: Stage) -> None:
    """A link is captured where its packets pass, to standard output, until the reader has enough or Ctrl-C."""
    pings(up, "a", "b")
    capture = subprocess.Popen([WARDIAN, "capture", "wan", "-w", "-"], cwd=up.folder, env=up.env, stdout=subprocess.PIPE)
    up.started.append(capture)
    assert capture.stdout is not None
    seen = capture.stdout.read(24 + 16 + 98)
    capture.send_signal(signal.SIGINT)
    rest = capture.stdout.read()
    assert capture.wait(60) == 0
    packets = parse(seen + rest)
    assert {packet[23] for packet in packets if packet[12:14] == b"\x08\x00"} == {1}


@pytest.mark.root
@pytest.mark.slow
def test_capture_for_a_time(up: Stage) -> None:
    """With --for it ends by itself, with a whole file even where nothing came; wrong names say what there is."""
    found = json.loads(up.run("capture", "a/east", "--for", "200ms", "-w", "x.pcap", "--json").stdout)
    assert len(parse(Path(up.folder, "x.pcap").read_bytes())) == found["packets"]
    assert "There are a, b, bare" in up.error("capture", "nothing/here", "-w", "x.pcap", code=3)
    assert "2 nodes" in up.error("capture", "a,b", "-w", "x.pcap", code=3)
