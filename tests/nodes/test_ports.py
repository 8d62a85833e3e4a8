"""Ports of nodes here: real listeners, real processes that connect and copy."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from wardian.errors import CommandError, SelectorError, WardianError
from wardian.nodes.ports import LOOPBACK, Forward, find_program, parse_target

from .host_channel import HostChannel

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    writer.close()


async def cut(reader: asyncio.StreamReader) -> bool:
    """Whether a connection ends without another word."""
    try:
        return await reader.read(-1) == b""
    except ConnectionResetError:
        return True


@asynccontextmanager
async def forwarded(channel: HostChannel, handler: Handler) -> AsyncIterator[Forward]:
    """A server on a port of the "node", and its forward."""
    server = await asyncio.start_server(handler, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    forward = await Forward.open(channel, "host", port)
    try:
        yield forward
    finally:
        await forward.close()
        server.close()


def only(folder: Path, *programs: str) -> dict[str, str]:
    """An environment in which there are only these programs."""
    for program in programs:
        found = shutil.which(program) or (shutil.which("busybox") if program == "nc" else None)
        if found is None:
            pytest.skip(f"{program} is not installed")
        (folder / program).symlink_to(os.path.realpath(found))
    return {"PATH": str(folder)}


async def test_both_directions_end_on_their_own(tmp_path: Path) -> None:
    """What a client sends arrives, its end too, and what the server says after that still comes back."""
    async with forwarded(HostChannel(tmp_path), echo) as forward:
        assert forward.here != forward.port
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
        with closing(writer):
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            writer.write(b"two")
            writer.write_eof()
            assert await reader.read(-1) == b"twoend"


async def test_the_server_may_end_first(tmp_path: Path) -> None:
    """A client that goes on sending after the server has said everything is heard."""
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        heard.set_result(await reader.read(-1))
        writer.close()

    async with forwarded(HostChannel(tmp_path), greet) as forward:
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
        with closing(writer):
            assert await reader.read(-1) == b"hello"
            writer.write(b"bye")
            writer.write_eof()
            assert await heard == b"bye"


async def test_many_connections_and_much_data(tmp_path: Path) -> None:
    """Parallel connections each get their own data back, whole."""
    async with forwarded(HostChannel(tmp_path), echo) as forward:

        async def connection(number: int) -> None:
            sent = bytes([number]) * 2_000_000
            reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
            with closing(writer):

                async def send() -> None:
                    writer.write(sent)
                    await writer.drain()
                    writer.write_eof()

                sending = asyncio.create_task(send())
                assert await reader.read(-1) == sent + b"end"
                await sending

        await asyncio.gather(*(connection(number) for number in range(16)))
        assert forward.connections == 16


async def test_a_slow_reader_holds_the_server_up(tmp_path: Path) -> None:
    """What a client does not read stays at the server, and is whole when it is read at last."""
    size = 64 * 2**20
    waiting = asyncio.Event()
    written = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while written < size:
            writer.write(bytes(2**16))
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                waiting.set()
                await writer.drain()
            written += 2**16
        writer.close()

    async with forwarded(HostChannel(tmp_path), pour) as forward:
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
        with closing(writer):
            await waiting.wait()
            assert written < size
            assert len(await reader.read(-1)) == size


async def test_nothing_listens(tmp_path: Path) -> None:
    """Where nothing listens on the node the client's connection ends, and the forward says why; it works once something does."""
    async with forwarded(HostChannel(tmp_path), echo) as forward:
        broken = await Forward.open(HostChannel(tmp_path), "host", 1)
        reader, writer = await asyncio.open_connection(LOOPBACK, broken.here)
        with closing(writer):
            assert await cut(reader)
        assert "cannot connect to port 1" in broken.trouble
        await broken.close()
        assert forward.trouble == ""


async def test_the_node_is_gone(tmp_path: Path) -> None:
    """Where the node is down the connection ends and the forward says so; its processes end with the forward."""
    channel = HostChannel(tmp_path)
    async with forwarded(channel, echo) as forward:
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
        with closing(writer):
            writer.write(b"here")
            assert await reader.readexactly(4) == b"here"
            await channel.started[-1].signal(9)
            assert await cut(reader)
        channel.down = True
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
        with closing(writer):
            assert await cut(reader)
        assert "not running" in forward.trouble
    assert all(process.popen.poll() is not None for process in channel.started)


async def test_closing_ends_connections(tmp_path: Path) -> None:
    """After a forward is closed its connections are ended, nothing listens, and no process is left on the node."""
    channel = HostChannel(tmp_path)
    async with forwarded(channel, echo) as forward:
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
        writer.write(b"here")
        await reader.readexactly(4)
        await forward.close()
        assert await reader.read(-1) == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, forward.here)
        assert all(process.popen.poll() is not None for process in channel.started)


@pytest.mark.parametrize("program", ["socat", "nc", "bash"])
async def test_without_python(tmp_path: Path, program: str) -> None:
    """A node without Python uses what it has."""
    channel = HostChannel(tmp_path, env=only(tmp_path, "cat", program))
    assert (await find_program(channel, "host")).partition("-")[0] == program
    async with forwarded(channel, echo) as forward:
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.here)
        with closing(writer):
            writer.write(b"there")
            assert await reader.readexactly(5) == b"there"


async def test_with_nothing(tmp_path: Path) -> None:
    """A node that has nothing to connect with is an error that says what would do."""
    with pytest.raises(CommandError, match="Python 3, socat, nc or bash"):
        await Forward.open(HostChannel(tmp_path, env=only(tmp_path, "cat")), "host", 80)


async def test_the_port_here(tmp_path: Path) -> None:
    """A port of ours that is taken is an error when it was asked for."""
    async with forwarded(HostChannel(tmp_path), echo) as forward:
        with pytest.raises(WardianError, match=f"cannot listen on port {forward.here} here"):
            await Forward.open(HostChannel(tmp_path), "host", 80, forward.here)


def test_targets() -> None:
    """A target is a selector and a port, and anything else an error that says how it is written."""
    assert parse_target("client[0]:8080").selector == "client[0]"
    for wrong in ("client", "client:", ":80", "client:0", "client:70000", "client:http"):
        with pytest.raises(SelectorError, match="is no port of a node"):
            parse_target(wrong)
