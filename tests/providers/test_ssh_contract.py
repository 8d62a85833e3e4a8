"""The SSH provider, against the suite that every provider passes, on real OpenSSH servers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from wardian.experiment.resources import Resource
from wardian.providers.ssh import SshProvider, SshSettings
from wardian.providers.testing import ProviderContract, small_environment

from .sshd import Lab

pytestmark = pytest.mark.root

LEFT = """
find /root/.cache/wardian /tmp -mindepth 1 2>/dev/null
grep -ls WARDIAN_ENVIRONMENT /proc/[0-9]*/environ
grep wardian /etc/hosts
true
"""
"""Prints what is ours on a machine."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Seven machines: two environments of three nodes, and one to spare."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lab = Lab()
    try:
        for number in range(7):
            lab.machine(f"lab{number}", shell="/bin/bash" if number % 2 else "/bin/sh")
        yield lab
    finally:
        lab.close()


class TestSshProvider(ProviderContract):
    """Every promise of the contract, kept on machines that were there already."""

    @pytest_asyncio.fixture
    async def provider(self, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SshProvider]:
        """A provider that knows of nothing yet, and machines with nothing of ours on them."""
        self.lab = lab
        monkeypatch.setenv("WARDIAN_STATE", str(tmp_path / "state"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.runtime))
        settings = SshSettings.model_validate(lab.settings())
        yield SshProvider(settings)
        for machine in lab.machines.values():
            machine.start()
        for machine in lab.machines.values():
            left = machine.run(LEFT)
            machine.run("rm -rf /root/.cache/wardian /root/*; sed -i '/^# wardian .* begin/,/^# wardian .* end/d' /etc/hosts")
            assert left == "" or machine.was_off, (machine.name, left)
            machine.was_off = False

    def resources(self, instance: str = "default") -> list[Resource]:
        return small_environment(instance, "ssh")

    async def stop_node(self, provider: SshProvider, environment: str, node: str) -> None:
        entry = provider.index.read(environment)
        assert entry is not None
        self.lab.machines[entry.nodes[node].host.name].stop()
