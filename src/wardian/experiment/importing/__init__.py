"""Topologies of other tools as experiments: containerlab, Kathará, Docker Compose and Mininet. Nothing of them is ever run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from ...errors import ExperimentFileError, Problem
from ..document import Mapping as Tree
from ..model import Experiment
from . import annotating, compose, containerlab, kathara, mininet
from .draft import Draft
from .reading import Folder, read, variables
from .report import Note, Report, Spot

__all__ = ["KINDS", "Folder", "Imported", "Note", "Report", "Spot", "detect", "import_topology"]

KINDS = {"containerlab": containerlab.WHAT, "kathara": kathara.WHAT, "compose": compose.WHAT, "mininet": mininet.WHAT}
"""{kind: what a file of that kind has}."""

NAMES = {
    "containerlab": ("*.clab.yml", "*.clab.yaml"),
    "kathara": ("lab.conf",),
    "compose": ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml", "docker-compose*.yml", "docker-compose*.yaml",
                "compose.*.yaml", "compose.*.yml"),
    "mininet": ("*.py",),
}  # fmt: skip
"""{kind: what its files are called}, the usual name first."""

PROVIDERS = {"containerlab": "docker", "kathara": "docker", "compose": "docker", "mininet": "local"}
"""{kind: the provider that grows what is most like it}."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A topology as an experiment.

    text: the experiment file, with comments.
    files: what has to lie beside it, as paths relative to the folder of what was imported, and to that of the experiment.
    """

    experiment: Experiment
    text: str
    report: Report
    files: tuple[str, ...]


def import_topology(
    file: str, folder: Folder, *, kind: str | None = None, provider: str | None = None, name: str | None = None, prefix: str = ""
) -> Imported:
    """The experiment that a topology of another tool describes.

    file: its name in `folder`.
    kind: one of KINDS, where the file does not show it.
    provider: what shall grow it, in place of the one that is most like what the file is for.
    name: of the experiment, where the file gives none.
    prefix: path of `folder` from where the experiment will lie, "" where it will lie in it.

    Raises ExperimentFileError, with file, line and field, for what is no such topology.
    """
    text = folder.read(file)
    if text is None:
        raise ExperimentFileError([Problem("", "there is no such file", file)])
    kind = kind or detect(file, text)
    made = Draft(kind, file, folder, provider or PROVIDERS[kind], prefix)
    if kind == "containerlab":
        containerlab.draft(made, text, {})
    elif kind == "compose":
        compose.draft(made, text, dict(variables(folder.read(".env") or b"")))
    elif kind == "kathara":
        kathara.draft(made, text)
    else:
        mininet.draft(made, text)
    stem = PurePosixPath(file).name.partition(".")[0]
    made.name_it(stem if kind == "mininet" or not name else name)
    experiment, report = made.finish()
    return Imported(experiment, annotating.text(experiment, report), report, tuple(made.copies))


def detect(name: str, text: bytes) -> str:
    """Which of KINDS a file is, by what it holds, and where that leaves a doubt by its name. Raises ExperimentFileError."""
    named = [kind for kind, patterns in NAMES.items() if any(PurePosixPath(name).match(pattern) for pattern in patterns)]
    held = _held(name, text, named)
    if len(held) == 1:
        return held[0]
    both = [kind for kind in named if kind in held]
    if len(both) == 1:
        return both[0]
    if held:
        raise ExperimentFileError([Problem("", f"may be {' or '.join(held)}", name, 1, 1, "--kind to say which")])
    if len(named) == 1:
        # the reader of that kind says best what is wrong with it
        return named[0]
    raise ExperimentFileError([Problem("", "is none of the topologies that are known", name, 1, 1, "; or ".join(KINDS.values()))])


def _held(name: str, text: bytes, named: list[str]) -> list[str]:
    if name.endswith(".py"):
        return ["mininet"]
    plain = text.decode("utf-8", "replace")
    lines = [line for line in plain.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and any(kathara.setting(line) for line in lines) and not any(line.startswith(("import ", "from ", "def ")) for line in lines):
        return ["kathara"]
    if any(line.startswith(("from mininet", "import mininet", "from containernet")) for line in lines):
        return ["mininet"]
    try:
        root = read(text, name, " or ".join(KINDS)).root
    except ExperimentFileError:
        if named or not name.endswith((".yml", ".yaml")):
            return []
        raise
    keys = {"containerlab": "topology", "compose": "services"}
    return [kind for kind, key in keys.items() if isinstance(root, Tree) and key in root.items]
