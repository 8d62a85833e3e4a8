"""One cell in several recorded runs and several new ones: each number as two samples, everything else by whether it always was so. Pure.

The first recorded run is the reference: every other execution is compared with it, and what differs is put together by its place there.
"""

from __future__ import annotations

import math
import statistics as stdlib
from collections.abc import Sequence
from dataclasses import replace

from . import statistics
from .numbers import UNITS, Number, change
from .results import Finding, Place, Test, Verdict

IMAGES = 0.02
"""How much less alike a picture may be than the recorded ones are to one another."""

_ALWAYS = 3
"""So many recorded runs that agree on a number say that it is computed, though new ones do not even agree with one another."""

_Key = tuple[Place, bool]
"""A place, and whether a number is there."""


def merge(old: Sequence[Sequence[Finding]], new: Sequence[Sequence[Finding]]) -> list[Finding]:
    """What differs between recorded and new executions as samples.

    old, new: what differs between the reference and each further recorded execution, and each new one.
    Numbers that only a test can tell apart come with its `p` and the verdict EQUAL: `settle` looks at all tests together.
    """
    olds, news = [_Execution(findings) for findings in old], [_Execution(findings) for findings in new]
    merged = []
    for key, first in {key: items[0] for run in (*olds, *news) for key, items in run.found.items()}.items():
        if first.kind == "number":
            merged.append(_number(first, olds, news))
        elif first.kind == "image" and first.numbers:
            merged.append(_image(key, first, olds, news))
        elif any(key in run.found for run in news):
            merged.append(_other(key, olds, news))
    return merged


def settle(findings: Sequence[Finding]) -> list[Finding]:
    """Verdicts on the numbers that were tested, of a whole replay: a test more must not make a false alarm more likely."""
    tested = [index for index, item in enumerate(findings) if item.test and item.test.p is not None and not item.tolerances]
    ps = [item.test.p for item in findings if item.test and item.test.p is not None and not item.tolerances]
    settled = list(findings)
    for index, rejected in zip(tested, statistics.rejected(ps), strict=True):
        if rejected:
            settled[index] = replace(settled[index], verdict=Verdict.DIFFERENT)
    return settled


def _number(first: Finding, old: Sequence[_Execution], new: Sequence[_Execution]) -> Finding:
    reference = _pair(first)[0]
    olds = [reference, *_values(first, old)]
    news = _values(first, new)
    if not news:
        # the line is gone in every new run, which is said of the line
        return replace(first, kind="volatile", verdict=Verdict.EQUAL, new="", words="varied among the recorded runs")
    test = _test(olds, news)
    median = stdlib.median(number.value for number in olds), stdlib.median(number.value for number in news)
    shown = _shown(olds, median[0]), _shown(news, median[1])
    moved = change(*median)
    if first.tolerances:
        fine = any(item.accepts(*median) for item in first.tolerances)
        words = f"medians, {moved + ', ' if moved else ''}{'within' if fine else 'beyond'} the tolerance"
        verdict = Verdict.EQUAL if fine else Verdict.DIFFERENT
    elif test.p is None:
        same = set(test.old) == set(test.new)
        verdict = Verdict.EQUAL if same else Verdict.DIFFERENT
        words = "the same values" if same else f"{moved + '; ' if moved else ''}it was the same in every run until now"
    else:
        verdict = Verdict.EQUAL
        words = f"medians, {moved + ', ' if moved else ''}{test.name}: p = {test.p:.2g}"
    words += f"; n = {len(olds)} and {len(news)}"
    return replace(first, old=shown[0], new=shown[1], verdict=verdict, words=words, test=test)


