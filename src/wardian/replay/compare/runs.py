"""Whole runs: which cells belong together, what differs in each, and the verdict on all. Pure."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import outputs, samples
from .outputs import Message
from .results import CellComparison, Comparison, Doubts, Finding, Place, Times, Verdict, worst
from .rules import Rules, without_directives


@dataclass(frozen=True, slots=True)
class ExecutedCell:
    """One execution of a cell.

    key: its id in the notebook, or None. selector: where it was bound, None is home. nodes: where it ran.
    seconds: of the whole; node_seconds: from its begin until each node had done. doubts: why numbers measured meanwhile are in doubt.
    """

    key: str | None
    source: str
    selector: str | None = None
    nodes: tuple[str, ...] = ()
    status: str = "ok"
    messages: tuple[Message, ...] = ()
    seconds: float | None = None
    node_seconds: Mapping[str, float] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its first line that says something."""
        lines = [line.strip() for line in self.source.splitlines()]
        return next((line for line in lines if line and not line.startswith(("%%on", "#|"))), "")[:100]


@dataclass(frozen=True, slots=True)
class ExecutedRun:
    """One execution of a notebook.

    names: texts that name this run and its environment. caveats: what could not be honoured, None where that is not known.
    """

    id: str
    cells: tuple[ExecutedCell, ...]
    names: tuple[str, ...] = ()
    caveats: tuple[str, ...] | None = None


RulesOf = Callable[[ExecutedCell], Rules]
Pair = tuple[ExecutedCell | None, ExecutedCell | None]


def compare(old: Sequence[ExecutedRun], new: Sequence[ExecutedRun], rules_of: RulesOf) -> Comparison:
    """Recorded runs (the first is the reference) with new ones (whose first says which cells there are now).

    rules_of: what is accepted in a cell.
    """
    reference, latest = old[0], new[0]
    others = [dict(_keyed(reference.cells, run.cells)) for run in old[1:]]
    further = [dict(_keyed(reference.cells, run.cells)) for run in new]
    numbers = {id(cell): number for number, cell in enumerate(latest.cells, 1)}
    cells = []
    for recorded, came in match(reference.cells, latest.cells):
        number = numbers[id(came)] if came is not None else None
        if recorded is None or came is None:
            cells.append(_alone(recorded, came, number))
            continue
        olds = [recorded, *(cell for known in others if (cell := known.get(id(recorded))) is not None)]
        news = [cell for known in further if (cell := known.get(id(recorded))) is not None]
        cells.append(_cell(olds, news, number, rules_of(came)))
    cells = _settled(cells)
    known = reference.caveats
    unhonoured = tuple(dict.fromkeys(item for run in new for item in run.caveats or () if known is not None and item not in known))
    if unhonoured:
        cells = [_excused(cell) for cell in cells]
    verdict = worst(cell.verdict for cell in cells)
    return Comparison(verdict, tuple(cells), unhonoured=unhonoured)


def match(old: Sequence[ExecutedCell], new: Sequence[ExecutedCell]) -> list[Pair]:
    """Which cells belong together: by id, else by source, else by their place between others that do; in the order of the new ones."""
    partner: dict[int, int] = {}
    for name in (_key, _source):
        _match_by(old, new, name, partner)
    _match_gaps(len(old), len(new), partner)
    taken = {right: left for left, right in partner.items()}
    pairs: list[Pair] = []
    shown = 0
    for index, cell in enumerate(new):
        left = taken.get(index)
        if left is not None:
            # what is gone is told before the next that is left
            pairs += [(old[gone], None) for gone in range(shown, left) if gone not in partner]
            shown = max(shown, left + 1)
        pairs.append((old[left] if left is not None else None, cell))
    pairs += [(old[gone], None) for gone in range(shown, len(old)) if gone not in partner]
    return pairs


def _keyed(reference: Sequence[ExecutedCell], cells: Sequence[ExecutedCell]) -> Iterable[tuple[int, ExecutedCell]]:
    return ((id(one), other) for one, other in match(reference, cells) if one is not None and other is not None)


def _key(cell: ExecutedCell) -> str | None:
    return cell.key


def _source(cell: ExecutedCell) -> str | None:
    return without_directives(cell.source)


def _match_by(
    old: Sequence[ExecutedCell], new: Sequence[ExecutedCell], name: Callable[[ExecutedCell], str | None], partner: dict[int, int]
) -> None:
    """Pair those cells that have a name of their own on both sides."""
    taken = set(partner.values())
    places: dict[str, list[int]] = {}
    for index, cell in enumerate(new):
        if index not in taken and (called := name(cell)):
            places.setdefault(called, []).append(index)
    for index, cell in enumerate(old):
        called = name(cell)
        if index not in partner and called and places.get(called):
            partner[index] = places[called].pop(0)


