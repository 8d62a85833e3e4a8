"""Fetching what an experiment leaves on its nodes, before they are torn down."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import TransferError, WardianError
from ..nodes import files
from ..nodes.files import Transfer
from ..nodes.run import run
from .live import LiveEnvironment

MATCH = 'IFS=; for path in $1; do if [ -e "$path" ] || [ -L "$path" ]; then printf "%s\\0" "$path"; fi; done'
"""Prints what a pattern matches on a node; the pattern is an argument, and is only ever expanded as a file name."""


async def collect(live: LiveEnvironment, wanted: Iterable[Mapping[str, str]], target: Path) -> list[Transfer]:
    """Fetch every `{"on": selector, "path": pattern}` into `target`/NODE/PATH.

    A pattern that matches nothing on a node is no error. Raises the first TransferError, after all others were tried.
    """
    jobs = [_collect_path(live, node, item["path"], target) for item in wanted for node in live.select(item["on"])]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    transfers: list[Transfer] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        transfers += outcome
    return transfers


async def _collect_path(live: LiveEnvironment, node: str, pattern: str, target: Path) -> list[Transfer]:
    channel = live.channel(node)
    try:
        matched = await run(channel, node, ["/bin/sh", "-c", MATCH, "sh", pattern])
        transfers = []
        for path in filter(None, matched.stdout.split("\0")):
            local = target / node / posixpath.normpath(path).lstrip("/")
            local.parent.mkdir(parents=True, exist_ok=True)
            transfers.append(await files.get(channel, node, path, local))
    except WardianError as error:
        raise TransferError(node, f"{pattern} could not be collected: {error.message}") from error
    return transfers
