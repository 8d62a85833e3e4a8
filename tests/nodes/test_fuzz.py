"""Whatever comes over the wire, a running agent lives on, and our side has no other error than AgentError."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardian.errors import AgentError, NodeError
from wardian.nodes import frames
from wardian.nodes.link import AgentLink

from .conftest import HostChannel

pytestmark = pytest.mark.slow

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
OPERATIONS = ["kernel.start", "kernel.attach", "kernel.interrupt", "kernel.stop", "kernel.output", "kernel.list", "kernel.specs",
              "service.start", "service.wait", "service.stop", "service.log", "nothing"]  # fmt: skip
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "kernel": st.sampled_from(["k", "other", "", "..", "a/b"]) | JSON,
        "after": st.integers(-5, 2**70) | JSON,
        "cell": st.text(max_size=5) | JSON,
        "offset": st.integers() | JSON,
        "service": st.sampled_from(["s", ""]) | JSON,
        "command": st.just(["true"]) | JSON,
        "ready": st.fixed_dictionaries({"port": JSON}) | st.fixed_dictionaries({"log": st.sampled_from(["(", "x"])}) | JSON,
        "restart": st.sampled_from(["no", "never"]) | JSON,
        "env": JSON,
        "cwd": JSON,
        "timeout": st.floats(0, 0.01) | JSON,
        "lines": JSON,
        "language": st.sampled_from(["bash", "cobol"]) | JSON,
    },
)


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def message(sequence: int, kernel: str, parts: list[bytes], channel: int = 0) -> bytes:
    body = struct.pack(">QBB", sequence, channel, len(kernel)) + kernel.encode() + bytes([len(parts)])
    return b"".join([body, *(struct.pack(">I", len(part)) + part for part in parts)])


HEADERS = st.fixed_dictionaries({"msg_type": st.sampled_from(["execute_request", "complete_request", "is_complete_request", "x"]) | JSON})
PARTS = st.lists(st.binary(max_size=30) | (HEADERS | JSON).map(lambda value: json.dumps(value).encode()), max_size=7)
REQUESTS = st.builds(
    lambda number, op, arguments: {**arguments, "id": number, "op": op}, st.integers(0, 9) | JSON, st.sampled_from(OPERATIONS), ARGUMENTS
)
HELLO = frame(0, json.dumps({"protocol": frames.PROTOCOL, "client": "fuzz"}).encode())
FRAMES = st.one_of(
    st.builds(frame, st.integers(0, 9), st.binary(max_size=60)),
    REQUESTS.map(lambda value: frame(1, json.dumps(value).encode())),
    JSON.map(lambda value: frame(1, json.dumps(value).encode())),
    st.builds(lambda *fields: frame(4, message(*fields)), st.integers(0, 5), st.sampled_from(["k", "zz", ""]), PARTS, st.integers(0, 5)),
    st.builds(lambda sequence, name: frame(5, struct.pack(">QB", sequence, len(name)) + name),
              st.integers(0, 2**64 - 1), st.binary(max_size=9)),
    st.binary(max_size=40),
)  # fmt: skip
STREAMS = st.tuples(st.booleans(), st.lists(FRAMES, max_size=6), st.integers(0, 200))


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    """The folder of an agent that runs, with a shell."""
    folder = tempfile.mkdtemp(prefix="wf", dir="/tmp")
    yield folder

    async def stop() -> None:
        with contextlib.suppress(NodeError):
            link = await AgentLink.open(HostChannel(folder), "host")
            await link.request("agent.stop")
            await link.close()

    asyncio.run(stop())
    shutil.rmtree(folder, ignore_errors=True)


async def _pid(folder: str) -> int:
    """The agent's pid, from one that answers and has a shell that works."""
    link = await AgentLink.open(HostChannel(folder), "host")
    await link.request("kernel.start", kernel="steady", language="bash")
    assert (await link.request("kernel.list"))["kernels"]["steady"]["state"] == "idle"
    await link.close()
    return int(link.agent["pid"])


