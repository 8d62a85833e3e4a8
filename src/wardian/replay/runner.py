"""Running a notebook headless: grow, run every cell where it is bound, collect, tear down.

nbclient does the running. What we add is each cell's metadata (which headless runners do not send, so a binding made in the
toolbar would be lost), parameters, the journal's record of the run, and that the output notebook is written whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from ..environment import fidelity
from ..environment.environment import Environment
from ..environment.fidelity import Doubt
from ..errors import ExperimentFileError, MissingToolError, Problem, RunError, WardianError
from ..experiment.model import Experiment
from ..experiment.resources import Caveat
from ..journal import Entry, Journal, otel
from ..journal.redact import secrets_in
from ..kernel.cells.binding import BindingError, bind
from .facts import About

KERNEL = "wardian"
log = logging.getLogger("wardian")

_PATIENCE = 5.0
"""How long a run that failed waits for what is still found out about it, seconds."""

_INJECTED = "injected-parameters"
"""The tag, papermill's, and the id of the cell that sets given parameters: the same in each run, so that two can be compared."""

REPLAY = "run.replay"
"""The kind of event that says that a run was run to be compared, and with which."""


class Reporter(Protocol):
    """Who is told how a run goes on."""

    def phase(self, text: str) -> None:
        """A new part of the run begins."""
        ...

    def cell_started(self, number: int, count: int, where: str, first_line: str) -> None:
        """Code cell `number` of `count` (from 1) begins."""
        ...

    def cell_ended(self, number: int, count: int, where: str, first_line: str, seconds: float, ok: bool) -> None:
        """It ended."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


@dataclass
class Outcome:
    """What a run left: its id in the journal, its time, the files it wrote, what was not honoured, why its numbers are in doubt."""

    run: str
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    caveats: tuple[Caveat, ...] = ()


async def run_notebook(
    notebook: Path,
    environment: Environment,
    *,
    parameters: Mapping[str, str],
    reporter: Reporter,
    output: Path | None = None,
    as_html: bool = False,
    keep: bool = False,
    allow_errors: bool = False,
    timeout: float | None = None,
    verify: bool = False,
    replays: Sequence[str] = (),
) -> Outcome:
    """Run `notebook` in `environment`, growing it first.

    parameters: values by name, for the experiment's parameters and the notebook's (its cell tagged `parameters`), whichever has them.
    output: where the executed notebook goes; `out/` beside the notebook when None.
    as_html: write an HTML page beside the output, too.
    keep: leave the environment up. timeout: longest that one cell may take, seconds.
    verify: measure its links before the first cell, for the record.
    replays: ids of the runs that it will be compared with, noted in the journal.

    Raises RunError naming the cell when one fails; the output is written, and the environment torn down unless `keep`, all the same.
    """
    document = read_notebook(notebook)
    used, values = use_parameters(document, environment, parameters)
    experiment = environment.load()
    _inject(document, values)
    target = (output or notebook.parent / "out" / notebook.name).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    journal = environment.journal
    entry = journal.run(
        notebook=str(notebook.resolve()),
        experiment=str(environment.file),
        experiment_digest=_digest(environment.file),
        parameters=used,
    )
    journal.current_run = entry.id
    journal.hide(secrets_in(values))
    if replays:
        detail = {"summary": f"compared with {', '.join(item[-8:] for item in replays)}", "of": list(replays)}
        journal.event(kind=REPLAY, run=entry.id, detail=detail)
    outcome = Outcome(entry.id)
    about = About(journal, entry.id)
    try:
        with _recorded(entry):
            about.asked(environment, experiment, notebook, document)
            reporter.phase(f"growing {experiment.name}")
            plan = await environment.up()
            outcome.caveats = plan.caveats
            live = await environment.live()
            entry.amend(environment=live.record.id, provider=live.record.provider)
            about.grown(experiment, live, plan)
        try:
            with _recorded(entry, ends=True):
                about.in_force(fault.text() for fault in await environment.fault.in_force())
                if verify:
                    reporter.phase("measuring links")
                    about.measured(await environment.verify())
                reporter.phase(f"running {notebook.name}")
                await environment.clocks(run=entry.id)
                async with fidelity.watch(live.provider, live.record.id, journal, run=entry.id) as watch:
                    outcome.doubts = watch.doubts
                    await _execute(document, notebook, environment, entry.id, reporter, allow_errors, timeout)
                await about.settled()
        finally:
            await about.settled(_PATIENCE)
            nbformat.write(document, target)
            outcome.files.append(target)
            if as_html:
                outcome.files.append(_write_html(document, target))
            about.written(outcome.files)
            if not keep:
                reporter.phase(f"tearing down {experiment.name}")
                down = await environment.down()
                if down.folder:
                    outcome.files.append(down.folder)
    finally:
        await about.settled(0)
        journal.current_run = None
        if otel.wanted():
            await _send_spans(journal, entry.id)
    outcome.seconds = time.monotonic() - begun
    return outcome


async def _send_spans(journal: Journal, run: str) -> None:
    try:
        await asyncio.to_thread(lambda: otel.export(journal.show(run)))
    except (MissingToolError, OSError) as error:
        log.warning("no spans of this run were sent: %s", error)


def check_parameters(notebook: Path, environment: Environment, several: Sequence[Mapping[str, str]]) -> None:
    """Raise what running `notebook` with any of these parameters would raise for them, before anything is grown."""
    document = read_notebook(notebook)
    for parameters in several:
        use_parameters(document, environment, parameters)


def use_parameters(
    document: NotebookNode, environment: Environment, parameters: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set the experiment's parameters. Gives all that the run is with, and those of the notebook's own cell.

    Raises ExperimentFileError for a parameter that neither has, or a wrong value.
    """
    environment.parameters, values = _split(parameters, environment, document)
    return {name: parameter.default for name, parameter in environment.load().parameters.items()} | values, values


