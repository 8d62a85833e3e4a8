"""What nodes are grown on: the host itself, by root; a user namespace, by an ordinary user; or processes alone, where neither is had.

A ground says where work on an environment is done (`do`), and that is all that differs: the work is the same, see `work.py`. It runs in
this process, or in a helper inside of the environment's user namespace (`inside.py`), where it may do what root may on the host.

Which of them it is shows by trying, when an environment is made; later it is written down with that, see `EnvironmentFolder.plain`.

The user namespace of an environment lives in the processes of the environment, like everything else of it in the kernel. It is made by the
helper that makes the environment, and entered by later ones.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import MissingToolError, ProviderError
from ...experiment.resources import Caveat, Resource
from ..base import Finding, Progress
from . import cgroups, doctor, processes, subids, wayout, work
from .kernel import namespace_of
from .layers import Stop
from .processes import VARIABLE
from .state import State
from .work import Job

_T = TypeVar("_T")


class Ground(ABC):
    """Where the work on environments of one state folder is done. Blocking."""

    def __init__(self, state: State) -> None:
        self.state = state

    @abstractmethod
    def do(self, environment: str | None, function: Callable[..., _T], arguments: Sequence[Any], report: Progress, stop: Stop) -> _T:
        """Do a function of `work.py`. environment: the one that it is about; None for what is about none."""

    def refusal(self) -> str | None:
        """Why nodes cannot be made here at all, if they cannot; tried, not guessed."""
        return None

    def caveats(self, desired: Sequence[Resource]) -> list[Caveat]:
        """What this ground itself cannot honour."""
        return []

    def diagnose(self) -> list[Finding]:
        """What this ground has, and lacks, of what nodes need."""
        return self.do(None, work.diagnose, (), lambda *_: None, Stop())

    def forget(self, environment: str) -> None:  # noqa: B027 - most keep nothing
        """Let go of what was kept here of an environment which is no more."""

    def collect_garbage(self, report: Progress, stop: Stop) -> list[str]:
        """Remove what no environment owns; one line for each."""
        return self.do(None, work.collect_garbage, (), report, stop)

    def lead_out(self, environment: str) -> list[int]:
        """Keep the way to the internet that environments have on this ground. Gives the processes that it needs."""
        return []


class HostGround(Ground):
    """The host, and we are root."""

    def do(self, environment: str | None, function: Callable[..., _T], arguments: Sequence[Any], report: Progress, stop: Stop) -> _T:
        return function(Job(self.state, report, stop), *arguments)

    def refusal(self) -> str | None:
        return doctor.refused()


class UserGround(Ground):
    """A user namespace for each environment."""

    def refusal(self) -> str | None:
        try:
            _helpers.of(self.state, None)
        except MissingToolError as error:
            return error.message.partition(": ")[2]
        return None

    def do(self, environment: str | None, function: Callable[..., _T], arguments: Sequence[Any], report: Progress, stop: Stop) -> _T:
        return _helpers.of(self.state, environment).call(function, arguments, sorted(self.state.held), report, stop)

    def caveats(self, desired: Sequence[Resource]) -> list[Caveat]:
        found = []
        nodes = [resource for resource in desired if resource.kind == "node"]
        grant = subids.granted()
        if nodes and grant.lacking:
            reason, _ = grant.lacking
            message = f"nodes have a single user id, since {reason}: what changes to other users there (apt, sshd, nginx) fails"
            found.append(Caveat("every node", "users", message, "all that a node runs is its root"))
        reaching = [node.name for node in nodes if node.spec["internet"] or node.spec["setup"]]
        if reaching and wayout.program() is None:
            message = "an ordinary user's nodes reach it through pasta or slirp4netns, and neither is installed"
            found.append(Caveat(f"node {', '.join(reaching)}", "internet", message))
        return found

    def diagnose(self) -> list[Finding]:
        try:
            helper = _helpers.of(self.state, None)
        except MissingToolError as error:
            return [doctor.lacking(error.message)]
        return [
            Finding(doctor.USER, "ok", f"can be made by user {subids.user_name()}"),
            subids.finding(),
            *super().diagnose(),
            wayout.finding(helper.pid),
        ]

    def lead_out(self, environment: str) -> list[int]:
        return wayout.keep(self.state.environment(environment))

    def forget(self, environment: str) -> None:
        _helpers.forget(self.state, environment)
        # one that was never written down is in a namespace that no helper finds, and none but this side sees whose it is
        processes.end(processes.of(environment, self.state.root))

    def collect_garbage(self, report: Progress, stop: Stop) -> list[str]:
        removed = super().collect_garbage(report, stop)
        # in the namespaces of others the helper sees nobody's variables. Looked at first: records are older than processes
        found = processes.environments(self.state.root)
        for environment in found.keys() - {folder.id for folder in self.state.environments()}:
            processes.end(found[environment])
            removed.append(f"{len(found[environment])} processes of environment {environment}, which has no record")
        return removed


class PlainGround(Ground):
    """Processes alone. reason: why there are no namespaces for nodes; refusing: the ground that says what to do for them, if any."""

    def __init__(self, state: State, reason: str, refusing: Ground | None = None) -> None:
        super().__init__(state)
        self._reason = reason
        self._refusing = refusing

    def do(self, environment: str | None, function: Callable[..., _T], arguments: Sequence[Any], report: Progress, stop: Stop) -> _T:
        from .plain import work as instead

        done: Callable[..., _T] = getattr(instead, function.__name__, function)
        return done(Job(self.state, report, stop, plain=True), *arguments)

    def refusal(self) -> str | None:
        from .plain import loopback

        return loopback.refusal()

    def caveats(self, desired: Sequence[Resource]) -> list[Caveat]:
        from .plain import caveats

        if lacking := self.refusal():
            raise MissingToolError(f"{self._reason}, and nodes without have no addresses: {lacking}", remedy=doctor.PLAIN_REMEDY)
        return list(caveats.of_all(self._reason))

    def diagnose(self) -> list[Finding]:
        refused = [] if self._refusing is None else self._refusing.diagnose()
        if lacking := self.refusal():
            return [*refused, Finding(doctor.PLAIN, "missing", f"nodes have no addresses: {lacking}", doctor.PLAIN_REMEDY)]
        return [*refused, Finding(doctor.PLAIN, "limited", f"{self._reason}, so that nodes are processes alone", doctor.PLAIN_REMEDY)]


def of_namespaces(state: State) -> Ground:
    """The ground of namespaces that this process's user would have."""
    return HostGround(state) if os.geteuid() == 0 else UserGround(state)


