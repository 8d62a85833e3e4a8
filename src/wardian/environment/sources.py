"""Reading what the user wrote: the experiment file, and the digests of the files it copies onto nodes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ExperimentFileError, Problem
from ..experiment import file as experiment_format
from ..experiment.model import Experiment
from ..providers import registry

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
