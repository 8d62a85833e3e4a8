"""Talks to a host's kernel for us (rtnetlink): all that has to be decided is decided here, and only messages pass.

Sent along and run there as a program (Python 3.8 or newer, the standard library alone), by root. Its standard input is one JSON list of
steps, and it prints {"order": byte order of numbers there, "gave": [what each step gave]}; bytes are hexadecimal:

    ["send", [[type, flags, body], …]]    one after the other, up to a refusal, which ends all; gives [error number, reason] of the last
    ["try", [[type, flags, body], …]]     each, in a network namespace that nobody sees; gives [[error number, reason], …], 0 for none
    ["ask", type, flags, body]            gives the bodies of the answers, none where it was refused
    ["filters", parent]                   {index of an interface: bodies} of the filters of what has this handle on it
    ["write", path, text]                 replace a file whole; None removes it
    ["read", path]                        its text, or None

Paths are below the folder that is its one argument.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from typing import Any

_REQUEST, _ACK = 1, 4
_ERROR, _DONE = 2, 3
_GETFILTER = 46
_CLONE_NEWNET = 0x40000000
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11


class Kernel:
    """A netlink socket."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self.socket.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK):
            try:
                self.socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                # an older kernel gives no reason in words
                break
        self.number = 0

    def send(self, kind: int, flags: int, body: bytes) -> Any:
        """One request that is acknowledged: [error number, reason]."""
        self._post(kind, flags | _ACK, body)
        while True:
            for type_, flags_, number, answer in self._receive():
                if type_ == _ERROR and number == self.number:
                    return _refusal(flags_, answer)

    def ask(self, kind: int, flags: int, body: bytes) -> Any:
        """The bodies of what answers."""
        self._post(kind, flags, body)
        found: list[str] = []
        while True:
            for type_, _, number, answer in self._receive():
                if number != self.number:
                    continue
                if type_ in (_ERROR, _DONE):
                    return found
                found.append(answer.hex())
                if not flags & 0x300:
                    return found

    def _post(self, kind: int, flags: int, body: bytes) -> None:
        self.number += 1
        self.socket.send(struct.pack("=IHHII", len(body) + 16, kind, flags | _REQUEST, self.number, 0) + body)

    def _receive(self) -> Any:
        data, offset = self.socket.recv(1 << 17), 0
        while offset + 16 <= len(data):
            length, kind, flags, number = struct.unpack_from("=IHHI", data, offset)
            yield kind, flags, number, data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def _refusal(flags: int, answer: bytes) -> Any:
    number = -struct.unpack_from("=i", answer)[0]
    reason = os.strerror(number) if number else ""
    offset = 20
    while number and flags & 0x200 and offset + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, offset)
        if length < 4:
            break
        if kind == 1:
            reason += " (" + answer[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace") + ")"
        offset += (length + 3) & ~3
    return [number, reason]


def _apart(requests: Any) -> Any:
    """Send requests in a network namespace of a process of their own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = [[1, "no network namespace can be made"]] * len(requests)
        try:
            import ctypes

            if ctypes.CDLL(None).unshare(_CLONE_NEWNET) == 0:
                kernel = Kernel()
                answer = [kernel.send(kind, flags, bytes.fromhex(body)) for kind, flags, body in requests]
        finally:
            os.write(writer, json.dumps(answer).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = json.loads(stream.read())
    os.waitpid(child, 0)
    return answer


def _write(path: str, text: Any) -> None:
    if text is None:
        if os.path.exists(path):
            os.unlink(path)
        return
    with open(path + ".new", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def _read(path: str) -> Any:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def main() -> None:
    """Take the steps that are asked for."""
    print(json.dumps({"order": sys.byteorder, "gave": _take(Kernel(), json.load(sys.stdin))}))


def _take(kernel: Kernel, steps: Any) -> list[Any]:
    gave: list[Any] = []
    for name, *rest in steps:
        if name == "send":
            gave.append([0, ""])
            for place, (kind, flags, body) in enumerate(rest[0]):
                gave[-1] = [*kernel.send(kind, flags, bytes.fromhex(body)), place]
                if gave[-1][0]:
                    return gave
        elif name == "try":
            gave.append(_apart(rest[0]))
        elif name == "ask":
            gave.append(kernel.ask(rest[0], rest[1], bytes.fromhex(rest[2])))
        elif name == "filters":
            bodies = {index: struct.pack("=BxxxiIII", 0, index, 0, rest[0], 0) for index, _ in socket.if_nameindex()}
            gave.append({index: found for index, body in bodies.items() if (found := kernel.ask(_GETFILTER, 0x300, body))})
        elif name == "write":
            _write(os.path.join(sys.argv[1], rest[0]), rest[1])
            gave.append(None)
        else:
            gave.append(_read(os.path.join(sys.argv[1], rest[0])))
    return gave


if __name__ == "__main__":
    main()
