"""Reading what the user wrote: the experiment file, and the digests of the files it copies onto nodes."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ExperimentFileError, Problem
from ..experiment import checks, containers, tables
from ..experiment import file as experiment_format
from ..experiment.document import dotted
from ..experiment.model import Experiment
from ..providers import registry
from ..providers.docker import context

LARGEST_FILE = 4 * 2**20
"""An experiment file larger than this is refused, bytes."""


def load(path: Path, parameters: Mapping[str, object] | None = None) -> Experiment:
    """The experiment of a file, with these parameters set. Raises ExperimentFileError naming everything wrong with it."""
    try:
        with path.open("rb") as stream:
            text = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExperimentFileError([Problem("", f"cannot be read: {reason}", file=str(path))]) from error
    if len(text) > LARGEST_FILE:
        raise ExperimentFileError([Problem("", "is larger than 4 MiB: no experiment file is", file=str(path))])
    return experiment_format.loads(text, str(path), parameters, registry.settings_models())


def file_digests(experiment: Experiment, folder: Path) -> dict[str, str]:
    """SHA-256 of each file or folder that nodes copy in, by the path as written. Raises ExperimentFileError for those missing."""
    problems = []
    result: dict[str, str] = {}
    for group, node in experiment.nodes.items():
        for position, item in enumerate(node.files):
            if item.source in result:
                continue
            try:
                result[item.source] = _digest(folder / item.source)
            except OSError as error:
                field = f"nodes.{group}.files[{position}].source"
                problems.append(Problem(field, error.strerror or str(error), expected="a file or folder", got=item.source))
    if problems:
        raise ExperimentFileError(problems)
    return result


def build_digests(experiment: Experiment, folder: Path) -> dict[str, str]:
    """SHA-256 of each folder that an image is built from, by its `build_key`. Raises ExperimentFileError for those missing."""
    problems = []
    result: dict[str, str] = {}
    for group, node in experiment.nodes.items():
        if node.build is None:
            continue
        try:
            result[containers.build_key(node.build)] = context.digest(folder / node.build.context, node.build.dockerfile)
        except OSError as error:
            said = f"{error.strerror or error}: {error.filename}"
            problems.append(Problem(f"nodes.{group}.build", said, expected="a folder with a Dockerfile", got=node.build.context))
    if problems:
        raise ExperimentFileError(problems)
    return result


def read_tables(experiment: Experiment, folder: Path, source: str = "experiment.yaml") -> tables.Tables:
    """The traces and matrices that links name, by the path as written. Raises ExperimentFileError with what is wrong in each."""
    problems: list[Problem] = []
    result: dict[str, Any] = {}
    for path, name, kind in tables.named(experiment):
        try:
            text = _text(folder / name)
            result[name] = (tables.parse_matrix if kind == "matrix" else tables.parse_trace)(text, name)
        except OSError as error:
            said = error.strerror or str(error)
            problems.append(Problem(dotted(path), said, source, expected="a CSV file", got=repr(name)))
        except UnicodeDecodeError:
            problems.append(Problem(dotted(path), "is no text", source, expected="a CSV file in UTF-8", got=repr(name)))
        except ExperimentFileError as error:
            problems += error.problems
        else:
            if kind == "matrix":
                for item in checks.delay_findings(experiment.links[str(path[1])], result[name], ()):
                    problems.append(Problem(dotted(item.path), item.message, name, expected=item.expected, suggestion=item.suggestion))
    if problems:
        raise ExperimentFileError(list(dict.fromkeys(problems)))
    return result


def read_trace(folder: Path, name: str) -> tables.Trace:
    """The trace of a file, which is named relative to a folder. Raises ExperimentFileError."""
    try:
        return tables.parse_trace(_text(folder / name), name)
    except (OSError, UnicodeDecodeError) as error:
        said = "is no text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise ExperimentFileError([Problem("trace", said, name, expected="a CSV file in UTF-8")]) from error


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise OSError(errno.EFBIG, "is larger than 4 MiB", str(path))
    return data.decode()


def _digest(path: Path) -> str:
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    whole = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            entry = Path(folder, name)
            whole.update(os.fsencode(entry.relative_to(path)) + b"\0" + _digest(entry).encode())
    return whole.hexdigest()
