"""Live progress: one line a node while things are made, on a terminal; one line an operation where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .common import console, style

if TYPE_CHECKING:
    from rich.table import Table

    from ..environment.apply import Event, Listener

SHOWN = 30
"""Most resources shown at once; the busy ones first."""


@contextmanager
def watch(*, quiet: bool) -> Iterator[Listener]:
    """Show what `apply` reports, on standard error."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _Board() as board:
            yield board.listen
    else:
        yield _print_event


@contextmanager
def show_down(*, quiet: bool) -> Iterator[Callable[[str, str], None]]:
    """Show what tearing down reports, on standard error."""
    if quiet or not sys.stderr.isatty():
        yield lambda name, state: None
        return
    with console(stderr=True).status("tearing down") as status:
        yield lambda name, state: status.update(f"{name}: {state}")


@contextmanager
def show_states(*, quiet: bool) -> Iterator[Callable[[str, str], None]]:
    """Show the states that something goes through, on standard error: in place on a terminal, else a line each."""
    if quiet:
        yield lambda name, state: None
    elif sys.stderr.isatty():
        with console(stderr=True).status("") as status:
            yield lambda name, state: status.update(f"{name}: {state}")
    else:
        yield lambda name, state: click.echo(f"{name}: {state}", err=True)


@contextmanager
def show_words(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show what goes on, in words that replace one another, on standard error."""
    if quiet or not sys.stderr.isatty():
        yield lambda words: None
        return
    with console(stderr=True).status("") as status:
        yield status.update


def _print_event(event: Event) -> None:
    if event.resource:
        # what a site holds may start hours later: who waits is told what for
        if event.operation.kind == "lease":
            click.echo(f"lease {event.resource}: {event.state}", err=True)
        return
    words = f"{event.operation.action} {event.operation.kind} ({len(event.operation.targets)})"
    detail = f": {event.error.splitlines()[0]}" if event.error else ""
    click.echo(f"{event.state:<8} {words}{detail}", err=True)


class _Board:
    """A table of resources and the state each is in now, redrawn in place."""

    def __init__(self) -> None:
        from rich.live import Live

        self.begun = time.monotonic()
        self.states: dict[tuple[str, str], tuple[str, float]] = {}
        self.live = Live(get_renderable=self._draw, console=console(stderr=True), refresh_per_second=8, transient=True)

    def __enter__(self) -> _Board:
        self.started = False
        return self

    def __exit__(self, *details: object) -> None:
        if self.started:
            self.live.stop()

    def listen(self, event: Event) -> None:
        if not self.started:
            self.started = True
            self.live.start()
        kind = event.operation.kind
        names = [event.resource] if event.resource else event.operation.names
        for name in names:
            state, since = self.states.get((kind, name), ("", 0.0))
            if event.state == "started" and state:
                continue
            if event.state != state:
                since = time.monotonic()
            self.states[kind, name] = (event.state, since)
        if event.state == "failed":
            self.live.console.print(style("failed: ", fg="red") + event.error)

    def _draw(self) -> Table:
        from rich.spinner import Spinner
        from rich.table import Table

        now = time.monotonic()
        finished = ("done", "ready", "removed")
        busy = [item for item in self.states.items() if item[1][0] not in finished]
        ready = len(self.states) - len(busy)
        grid = Table.grid(padding=(0, 2))
        for (kind, name), (state, since) in busy[:SHOWN]:
            mark = "x" if state == "failed" else Spinner("dots")
            grid.add_row(mark, kind, name, state, f"{now - since:.0f} s" if now - since >= 1 else "")
        if len(busy) > SHOWN:
            grid.add_row("", "", f"and {len(busy) - SHOWN} more", "", "")
        grid.add_row("", "", f"{ready} of {len(self.states)} ready", "", f"{now - self.begun:.0f} s")
        return grid
