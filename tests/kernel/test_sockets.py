"""Sockets towards clients and kernels: whatever becomes of one message, what came behind it is taken."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq

from wardian.kernel.front.sockets import Socket
from wardian.kernel.places.home import HomePlace, _Watcher
from wardian.kernel.places.place import Place
from wardian.kernel.wire import SHELL, Message
from wardian.nodes.agent.zeromq import ZmqSocket

from .conftest import TIMEOUT, Notebook


class Stumbling:
    """Takes messages; the first makes it fail."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.last = asyncio.Event()

    def __call__(self, frames: list[bytes]) -> None:
        self.taken.append(frames[-1])
        if frames[-1] == b"last":
            self.last.set()
        if len(self.taken) == 1:
            raise RuntimeError("the first message")


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


async def test_what_waits_behind_a_failure_is_taken(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    """A message whose handler fails does not leave the messages unread that have arrived behind it."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, told: None)
    ours, theirs = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    ours.bind(f"ipc://{tmp_path}/socket")
    theirs.connect(f"ipc://{tmp_path}/socket")
    for text in (b"first", b"second", b"last"):
        theirs.send(text)
    # all are there before the first is taken
    assert ours.poll(TIMEOUT * 1000)
    taken = Stumbling()
    socket = Socket(ours, taken)
    async with asyncio.timeout(TIMEOUT):
        await taken.last.wait()
    assert taken.taken == [b"first", b"second", b"last"]
    socket.close()


async def test_what_waits_behind_a_failure_is_taken_from_a_kernel(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    """The same on the socket of our own making that leads to a kernel."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, told: None)
    theirs = context.socket(zmq.ROUTER)
    theirs.bind(f"ipc://{tmp_path}/socket")
    taken = Stumbling()
    socket = ZmqSocket(_Watcher(asyncio.get_running_loop()), b"DEALER", b"ours", [f"{tmp_path}/socket"], taken)
    socket.send([b"here"])
    while not theirs.poll(0):
        await asyncio.sleep(0)
    theirs.recv_multipart()
    for text in (b"first", b"second", b"last"):
        theirs.send_multipart([b"ours", text])
    async with asyncio.timeout(TIMEOUT):
        await taken.last.wait()
    assert taken.taken == [b"first", b"second", b"last"]
    socket.close()


@pytest.mark.slow
def test_a_malformed_request_is_dropped_alone(start: Callable[..., Notebook]) -> None:
    """Requests whose content is no object, or no JSON, are dropped; the cell that was sent along with them runs."""
    notebook = start()
    session, router = notebook.client.session, notebook.manager.provisioner.process.pid
    # so that it finds them all at once
    os.kill(router, signal.SIGSTOP)
    for content in (b"[]", b"{", b'{"code": 1'):
        for kind in ("execute_request", "complete_request", "interrupt_request"):
            session.send(notebook.client.shell_channel.socket, kind, content=content)  # type: ignore[arg-type]
    cell = notebook.send("6 * 7")
    os.kill(router, signal.SIGCONT)
    assert notebook.result(cell).value == "42"


class Heard:
    """A listener that waits for the reply to a request."""

    def __init__(self, request: Message) -> None:
        self.request = request
        self.reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def comm(self, place: Place, message: Message) -> None:
        """There are none."""

    def unclaimed(self, place: Place, channel: int, message: Message) -> None:
        """What no cell caused."""
        if channel == SHELL and message.parent_id == self.request.id:
            self.reply.set_result(message)


@pytest.mark.slow
async def test_a_request_before_home_is_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a client asks while the home kernel starts is answered once it has started."""
    request = Message.new("comm_info_request", {}, "session")
    heard = Heard(request)
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    place = HomePlace(heard, "session", tmp_path_factory.mktemp("h"))
    place.send(SHELL, request)
    await place.start({}, partial(_end, ended))
    async with asyncio.timeout(TIMEOUT):
        assert (await heard.reply).kind == "comm_info_reply"
        await place.stop()
        await ended


def _end(ended: asyncio.Future[Any], code: int) -> None:
    ended.set_result(code)
