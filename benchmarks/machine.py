"""What the figures were measured on, and how busy it was."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, system, versions and load at this moment."""
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine()
    )
    system = next(
        (line.partition("=")[2].strip('"') for line in _lines("/etc/os-release") if line.startswith("PRETTY_NAME")), platform.system()
    )
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "system": system,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "load": os.getloadavg()[0],
    }


def sentence(machine: dict[str, Any]) -> str:
    """The same for people."""
    return "{cores} cores, {processor}, {system}, Linux {kernel}, Python {python}; load average {load:.1f} at the start".format(**machine)


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