def _test(olds: Sequence[Number], news: Sequence[Number]) -> Test:
    old, new = tuple(number.value for number in olds), tuple(number.value for number in news)
    # What a clock showed twice alike to its last digit may still be otherwise the third time. New runs that agree prove nothing against
    # recorded ones that do not; recorded ones that always agreed do.
    known = len(set(old)) == 1 and (len(set(new)) == 1 or len(old) >= _ALWAYS) and not olds[0].measured
    name: str
    p: float | None
    if known or not all(map(math.isfinite, (*old, *new))):
        name, p = statistics.CONSTANT, None
    else:
        name, p = statistics.p_value(old, new, max(number.step for number in (*olds, *news)))
    *old_interval, how = statistics.interval(old)
    *new_interval, how_new = statistics.interval(new)
    return Test(
        name, p, old, new, stdlib.median(old), stdlib.median(new),
        (old_interval[0], old_interval[1]), (new_interval[0], new_interval[1]), how if how == how_new else f"{how}, {how_new}",
    )  # fmt: skip


def _image(key: _Key, first: Finding, old: Sequence[_Execution], new: Sequence[_Execution]) -> Finding:
    """Pictures are as alike as the recorded ones are to one another, or as is asked for, whichever is less."""
    likeness = stdlib.median(_likeness(run.found.get(key, ())) for run in new)
    usual = min((_likeness(run.found.get(key, ())) for run in old), default=None)
    accepted = all(item.verdict is Verdict.EQUAL for run in new for item in run.found.get(key, ()))
    fine = accepted or (usual is not None and likeness >= usual - IMAGES)
    words = f"similarity {likeness:.3f}" + (f"; the recorded ones among themselves {usual:.3f}" if usual is not None else "")
    return replace(first, verdict=Verdict.EQUAL if fine else Verdict.DIFFERENT, words=words)


def _other(key: _Key, old: Sequence[_Execution], new: Sequence[_Execution]) -> Finding:
    """Text and the rest: what varied among the recorded runs, too, is no difference."""
    came = [run.found[key] for run in new if key in run.found]
    bad = [item for items in came for item in items if item.verdict is not Verdict.EQUAL]
    if not bad:
        return came[0][0]
    if any(item.verdict is bad[0].verdict for run in old for item in run.found.get(key, ())):
        return replace(bad[0], verdict=Verdict.EQUAL, words="varied among the recorded runs, too")
    part = "" if len(new) == 1 else f"in {len(came)} of {len(new)} new runs"
    return replace(bad[0], words="; ".join(text for text in (bad[0].words, part) if text))


def _likeness(findings: Sequence[Finding]) -> float:
    return min((item.numbers[1].value for item in findings if item.numbers), default=1.0)


def _values(first: Finding, runs: Sequence[_Execution]) -> list[Number]:
    """What each run has at a number's place, without those that have nothing there."""
    found = []
    for run in runs:
        if there := run.found.get((first.place, True)):
            found.append(_pair(there[0])[1])
        elif not any(_hides(item, first.place) for item in run.structure):
            found.append(_pair(first)[0])
    return found


def _hides(finding: Finding, place: Place) -> bool:
    """Whether something other stands where the number was."""
    at = finding.place
    if at.node != place.node or at.part not in (place.part, "output"):
        return False
    return (at.line is None or at.line == place.line) and (at.path is None or at.path == place.path)


class _Execution:
    """What differs between the reference and one execution. structure: of that, what stands in the place of lines and displays."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.found: dict[_Key, list[Finding]] = {}
        for item in findings:
            self.found.setdefault((item.place, item.kind == "number"), []).append(item)
        self.structure = [item for item in findings if item.verdict is not Verdict.EQUAL and item.kind not in ("number", "extra")]


def _pair(finding: Finding) -> tuple[Number, Number]:
    if finding.numbers is None:
        raise ValueError(f"no number: {finding}")
    return finding.numbers


def _shown(values: Sequence[Number], median: float) -> str:
    """A median as it is written in one of the runs, or as a plain number in the unit that the first is written in."""
    for number in values:
        if number.value == median:
            return number.text
    first = values[0]
    unit = first.text.lstrip("+-−0123456789.eE").strip()
    gap = " " if unit and first.text.endswith(f" {unit}") else ""
    return f"{median / UNITS[unit][1]:.6g}{gap}{unit}" if unit in UNITS else f"{median:.6g}"
