"""Where everything of a testbed is: one folder, ten ports in a row on the loopback interface, passwords in a file of mode 0600."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import SetupError

HOST = "127.0.0.1"
REGION = "testbed"
HOSTS = 3
"""Compute hosts of the fast form; the full one has this machine."""

FIRST_PORT = 21700
PORTS = ("database", "messages", "messages-nodes", "messages-names", "identity", "placement", "image", "compute", "network", "reservation")
"""What listens on the first port, the one after it, …"""

PASSWORDS = ("database", "messages", "cookie", "admin", "service", "user")


def default_folder(full: bool = False) -> Path:
    """`$WARDIAN_TESTBED`, else a folder of the system (root) or of the user; each form has its own."""
    if chosen := os.environ.get("WARDIAN_TESTBED"):
        return Path(chosen).absolute()
    name = "wardian-testbed-full" if full else "wardian-testbed"
    if os.geteuid() == 0:
        return Path("/var/lib") / name
    return Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser() / name


@dataclass(frozen=True)
class Layout:
    """One testbed. hosts: how many compute hosts it has. boot: how long its servers take to, seconds. full: whether they are machines."""

    folder: Path
    first_port: int = FIRST_PORT
    hosts: int = HOSTS
    boot: float = 0.0
    full: bool = False
    passwords: dict[str, str] = field(default_factory=dict, repr=False)

    def port(self, name: str) -> int:
        return self.first_port + PORTS.index(name)

    def url(self, name: str, path: str = "") -> str:
        return f"http://{HOST}:{self.port(name)}{path}"

    def database(self, name: str) -> str:
        return f"mysql+pymysql://testbed:{self.passwords['database']}@{HOST}:{self.port('database')}/{name}?charset=utf8"

    @property
    def messages(self) -> str:
        return f"rabbit://testbed:{self.passwords['messages']}@{HOST}:{self.port('messages')}/"

    @property
    def blazar(self) -> Path:
        """The virtual environment that Blazar has of its own. It is kept when the rest is removed."""
        return self.folder / "blazar"

    @property
    def debian(self) -> Path:
        """The image that virtual machines boot; kept, too."""
        return self.folder / "debian"

    @property
    def state(self) -> Path:
        """What `start` makes, and `remove` removes."""
        return self.folder / "state"

    @property
    def machines(self) -> Path:
        """What virtual machines have on disks."""
        return self.state / "machines"

    @property
    def clouds(self) -> Path:
        return self.state / "clouds.yaml"

    def log(self, service: str) -> Path:
        return self.state / "log" / f"{service}.log"

    def configuration(self, service: str) -> Path:
        return self.state / "etc" / service / f"{service}.conf"

    def compute_hosts(self) -> list[str]:
        return [f"host-{number}" for number in range(self.hosts)]


def existing(folder: Path) -> Layout | None:
    """The testbed in a folder, or None."""
    try:
        return Layout(folder, **json.loads((folder / "state" / "layout.json").read_text()))
    except FileNotFoundError:
        return None


def prepare(folder: Path, first_port: int, hosts: int | None = None, boot: float | None = None, full: bool = False) -> Layout:
    """The testbed in a folder, made where there is none. Raises SetupError where there is one that is otherwise."""
    if found := existing(folder):
        if found.full != full:
            raise SetupError(f"the testbed in {folder} is of the other form: choose another --folder")
        if (found.first_port, found.hosts, found.boot) != (first_port, hosts or found.hosts, found.boot if boot is None else boot):
            raise SetupError(
                f"the testbed in {folder} has --port {found.first_port}, --hosts {found.hosts} and --boot {found.boot:g}: "
                "say so, or take it down with `openstack-testbed remove` first"
            )
        return found
    hosts, boot = (1, 0.0) if full else (hosts or HOSTS, boot or 0.0)
    made = Layout(folder, first_port, hosts, boot, full, {name: secrets.token_hex(16) for name in PASSWORDS})
    # what services write themselves, everybody could read: but not in here
    for path in (folder, made.state, *(made.state / name for name in ("log", "run", "lock", "done", "images"))):
        path.mkdir(exist_ok=True, mode=0o700)
    kept = {"first_port": first_port, "hosts": hosts, "boot": boot, "full": full, "passwords": made.passwords}
    write(made.state / "layout.json", json.dumps(kept))
    return made


def write(path: Path, text: str) -> None:
    """Write a file that only its owner reads, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    beside.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only command that changes this testbed. Raises SetupError where another one does."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another command works on the testbed in {folder}; wait until it is done") from None
        yield