@contextmanager
def _recorded(entry: Entry, *, ends: bool = False) -> Iterator[None]:
    """How a part of a run went is how the run went, unless that is well. ends: whether it is the last part."""
    try:
        yield
    except WardianError as failure:
        entry.done("failed", str(failure))
        if isinstance(failure, RunError):
            failure.run = entry.id
        raise
    except asyncio.CancelledError:
        entry.done("cancelled")
        raise
    except BaseException as failure:
        entry.done("failed", f"{type(failure).__name__}: {failure}")
        raise
    if ends:
        entry.done("ok")


class _Client(NotebookClient):  # type: ignore[misc]
    """nbclient, with each cell's metadata sent along and a reporter told."""

    def __init__(self, document: NotebookNode, reporter: Reporter, **options: Any) -> None:
        super().__init__(document, **options)
        self.reporter = reporter
        self.code_cells = [cell for cell in document.cells if cell.cell_type == "code" and cell.source.strip()]

    @asynccontextmanager
    async def async_setup_kernel(self, **options: Any) -> AsyncIterator[None]:
        """Ctrl-C and SIGTERM cancel the run; nbclient alone would only shut the kernel down, and call it a failed cell."""
        async with super().async_setup_kernel(**options):
            task = asyncio.current_task()

            def interrupt() -> None:
                self.interrupted = True
                if task is not None:
                    task.cancel()

            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, interrupt)
            yield

    interrupted = False

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        send = client.session.msg

        def with_metadata(msg_type: str, *arguments: Any, **keywords: Any) -> Any:
            message = send(msg_type, *arguments, **keywords)
            if msg_type == "execute_request" and self.cell is not None:
                message["metadata"] = {"cellId": self.cell.get("id"), **message["metadata"], **_plain(self.cell.metadata)}
            return message

        client.session.msg = with_metadata
        return client

    cell: NotebookNode | None = None

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        if cell.cell_type != "code" or not cell.source.strip():
            return await super().async_execute_cell(cell, cell_index, **options)
        self.cell = cell
        place = (self.code_cells.index(cell) + 1, len(self.code_cells), _where(cell), _first_line(cell))
        self.reporter.cell_started(*place)
        begun = time.monotonic()
        ok = False
        try:
            result = await super().async_execute_cell(cell, cell_index, **options)
            ok = not any(item.output_type == "error" for item in cell.outputs)
        finally:
            self.reporter.cell_ended(*place, time.monotonic() - begun, ok)
            self.cell = None
        return result


async def _execute(
    document: NotebookNode,
    notebook: Path,
    environment: Environment,
    run: str,
    reporter: Reporter,
    allow_errors: bool,
    timeout: float | None,
) -> None:
    client = _Client(
        document,
        reporter,
        kernel_name=KERNEL,
        timeout=timeout,
        allow_errors=allow_errors,
        record_timing=True,
        resources={"metadata": {"path": str(notebook.resolve().parent)}},
    )
    variables = {
        "WARDIAN_EXPERIMENT": str(environment.file),
        "WARDIAN_INSTANCE": environment.instance,
        "WARDIAN_RUN": run,
        "WARDIAN_SESSION": run,
    }
    try:
        await client.async_execute(env={**os.environ, **variables})
    except CellExecutionError as error:
        said = f"{error.ename}: {error.evalue}"
        raise RunError(f"{notebook}: a cell failed: {said}", remedy="the output notebook has the traceback") from error
    except CellTimeoutError as error:
        raise RunError(f"{notebook}: a cell took longer than {timeout:g} s", remedy="give it more with --timeout") from error
    except DeadKernelError as error:
        if client.interrupted:
            # nbclient takes every cancellation of a cell for the death of the kernel
            raise asyncio.CancelledError from error
        raise RunError(f"{notebook}: the kernel died", remedy="its last words are above") from error


