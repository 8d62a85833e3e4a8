"""What a host's kernel with netem does to packets, SSH left out: the program that speaks to it is started in the host's network from here.

Skipped where the kernel has no netem; `tests/test_guest.py` runs this on one that has.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.providers.fabrics import PORT, Fabric, drain, one_way
from wardian.providers.local import netlink
from wardian.providers.local import shaping as local_shaping
from wardian.providers.ssh import shaping
from wardian.providers.ssh.inventory import Host
from wardian.providers.ssh.remote import Answer
from wardian.providers.ssh.routes import Way

pytestmark = pytest.mark.root

A, B, C = "10.92.0.1", "10.92.0.2", "10.92.0.3"
SHAPES: list[dict[str, Any]] = [
    {"delay": 0.05},
    {"delay": 0.02, "jitter": 0.005, "distribution": "pareto"},
    {"loss": 0.05, "loss_burst": 4.0},
    {"delay": 0.02, "reorder": 0.25, "rate": 10**7, "queue": {"packets": 50, "discipline": "codel"}},
    {"rate": 10**7, "queue": {"bytes": 64000}},
    {"rate": 10**7, "delay": 0.03},
    {"duplicate": 0.1, "rate": 10**7, "queue": {"packets": 100, "discipline": "pie"}},
    {"delay": 0.01},
]


@pytest.fixture
def fabric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three hosts around a switch."""
    if not local_shaping.netem_available():
        pytest.skip("this kernel has no netem")
    fabric: Any = Fabric()
    fabric.bridge("switch")
    for name, address in (("a", A), ("b", B), ("c", C)):
        fabric.node(name, address)
        with netlink.Netlink.into(fabric.fd) as net:
            net.send([netlink.change(net.index(name), master=net.index("switch"))])
    (tmp_path / ".cache" / "wardian" / "test-1" / "box").mkdir(parents=True)

    async def run(host: Host, text: str, *arguments: str, data: bytes | None = None) -> Answer:
        done = inside(fabric, host.name, "sh", "-c", text, "sh", *arguments, data=data, home=tmp_path)
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    monkeypatch.setattr(shaping, "run", run)
    yield fabric
    fabric.close()


def inside(fabric: Any, name: str, *command: str, data: bytes | None = None, home: Path = Path("/")) -> subprocess.CompletedProcess[bytes]:
    """Run a program in the network of a host."""
    network = f"/proc/{os.getpid()}/fd/{fabric.namespaces[name]}"
    return subprocess.run(["nsenter", f"--net={network}", *command], input=data, capture_output=True, env={**os.environ, "HOME": str(home)})


async def shape(*shapes: dict[str, Any]) -> None:
    """Have host a shape what it sends to b, and to c, like this, after which nothing is left to do."""
    wanted = {address: Way(shape, f"wan {address}") for address, shape in zip((B, C), shapes, strict=False) if shape}
    await shaping.bring(Host("a"), await shaping.look(Host("a"), "test-1/box", [B, C]), wanted)
    seen = await shaping.look(Host("a"), "test-1/box", [B, C])
    assert seen.able >= {"htb", "tbf", "netem", "codel", "fq_codel", "pie"}
    assert shaping.drift(seen, wanted) == {}
    there, had = seen.interfaces["eth0"], seen.by_interface(wanted).get("eth0", {})
    assert list(shaping.traffic.requests(there, had, seen.able)) == [] if wanted else not there.ours
    # beside another netem, newer kernels have none that duplicates
    doubled = {address for address, way in wanted.items() if "duplicate" in way.shape}
    assert {address for address, way in had.items() if "duplicate" in way.shape} in ([doubled, set()] if len(wanted) > 1 else [doubled])


async def test_every_shape_is_read_back(fabric: Any) -> None:
    """From each shape to the next the kernel has just what is asked for, beside another one that stays, and nothing is left in the end."""
    for each in SHAPES:
        await shape(each)
        await shape(each, {"rate": 10**6, "delay": 0.1})
    for each in reversed(SHAPES):
        await shape(each)
    await shape()


async def test_delays_and_losses(fabric: Any) -> None:
    """Packets to one host are late, lost and doubled as asked for, one way only, and those to another host are not."""
    await shape({"delay": 0.06, "loss": 0.1})
    with fabric.udp("a") as a, fabric.udp("b") as b, fabric.udp("c") as c:
        for source, target, address in ((b, a, A), (a, c, C)):
            one_way(source, target, address, 2)
            assert statistics.median(one_way(source, target, address)) < 0.05
        for number in range(2000):
            a.sendto(number.to_bytes(8, "big"), (B, PORT))
        assert len(drain(b)) == pytest.approx(1800, abs=80)
        await shape({"delay": 0.06})
        assert one_way(a, b, B)[0] >= 0.06
        await shape({"duplicate": 0.2})
        for number in range(1000):
            a.sendto(number.to_bytes(8, "big"), (B, PORT))
        assert len(drain(b)) == pytest.approx(1200, abs=60)


async def test_large_segments_are_cut_before_they_are_lost(fabric: Any) -> None:
    """A share of losses is one of packets, also of a TCP connection whose kernel sends many at once."""
    await shape({"loss": 0.02})
    listener = fabric.listener("b")
    with fabric.connect("a", B) as sender, listener, listener.accept()[0] as receiver:
        sent = 0
        receiver.settimeout(60)
        for _ in range(40):
            sender.sendall(bytes(50_000))
            while sent < 50_000:
                sent += len(receiver.recv(65536))
            sent = 0
    said = inside(fabric, "a", "tc", "-s", "qdisc", "show", "dev", "eth0").stdout.decode()
    # two megabytes are some 1,400 packets, and would be some 40 to 200 segments
    packets = int(said.partition("netem")[2].partition(" bytes ")[2].split()[0])
    assert packets > 1000
