"""The way into the namespace of a network's gateway: where the packets of a link can be seen, and nowhere on a node."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ...errors import CommandError, ProviderError
from ..base import Channel
from . import fabric, processes
from .kernel import namespace_of, own_namespace
from .state import EnvironmentFolder, State


def of_link(environment: EnvironmentFolder, state: State, link: str) -> tuple[Channel, str]:
    """A channel into the gateway at the first end of a link, and the link's interface there."""
    known = environment.resource("link", link).read()
    pid = environment.resource("network", known["spec"]["networks"][0]).pid() if known and known["complete"] else None
    if pid is None:
        raise ProviderError("it is not there", resource=f"link {link}", remedy="`wardian up` makes it anew.")
    return GatewayChannel(link, pid, processes.variables(environment.id, state.root)), fabric.link_interface(link)


class GatewayChannel(Channel):
    """Starts processes of the host in the network namespace of this process, with these variables."""

    def __init__(self, link: str, pid: int, variables: Mapping[str, str]) -> None:
        self._link = link
        self._pid = pid
        self._variables = dict(variables)

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> GatewayProcess:
        if terminal is not None:
            raise CommandError(self._link, "a gateway has no terminals")
        pipe = asyncio.subprocess.PIPE
        wanted = [pipe if item is None else item for item in (stdin, stdout, stderr)]
        process = await asyncio.create_subprocess_exec(
            *_entering(self._pid), *argv,
            env={**self._variables, **(env or {})}, cwd=cwd or "/", start_new_session=True,
            stdin=wanted[0], stdout=wanted[1], stderr=wanted[2],
        )  # fmt: skip
        return GatewayProcess(process)


def _entering(pid: int) -> list[str]:
    """The command that starts another in the network namespace of this process, through its user namespace where that is not ours."""
    apart = namespace_of(pid) != own_namespace()
    user = [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"] if apart else []
    return ["nsenter", *user, f"--net=/proc/{pid}/ns/net", "--"]


class GatewayProcess:
    """A process in a gateway, as `base.Process` promises."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def signal(self, number: int) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def resize(self, rows: int, columns: int) -> None:
        """It has no terminal."""

    async def close(self) -> None:
        if self.stdin is not None:
            self.stdin.close()
        await self.signal(signal.SIGHUP)
        try:
            await asyncio.wait_for(self._process.wait(), 1.0)
        except TimeoutError:
            await self.signal(signal.SIGKILL)
            await self._process.wait()
