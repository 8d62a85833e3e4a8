"""Process 1 of a node that has Python: reaps, and starts processes for who connects to its socket from the Engine's machine.

What it starts is what `docker exec` would start, since it inherits all that the container was given: namespaces, control groups,
capabilities, system call filter, security label, limits and variables. It is sent as text and run in the container, by whatever Python
3.8 or newer is there, so it knows nothing of Wardian. It imports only what the interpreter has in itself: then it is there in 10 ms.

The socket takes one connection a process, in packets, from outside of the container alone:

    from it   {"ready": true}                             at once; nothing is asked of a node that stands still
    to it     fields with a zero byte after each: rows, columns (empty without a terminal), 1 and a working folder or 0 and nothing,
              the number of variables, "NAME=VALUE" of each, arguments; with stdin, stdout, stderr unless a terminal is asked for
              {"signal": number}                          to the process and its group
    from it   as from the init of a node of `local` (`local/init.py`)

The end of a connection hangs up on its process: SIGHUP to its group, SIGKILL two seconds later.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import posix
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

SOCKET = "/dev/wardian.sock"
GRACE = 2.0

_CREDENTIALS, _RIGHTS = 17, 1
_NOT_FOUND, _NO_FORMAT, _NO_FOLDER = 2, 8, 20
_OWN = (b"PWD", b"OLDPWD", b"SHLVL", b"_")


class Init:
    def __init__(self) -> None:
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self.listener.bind(SOCKET)
        posix.chmod(SOCKET, 0o600)
        self.listener.listen(4096)
        # a shell came before, and has variables of its own
        self.variables = {name: value for name, value in posix.environ.items() if name not in _OWN}
        self.connections: dict[int, _socket.socket] = {}
        self.processes: dict[int, int] = {}
        self.deadlines: dict[int, float] = {}
        self.awake, waker = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self.poll = select.poll()
        self.poll.register(self.listener, select.POLLIN)
        self.poll.register(self.awake, select.POLLIN)

    def serve(self) -> NoReturn:
        # what the shell had write this program to our standard input
        self.reap()
        while True:
            now = time.monotonic()
            for pid in [pid for pid, deadline in self.deadlines.items() if deadline <= now]:
                del self.deadlines[pid]
                signal_group(pid, _signal.SIGKILL)
            wait = (min(self.deadlines.values()) - now) * 1000 + 1 if self.deadlines else None
            for descriptor, _ in self.poll.poll(wait):
                if descriptor == self.awake:
                    self.reap()
                elif descriptor == self.listener.fileno():
                    self.accept()
                elif descriptor in self.connections:
                    try:
                        self.message(self.connections[descriptor])
                    except (ValueError, LookupError):
                        # nothing that is said to it may end this process
                        self.forget(self.connections[descriptor])

    def accept(self) -> None:
        try:
            descriptor, _ = self.listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        connection = _socket.socket(fileno=descriptor)
        connection.setblocking(False)
        peer = connection.getsockopt(_socket.SOL_SOCKET, _CREDENTIALS, 12)
        # whoever is in the container is what it is, and gets nothing from here; outside of it processes have no number in here
        if int.from_bytes(peer[:4], sys.byteorder) == 0 and answer(connection, '{"ready": true}'):
            self.connections[descriptor] = connection
            self.poll.register(connection, select.POLLIN)
        else:
            connection.close()

    def message(self, connection: _socket.socket) -> None:
        descriptors = []
        try:
            size = connection.recv_into(bytearray(1), 1, _socket.MSG_PEEK | _socket.MSG_TRUNC)
            data, ancillary, _, _ = connection.recvmsg(max(size, 1), _socket.CMSG_SPACE(12), _socket.MSG_CMSG_CLOEXEC)
            for _, kind, content in ancillary:
                if kind == _RIGHTS:
                    descriptors = [int.from_bytes(content[at : at + 4], sys.byteorder) for at in range(0, len(content), 4)]
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            pid = self.processes.get(connection.fileno())
            if not data:
                self.hung_up(connection, pid)
            elif pid is None:
                self.start(connection, data.split(b"\0")[:-1], descriptors)
            else:
                signal_group(pid, int(data[data.index(b":") + 1 : -1]))
        finally:
            for descriptor in descriptors:
                posix.close(descriptor)

    def start(self, connection: _socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
        rows, columns, has_folder, folder, count = fields[:5]
        given, argv = fields[5 : 5 + int(count)], fields[5 + int(count) :]
        variables = dict(self.variables)
        if rows:
            variables[b"TERM"] = b"xterm"
        variables.update((name, value) for name, _, value in (field.partition(b"=") for field in given))
        if not rows and len(descriptors) != 3:
            answer(connection, '{"what": "streams", "error": "its streams cannot be passed on"}')
            return
        master = -1
        try:
            try:
                posix.chdir(folder if has_folder == b"1" else variables.get(b"HOME") or b"/")
            except OSError as error:
                if has_folder == b"1":
                    refuse(connection, "cwd", error)
                    return
            try:
                if rows:
                    master, slave = posix.openpty()
                    descriptors.append(slave)
                    set_size(slave, int(rows), int(columns))
                    # opened by the leader of a new session, it becomes the controlling terminal
                    name = posix.ttyname(slave)
                    streams: list[Any] = [(posix.POSIX_SPAWN_OPEN, stream, name, posix.O_RDWR, 0) for stream in range(3)]
                else:
                    streams = [(posix.POSIX_SPAWN_DUP2, descriptor, stream) for stream, descriptor in enumerate(descriptors)]
                pid = spawn(argv, variables, streams)
            except OSError as error:
                refuse(connection, "program", error)
                return
            finally:
                posix.chdir("/")
            self.processes[connection.fileno()] = pid
            answer(connection, f'{{"pid": {pid}}}', master)
        finally:
            if master >= 0:
                posix.close(master)

    def hung_up(self, connection: _socket.socket, pid: int | None) -> None:
        self.forget(connection)
        if pid is not None:
            self.deadlines[pid] = time.monotonic() + GRACE
            signal_group(pid, _signal.SIGHUP)
            signal_group(pid, _signal.SIGCONT)

    def forget(self, connection: _socket.socket) -> None:
        self.poll.unregister(connection)
        self.processes.pop(connection.fileno(), None)
        del self.connections[connection.fileno()]
        connection.close()

    def reap(self) -> None:
        try:
            while posix.read(self.awake, 4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                ended, status = posix.waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                return
            if ended == 0:
                return
            if self.deadlines.pop(ended, None) is not None:
                # its group was hung up on together with it, and without it nobody would kill what ignores that
                signal_group(ended, _signal.SIGKILL)
            for descriptor, pid in list(self.processes.items()):
                if pid == ended:
                    code = posix.WEXITSTATUS(status) if posix.WIFEXITED(status) else 128 + posix.WTERMSIG(status)
                    answer(self.connections[descriptor], f'{{"exit": {code}}}')
                    self.forget(self.connections[descriptor])


def spawn(argv: list[bytes], variables: dict[bytes, bytes], streams: Any) -> int:
    """Start a program, in a session of its own; one that is no program is a script of the shell's."""
    folders = [b""] if b"/" in argv[0] else variables.get(b"PATH", b"/bin:/usr/bin").split(b":")
    refusal: OSError = FileNotFoundError(_NOT_FOUND, "No such file or directory")
    # what Python ignores or handles and a program expects at its default
    options: Any = {"setsid": True, "setsigmask": (), "setsigdef": (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD)}
    for folder in folders:
        path = (folder or b".") + b"/" + argv[0] if b"/" not in argv[0] else argv[0]
        try:
            return posix.posix_spawn(path, argv, variables, file_actions=streams, **options)
        except OSError as error:
            if error.errno == _NO_FORMAT:
                return posix.posix_spawn("/bin/sh", [b"sh", path, *argv[1:]], variables, file_actions=streams, **options)
            if error.errno not in (_NOT_FOUND, _NO_FOLDER):
                refusal = error
    raise refusal


def set_size(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import termios

    size = b"".join(number.to_bytes(2, sys.byteorder) for number in (rows, columns, 0, 0))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


def refuse(connection: _socket.socket, what: str, error: OSError) -> None:
    answer(connection, f'{{"what": "{what}", "error": "{error.strerror}"}}')


def answer(connection: _socket.socket, text: str, descriptor: int = -1) -> bool:
    """Whether it could be told: who asked may be gone, and its connection's end is an event of its own."""
    ancillary = [(_socket.SOL_SOCKET, _RIGHTS, descriptor.to_bytes(4, sys.byteorder))] if descriptor >= 0 else []
    try:
        connection.sendmsg([text.encode()], ancillary)
    except OSError:
        return False
    return True


def signal_group(pid: int, number: int) -> None:
    try:
        posix.killpg(pid, number)
    except OSError:
        return


if __name__ == "__main__":
    Init().serve()
