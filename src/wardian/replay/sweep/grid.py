"""From `-p clients=5,10 -p delay=10ms,80ms --repeat 3` to the runs that this means. Pure."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

_FILE_NAME = re.compile(r"[A-Za-z0-9=.,_+-]+")
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep. parameters: as text, in the order in which they were given; repeat: from 1."""

    parameters: tuple[tuple[str, str], ...]
    repeat: int

    @property
    def key(self) -> str:
        """A name for it that no other point has, fit for a file."""
        text = ",".join([*(f"{name}={value}" for name, value in self.parameters), f"r{self.repeat}"])
        if _FILE_NAME.fullmatch(text) and len(text) <= _LONGEST:
            return text
        digest = hashlib.sha256(json.dumps([self.parameters, self.repeat]).encode()).hexdigest()[:8]
        return "".join(_FILE_NAME.findall(text))[:_LONGEST] + "~" + digest

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value}" for name, value in self.parameters), f"#{self.repeat}"])


def values(text: str) -> list[str]:
    """The values that a text lists: `5,10,20`, or as a YAML list where they hold commas: `["a,b", c]`. Raises ValueError."""
    if not text.startswith("["):
        return [part.strip() for part in text.split(",")]
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is no list: {' '.join(str(error).split())}") from None
    if not isinstance(found, list) or not found:
        raise ValueError(f"{text!r} is no list of values, such as [1, 2]")
    return [item if isinstance(item, str) else json.dumps(item) for item in found]


def grid(parameters: Mapping[str, Sequence[str]], repeat: int) -> list[Point]:
    """All combinations, all of them once before any a second time: what drifts meanwhile then shows between rounds, not between values."""
    combined = [tuple(zip(parameters, each, strict=True)) for each in itertools.product(*parameters.values())]
    return [Point(each, number) for number in range(1, repeat + 1) for each in dict.fromkeys(combined)]
