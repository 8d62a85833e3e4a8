"""Kernels as a notebook has them, driven through jupyter_client's blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

TIMEOUT = 120.0


class Kernel:
    """A kernel and its client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    @property
    def pid(self) -> int:
        """The process that the kernelspec started."""
        return int(self.manager.provisioner.pid)

    def run(self, code: str) -> str:
        """Run a cell until its reply and its idle are here; what it printed. Raises RuntimeError if it fails."""
        number = self.client.execute(code, allow_stdin=False)
        printed: list[str] = []
        while not _idle(message := self.client.get_iopub_msg(timeout=TIMEOUT), number):
            if message["msg_type"] == "stream" and message["parent_header"].get("msg_id") == number:
                printed.append(message["content"]["text"])
        reply: dict[str, Any] = self.client.get_shell_msg(timeout=TIMEOUT)
        while reply["parent_header"].get("msg_id") != number:
            reply = self.client.get_shell_msg(timeout=TIMEOUT)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"{code!r} failed: {reply['content'].get('evalue', reply['content'])}")
        return "".join(printed)

    def time(self, code: str) -> float:
        """How long `run` takes, seconds."""
        start = time.perf_counter()
        self.run(code)
        return time.perf_counter() - start


@contextmanager
def kernel(name: str, folder: Path) -> Iterator[Kernel]:
    """A kernel of this kernelspec, started in `folder`."""
    manager, client = start_new_kernel(kernel_name=name, startup_timeout=TIMEOUT, cwd=str(folder))
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def _idle(message: dict[str, Any], number: str) -> bool:
    ours = message["parent_header"].get("msg_id") == number and message["msg_type"] == "status"
    return ours and bool(message["content"]["execution_state"] == "idle")
