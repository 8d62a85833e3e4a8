"""What hosts with netem do to packets. Skipped where the kernel has it not; `tests/test_guest.py` runs this on one that has."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.providers.fabrics import PORT, drain, one_way
from tests.providers.sshd import Lab
from wardian.experiment.resources import Resource
from wardian.providers.local import shaping as local_shaping
from wardian.providers.ssh import SshProvider, SshSettings
from wardian.providers.testing import create, quiet, small_environment

pytestmark = pytest.mark.root

ACCESS = {"delay": 0.01, "duplicate": 0.05}
SHAPES: list[dict[str, Any]] = [
    {"delay": 0.05},
    {"delay": 0.02, "jitter": 0.005, "distribution": "pareto"},
    {"loss": 0.05, "loss_burst": 4.0},
    {"delay": 0.02, "reorder": 0.25, "rate": 10**7, "queue": {"packets": 50, "discipline": "codel"}},
    {"rate": 10**7, "queue": {"bytes": 64000}},
    {"rate": 10**7, "delay": 0.03},
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three machines."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not local_shaping.netem_available():
        pytest.skip("this kernel has no netem")
    lab = Lab("10.92.0")
    try:
        for name in ("fern", "moss", "ivy"):
            lab.machine(name)
        yield lab
    finally:
        lab.close()


async def test_hosts_do_all_that_links_ask_for(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From shape to shape what is asked for is read back; delays of link and access link add up, each way for itself."""
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.runtime))
    there = SshProvider(SshSettings.model_validate(lab.settings(key_exchange="classic", patience="120s")))
    resources = small_environment("x", "ssh")
    assert "netem" not in " ".join(map(str, (await there.capabilities(resources)).caveats))
    await create(there, "netem-1", resources)

    async def link(forward: dict[str, Any], back: dict[str, Any]) -> None:
        spec = {**next(item.spec for item in resources if item.kind == "link"), "there": forward, "back": back}
        await there.update("netem-1", [Resource("link", "wan", spec)], quiet)
        observed = await there.observe("netem-1")
        assert {key: item.detail for key, item in observed.resources.items() if item.state != "ready"} == {}

    for shape in SHAPES:
        await link(shape, {})
        await link(shape, shape)
    access = {"node": "server", "network": "east", "up": ACCESS, "down": {}}
    await there.update("netem-1", [Resource("access", "server/east", access)], quiet)
    await link({"delay": 0.05}, {"delay": 0.02, "loss": 0.1})
    address = {name: machine.address for name, machine in lab.machines.items()}
    with lab.fabric.udp("fern") as fern, lab.fabric.udp("moss") as moss, lab.fabric.udp("ivy") as ivy:
        one_way(moss, ivy, address["ivy"], 2)
        assert statistics.median(one_way(moss, ivy, address["ivy"])) < 0.01
        fern.sendto(b"first", (address["moss"], PORT))
        drain(moss)
        forward = []
        for number in range(200):
            fern.sendto(number.to_bytes(8, "big"), (address["moss"], PORT))
            forward.append(number)
        came = [int.from_bytes(data[:8], "big") for _, data in drain(moss)]
        assert sorted(set(came)) == forward
        assert 200 < len(came) < 230
        for number in range(1000):
            moss.sendto(number.to_bytes(8, "big"), (address["fern"], PORT))
        assert 850 < len(drain(fern)) < 950
    fern_delays = await _round_trips(there, address["moss"])
    assert fern_delays[0] >= 0.08
    assert statistics.median(fern_delays) == pytest.approx(0.08, abs=0.03)
    await there.destroy("netem-1", quiet)
    assert {machine.run("tc qdisc show dev eth0").split()[1] for machine in lab.machines.values()} == {"noqueue"}


async def _round_trips(there: SshProvider, address: str) -> list[float]:
    """Seconds of pings from the server, sorted."""
    from wardian.nodes.run import run

    said = await run(there.channel("netem-1", "server"), "server", ["ping", "-n", "-c", "20", "-i", "0.05", address])
    times = [float(word.partition("=")[2]) / 1000 for word in said.stdout.split() if word.startswith("time=")]
    assert len(times) > 10
    return sorted(times)
