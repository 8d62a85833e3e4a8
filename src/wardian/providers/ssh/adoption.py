"""Finding environments on the hosts of the settings that this machine has lost sight of."""

from __future__ import annotations

import socket
from pathlib import Path

from ...experiment.resources import EnvironmentRecord
from ...paths import user_name
from . import marker
from .hosts import each
from .index import Entry, Index, Placed
from .inventory import hosts
from .refusals import HostError
from .settings import SshSettings


def is_ours(record: EnvironmentRecord) -> bool:
    """Whether this user grew it from this machine."""
    return (record.user, record.host) == (user_name(), socket.gethostname())


async def adopt(index: Index, settings: SshSettings, folder: Path) -> None:
    """Enter in the index what this user grew from this machine, on hosts that answer, and that is not in it.

    folder: that of the experiment file.
    """
    known = {entry.record.id for entry in index.entries()}
    listed = hosts(settings, folder)
    entries: dict[str, Entry] = {}
    for host, outcome in zip(listed, await each(listed, marker.scan), strict=True):
        if isinstance(outcome, HostError):
            continue
        for item in outcome:
            record = item.record
            if record is None or record.id in known or not is_ours(record):
                continue
            entry = entries.setdefault(record.id, Entry(record))
            entry.nodes[item.name] = Placed(host, item.address, item.spec)
    for entry in entries.values():
        index.write(entry)
