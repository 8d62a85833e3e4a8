"""What describes a bundle: the RO-Crate's metadata (https://w3id.org/ro/crate/1.1), and those that Trovi reads.

Written as plain data, and not by the library `rocrate`, which the tests read it with: that stamps the time of writing on it, and brings
an HTTP client along. Runs are told as the Process Run Crate profile has it (https://w3id.org/ro/wfrun/process/0.5).
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from ...journal.records import RunRecord
from . import IMAGES, JOURNAL, METADATA, REPORT, TROVI
from .citation import Author, Citation

_CONTEXT = "https://w3id.org/ro/crate/1.1/context"
_CONFORMS = "https://w3id.org/ro/crate/1.1"
_PROCESS = "https://w3id.org/ro/wfrun/process/0.5"
_TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
_NO_LICENCE = "No licence is given: ask the authors before you use it for more than reading."
_SPDX = "https://spdx.org/licenses/"

_TYPES = {
    ".ipynb": "application/x-ipynb+json", ".yaml": "application/yaml", ".yml": "application/yaml", ".lock": "application/yaml",
    ".jsonl": "application/jsonl", ".md": "text/markdown", ".cff": "application/yaml", ".py": "text/x-python",
}  # fmt: skip
_SAID = {
    JOURNAL: "Journal of the packed runs: what was asked for, what ran where, and what came out",
    REPORT: "What the nodes were that the packed runs ran on",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """One file as it is in the bundle. size: bytes."""

    name: str
    size: int
    sha256: str


def metadata(
    citation: Citation,
    stored: Sequence[Stored],
    *,
    published: str,
    experiment: str,
    notebooks: Sequence[str],
    runs: Mapping[str, RunRecord],
) -> dict[str, Any]:
    """The document `ro-crate-metadata.json`.

    published: the date that stands for the whole. experiment, notebooks: their names in the bundle. runs: by their notebook's name and
    id, "study.ipynb 0192…".
    """
    names = {item.name for item in stored}
    licence_file = next((name for name in sorted(names) if name.partition(".")[0] in ("LICENSE", "LICENCE", "COPYING")), None)
    licence = _SPDX + citation.licence if citation.licence else _id(licence_file) if licence_file else None
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        **_title(citation),
        "datePublished": published,
        "conformsTo": [{"@id": _PROCESS}] if runs else [],
        # a crate has to have one, if only in words
        "license": {"@id": licence} if licence else _NO_LICENCE,
        "version": citation.version,
        "identifier": f"https://doi.org/{citation.doi.rpartition('doi.org/')[2]}" if citation.doi else None,
        "isBasedOn": {"@id": citation.repository} if citation.repository else None,
        "author": [{"@id": _person(author)} for author in citation.authors],
        "hasPart": [{"@id": _id(item.name)} for item in stored],
        "mainEntity": {"@id": _id(notebooks[0])} if notebooks else None,
        "mentions": [{"@id": f"#run-{record.run.id}"} for record in runs.values()],
    }
    entities = [
        {"@id": METADATA, "@type": "CreativeWork", "conformsTo": {"@id": _CONFORMS}, "about": {"@id": "./"}},
        root,
        *_people(citation.authors, linked=True),
        *(_file(item, experiment, notebooks, citation, licence) for item in stored),
    ]
    if citation.licence and licence:
        entities.append({"@id": licence, "@type": "CreativeWork", "name": citation.licence})
    if citation.repository:
        entities.append({"@id": citation.repository, "@type": "CreativeWork", "name": "Repository"})
    if runs:
        entities.append({"@id": _PROCESS, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"})
        entities += _actions(runs, experiment, names)
    return {"@context": [_CONTEXT, _TERMS], "@graph": [_single(_filled(entity)) for entity in _once(entities)]}


def trovi(citation: Citation, *, published: str) -> dict[str, Any]:
    """The document `trovi.json`: an RO-Crate that says no more than who, what and about what. Its authors are a list: Trovi wants one."""
    root = {"@id": "./", "@type": "Dataset", **_title(citation), "datePublished": published}
    root |= {"author": [{"@id": _person(author)} for author in citation.authors]}
    head = {"@id": TROVI, "@type": "CreativeWork", "conformsTo": {"@id": _CONFORMS}, "about": {"@id": "./"}}
    return {"@context": _CONTEXT, "@graph": [_filled(entity) for entity in _once([head, root, *_people(citation.authors)])]}


def zenodo(citation: Citation) -> dict[str, Any]:
    """The fields of a deposit at Zenodo (https://developers.zenodo.org/#representation)."""
    creators = [
        {
            "name": f"{author.family}, {author.given}" if author.family and author.given else author.name,
            "orcid": author.orcid.rpartition("/")[2] if author.orcid else None,
            "affiliation": author.affiliation,
        }
        for author in citation.authors
    ]
    return _filled({
        "title": citation.title,
        "description": citation.description,
        "upload_type": "dataset",
        "creators": [_filled(creator) for creator in creators],
        "keywords": list(citation.keywords),
        "license": citation.licence.lower() if citation.licence else None,
        "version": citation.version,
    })  # fmt: skip


def _title(citation: Citation) -> dict[str, Any]:
    return {
        "name": citation.title,
        "description": citation.description,
        "disambiguatingDescription": citation.short,
        # one text: what reads trovi.json takes it apart at the commas
        "keywords": ", ".join(citation.keywords),
    }


def _file(item: Stored, experiment: str, notebooks: Sequence[str], citation: Citation, licence: str | None) -> dict[str, Any]:
    suffix = item.name[item.name.rfind(".") :] if "." in item.name else ""
    source = item.name in notebooks
    described = "The experiment: nodes, networks, links and services" if item.name == experiment else _SAID.get(item.name)
    if item.name.startswith(f"{IMAGES}/"):
        described = "An image that nodes are made from, as `docker save` writes it"
    return {
        "@id": _id(item.name),
        "@type": ["File", "SoftwareSourceCode"] if source else "File",
        "name": item.name,
        "description": described,
        "contentSize": str(item.size),
        "sha256": item.sha256,
        "encodingFormat": _TYPES.get(suffix) or mimetypes.guess_type(item.name)[0] or "application/octet-stream",
        "programmingLanguage": "Python" if source else None,
        "author": [{"@id": _person(author)} for author in citation.authors] if source else [],
        "license": {"@id": licence} if source and licence else None,
    }


def _actions(runs: Mapping[str, RunRecord], experiment: str, names: set[str]) -> Iterable[dict[str, Any]]:
    for key, record in runs.items():
        run, notebook = record.run, key.rpartition(" ")[0]
        user = run.detail["user"]
        parameters = {f"#{run.id}-{name}": (name, value) for name, value in run.detail["parameters"].items()}
        written = [f"out/{notebook.rpartition('/')[2]}"]
        folder = notebook.rpartition("/")[0]
        results = [path for path in ((f"{folder}/{name}" if folder else name) for name in written) if path in names]
        yield {
            "@id": f"#run-{run.id}",
            "@type": "CreateAction",
            "name": f"Run of {notebook} on {run.detail['provider']}",
            "description": f"Run {run.id} of {notebook}, by {user} on {run.detail['host']}",
            "instrument": {"@id": _id(notebook)},
            "agent": {"@id": f"#user-{quote(user)}"},
            "startTime": _moment(run.started),
            "endTime": _moment(run.ended or run.started),
            "actionStatus": {"@id": f"http://schema.org/{'CompletedActionStatus' if run.status == 'ok' else 'FailedActionStatus'}"},
            "error": run.error,
            "object": [{"@id": _id(experiment)}, *({"@id": quote(name, safe="#")} for name in parameters)],
            "result": [{"@id": _id(name)} for name in results],
        }
        yield {"@id": f"#user-{quote(user)}", "@type": "Person", "name": user}
        for identity, (name, value) in parameters.items():
            yield {"@id": quote(identity, safe="#"), "@type": "PropertyValue", "name": name, "value": value}


def _people(authors: Sequence[Author], *, linked: bool = False) -> Iterable[dict[str, Any]]:
    """linked: organisations are entities, as a crate should have them, and not text, as Trovi reads them."""
    for author in authors:
        organisation = f"#organisation-{quote(author.affiliation)}" if author.affiliation and linked else None
        if organisation:
            yield {"@id": organisation, "@type": "Organization", "name": author.affiliation}
        yield {
            "@id": _person(author),
            "@type": "Person" if author.person else "Organization",
            "name": author.name,
            "givenName": author.given,
            "familyName": author.family,
            "affiliation": {"@id": organisation} if organisation else author.affiliation,
            "email": author.email,
        }


def _person(author: Author) -> str:
    return author.orcid or f"#author-{quote(author.name)}"


def _id(name: str) -> str:
    return quote(name)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _filled(entity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entity.items() if value not in (None, [], "")}


def _single(entity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in entity.items()}


def _once(entities: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({entity["@id"]: entity for entity in entities}.values())
