"""Root file systems for nodes: Debian packages unpacked into folders, made once and kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TOOLS = ["bash", "coreutils", "dash", "grep", "iperf3", "iproute2", "iputils-ping", "libstdc++6", "mawk", "procps", "python3", "sed"]
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wardian" / "tests"


def python39(*, bash: bool = True) -> Path:
    """Debian 11: its own Python 3.9 with no package installed, and a shell."""
    with_bash = _image("debian11-python", "bullseye", ["python3", "bash", "dash", "coreutils"])
    return with_bash if bash else _without(with_bash, "debian11-python-dash", ["bin/bash", "bin/rbash"])


def without_python(*, bash: bool) -> Path:
    """busybox, and with `bash` a bash; nothing else."""
    with_bash = _image("busybox-bash", "bookworm", ["busybox-static", "bash-static"], apart=True)
    return with_bash if bash else _without(with_bash, "busybox", ["bin/bash", "bin/bash-static"])


def with_tools() -> Path:
    """Debian 12: Python 3.11 with no package installed, bash, and what experiments with networks use."""
    return _image("debian12-tools", "bookworm", TOOLS)


def fetched(name: str, release: str, package: str) -> Path:
    """A folder with one package and nothing that it depends on; of a package that is empty, those that it stands for."""
    return _image(name, release, [package], apart=True)


def for_examples() -> Path:
    """The same with what the examples use, pandas among it, without most of what nothing here needs: an Engine unpacks it in each run."""
    base = _image("debian12-programs", "bookworm", [*TOOLS, "redis-server", "stress-ng"])
    target = base.with_name("debian12-examples")
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            part = target.with_name(f".new-{target.name}")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(base, part, symlinks=True)
            packages = part / "usr" / "lib" / "python3" / "dist-packages"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--python-version", "3.11", "--only-binary", ":all:"]
            _run([*pip, "--target", str(packages), "ipykernel", "pandas", "pyarrow"])
            for name in ("tests", "include", "libarrow_flight*", "libarrow_s3*"):
                for found in [*packages.glob(f"*/{name}")]:
                    shutil.rmtree(found) if found.is_dir() else found.unlink()
            part.rename(target)
    return target


def _image(name: str, release: str, packages: list[str], apart: bool = False) -> Path:
    """A folder with packages and, unless `apart`, what they depend on. Skipped, or failed where everything is required, without apt."""
    target = _CACHE / name
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            part = _CACHE / f".new-{name}"
            shutil.rmtree(part, ignore_errors=True)
            try:
                _make(part, release, packages, apart)
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", "") or str(error)
                give_up = pytest.fail if os.environ.get("WARDIAN_REQUIRE_ALL") == "1" else pytest.skip
                give_up(f"no image of {release} could be made: {said.strip()}")
            (part / "root").rename(target)
            shutil.rmtree(part)
    return target


def _without(image: Path, name: str, paths: list[str]) -> Path:
    target = image.with_name(name)
    with open(target.with_name(f".{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            part = target.with_name(f".new-{name}")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(image, part, symlinks=True)
            for path in paths:
                (part / path).unlink()
            part.rename(target)
    return target


def _make(part: Path, release: str, packages: list[str], apart: bool) -> None:
    for folder in ("lists/partial", "cache/archives/partial", "root"):
        (part / folder).mkdir(parents=True)
    (part / "status").touch()
    (part / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {release} main\n")
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={part}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null"]
    apt += ["-o", f"Dir::State::lists={part}/lists", "-o", f"Dir::State::status={part}/status", "-o", f"Dir::Cache={part}/cache"]
    apt += ["-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
    _run([*apt, "update"])
    if apart:
        (part / "debs").mkdir()
        cache = ["apt-cache", *apt[2:]]
        behind = [re.findall(r"Depends: (linux-image-\S+)", _run([*cache, "depends", package])) or [package] for package in packages]
        _run([*apt, "download", *(name for names in behind for name in names)], cwd=part / "debs")
    else:
        _run([*apt, "install", "-y", "--no-install-recommends", "--download-only", *packages])
    root = part / "root"
    for package in sorted(part.glob("debs/*.deb") if apart else part.glob("cache/archives/*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)])
    for folder in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/share", "var/tmp", "var/cache"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    busybox = root / "bin" / "busybox"
    if busybox.exists():
        for name in _run([str(busybox), "--list"]).split():
            with suppress(FileExistsError):
                (root / "bin" / name).symlink_to("busybox")
    if (root / "bin" / "bash-static").exists():
        (root / "bin" / "bash").symlink_to("bash-static")
    if (root / "usr" / "bin" / "mawk").exists():
        (root / "usr" / "bin" / "awk").symlink_to("mawk")
    if not (root / "bin" / "sh").exists():
        (root / "bin" / "sh").symlink_to("dash")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    for name in ("doc", "info", "locale", "man", "perl"):
        shutil.rmtree(root / "usr" / "share" / name, ignore_errors=True)


def _run(argv: list[str], cwd: Path | None = None) -> str:
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True, timeout=300).stdout
