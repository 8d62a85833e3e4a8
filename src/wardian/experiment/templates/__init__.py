"""Experiment files to start from, as `wardian init` writes them."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from ...errors import WardianError
from ..selectors import nearest

ORDER = ("single", "client-server", "cluster", "wan", "getting-started")
"""The templates, simplest first."""


def read(template: str, name: str | None = None) -> str:
    """The text of a template.

    name: name of the experiment, in place of the template's own.
    Raises WardianError, naming those that exist, for an unknown template.
    """
    if template not in ORDER:
        guess = nearest(template, ORDER)
        hint = f"did you mean {guess!r}? " if guess else ""
        raise WardianError(f"there is no template {template!r}", remedy=f"{hint}There are: {', '.join(ORDER)}.")
    text = files(__package__).joinpath(f"{template}.yaml").read_text(encoding="utf-8")
    return text if name is None else re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1)


def write(template: str, folder: Path, name: str | None = None) -> list[Path]:
    """Write a template into a folder, which is made: its file, and the notebook that goes with it. Gives what was written.

    A notebook that is there stays: it may be somebody's work. Raises WardianError for an unknown template, and OSError.
    """
    text = read(template, name)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "experiment.yaml"]
    written[0].write_text(text, encoding="utf-8")
    source, notebook = files(__package__).joinpath(f"{template}.ipynb"), folder / f"{template}.ipynb"
    if source.is_file() and not notebook.exists():
        notebook.write_bytes(source.read_bytes())
        written.append(notebook)
    return written
