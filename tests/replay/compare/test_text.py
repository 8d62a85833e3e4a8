"""Text compared: numbers with units, volatile parts, lines that are gone, and what must never pass for the same."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wardian.replay.compare import text
from wardian.replay.compare.numbers import Tolerance, find, parse, parse_tolerances
from wardian.replay.compare.results import Finding, Place, Verdict, worst
from wardian.replay.compare.rules import Rules, rules

PLACE = Place("client[0]", "stdout")
EXACT = Rules()
FIVE = rules("#| tolerance: 5%")

words = st.text(string.ascii_lowercase + " :,;()/=", min_size=1, max_size=12)
values = st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda value: f"{value:.6g}")
lines = st.lists(st.one_of(words, values.map(" {} ".format), st.sampled_from(["10.0.0.3", " 3 ms", "2026-01-02 10:11:12"])), max_size=5)
texts = st.lists(lines.map("".join), max_size=6).map("\n".join) | st.text(max_size=60)


def compared(old: str, new: str, accepted: Rules = EXACT) -> tuple[Verdict, list[Finding]]:
    found = text.compare(old, new, PLACE, accepted)
    return worst(item.verdict for item in found), found


@given(texts)
def test_anything_is_identical_to_itself(some: str) -> None:
    """No text differs from itself."""
    assert compared(some, some) == (Verdict.IDENTICAL, [])


@given(texts, texts, st.sampled_from([EXACT, FIVE]))
def test_verdicts_are_symmetric(one: str, other: str, accepted: Rules) -> None:
    """Which of two texts was recorded does not matter to the verdict, and only the same bytes are identical."""
    verdict = compared(one, other, accepted)[0]
    assert verdict == compared(other, one, accepted)[0]
    assert (verdict is Verdict.IDENTICAL) == (one == other)


@given(lines, lines, values, values, st.sampled_from([0.0, 0.01, 0.05, 0.5]))
def test_a_number_beyond_tolerance_is_found(before: list[str], after: list[str], old: str, new: str, share: float) -> None:
    """A number that changed by more than is accepted is different wherever it stands, and one within is not."""
    accepted = Rules(tolerances=(Tolerance(relative=share),)) if share else EXACT
    texts = ["".join(before) + f" {value} " + "".join(after) for value in (old, new)]
    far = abs(float(old) - float(new)) > share * max(abs(float(old)), abs(float(new)))
    verdict, found = compared(*texts, accepted)
    if far:
        assert verdict is Verdict.DIFFERENT
        assert any((item.old, item.new) == (old, new) for item in found if item.kind == "number") or len(found) == 1
    else:
        assert verdict.fine


@given(
    words, words, st.sampled_from(["10.0.0.3", "10.0.0.4", "2026-01-02 10:11:12", "/tmp/tmpa1b2", "0x7f12ab34cd56", "52:54:00:12:34:56"])
)
def test_what_is_beside_volatile_parts_counts(one: str, other: str, part: str) -> None:
    """Texts that differ in more than their volatile part are different, whatever that part is."""
    assume(one.split() != other.split())
    assert compared(f"{one} {part}", f"{other} {part}")[0] is Verdict.DIFFERENT


@given(texts, st.sampled_from(["date", "IP address", "number", "volatile", "#", "⟨date⟩", "\ue000"]))
def test_names_of_volatile_parts_are_no_volatile_parts(some: str, name: str) -> None:
    """No text can pose as a volatile part or a number."""
    assert compared(f"{some}\n10.0.0.3", f"{some}\n{name}")[0] is Verdict.DIFFERENT
    assert compared(f"{some}\n17", f"{some}\n{name}")[0] is Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("begun 2026-11-27T17:42:49.12Z", "begun 2026-11-28T01:02:03.4Z", "date"),
        ("begun 2026-11-27", "begun 2026-11-28", "date"),
        ("Fri Nov 27 17:42:49 UTC 2026", "Sat Nov 28 09:00:01 UTC 2026", "date"),
        ("27/Nov/2026:17:42:49 +0000 GET", "28/Nov/2026:07:02:00 +0000 GET", "date"),
        ("at 17:42:49.123 sharp", "at 07:02:09.001 sharp", "time"),
        ("PING server (10.64.0.2)", "PING server (10.65.0.2)", "IP address"),
        ("to fe80::1ff:fe23:4567:890a now", "to fe80::2aa:bb23:4567:890a now", "IP address"),
        ("from 10.0.0.1:43210 on", "from 10.0.0.1:51234 on", "IP address"),
        ("local 10.0.0.1 port 43210 connected", "local 10.0.0.1 port 51234 connected", "port"),
        ("link/ether 52:54:00:12:34:56 brd", "link/ether 52:54:00:65:43:21 brd", "MAC address"),
        ("pid 4711 ended", "pid 815 ended", "process number"),
        ("sshd[4711]: bye", "sshd[815]: bye", "process number"),
        ("wrote /tmp/tmpab12/x.csv", "wrote /tmp/tmpcd34/x.csv", "temporary path"),
        ("<object at 0x7f12ab34cd56>", "<object at 0x7f99ab34cd00>", "memory address"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 223e4567-e89b-12d3-a456-426614174000", "uuid"),
        ("100%|###| 5/5 [00:01<00:00,  4.98it/s]", "100%|###| 5/5 [00:02<00:00,  2.31it/s]", "progress"),
    ],
)
def test_volatile_parts(old: str, new: str, kind: str) -> None:
    """What differs from run to run and means nothing is recognised, and said."""
    verdict, found = compared(old, new)
    assert verdict is Verdict.EQUAL
    assert {(item.kind, item.words) for item in found} == {("volatile", kind)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("client-0 answered", "client-1 answered"),
        ("Python 3.11.2", "Python 3.11.3"),
        ("listening on 10.0.0.1:8080", "listening on 10.0.0.1:8081"),
        ("port 80", "port 81"),
        ("process 3 of 4", "process 4 of 4"),
        ("lost 1,234", "lost 1,235"),
        ("0x1f", "0x2f"),
        ("sha256:ab12cd", "sha256:ab12ce"),
        ("5 apples", "5 pears"),
        ("5 ms", "5 MB"),
        ("nan", "3.2"),
        ("a\nb", "b\na"),
        ("[1,2,3]", "[1,2,4]"),
    ],
)
def test_what_is_not_volatile(old: str, new: str) -> None:
    """Names, versions, ports of services, digests, units and the order of lines count."""
    assert compared(old, new)[0] is Verdict.DIFFERENT


def test_units_are_understood() -> None:
    """The same quantity in another unit is equal; a changed one is said with its place, both values and the change."""
    assert compared("took 999 ms, 12 Mbits/sec", "took 0.999 s, 12000 kbit/s")[0] is Verdict.EQUAL
    assert compared("took 999 ms", "took 1.01 s", FIVE)[0] is Verdict.EQUAL
    verdict, (found,) = compared("first\nrtt 20.8 ms\nlast", "first\nrtt 41.2 ms\nlast", FIVE)
    assert verdict is Verdict.DIFFERENT
    assert str(found) == "client[0], stdout, line 2: 20.8 ms → 41.2 ms (+98.1 %, beyond the tolerance)"


def test_lines_that_are_gone_and_new() -> None:
    """A line that is missing or extra is told at its place, and lines below it are still held against their own."""
    verdict, found = compared("a\nb 1\nc 2", "a\nc 3\nd")
    assert verdict is Verdict.DIFFERENT
    assert [(item.kind, item.place.line, item.old, item.new) for item in found] == [
        ("missing", 2, "b 1", ""),
        ("number", 3, "2", "3"),
        ("extra", 3, "", "d"),
    ]


def test_declared_parts_are_ignored() -> None:
    """A regular expression that is declared is left out, and no more than it."""
    accepted = rules("#| ignore: token=\\w+")
    assert compared("token=abc ok", "token=xyz ok", accepted)[0] is Verdict.EQUAL
    assert compared("token=abc ok", "token=xyz no", accepted)[0] is Verdict.DIFFERENT


def test_many_lines_stay_quick() -> None:
    """Four thousand lines that all differ are compared without being aligned with one another, each with that in its place."""
    old = "\n".join(f"line {index} {'x' * (index % 7)}" for index in range(4_000))
    _, found = compared(old, old.replace("line", "Line"))
    assert len(found) == 4_000


@pytest.mark.parametrize(
    ("said", "value", "dimension"),
    [("3", 3, ""), ("-0.5", -0.5, ""), ("1e-3", 1e-3, ""), (".5", 0.5, ""), ("20ms", 0.02, "time"), ("3 µs", 3e-6, "time"),
     ("10 Mbit/s", 1e7, "rate"), ("1.5 GiB", 1.5 * 2**30, "size"), ("2 MB/s", 1.6e7, "rate"), ("0%", 0, "percentage")],
)  # fmt: skip
def test_numbers(said: str, value: float, dimension: str) -> None:
    """Numbers are read with their units, in seconds, bits a second and bytes."""
    number = parse(said)
    assert number
    assert (number.value, number.dimension) == (pytest.approx(value), dimension)


@pytest.mark.parametrize("said", ["v2", "3.11.2", "5th", "client-0", "0x7f", "a1"])
def test_what_is_no_number(said: str) -> None:
    """Digits of names, versions and addresses are none."""
    assert not list(find(said))


@pytest.mark.parametrize("said", ["", "five", "-5%", "5 apples", "nan", "5%,"])
def test_a_tolerance_that_cannot_be_read(said: str) -> None:
    """What is no tolerance is refused with what was expected."""
    with pytest.raises(ValueError, match="a tolerance such as 5%"):
        parse_tolerances(said)


def test_tolerances_know_their_unit() -> None:
    """A tolerance of time is for times; of several, any suffices."""
    accepted = rules("#| tolerance: 1%, 2ms")
    assert compared("3 ms", "4.5 ms", accepted)[0] is Verdict.EQUAL
    assert compared("3 kB", "4.5 kB", accepted)[0] is Verdict.DIFFERENT
    assert compared("100 kB", "100.9 kB", accepted)[0] is Verdict.EQUAL
