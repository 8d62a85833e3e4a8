"""A PostgreSQL of the tests' own: in a temporary folder, on a Unix socket there, run by a user who is not root."""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

_PATIENCE = 60
_HBA = """
local all guarded scram-sha-256
local all all trust
"""
_numbers = itertools.count(1)


class Server:
    """A server that can be ended and started again."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="wp", dir="/var/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        command = [programs / "initdb", "-D", self.folder / "data", "-U", "owner", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE, cwd="/", **self._as)
        (self.folder / "data" / "pg_hba.conf").write_text(_HBA)

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off", "shared_buffers": "16MB"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, preexec_fn=_end_with_us, **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.ask("SELECT 1")
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise OSError("PostgreSQL does not start:\n" + (self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it at once, without a word to those who are connected."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_PATIENCE)

    def close(self) -> None:
        """End it, and remove all that it kept."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, query: str, database: str = "postgres") -> list[Any]:
        """Run a statement as the owner; gives its rows."""
        with psycopg.connect(host=str(self.folder), user="owner", dbname=database, autocommit=True) as connection:
            cursor = connection.execute(query)  # type: ignore[call-overload]
            return list(cursor) if cursor.description else []

    def database(self) -> str:
        """The name of a new, empty database."""
        name = f"journal{next(_numbers)}"
        self.ask(f"CREATE DATABASE {name} STRATEGY file_copy")
        return name

    def url(self, database: str, user: str = "owner", password: str = "") -> str:
        """The address of a database."""
        return f"postgresql://{user}{f':{password}' if password else ''}@/{database}?host={self.folder}"


def _end_with_us() -> None:
    """In the child: tests that are killed leave no server behind (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def start() -> Server:
    """A server. Skips the test, or fails it where everything is required, without PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        (pytest.fail if os.environ.get("WARDIAN_REQUIRE_ALL") == "1" else pytest.skip)("PostgreSQL is not installed")
    server = Server(found[-1].parent)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server
