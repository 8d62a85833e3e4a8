"""Who made an experiment, under which title and licence: from CITATION.cff, from the experiment file, and from who ran it.

The Citation File Format 1.2 is at https://citation-file-format.github.io. Its fields win; what it leaves out is filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ...errors import BundleError

FILE = "CITATION.cff"
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "LICENCE.md", "LICENCE.txt", "COPYING")
KEYWORDS = ("experiment", "notebook", "reproducibility", "wardian")
"""Where the file has none: an upload has to have some."""
SHORT = 80
"""Longest short description that Trovi takes."""


@dataclass(frozen=True, slots=True)
class Author:
    """A person or an organisation. orcid: as a URL."""

    name: str
    given: str | None = None
    family: str | None = None
    orcid: str | None = None
    affiliation: str | None = None
    email: str | None = None
    person: bool = True


@dataclass(frozen=True, slots=True)
class Citation:
    """How an experiment is to be named. licence: an SPDX id, or None. date: ISO 8601. lacking: what an upload should have besides."""

    title: str
    description: str
    authors: tuple[Author, ...]
    keywords: tuple[str, ...]
    licence: str | None
    date: str | None
    version: str | None = None
    doi: str | None = None
    repository: str | None = None
    lacking: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """The description's first sentence, as far as there is room."""
        first = re.split(r"(?<=[.!?])\s", self.description.strip().replace("\n", " "), maxsplit=1)[0]
        return first if len(first) < SHORT else first[: SHORT - 2].rsplit(" ", 1)[0] + "…"


def files(folder: Path) -> dict[str, Path]:
    """The citation file and the licence: those of the folder, else of the repository that it is in. {name in the bundle: file}"""
    found: dict[str, Path] = {}
    for place in (folder, *folder.parents):
        for name in ((FILE,) if FILE not in found else ()) + (LICENCES if not found.keys() & set(LICENCES) else ()):
            if (place / name).is_file():
                found.setdefault(name, place / name)
        if (place / ".git").exists():
            return found
    return {name: path for name, path in found.items() if path.parent == folder}


def read(path: Path | None, *, name: str, description: str | None, users: tuple[str, ...], licence_file: bool) -> Citation:
    """How an experiment is to be named.

    path: the citation file, or None where there is none. name, description: of the experiment file. users: who ran it, the authors where
    none are named. Raises BundleError naming file and field.
    """
    given = _load(path) if path else {}
    authors = tuple(_author(item, f"{path}: authors[{number}]") for number, item in enumerate(_list(given, "authors", path)))
    licence = given.get("license")
    if isinstance(licence, list):
        licence = licence[0] if licence else None
    lacking = []
    if not authors:
        lacking.append(f"no {FILE} names authors: those who ran it stand in")
    elif not all(author.orcid for author in authors if author.person):
        lacking.append("not every author has an ORCID")
    if licence is None and not licence_file:
        lacking.append("neither a LICENSE file nor the citation file has a licence: without one nobody may use it")
    title = _text(given, "title", path) or name
    return Citation(
        title=title,
        description=_text(given, "abstract", path) or description or title,
        authors=authors or tuple(Author(user) for user in users),
        keywords=tuple(str(item) for item in _list(given, "keywords", path)) or KEYWORDS,
        licence=str(licence) if licence else None,
        date=_date(given.get("date-released"), path),
        version=_text(given, "version", path),
        doi=_text(given, "doi", path),
        repository=_text(given, "repository-code", path),
        lacking=tuple(lacking),
    )


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = str(error).replace("\n", " ")
        raise BundleError(f"{path} cannot be read: {said}", remedy="mend it, or move it away") from error
    if not isinstance(found, dict):
        raise _wrong(path, "the file", "a mapping")
    return found


def _text(given: Mapping[str, Any], field: str, path: Path | None) -> str | None:
    value = given.get(field)
    if value is None or isinstance(value, str | int | float):
        return None if value is None else str(value).strip()
    raise _wrong(path, field, "text")


def _list(given: Mapping[str, Any], field: str, path: Path | None) -> list[Any]:
    value = given.get(field) or []
    if not isinstance(value, list):
        raise _wrong(path, field, "a list")
    return value


def _date(value: Any, path: Path | None) -> str | None:
    try:
        return None if value is None else date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise _wrong(path, "date-released", "a date such as 2026-03-02") from None


def _author(item: Any, where: str) -> Author:
    if not isinstance(item, dict):
        raise _wrong(None, where, "a mapping")
    known = {name: str(value).strip() for name, value in item.items() if isinstance(value, str | int)}
    family = " ".join(filter(None, (known.get("name-particle"), known.get("family-names"), known.get("name-suffix")))) or None
    whole = " ".join(filter(None, (known.get("given-names"), family))) or known.get("name") or known.get("alias")
    if not whole:
        raise _wrong(None, where, "given-names and family-names, or a name")
    orcid = known.get("orcid")
    if orcid is not None and not is_orcid(orcid := "https://orcid.org/" + orcid.rpartition("/")[2]):
        raise _wrong(None, f"{where}.orcid", "an ORCID such as https://orcid.org/0000-0002-1825-0097")
    return Author(whole, known.get("given-names"), family, orcid, known.get("affiliation"), known.get("email"), "name" not in known)


def is_orcid(url: str) -> bool:
    """Whether this is the URL of an ORCID, by its form and its check digit (ISO 7064, mod 11-2)."""
    match = re.fullmatch(r"https://orcid\.org/(\d{4}-\d{4}-\d{4}-\d{3}[\dX])", url)
    if match is None:
        return False
    digits = match[1].replace("-", "")
    total = 0
    for digit in digits[:-1]:
        total = (total + int(digit)) * 2
    return "0123456789X"[(12 - total % 11) % 11] == digits[-1]


def _wrong(path: Path | None, field: str, expected: str) -> BundleError:
    return BundleError(
        f"{path}: {field}: expected {expected}" if path else f"{field}: expected {expected}", remedy="mend the citation file"
    )
