"""Long-running programs of the experiment: watched, restarted, their log kept."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from .files import home, log
from .processes import dev_null, pipe, read_some, signal_session, spawn, waiting
from .protocol import KIB, MIB, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .agent import Agent
    from .client import Request
    from .loop import Timer

LOG_LIMIT = 8 * MIB


class Service:
    """One long-running command: started, watched, restarted; its output in a log of bounded size."""

    FIRST_PAUSE, LONGEST_PAUSE, HEALTHY = 0.2, 10.0, 10.0

    def __init__(self, agent: Agent, name: str, spec: dict[str, Any]) -> None:
        self.agent, self.name, self.spec = agent, name, spec
        self.state = "starting"
        self.pid: int | None = None
        self.restarts = 0
        self.exit_code: int | None = None
        self.since = time.time()
        self.path = os.path.join(agent.directory, "services", name + ".log")
        self._pause = self.FIRST_PAUSE
        self._started = 0.0
        self._waiting: list[tuple[Request, Timer]] = []
        self._timer: Timer | None = None
        self._check_pid: int | None = None
        self._line = b""
        self._pattern: Any = None
        self._stopping: list[Callable[[], None]] | None = None
        ready = spec["ready"] or {}
        if "log" in ready:
            import re

            self._pattern = re.compile(ready["log"].encode())
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._output, self._write_end = pipe()
        agent.loop.watch(self._output, self._said)

    def start(self) -> None:
        """Start the command, now."""
        self._started = time.monotonic()
        env = dict(self.agent.environment, **self.spec["env"], WARDIAN_SERVICE=self.name)
        try:
            fds = {0: dev_null(), 1: self._write_end, 2: self._write_end}
            self.pid = spawn(self.spec["command"], env, self.spec["cwd"] or home(), fds)
        except OSError as error:
            # a program or folder that is not there will not come by trying again
            self._write(b"cannot be started: %s\n" % str(error).encode())
            self.exit_code = 127
            self._become("failed")
            return
        self.agent.sessions.add(self.pid)
        self.agent.loop.child(self.pid, self._exited)
        ready = self.spec["ready"]
        self._become("starting" if ready else "ready")
        if ready and "log" not in ready:
            self._check(0.005)

    def wait(self, request: Request, timeout: float) -> None:
        """Answer once it is ready, has failed, or the time is up."""
        if self.state in ("starting", "restarting"):
            self._waiting.append((request, self.agent.loop.later(timeout, lambda: self._give_up(request, timeout))))
        else:
            self._answer(request)

    def stop(self, done: Callable[[], None]) -> None:
        """End it and everything it started, then call `done`."""
        if self._stopping is not None:
            self._stopping.append(done)
            return
        self._stopping = [done]
        self._cancel_check()
        if self.pid is None:
            self._stopped()
        else:
            self.agent.sessions.end(self.pid, self.agent.loop, self._stopped)

    def close(self) -> None:
        """Let go of its log and its pipe."""
        self.agent.loop.unwatch(self._output)
        for fd in (self._output, self._write_end, self._log):
            os.close(fd)
        self._output = -1

    def last_lines(self, count: int) -> str:
        """The end of its log."""
        self._collect()
        text = b""
        for path in (self.path + ".1", self.path):
            try:
                with open(path, "rb") as file:
                    file.seek(0, os.SEEK_END)
                    file.seek(max(0, file.tell() - MIB))
                    text += file.read()
            except OSError:
                continue
        lines = text.decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-count:]) if count > 0 else ""

    def _exited(self, code: int) -> None:
        session, self.pid = self.pid, None
        self._cancel_check()
        self._collect()
        self.exit_code = code if code >= 0 else 128 - code
        if self._stopping is not None:
            return
        if session:
            signal_session(session, signal.SIGKILL)
            self.agent.sessions.forget(session)
        policy = self.spec["restart"]
        if policy == "always" or (policy == "on-failure" and code):
            if time.monotonic() - self._started >= self.HEALTHY:
                self._pause = self.FIRST_PAUSE
            self._become("restarting")
            self._timer = self.agent.loop.later(self._pause, self._restart)
            self._pause = min(self._pause * 2, self.LONGEST_PAUSE)
        else:
            self._become("failed" if code else "stopped")

    def _restart(self) -> None:
        self.restarts += 1
        self.start()

    def _stopped(self) -> None:
        self.pid = None
        done, self._stopping = self._stopping or [], None
        self._become("stopped")
        for callback in done:
            callback()

    def _check(self, pause: float) -> None:
        ready = self.spec["ready"]
        if "port" in ready:
            if listening(ready["port"]):
                self._become("ready")
            else:
                self._timer = self.agent.loop.later(pause, lambda: self._check(min(pause * 1.5, 0.1)))
            return
        fds = {0: dev_null(), 1: self._write_end, 2: self._write_end}
        try:
            env = dict(self.agent.environment, **self.spec["env"])
            pid = self._check_pid = spawn(ready["command"], env, self.spec["cwd"] or home(), fds)
        except OSError as error:
            self._write(b"the readiness command cannot be started: %s\n" % str(error).encode())
            self._timer = self.agent.loop.later(1.0, lambda: self._check(1.0))
            return

        def checked(code: int) -> None:
            if self._check_pid != pid:
                return
            self._check_pid = None
            if code == 0:
                self._become("ready")
            else:
                self._timer = self.agent.loop.later(pause, lambda: self._check(min(pause * 2, 0.5)))

        self.agent.loop.child(pid, checked)

    def _cancel_check(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._check_pid:
            signal_session(self._check_pid, signal.SIGKILL)
            self._check_pid = None

    def _said(self, events: int) -> None:
        data = read_some(self._output, 64 * KIB)
        if data:
            self._write(data)
            if self._pattern and self.state == "starting":
                *lines, rest = (self._line + data).split(b"\n")
                self._line = rest[-64 * KIB :]
                if any(self._pattern.search(line) for line in [*lines, rest]):
                    self._become("ready")

    def _collect(self) -> None:
        left = waiting(self._output) if self._output >= 0 else 0
        if left:
            for _ in range(0, left, 64 * KIB):
                self._said(0)

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._log, data)
            if os.fstat(self._log).st_size > LOG_LIMIT:
                os.replace(self.path, self.path + ".1")
                os.close(self._log)
                self._log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log(f"service {self.name}: {error}")

    def _become(self, state: str) -> None:
        if state != self.state:
            self.since = time.time()
        self.state = state
        self._line = b""
        self.agent.broadcast(dict(self.describe(), event="service.state", service=self.name))
        if state not in ("starting", "restarting"):
            waiting_requests, self._waiting = self._waiting, []
            for request, timer in waiting_requests:
                timer.cancel()
                self._answer(request)

    def describe(self) -> dict[str, Any]:
        """What `service.list` says of it."""
        return {"state": self.state, "pid": self.pid, "restarts": self.restarts, "exit_code": self.exit_code, "since": self.since}

    def _answer(self, request: Request) -> None:
        if self.state == "ready":
            request.succeed({"state": "ready"})
        else:
            how = "" if self.exit_code is None else f" with exit code {self.exit_code}"
            request.refuse(Refused("service", f"service {self.name} {self.state}{how}{self._log_tail()}"))

    def _give_up(self, request: Request, timeout: float) -> None:
        self._waiting = [item for item in self._waiting if item[0] is not request]
        what = f"is not ready after {timeout:g} s ({self.state})"
        if self.restarts:
            what += f", and was restarted {self.restarts} times, the last exit code being {self.exit_code}"
        request.refuse(Refused("timeout", f"service {self.name} {what}{self._log_tail()}"))

    def _log_tail(self) -> str:
        text = self.last_lines(20)
        return "; the end of its log:\n" + text if text else "; its log is empty"


def listening(port: int) -> bool:
    """Whether a TCP port accepts connections here.

    Read from the kernel's table, not by connecting: a probe would be a client to servers that serve one, and noise in their logs.
    Where nodes share that table, each has an address of its own: what listens on another's is another node's.
    """
    own = os.environ.get("WARDIAN_ADDRESS")
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as file:
                for line in file:
                    fields = line.split()
                    address, _, number = fields[1].partition(":")
                    if fields[3] == "0A" and int(number, 16) == port and (not own or _is_here(address, own)):
                        return True
        except OSError:
            continue
    return False


def _is_here(address: str, own: str) -> bool:
    """Whether an address in the kernel's table is that of a node with an address of its own, or of all nodes."""
    version_4 = len(address) == 8
    return not version_4 or socket.inet_ntoa(int(address, 16).to_bytes(4, sys.byteorder)) in (own, "0.0.0.0", "127.0.0.1")  # noqa: S104
