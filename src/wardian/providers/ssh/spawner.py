"""Starts commands on a host for one process of ours: what is left of their cost is the way there and the kernel's work.

Sent along and run there as a program (Python 3.8 or newer, the standard library alone), by a session as any command of the node is, so
with the node's variables; its one argument is the file that holds them. It reads requests, one JSON object a line:

    {"id", "argv", "env", "cwd", "stdout", "stderr"}    start a command; its streams are "pipe", "null" or (stderr) "stdout"
    {"id", "signal"}                                    signal its process group
    {"id", "held"}                                      the streams, of 1 and 2, that nothing shall be read from for now
    {"id"}                                              nobody wants more of it

and writes packets: id, kind, length (`HEADER`), and so many bytes. It ends with its standard input; what it started goes on.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

HEADER = struct.Struct(">IBI")
STDOUT, STDERR, STARTED, REFUSED, ENDED = 1, 2, 3, 4, 5
"""Kinds: bytes of a stream, none of them at its end; the process's number; why it cannot be started; its exit code."""

_CHUNK = 65536
_UNSETTLED = 1.0
"""Seconds that a file must be old to tell by its time whether it was changed since it was read."""
_WORDS = {errno.ENOENT: "missing", errno.EACCES: "unfit", errno.ENOEXEC: "unfit", errno.EPERM: "unfit", errno.EISDIR: "unfit"}


class Spawner:
    """All commands of one session."""

    def __init__(self, variables: str) -> None:
        self.variables = variables
        self.version = self._version()
        self.selector = selectors.DefaultSelector()
        self.commands: dict[int, subprocess.Popen[bytes]] = {}
        self.requests = bytearray()
        self.packets = bytearray()

    def serve(self) -> None:
        """Work until nobody asks any more."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(0, selectors.EVENT_READ, None)
        self.selector.register(woken, selectors.EVENT_READ, None)
        while True:
            for key, _ in self.selector.select():
                if key.fd == woken:
                    os.read(woken, _CHUNK)
                elif key.fd == 0:
                    data = os.read(0, _CHUNK)
                    if not data:
                        return
                    self._take(data)
                else:
                    self._pass_on(*key.data)
            self._reap()
            self._flush()

    def _version(self) -> Any:
        """What tells one version of the node's variables from the next; None where there is no node any more."""
        try:
            status = os.stat(self.variables)
        except OSError:
            return None
        unsettled = abs(time.time() - status.st_ctime) < _UNSETTLED
        return status.st_ino, status.st_ctime_ns, time.monotonic() if unsettled else 0.0

    def _take(self, data: bytes) -> None:
        self.requests += data
        *lines, rest = self.requests.split(b"\n")
        self.requests = bytearray(rest)
        for line in lines:
            request = json.loads(line.decode())
            number = request["id"]
            command = self.commands.get(number)
            if "argv" in request:
                self._start(number, request)
            elif command is None:
                continue
            elif "signal" in request:
                if command.returncode is None:
                    with suppress(OSError):
                        os.killpg(command.pid, request["signal"])
            elif "held" in request:
                for kind, stream in ((STDOUT, command.stdout), (STDERR, command.stderr)):
                    if stream is not None and not stream.closed:
                        self._watch(number, kind, stream, kind not in request["held"])
            else:
                for stream in (command.stdout, command.stderr):
                    if stream is not None and not stream.closed:
                        self._leave(stream)
                self._forget(number)

    def _start(self, number: int, request: dict[str, Any]) -> None:
        version = self._version()
        if version is None or version != self.version:
            self._say(number, REFUSED, b"gone" if version is None else b"stale")
            return
        streams = {"pipe": subprocess.PIPE, "null": subprocess.DEVNULL, "stdout": subprocess.STDOUT}
        try:
            if request["cwd"] is not None:
                os.close(os.open(request["cwd"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
                if not os.access(request["cwd"], os.X_OK):
                    raise PermissionError
        except OSError:
            self._say(number, REFUSED, b"folder")
            return
        try:
            command = subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=streams[request["stdout"]],
                stderr=streams[request["stderr"]],
                cwd=request["cwd"],
                env=dict(os.environ, **request["env"]),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            word = _WORDS.get(error.errno or 0)
            self._say(number, REFUSED, word.encode() if word else os.fsencode(error.strerror or "it cannot be started"))
            return
        self.commands[number] = command
        self._say(number, STARTED, str(command.pid).encode())
        for kind, stream in ((STDOUT, command.stdout), (STDERR, command.stderr)):
            if stream is not None:
                self._watch(number, kind, stream, True)

    def _watch(self, number: int, kind: int, stream: Any, wanted: bool) -> None:
        watched = stream in self.selector.get_map()
        if wanted and not watched:
            self.selector.register(stream, selectors.EVENT_READ, (number, kind, stream))
        elif watched and not wanted:
            self.selector.unregister(stream)

    def _pass_on(self, number: int, kind: int, stream: Any) -> None:
        if stream.closed:
            return
        data = os.read(stream.fileno(), _CHUNK)
        self._say(number, kind, data)
        if not data:
            self._leave(stream)
            self._forget(number)
        if len(self.packets) > 4 * _CHUNK:
            self._flush()

    def _leave(self, stream: Any) -> None:
        self._watch(0, 0, stream, False)
        stream.close()

    def _reap(self) -> None:
        for number, command in list(self.commands.items()):
            if command.returncode is None and (code := command.poll()) is not None:
                self._say(number, ENDED, str(code if code >= 0 else 128 - code).encode())
                self._forget(number)

    def _forget(self, number: int) -> None:
        """Drop what has ended and has no stream any more."""
        command = self.commands.get(number)
        streams = (command.stdout, command.stderr) if command else ()
        if command and command.returncode is not None and all(stream is None or stream.closed for stream in streams):
            del self.commands[number]

    def _say(self, number: int, kind: int, data: bytes) -> None:
        self.packets += HEADER.pack(number, kind, len(data)) + data

    def _flush(self) -> None:
        view = memoryview(bytes(self.packets))
        self.packets = bytearray()
        while view:
            view = view[os.write(1, view) :]


def main() -> None:
    """Serve the session that started this."""
    spawner = Spawner(sys.argv[1])
    spawner.packets += HEADER.pack(0, STARTED, 0)
    spawner._flush()
    try:
        spawner.serve()
    except OSError:
        # nobody reads any more
        return


if __name__ == "__main__":
    main()
