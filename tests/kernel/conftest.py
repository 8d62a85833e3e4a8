"""Kernels as a notebook has them: started by jupyter_client, driven through its client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from tests.nodes.conftest import HostChannel
from wardian.experiment import selectors
from wardian.nodes.link import AgentLink

ROOT = Path(__file__).parents[2]
TIMEOUT = 60
GRACE = "30"
"""For so long nodes may leave interrupts unanswered, seconds: a busy machine is no hung node, nor is a link that is being replaced."""
NODES = {
    "client[0]": {"group": "client", "index": 0, "roles": ["player"], "state": "ready"},
    "client[1]": {"group": "client", "index": 1, "roles": ["player"], "state": "ready"},
    "server": {"group": "server", "index": None, "roles": ["origin"], "state": "ready"},
}


def lanes(text: str, nodes: Iterable[str] = NODES) -> dict[str, str]:
    """What each node printed, whether or not a slow machine let equal outputs be shown as one."""
    references = [selectors.NodeRef(name, name.partition("[")[0], int(name[-2]) if "[" in name else None) for name in nodes]
    printed: dict[str, str] = {}
    for line in text.splitlines(keepends=True):
        prefix, _, rest = line.partition(" │ ")
        for name in selectors.resolve(prefix.strip(), references):
            printed[name] = printed.get(name, "") + rest
    return printed


class Result:
    """What a cell sent, and its reply."""

    def __init__(self, reply: dict[str, Any], messages: list[dict[str, Any]]) -> None:
        self.message, self.reply, self.messages = reply, reply["content"], messages

    @property
    def status(self) -> str:
        return self.reply["status"]

    def contents(self, kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    def text(self, name: str = "stdout") -> str:
        return "".join(content["text"] for content in self.contents("stream") if content["name"] == name)

    @property
    def lanes(self) -> dict[str, str]:
        return lanes(self.text())

    @property
    def value(self) -> str:
        return self.contents("execute_result")[0]["data"]["text/plain"]

    @property
    def error(self) -> str:
        return f"{self.reply.get('ename')}: {self.reply.get('evalue')}"

    @property
    def traceback(self) -> str:
        return "\n".join(self.reply["traceback"])


class Notebook:
    """A kernel and its client."""

    def __init__(self, nodes: Path, session: str, **env: str) -> None:
        self.nodes = nodes
        self.manager = KernelManager()
        self.manager._kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "tests.kernel.hosts", "-f", "{connection_file}"], interrupt_mode="message", language="python"
        )
        own = {"WARDIAN_TEST_NODES": str(nodes), "WARDIAN_SESSION": session, "PYTHONPATH": str(ROOT), "WARDIAN_INTERRUPT_GRACE": GRACE}
        self.manager.start_kernel(cwd=str(ROOT), env={**os.environ, **own, **env})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)

    def send(self, code: str, metadata: dict[str, Any] | None = None, **options: Any) -> str:
        """Send a cell without waiting for it."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self.client.session.msg("execute_request", {**content, "stop_on_error": True, **options}, metadata=metadata)
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def run(self, code: str, metadata: dict[str, Any] | None = None, **options: Any) -> Result:
        """Run a cell to its end."""
        return self.result(self.send(code, metadata, **options))

    def result(self, number: str) -> Result:
        """What a cell sent, once it has ended."""
        messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == number:
                messages.append(message)
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return Result(self.reply(number), messages)

    def reply(self, number: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The reply to a request on shell."""
        while True:
            message = self.client.get_shell_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") == number:
                return message

    def until(self, number: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message of a cell for which `condition` holds."""
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == number and condition(message):
                return message

    def knows(self, request: str, code: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a completion ("complete") or an inspection ("inspect") at the end of some code.

        Asked again while it is empty: a kernel that could not begin to answer in the time that an editor waits knows nothing.
        """
        for _ in range(10):
            content = {"code": code, "cursor_pos": len(code), "detail_level": 0}
            message = self.client.session.msg(f"{request}_request", content, metadata=metadata)
            self.client.shell_channel.send(message)
            answer = self.reply(message["header"]["msg_id"])["content"]
            if answer.get("matches") or answer.get("found"):
                break
        return answer

    def taken(self) -> None:
        """Return once the kernel has received all that was sent to it so far; replies that come meanwhile are dropped."""
        self.reply(self.client.kernel_info())

    def printed(self, number: str, text: str) -> None:
        """Wait until a cell has printed something."""
        self.until(number, lambda message: message["msg_type"] == "stream" and text in message["content"]["text"])

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def write_nodes(self, nodes: dict[str, Any] | None) -> None:
        write_nodes(self.nodes, nodes)

    def kill(self) -> None:
        """SIGKILL the router, as a crash would."""
        self.client.stop_channels()
        self.manager.provisioner.process.kill()
        self.manager.provisioner.process.wait()
        self.manager.cleanup_resources()

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel()


def write_nodes(folder: Path, nodes: dict[str, Any] | None) -> None:
    """Change what nodes there are, at once; None takes the environment down."""
    path = folder / "nodes.json"
    if nodes is None:
        path.unlink()
        return
    path.with_suffix(".new").write_text(json.dumps(nodes))
    path.with_suffix(".new").replace(path)


async def _stop_agents(folder: Path) -> None:
    for node in folder.iterdir():
        if (node / "agent.sock").exists():
            with suppress(Exception):
                link = await AgentLink.open(HostChannel(str(node)), node.name)
                async with asyncio.timeout(10):
                    await link.request("agent.stop")
                await link.close()


@pytest.fixture(scope="module")
def host_nodes() -> Iterator[Path]:
    """Three nodes that are folders of this host; their agents are stopped in the end."""
    folder = Path(tempfile.mkdtemp(prefix="wk", dir="/tmp"))
    write_nodes(folder, NODES)
    yield folder
    asyncio.run(_stop_agents(folder))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(host_nodes: Path) -> Iterator[Notebook]:
    """One kernel for the tests of a module."""
    notebook = Notebook(host_nodes, "shared")
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(shared: Notebook) -> Iterator[Notebook]:
    """The module's kernel, with nothing sticky and all nodes up."""
    yield shared
    shared.write_nodes(NODES)
    shared.run("%on here")


@pytest.fixture
def start(host_nodes: Path) -> Iterator[Callable[..., Notebook]]:
    """Starts kernels of their own."""
    started: list[Notebook] = []

    def start(session: str = f"own-{time.time()}", **env: str) -> Notebook:
        started.append(Notebook(host_nodes, session, **env))
        return started[-1]

    yield start
    for notebook in started:
        notebook.close()
