"""Faults: what is inflicted on nodes and links between hosts."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Mapping, Sequence

from ...errors import MissingToolError, NodeDownError, ProviderError
from ..base import Fault
from . import limits, marker, scripts
from .hosts import each
from .index import Entry
from .refusals import HostError
from .remote import Answer, run

KINDS = frozenset({"pause", "slow", "partition", "flap", "kill"})


async def inflict(entry: Entry, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
    """Have these targets suffer just these faults of that kind, see `Provider.inflict`."""
    if kind == "flap":
        down = {target for fault in faults for target in fault.targets}
        for link in targets:
            across = entry.routes().across(link)
            await _deafen(entry, f"flap {link}", across if link in down else dict.fromkeys(across, ()))
        return
    suffering = {node: [fault for fault in faults if node in fault.targets] for node in targets if node in entry.nodes}
    if kind == "partition":
        deaf = {node: {address for fault in mine for address in fault.values["deaf"].get(node, ())} for node, mine in suffering.items()}
        await _deafen(entry, kind, deaf)
    elif kind == "pause":
        for paused, script in ((True, scripts.PAUSE), (False, scripts.RESUME)):
            await _on(entry, [node for node, mine in suffering.items() if bool(mine) is paused], script, strict=paused)
    elif kind == "slow":
        await _slow(entry, {node: min((fault.values["cpu"] for fault in mine), default=None) for node, mine in suffering.items()})
    else:
        raise ProviderError(f"ssh cannot inflict {kind}")


async def kill(entry: Entry, nodes: Sequence[str]) -> None:
    """End all that runs on these nodes."""
    for node in nodes:
        if node not in entry.nodes:
            raise NodeDownError(node, "there is no such node", remedy="`wardian up` makes it.")
    await _on(entry, nodes, scripts.KILL, strict=True)


async def _on(entry: Entry, nodes: Collection[str], script: str, *, strict: bool) -> None:
    """Run a script with the environment's id and a node's folder on their hosts. strict: all have to answer."""

    async def one(node: str) -> None:
        answer = await run(entry.nodes[node].host, script, entry.record.id, marker.folder(node))
        if answer.code == scripts.NOT_THERE and strict:
            raise NodeDownError(node, "the node is not running", remedy="`wardian up` makes it anew.")

    _check(await each(nodes, one), strict)


async def _slow(entry: Entry, shares: Mapping[str, float | None]) -> None:
    """Leave nodes these shares of the processors that they have; None: all of them."""

    async def one(node: str) -> None:
        share, host = shares[node], entry.nodes[node].host
        answer = await limits.bring(host, entry.record.id, node, entry.nodes[node].spec, share)
        if share is None and answer.code in limits.REASONS:
            # limits that could not be set are none to come back to
            answer = await limits.bring(host, entry.record.id, node, limits.NONE)
        if answer.code == scripts.NOT_THERE and share is not None:
            raise NodeDownError(node, "the node is not running", remedy="`wardian up` makes it anew.")
        if answer.code == scripts.NO_GROUPS:
            remedy = "Mount control groups there, with the controller cpu (systemd does)."
            raise MissingToolError("its host has no control groups that limit processor time", resource=f"node {node}", remedy=remedy)
        if answer.code == scripts.NO_MEMORY:
            return
        _refused(node, answer, "we may limit no processor time on its host", "it cannot be slowed")

    _check(await each(shares, one), any(shares.values()))


def _refused(node: str, answer: Answer, rights: str, what: str) -> None:
    if answer.code == scripts.NO_RIGHTS:
        remedy = "Log in as root there, or let sudo ask for no password."
        raise ProviderError(rights, resource=f"node {node}", remedy=remedy)
    if answer.code not in (0, scripts.NOT_THERE):
        raise ProviderError(f"{what}: {answer.last_error or f'exit code {answer.code}'}", resource=f"node {node}")


async def _deafen(entry: Entry, what: str, deaf: Mapping[str, Collection[str]]) -> None:
    """Have nodes hear nothing from these addresses, by a table of that name, and hear everything again where there are none."""
    table = f"wardian_{hashlib.sha256(f'{entry.record.id} {what}'.encode()).hexdigest()[:16]}"

    async def one(node: str) -> None:
        placed = entry.nodes[node]
        addresses = sorted({str(ipaddress.ip_address(address)) for address in deaf[node]})
        spared = [f"{address}={port}" for address, port in entry.behind(placed.host) if address in addresses]
        answer = await run(placed.host, scripts.DEAFEN, entry.record.id, marker.folder(node), table, *addresses, "spared", *spared)
        if answer.code == scripts.NO_PROGRAM:
            remedy = "Install it there (Debian: apt install nftables)."
            raise MissingToolError(
                "packets are dropped by the program nft, which its host does not have", resource=f"node {node}", remedy=remedy
            )
        _refused(node, answer, "we may filter no packets on its host", "its packets cannot be filtered")

    there = [node for node in deaf if node in entry.nodes]
    _check(await each(there, one), any(deaf.values()))


def _check(outcomes: Sequence[object], strict: bool) -> None:
    """What is off suffers nothing that could be undone."""
    for outcome in outcomes:
        if isinstance(outcome, HostError) and (strict or outcome.kind == "denied"):
            raise outcome
