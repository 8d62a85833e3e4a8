"""A channel to this host, and links to agents that run here, each in a run directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from wardian.errors import CommandError
from wardian.nodes.link import AgentLink
from wardian.providers.base import Channel


class HostProcess:
    """A process of this host behind the contract's `Process`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def resize(self, rows: int, columns: int) -> None:
        raise NotImplementedError("no terminals here")

    async def close(self) -> None:
        for number in (signal.SIGHUP, signal.SIGKILL):
            if self._process.returncode is None:
                await self.signal(number)
        await self._process.wait()


class HostChannel(Channel):
    """Starts real processes on this host. `last` is the one started last."""

    def __init__(self, directory: str, **env: str) -> None:
        self.env = {"WARDIAN_RUN_DIR": directory, **env}
        self.last: HostProcess | None = None

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
    ) -> HostProcess:
        pipe = asyncio.subprocess.PIPE
        # ipykernel leaves its descriptors alone where pytest captures them
        inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env={**inherited, **self.env, **(env or {})},
                cwd=cwd,
                stdin=pipe if stdin is None else stdin,
                stdout=pipe if stdout is None else stdout,
                stderr=pipe if stderr is None else stderr,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError("host", str(error)) from None
        self.last = HostProcess(process)
        return self.last


class Kernel:
    """One kernel over one link, as a test wants it: every message kept, cells run to their end."""

    def __init__(self, link: AgentLink, name: str) -> None:
        self.link, self.name = link, name
        self.messages: list[tuple[int, str, dict[str, Any]]] = []
        self.events: list[dict[str, Any]] = []
        self.acknowledge = True
        self._changed = asyncio.Event()
        link.on_message = self._message
        link.on_event = self._event

    @classmethod
    async def start(cls, link: AgentLink, name: str, language: str, **arguments: Any) -> Kernel:
        kernel = cls(link, name)
        await link.request("kernel.start", kernel=name, language=language, **arguments)
        await link.request("kernel.attach", kernel=name, after=None)
        return kernel

    def send(self, kind: str, channel: str = "shell", **content: Any) -> str:
        """Send a request; gives its message id."""
        number = uuid.uuid4().hex
        header = {"msg_id": number, "msg_type": kind, "session": "test", "username": "test", "version": "5.4"}
        self.link.send(self.name, channel, [json.dumps(part).encode() for part in (header, {}, {}, content)])
        return number

    def execute(self, code: str, **content: Any) -> str:
        return self.send("execute_request", code=code, silent=False, store_history=True, allow_stdin=False, **content)

    async def run(self, code: str, timeout: float = 30, **content: Any) -> Result:
        """Run a cell to its end."""
        return await self.result(self.execute(code, **content), timeout)

    async def result(self, number: str, timeout: float = 30) -> Result:
        """The result of a request that was sent, once its reply and its idle status are here."""
        result = Result(self, number)
        await self.until(lambda: result.finished, timeout)
        return result

    async def says(self, number: str, text: str) -> None:
        """Wait until the output of a request ends with a text."""
        result = Result(self, number)
        await self.until(lambda: result.text().endswith(text))

    async def until(self, condition: Any, timeout: float = 30) -> None:
        """Wait until a condition on messages and events holds."""
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _message(self, kernel: str, sequence: int, channel: str, parts: list[bytes]) -> None:
        assert kernel == self.name
        header, parent, _, content = (json.loads(part) for part in parts[:4])
        self.messages.append((sequence, channel, {"header": header, "parent": parent, "content": content, "buffers": parts[4:]}))
        if self.acknowledge:
            self.link.acknowledge(kernel, sequence)
        self._changed.set()

    def _event(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self._changed.set()


class Result:
    """What came back for one request."""

    def __init__(self, kernel: Kernel, number: str) -> None:
        self._kernel, self._number = kernel, number

    @property
    def messages(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (channel, message["header"]["msg_type"], message["content"])
            for _, channel, message in self._kernel.messages
            if message["parent"].get("msg_id") == self._number
        ]

    @property
    def finished(self) -> bool:
        messages = self.messages
        replied = any(kind.endswith("_reply") for _, kind, _ in messages)
        return replied and any(kind == "status" and content["execution_state"] == "idle" for _, kind, content in messages)

    @property
    def reply(self) -> dict[str, Any]:
        return next(content for _, kind, content in self.messages if kind.endswith("_reply"))

    def text(self, name: str = "stdout") -> str:
        return "".join(content["text"] for _, kind, content in self.messages if kind == "stream" and content["name"] == name)


@pytest.fixture
async def run_directory() -> Any:
    """A short path (a Unix socket's is limited), and nothing left of what was started from it."""
    directory = tempfile.mkdtemp(prefix="wn", dir="/tmp")
    yield directory
    with contextlib.suppress(Exception):
        link = await AgentLink.open(HostChannel(directory), "host")
        async with asyncio.timeout(10):
            await link.request("agent.stop")
        await link.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def channel(run_directory: str) -> HostChannel:
    return HostChannel(run_directory)


@pytest.fixture
async def link(channel: HostChannel) -> Any:
    link = await AgentLink.open(channel, "host")
    yield link
    await link.close()
