"""The Engine's API over its socket: requests, progress as JSON lines, and the two-way streams of `exec`.

One connection a request: on a local socket that costs some tens of microseconds, and nothing has to be closed at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

from ...errors import ProviderError
from .address import dial

LARGEST_HEAD = 1 << 16
_CHUNK = 1 << 16
_FULL = "no space left on device"


class EngineError(ProviderError):
    """The Engine refused something; `status` is that of its answer."""

    def __init__(self, status: int, message: str, *, resource: str = "") -> None:
        super().__init__(message, resource=resource, remedy=remedy(message))
        self.status = status


class EngineDownError(ProviderError):
    """Nobody answers at the Engine's address."""


class Engine:
    """The Engine at an address (see `address.py`)."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON that is there."""
        return await self.request("GET", path, query=query)

    async def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """Have something done; gives the JSON of the answer, or None."""
        return await self.request("POST", path, body=body, query=query)

    async def delete(self, path: str, **query: Any) -> None:
        """Remove something. What is not there, or is being removed already, is no error."""
        try:
            await self.request("DELETE", path, query=query)
        except EngineError as error:
            if error.status != 404 and not (error.status == 409 and "already in progress" in error.message):
                raise

    async def request(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """One request and its whole answer. Raises EngineError for a refusal, EngineDownError where nobody answers."""
        async with self._exchange(method, path, body, query, headers) as answer:
            data = await answer.read() if method != "HEAD" else b""
        if answer.status >= 300:
            raise EngineError(answer.status, reason(data, answer.status))
        return json.loads(data) if data and answer.headers.get("content-type", "").startswith("application/json") else None

    async def lines(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """One request, whose answer is a series of JSON objects, each as it comes. body: as JSON, or an iterator of bytes, sent as it is.

        Raises EngineError also for an error that comes within the series.
        """
        async with self._exchange(method, path, body, query, headers) as answer:
            if answer.status >= 300:
                raise EngineError(answer.status, reason(await answer.read(), answer.status))
            decoder, text = json.JSONDecoder(), ""
            async for chunk in answer.chunks():
                text += chunk.decode(errors="replace")
                while text := text.lstrip():
                    try:
                        item, end = decoder.raw_decode(text)
                    except ValueError:
                        break
                    text = text[end:]
                    if "error" in item:
                        raise EngineError(500, str(item["error"]).strip())
                    yield item

    async def download(self, path: str, **query: Any) -> AsyncGenerator[bytes, None]:
        """The bytes that are there, as they come."""
        async with self._exchange("GET", path, None, query, None) as answer:
            if answer.status >= 300:
                raise EngineError(answer.status, reason(await answer.read(), answer.status))
            async for chunk in answer.chunks():
                yield chunk

    async def connect(self) -> socket.socket:
        """A connection of one's own. Raises EngineDownError."""
        try:
            if self.address.startswith("unix:"):
                return dial(self.address)
            return await asyncio.to_thread(dial, self.address)
        except OSError as error:
            raise self.down(error) from error

    def peer(self) -> int | None:
        """The process that listens there, where it is one of this machine's."""
        if not self.address.startswith("unix:"):
            return None
        with dial(self.address) as connection:
            pid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
        return pid or None

    def down(self, error: OSError | None = None) -> EngineDownError:
        """The error for an Engine that does not answer."""
        if isinstance(error, PermissionError):
            remedy = "Run as root, or as a member of the group docker."
            return EngineDownError(f"user {os.geteuid()} may not use the Docker Engine at {self.address}", remedy=remedy)
        reason = f": {error.strerror}" if error is not None and error.strerror else ""
        remedy = "Start it (systemctl start docker), or say where it is with DOCKER_HOST or `docker context use`."
        return EngineDownError(f"the Docker Engine at {self.address} does not answer{reason}", remedy=remedy)

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, body: Any, query: Mapping[str, Any] | None, headers: Mapping[str, str] | None
    ) -> AsyncIterator[_Answer]:
        reader, writer = await asyncio.open_connection(sock=await self.connect(), limit=LARGEST_HEAD)
        try:
            streamed = hasattr(body, "__aiter__")
            content = b"" if body is None or streamed else json.dumps(body).encode()
            given = {"Content-Type": "application/x-tar" if streamed else "application/json", "Connection": "close", **(headers or {})}
            given |= {"Transfer-Encoding": "chunked"} if streamed else {"Content-Length": str(len(content))}
            writer.write(head(method, path, query, given) + content)
            sending = asyncio.create_task(_send(writer, body)) if streamed else None
            try:
                answer = await _Answer.begin(reader)
                yield answer
            finally:
                if sending is not None:
                    sending.cancel()
                    (outcome,) = await asyncio.gather(sending, return_exceptions=True)
                    if isinstance(outcome, ProviderError):
                        raise outcome
        except (OSError, asyncio.IncompleteReadError) as error:
            raise self.down(error if isinstance(error, OSError) else None) from error
        finally:
            writer.close()


def remedy(said: str) -> str | None:
    """What to do about what the Engine, or a program that it ran, said, where that is always the same."""
    if _FULL in said.lower():
        return "Free space where the Engine keeps its data (`docker system df` shows what takes it)."
    return None


def head(method: str, path: str, query: Mapping[str, Any] | None, headers: Mapping[str, str]) -> bytes:
    """The beginning of a request, up to its body."""
    target = quote(path)
    if query:
        # a tuple is one name with several values
        pairs = [(name, item) for name, value in query.items() for item in (value if isinstance(value, tuple) else (value,))]
        target += "?" + urlencode([(name, _text(item)) for name, item in pairs])
    lines = [f"{method} {target} HTTP/1.1", "Host: docker", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parse_head(data: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    first, *rest = data.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    return int(first.split(" ", 2)[1]), headers


class _Answer:
    """Status and headers of an answer, and its body as it comes."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> None:
        self._reader = reader
        self.status = status
        self.headers = headers

    @staticmethod
    async def begin(reader: asyncio.StreamReader) -> _Answer:
        return _Answer(reader, *parse_head(await reader.readuntil(b"\r\n\r\n")))

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.status in (204, 304):
            return
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int((await self._reader.readline()).partition(b";")[0] or b"0", 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left and (chunk := await self._reader.readexactly(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk
        else:
            while chunk := await self._reader.read(_CHUNK):
                yield chunk


async def _send(writer: asyncio.StreamWriter, body: AsyncIterator[bytes]) -> None:
    try:
        async for chunk in body:
            if chunk:
                writer.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
                await writer.drain()
        writer.write(b"0\r\n\r\n")
    except ProviderError:
        # what was to be sent cannot be had; the Engine must not take the part for the whole
        writer.transport.abort()
        raise


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict | list) else str(value)


def reason(data: bytes, status: int) -> str:
    """Why the Engine refused something, from the body of its answer."""
    try:
        return str(json.loads(data)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip()[:500] or f"the Engine answered with status {status}"
