"""An array to a node and back, beside a file of the same size by scp to a real sshd on loopback, from memory to memory."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ground import ground
from .kernels import Kernel, kernel
from .results import Goal, Row, Table

ROUNDS = 5
SIZE = 2**30
WARM_UP = 1


def measure(quick: bool) -> Table:
    """In turn: put, get, scp there, scp back."""
    rounds, size = (1, SIZE // 8) if quick else (ROUNDS, SIZE)
    times: dict[str, list[float]] = {name: [] for name in ("put", "get", "to", "from")}
    with ground() as place, place.up(1) as folder, sshd() as peer, kernel("wardian", folder) as wardian:
        peer.make(size)
        wardian.run(f"import numpy, wardian; there = numpy.ones({size // 8}); node = wardian.nodes['box[0]']")
        for number in range(-WARM_UP, rounds):
            measured = {
                "put": _timed(wardian, "node.put('array', there)"),
                "get": _timed(wardian, "back = node.get('array')"),
                "to": peer.copy(peer.local, peer.remote),
                "from": peer.copy(peer.remote, peer.local),
            }
            wardian.run("assert back[-1] == 1.0; del back")
            if number >= 0:
                for what, seconds in measured.items():
                    times[what].append(seconds)
    goal = Goal(1.0, ratio=True)
    rows = [
        Row("an array to a node", "s", times["put"], "scp", times["to"], goal),
        Row("and back", "s", times["get"], "scp", times["from"], goal),
    ]
    note = "scp copies between files in memory (/dev/shm); the array goes from the memory of one process to that of another."
    return Table("transfer", f"{size >> 20} MiB, {rounds} rounds in turn", note, rows)


def _timed(wardian: Kernel, code: str) -> float:
    """Seconds that a line takes within the kernel: what the notebook's front end adds is measured elsewhere."""
    timed = f"import time; start = time.perf_counter(); {code}; print('took', time.perf_counter() - start)"
    return float(wardian.run(timed).rpartition(" ")[2])


class Peer:
    """scp and its server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.local = str(folder / "local")
        self.remote = f"{getpass.getuser()}@127.0.0.1:{folder / 'remote'}"
        known = ("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "LogLevel=ERROR")
        self._command = ["scp", "-q", "-F", "none", "-i", str(folder / "key"), "-P", str(port), *known]

    def make(self, size: int) -> None:
        """Make the file that is copied."""
        with Path(self.local).open("wb") as file:
            for _ in range(size >> 20):
                file.write(bytes(range(256)) * 4096)

    def copy(self, source: str, target: str) -> float:
        """Seconds that a copy takes."""
        start = time.perf_counter()
        subprocess.run([*self._command, source, target], check=True, stdin=subprocess.DEVNULL)
        return time.perf_counter() - start


@contextmanager
def sshd() -> Iterator[Peer]:
    """A server of our own on loopback, with keys of its own, that ends with this."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("sshd is not installed: apt-get install openssh-server")
    folder = Path(tempfile.mkdtemp(prefix="wardian-bench-", dir="/dev/shm"))
    Path("/run/sshd").mkdir(exist_ok=True)
    try:
        for name in ("host", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "ListenAddress": f"127.0.0.1:{port}",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "key.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "prohibit-password",
            "Subsystem": "sftp internal-sftp",
        }
        (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            while server.stderr is not None and b"listening" not in (line := server.stderr.readline()):
                if not line:
                    raise RuntimeError("sshd did not start")
            yield Peer(folder, port)
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(folder)
