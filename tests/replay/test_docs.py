"""The page on replays: its examples are true."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner

from wardian.cli.replays import replay_command
from wardian.replay.compare import Verdict, rules
from wardian.replay.compare.rules import without_directives

TEXT = (Path(__file__).parents[2] / "docs" / "replay.md").read_text(encoding="utf-8")


def test_python_example_runs() -> None:
    """The example in Python holds."""
    exec(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], {})


def test_the_declarations_shown_are_read() -> None:
    """The cell with declarations has those that the page says, and they are not its code."""
    cell = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
    found = rules(cell)
    assert [(item.relative, item.absolute, item.dimension) for item in found.tolerances] == [(0.05, 0.0, None), (0.0, 0.002, "time")]
    assert found.ignore == (r"session=\w+",)
    assert without_directives(cell) == "%%on client\nprint(measure())"


def test_options_and_verdicts_are_those_that_there_are() -> None:
    """Every option of the command and every verdict stands on the page, and the JSON shown is JSON."""
    text = CliRunner().invoke(replay_command, ["--help"]).output
    own = set(re.findall(r"^  (--[a-z]+)", text, re.M)) - {"--help", "--parameter", "--file", "--instance"}
    assert {"--repeat", "--against", "--tolerance", "--report", "--json", "--provider", "--set", "--timeout"} == own
    for option in own - {"--timeout"}:
        assert f"`{option}" in TEXT, option
    for verdict in Verdict:
        assert verdict.value in TEXT, verdict
    for example in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL):
        json.loads(example)
