"""The folder that an image is built from: what of it counts (`.dockerignore`), its digest, and its tar."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ALWAYS_IGNORED = (".wardian", ".git")
"""What changes by our own doing and is no part of an image."""

DOCKERFILE = "Dockerfile"


def digest(folder: Path, dockerfile: str | None) -> str:
    """SHA-256 of what an image is built from: names, modes and contents. Raises OSError for what cannot be read."""
    whole = hashlib.sha256()
    for name, path in members(folder, dockerfile):
        mode = path.lstat().st_mode
        whole.update(f"{name}\0{mode:o}\0".encode(errors="surrogateescape"))
        if path.is_symlink():
            whole.update(os.fsencode(os.readlink(path)))
        elif path.is_file():
            with open(path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def pack(folder: Path, dockerfile: str | None, target: IO[bytes]) -> None:
    """Write the tar of it. Owners are left out, as the Engine does."""

    def owned_by_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, path in members(folder, dockerfile):
            archive.add(path, name, recursive=False, filter=owned_by_nobody)


def members(folder: Path, dockerfile: str | None) -> Iterator[tuple[str, Path]]:
    """(name in the tar, path) of all that counts, in a fixed order. The Dockerfile always does."""
    (folder / (dockerfile or DOCKERFILE)).stat()
    ignore = _Ignore(folder, {dockerfile or DOCKERFILE, ".dockerignore"})
    for place, folders, names in os.walk(folder):
        inside = os.path.relpath(place, folder)
        prefix = "" if inside == "." else f"{inside}/"
        folders[:] = sorted(name for name in folders if ignore.enters(prefix + name))
        for name in sorted([*names, *folders]):
            if not ignore(prefix + name):
                yield prefix + name, Path(place, name)


class _Ignore:
    """What a `.dockerignore` leaves out: the last pattern that matches a path, or a folder above it, decides."""

    def __init__(self, folder: Path, kept: set[str]) -> None:
        self._kept = kept
        self._rules = [(_pattern(name), True) for name in ALWAYS_IGNORED]
        self._exceptions = False
        try:
            lines = (folder / ".dockerignore").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        for line in (line.strip() for line in lines):
            if line and not line.startswith("#"):
                excluded = not line.startswith("!")
                self._exceptions = self._exceptions or not excluded
                self._rules.append((_pattern(line.removeprefix("!").strip()), excluded))

    def __call__(self, name: str) -> bool:
        if name in self._kept:
            return False
        ignored = False
        for pattern, excluded in self._rules:
            if pattern.fullmatch(name):
                ignored = excluded
        return ignored

    def enters(self, name: str) -> bool:
        """Whether anything in a folder may count."""
        return name not in ALWAYS_IGNORED and (self._exceptions or not self(name))


def _pattern(text: str) -> re.Pattern[str]:
    text = os.path.normpath(text.strip("/"))
    made, position = "", 0
    while position < len(text):
        if text.startswith("**/", position):
            made, position = made + "(?:.*/)?", position + 3
        elif text.startswith("**", position):
            made, position = made + ".*", position + 2
        else:
            letter = text[position]
            made += {"*": "[^/]*", "?": "[^/]"}.get(letter, re.escape(letter))
            position += 1
    return re.compile(f"{made}(?:/.*)?", re.DOTALL)
