"""Making a bundle of an experiment's folder."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...environment.environment import FOLDER as STATE
from ...environment.environment import Environment
from ...environment.live import experiment_of
from ...errors import BundleError, LockError, RunError
from ...experiment import tables
from ...experiment.model import Experiment
from ...journal.records import LogEntry, RunRecord
from ...journal.redact import Redactor
from ...paths import user_name
from .. import facts, lock
from ..recorded import baseline
from . import COLLECTED, IMAGES, JOURNAL, MANIFEST, METADATA, REPORT, SCRATCH, SUFFIX, TROVI, VERSION, citation, crate, image_files
from . import images as image_table
from .archive import Archive, writing
from .contents import Contents, Item, gather, redactor_of, tree
from .crate import Stored
from .reading import why_not_named
from .report import environment_report

ZENODO = ".zenodo.json"


@dataclass(frozen=True)
class Packed:
    """A bundle that was written.

    redacted: files that a secret was taken out of. left_out: {path: why}. lacking: what it should have to be published.
    """

    path: Path
    size: int
    stored: tuple[Stored, ...]
    runs: tuple[str, ...]
    redacted: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()

    def parts(self) -> dict[str, tuple[int, int]]:
        """How many files there are of each part, and how many bytes."""
        found: dict[str, tuple[int, int]] = {}
        for item in self.stored:
            part = _part(item.name)
            files, size = found.get(part, (0, 0))
            found[part] = files + 1, size + item.size
        return found

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "file": str(self.path),
            "bytes": self.size,
            "parts": {part: {"files": files, "bytes": size} for part, (files, size) in self.parts().items()},
            "runs": list(self.runs),
            "redacted": list(self.redacted),
            "left_out": self.left_out,
            "lacking": list(self.lacking),
        }


async def pack(
    environment: Environment,
    output: Path | None,
    *,
    runs: Sequence[str] = (),
    as_is: Sequence[str] = (),
    with_images: bool = False,
) -> Packed:
    """Write the bundle of an experiment.

    output: where to; NAME.crate.zip here when None. runs: which recorded runs go along, by the ends of their ids; without, of each notebook
    those that a replay would be compared with. as_is: patterns of files that are not searched for secrets. with_images: images go along.
    Raises BundleError, ExperimentFileError, JournalError for a run that there is none of, and ProviderError for an image that is gone.
    """
    folder, experiment = environment.folder, environment.load()
    target = (output or Path(f"{experiment.name}{SUFFIX}")).resolve()
    records = _records(environment, runs)
    redactor = redactor_of(environment.file)
    images, folders, apart = image_files.named(experiment, folder)
    wanted = [*_named(experiment), *images, *(str(path) for record in records for path in _files_of(record, folder))]
    skip = [target, *folders.values()]
    contents = gather(folder, wanted=wanted, skip=skip, as_is=as_is, experiment=environment.file, redactor=redactor)
    contents.left_out |= apart
    cited = citation.files(folder)
    for name, path in cited.items():
        contents.items.setdefault(name, Item(name, path))
    made_from = _notebooks(contents, records, environment)
    described = citation.read(
        cited.get(citation.FILE),
        name=experiment.name,
        description=experiment.description,
        users=tuple(dict.fromkeys(record.run.detail["user"] for record in records)) or (user_name(),),
        licence_file=bool(cited.keys() - {citation.FILE}),
    )
    published = described.date or _day(max((record.run.ended or record.run.started for record in records), default=None))
    await _lock(environment, contents, records)
    table = image_table.table(records)
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target) as archive, _scratch(target) as scratch:
        files = await image_table.save(environment, table, scratch) if with_images else {}
        for name, root in folders.items():
            tar = await asyncio.to_thread(image_files.pack_root, root, scratch / f"{len(contents.items)}.tar")
            contents.items[name] = Item(name, tar)
        items = _all_items(environment, contents, records, redactor, made_from, table)
        await asyncio.to_thread(_fill, archive, [*items, *(Item(name, path) for name, path in files.items())], contents.left_out)
        _describe(archive, contents, described, published, environment.file.name, made_from, records, folder)
        stored = tuple(archive.stored)
    return Packed(
        target,
        target.stat().st_size,
        stored,
        tuple(record.run.id for record in records),
        tuple(contents.redacted),
        contents.left_out,
        (*described.lacking, *_stale(contents, _uploads(described, published))),
    )


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder beside the bundle, where images find room; what a process that was killed left there goes first."""
    folder = target.with_name(f".{target.name}{SCRATCH}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(archive: Archive, items: Iterable[Item], left_out: dict[str, str]) -> None:
    for item in items:
        if why := why_not_named(item.name):
            left_out[item.name] = why
        else:
            archive.add(item)


async def _lock(environment: Environment, contents: Contents, records: Sequence[RunRecord]) -> None:
    """A lock goes along: that of the folder, else what the last run was resolved to, if its files are still those."""
    if lock.FILE in contents.items or not records:
        return
    try:
        data = await lock.from_record(environment, records[-1])
    except LockError as error:
        contents.left_out[lock.FILE] = error.message
    else:
        contents.items[lock.FILE] = Item(lock.FILE, lock.dumps(data).encode())


def _records(environment: Environment, runs: Sequence[str]) -> list[RunRecord]:
    """The runs that go along, the oldest first."""
    journal = environment.journal
    if runs:
        records = [journal.show(run, experiment=str(environment.file)) for run in dict.fromkeys(runs)]
        for record in records:
            if record.run.ended is None:
                raise BundleError(f"run {record.run.id[-8:]} goes on, or was cut off", remedy="wait until it has ended, or name another")
            if not _is_ours(environment, record.run):
                other = f"{record.run.detail['notebook']} with {record.run.detail['experiment']}"
                raise BundleError(f"run {record.run.id[-8:]} is of {other}, and not of this experiment")
    else:
        records = []
        ours = [run for run in journal.runs(status="ok") if _is_ours(environment, run)]
        for notebook in dict.fromkeys(run.detail["notebook"] for run in ours):
            if Path(notebook).is_file():
                records += [record for record in _compared(environment, Path(notebook)) if _is_ours(environment, record.run)]
    return sorted({record.run.id: record for record in records}.values(), key=lambda record: record.run.id)


def _is_ours(environment: Environment, run: LogEntry) -> bool:
    return run.detail["experiment"] == str(environment.file) and _inside(run.detail["notebook"], environment.folder)


def _compared(environment: Environment, notebook: Path) -> list[RunRecord]:
    try:
        return baseline(environment.journal, notebook, {})
    except RunError:
        # every run of it was a replay
        return []


def _inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)


