"""The wheels that a Python kernel needs beside an interpreter: found by pip once for each kind of interpreter, kept in a cache here."""

from __future__ import annotations

import email.parser
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

REQUIREMENT = "ipykernel>=6.29,<8"
OLDEST = (3, 8)
_ROUNDS = 6
"""How often pip is asked for what only the node's Python needs: more than any chain of such requirements is long."""


class Unavailable(Exception):
    """The wheels cannot be had here; says why."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on a node, as it describes itself.

    abi: where it is not the usual one for the version, else None. libc: the version of glibc, or None for musl.
    installed: the versions of the packages that it has.
    """

    python: str
    version: tuple[int, int]
    implementation: str
    abi: str | None
    machine: str
    libc: tuple[int, int] | None
    installed: Mapping[str, str]

    @classmethod
    def read(cls, report: Mapping[str, Any]) -> Interpreter:
        """From what the agent's launcher reports. Raises Unavailable when it is not to be understood."""
        try:
            major, minor = report["version"]
            soabi, machine = str(report.get("soabi") or ""), str(report["machine"])
            libc = re.fullmatch(r"glibc (\d+)\.(\d+).*", str(report.get("libc") or ""))
            packages = report.get("installed", {}).items()
            installed: dict[str, str] = {canonicalize_name(str(name)): str(version) for name, version in packages}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Unavailable("its description is not understood") from None
        if not isinstance(report["machine"], str) or not re.fullmatch(r"\w{1,32}", machine, re.ASCII):
            raise Unavailable(f"its processor {machine!r} is not known")
        if "i386" in soabi and machine == "x86_64":
            machine = "i686"
        return cls(
            python=str(report.get("python") or "python3"),
            version=(int(major), int(minor)),
            implementation=str(report.get("implementation")),
            abi=_abi(soabi),
            machine=machine,
            libc=(int(libc[1]), int(libc[2])) if libc else None,
            installed=installed,
        )

    @property
    def key(self) -> str:
        """The same for all interpreters that take the same wheels."""
        libc = "musl" if self.libc is None else f"glibc{self.libc[0]}.{self.libc[1]}"
        wanted = hashlib.sha256(REQUIREMENT.encode()).hexdigest()[:8]
        return f"{self.abi or self.implementation.lower()}-{self.version[0]}.{self.version[1]}-{self.machine}-{libc}-{wanted}"

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there (PEP 600, PEP 656), the newest first."""
        if self.libc is None:
            return [f"musllinux_1_{minor}_{self.machine}" for minor in (2, 1)]
        newest = self.libc[1] if self.libc[0] == 2 else 17
        tags = [f"manylinux_2_{minor}" for minor in range(newest, 4, -1)]
        for name, minor in (("manylinux2014", 17), ("manylinux2010", 12), ("manylinux1", 5)):
            if minor <= newest:
                tags.append(name)
        return [f"{tag}_{self.machine}" for tag in tags]

    @property
    def markers(self) -> dict[str, str]:
        """What environment markers (PEP 508) say there."""
        version = f"{self.version[0]}.{self.version[1]}"
        return {
            "implementation_name": self.implementation.lower(),
            "implementation_version": f"{version}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": self.implementation,
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{version}.0",
            "python_version": version,
            "sys_platform": "linux",
            "extra": "",
        }


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel in the cache. requires: what it needs on the interpreter that it is for."""

    path: Path
    name: str
    sha256: str
    size: int
    requires: tuple[Requirement, ...]


def cached(interpreter: Interpreter) -> list[Wheel] | None:
    """All wheels that an ipykernel consists of on such an interpreter, if they are here."""
    folder = _cache() / interpreter.key
    try:
        listed: dict[str, str] = json.loads((folder / "wheels.json").read_text())
    except (OSError, ValueError):
        return None
    return [_read(folder / name, interpreter, sha256) for name, sha256 in listed.items()]


