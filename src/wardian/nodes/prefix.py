"""Live output of several nodes on one terminal: whole lines, each behind its node's name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

LONGEST_LINE = 64 * 1024
"""A line that is longer is broken, so that a node that never ends one cannot fill our memory."""

_COLORS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)


class LinePrefixer:
    """Takes output in pieces (as an `OnOutput`) and writes it in whole lines, stdout to `out`, stderr to `err`.

    nodes: their names, in order; they decide the width and each name's colour.
    color: True or False; None for whether the stream is a terminal and NO_COLOR (https://no-color.org) is unset.
    """

    def __init__(self, nodes: Sequence[str], *, out: TextIO | None = None, err: TextIO | None = None, color: bool | None = None) -> None:
        self._streams = {"stdout": out or sys.stdout, "stderr": err or sys.stderr}
        self._width = max(map(len, nodes), default=0)
        self._color = color
        self._numbers = {node: number for number, node in enumerate(nodes)}
        self._partial: dict[tuple[str, str], bytearray] = {}

    def __call__(self, node: str, stream: str, data: bytes) -> None:
        """Write the lines that `data` completes; keep the rest."""
        partial = self._partial.setdefault((node, stream), bytearray())
        partial += data
        end = partial.rfind(b"\n") + 1
        if not end and len(partial) > LONGEST_LINE:
            end = LONGEST_LINE
        if end:
            self._write(node, stream, bytes(partial[:end]))
            del partial[:end]

    def flush(self) -> None:
        """Write the lines that were begun and never ended."""
        for (node, stream), partial in self._partial.items():
            if partial:
                self._write(node, stream, bytes(partial))
                partial.clear()

    def _write(self, node: str, stream: str, data: bytes) -> None:
        target = self._streams[stream]
        prefix = f"{node:<{self._width}} │ "
        if self._colored(target):
            prefix = f"\x1b[{_COLORS[self._numbers.get(node, 0) % len(_COLORS)]}m{prefix}\x1b[0m"
        lines = data.decode(errors="backslashreplace").removesuffix("\n").split("\n")
        target.write("".join(f"{prefix}{line}\n" for line in lines))
        target.flush()

    def _colored(self, target: TextIO) -> bool:
        if self._color is not None:
            return self._color
        return target.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
