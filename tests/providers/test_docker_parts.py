"""Parts of the docker provider that need no Engine: where it is, what is built, what a registry is told, how streams are read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import socket
import struct
import tarfile
from pathlib import Path

import pytest

from wardian.errors import CommandError, NodeDownError, ProviderError
from wardian.experiment.resources import EnvironmentRecord
from wardian.providers.docker import context, credentials
from wardian.providers.docker.address import dial, engine_address
from wardian.providers.docker.channel import DockerChannel
from wardian.providers.docker.engine import Engine, EngineDownError, EngineError, parse_head
from wardian.providers.docker.memory import Memory
from wardian.providers.docker.names import container_name
from wardian.providers.docker.streams import ExecStream

# Where the Engine is


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's own configuration, empty, and no variables that say where the Engine is."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def write_context(config: Path, name: str, host: str) -> None:
    meta = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


def test_the_address_is_found_as_docker_finds_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting goes before DOCKER_HOST, that before the context of DOCKER_CONTEXT, that before the one in use."""
    write_context(config, "lab", "ssh://me@lab")
    write_context(config, "other", "unix:///other.sock")
    (config / "config.json").write_text('{"currentContext": "lab"}')
    assert engine_address() == "ssh://me@lab"
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert engine_address() == "unix:///other.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///host.sock")
    assert engine_address() == "unix:///host.sock"
    assert engine_address("unix:///chosen.sock") == "unix:///chosen.sock"


def test_a_context_that_is_not_there_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that names no Engine is an error with the way to a list of them."""
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(ProviderError, match="'gone'"):
        engine_address()


@pytest.mark.parametrize("address", ["/var/run/docker.sock", "http://host", "tcp://", "ssh://"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """An address of no known form is an error that shows the forms."""
    with pytest.raises(ProviderError, match="no address") as caught:
        dial(address)
    assert "unix:///" in (caught.value.remedy or "")


def test_tls_is_refused_with_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Engine behind TLS is refused, and the error says how to reach it all the same."""
    with pytest.raises(ProviderError, match="TLS") as caught:
        dial("tcp://host:2376")
    assert "ssh://" in (caught.value.remedy or "")


def test_ssh_reaches_it_by_the_docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ssh address runs `docker system dial-stdio` there, over one shared connection, and its streams are ours."""
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("WARDIAN_STATE", str(tmp_path))
    with dial("ssh://me@lab:2222") as connection:
        connection.setblocking(True)
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"hello"
    said = (tmp_path / "arguments").read_text()
    assert said.rstrip().endswith("-l me -p 2222 -- lab docker system dial-stdio")
    assert "ControlMaster=auto" in said


def test_an_environments_engine_is_remembered(tmp_path: Path) -> None:
    """Where an environment is stays known until it is forgotten, and half a file is none."""
    memory = Memory(tmp_path / "known")
    record = EnvironmentRecord("id", "name", "default", "/file", "docker", "me", "here", 1.5)
    assert memory.all() == []
    memory.remember("unix:///a.sock", record)
    assert (memory.engine("id"), memory.all()) == ("unix:///a.sock", [("unix:///a.sock", record)])
    (tmp_path / "known" / "half.json").write_text('{"engine": ')
    assert len(memory.all()) == 1
    for _ in range(2):
        memory.forget("id")
    assert memory.engine("id") is None


@pytest.mark.parametrize(("node", "name"), [("server", "id.server"), ("client[12]", "id.client-12")])
def test_containers_are_named_after_their_nodes(node: str, name: str) -> None:
    """A container is called what its node's hostname is, after the environment."""
    assert container_name("id", node) == name


