"""Replaying: run a notebook again in a fresh environment, and compare with what is recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from ..environment.environment import Environment
from ..errors import ExperimentFileError, Problem, RunError
from ..journal import RunRecord
from ..journal.redact import REDACTED
from .compare import Comparison, ExecutedCell, RuleError, Rules, compare, rules
from .facts import GIVEN, MEASURED
from .recorded import baseline, doubts, executed
from .recorded import environment as environment_of
from .runner import Reporter, read_notebook, run_notebook, use_parameters

INSTANCE = "replay"
"""What a replay's environment is called where no other name is given: one that is up for work stays as it is."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found.

    recorded, new: the runs, the first of them the one that the others are held against. failed: why a new run ended early, where one did.
    files: the executed notebooks.
    """

    notebook: Path
    comparison: Comparison
    recorded: tuple[RunRecord, ...]
    new: tuple[RunRecord, ...]
    failed: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def doubts(self) -> list[str]:
        """Why numbers are in doubt, those of recorded runs and those of new ones."""
        sides = (("recorded", self.recorded), ("now", self.new))
        return [f"{side} {record.run.id[-8:]}: {item['summary']}" for side, runs in sides for record in runs for item in doubts(record)]


async def replay_notebook(
    notebook: Path,
    environment: Environment,
    *,
    parameters: Mapping[str, str],
    reporter: Reporter,
    against: Sequence[str] = (),
    repeat: int = 1,
    tolerance: str | None = None,
    timeout: float | None = None,
) -> Replay:
    """Run `notebook` in `environment`, grown anew each of `repeat` times, and compare with recorded runs.

    parameters: as for `run_notebook`. against: ids of runs; without, those that `recorded.baseline` finds.
    Settings that the first of them was given are taken on the same provider, where `environment` has none of that name.
    tolerance: of numbers for which neither cell nor notebook declares one. timeout: longest that one cell may take, seconds.
    Raises RunError, before anything grows, when nothing is recorded, a declaration cannot be read, or the environment is up under a name
    of the user's. A cell that fails is part of the result.
    """
    document = read_notebook(notebook)
    used, _ = use_parameters(document, environment, parameters)
    accepted = _accepted(environment)
    _rules(document, notebook, accepted, tolerance, ())
    recorded = baseline(environment.journal, notebook, used, against)
    environment.settings = settings_of(recorded[0], environment.provider().name) | environment.settings
    going_on = any(entry.status == "failed" for entry in recorded[0].entries if entry.kind == "cell")
    await _make_room(environment)
    new: list[RunRecord] = []
    failed: list[str] = []
    files: list[Path] = []
    for number in range(1, repeat + 1):
        name = notebook.name if repeat == 1 else f"{notebook.stem}-{number}{notebook.suffix}"
        try:
            outcome = await run_notebook(
                notebook,
                environment,
                parameters=parameters,
                reporter=reporter,
                output=notebook.parent / "out" / "replay" / name,
                allow_errors=going_on,
                timeout=timeout,
                verify=any(record.fact(MEASURED) for record in recorded),
                replays=[record.run.id for record in recorded],
            )
            run, files = outcome.run, [*files, *outcome.files]
        except RunError as error:
            if error.run is None:
                raise
            run = error.run
            failed.append(error.message)
        new.append(environment.journal.show(run))
    reporter.phase("comparing")
    return Replay(
        notebook,
        compare_records(document, notebook, recorded, new, accepted, tolerance),
        tuple(recorded),
        tuple(new),
        tuple(failed),
        tuple(files),
    )


async def _make_room(environment: Environment) -> None:
    """See to it that nothing is up: what a replay that was killed has left would not be fresh."""
    if environment.instance == INSTANCE:
        await environment.down(force=True, gather=False)
    elif (await environment.observe()).environment is not None:
        raise RunError(
            f"the environment {environment.instance!r} is up, and a replay grows a fresh one",
            remedy=f"leave out -e, take another name, or tear it down: `wardian down -e {environment.instance}`",
        )


def compare_records(
    document: NotebookNode,
    notebook: Path,
    recorded: Sequence[RunRecord],
    new: Sequence[RunRecord],
    accepted: Mapping[str, Any],
    tolerance: str | None = None,
) -> Comparison:
    """Recorded runs compared with new ones, by the declarations in a notebook. Raises RunError where these cannot be read.

    accepted: what the experiment file declares. tolerance: where nothing else declares one.
    """
    olds, news = [executed(record) for record in recorded], [executed(record) for record in new]
    names = [name for run in (*olds, *news) for name in run.names]
    known = _rules(document, notebook, accepted, tolerance, names)

    def rules_of(cell: ExecutedCell) -> Rules:
        # one that is not in the notebook sets the notebook's parameters, or was there when it ran
        return known.get(cell.key or "") or rules("", _entry(document.metadata), accepted, tolerance=tolerance, known=names)

    return replace(compare(olds, news, rules_of), environment=environment_of(recorded[0], new[0]))


def parameters_of(record: RunRecord) -> dict[str, str]:
    """The parameters of a recorded run, as one gives them to a new one; what was kept out of the journal is left out."""
    values = record.run.detail.get("parameters", {})
    return {name: value if isinstance(value, str) else repr(value) for name, value in values.items() if value != REDACTED}


def settings_of(record: RunRecord, provider: str) -> dict[str, Any]:
    """The settings that a recorded run was given, if it was on this provider; what was kept out of the journal is left out."""
    given: dict[str, Any] = (record.fact(GIVEN) or {}) if record.run.detail["provider"] == provider else {}
    return {name: value for name, value in given.items() if REDACTED not in json.dumps(value)}


def _accepted(environment: Environment) -> dict[str, Any]:
    """What the experiment file declares. Raises ExperimentFileError."""
    declared = environment.load().replay
    accepted = declared.model_dump(exclude_none=True) if declared else {}
    try:
        rules("", accepted)
    except RuleError as error:
        problem = Problem(f"replay.{error.field}", "wrong value", str(environment.file), expected=error.expected, got=repr(error.got))
        raise ExperimentFileError([problem]) from None
    return accepted


def _rules(
    document: NotebookNode, notebook: Path, accepted: Mapping[str, Any], tolerance: str | None, names: Sequence[str]
) -> dict[str, Rules]:
    """What is accepted in each cell, by its id."""
    found = {}
    cells = [cell for cell in document.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(cells, 1):
        try:
            found[str(cell.get("id"))] = rules(
                cell.source, _entry(cell.metadata), _entry(document.metadata), accepted, tolerance=tolerance, known=names
            )
        except RuleError as error:
            where = f"line {error.line}" if error.line else "metadata"
            raise RunError(f"{notebook}: code cell {number}, {where}: {error}", remedy="docs/replay.md says what can be declared") from None
    return found


def _entry(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What metadata says under `wardian`."""
    entry = metadata.get("wardian")
    return dict(entry) if isinstance(entry, Mapping) else {}
