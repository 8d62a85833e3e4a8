"""What nodes are: kernel, processors, memory, operating system, Python, installed packages, and the image that they were made from.

One program of the shell asks all of it, so that a node with nothing but a shell tells what it has. It runs with the lowest priority.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import NodeError, WardianError
from ..journal.records import PACKAGES
from ..nodes.run import run
from .live import LiveEnvironment

Record = Callable[[str | None, str, Any], None]
"""Called with a node (None is home), the name of a fact, and its value."""

MACHINE, IMAGE, PYTHON = "machine", "image", "python"
"""Names of facts. Packages have one a package manager, such as `packages.dpkg`."""

CONCURRENCY = 4
"""Nodes asked at once: they may share this host's processors with cells that run already."""

PATIENCE = 60.0
"""How long one node may take, seconds."""

MARK = "mark"
"""What nodes with the same packages have in common."""

_SEPARATOR = "\036"
# $1: an interpreter, or nothing for that of the node. $2: the program for it. $3: marks of nodes whose packages are known, each in
# brackets; a node with the same mark says no more. A mark is what the files and folders that package managers change look like.
# Every part may be lacking.
_SCRIPT = r"""
renice -n 19 -p $$ >/dev/null 2>&1
part() { printf '\036%s\n' "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }
part kernel; uname -sr; part architecture; uname -m
part processor; grep -m 1 -E '^(model name|Model|cpu model|Processor|Hardware)' /proc/cpuinfo
part processors; getconf _NPROCESSORS_ONLN 2>/dev/null || grep -c '^processor' /proc/cpuinfo
part memory; grep MemTotal /proc/meminfo
part system; cat /etc/os-release
python=${1:-${WARDIAN_PYTHON:-python3}}
for conda in "$CONDA_PREFIX" /opt/conda; do if [ -n "$conda" ] && [ -d "$conda/conda-meta" ]; then break; fi; conda=; done
if has stat; then
  found=$(command -v "$python")
  mark=$(stat -L -c '%n %s %y' "$found" "${found%/*}"/../lib/python3*/*-packages /usr/lib/python3*/*-packages \
    /usr/local/lib/python3*/*-packages "$HOME"/.local/lib/python3*/*-packages /var/lib/dpkg/status /var/lib/rpm/rpmdb.sqlite \
    /usr/lib/sysimage/rpm/rpmdb.sqlite /lib/apk/db/installed "$conda/conda-meta" 2>/dev/null)
  if [ -n "$mark" ]; then part mark; echo "$mark"; case $3 in *"[$mark]"*) exit 0;; esac; fi
fi
if has dpkg-query; then part dpkg; dpkg-query -W -f '${db:Status-Status} ${binary:Package} ${Version}\n'; fi
if has rpm && ! has dpkg-query; then part rpm; rpm -qa --qf 'installed %{NAME}.%{ARCH} %{EVR}\n'; fi
if [ -f /lib/apk/db/installed ]; then part apk; sed -n 's/^P:\(.*\)/installed \1/p; s/^V:\(.*\)/ \1/p' /lib/apk/db/installed; fi
if [ -n "$conda" ]; then part conda; ls "$conda/conda-meta"; fi
if has "$python"; then part python; "$python" -c "$2"; fi
exit 0
"""

# The names of the folders say name and version, so that hundreds of files need not be read.
_PROGRAM = r"""
import json, os, re, sys
found = {}
for place in sys.path[1:]:
    try:
        names = os.listdir(place)
    except OSError:
        continue
    for name in names:
        stem, dot, kind = name.rpartition('.')
        if kind not in ('dist-info', 'egg-info'):
            continue
        project, _, version = stem.partition('-')
        version = re.sub(r'-py[0-9.]+.*$', '', version)
        if not version:
            path = os.path.join(place, name)
            try:
                with open(os.path.join(path, 'PKG-INFO') if os.path.isdir(path) else path, errors='replace') as file:
                    version = next((line[9:].strip() for line in file if line.startswith('Version: ')), '')
            except OSError:
                pass
        # the first on the path is the one that is imported
        found.setdefault(re.sub(r'[-_.]+', '-', project).lower(), version)
print(json.dumps({'version': sys.version.split()[0], 'executable': sys.executable, 'packages': found}))
"""