def _match_gaps(old: int, new: int, partner: dict[int, int]) -> None:
    """Pair what stands between the same neighbours, where it is as many on both sides."""
    taken = set(partner.values())
    anchors = [(-1, -1), *sorted(partner.items()), (old, new)]
    for (left, right), (next_left, next_right) in itertools.pairwise(anchors):
        between = range(right + 1, next_right)
        if next_left - left == next_right - right and taken.isdisjoint(between):
            partner.update(zip(range(left + 1, next_left), between, strict=True))


def _alone(recorded: ExecutedCell | None, came: ExecutedCell | None, number: int | None) -> CellComparison:
    cell = recorded or came
    if cell is None:
        raise ValueError("neither cell")
    verdict, words = (Verdict.MISSING, "it was recorded, and did not run now") if recorded else (Verdict.EXTRA, "it was not recorded")
    seconds = (cell.seconds,) if cell.seconds is not None else ()
    times: dict[str | None, Times] = {None: Times(seconds, ()) if recorded else Times((), seconds)}
    return CellComparison(cell.key or "", number, cell.title, verdict, times=times, words=words)


def _cell(old: Sequence[ExecutedCell], new: Sequence[ExecutedCell], number: int | None, rules: Rules) -> CellComparison:
    """One cell. Numbers that are tested have no verdict yet."""
    reference, latest = old[0], new[0]
    one, other = without_directives(reference.source), without_directives(latest.source)
    edited = (
        "" if one == other else "\n".join(difflib.unified_diff(one.splitlines(), other.splitlines(), "recorded", "now", lineterm="", n=2))
    )
    moved = None if reference.selector == latest.selector else (reference.selector or "here", latest.selector or "here")
    findings: list[Finding] = []
    words = [text for text, said in (("its source was edited", edited), ("it is bound to other nodes", moved)) if said]
    if rules.everything:
        words.append("its output is not compared, as declared")
    elif len(old) == len(new) == 1:
        findings = _findings(reference, latest, rules)
    else:
        findings = samples.merge(
            [_findings(reference, cell, rules) for cell in old[1:]], [_findings(reference, cell, rules) for cell in new]
        )
    return CellComparison(
        latest.key or "",
        number,
        latest.title,
        Verdict.IDENTICAL,
        tuple(findings),
        edited,
        moved,
        _times(old, new),
        "; ".join(words),
        Doubts(*(tuple(dict.fromkeys(why for cell in side for why in cell.doubts)) for side in (old, new))),
    )


def _settled(cells: Sequence[CellComparison]) -> list[CellComparison]:
    """The verdicts, once all numbers of all cells are known."""
    settled = iter(samples.settle([item for cell in cells for item in cell.findings]))
    result = []
    for cell in cells:
        if cell.verdict in (Verdict.MISSING, Verdict.EXTRA):
            result.append(cell)
            continue
        findings = tuple(next(settled) for _ in cell.findings)
        verdict = Verdict.DIFFERENT if cell.edited or cell.moved else worst(item.verdict for item in findings)
        if verdict is Verdict.IDENTICAL and cell.words:
            verdict = Verdict.EQUAL
        result.append(replace(cell, findings=findings, verdict=verdict))
    return result


def _excused(cell: CellComparison) -> CellComparison:
    """In an environment that is not the one asked for, other results are no finding about the experiment."""
    if cell.verdict is not Verdict.DIFFERENT or cell.edited or cell.moved:
        return cell
    return replace(cell, verdict=Verdict.UNHONOURED, words="the environment is not the one that was asked for")


def _findings(old: ExecutedCell, new: ExecutedCell, rules: Rules) -> list[Finding]:
    """What differs between two executions, node by node."""
    one, other = outputs.by_node(old.messages), outputs.by_node(new.messages)
    found: list[Finding] = []
    for node in sorted({*one, *other}, key=lambda name: (name is not None, name or "")):
        place = Place(node, "output")
        if node is not None and node in old.nodes and node not in new.nodes:
            found.append(Finding(place, "missing", Verdict.DIFFERENT, "", "", "it ran there then, and not now"))
        elif node is not None and node in new.nodes and node not in old.nodes:
            found.append(Finding(place, "extra", Verdict.DIFFERENT, "", "", "it runs there now, and did not then"))
        else:
            found += outputs.compare(one.get(node, outputs.Shown()), other.get(node, outputs.Shown()), node, rules)
    return found


def _times(old: Sequence[ExecutedCell], new: Sequence[ExecutedCell]) -> dict[str | None, Times]:
    def of(cells: Sequence[ExecutedCell], node: str | None) -> tuple[float, ...]:
        found = [cell.seconds if node is None else cell.node_seconds.get(node) for cell in cells]
        return tuple(value for value in found if value is not None)

    nodes = dict.fromkeys(node for cell in (*old, *new) for node in cell.node_seconds)
    return {node: Times(of(old, node), of(new, node)) for node in (None, *nodes)}
