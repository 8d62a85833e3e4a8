"""Scripts of ours that run on a host to their end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from .. import looking
from . import command, masters, streams
from .inventory import Host
from .refusals import HostError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script gave."""

    code: int
    output: str
    errors: str

    @property
    def last_error(self) -> str:
        """The last line on its standard error."""
        return self.errors.strip().rpartition("\n")[2]


async def run(host: Host, text: str, *arguments: str, data: bytes | None = None) -> Answer:
    """Run a shell script on a host, its arguments as $1, $2, …; data: what it reads.

    Raises HostError, also when the connection ends before the script does.
    """
    look = looking.current()
    if look is None:
        return await _run(host, text, arguments, data)
    try:
        with look.waiting(host.name):
            return await _run(host, text, arguments, data)
    except HostError as error:
        if error.kind == "silent":
            look.silent[host.name] = error
        raise


async def _run(host: Host, text: str, arguments: Sequence[str], data: bytes | None) -> Answer:
    token = secrets.token_hex(8)
    ends = streams.Ends()
    transports: list[asyncio.BaseTransport] = []
    session = None
    try:
        ends.pipe(0) if data is not None else ends.null()
        ends.pipe(1)
        ends.pipe(2)
        whole = command.for_login_shell(command.script(text, arguments, token), host.shell)
        session, _ = await masters.open_session(host, whole, ends.theirs)
        ends.close_theirs()
        stdin, stdout, stderr = ends.take()
        assert stdout is not None  # noqa: S101 (it is a pipe, as asked for)
        assert stderr is not None  # noqa: S101
        output, transport = await streams.reader(stdout)
        transports.append(transport)
        errors, transport = await streams.reader(stderr)
        transports.append(transport)
        if stdin is not None and data is not None:
            feed = await streams.writer(stdin)
            transports.append(feed.transport)
            # a script may well end without having read all of it
            with suppress(ConnectionError):
                feed.write(data)
                await feed.drain()
            feed.close()
        async with masters.answering(host):
            said, wrong = await asyncio.gather(output.read(), errors.read())
            await session.ended.wait()
        if session.code is None:
            raise HostError(host.name, "the connection ended while it was used", kind="silent", remedy="Try again.", begun=True)
        # what a start-up file of its shell prints comes before the token
        before, begun, rest = said.decode(errors="replace").partition(f"{token}\n")
        return Answer(session.code, rest, wrong.decode(errors="replace") + ("" if begun else before))
    finally:
        ends.close()
        for transport in transports:
            transport.close()
        if session is not None:
            session.close()
