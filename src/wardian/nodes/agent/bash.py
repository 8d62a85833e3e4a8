"""Kernels that are a shell: cells are fed to it, its streams cut into messages."""

from __future__ import annotations

import codecs
import collections
import contextlib
import json
import os
import signal
import time
from functools import partial

from .files import log, remove_file, write_file
from .kernel import Kernel
from .processes import dev_null, executable_of, ignores, pipe, read_some, session_members, spawn, waiting
from .protocol import IOPUB, KIB, MIB, Refused, message_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .agent import Agent
    from .loop import Loop


class Outlet:
    """One output stream of a shell, cut into stream messages.

    While little comes it passes at once; when much comes it is gathered for a few milliseconds, so that a loop of small writes makes
    few messages. Meanwhile the pipe holds it.
    """

    PERIOD, BURST = 0.01, 8

    def __init__(self, loop: Loop, emit: Callable[[str], None]) -> None:
        self._loop, self._emit = loop, emit
        self.fd, self.write_end = pipe(MIB)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._period_end = 0.0
        self._reads = 0
        loop.watch(self.fd, self._readable)

    def drain(self) -> None:
        """Pass on everything that was written before this call."""
        left = waiting(self.fd)
        while left > 0:
            data = read_some(self.fd, min(left, 64 * KIB))
            if not data:
                break
            left -= len(data)
            self._pass(data)

    def close(self) -> None:
        self._loop.unwatch(self.fd)
        os.close(self.fd)
        os.close(self.write_end)
        self.fd = -1

    def _readable(self, events: int) -> None:
        now = time.monotonic()
        if now >= self._period_end:
            self._period_end, self._reads = now + self.PERIOD, 0
        self._reads += 1
        if self._reads > self.BURST:
            self._loop.unwatch(self.fd)
            self._loop.later(self._period_end - now, self._resume)
            return
        data = read_some(self.fd, 64 * KIB)
        if data:
            self._pass(data)

    def _resume(self) -> None:
        if self.fd < 0:
            return
        for _ in range(16):
            data = read_some(self.fd, 64 * KIB)
            if not data:
                break
            self._pass(data)
        # still in a flood: keep to the slow pace
        self._period_end, self._reads = time.monotonic() + self.PERIOD, self.BURST
        self._loop.watch(self.fd, self._readable)

    def _pass(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        if text:
            self._emit(text)


class Job:
    """Something the shell does before it is asked for anything else: a cell, a completion, its own setup."""

    def __init__(self, lines: str, done: Callable[[int], None], cell: Cell | None = None) -> None:
        self.lines, self.done, self.cell = lines, done, cell
        self.token = 0
        self.started = 0.0
        self.interrupted = self.ending = False


class Cell:
    """One execute request."""

    def __init__(self, channel: int, parts: list[bytes], content: Mapping[str, Any], count: int) -> None:
        self.channel, self.header, self.content, self.count = channel, parts[0], content, count


class BashKernel(Kernel):
    """One long-lived bash on pipes.

    The shell is interactive for one reason: SIGINT then abandons the cell and keeps the shell, as do `set -u` and `${x:?}`. It reads
    `source FILE` on its standard input, followed by a line that reports the status on a pipe of its own. That line comes apart
    from the first because an interrupt discards the line being run.
    """

    language = "bash"
    STATUS_FD, ERROR_FD = 200, 201
    INTERRUPTS = 8
    LANGUAGE: Mapping[str, Any] = {
        "name": "bash",
        "mimetype": "text/x-sh",
        "file_extension": ".sh",
        "codemirror_mode": "shell",
        "pygments_lexer": "bash",
    }
    SETUP = (
        f"exec 2>&{ERROR_FD} {ERROR_FD}>&-; set +H +m +o history; shopt -u checkwinsize; unset HISTFILE TMOUT MAILCHECK PROMPT_COMMAND\n"
        "command_not_found_handle() { printf '%s: line %s: %s: command not found\\n' \"${BASH_SOURCE[1]##*/}\""
        ' "${BASH_LINENO[0]}" "$1" >&2; return 127; }\n'
        f"printf 'version %s\\n' \"$BASH_VERSION\" >&{STATUS_FD}\n"
    )

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str) -> None:
        super().__init__(agent, name, env, cwd)
        self.env.update(PS1="", PS2="", WARDIAN_KERNEL=name)
        self.session = os.urandom(8).hex()
        self.version = ""
        self._count = 0
        self._token = 0
        self._parent = b"{}"
        self._input = -1
        self._jobs: collections.deque[Job] = collections.deque()
        self._job: Job | None = None
        self._outlets: list[Outlet] = []
        self._status_read = self._status_write = -1
        self._status_text = b""

    def start(self) -> None:
        os.makedirs(self.directory, exist_ok=True)
        self._outlets = [Outlet(self.agent.loop, self._stream("stdout")), Outlet(self.agent.loop, self._stream("stderr"))]
        self._status_read, self._status_write = pipe()
        self.agent.loop.watch(self._status_read, self._status)
        self._launch_shell()
        self._enqueue(Job("", lambda status: self.ready()))

    def close(self) -> None:
        for outlet in self._outlets:
            outlet.close()
        if self._status_read >= 0:
            self.agent.loop.unwatch(self._status_read)
            os.close(self._status_read)
            os.close(self._status_write)
        self._close_input()
        super().close()

    def interrupt(self) -> None:
        if self._job and self.pid:
            self._job.interrupted = True
            self._insist(self._job)

    def input(self, channel: int, parts: list[bytes]) -> None:
        try:
            kind = json.loads(parts[0])["msg_type"]
            content = json.loads(parts[3])
            handler = getattr(self, "_on_" + kind, None) if isinstance(kind, str) and isinstance(content, dict) else None
        except (ValueError, KeyError, TypeError, RecursionError):
            log(f"kernel {self.id}: malformed message")
            return
        if handler:
            handler(channel, parts, content)

    # requests

    def _on_execute_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        cell = Cell(channel, parts, content, 0)
        self._enqueue(Job("", lambda status: self._executed(cell, status), cell))

    def _on_kernel_info_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        info = {"status": "ok", "protocol_version": "5.4", "implementation": "wardian-bash", "implementation_version": "1"}
        self._answer(channel, parts, dict(info, language_info=self.language_info, banner="bash " + self.version, help_links=[]))

    def _on_complete_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        code, cursor = content.get("code"), content.get("cursor_pos")
        if not isinstance(code, str) or not isinstance(cursor, int):
            return
        start, word, action = completion_of(code[:cursor])
        result = {"status": "ok", "matches": [], "cursor_start": start, "cursor_end": cursor, "metadata": {}}
        if self._job or not self.pid:
            self._answer(channel, parts, result)
            return
        path = os.path.join(self.directory, "matches")

        def done(status: int) -> None:
            result["matches"] = read_matches(path, word, action, f"/proc/{self.pid}/cwd")
            self._answer(channel, parts, result)

        self._enqueue(Job(f"compgen {action} -- {quoted(word)} >{quoted(path)} 2>/dev/null </dev/null\n", done))

    def _on_is_complete_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        code = content.get("code")
        path = os.path.join(self.directory, "check")
        write_file(path, code if isinstance(code, str) else "")
        read, write = pipe()
        pid = spawn(["bash", "-n", path], dict(self.env, LC_ALL="C"), "/", {0: dev_null(), 1: write, 2: write})
        os.close(write)

        def done(status: int) -> None:
            errors = read_some(read) or b""
            os.close(read)
            unfinished = b"unexpected end of file" in errors or b"unexpected EOF" in errors or b"here-document" in errors
            continued = isinstance(code, str) and (len(code) - len(code.rstrip("\\"))) % 2 == 1
            verdict = "incomplete" if unfinished or continued else "invalid" if status else "complete"
            answer = {"status": verdict}
            if verdict == "incomplete":
                answer["indent"] = ""
            self._answer(channel, parts, answer)

        self.agent.loop.child(pid, done)

    def _on_inspect_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "found": False, "data": {}, "metadata": {}})

    def _on_history_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "history": []})

    def _on_comm_info_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "comms": {}})

    def _on_interrupt_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self.interrupt()
        self._answer(channel, parts, {"status": "ok"})

    def _on_shutdown_request(self, channel: int, parts: list[bytes], content: dict[str, Any]) -> None:
        self._answer(channel, parts, {"status": "ok", "restart": bool(content.get("restart"))})
        self._jobs.clear()
        pid, self.pid, self._job = self.pid, None, None
        self._close_input()
        if pid:
            self.agent.sessions.end(pid, self.agent.loop, lambda: self.died(0, ""))
        else:
            self.died(0, "")

    # the shell

    def _launch_shell(self) -> None:
        read, self._input = os.pipe()
        os.set_blocking(self._input, False)
        stdout, stderr = (outlet.write_end for outlet in self._outlets)
        fds = {0: read, 1: stdout, 2: dev_null(), self.STATUS_FD: self._status_write, self.ERROR_FD: stderr}
        argv = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
        try:
            self.launch(argv, fds, self._exited, self.env)
        finally:
            os.close(read)
        self._say(self.SETUP)

    def _enqueue(self, job: Job) -> None:
        self._jobs.append(job)
        if not self._job:
            self._next()

    def _next(self) -> None:
        if not self._jobs:
            return
        if not self.pid:
            try:
                self._launch_shell()
            except OSError as error:
                self.died(127, f"bash could not be started again: {error}")
                return
        self._job = job = self._jobs.popleft()
        self._token += 1
        job.token = self._token
        job.started = time.clock_gettime(time.CLOCK_BOOTTIME)
        if job.cell:
            self._begin(job, job.cell)
        self._say(job.lines + self._report(job))

    def _begin(self, job: Job, cell: Cell) -> None:
        silent = cell.content.get("silent") is True
        if not silent and cell.content.get("store_history", True):
            self._count += 1
        cell.count = self._count
        self.state = "busy"
        self._parent = cell.header
        self._publish("status", {"execution_state": "busy"}, cell.header)
        code = cell.content.get("code")
        code = code if isinstance(code, str) else ""
        if not silent:
            self._publish("execute_input", {"code": code, "execution_count": cell.count}, cell.header)
        name = f"cell[{cell.count}]"
        path = os.path.join(self.directory, name)
        write_file(path, code)
        job.lines = f"BASH_ARGV0='{name}'; source {quoted(path)} </dev/null {self.STATUS_FD}>&-\n"

    def _executed(self, cell: Cell, status: int) -> None:
        job = self._job
        interrupted = bool(job and job.interrupted)
        remove_file(os.path.join(self.directory, f"cell[{cell.count}]"))
        reply: dict[str, Any] = {"status": "ok", "execution_count": cell.count, "payload": [], "user_expressions": {}}
        if status:
            error = {"ename": "ExitCode", "evalue": str(status), "traceback": [f"cell[{cell.count}]: exit status {status}"]}
            if interrupted and status == 130:
                error = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": [f"cell[{cell.count}]: interrupted"]}
            self._publish("error", error, cell.header)
            reply = dict(error, status="error", execution_count=cell.count, payload=[], user_expressions={})
        self.state = "idle"
        self.emit(cell.channel, message_parts("execute_reply", reply, cell.header, self.session))
        self._publish("status", {"execution_state": "idle"}, cell.header)
        if status and cell.content.get("stop_on_error", True):
            self._abort()

    def _abort(self) -> None:
        waiting_jobs, self._jobs = self._jobs, collections.deque()
        for job in waiting_jobs:
            if job.cell:
                self._publish("status", {"execution_state": "busy"}, job.cell.header)
                content = {"status": "aborted", "execution_count": self._count}
                self.emit(job.cell.channel, message_parts("execute_reply", content, job.cell.header, self.session))
                self._publish("status", {"execution_state": "idle"}, job.cell.header)
            else:
                self._jobs.append(job)

    def _report(self, job: Job) -> str:
        # without quotes: what an interrupt leaves of the line must not open one
        return f"builtin echo {job.token} $? >&{self.STATUS_FD}\n"

    def _insist(
        self, job: Job, pause: float = 0.01, signals: int = INTERRUPTS, settled: frozenset[int] = frozenset(), patience: int = 3
    ) -> None:
        """SIGINT until the shell has abandoned its job.

        Once is not always enough: the signal may discard the line that reports the status; a command that is just being forked
        misses it; a program that handles it and exits normally makes the shell go on with the cell. No program gets it twice:
        `settled` are those that had it. The shell's own forks do, as they may not be the program yet.
        """
        if self._job is not job or job.ending or not self.pid or not signals:
            return
        foreground = set(self._foreground(job))
        fresh = foreground - settled
        shell = executable_of(self.pid)
        if signals == self.INTERRUPTS and patience and any(executable_of(pid) == shell for pid in fresh):
            # about to become a program, most likely: let it, or it would exit normally and the shell go on
            self.agent.loop.later(0.005, partial(self._insist, job, pause, signals, settled, patience - 1))
            return
        if fresh or not foreground:
            programs = {pid for pid in fresh if executable_of(pid) != shell}
            settled |= programs
            # shells before what they wait for, and the last of a pipeline before what feeds it: the one that sees another
            # end before it has the signal goes on
            for pid in (self.pid, *sorted(fresh - programs), *sorted(programs, reverse=True)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            # a signal that comes amid a line discards its beginning: the blanks are there for that
            self._say(" " * 64 + self._report(job))
            signals -= 1
        self.agent.loop.later(pause, partial(self._insist, job, min(pause * 2, 0.2), signals, settled))

    def _foreground(self, job: Job) -> list[int]:
        """What a job has started and may wait for. Not what ignores SIGINT, as the shell's background processes do.

        Neither the session nor the process group says it: the first has what earlier cells left in the background, the second
        lacks `timeout` and what it runs.
        """
        members = session_members(self.pid or 0, since=job.started)
        return [pid for pid in members if pid != self.pid and not ignores(pid, signal.SIGINT)]

    def _say(self, text: str) -> None:
        try:
            os.write(self._input, text.encode())
        except OSError as error:
            log(f"kernel {self.id}: {error}")

    def _status(self, events: int) -> None:
        data = read_some(self._status_read)
        if not data:
            return
        *lines, self._status_text = (self._status_text + data).split(b"\n")
        for line in lines:
            token, _, value = line.partition(b" ")
            if token == b"version":
                self.version = value.decode("ascii", "replace")
                self.language_info = dict(self.LANGUAGE, version=self.version)
            elif self._job and token == b"%d" % self._job.token:
                self._finish(int(value) if value.isdigit() else 1)

    def _finish(self, status: int) -> None:
        job = self._job
        if not job or job.ending:
            return
        if job.interrupted and self.pid and self._end_foreground(job, status, 0.005):
            return
        job.ending = True
        for outlet in self._outlets:
            outlet.drain()
        job.done(status)
        self._job = None
        self._next()

    def _end_foreground(self, job: Job, status: int, pause: float) -> bool:
        """End what an abandoned job left running: the shell would wait for it before the next. Whether there is any."""
        left = self._foreground(job)
        job.ending = bool(left)
        for pid in left if pause < 0.01 or pause > 0.1 else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if pause < 0.5 else signal.SIGKILL)

        def again() -> None:
            if self._job is job and not (self.pid and self._end_foreground(job, status, pause * 2)):
                job.ending = False
                self._finish(status)

        if left:
            self.agent.loop.later(pause, again)
        return bool(left)

    def _exited(self, code: int) -> None:
        self._status(0)
        if self.state == "dead" or not self.pid:
            return
        self.pid = None
        self._close_input()
        status = code if code >= 0 else 128 - code
        if self.starting:
            self.died(code, "")
            self.failed(Refused("kernel", f"bash ended while starting, with status {status}"))
            return
        for outlet in self._outlets:
            outlet.drain()
        text = f"the shell ended with status {status}; the next cell starts a new one, without the variables of this one\n"
        self._publish("stream", {"name": "stderr", "text": text}, self._parent)
        self._finish(status)

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def _stream(self, name: str) -> Callable[[str], None]:
        def emit(text: str) -> None:
            if name == "stderr" and self._job and self._job.interrupted:
                # the interrupted shell ends the line it takes itself to be on, and at times misses its terminal
                lines = [line for line in text.split("\n") if not line.endswith("tcsetattr: Inappropriate ioctl for device")]
                text = "\n".join(lines) if any(lines) else ""
            if text:
                self._publish("stream", {"name": name, "text": text}, self._parent)

        return emit

    def _publish(self, kind: str, content: Mapping[str, Any], parent: bytes) -> None:
        self.emit(IOPUB, message_parts(kind, content, parent, self.session))

    def _answer(self, channel: int, parts: list[bytes], content: Mapping[str, Any]) -> None:
        kind = json.loads(parts[0])["msg_type"].replace("_request", "_reply")
        self._publish("status", {"execution_state": "busy"}, parts[0])
        self.emit(channel, message_parts(kind, content, parts[0], self.session))
        self._publish("status", {"execution_state": "idle"}, parts[0])


def quoted(text: str) -> str:
    """A text as one word of the shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def completion_of(text: str) -> tuple[int, str, str]:
    """Where the word to complete starts, what to complete, and compgen's options for it."""
    start = len(text)
    while start and not text[start - 1].isspace() and text[start - 1] not in ";|&<>()=\"'`":
        start -= 1
    word = text[start:]
    for sign in ("${", "$"):
        if word.startswith(sign):
            return start + len(sign), word[len(sign) :], "-v"
    before = text[:start].rstrip(" \t")
    first = not before or before[-1] in ";|&(`\n"
    return start, word, "-c" if first and "/" not in word else "-f"


def read_matches(path: str, word: str, action: str, folder: str) -> list[str]:
    """compgen's answers: once each, folders with a slash, blanks escaped."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            matches = sorted(set(file.read().splitlines()))
    except OSError:
        return []
    if action == "-f":
        matches = [match + "/" if os.path.isdir(os.path.join(folder, match)) else match for match in matches]
        return [match.replace(" ", "\\ ") for match in matches]
    return matches[:2000]
