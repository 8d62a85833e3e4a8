"""The state folder: what is written down about each environment, and who is working on it.

    environments/ID/environment.json           the record
                    fabric/process.json        the process that holds the environment's network namespace
                    plain                      an empty file: its nodes are processes alone, see `plain/`
                    outside/process.json       of an ordinary user's: the one that holds the namespace that leads out, see `wayout.py`
                    KIND/NAME/resource.json    {"name", "spec", "complete", "facts"}
                    KIND/NAME/process.json     of a node or a network's gateway: {"pid", "start", "boot"}
                    node/NAME/notes/NAME
                    aside/NODE/                of a node that is rebooted, until it is whole again: node.json, what it was made from, and
                                               for a while its disk
    locks/HASH.lock                            JSON of who holds it
    layers/                                    what `setup:` scripts made, shared by all environments

Files are replaced whole, so that a reader meets the old or the new one. What is written here is a claim; `observe` checks it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ...errors import BusyError
from ...experiment.resources import KINDS, EnvironmentRecord
from ...experiment.selectors import natural_order
from .kernel import is_running

_BEGINNING = ".new-"
"""An environment's folder is filled under this and the name of its lock, then renamed: it never exists without its record."""


class State:
    """The state folder at `root`. Nothing is made before it is needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.held: set[int] = set()
        """Descriptors of the locks that are held; a spawner inherits them, so that a lock ends only with the work it is about."""

    def environment(self, id_: str) -> EnvironmentFolder:
        return EnvironmentFolder(id_, self.root / "environments" / quote(id_, safe=""))

    def environments(self) -> list[EnvironmentFolder]:
        """All that anything is left of, with a record or without."""
        try:
            names = sorted(os.listdir(self.root / "environments"))
        except FileNotFoundError:
            return []
        self._forget_beginnings(name for name in names if name.startswith(_BEGINNING))
        return [self.environment(unquote(name)) for name in names if not name.startswith(".")]

    def _forget_beginnings(self, names: Iterable[str]) -> None:
        """Remove folders that their maker, who held the lock of that name, did not live to give an environment's name to."""
        for name in names:
            with suppress(FileNotFoundError), _opened(self.root / "locks" / f"{name.removeprefix(_BEGINNING)}.lock", os.O_RDWR) as lock:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(self.root / "environments" / name)

    @contextmanager
    def lock(self, file: str, instance: str, purpose: str) -> Iterator[None]:
        """The lock of (file, instance). Raises BusyError naming who holds it."""
        folder = self.root / "locks"
        # of parents, mkdir makes what everybody may look into
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _opened(folder / f"{_lock_name(file, instance)}.lock", os.O_RDWR | os.O_CREAT) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(descriptor, file, instance) from None
            holder = {"pid": os.getpid(), "purpose": purpose, "since": time.time()}
            # what holds is the lock; who holds it finds no room on a full disk, and gives room all the more
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(holder).encode(), 0)
            self.held.add(descriptor)
            try:
                yield
            finally:
                self.held.discard(descriptor)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file, after whoever holds it: a command and the keeper may look after the same thing at once."""
    with _opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_name(file: str, instance: str) -> str:
    return hashlib.sha256(json.dumps([file, instance]).encode()).hexdigest()[:32]


class EnvironmentFolder:
    """What is written down about one environment."""

    def __init__(self, id_: str, path: Path) -> None:
        self.id = id_
        self.path = path
        self.fabric = path / "fabric"
        self.outside = path / "outside"

    def begin(self, record: EnvironmentRecord, *, plain: bool = False) -> None:
        """Write the record; from here on the environment exists. It never exists without one. plain: see there."""
        if not self.path.exists():
            new = self.path.with_name(_BEGINNING + _lock_name(record.file, record.instance))
            EnvironmentFolder(self.id, new)._fill(record, plain)
            new.rename(self.path)
        else:
            self._fill(record, plain)

    @property
    def plain(self) -> bool:
        """Whether its nodes are processes alone, without namespaces."""
        return (self.path / "plain").exists()

    def _fill(self, record: EnvironmentRecord, plain: bool) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.fabric.mkdir(exist_ok=True, mode=0o700)
        if plain:
            (self.path / "plain").touch()
        self.write_record(record)

    def write_record(self, record: EnvironmentRecord) -> None:
        fields = {name: getattr(record, name) for name in EnvironmentRecord.__dataclass_fields__}
        write_json(self.path / "environment.json", {**fields, "spec": dict(record.spec)})

    def record(self) -> EnvironmentRecord | None:
        value = read_json(self.path / "environment.json")
        return EnvironmentRecord(**value) if value else None

    def resource(self, kind: str, name: str) -> ResourceFolder:
        return ResourceFolder(kind, name, self.path / kind / quote(name, safe="[]@"))

    def resources(self, kind: str) -> list[ResourceFolder]:
        """Those of one kind that anything is left of."""
        try:
            names = os.listdir(self.path / kind)
        except FileNotFoundError:
            return []
        return sorted((self.resource(kind, unquote(name)) for name in names), key=lambda item: natural_order(item.name))

    def fabric_pid(self) -> int | None:
        """The number of the process that holds the fabric, if it runs."""
        return _running(self.fabric)

    def outside_pid(self) -> int | None:
        """The number of the process that holds the namespace which leads out, if there is one that runs."""
        return _running(self.outside)

    def has_way(self) -> bool:
        """Whether nodes of it reach the internet."""
        return (self.path / "uplink.json").exists()

    def alive(self) -> Iterator[int]:
        """The numbers of the processes that are written down and run."""
        return (identity["pid"] for identity in self.processes() if is_running(identity))

    def processes(self) -> Iterator[dict[str, Any]]:
        """The identities of all processes that are written down."""
        for path in (self.fabric, self.outside, *(item.path for kind in ("network", "node") for item in self.resources(kind))):
            identity = read_json(path / "process.json")
            if identity:
                yield identity

    def forget(self) -> None:
        """Remove the record, and the folder if nothing else is in it."""
        remove_tree(self.fabric)
        remove_tree(self.outside)
        (self.path / "environment.json").unlink(missing_ok=True)
        if not any(self.resources(kind) for kind in KINDS):
            remove_tree(self.path)

    def remove(self) -> None:
        """Remove everything, the record last."""
        with suppress(FileNotFoundError):
            for entry in os.scandir(self.path):
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(Path(entry.path))
            (self.path / "environment.json").unlink(missing_ok=True)
            remove_tree(self.path)


@dataclass(frozen=True)
class ResourceFolder:
    """What is written down about one resource."""

    kind: str
    name: str
    path: Path

    def begin(self, spec: Mapping[str, Any], **facts: Any) -> None:
        """Say that it is being made; facts: what its later changes and its end need to know."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(spec, False, facts)

    def complete(self, spec: Mapping[str, Any], **facts: Any) -> None:
        """Say that it is made, and like this."""
        self._write(spec, True, facts)

    def _write(self, spec: Mapping[str, Any], complete: bool, facts: Mapping[str, Any]) -> None:
        write_json(self.path / "resource.json", {"name": self.name, "spec": dict(spec), "complete": complete, "facts": dict(facts)})

    def read(self) -> dict[str, Any] | None:
        return read_json(self.path / "resource.json")

    def process(self) -> dict[str, Any] | None:
        """The identity of its process, or None if none was written down."""
        return read_json(self.path / "process.json")

    def pid(self) -> int | None:
        """The number of its process, if that runs."""
        identity = self.process()
        return identity["pid"] if identity and is_running(identity) else None

    def note(self, name: str, value: Mapping[str, Any] | None) -> None:
        """Keep a note; a file each, so that two writers of different notes never undo each other's."""
        path = self.path / "notes" / quote(name, safe="")
        if value is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(exist_ok=True)
            write_json(path, value)

    def notes(self) -> dict[str, dict[str, Any]]:
        """All notes kept here."""
        try:
            names = sorted(os.listdir(self.path / "notes"))
        except FileNotFoundError:
            return {}
        values = {unquote(name): read_json(self.path / "notes" / name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def remove(self) -> None:
        """Forget it: at once and whole for every reader, however long the removal takes."""
        if not self.path.exists():
            return
        gone = self.path.parent.parent / "removed"
        gone.mkdir(exist_ok=True, mode=0o700)
        target = gone / f"{self.kind}-{os.getpid()}-{time.monotonic_ns()}"
        with suppress(FileNotFoundError):
            self.path.rename(target)
            remove_tree(target)


def _running(folder: Path) -> int | None:
    identity = read_json(folder / "process.json")
    return identity["pid"] if identity and is_running(identity) else None


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none or the crash of a host left a part of one."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file as a whole."""
    part = f"{path}.{os.getpid()}.{threading.get_ident()}"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.rename(part, path)


def remove_tree(path: Path) -> None:
    """Remove a folder with all in it; what another removes at the same time is no error."""
    while True:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not path.exists():
                return
        else:
            return


def _busy(descriptor: int, file: str, instance: str) -> BusyError:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        who = f"process {holder['pid']} ({holder['purpose']}) since {time.strftime('%H:%M:%S', time.localtime(holder['since']))}"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return BusyError(f"the environment of {file} (instance {instance}) is held by {who}", remedy="Wait for it to end, then try again.")
