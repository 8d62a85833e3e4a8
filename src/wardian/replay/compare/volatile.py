"""Parts of text that differ from run to run and mean nothing: dates, addresses, process numbers, temporary paths. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"[0-2]?[0-9]:[0-5][0-9]:[0-5][0-9](?:[.,][0-9]+)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}))?"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_EPHEMERAL = r"(?:3276[89]|327[7-9][0-9]|32[89][0-9]{2}|3[3-9][0-9]{3}|[45][0-9]{4}|6[0-5][0-9]{3})"

KINDS = {
    "progress": r"\[[0-9:]+<(?:[0-9:]+|\?), *(?:[0-9.]+|\?)(?:[A-Za-z]*/s|s/[A-Za-z]+)[^\]]*\]|\beta [0-9]+(?::[0-9]{2}){1,2}\b",
    "date": rf"\b[0-9]{{4}}-[01][0-9]-[0-3][0-9](?:[T ]{_CLOCK}{_ZONE})?(?![0-9])"
    rf"|\b(?:{_DAY},? )?[0-3]?[0-9][ /-]{_MONTH}[a-z]*[ /-][0-9]{{4}}(?:[ :]{_CLOCK}{_ZONE})?(?![0-9])"
    rf"|\b(?:{_DAY},? )?{_MONTH}[a-z]* +[0-3]?[0-9],? +(?:{_CLOCK}{_ZONE}(?: [0-9]{{4}})?|[0-9]{{4}})(?![0-9])",
    "time": rf"(?<![0-9:.]){_CLOCK}{_ZONE}(?![0-9:])",
    "uuid": r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b",
    "MAC address": r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])",
    "IP address": rf"(?<![0-9A-Za-z.])(?:{_BYTE}\.){{3}}{_BYTE}(?![0-9]|\.[0-9])(?::{_EPHEMERAL}\b)?"
    r"|(?<![0-9A-Za-z:])(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6})(?![0-9A-Za-z:])",
    "memory address": r"\b0x[0-9a-fA-F]{6,16}\b",
    "process number": r"(?i:(?<=\bpid[ =:])|(?<=\bpid: ))[0-9]+\b|(?<=[a-z]\[)[0-9]{2,7}(?=\]:)",
    "port": rf"(?i:(?<=\blocal port )|(?<=\bsource port )|(?<=[0-9] port )){_EPHEMERAL}\b",
    "temporary path": r"(?<![\w/.])/(?:var/)?tmp/[^\s'\",:;)\]>]+|(?<![\w/.])/run/user/[0-9]+[^\s'\",:;)\]>]*",
}
"""{what it is: regular expression}. Ports count only from 32768 on, where systems choose them."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NEEDS: dict[str, Callable[[str], bool]] = {
    "progress": lambda line: "<" in line or "eta " in line,
    "date": lambda line: "-0" in line or "-1" in line or any(month in line for month in _MONTHS),
    "time": lambda line: line.count(":") > 1,
    "uuid": lambda line: line.count("-") > 3,
    "MAC address": lambda line: line.count(":") > 4,
    "IP address": lambda line: line.count(".") > 2 or line.count(":") > 1,
    "memory address": lambda line: "0x" in line,
    "process number": lambda line: "pid" in line or "]:" in line,
    "port": lambda line: "port " in line,
    "temporary path": lambda line: "tmp/" in line or "run/user/" in line,
}
"""{what it is: what a line (in lower case) that has one fulfils}, for speed."""

IGNORED = "ignored"
"""What a part is called that was declared."""


class Volatile:
    """Finds volatile parts.

    ignore: regular expressions of further ones. known: texts that are known to name this run, such as an environment's id.
    """

    def __init__(self, ignore: Iterable[str] = (), known: Iterable[str] = ()) -> None:
        """Raises re.error."""
        declared = [(IGNORED, pattern) for pattern in ignore]
        names = [("name of the run", re.escape(text)) for text in sorted(known, key=len, reverse=True) if text]
        self._patterns = tuple((kind, re.compile(pattern)) for kind, pattern in [*declared, *names, *KINDS.items()])
        self._hash = hash(self._patterns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Volatile) and self._patterns == other._patterns

    def __hash__(self) -> int:
        return self._hash

    def find(self, line: str) -> list[tuple[int, int, str]]:
        """Where the volatile parts of a line are: begin, end and kind, in order, none overlapping; earlier patterns go first."""
        found: list[tuple[int, int, str]] = []
        lower = line.lower()
        for kind, pattern in self._patterns:
            if kind in _NEEDS and not _NEEDS[kind](lower):
                continue
            for match in pattern.finditer(line):
                begin, end = match.span()
                if begin < end and all(end <= other[0] or begin >= other[1] for other in found):
                    found.append((begin, end, kind))
        return sorted(found)
