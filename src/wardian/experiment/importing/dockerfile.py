"""What a Dockerfile says of what its image starts by itself: ENTRYPOINT, CMD and WORKDIR of one stage."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass, replace

_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Start:
    """What an image starts. directory: where, None where nothing is said."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    directory: str | None = None


def start(text: bytes, target: str = "") -> Start:
    """What the image of a Dockerfile starts, as far as the file itself says it.

    target: the stage that is built; the last when not given.
    """
    stages: dict[str, Start] = {}
    current, name = Start(), ""
    for line in _lines(text.decode("utf-8", "replace")):
        if match := _FROM.fullmatch(line):
            if target and name == target.lower():
                break
            current = stages.get(match["base"].lower(), Start())
            name = (match["name"] or "").lower()
        else:
            current = _after(current, line)
        if name:
            stages[name] = current
    return current


def _after(current: Start, line: str) -> Start:
    instruction, _, rest = line.partition(" ")
    match instruction.upper():
        case "ENTRYPOINT":
            # an entrypoint takes away the command of the stage that this one begins from
            return replace(current, entrypoint=_words(rest), command=())
        case "CMD":
            return replace(current, command=_words(rest))
        case "WORKDIR" if "$" not in rest:
            return replace(current, directory=posixpath.join(current.directory or "/", rest.strip().strip("\"'")))
        case _:
            return current


def _words(text: str) -> tuple[str, ...]:
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return tuple(words)
    return ("/bin/sh", "-c", text.strip()) if text.strip() else ()


def _lines(text: str) -> list[str]:
    """Instructions, one a line: comments taken out, lines that go on put together."""
    kept = [line.rstrip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line.strip() for line in re.sub(r"\\\n", " ", "\n".join(kept)).splitlines() if line.strip()]
