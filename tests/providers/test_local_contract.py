"""The local provider, against the suite that every provider passes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardian.experiment.resources import Resource
from wardian.providers.local import LocalProvider, LocalSettings
from wardian.providers.testing import ProviderContract, small_environment

pytestmark = pytest.mark.root


class TestLocalProvider(ProviderContract):
    """Every promise of the contract, kept by namespaces of this host."""

    @pytest.fixture
    def provider(self, state_folder: Path) -> Iterator[LocalProvider]:
        """A provider with a state folder of its own."""
        return LocalProvider(LocalSettings(state=state_folder))

    def resources(self, instance: str = "default") -> list[Resource]:
        return small_environment(instance, "local")

    async def stop_node(self, provider: LocalProvider, environment: str, node: str) -> None:
        pid = provider.state.environment(environment).resource("node", node).pid()
        assert pid is not None
        descriptor = os.pidfd_open(pid)
        try:
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(descriptor, gone.set)
            os.kill(pid, signal.SIGKILL)
            await gone.wait()
        finally:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
