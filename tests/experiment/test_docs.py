"""The reference of the experiment file: its examples load, and it leaves no field out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from wardian.experiment import file, model, tables
from wardian.providers import registry

LINKS = Path(__file__).parents[2] / "docs" / "links.md"
REFERENCE = Path(__file__).parents[2] / "docs" / "experiment-file.md"
SITES = Path(__file__).parents[2] / "docs" / "several-sites.md"


def examples() -> list[str]:
    """The YAML examples of the reference; one that is no whole file is put into one."""
    found = [
        text for page in (REFERENCE, LINKS, SITES) for text in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    return [text if re.search("^name:", text, re.MULTILINE) else _completed(text) for text in found]


def _completed(text: str) -> str:
    parts = ["name: example\n", text]
    if not re.search("^nodes:", text, re.MULTILINE):
        parts.append("nodes: {server: {networks: []}, client: {count: 4, networks: [], roles: [user]}}\n")
    if not re.search("^networks:", text, re.MULTILINE) and re.search(r"\b(east|west)\b", text):
        parts.append("networks: {east: {subnet: 10.2.0.0/24}, west: {subnet: 10.1.0.0/24}}\n")
    return "".join(parts)


@pytest.mark.parametrize("text", examples())
def test_examples_load(text: str) -> None:
    """Every example of the reference is a file, or a part of one, that loads and reads back."""
    made = file.loads(text)
    assert file.loads(file.dumps(made)) == made


@pytest.mark.parametrize("part", [item for item in vars(model).values() if isinstance(item, type) and issubclass(item, BaseModel)])
def test_every_field_is_described(part: type[BaseModel]) -> None:
    """Each field of each part stands in the reference, and has a description in the schema."""
    text = REFERENCE.read_text(encoding="utf-8")
    for name, field in part.model_fields.items():
        assert f"`{name}`" in text or f"`{name}:" in text, f"{part.__name__}.{name}"
        assert field.description, f"{part.__name__}.{name}"


def test_the_trace_shown_is_one() -> None:
    """The trace of the page on links is read as it says."""
    match = re.search(r"```csv\n(.*?)```", LINKS.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    trace = tables.parse_trace(match[1], "lte.csv")
    assert trace.steps[1] == (0.5, {"rate": 9_100_000, "delay": 0.041})


def test_what_sites_refuse_is_what_the_page_shows() -> None:
    """The page on several sites shows the error of its own example with a network that both sites have."""
    page = SITES.read_text(encoding="utf-8")
    example = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
    assert file.loads(example, providers=registry.settings_models()).sites["tacc"].provider == "openstack"
    with pytest.raises(file.ExperimentFileError) as caught:
        file.loads(example.replace("networks: [south]", "networks: [north]"), "experiment.yaml")
    assert f"error: {caught.value}\n" in page


def test_python_example_runs() -> None:
    """The Python example of the reference runs as it stands."""
    match = re.search(r"```python\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    exec(match[1], {})


def test_problems_shown_are_those_that_are_made() -> None:
    """The problems that the reference shows are those of the file that it shows above them."""
    text = REFERENCE.read_text(encoding="utf-8")
    match = re.search(r"```yaml-with-problems\n(.*?)```.*?```text\n(.*?)```", text, re.DOTALL)
    assert match
    with pytest.raises(file.ExperimentFileError) as caught:
        file.loads(match[1])
    assert str(caught.value).splitlines() == match[2].splitlines()
