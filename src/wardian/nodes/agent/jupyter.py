"""Kernels that are programs speaking Jupyter over ZeroMQ."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from abc import abstractmethod
from functools import partial

from .files import log, remove_file
from .kernel import Kernel
from .processes import dev_null, pipe, read_some, signal_session
from .protocol import CONTROL, IOPUB, KIB, SHELL, Refused, message_parts
from .zeromq import ZmqSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .agent import Agent
    from .loop import Timer

START_TIMEOUT = 60.0


class JupyterKernel(Kernel):
    """A Jupyter kernel, and the relay between it and us: over Unix sockets, or TCP within the node where it knows nothing else."""

    DELIMITER = b"<IDS|MSG>"
    TRANSPORTS: Sequence[str] = ("ipc",)
    UNSUBSCRIBED = 20
    """How often it may answer a probe on its shell channel, and stay silent on iopub, before that is taken for its way."""

    def __init__(self, agent: Agent, name: str, env: Mapping[str, str], cwd: str) -> None:
        super().__init__(agent, name, env, cwd)
        for variable in ("JPY_PARENT_PID", "JPY_INTERRUPT_EVENT", "JPY_SESSION_NAME"):
            self.env.pop(variable, None)
        self.title = self.language
        self.interrupts_by_message = False
        self._sockets: list[ZmqSocket] = []
        self._transports = list(self.TRANSPORTS)
        self._key = b""
        self._hmac: Any = None
        self._output = -1
        self._last = b""
        self._probe = b""
        self._answers = 0
        self._subscribed = False
        self._timers: list[Timer] = []

    @abstractmethod
    def argv(self, connection: str) -> Sequence[str]:
        """The command that runs it. connection: the path of its connection file. Raises Refused."""

    def start(self) -> None:
        import hmac

        transport = self._transports.pop(0)
        os.makedirs(self.directory, exist_ok=True)
        address = os.path.join(self.directory, "k")
        if len(address) + 2 > 107:
            raise Refused("kernel", f"the path {address} is too long for a Unix socket", "Use a shorter kernel id.")
        key = os.urandom(32).hex()
        self._key = key.encode()
        self._hmac = hmac.new(self._key, digestmod="sha256")
        numbers = range(1, 6) if transport == "ipc" else free_ports(5)
        ports = {f"{channel}_port": number for channel, number in zip(("shell", "iopub", "stdin", "control", "hb"), numbers)}  # noqa: B905
        host = address if transport == "ipc" else "127.0.0.1"
        connection = dict(ports, transport=transport, ip=host, key=key, signature_scheme="hmac-sha256", kernel_name="")
        path = os.path.join(self.directory, "connection.json")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, json.dumps(connection).encode())
        os.close(fd)
        for port in range(1, 6):
            remove_file(f"{address}-{port}")
            remove_file(f"{address}:{port}")
        self.state, self.death = "starting", None
        self._answers, self._subscribed = 0, False
        self._last = b""
        argv = self.argv(path)
        self._output, write = pipe()
        try:
            self.launch(argv, {0: dev_null(), 1: write, 2: write}, self._exited, self.env)
        except OSError:
            os.close(self._output)
            self._output = -1
            raise
        finally:
            os.close(write)
        self.agent.loop.watch(self._output, self._said)
        self._connect(host, ports)
        self._send_probe()
        patience = START_TIMEOUT / 3 if self._transports else START_TIMEOUT
        self._timers = [self.agent.loop.later(patience, partial(self._too_slow, patience))]

    def input(self, channel: int, parts: list[bytes]) -> None:
        if channel != IOPUB and self._sockets and self.pid:
            self._sockets[channel].send([self.DELIMITER, self._sign(parts), *parts])

    def interrupt(self) -> None:
        if self.interrupts_by_message:
            self.input(CONTROL, message_parts("interrupt_request", {}, b"{}", "agent"))
        else:
            super().interrupt()

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _connect(self, host: str, ports: Mapping[str, int]) -> None:
        identity = os.urandom(16)
        for channel, port in enumerate((ports["shell_port"], ports["iopub_port"], ports["stdin_port"], ports["control_port"])):
            # the colon is what kernels write that know only TCP's way to put an address together
            addresses = [f"{host}-{port}", f"{host}:{port}"] if host[0] == "/" else [(host, port)]
            kind, own = (b"SUB", b"") if channel == IOPUB else (b"DEALER", identity)
            self._sockets.append(ZmqSocket(self.agent.loop, kind, own, addresses, partial(self._received, channel)))

    def _disconnect(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for zsocket in self._sockets:
            zsocket.close()
        self._sockets = []
        if self._output >= 0:
            self.agent.loop.unwatch(self._output)
            os.close(self._output)
            self._output = -1

    def _received(self, channel: int, frames: list[bytes]) -> None:
        import hmac

        try:
            start = frames.index(self.DELIMITER) + 1
        except ValueError:
            return
        parts = frames[start + 1 :]
        if len(parts) < 4 or not hmac.compare_digest(frames[start], self._sign(parts)):
            log(f"kernel {self.id}: a message with a wrong signature was ignored")
            return
        if self.state == "starting":
            self._probed(channel, parts)
            return
        if channel == IOPUB:
            if b'"status"' in parts[0]:
                self.state = "busy" if b'"busy"' in parts[3] else "idle"
            elif b'"iopub_welcome"' in parts[0]:
                return
        self.emit(channel, parts)

    def _sign(self, parts: Sequence[bytes]) -> bytes:
        signature = self._hmac.copy()
        for part in parts[:4]:
            signature.update(part)
        signed: bytes = signature.hexdigest().encode()
        return signed

    def _send_probe(self) -> None:
        parts = message_parts("kernel_info_request", {}, b"{}", "agent")
        self._probe = json.loads(parts[0])["msg_id"].encode()
        self.input(SHELL, parts)

    def _probed(self, channel: int, parts: list[bytes]) -> None:
        if channel == SHELL:
            self._answers += 1
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                self.language_info = json.loads(parts[3]).get("language_info") or {}
            if not self._subscribed:
                # a kernel without the welcome message publishes into the void until our subscription has arrived
                self._timers.append(self.agent.loop.later(0.05, self._probe_again))
        elif channel == IOPUB and b'"idle"' in parts[3] and self._probe in parts[1]:
            self._subscribed = True
        if self._answers and (self._subscribed or self._answers > self.UNSUBSCRIBED):
            for timer in self._timers:
                timer.cancel()
            self.ready()

    def _probe_again(self) -> None:
        if self.state == "starting" and self.pid and not self._subscribed:
            self._send_probe()

    def _too_slow(self, patience: float) -> None:
        if self.state == "starting" and self.pid:
            if not self._transports:
                self.failed(Refused("kernel", f"{self.title} did not answer within {patience:g} s{self._tail()}"))
            signal_session(self.pid, signal.SIGKILL)

    def _said(self, events: int) -> None:
        data = read_some(self._output)
        if data:
            self._last = (self._last + data)[-8 * KIB :]
            log("kernel {}: {}".format(self.id, data.decode("utf-8", "replace")))
        elif data == b"":
            self.agent.loop.unwatch(self._output)

    def _exited(self, code: int) -> None:
        while self._output >= 0:
            data = read_some(self._output)
            if not data:
                break
            self._last = (self._last + data)[-8 * KIB :]
        for channel in (SHELL, CONTROL, IOPUB):
            if self._sockets:
                self._sockets[channel].drain()
        self._disconnect()
        if self.state == "starting" and self.starting and self._transports:
            if self.pid:
                signal_session(self.pid, signal.SIGKILL)
            self._start_otherwise()
            return
        self.died(code, self._last.decode("utf-8", "replace"))
        self._failed_start(code)

    def _start_otherwise(self) -> None:
        """Again, by the next transport."""
        try:
            self.start()
        except (OSError, Refused) as error:
            self.died(127, str(error))
            self.failed(error if isinstance(error, Refused) else Refused("kernel", f"{self.title} could not be started: {error}"))

    def _failed_start(self, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        self.failed(Refused("kernel", f"{self.title} ended while starting ({how}){self._tail()}"))

    def _tail(self) -> str:
        lines = self._last.decode("utf-8", "replace").strip().splitlines()[-10:]
        return ":\n" + "\n".join(lines) if lines else ""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