# What is built


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ("", ["Dockerfile", "a", "a/b.log", "a/c.txt", "d.log"]),
        ("*.log", ["Dockerfile", "a", "a/b.log", "a/c.txt"]),
        ("**/*.log", ["Dockerfile", "a", "a/c.txt"]),
        ("a", ["Dockerfile", "d.log"]),
        ("a/", ["Dockerfile", "d.log"]),
        ("a\n!a/c.txt", ["Dockerfile", "a/c.txt", "d.log"]),
        ("# all\n*\n!a/*.txt", ["Dockerfile", "a/c.txt"]),
        ("?.log\nDockerfile", ["Dockerfile", "a", "a/b.log", "a/c.txt"]),
    ],
)
def test_what_is_ignored_is_left_out(tmp_path: Path, patterns: str, left: list[str]) -> None:
    """A .dockerignore leaves out what it matches and takes back what follows a `!`; never the Dockerfile, nor our own folder."""
    for name in ("Dockerfile", "a/b.log", "a/c.txt", "d.log", ".wardian/journal.db", ".git/HEAD"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text(patterns)
    packed = io.BytesIO()
    context.pack(tmp_path, None, packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        assert sorted(name for name in archive.getnames() if name != ".dockerignore") == left


def test_a_digest_follows_what_counts(tmp_path: Path) -> None:
    """The digest changes with contents, modes and names, and not with what is ignored or with times."""
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    (tmp_path / "a").write_text("1")
    (tmp_path / ".dockerignore").write_text("*.log\n")
    seen = [context.digest(tmp_path, None)]
    (tmp_path / "x.log").write_text("noise")
    (tmp_path / "a").touch()
    assert context.digest(tmp_path, None) == seen[0]
    for change in (
        lambda: (tmp_path / "a").write_text("2"),
        lambda: (tmp_path / "a").chmod(0o755),
        lambda: (tmp_path / "a").rename(tmp_path / "b"),
    ):
        change()
        seen.append(context.digest(tmp_path, None))
    assert len(set(seen)) == 4
    with pytest.raises(FileNotFoundError):
        context.digest(tmp_path, "Containerfile")


# What a registry is told


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("debian:12", credentials.HUB),
        ("user/image", credentials.HUB),
        ("ghcr.io/user/image:1", "ghcr.io"),
        ("localhost/image", "localhost"),
        ("host:5000/image", "host:5000"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    """The first part of a name is a registry where it looks like a host."""
    assert credentials.registry_of(image) == registry


def test_credentials_come_from_dockers_configuration(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords written down and those that a helper keeps are passed on, and none where nothing is known."""
    assert credentials.for_image("ghcr.io/image").header == {}
    written = {"ghcr.io": {"auth": base64.b64encode(b"me:pass:word").decode()}}
    (config / "config.json").write_text(json.dumps({"auths": written, "credHelpers": {"lab.example": "jar"}}))
    assert _told(credentials.for_image("ghcr.io/image").header) == {
        "username": "me",
        "password": "pass:word",
        "serveraddress": "ghcr.io",
    }
    helper = config / "docker-credential-jar"
    helper.write_text('#!/bin/sh\nread -r registry\necho "{\\"Username\\": \\"you\\", \\"Secret\\": \\"$registry\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{config}:/usr/bin:/bin")
    assert _told(credentials.for_image("lab.example/image").header)["password"] == "lab.example"


def _told(header: dict[str, str]) -> dict[str, str]:
    told: dict[str, str] = json.loads(base64.urlsafe_b64decode(header["X-Registry-Auth"]))
    return told


# The Engine's answers


class Canned:
    """A server that gives one answer to whoever asks, as bytes, in pieces of a size."""

    def __init__(self, path: Path, answer: bytes, size: int = 1) -> None:
        self.address = f"unix://{path}"
        self._path, self._answer, self._size = path, answer, size

    async def __aenter__(self) -> Engine:
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return Engine(self.address)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for position in range(0, len(self._answer), self._size):
            writer.write(self._answer[position : position + self._size])
            await writer.drain()
        writer.close()


async def test_answers_in_pieces(tmp_path: Path) -> None:
    """A chunked answer, one of known length and one that ends with the connection are read alike, however they are cut up."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    for name, answer in (
        ("chunked", head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n'),
        ("length", head + b'Content-Length: 8\r\n\r\n{"a": 1}'),
        ("closed", head + b'\r\n{"a": 1}'),
    ):
        async with Canned(tmp_path / name, answer) as engine:
            assert await engine.get("/x") == {"a": 1}


async def test_series_end_at_their_first_error(tmp_path: Path) -> None:
    """Progress comes object by object, and an error within it is raised with its words."""
    body = b'{"stream": "one"}\r\n{"stream": "two"}{"error": "no more"}'
    async with Canned(tmp_path / "s", b"HTTP/1.1 200 OK\r\n\r\n" + body, 7) as engine:
        lines = engine.lines("POST", "/x")
        assert [await anext(lines), await anext(lines)] == [{"stream": "one"}, {"stream": "two"}]
        with pytest.raises(EngineError, match="no more"):
            await anext(lines)


async def test_refusals_and_silence(tmp_path: Path) -> None:
    """A refusal carries the Engine's words, and a remedy where the disk is full; a broken connection is an Engine that is down."""
    body = json.dumps({"message": "write /x: no space left on device"}).encode()
    async with Canned(tmp_path / "full", b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as engine:
        with pytest.raises(EngineError, match="no space left") as caught:
            await engine.post("/x")
    assert (caught.value.status, "docker system df" in (caught.value.remedy or "")) == (500, True)
    async with Canned(tmp_path / "gone", b"HTTP/1.1 200") as engine:
        with pytest.raises(EngineDownError):
            await engine.get("/x")
    with pytest.raises(EngineDownError, match="does not answer"):
        await Engine(f"unix://{tmp_path}/none").get("/x")


def test_heads_are_read() -> None:
    """Status and headers come from the head of an answer, whatever the case of their names."""
    assert parse_head(b"HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nX-A:  b ") == (101, {"connection": "Upgrade", "x-a": "b"})


def frame(number: int, data: bytes) -> bytes:
    return struct.pack(">B3xI", number, len(data)) + data


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
async def test_frames_are_told_apart(tmp_path: Path, size: int) -> None:
    """Output and errors come apart and whole, however frames are cut up on the way."""
    frames = frame(1, b"one\n") + frame(2, b"wrong") + frame(1, b"") + frame(1, b"two" * 500)
    async with Canned(tmp_path / "s", b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n" + frames, size) as engine:
        stream = await ExecStream.open(engine, "/exec/1/start", b"{}", raw=False)
        assert await stream.stdout.read() == b"one\n" + b"two" * 500
        assert await stream.stderr.read() == b"wrong"
        assert stream.ended.is_set()


async def test_a_refused_exec_says_why(tmp_path: Path) -> None:
    """An exec that the Engine refuses to start raises its words."""
    body = b'{"message":"no such exec"}'
    async with Canned(tmp_path / "s", b"HTTP/1.1 404 X\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as engine:
        with pytest.raises(EngineError, match="no such exec"):
            await ExecStream.open(engine, "/exec/1/start", b"{}", raw=False)


async def test_a_command_without_an_engine_is_a_node_that_is_down(tmp_path: Path) -> None:
    """Starting a command where no Engine answers is an error about the node."""
    with pytest.raises(Exception, match="does not answer") as caught:
        await DockerChannel(Engine(f"unix://{tmp_path}/none"), "id", "server").start(["true"])
    assert type(caught.value).__name__ == "NodeDownError"


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({"Running": False, "Paused": False}, NodeDownError, "not running"),
        ({"Running": True, "Paused": True}, NodeDownError, "paused"),
        ({"Running": True, "Paused": False}, CommandError, "Exited"),
        (None, NodeDownError, "no such node"),
    ],
)
async def test_what_a_refused_start_means(tmp_path: Path, state: dict[str, bool] | None, error: type[Exception], words: str) -> None:
    """A refused start says that the node is down where its container is, whatever the status: one that just ended gets 500."""
    answers = {
        "/containers/id.server/exec": (201, {"Id": "1"}),
        "/exec/1/start": (500, {"message": "Container 1 is not running: Exited (137) Less than a second ago"}),
        "/containers/id.server/json": (200, {"State": state}) if state else (404, {"message": "No such container"}),
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        status, body = answers[path][0], json.dumps(answers[path][1]).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    async with server:
        with pytest.raises(error, match=words):
            await DockerChannel(Engine(f"unix://{tmp_path}/s"), "id", "server").start(["true"])
