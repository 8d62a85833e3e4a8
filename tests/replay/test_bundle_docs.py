"""The page on bundles and locks: its examples are true."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from click.testing import CliRunner

from wardian.cli.bundles import pack_command, unpack_command
from wardian.cli.locks import lock_command
from wardian.cli.notebooks import run_command
from wardian.replay import bundle, lock
from wardian.replay.bundle import citation, origin, reading

TEXT = (Path(__file__).parents[2] / "docs" / "bundles.md").read_text(encoding="utf-8")


def test_python_example_runs() -> None:
    """The example in Python holds."""
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(example, {})


def test_yaml_examples_are_read(tmp_path: Path) -> None:
    """The citation file gives title, authors and licence; the lock is one."""
    cited, locked = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / citation.FILE
    path.write_text(cited)
    found = citation.read(path, name="x", description=None, users=(), licence_file=False)
    assert (found.title, found.licence, found.date) == ("Adaptive video behind a shared bottleneck", "CC-BY-4.0", "2026-03-02")
    assert found.authors[0].orcid == "https://orcid.org/0000-0002-1825-0097"
    assert found.lacking == ()
    (tmp_path / lock.FILE).write_text(locked)
    data = lock.load(tmp_path / lock.FILE)
    assert lock.differences(data, yaml.safe_load(lock.dumps(data))) == []


def test_commands_and_names_are_those_that_there_are() -> None:
    """Every option stands on the page, every file of the bundle's, every bound, and the addresses shown are addresses."""
    for command in (pack_command, unpack_command, lock_command):
        help_ = CliRunner().invoke(command, ["--help"]).output
        for option in set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", help_, re.M)) - {
            "--help",
            "--file",
            "--instance",
            "--output",
            "--json",
            "--provider",
        }:
            assert option in TEXT, option
    for option in ("--into", "--notebook"):
        assert option in CliRunner().invoke(run_command, ["--help"]).output
        assert f"`{option}" in TEXT or f"{option} " in TEXT
    for name in (bundle.METADATA, bundle.TROVI, bundle.JOURNAL, bundle.REPORT, bundle.MANIFEST, bundle.IMAGES, bundle.COLLECTED):
        assert f"`{name}" in TEXT, name
    assert f"{reading.MOST_BYTES >> 30} GiB or {reading.MOST_ENTRIES:,} files" in TEXT
    assert f"{reading.RATIO} times" in TEXT
    for keyword in citation.KEYWORDS:
        assert keyword in TEXT
    addresses = re.findall(r"wardian run ((?:https|git|file)\S+)", TEXT)
    assert [origin.parse(address).ref for address in addresses] == [None, "v1.2", "0f3c2a1"]


def test_the_refusal_shown_is_what_is_said() -> None:
    """The differences that the page shows read as the command prints them."""
    locked, now = ({"packages": {"client": {"dpkg": {"iperf3": version}}}} for version in ("3.12-1", "3.9-1"))
    (found,) = lock.differences(locked, now, ("packages",))
    assert f"  {found}\n" in TEXT
