"""The way to a node, as `base.Channel` promises: its own process 1 starts what is asked for, or the Engine does, by `exec`."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from ...errors import CommandError, NodeDownError, ProviderError
from ..base import Channel, Process
from ..local.channel import StreamsRefusedError, started
from . import within
from .engine import Engine, EngineDownError, EngineError
from .names import container_name
from .streams import ExecStream

GRACE = 2.0
"""Seconds between hanging up on a process and killing it."""

_REMEDY = "`wardian up` makes it anew."

# Says who it is, or what it lacks, in one line, and becomes the program. What it is given are arguments, never text to be read as shell.
_BEGIN = r"""
wardian_refuse() { echo "!$1"; exit 127; }
wardian_folder=$1 wardian_streams=$2 wardian_program=$3
shift 2
set -f
if [ -n "$wardian_folder" ]; then
  cd "$wardian_folder" 2>/dev/null || wardian_refuse cwd
else
  cd "${HOME:-/}" 2>/dev/null || cd /
fi
case $wardian_program in
  */*) wardian_found=$wardian_program ;;
  *)
    wardian_found=
    IFS=:
    for wardian_place in $PATH; do
      if [ -f "$wardian_place/$wardian_program" ] && [ -x "$wardian_place/$wardian_program" ]; then
        wardian_found=$wardian_place/$wardian_program
        break
      fi
    done
    unset IFS ;;
esac
[ -f "$wardian_found" ] && [ -x "$wardian_found" ] || wardian_refuse program
echo "$$"
case $wardian_streams in *t*) read -r wardian_go ;; esac
case $wardian_streams in *i*) exec </dev/null ;; esac
case $wardian_streams in *o*) exec >/dev/null ;; esac
case $wardian_streams in *m*) exec 2>&1 ;; *e*) exec 2>/dev/null ;; esac
exec "$@"
"""
_SIGNAL = 'kill "-$1" "-$2" 2>/dev/null'


class DockerChannel(Channel):
    """Starts processes in the container of a node."""

    def __init__(self, engine: Engine, environment: str, node: str, process: Path | None = None) -> None:
        """process: where the node's process 1 is written down, where that is one of this machine's and may be asked."""
        self._engine = engine
        self._process = process
        self.node = node
        self._container = container_name(environment, node)

    @classmethod
    def of_container(cls, engine: Engine, container: str) -> DockerChannel:
        """The way to a container that is no node's."""
        channel = cls(engine, "", container)
        channel._container = container
        return channel

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
    ) -> Process:
        init = await within.connection(self.node, self._process) if self._process else None
        if init is not None:
            with suppress(StreamsRefusedError):
                request = within.request(self.node, argv, env or {}, cwd, terminal)
                return await started(self.node, init, request, argv, cwd, None if terminal else (stdin, stdout, stderr))
        return await self._executed(argv, env or {}, cwd, (stdin, stdout, stderr), terminal)

    async def _executed(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        streams: tuple[int | None, int | None, int | None],
        terminal: tuple[int, int] | None,
    ) -> DockerProcess:
        """A process that the Engine starts."""
        stdin, stdout, stderr = streams
        null, merge = asyncio.subprocess.DEVNULL, asyncio.subprocess.STDOUT
        redirected = [(stdin == null, "i"), (stdout == null, "o"), (stderr == null, "e"), (stderr == merge, "m")]
        letters = "t" if terminal else "".join(letter for wanted, letter in redirected if wanted)
        command = ["/bin/sh", "-c", _BEGIN, "sh", cwd or "", letters, *argv]
        given = [f"{name}={value}" for name, value in env.items()]
        identity, stream = await self._exec(command, given, terminal=terminal is not None)
        process = DockerProcess(self, identity, stream)
        try:
            await process.begin(argv[0], cwd, terminal)
        except BaseException:
            stream.abort()
            raise
        if terminal or stdin is None:
            process.stdin = stream.stdin
        if terminal or stdout is None:
            process.stdout = stream.stdout
        if not terminal and stderr is None:
            process.stderr = stream.stderr
        return process

    async def exit_code(self, identity: str) -> int | None:
        """That of an ended `exec`; None when it ended because the node did, or the Engine."""
        try:
            state = await self._engine.get(f"/exec/{identity}/json")
            if state["Running"]:
                state = await self._until_ended(identity)
            code = state["ExitCode"]
            if code is None or (code == 128 + signal.SIGKILL and not await self.is_up()):
                return None
        except ProviderError:
            return None
        return int(code)

    async def _until_ended(self, identity: str) -> Mapping[str, Any]:
        """The state of an `exec` once it ended: its streams may end before, and the Engine's own books are behind for a moment."""
        wanted = {"container": [self._container], "event": ["exec_die", "die"]}
        events = self._engine.lines("GET", "/events", query={"filters": wanted, "since": int(time.time()) - 1})
        async with aclosing(events):
            state: Mapping[str, Any] = await self._engine.get(f"/exec/{identity}/json")
            while state["Running"]:
                event = await anext(events)
                if event["Action"] == "die" or event["Actor"]["Attributes"].get("execID") == identity:
                    state = await self._engine.get(f"/exec/{identity}/json")
                    if event["Action"] == "die":
                        break
        return state

    async def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process group of the node; one that is gone is no error."""
        with suppress(ProviderError, NodeDownError):
            await self._short(["/bin/sh", "-c", _SIGNAL, "sh", str(int(number)), str(pid)])

    async def resize(self, identity: str, rows: int, columns: int) -> None:
        """Tell the terminal of an `exec` its size; one that ended is no error."""
        with suppress(EngineError):
            await self._engine.post(f"/exec/{identity}/resize", h=rows, w=columns)

    async def write(self, path: str, text: str) -> None:
        """Replace the content of a file of the node, which may be a mount. Raises CommandError when that fails."""
        process = await self.start(["/bin/sh", "-c", 'cat > "$1"', "sh", path], stderr=asyncio.subprocess.STDOUT)
        try:
            if process.stdin is not None and process.stdout is not None:
                process.stdin.write(text.encode())
                process.stdin.close()
                said = (await process.stdout.read()).decode(errors="replace").strip()
                if await process.wait():
                    raise CommandError(self.node, f"{path} cannot be written: {said}")
        finally:
            await process.close()

    def down(self, what: str) -> NodeDownError:
        """The error for a node that is gone."""
        return NodeDownError(self.node, what, remedy=_REMEDY)

    async def is_up(self) -> bool:
        """Whether something can be started there: what the Engine says of a container may be of a moment ago."""
        try:
            await self._short(["/bin/sh", "-c", ":"])
        except (NodeDownError, ProviderError):
            return False
        return True

    async def _short(self, argv: Sequence[str]) -> None:
        identity, stream = await self._exec(argv, [], terminal=False)
        stream.stdin.close()
        await stream.ended.wait()
        if (await self._engine.get(f"/exec/{identity}/json"))["ExitCode"] == 126:
            raise self.down("nothing can be started there")

    async def _exec(self, command: Sequence[str], env: Sequence[str], *, terminal: bool) -> tuple[str, ExecStream]:
        asked = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": not terminal, "Tty": terminal, "User": "0"}
        try:
            made = await self._engine.post(f"/containers/{self._container}/exec", {**asked, "Cmd": list(command), "Env": list(env)})
            body = json.dumps({"Detach": False, "Tty": terminal}).encode()
            return made["Id"], await ExecStream.open(self._engine, f"/exec/{made['Id']}/start", body, raw=terminal)
        except EngineDownError as error:
            raise self._unreachable(error) from error
        except EngineError as error:
            raise await self._refused(error) from error
        except OSError as error:
            raise self.down(f"the Engine went away: {error}") from error

    async def _refused(self, error: EngineError) -> CommandError | NodeDownError:
        """What a refused `exec` means. Its status does not tell: of a container that just ended the Engine says 404, 409 or 500."""
        try:
            state = (await self._engine.get(f"/containers/{self._container}/json"))["State"]
        except EngineDownError as silence:
            return self._unreachable(silence)
        except EngineError:
            return NodeDownError(self.node, "there is no such node", remedy="`wardian up` makes it.")
        if state["Paused"]:
            return NodeDownError(self.node, "the node is paused", remedy=f"`docker unpause {self._container}` lets it go on.")
        return (
            CommandError(self.node, f"nothing can be started there: {error.message}")
            if state["Running"]
            else self.down("the node is not running")
        )

    def _unreachable(self, error: EngineDownError) -> NodeDownError:
        return NodeDownError(self.node, error.message, remedy=error.remedy)


class DockerProcess:
    """A process in a container, as `base.Process` promises."""

    def __init__(self, channel: DockerChannel, identity: str, stream: ExecStream) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._channel = channel
        self._identity = identity
        self._stream = stream
        self._pid = 0
        self._ending: asyncio.Task[int | None] | None = None

    async def begin(self, program: str, cwd: str | None, terminal: tuple[int, int] | None) -> None:
        """Take the first line, which says whether it runs. Raises CommandError or NodeDownError."""
        first = (await self._stream.stdout.readline()).strip()
        if not first.isdigit():
            raise await self._refusal(first, program, cwd)
        self._pid = int(first)
        if terminal:
            await self._channel.resize(self._identity, *terminal)
            self._stream.stdin.write(b"\n")
            # the terminal's echo of that
            await self._stream.stdout.readuntil(b"\n")
        self._ending = asyncio.create_task(self._end())

    async def wait(self) -> int:
        code = await asyncio.shield(self._ended())
        if code is None:
            raise self._channel.down("the node went away while a command ran")
        return code

    async def signal(self, number: int) -> None:
        if not self._ended().done():
            await self._channel.signal(self._pid, number)

    async def resize(self, rows: int, columns: int) -> None:
        await self._channel.resize(self._identity, rows, columns)

    async def close(self) -> None:
        self._stream.discard()
        try:
            for number in (signal.SIGHUP, signal.SIGKILL):
                await self.signal(number)
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(self._ended()), GRACE)
                    break
        finally:
            self._stream.abort()

    def _ended(self) -> asyncio.Task[int | None]:
        if self._ending is None:
            raise RuntimeError("the process has not begun")
        return self._ending

    async def _end(self) -> int | None:
        await self._stream.ended.wait()
        return await self._channel.exit_code(self._identity)

    async def _refusal(self, first: bytes, program: str, cwd: str | None) -> CommandError | NodeDownError:
        node = self._channel.node
        if first == b"!cwd":
            return CommandError(node, f"{program} cannot be executed in folder {cwd}: there is no such folder")
        if first == b"!program":
            return CommandError(node, f"{program} cannot be executed: there is no such program")
        said = (first + b" " + await self._stream.stdout.read() + await self._stream.stderr.read()).decode(errors="replace").strip()
        # what runs containers says in words of its own that one of them is gone
        if await self._channel.exit_code(self._identity) is None or not await self._channel.is_up():
            return self._channel.down("the node went away while a command was started")
        return CommandError(node, f"{program} cannot be executed: {said or 'the Engine gave no reason'}")