def fetch(interpreter: Interpreter) -> list[Wheel]:
    """The same, fetched by pip if they are not here. Raises Unavailable."""
    folder = _cache() / interpreter.key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        found = cached(interpreter)
        if found is not None:
            return found
        part = folder.with_name(f".new-{folder.name}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        wheels = _download(interpreter, part)
        (part / "wheels.json").write_text(json.dumps({wheel.path.name: wheel.sha256 for wheel in wheels}))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return cached(interpreter) or []


def lacking(wheels: Sequence[Wheel], interpreter: Interpreter) -> list[Wheel]:
    """Those that the interpreter does not have, or has in a version that the others cannot do with.

    Everything else it keeps: what cells import is what is installed on the node. Where its metadata says that nothing is lacking, and
    yet no kernel runs, that is not to be trusted, and these are all.
    """
    by_name = {wheel.name: wheel for wheel in wheels}
    chosen: set[str] = set()
    waiting = {Requirement(REQUIREMENT).name, *(name for name in by_name if name not in interpreter.installed)}
    if _satisfied(Requirement("ipykernel>=6"), interpreter):
        waiting.discard("ipykernel")
    while waiting:
        chosen |= waiting
        needed = [requirement for name in waiting for requirement in by_name[name].requires]
        waiting = {name for need in needed if (name := canonicalize_name(need.name)) in by_name and not _satisfied(need, interpreter)}
        waiting -= chosen
    return [wheel for wheel in wheels if wheel.name in chosen or not chosen]


def digest(wheels: Collection[Wheel]) -> str:
    """What a folder with these wheels is called."""
    return hashlib.sha256("\n".join(sorted(wheel.sha256 for wheel in wheels)).encode()).hexdigest()[:32]


def _satisfied(requirement: Requirement, interpreter: Interpreter) -> bool:
    try:
        version = Version(interpreter.installed[canonicalize_name(requirement.name)])
    except (KeyError, InvalidVersion):
        return False
    return requirement.specifier.contains(version, prereleases=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "wardian" / "wheels"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _download(interpreter: Interpreter, folder: Path) -> list[Wheel]:
    """Let pip fetch everything into a folder.

    pip chooses wheels for another interpreter, but judges markers (`; python_version < "3.10"`) by the one that it runs on. What is
    needed on the node alone is therefore asked for by name, until nothing is missing.
    """
    wanted = {Requirement(REQUIREMENT).name: REQUIREMENT}
    for _ in range(_ROUNDS):
        _pip(interpreter, list(wanted.values()), folder)
        there = {wheel.name: wheel for path in sorted(folder.glob("*.whl")) if (wheel := _read(path, interpreter))}
        needed: dict[str, Wheel] = {}
        missing: dict[str, str] = {}
        waiting = ["ipykernel"]
        while waiting:
            name = waiting.pop()
            if name in needed or name in missing:
                continue
            needed[name] = there[name]
            for requirement in there[name].requires:
                other = canonicalize_name(requirement.name)
                if other in there:
                    waiting.append(other)
                else:
                    missing[other] = f"{requirement.name}{requirement.specifier}"
        if not missing:
            return sorted(needed.values(), key=lambda wheel: wheel.name)
        wanted |= missing
        for path in folder.glob("*.whl"):
            path.unlink()
    raise Unavailable(f"no set of packages fits: {', '.join(missing)} are missing to the last")


def _pip(interpreter: Interpreter, requirements: Sequence[str], folder: Path) -> None:
    version = f"{interpreter.version[0]}.{interpreter.version[1]}"
    implementation = {"CPython": "cp", "PyPy": "pp"}.get(interpreter.implementation)
    if implementation is None:
        raise Unavailable(f"there are no wheels for {interpreter.implementation}")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    argv += ["--only-binary=:all:", "--python-version", version, "--implementation", implementation, "--dest", str(folder)]
    for platform in interpreter.platforms:
        argv += ["--platform", platform]
    if interpreter.abi:
        argv += ["--abi", interpreter.abi, "--abi", "abi3", "--abi", "none"]
    done = subprocess.run([*argv, *requirements], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise Unavailable((errors or done.stderr.strip().splitlines() or ["pip said nothing"])[-1])


def _read(path: Path, interpreter: Interpreter, sha256: str | None = None) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = email.parser.BytesParser().parsebytes(archive.read(name), headersonly=True)
    requires = []
    for text in metadata.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(str(text))
        except InvalidRequirement as error:
            raise Unavailable(f"{path.name} has a requirement that is not understood: {error}") from None
        if requirement.marker is None or requirement.marker.evaluate(interpreter.markers):
            requires.append(requirement)
    if sha256 is None:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Wheel(path, canonicalize_name(str(metadata["Name"])), sha256, path.stat().st_size, tuple(requires))


def _abi(soabi: str) -> str | None:
    """The ABI tag of what SOABI names, where pip would not guess it from the version."""
    pypy = re.match(r"pypy(\d+)-(pp\d+)", soabi)
    if pypy:
        return f"pypy{pypy[1]}_{pypy[2]}"
    special = re.match(r"cpython-(\d+[a-z]+)", soabi)
    return f"cp{special[1]}" if special else None