def _split(parameters: Mapping[str, str], environment: Environment, document: NotebookNode) -> tuple[dict[str, object], dict[str, Any]]:
    """The values for the experiment, and those for the notebook's parameters cell."""
    environment.parameters = {}
    experiment: Experiment = environment.load()
    cell = _parameters_cell(document)
    declared = _assignments(cell.source) if cell is not None else {}
    unknown = [name for name in parameters if name not in experiment.parameters and name not in declared]
    if unknown:
        file, names = str(environment.file), ", ".join(sorted({*experiment.parameters, *declared})) or "none"
        raise ExperimentFileError(
            [Problem(f"parameters.{name}", "no such parameter", file=file, expected=f"one of: {names}") for name in unknown]
        )
    for_experiment: dict[str, object] = {name: value for name, value in parameters.items() if name in experiment.parameters}
    resolved = _Resolved(experiment, for_experiment)
    values: dict[str, Any] = {}
    for name, default in declared.items():
        if name in experiment.parameters:
            values[name] = resolved[name]
        elif name in parameters:
            values[name] = _convert(name, parameters[name], default)
    return for_experiment, values


class _Resolved:
    def __init__(self, experiment: Experiment, given: Mapping[str, object]) -> None:
        self.experiment, self.given = experiment, given

    def __getitem__(self, name: str) -> Any:
        parameter = self.experiment.parameters[name]
        try:
            return parameter.check(self.given.get(name, parameter.default))
        except ValueError as error:
            problem = Problem(f"parameters.{name}", "wrong value", expected=str(error), got=repr(self.given[name]))
            raise ExperimentFileError([problem]) from error


def _convert(name: str, text: str, default: Any) -> Any:
    """`text` as the type of the notebook's own default."""
    import ast

    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        expected = "a value like " + repr(default)
        raise ExperimentFileError([Problem(f"parameters.{name}", "wrong value", expected=expected, got=repr(text))]) from None


def _assignments(source: str) -> dict[str, Any]:
    """The literal values that a parameters cell assigns."""
    import ast

    result: dict[str, Any] = {}
    with suppress(SyntaxError):
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                targets: list[ast.expr] = [statement.target]
            elif isinstance(statement, ast.Assign):
                targets = statement.targets
            else:
                continue
            value = None
            with suppress(ValueError, TypeError):
                value = ast.literal_eval(statement.value) if statement.value else None
            result.update({target.id: value for target in targets if isinstance(target, ast.Name)})
    return result


def _parameters_cell(document: NotebookNode) -> NotebookNode | None:
    return next((cell for cell in document.cells if "parameters" in cell.metadata.get("tags", ())), None)


def _inject(document: NotebookNode, values: Mapping[str, Any]) -> None:
    """Put the given values after the cell tagged `parameters`, in place of those of an earlier run."""
    cell = _parameters_cell(document)
    document.cells = [item for item in document.cells if _INJECTED not in item.metadata.get("tags", ())]
    if cell is None or not values:
        return
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    injected = nbformat.v4.new_code_cell(f"# Parameters\n{lines}", id=_INJECTED, metadata={"tags": [_INJECTED]})
    document.cells.insert(document.cells.index(cell) + 1, injected)


def read_notebook(notebook: Path) -> NotebookNode:
    """The notebook in a file. Raises RunError."""
    try:
        return nbformat.read(notebook, as_version=4)
    except OSError as error:
        raise RunError(f"{notebook} cannot be read: {error.strerror}") from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError) as error:
        raise RunError(f"{notebook} is not a notebook: {str(error).splitlines()[0]}") from error


def _where(cell: NotebookNode) -> str:
    """Where a cell is bound, as people write it."""
    try:
        return bind(cell.source, _plain(cell.metadata), None).binding.selector or "here"
    except BindingError:
        return "?"


def _first_line(cell: NotebookNode) -> str:
    source = str(cell.source)
    return next((line for line in source.splitlines() if line.strip() and not line.startswith(("%%", "#|"))), source.strip())


def _plain(value: Any) -> Any:
    """Notebook nodes as plain dicts, which can be sent."""
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_html(document: NotebookNode, notebook: Path) -> Path:
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_notebook_node(document, {"metadata": {"name": notebook.stem}})
    target = notebook.with_suffix(".html")
    target.write_text(page)
    return target
