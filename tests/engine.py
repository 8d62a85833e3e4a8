"""A Docker Engine of the tests' own: its daemon in namespaces that nobody else sees, its data in a folder that goes at the end.

Nothing is pulled: images are made of Debian packages (`images.py`) and imported.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from wardian.errors import ProviderError
from wardian.providers.docker.engine import Engine

from . import images

IMAGE = "wardian-test:tools"
"""Debian with Python, bash and what the demo needs."""

BARE = "wardian-test:bare"
"""busybox alone: a shell and no Python."""

_PATIENCE = 60
_APART = {"mount": "mnt", "net": "net"}
"""Its namespaces: {as nsenter calls them: as the kernel does}."""


class Daemon:
    """A daemon that can be ended and started again.

    network: path of the network namespace that it is in, one of its own without. size: bytes that its disk has, or as many as there are.
    """

    def __init__(self, *, network: str | None = None, size: int | None = None) -> None:
        # a short path, since the daemon makes sockets below it; in memory where there is room, since it writes and removes much
        roomy = os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > 4 * 2**30
        self.folder = Path(tempfile.mkdtemp(prefix="we", dir="/dev/shm" if roomy else "/var/tmp"))
        self.address = f"unix://{self.folder}/docker.sock"
        self._network = network
        self._size = size
        self._namespaces: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The number of the daemon's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def disk(self) -> Path:
        """Where it keeps its data, as this process sees it."""
        return Path(f"/proc/{self.pid}/root{self.folder}/data")

    def start(self) -> None:
        """Start it, and return once it answers."""
        if self._process is None or self._process.poll() is not None:
            (self.folder / "pid").unlink(missing_ok=True)
            (self.folder / "data").mkdir(exist_ok=True)
            if self._namespaces:
                # what went on without it is in there
                apart = ["nsenter", *(f"--{kind}=/proc/self/fd/{number}" for kind, number in zip(_APART, self._namespaces, strict=True))]
            else:
                outside = ["nsenter", f"--net={self._network}", "unshare", "--mount"] if self._network else ["unshare", "--mount", "--net"]
                disk = f"mount -t tmpfs -o size={self._size} disk {self.folder}/data; " if self._size else ""
                apart = [*outside, "/bin/sh", "-c", f'ip link set lo up; {disk}exec "$@"', "sh"]
            with open(self.folder / "log", "ab") as log:
                self._process = subprocess.Popen(
                    [*apart, *self._command()],
                    pass_fds=self._namespaces,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")},
                )
        deadline = time.monotonic() + _PATIENCE
        while not self.ask("GET", "/_ping", fails=True):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OSError("the daemon does not start:\n" + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        if not self._namespaces:
            self._namespaces = [os.open(f"/proc/{self.pid}/ns/{name}", os.O_RDONLY) for name in _APART.values()]

    def _command(self) -> list[str]:
        places = ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/run", "--pidfile", f"{self.folder}/pid"]
        return ["dockerd", "--host", self.address, *places]

    def stop(self) -> None:
        """End it as a shutdown of its machine does: its containers end, too."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_PATIENCE)

    def kill(self) -> None:
        """Kill it. What it started goes on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and remove all that it kept."""
        with suppress(OSError):
            self.start()
        for container in self.containers():
            self.ask("DELETE", f"/containers/{container['Id']}", fails=True, force=True)
        # with nothing left to end in order, its own end need not take the seconds that it does
        self.kill()
        self._end_others()
        with suppress(OSError, ValueError):
            os.kill(int((self.folder / "run" / "containerd" / "containerd.pid").read_text()), signal.SIGKILL)
        for namespace in self._namespaces:
            os.close(namespace)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_others(self) -> None:
        """End what goes on by itself for a while."""

    def containers(self) -> list[dict[str, Any]]:
        """All of its containers."""
        found = self.ask("GET", "/containers/json", fails=True, all=True)
        return found if isinstance(found, list) else []

    def ask(self, method: str, path: str, body: Any = None, *, fails: bool = False, **query: Any) -> Any:
        """One request to it; gives the answer, True where that is empty, and with `fails` False where it is refused."""
        try:
            return asyncio.run(Engine(self.address).request(method, path, body=body, query=query)) or True
        except ProviderError:
            if fails:
                return False
            raise

    def load(self, name: str, root: Path) -> None:
        """Have it take a folder as an image of that name."""
        asyncio.run(self._load(name, root))

    async def _load(self, name: str, root: Path) -> None:
        with tempfile.TemporaryFile(dir=self.folder) as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(root, ".")
            file.seek(0)

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := file.read(1 << 20):
                    yield chunk

            query = {"fromSrc": "-", "repo": name}
            async for _ in Engine(self.address).lines("POST", "/images/create", body=chunks(), query=query):
                pass


class Podman(Daemon):
    """Podman's service, which speaks as an Engine does."""

    def _command(self) -> list[str]:
        # within what it may set here: it asks for more, and takes less for itself first
        files, processes = (min(resource.getrlimit(kind)[1], 4096) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        limits = f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
        (self.folder / "containers.conf").write_text(limits + '[engine]\nlock_type = "file"\n')
        places = ["--root", f"{self.folder}/data", "--runroot", f"{self.folder}/run", "--tmpdir", f"{self.folder}/tmp"]
        kinds = ["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"]
        settings = ["env", f"CONTAINERS_CONF={self.folder}/containers.conf"]
        return [*settings, "podman", *places, *kinds, "system", "service", "--time", "0", self.address]

    def _end_others(self) -> None:
        # each waits five minutes with what became of a command, for whoever may ask
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdigit() and f"{self.folder}/data".encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    os.kill(int(name), signal.SIGKILL)


def start(kind: type[Daemon] = Daemon, **options: Any) -> Daemon:
    """A daemon with the tests' images. Skips the test, or fails it where everything is required, without the programs for it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    give_up: Callable[[str], Any] = pytest.fail if os.environ.get("WARDIAN_REQUIRE_ALL") == "1" else pytest.skip
    for program in ("podman", "conmon", "runc") if kind is Podman else ("dockerd", "containerd", "iptables"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/libexec/docker") is None:
            give_up(f"the program {program} is not installed")
    roots = {IMAGE: images.with_tools(), BARE: images.without_python(bash=False)}
    daemon = kind(**options)
    try:
        daemon.start()
        for name, root in roots.items():
            daemon.load(name, root)
    except OSError as error:
        daemon.close()
        give_up(str(error))
    except BaseException:
        daemon.close()
        raise
    return daemon
