"""The spawner: forks the processes that an environment's kernel objects hang on, all at once, and ends.

Run as a program of its own, with nothing but the standard library, so that a node's init is a copy-on-write copy of something small.
Its environment carries WARDIAN_ENVIRONMENT, which every child inherits: that is how they are known from their first moment.

Standard input holds one JSON object {"children": [CHILD]}. Each CHILD has "key" ("node client[0]"), "kind" and "directory", where
its `process.json` is written; a "holder" only holds a network namespace, its own or with "host_network" the spawner's, a "node" is
described in `mounts` and `init`, a "plain" one, which has no namespaces, in `guard` and `init`. One JSON line a child comes out, in the
order in which they get ready: {"key", "pid", "start", "boot"} or {"key", "error", "errno"}.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from typing import Any

from . import guard, init, mounts
from .kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    keep_capabilities,
    process_identity,
    set_name,
    setns,
    unshare,
)

_REPORT = 3
"""The descriptor by which a child says how it fared."""


def main() -> None:
    """Read what to make, make it, report."""
    children: list[dict[str, Any]] = json.load(sys.stdin)["children"]
    os.umask(0o022)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    layout = mounts.host_layout()
    reader, writer = os.pipe()
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    identities: dict[str, dict[str, Any]] = {}
    for child in children:
        pid = _fork_apart(own_pids) if child["kind"] == "node" else os.fork()
        if pid == 0:
            _become(child, layout, writer)
        identities[child["key"]] = _record(child, pid)
    os.close(writer)
    _report(reader, identities)


def _fork_apart(own_pids: int) -> int:
    """fork(2), with the child as the first process of a process table of its own."""
    if mounts.in_user_namespace():
        return _fork_through_another()
    unshare(CLONE_NEWPID)
    pid = os.fork()
    if pid:
        setns(own_pids, CLONE_NEWPID)  # a second unshare is refused while the first waits for its process
    return pid


def _fork_through_another() -> int:
    # an ordinary user cannot come back to the host's process table, so that another process leaves it
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            unshare(CLONE_NEWPID)
            pid = os.fork()
        except OSError as error:
            os.write(writer, f"-{error.errno}".encode())
            os._exit(1)
        if pid == 0:
            return 0
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.waitpid(between, 0)
    number = int(os.read(reader, 32))
    for end in (reader, writer):
        os.close(end)
    if number < 0:
        raise OSError(-number, f"making a process table: {os.strerror(-number)}")
    return number


def _become(child: dict[str, Any], layout: mounts.Layout, writer: int) -> None:
    """Turn this forked process into what the child is to be. Never returns."""
    code = 1
    try:
        _detach(writer)
        os.chdir(child["directory"])
        for group in child.get("cgroups", ()):
            _join(group)
        if child["kind"] == "holder":
            _hold(child)
        elif child["kind"] == "plain":
            _guard(child)
        else:
            _boot(child, layout)
        code = 0
    except OSError as error:
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        _say({"key": child["key"], "error": what, "errno": error.errno})
    finally:
        os._exit(code)


def _hold(child: dict[str, Any]) -> None:
    if not child["host_network"]:
        unshare(CLONE_NEWNET)
        mounts.set_sysctls(child["sysctls"])
    set_name(child["title"])
    _say({"key": child["key"]})
    os.close(_REPORT)
    os.chdir("/")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        signal.pause()


def _boot(child: dict[str, Any], layout: mounts.Layout) -> None:
    unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | (0 if child["host_network"] else CLONE_NEWNET))
    if not child["host_network"]:
        mounts.set_sysctls(child["sysctls"])
    listener = init.listen()
    mounts.enter(child, layout)
    keep_capabilities(init.CAPABILITIES)
    _serve(child, listener)


def _guard(child: dict[str, Any]) -> None:
    def serve() -> None:
        listener = init.listen()
        os.chdir("/")
        _serve(child, listener)

    def ready() -> None:
        os.close(_REPORT)
        os.chdir("/")
        set_name("wardian-guard")

    guard.stand(serve, ready)


def _serve(child: dict[str, Any], listener: socket.socket) -> None:
    set_name("wardian-init")
    server = init.Init(listener, child["env"])
    _say({"key": child["key"]})
    os.close(_REPORT)
    server.serve()


def _detach(writer: int) -> None:
    """Let go of everything inherited but the way to report: the lock's descriptor above all."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.dup2(writer, _REPORT)
    os.closerange(_REPORT + 1, 1 << 20)


def _join(group: dict[str, Any]) -> None:
    os.makedirs(group["path"], exist_ok=True)
    for name, value in group["files"].items():
        _write(f"{group['path']}/{name}", value)
    _write(f"{group['path']}/cgroup.procs", "0")


def _record(child: dict[str, Any], pid: int) -> dict[str, Any]:
    identity = process_identity(pid)
    path = f"{child['directory']}/process.json"
    with open(f"{path}.new", "w") as file:
        json.dump(identity, file)
    os.rename(f"{path}.new", path)
    return identity


def _report(reader: int, identities: dict[str, dict[str, Any]]) -> None:
    with open(reader) as lines:
        for line in lines:
            answer = json.loads(line)
            identity = identities.pop(answer["key"])
            _out(answer if "error" in answer else {**answer, **identity})
    for key in identities:
        _out({"key": key, "error": "its process ended before it was ready", "errno": 0})


def _out(value: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever asked is gone; the children are to be found all the same
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _say(value: dict[str, Any]) -> None:
    os.write(_REPORT, (json.dumps(value) + "\n").encode())


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
    finally:
        os.close(descriptor)
