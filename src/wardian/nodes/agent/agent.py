"""The agent itself: what it owns, and what it does when asked."""

from __future__ import annotations

import array
import collections
import errno
import os
import socket
import sys
import time
from functools import partial

from .bash import BashKernel
from .client import Client
from .files import find_program, log, remove_file, remove_folder
from .kernelspecs import SpecKernel, kernelspecs
from .loop import Loop
from .processes import Sessions
from .protocol import EVENT, FREE, KEPT, MIB, PROTOCOL, Refused, pack_json
from .python import PythonKernel
from .service import Service
from .stem import Stem
from .store import SPOOL_LIMIT, MessageStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .client import Request
    from .kernel import Kernel


class Agent:
    """Kernels, services and clients of one node, and the requests on them."""

    def __init__(self, directory: str, listener: socket.socket, version: str) -> None:
        self.directory = directory
        self.loop = Loop()
        self.loop.before_wait = self._pump
        self.kernels: dict[str, Kernel] = {}
        self.services: dict[str, Service] = {}
        self.clients: set[Client] = set()
        self.dirty: set[Client] = set()
        self.inputs: collections.OrderedDict[str, int] = collections.OrderedDict()
        self.hello = {"protocol": PROTOCOL, "version": version, "pid": os.getpid(), "python": sys.executable, "agent": os.urandom(8).hex()}
        self.environment = dict(os.environ, WARDIAN_AGENT=directory)
        self.spool_limit = int(os.environ.get("WARDIAN_SPOOL_LIMIT", SPOOL_LIMIT))
        spool = os.environ.get("WARDIAN_SPOOL_DIR", "/var/tmp")  # noqa: S108
        self.spool_directory = spool if os.access(spool, os.W_OK) else directory
        self.sessions = Sessions(os.path.join(directory, "sessions"))
        self.sessions.clean()
        for name in os.listdir(self._folder("kernels")):
            remove_folder(os.path.join(directory, "kernels", name))
        self.stem: Stem | None = None
        self._listener = listener
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), self._accept)

    def run(self) -> None:
        """Until `agent.stop`."""
        self.loop.run()

    def handle(self, request: Request) -> None:
        """Do what a request asks."""
        operation = self.OPERATIONS.get(request.op)
        try:
            if operation is None:
                raise Refused("argument", f"there is no operation {request.op!r}")
            operation(self, request)
        except Refused as error:
            request.refuse(error)
        except OSError as error:
            request.refuse(Refused("system", str(error)))
        except BaseException as error:
            request.refuse(Refused("internal", f"the agent failed: {error!r}", "its log is agent.log in its folder in /run"))
            raise

    def broadcast(self, event: Mapping[str, Any], but: Sequence[Client | None] = ()) -> None:
        """Tell every client but these."""
        frame = pack_json(EVENT, event)
        for client in self.clients:
            if client.id is not None and client not in but:
                client.send(frame)

    def count_input(self, client: str, sequence: int) -> None:
        """Remember how far a client's inputs have come, so that one that is sent again is not done again."""
        self.inputs[client] = sequence
        self.inputs.move_to_end(client)
        if len(self.inputs) > 1024:
            self.inputs.popitem(last=False)

    # requests on kernels

    def _kernel_start(self, request: Request) -> None:
        name, language = request.name("kernel"), request.text("language", "python")
        kernel = self.kernels.get(name)
        if kernel and kernel.state != "dead":
            if kernel.language != language:
                raise Refused("kernel", f"kernel {name} runs {kernel.language}, not {language}")
            if kernel.state == "starting":
                kernel.starting.append(request)
            else:
                request.succeed(kernel.described(new=False))
            return
        if language == "bash" and find_program("bash", self.environment) is None:
            request.succeed({"needs": {"program": "bash"}})
            return
        new = self._new_kernel(request, name, language)
        if kernel:
            # what the dead one said may not have been fetched yet
            new.store.close()
            new.archive.close()
            new.store, new.client, new.sessions = kernel.store, kernel.client, kernel.sessions
            new.archive, kernel.archive = kernel.archive, new.archive
            kernel.store = MessageStore(name, self.spool_directory)
            kernel.close()
        new.starting.append(request)
        try:
            new.start()
        except (OSError, Refused) as error:
            new.starting.clear()
            new.died(127, str(error))
            new.close()
            self.kernels.pop(name, None)
            if new.client:
                new.client.detach(new)
            raise error if isinstance(error, Refused) else Refused("kernel", f"{language} could not be started: {error}") from None
        self.kernels[name] = new
        if new.client:
            new.client.kernels[name] = new

    def _new_kernel(self, request: Request, name: str, language: str) -> Kernel:
        env, cwd = request.variables("env"), request.folder("cwd")
        if language == "bash":
            return BashKernel(self, name, env, cwd)
        if language == "python":
            packages = request.name("packages") if request.value.get("packages") else ""
            return PythonKernel(self, name, env, cwd, packages)
        return SpecKernel(self, name, env, cwd, language)

    def _kernel_specs(self, request: Request) -> None:
        """The kernels that cells can name besides python and bash."""
        found = {name: spec for name, (_, spec) in kernelspecs(self.environment).items()}
        shown = {name: {key: spec.get(key) for key in ("language", "display_name")} for name, spec in found.items()}
        request.succeed({"specs": shown})

    def _kernel_attach(self, request: Request) -> None:
        kernel, after = self._kernel(request), request.value.get("after")
        self.broadcast({"event": "kernel.attached", "kernel": kernel.id, "by": request.client.id}, but=(request.client, kernel.client))
        if after is not None and (not isinstance(after, int) or after < 0):
            raise Refused("argument", "`after` has to be the number of a message, or null")
        if kernel.client and kernel.client is not request.client:
            kernel.client.send(pack_json(EVENT, {"event": "kernel.taken", "kernel": kernel.id, "by": request.client.id}))
            kernel.client.detach(kernel)
        kernel.client = request.client
        request.client.kernels[kernel.id] = kernel
        store = kernel.store
        answer = {"next": store.rewind(after), "dropped": store.dropped, "store": store.id, "end": store.next - 1}
        request.succeed(dict(answer, executing=[] if kernel.death else list(kernel.executing)))
        if kernel.death:
            request.client.owe(kernel)
        self.dirty.add(request.client)

    def _kernel_list(self, request: Request) -> None:
        kernels = {
            kernel.id: {
                "language": kernel.language,
                "pid": kernel.pid,
                "state": kernel.state,
                "attached": kernel.client.id if kernel.client else None,
                "store": kernel.store.id,
            }
            for kernel in self.kernels.values()
        }
        request.succeed({"kernels": kernels})

    def _kernel_output(self, request: Request) -> None:
        cell, offset = request.text("cell"), request.value.get("offset", 0)
        if not isinstance(offset, int) or not 0 <= offset < 1 << 53:
            raise Refused("argument", "`offset` has to be a number of bytes")
        try:
            data, kept, lost = self._kernel(request).archive.read(cell, offset, MIB)
        except KeyError:
            raise Refused("argument", "the output of this cell is not kept there (any more)") from None
        request.succeed({"text": data.decode("latin-1"), "kept": kept, "lost": lost})

    def _kernel_interrupt(self, request: Request) -> None:
        self._kernel(request).interrupt()
        request.succeed({})

    def _kernel_stop(self, request: Request) -> None:
        kernel = self._kernel(request)
        del self.kernels[kernel.id]
        owner, kernel.client = kernel.client, None
        if owner:
            owner.detach(kernel)
        kernel.failed(Refused("kernel", f"kernel {kernel.id} was stopped while it started"))
        left = set(kernel.sessions)

        def ended(session: int) -> None:
            left.discard(session)
            if not left:
                kernel.close()
                request.succeed({})
                if owner and owner.open and owner is not request.client:
                    # not before all of it is gone: its owner may start another of that name
                    owner.send(pack_json(EVENT, {"event": "kernel.stopped", "kernel": kernel.id, "by": request.client.id}))

        if not left:
            ended(0)
        for session in list(left):
            self.sessions.end(session, self.loop, partial(ended, session))

    def _kernel(self, request: Request) -> Kernel:
        name = request.text("kernel")
        kernel = self.kernels.get(name)
        if kernel is None:
            raise Refused("kernel", f"there is no kernel {name}")
        return kernel

    # requests on services

    def _service_start(self, request: Request) -> None:
        name = request.name("service")
        spec = {
            "command": request.command("command", request.value.get("command")),
            "env": request.variables("env"),
            "cwd": request.text("cwd", ""),
            "restart": request.text("restart", "on-failure"),
            "ready": self._readiness(request),
        }
        if spec["restart"] not in ("no", "on-failure", "always"):
            raise Refused("argument", "`restart` has to be no, on-failure or always, not {!r}".format(spec["restart"]))
        old = self.services.get(name)
        if old and old.spec == spec and old.state not in ("stopped", "failed"):
            request.succeed({})
            return

        def begin() -> None:
            if old:
                old.close()
            service = self.services[name] = Service(self, name, spec)
            service.start()
            request.succeed({})

        if old:
            old.stop(begin)
        else:
            begin()

    def _readiness(self, request: Request) -> dict[str, Any] | None:
        ready = request.value.get("ready")
        if ready is None:
            return None
        checks = {"port", "command", "log"}.intersection(ready) if isinstance(ready, dict) else set()
        ready = {key: value for key, value in ready.items() if value is not None and key in checks} if checks else {}
        if len(ready) != 1:
            raise Refused("argument", "`ready` needs exactly one of port, command and log")
        if "port" in ready and not (isinstance(ready["port"], int) and 0 < ready["port"] < 65536):
            raise Refused("argument", "`ready.port` has to be a port number")
        if "command" in ready:
            request.command("ready.command", ready["command"])
        if "log" in ready:
            import re

            try:
                re.compile(ready["log"])
            except (re.error, TypeError) as error:
                raise Refused("argument", f"`ready.log` has to be a regular expression ({error})") from None
        return ready

    def _service_wait(self, request: Request) -> None:
        self._service(request).wait(request, request.number("timeout", 30.0))

    def _service_stop(self, request: Request) -> None:
        service = self.services.get(request.text("service"))
        if service is None:
            request.succeed({})
        else:
            service.stop(lambda: request.succeed({}))

    def _service_list(self, request: Request) -> None:
        request.succeed({"services": {name: service.describe() for name, service in self.services.items()}})

    def _service_log(self, request: Request) -> None:
        request.succeed({"text": self._service(request).last_lines(int(request.number("lines", 100)))})

    def _service(self, request: Request) -> Service:
        name = request.text("service")
        service = self.services.get(name)
        if service is None:
            raise Refused("service", f"there is no service {name}")
        return service

    def _agent_clock(self, request: Request) -> None:
        """The time here, nanoseconds since the epoch."""
        request.succeed({"time": time.time_ns()})

    def _agent_stop(self, request: Request) -> None:
        """End every kernel and service, then this process."""
        remove_file(os.path.join(self.directory, "agent.sock"))
        self.loop.unwatch(self._listener.fileno())
        self._listener.close()
        sessions = [session for kernel in self.kernels.values() for session in kernel.sessions]
        services = [service for service in self.services.values() if service.pid is not None]
        left = len(sessions) + len(services)

        def ended() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                for kernel in self.kernels.values():
                    kernel.close()
                request.succeed({})
                self._pump()
                for client in list(self.clients):
                    client.close()
                self.loop.running = False

        for session in sessions:
            self.sessions.end(session, self.loop, ended)
        for service in services:
            service.stop(ended)
        if not sessions and not services:
            ended()

    OPERATIONS: Mapping[str | None, Callable[[Agent, Request], None]] = {
        "kernel.start": _kernel_start,
        "kernel.attach": _kernel_attach,
        "kernel.list": _kernel_list,
        "kernel.specs": _kernel_specs,
        "kernel.output": _kernel_output,
        "kernel.interrupt": _kernel_interrupt,
        "kernel.stop": _kernel_stop,
        "service.start": _service_start,
        "service.wait": _service_wait,
        "service.stop": _service_stop,
        "service.list": _service_list,
        "service.log": _service_log,
        "agent.clock": _agent_clock,
        "agent.stop": _agent_stop,
    }

    def _pump(self) -> None:
        while self.dirty:
            self.dirty.pop().pump()

    def _accept(self, events: int) -> None:
        try:
            connection = self._listener.accept()[0]
        except OSError:
            return
        connection.setblocking(False)
        self.loop.watch(connection.fileno(), lambda events: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        """The two descriptors of a new client, and maybe a stem's."""
        self.loop.unwatch(connection.fileno())
        fds = array.array("i")
        try:
            how, ancillary = connection.recvmsg(1, socket.CMSG_LEN(3 * fds.itemsize))[:2]
        except OSError:
            how, ancillary = KEPT, []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        try:
            if len(fds) not in (2, 3):
                raise OSError(errno.EPROTO, "expected two descriptors or three")
            if how == FREE:
                connection.close()
            self.clients.add(Client(self, None if how == FREE else connection, fds[0], fds[1]))
            for fd in fds[2:]:
                self._take_stem(fd)
        except OSError as error:
            log(f"a client could not be served: {error}")
            connection.close()
            for fd in fds:
                os.close(fd)

    def _take_stem(self, fd: int) -> None:
        """Keep the first stem that is offered as long as it lives; another one ends as its descriptor is closed."""
        if self.stem is not None and self.stem.open:
            os.close(fd)
        else:
            self.stem = Stem(self.loop, fd)

    def _folder(self, name: str) -> str:
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path
