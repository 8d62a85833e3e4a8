"""Starting and ending processes. Each carries the testbed and its service in an environment variable, and so does what it starts: by
that they are found, whoever asks, and nothing else is ever ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from . import SetupError
from .layout import Layout

MARK = "WARDIAN_TESTBED_SERVICE"
SETTING_UP = "setting-up"
"""What commands of setting up belong to: one may outlive the command that ran it, and must not pass for the service."""

GRACE = 60.0
"""Longest that a service may take to end when it is asked to, seconds. A database that is killed may come back broken."""


def running(layout: Layout) -> dict[str, list[int]]:
    """{service: its processes}, of this testbed."""
    found: dict[str, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (service := _service(layout, int(name))):
            found.setdefault(service, []).append(int(name))
    return found


def memory(pids: Iterable[int]) -> int:
    """What these use of the machine's memory, bytes: what several share is counted once in all."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def start(layout: Layout, service: str, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a service; what it prints goes to its log."""
    with open(layout.log(service), "ab") as log:
        return subprocess.Popen(
            argv,
            env=_variables(layout, service, env),
            cwd=layout.state,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def run(layout: Layout, service: str, argv: Sequence[str], env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """Run a command to its end and give what it wrote to stdout. Raises SetupError with its last words where it fails."""
    done = subprocess.run(
        argv, env=_variables(layout, SETTING_UP, env or {}), cwd=layout.state, input=stdin, capture_output=True, text=True, check=False
    )
    with open(layout.log(service), "a") as log:
        log.write(done.stderr)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SetupError(f"{Path(argv[0]).name} of {service} failed ({done.returncode}); all of it is in {layout.log(service)}\n{last}")
    return done.stdout


def wait(layout: Layout, service: str, process: subprocess.Popen[bytes] | None, ready: Callable[[], bool], timeout: float) -> None:
    """Wait until a service is ready. Raises SetupError with the end of its log when it ends before, or takes too long."""
    end = time.monotonic() + timeout
    while not ready():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > end:
            last = "\n".join(layout.log(service).read_text(errors="replace").splitlines()[-15:])
            raise SetupError(f"{service} {'ended' if ended else f'is not ready after {timeout:.0f} s'}; its log ends with:\n{last}")
        time.sleep(0.1)


def stop(layout: Layout, services: Iterable[str]) -> None:
    """End these services and all that they started: asked first, then killed."""
    for number, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        found = running(layout)
        left = [pid for service in services for pid in found.get(service, ())]
        if not left:
            return
        # what leads the others is asked, and ends them in its own order; once it is gone, or too late, each is
        leading = [pid for pid in left if _leads(pid)] or left
        send(layout, leading if number == signal.SIGTERM else left, number, grace)
    if found := {name: pids for name, pids in running(layout).items() if name in set(services)}:
        raise SetupError(f"still running: {found}")


def send(layout: Layout, pids: Sequence[int], number: int, grace: float) -> None:
    """Send a signal and wait for their end, for at most `grace` seconds."""
    waiting = set()
    for pid in pids:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            # the number may belong to another process by now; of this descriptor it does not change
            if _service(layout, pid):
                signal.pidfd_send_signal(descriptor, number)
                waiting.add(descriptor)
            else:
                os.close(descriptor)
    end = time.monotonic() + grace
    while waiting and (left := end - time.monotonic()) > 0:
        for descriptor in select.select(list(waiting), [], [], left)[0]:
            waiting.discard(descriptor)
            os.close(descriptor)
    for descriptor in waiting:
        os.close(descriptor)


def _service(layout: Layout, pid: int) -> str | None:
    """Which service of this testbed a process belongs to."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    mark = f"{MARK}={_mark(layout, '')}".encode()
    return next((item[len(mark) :].decode() for item in variables if item.startswith(mark)), None)


def _mark(layout: Layout, service: str) -> str:
    return f"{layout.folder}:{service}"


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _variables(layout: Layout, service: str, more: Mapping[str, str]) -> dict[str, str]:
    """Our variables without those that would lead a service elsewhere, and its own."""
    elsewhere = ("OS_", "PYTHON", "RABBITMQ_", "MYSQL_", "VIRTUAL_ENV")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere) and not name.lower().endswith("_proxy")}
    # SPT_NOENV: that a process gives itself a title costs it none of its variables
    return {**ours, "SPT_NOENV": "1", **more, MARK: _mark(layout, service)}