def _named(experiment: Experiment) -> list[str]:
    """Paths that the experiment names, and that have to be there where it grows."""
    found = [item.source for node in experiment.nodes.values() for item in node.files]
    found += [node.build.context for node in experiment.nodes.values() if node.build]
    return list(dict.fromkeys([*found, *(name for _, name, _ in tables.named(experiment))]))


def _files_of(record: RunRecord, folder: Path) -> list[Path]:
    """The notebook of a run, and what it wrote here."""
    named = [record.run.detail["notebook"], *(record.fact(facts.WRITTEN) or {})]
    return [path for path in map(Path, named) if path.is_file() and _inside(str(path), folder)]


def _notebooks(contents: Contents, records: Sequence[RunRecord], environment: Environment) -> list[str]:
    """The notebooks of the experiment, that of the last run first; not those that runs wrote, nor those of experiments below it."""
    folder = environment.folder
    ran = [Path(record.run.detail["notebook"]).relative_to(folder).as_posix() for record in reversed(records)]
    others = sorted((name for name in contents.items if name.endswith(".ipynb")), key=lambda name: (name.count("/"), name))
    others = [name for name in others if "out" not in Path(name).parts and experiment_of(folder / name) == environment.file]
    return [name for name in dict.fromkeys([*ran, *others]) if name in contents.items]


def _all_items(
    environment: Environment,
    contents: Contents,
    records: Sequence[RunRecord],
    redactor: Redactor,
    notebooks: Sequence[str],
    images: image_table.Table,
) -> Iterable[Item]:
    yield from contents.items.values()
    identities = dict.fromkeys(record.run.environment for record in records if record.run.environment)
    for identity in identities:
        yield from tree(environment.folder / STATE / "collected" / identity, f"{COLLECTED}/{identity}", redactor)
    runs = [record.run.id for record in records]
    manifest = {"version": VERSION, "experiment": environment.file.name, "notebooks": list(notebooks), "runs": runs, "images": images}
    yield Item(MANIFEST, _json(manifest))
    if records:
        lines = environment.journal.extract(runs, lambda path: _relative(path, environment.folder))
        yield Item(JOURNAL, "".join(lines).encode())
        yield Item(REPORT, environment_report(records).encode())


def _describe(
    archive: Archive,
    contents: Contents,
    described: citation.Citation,
    published: str,
    experiment: str,
    notebooks: Sequence[str],
    records: Sequence[RunRecord],
    folder: Path,
) -> None:
    for name, text in _uploads(described, published).items():
        if name not in contents.items:
            archive.add(Item(name, text))
    document = crate.metadata(
        described,
        sorted(archive.stored, key=lambda item: item.name),
        published=published,
        experiment=experiment,
        notebooks=notebooks,
        runs={f"{_relative(record.run.detail['notebook'], folder)} {record.run.id}": record for record in records},
    )
    archive.add(Item(METADATA, _json(document)))


def _uploads(described: citation.Citation, published: str) -> dict[str, bytes]:
    return {TROVI: _json(crate.trovi(described, published=published)), ZENODO: _json(crate.zenodo(described))}


def _stale(contents: Contents, uploads: Mapping[str, bytes]) -> list[str]:
    """What to say of descriptions that the folder has: from an earlier bundle, or somebody's own."""
    own = [name for name in uploads if name in contents.items]
    found = []
    for name in own:
        source = contents.items[name].source
        if (source if isinstance(source, bytes) else source.read_bytes()) != uploads[name]:
            found.append(f"{name} is that of the folder, and says something else: remove it to have it written anew")
    return found


def _relative(path: str, folder: Path) -> str:
    # of what lies elsewhere the name alone: who unpacks it has nothing there
    return Path(path).relative_to(folder).as_posix() if _inside(path, folder) else Path(path).name


def _day(moment: float | None) -> str:
    """The day of a moment, or today: the one thing of a bundle without runs and citation that is not its content."""
    return (datetime.now(UTC) if moment is None else datetime.fromtimestamp(moment, UTC)).date().isoformat()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _part(name: str) -> str:
    for prefix, part in ((f"{IMAGES}/", "images"), (f"{COLLECTED}/", "collected"), (JOURNAL, "journal")):
        if name.startswith(prefix):
            return part
    if name in (METADATA, TROVI, ZENODO, MANIFEST, REPORT):
        return "description"
    return "notebooks" if name.endswith(".ipynb") else "files"
