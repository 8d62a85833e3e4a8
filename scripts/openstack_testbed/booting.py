"""Nova's program for a host, with pretended servers that take their time: as many seconds as `$WARDIAN_TESTBED_BOOT` says."""

from __future__ import annotations

import os
from typing import Any

# Nova's commands come first: they have eventlet take over what waits
from nova.cmd.compute import main as main  # isort: skip

import eventlet
from nova.virt import fake


class BootingDriver(fake.FakeDriver):
    """Servers that are there only once they have booted; others of the host go on meanwhile."""

    def spawn(self, *arguments: Any, **options: Any) -> None:
        eventlet.sleep(float(os.environ["WARDIAN_TESTBED_BOOT"]))
        super().spawn(*arguments, **options)


# Nova looks for drivers in its own modules alone
fake.BootingDriver = BootingDriver