async def gather(live: LiveEnvironment, record: Record) -> None:
    """Ask all nodes, several at once, and home, and record what they say. A node that cannot be asked is recorded with the reason."""
    gate = asyncio.Semaphore(CONCURRENCY)
    known: dict[str, dict[str, Any]] = {}

    async def one(node: str) -> None:
        async with gate:
            try:
                asked = ["/bin/sh", "-c", _SCRIPT, "sh", "", _PROGRAM, "".join(f"[{mark}]" for mark in known)]
                answer = await run(live.channel(node), node, asked, timeout=PATIENCE)
            except NodeError as error:
                record(node, MACHINE, {"error": error.message})
                return
            found = read(answer.stdout)
            mark = found.pop(MARK, None)
            if mark in known:
                found |= known[mark]
            elif mark is not None:
                known[mark] = {name: value for name, value in found.items() if name != MACHINE}
            for name, value in found.items():
                record(node, name, value)

    async with asyncio.TaskGroup() as group:
        for work in (_images(live, record), home(record), *(one(node) for node in live.nodes)):
            group.create_task(work)


def read(text: str) -> dict[str, Any]:
    """The facts in what the program printed, and the mark: {name of the fact: value}. What was not there is not in them."""
    parts: dict[str, str] = {}
    for part in text.split(_SEPARATOR)[1:]:
        name, _, body = part.partition("\n")
        parts[name] = body.strip()
    machine: dict[str, Any] = {name: parts[name] for name in ("kernel", "architecture") if parts.get(name)}
    if processor := parts.get("processor", "").partition(":")[2].strip():
        machine["processor"] = processor
    if parts.get("processors", "").isdigit():
        machine["processors"] = int(parts["processors"])
    if kilobytes := re.search(r"\d+", parts.get("memory", "")):
        machine["memory"] = int(kilobytes[0]) * 1024
    if system := re.search(r'^PRETTY_NAME=["\']?(.*?)["\']?$', parts.get("system", ""), re.MULTILINE):
        machine["system"] = system[1]
    facts: dict[str, Any] = {MACHINE: machine} | ({MARK: parts[MARK]} if parts.get(MARK) else {})
    for manager in ("dpkg", "rpm", "apk"):
        # busybox has programs of managers that manage nothing
        if installed := _installed(parts.get(manager, "").replace("\n ", " ").splitlines()):
            facts[PACKAGES + manager] = installed
    if "conda" in parts:
        names = (line.removesuffix(".json").rsplit("-", 2) for line in parts["conda"].splitlines() if line.endswith(".json"))
        facts[PACKAGES + "conda"] = {name[0]: "-".join(name[1:]) for name in names}
    if parts.get("python"):
        python = json.loads(parts["python"])
        facts[PACKAGES + "pip"] = python.pop("packages")
        facts[PYTHON] = python
    return facts


def _installed(lines: Iterable[str]) -> dict[str, str]:
    words = (line.split() for line in lines)
    return {word[1]: word[2] for word in words if len(word) == 3 and word[0] == "installed"}


async def _images(live: LiveEnvironment, record: Record) -> None:
    try:
        images: Mapping[str, Mapping[str, str]] = await live.provider.images(live.record.id)
    except WardianError as error:
        images = {node: {"error": error.message} for node in live.nodes}
    for node, image in images.items():
        record(node, IMAGE, dict(image))


async def home(record: Record) -> None:
    """Record what the Python is that home's cells run with, and this host."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", _SCRIPT, "sh", sys.executable, _PROGRAM, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    for name, value in read(output.decode(errors="replace")).items():
        if name != MARK:
            record(None, name, value)
