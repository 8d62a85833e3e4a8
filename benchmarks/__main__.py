"""`python -m benchmarks [NAME...]`: measure, print a table for each, and write it to out/."""

from __future__ import annotations

import argparse
import importlib

from . import machine

MEASURES = (
    "imports",
    "plan",
    "nodes",
    "docker",
    "cells",
    "fanout",
    "cold",
    "output",
    "journal",
    "transfer",
    "ssh",
    "memory",
    "lab",
    "switch",
    "start",
    "panel",
    "replay",
)
ASKED_FOR = ("openstack",)
"""Measured only where it is named: it needs what takes minutes to start."""


def main() -> None:
    """Run the measures that were asked for; without a name all but those of `ASKED_FOR`."""
    known = ", ".join(MEASURES + ASKED_FOR)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {known} (default: all but {', '.join(ASKED_FOR)})")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs, not how fast")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in MEASURES + ASKED_FOR]:
        parser.error(f"no measure is called {unknown[0]!r}; there are {known}")
    for name in arguments.names or MEASURES:
        about = machine.describe()
        table = importlib.import_module(f".{name}", __package__).measure(arguments.quick)
        print(table.text(), f"\n{machine.sentence(about)}\n", sep="\n", flush=True)
        if not arguments.quick:
            table.write(about)


if __name__ == "__main__":
    main()
