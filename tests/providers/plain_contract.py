"""The contract, as nodes without namespaces keep it. Run by `test_local_plain.py` inside of a container, and by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from wardian.errors import ProviderError
from wardian.providers.base import Fault, Provider
from wardian.providers.local import LocalProvider, LocalSettings
from wardian.providers.testing import states

from . import test_local_contract


class TestPlainNodes(test_local_contract.TestLocalProvider):
    """Every promise of the contract, kept by processes alone."""

    @pytest.fixture
    def provider(self, state_folder: Path) -> LocalProvider:
        """A provider with a state folder of its own, which takes what the host allows."""
        return LocalProvider(LocalSettings(state=state_folder))

    @pytest.mark.parametrize("kind", ["pause", "slow", "partition", "flap"])
    async def test_faults_can_be_repeated_and_undone(self, provider: Provider, grown: str, kind: str) -> None:
        """A pause can be inflicted and undone; what takes namespaces is refused, and undoing it is no error."""
        if kind == "pause":
            await super().test_faults_can_be_repeated_and_undone(provider, grown, kind)
            return
        targets = ("wan",) if kind == "flap" else ("server",)
        with pytest.raises(ProviderError, match=f"cannot suffer {kind}"):
            await provider.inflict(grown, kind, targets, [Fault("fault1", kind, targets, {"cpu": 0.5})])
        await provider.inflict(grown, kind, targets, [])
        assert states(await provider.observe(grown)) == {resource.key: "ready" for resource in self.resources()}


del test_local_contract
