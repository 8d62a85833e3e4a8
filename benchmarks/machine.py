"""What the figures were measured on, and how busy it was."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, system, versions and load at this moment."""
    processor = _value("/proc/cpuinfo", "model name") or platform.machine()
    system = _value("/etc/os-release", "PRETTY_NAME") or platform.system()
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


def _value(path: str, key: str) -> str:
    """What stands after `key` in a file of lines, or nothing."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return next((line.removeprefix(key).strip('\t :="') for line in lines if line.startswith(key)), "")