def choose(state: State, isolation: str | None = None) -> Ground:
    """The ground that this process's user has here. isolation: "namespaces" or "processes" where one is wanted, else the better one."""
    if isolation == "processes":
        return PlainGround(state, "asked for by `isolation: processes`")
    namespaces = of_namespaces(state)
    if isolation == "namespaces" or (reason := namespaces.refusal()) is None:
        return namespaces
    return PlainGround(state, f"this host refuses namespaces ({reason})", namespaces)


class Helper:
    """A process inside of a user namespace, which works for this one.

    state: its state folder. user, network: see `inside.py`. entrance: a command that starts its own.
    """

    def __init__(self, state: Path, user: int = 0, network: int = 0, entrance: Sequence[str] = ()) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # there its user is root, whose home is another
            variables = {"HOME": str(Path.home())} | {name: value for name, value in os.environ.items() if name != VARIABLE}
            # nor do the paths of ordinary users lead to where nft is, on Debian
            variables["PATH"] = f"{variables.get('PATH', os.defpath)}:/usr/sbin:/sbin"
            # -P: what lies in the user's folder is no module of ours
            command = [*entrance, sys.executable, "-P", "-m", f"{__package__}.inside", "3", str(state), str(user), str(network)]
            self.pid = os.posix_spawn(command[0], command, variables, setsid=True, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)])
        self._control = ours
        self._lock = threading.Lock()
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        answer = self._answer()
        if "map" in answer:
            try:
                subids.give(self.pid, subids.granted())
            except OSError as error:
                self._control.send(json.dumps({"error": error.strerror or str(error), "errno": error.errno}).encode())
            else:
                self._control.send(json.dumps({"mapped": True}).encode())
            answer = self._answer()
        if "error" in answer:
            raise MissingToolError(
                f"the provider local cannot make namespaces for user {subids.user_name()}: {answer['error']}",
                remedy="`wardian doctor` says what this host lacks for that. Or run as root, or choose another provider in the file.",
            )

    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._control.recv(1 << 16) or b'{"error": "its process ended"}')
        return answer

    def is_in(self, user: int, network: int) -> bool:
        """Whether it runs, in the namespaces of these processes; 0 for whichever."""
        wanted = (("user", user or self.pid), ("net", network or self.pid))
        return all(namespace_of(self.pid, kind) == namespace_of(pid, kind) != "" for kind, pid in wanted)

    def call(self, function: Callable[..., _T], arguments: Sequence[Any], locks: Sequence[int], report: Progress, stop: Stop) -> _T:
        """Have it do a function of `work.py`.

        On the stream for it go the function with its arguments, and one byte to stop it early; back come ("report", name, state),
        and at the end ("done", value) or ("failed", error).
        """
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("rb") as answers:
            # should it have ended, so has the stream, which says so
            with suppress(OSError):
                with theirs, self._lock:
                    socket.send_fds(self._control, [b"w"], [theirs.fileno(), *locks])
                ours.sendall(pickle.dumps((function, tuple(arguments))))
            with stop.calling(lambda: _send_stop(ours)):
                value: _T = _followed(answers, report)
                return value

    def close(self) -> None:
        """End it."""
        self._control.close()
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _send_stop(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.send(b"s")


def _followed(answers: IO[bytes], report: Progress) -> Any:
    while True:
        try:
            kind, *rest = pickle.load(answers)  # noqa: S301 - from the process that we started, over a socket of ours
        except (EOFError, ConnectionError):
            raise ProviderError("the helper in the user namespace ended", remedy="Run the command again.") from None
        if kind == "report":
            report(*rest)
        elif kind == "done":
            return rest[0]
        else:
            raise rest[0]


class _Helpers:
    """Those of this process, by what they work on. They end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helpers: dict[tuple[Path, str | None], Helper] = {}

    def of(self, state: State, environment: str | None) -> Helper:
        """The one for an environment, started if need be."""
        user, network = _namespaces(state, environment) if environment else (0, 0)
        key, spare = (state.root, environment), (state.root, None)
        with self._lock:
            if not user and key not in self._helpers and spare in self._helpers:
                # what has its namespaces to itself still can become an environment's
                self._helpers[key] = self._helpers.pop(spare)
            helper = self._helpers.get(key)
            if helper is not None and helper.is_in(user, network):
                return helper
            if helper is not None:
                helper.close()
                del self._helpers[key]
            helper = self._helpers[key] = _started(state.root, user, network)
            return helper

    def forget(self, state: State, environment: str) -> None:
        """End that for an environment which is no more."""
        with self._lock:
            helper = self._helpers.pop((state.root, environment), None)
        if helper is not None:
            helper.close()


_helpers = _Helpers()


def _started(state: Path, user: int, network: int) -> Helper:
    """A helper, where nodes that it makes are in control groups, if such a place is had."""
    if entrance := cgroups.entrance():
        with suppress(MissingToolError):
            return Helper(state, user, network, entrance)
    return Helper(state, user, network)


def _namespaces(state: State, environment: str) -> tuple[int, int]:
    """Processes in an environment's user namespace and in the network namespace that leads out of it; 0 where there are none."""
    folder = state.environment(environment)
    outside = folder.outside_pid() or 0
    inside = folder.fabric_pid() or next(iter(folder.alive()), 0)
    return inside, outside if outside and namespace_of(outside) == namespace_of(inside) else 0
