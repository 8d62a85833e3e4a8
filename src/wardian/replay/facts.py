"""What the journal knows of a run besides its cells: what was asked for, with which versions, from which commit, and on what."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from ..environment import facts, sources
from ..environment.display import DRAWN
from ..environment.environment import Environment
from ..environment.graph import graph
from ..environment.live import LiveEnvironment
from ..environment.verify import Check, Report
from ..environment.verify.report import WRITTEN as AS_WRITTEN
from ..environment.view import View
from ..errors import WardianError
from ..experiment.model import Experiment
from ..experiment.plan import Plan
from ..journal import Journal
from ..journal.redact import redact_yaml

EXPERIMENT, NOTEBOOK, VERSIONS, GIT, GIVEN, PLAN, SETTINGS, TOPOLOGY, LINKS, MEASURED, FAULTS, READ, WRITTEN = (
    "experiment", "notebook", "versions", "git", "given", "plan", "settings", "topology", "links", "measured", "faults", "read", "written",
)  # fmt: skip
"""Names of facts about a run as a whole."""

_GIT_SECONDS = 20.0


class About:
    """Puts the facts of one run into the journal. What takes its time is done meanwhile; `settled` waits for it."""

    def __init__(self, journal: Journal, run: str) -> None:
        self._journal = journal
        self._run = run
        self._tasks: list[asyncio.Task[None]] = []

    def asked(self, environment: Environment, experiment: Experiment, notebook: Path, document: NotebookNode) -> None:
        """What is to be run."""
        text = environment.file.read_bytes()
        self._record(EXPERIMENT, {"sha256": hashlib.sha256(text).hexdigest(), "text": redact_yaml(text.decode(errors="replace"))})
        self._record(NOTEBOOK, {"sha256": hashlib.sha256(notebook.read_bytes()).hexdigest(), "document": _without_outputs(document)})
        self._record(VERSIONS, versions())
        if environment.settings:
            self._record(GIVEN, environment.settings)
        self._tasks.append(asyncio.create_task(self._git(environment.folder)))
        self._tasks.append(asyncio.create_task(self._files(experiment, environment.folder)))

    def grown(self, experiment: Experiment, live: LiveEnvironment, plan: Plan) -> None:
        """What it runs in. plan: what was done to have it."""
        self._journal.hide(live.secrets())
        self._record(PLAN, plan.to_json())
        self._record(SETTINGS, dict(live.record.spec.get("settings") or {}))
        seen = View(live.record.file, live.record.instance, experiment, (), (), live.observed)
        self._record(TOPOLOGY, graph(seen, DRAWN))
        links = [item for kind in ("link", "access") for item in live.observed.of(kind)]
        # where it is does nothing to packets
        self._record(LINKS, {item.name: {key: value for key, value in item.spec.items() if key != "site"} for item in links})
        self._tasks.append(asyncio.create_task(facts.gather(live, lambda node, name, value: self._record(name, value, node))))

    def measured(self, report: Report) -> None:
        """What its links were measured to do before the first cell."""
        self._record(MEASURED, {f"{check.source} -> {check.target} {check.what}": _measured(check) for check in report.checks})

    def in_force(self, faults: Iterable[str]) -> None:
        """Faults that it begins under."""
        if found := list(faults):
            self._record(FAULTS, found)

    def written(self, files: Iterable[Path]) -> None:
        """Files that it made here."""
        self._record(WRITTEN, {str(path): _sha256(path) for path in files if path.is_file()})

    async def settled(self, patience: float | None = None) -> None:
        """Wait until everything is recorded that can be found out. patience: seconds after which the rest is given up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                # what is not known of a run is no reason to fail it
                said = f"not everything is known of this run: {type(outcome).__name__}: {outcome}"
                self._journal.event(kind="facts.failed", run=self._run, detail={"summary": said})
        self._tasks.clear()

    def _record(self, name: str, value: Any, node: str | None = None) -> None:
        self._journal.fact(name, value, run=self._run, node=node)

    async def _git(self, folder: Path) -> None:
        if found := await commit(folder):
            self._record(GIT, found)

    async def _files(self, experiment: Experiment, folder: Path) -> None:
        def digests() -> dict[str, str]:
            return sources.file_digests(experiment, folder) | sources.build_digests(experiment, folder)

        try:
            found = await asyncio.to_thread(digests)
        except WardianError:
            # `up` says so
            return
        if found:
            self._record(READ, found)


def versions() -> dict[str, str]:
    """The versions of Wardian and of what it stands on: {package: version}."""
    names = {"wardian"}
    for requirement in metadata.requires("wardian") or ():
        if "extra ==" not in requirement:
            names.add(requirement.replace("<", ">").replace("=", ">").replace("!", ">").partition(">")[0].partition("[")[0].strip())
    found = {}
    for name in sorted(names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


async def commit(folder: Path) -> dict[str, Any] | None:
    """{"commit", "branch", "remote", "dirty", "changed": files changed or unknown to git below the folder}; None where it is no git's."""
    head = await _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    branch, remote, status = await asyncio.gather(
        _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        _git(folder, "remote", "get-url", "origin"),
        _git(folder, "status", "--porcelain", "--", "."),
    )
    changed = [line[3:] for line in (status or "").splitlines()]
    return {"commit": head, "branch": branch, "remote": remote, "dirty": bool(changed), "changed": changed}


async def last_commit(folder: Path, name: str) -> str | None:
    """The commit that last changed a file or folder; None where it was changed since, or git does not know it."""
    changed, found = await asyncio.gather(
        _git(folder, "status", "--porcelain", "--", name), _git(folder, "log", "-1", "--format=%H", "--", name)
    )
    return found or None if changed == "" else None


async def _git(folder: Path, *arguments: str) -> str | None:
    # without locks and hooks: what looks must not change anything, and a person may be at work in that folder
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )
    except OSError:
        return None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _GIT_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return output.decode(errors="replace").strip("\n") if process.returncode == 0 else None


def _measured(check: Check) -> dict[str, Any]:
    text = None if check.measured is None else AS_WRITTEN[check.what](check.measured)
    return {"over": list(check.over), "value": check.measured, "text": text, "low": check.low, "high": check.high, "ok": check.ok}


def _without_outputs(document: NotebookNode) -> dict[str, Any]:
    cells = [{name: value for name, value in cell.items() if name in ("cell_type", "id", "metadata", "source")} for cell in document.cells]
    return {"metadata": dict(document.metadata), "nbformat": document.nbformat, "nbformat_minor": document.nbformat_minor, "cells": cells}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
