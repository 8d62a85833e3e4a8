"""Experiment files to start from, as `wardian init` writes them."""

from __future__ import annotations

import re
from importlib.resources import files

from ...errors import WardianError
from ..selectors import nearest

ORDER = ("single", "client-server", "cluster", "wan")
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
