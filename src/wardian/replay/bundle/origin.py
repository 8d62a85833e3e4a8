"""Experiments that are elsewhere: bundles, and repositories of git's, as folders here."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...environment.live import experiment_of
from ...errors import BundleError, MissingToolError
from ...journal.redact import redact_text
from .contents import NEVER
from .download import downloaded, is_bundle_url
from .unpacking import Unpacked, making, unpack

PROTOCOLS = ("https", "ssh", "file")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)[A-Za-z0-9][A-Za-z0-9.-]*:(?!/?/)[^\s:]+")
"""git@example.org:group/study.git"""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_GENERAL = ("fatal: Could not read from remote", "Please make sure you have the correct", "and the repository exists")
"""What git says below the reason that ssh gives."""
_OURS = ("GIT_SSH", "GIT_SSL", "GIT_CONFIG", "GIT_ASKPASS", "GIT_PROXY")
"""Variables of git's that say how to reach a server; the others are about another repository."""
_SAFE = {
    # what comes along with a repository shall not run: neither hooks, nor other ways to fetch than these
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "protocol.allow": "never",
} | {f"protocol.{name}.allow": "always" for name in PROTOCOLS}


@dataclass(frozen=True, slots=True)
class Address:
    """A repository of git's. ref: branch, tag or commit; that of its HEAD when None. name: of the folder that it becomes."""

    url: str
    ref: str | None
    name: str


def is_elsewhere(text: str) -> bool:
    """Whether this names a bundle or a repository, and not a notebook."""
    return text.endswith(".zip") or "://" in text or "::" in text or _is_scp(text)


def fetch(text: str, into: Path | None = None, notebook: str | None = None) -> tuple[Path, Unpacked | None]:
    """Bring an experiment here, and give a notebook of it, and what was unpacked if it is a bundle.

    text: the path or https address of a bundle, or the address of a repository, with @REF or #REF. into: the folder; named like it,
    here, when None.
    notebook: which one, a path in it; the main one of a bundle, or the only one of a repository, when None.
    Raises BundleError, and MissingToolError without git.
    """
    if is_bundle_url(text) or (text.endswith(".zip") and "://" not in text and not _is_scp(text)):
        unpacked = bring(text, into)
        chosen = unpacked.notebooks if notebook is None else (_inside(unpacked.folder, notebook),)
        if not chosen:
            raise BundleError(f"{text} has no notebook", remedy=f"grow it with `wardian up -f {unpacked.experiment}`")
        return chosen[0], unpacked
    folder = clone(text, into)
    if notebook is not None:
        return _inside(folder, notebook), None
    return _only(folder), None


def bring(text: str, into: Path | None = None) -> Unpacked:
    """Unpack a bundle, by its path or its https address. Raises BundleError."""
    if not is_bundle_url(text):
        return unpack(Path(text), into)
    with downloaded(text) as path:
        return unpack(path, into)


def clone(text: str, into: Path | None = None) -> Path:
    """Fetch a repository into a folder that is not there yet, or is empty; nothing that comes with it is run. Raises as `fetch`."""
    address = parse(text)
    folder = (into or Path(address.name)).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} is there already", remedy=f"run a notebook in it, or name another folder: --into {address.name}-2")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with making(folder) as partial:
        _git(partial, "init", "--quiet", "--template=")
        _fetch(partial, address)
        _git(partial, "checkout", "--quiet", "--detach", "FETCH_HEAD", "--")
        _git(partial, "remote", "add", "origin", "--", re.sub(r"(?<=://)[^/@]*:[^/@]*@", "", address.url))
    return folder


def parse(text: str) -> Address:
    """The repository that an address names. Raises BundleError for one that git shall not be given."""
    url, hash_, ref = text.partition("#")
    if _is_scp(url):
        start = url.index(":")
    else:
        protocol, found, rest = url.partition("://")
        if not found or protocol not in PROTOCOLS or not rest or rest.startswith("-") or re.search(r"[\s\0]", url):
            expected = "https://HOST/PATH, ssh://HOST/PATH or file:///PATH, with @REF or #REF for a branch, tag or commit"
            raise BundleError(f"{redact_text(text)}: no address of a repository", remedy=f"expected {expected}")
        host, slash, _ = rest.partition("/")
        if not slash or (host.rpartition("@")[2] or "x").startswith("-") or (not host and protocol != "file"):
            raise BundleError(f"{redact_text(text)}: no address of a repository", remedy="expected a host and a path")
        start = len(protocol) + 3 + len(host)
    if not hash_ and "@" in url[start:]:
        url, _, ref = url.rpartition("@")
        hash_ = "@"
    if hash_ and (not _REF.fullmatch(ref) or ".." in ref):
        raise BundleError(f"{redact_text(text)}: {ref!r} names no branch, tag or commit")
    name = re.split("[/:]", url.rstrip("/"))[-1].removesuffix(".git")
    if not _NAME.fullmatch(name):
        raise BundleError(f"{redact_text(text)}: {name!r} is no name for a folder")
    return Address(url, ref or None, name)


def _is_scp(text: str) -> bool:
    return bool(_SCP.fullmatch(text.partition("#")[0])) and not Path(text).exists()


def _fetch(folder: Path, address: Address) -> None:
    wanted = address.ref or "HEAD"
    brief = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", address.url, wanted)
    try:
        _git(folder, *brief)
    except BundleError:
        if address.ref is None or not _COMMIT.fullmatch(address.ref):
            raise
        # a short commit, or a server that gives no single ones: look for it in all that there is
        _git(folder, "fetch", "--quiet", "--no-recurse-submodules", "--", address.url, "+refs/heads/*:refs/remotes/origin/*")
        commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{address.ref}^{{commit}}")
        _git(folder, "fetch", "--quiet", "--no-recurse-submodules", "--", ".", commit)


def _git(folder: Path, *arguments: str) -> str:
    settings = [part for name, value in _SAFE.items() for part in ("-c", f"{name}={value}")]
    try:
        done = subprocess.run(
            ["git", *settings, "-C", str(folder), *arguments], stdin=subprocess.DEVNULL, capture_output=True, env=_environment(os.environ)
        )
    except FileNotFoundError as error:
        raise MissingToolError("git is not installed", remedy="install git, or get the experiment as a bundle") from error
    if done.returncode:
        lines = (line.strip() for line in done.stderr.decode(errors="replace").splitlines())
        said = [line for line in lines if line and not line.startswith(_GENERAL)] or ["git failed"]
        raise BundleError(redact_text("; ".join(said[-3:])), remedy="check the address, the branch, and that git may read it")
    return done.stdout.decode(errors="replace").strip()


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in variables.items() if not name.startswith("GIT_") or name.startswith(_OURS)}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS), "LC_ALL": "C"}


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise BundleError(f"there is no notebook {name} in {folder}")
    return path


def _only(folder: Path) -> Path:
    """The notebook of a repository, where there is one that has an experiment."""
    found = []
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        experiment = experiment_of(path)
        if not NEVER & set(parts) and "out" not in parts and experiment is not None and experiment.is_relative_to(folder):
            found.append(path)
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.relative_to(folder).as_posix() for path in found[:10])
    said = f"{folder} has {len(found)} notebooks with an experiment: {names}" if found else f"{folder} has no notebook with an experiment"
    raise BundleError(said, remedy="say which, and run it there: wardian run FOLDER/NOTEBOOK" if found else None)
