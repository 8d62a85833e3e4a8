"""Which files of an experiment's folder go into a bundle, and without which secrets."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from ...errors import BundleError
from ...journal.redact import Redactor, redact_values, redact_yaml, secrets_in
from ..lock import FILE as LOCK
from . import FOLDER, METADATA, PARTIAL, SCRATCH, SUFFIX

NEVER = frozenset({
    ".wardian", ".git", ".hg", ".svn", ".env", ".venv", "node_modules", "__pycache__", ".ipynb_checkpoints", ".pytest_cache",
    ".mypy_cache", ".ruff_cache", ".DS_Store", FOLDER, METADATA,
})  # fmt: skip
"""Names of files and folders that are never taken."""
IGNORE_FILES = (".gitignore", ".wardianignore")
_VERSION = re.compile(r" +\S+: '?v?\d[\w.+:~!^-]*'?\n")
LARGEST_TEXT = 16 * 2**20
"""Texts beyond this size are not searched for secrets, bytes."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a bundle. name: its path in there. source: a file here, or the content itself."""

    name: str
    source: Path | bytes
    executable: bool = False


@dataclass
class Contents:
    """The files of an experiment's folder. redacted: of these a secret was taken out; left_out: {path: why}."""

    items: dict[str, Item] = field(default_factory=dict)
    redacted: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def gather(
    folder: Path, *, wanted: Iterable[str], skip: Iterable[Path], as_is: Sequence[str], experiment: Path, redactor: Redactor
) -> Contents:
    """What is in the folder, without what its ignore files name, what no program needs elsewhere, and secrets.

    wanted: paths that are taken though an ignore file names them. skip: files that are not. as_is: patterns, as in .gitignore, of files
    that are not searched for secrets. experiment: the experiment file. redactor: of `redactor_of`.
    Raises BundleError for wanted ones that are not below the folder.
    """
    contents = Contents()
    paths = dict.fromkeys(_walk(folder, _Ignored.of(folder), contents, frozenset(skip)))
    for name in wanted:
        paths |= dict.fromkeys(_below(folder, name, contents))
    untouched = GitIgnoreSpec.from_lines(as_is)
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        content = None if untouched.match_file(name) else _without_secrets(path, redactor, path == experiment)
        if content is not None:
            contents.redacted.append(name)
        contents.items[name] = Item(name, path if content is None else content, os.access(path, os.X_OK))
    return contents


def tree(folder: Path, name: str, redactor: Redactor) -> Iterator[Item]:
    """All files of a folder that was collected, below `name`, without secrets."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = _without_secrets(path, redactor, False)
            yield Item(f"{name}/{path.relative_to(folder).as_posix()}", path if content is None else content)


class _Ignored:
    """What the ignore files of a folder and of those above it, up to the repository's, name."""

    def __init__(self, specs: tuple[tuple[Path, GitIgnoreSpec], ...]) -> None:
        self._specs = specs

    @classmethod
    def of(cls, folder: Path) -> _Ignored:
        root = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)
        found = cls(())
        for place in reversed((folder, *folder.parents)):
            if place == root or root in place.parents:
                found = found.within(place)
        return found

    def within(self, folder: Path) -> _Ignored:
        """The same, with the ignore files of a folder."""
        found = [(folder, GitIgnoreSpec.from_lines(_text(folder / name).splitlines())) for name in IGNORE_FILES]
        return _Ignored((*self._specs, *found))

    def __call__(self, path: Path, is_folder: bool) -> bool:
        for folder, spec in reversed(self._specs):
            verdict = spec.check_file(path.relative_to(folder).as_posix() + ("/" if is_folder else "")).include
            if verdict is not None:
                return bool(verdict)
        return False


def _walk(folder: Path, ignored: _Ignored, contents: Contents, skip: frozenset[Path], top: Path | None = None) -> Iterator[Path]:
    top = top or folder
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        path = Path(entry.path)
        half_made = entry.name.startswith(".") and entry.name.endswith((PARTIAL, SCRATCH))
        if entry.name in NEVER or half_made or path in skip or ignored(path, entry.is_dir(follow_symlinks=False)):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, ignored.within(path), contents, skip, top)
        elif why := _unfit(path, top):
            contents.left_out[path.relative_to(top).as_posix()] = why
        elif entry.name.endswith(SUFFIX):
            contents.left_out[path.relative_to(top).as_posix()] = "a bundle"
        else:
            yield path


def _unfit(path: Path, folder: Path) -> str:
    """Why a file cannot be taken; empty where it can. A link to a file of the folder becomes a copy of that."""
    if path.is_symlink():
        target = path.resolve()
        if not target.is_relative_to(folder) or not target.is_file() or NEVER & set(target.relative_to(folder).parts):
            return "a link to what is not taken"
        return ""
    return "" if stat.S_ISREG(path.lstat().st_mode) else "neither file nor folder"


def _below(folder: Path, name: str, contents: Contents) -> Iterator[Path]:
    """The files behind a path that the experiment names."""
    path = Path(os.path.normpath(folder / Path(name).expanduser()))
    if not path.is_relative_to(folder):
        raise BundleError(f"{name} is not below {folder}, and would be missing elsewhere", remedy="copy it into the experiment's folder")
    if path.is_dir() and not path.is_symlink():
        for inner in sorted(path.iterdir()):
            if inner.name not in NEVER:
                yield from _below(folder, str(inner), contents)
    elif path.exists() and not (why := _unfit(path, folder)):
        yield path
    elif path.exists() or path.is_symlink():
        contents.left_out[path.relative_to(folder).as_posix()] = why


def _without_secrets(path: Path, redactor: Redactor, experiment: bool) -> bytes | None:
    """A file's content without secrets; None where it has none, or is no text."""
    if path.stat().st_size > LARGEST_TEXT:
        return None
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    if path.suffix == ".ipynb" and (clean := _notebook(text, redactor)) is not None:
        return clean or None
    clean_text = _lock(text, redactor) if path.name == LOCK else redactor(redact_yaml(text) if experiment else text)
    return None if clean_text == text else clean_text.encode()


def _lock(text: str, redactor: Redactor) -> str:
    """A lock without secrets, but with the versions of packages that are called as secrets are."""
    head, title, packages = text.partition("\npackages:\n")
    return redactor(head) + title + "".join(line if _VERSION.fullmatch(line) else redactor(line) for line in packages.splitlines(True))


def _notebook(text: str, redactor: Redactor) -> bytes | None:
    """A notebook without secrets; empty where it has none, None where it is no notebook. In its file, lines are texts of their own."""
    import nbformat

    try:
        document = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError, AttributeError):
        return None
    clean = nbformat.from_dict(redact_values(document, text=redactor))
    return b"" if clean == document else nbformat.writes(clean, version=nbformat.NO_CONVERT).encode() + b"\n"


def redactor_of(experiment: Path) -> Redactor:
    """What takes out the secrets of this process and of an experiment file, and what looks like one."""
    return Redactor(secrets_in(os.environ) | _secrets(experiment))


def _secrets(experiment: Path) -> set[str]:
    """The values under secret names anywhere in an experiment file."""
    import yaml

    try:
        found = yaml.safe_load(_text(experiment))
    except yaml.YAMLError:
        return set()
    return set(_secrets_below(found))


def _secrets_below(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from secrets_in({str(name): item for name, item in value.items()})
        # a parameter's value may stand below its name
        yield from secrets_in(
            {str(name): item["default"] for name, item in value.items() if isinstance(item, Mapping) and "default" in item}
        )
        value = value.values()
    if not isinstance(value, str) and isinstance(value, Iterable):
        for item in value:
            yield from _secrets_below(item)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