async def _pour(folder: str, data: bytes) -> None:
    """Write bytes to the agent in place of a client, and wait until it has let go of the connection or has read everything."""
    reader, writer = await _raw(folder)
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    writer.close()
    while await reader.read(1 << 16):
        pass


async def _raw(folder: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the agent's socket, handed over as the bridge does it."""
    import socket

    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(folder, "agent.sock"))
    socket.send_fds(connection, [b"\0"], [theirs_in, theirs_out])
    os.close(theirs_in)
    os.close(theirs_out)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb"))
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(ours_out, "wb"))
    # Kept with the reader: the agent ends the client when this is closed.
    reader.keeper = connection  # type: ignore[attr-defined]
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(streams=st.lists(STREAMS, min_size=1, max_size=4))
def test_no_bytes_end_an_agent(running: str, streams: list[tuple[bool, list[bytes], int]]) -> None:
    """Bad frames, cut frames, unknown types, random JSON and wrong numbers, with and without HELLO: the agent is the same and answers."""

    async def play() -> None:
        before = await _pid(running)
        for greeted, pieces, cut in streams:
            data = b"".join(pieces)
            await _pour(running, (HELLO if greeted else b"") + (data[:-cut] if cut and cut < len(data) else data))
        assert await _pid(running) == before
        with open(os.path.join(running, "agent.log"), encoding="utf-8") as log:
            assert "Traceback" not in (said := log.read()), said[said.rindex("Traceback") :]

    asyncio.run(play())


class Scripted:
    """A process that says given bytes after our HELLO, as an agent that has gone mad would."""

    def __init__(self, stdout: asyncio.StreamReader, stdin: asyncio.StreamWriter) -> None:
        self.stdout, self.stdin, self.stderr = stdout, stdin, None

    async def wait(self) -> int:
        return 0

    async def signal(self, number: int) -> None: ...
    async def resize(self, rows: int, columns: int) -> None: ...
    async def close(self) -> None: ...


class ScriptedChannel(HostChannel):
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def start(self, *arguments: Any, **options: Any) -> Any:
        stdout = asyncio.StreamReader()
        stdout.feed_data(self.data)
        stdout.feed_eof()
        read, write = os.pipe()
        os.close(read)
        transport, protocol = await asyncio.get_running_loop().connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(write, "wb"))
        return Scripted(stdout, asyncio.StreamWriter(transport, protocol, None, asyncio.get_running_loop()))


ANSWERS = st.one_of(
    st.builds(frame, st.integers(0, 9), st.binary(max_size=60)),
    st.builds(lambda kind, value: frame(kind, json.dumps(value).encode()), st.sampled_from([0, 2, 6, 7]), JSON),
    st.builds(lambda value: frame(2, json.dumps({"id": 1, **value}).encode()),
              st.fixed_dictionaries({}, optional={"ok": JSON, "error": JSON | st.fixed_dictionaries({"message": JSON, "remedy": JSON})})),
    st.builds(lambda *fields: frame(3, message(*fields)), st.integers(0, 9), st.sampled_from(["k", ""]), PARTS, st.integers(0, 5)),
)  # fmt: skip
GREETING = st.fixed_dictionaries({}, optional={"inputs": JSON | st.integers(0, 5), "pid": JSON, "agent": JSON}).map(
    lambda value: frame(0, json.dumps(value).encode())
)


@settings(max_examples=120, deadline=None)
@given(greeting=GREETING | st.just(b""), pieces=st.lists(ANSWERS, max_size=6), cut=st.integers(0, 60))
def test_an_agent_gone_mad_is_an_agent_error(greeting: bytes, pieces: list[bytes], cut: int) -> None:
    """Whatever an agent says, opening a link and asking it something give an answer or AgentError."""
    data = b"".join(pieces)

    async def play() -> None:
        try:
            link = await AgentLink.open(ScriptedChannel(greeting + (data[:-cut] if cut else data)), "host")
        except AgentError:
            return
        try:
            answer = await link.request("kernel.list")
            assert isinstance(answer, dict)
        except AgentError:
            pass
        await link.close()
        error = link.closed.exception()
        assert error is None or isinstance(error, AgentError)

    asyncio.run(play())
