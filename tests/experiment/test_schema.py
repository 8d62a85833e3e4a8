"""The JSON Schema accepts the files that load, and refuses what an editor should underline."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict

from wardian.experiment import document, file
from wardian.experiment.model import Experiment
from wardian.experiment.schema import schema
from wardian.experiment.templates import ORDER, read

from .strategies import experiments
from .test_docs import examples
from .test_file import WHOLE


class Proxy(BaseModel):
    model_config = ConfigDict(extra="forbid")
    host: str
    port: int = 22


class CloudSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    region: Literal["north", "south"]
    proxy: Proxy | None = None


class HereSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    cgroups: bool = True
    relays: int = 1


PROVIDERS: dict[str, type[BaseModel]] = {"local": HereSettings, "cloud": CloudSettings}


def errors(text: str, providers: dict[str, type[BaseModel]] | None = None) -> list[str]:
    """Where the schema finds a text wrong."""
    data = document.read(text, "experiment.yaml").data(lambda path, scalar: scalar.value)
    return [error.json_path for error in Draft202012Validator(schema(providers)).iter_errors(data)]


@pytest.mark.parametrize("providers", [None, {}, PROVIDERS])
def test_the_schema_is_one(providers: dict[str, type[BaseModel]] | None) -> None:
    """With and without providers it is a valid schema of the 2020-12 dialect, and every reference in it leads somewhere."""
    made = schema(providers)
    Draft202012Validator.check_schema(made)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def references(node: Any) -> list[str]:
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        found = [node["$ref"]] if isinstance(node, dict) and "$ref" in node else []
        return found + [item for part in inner for item in references(part)]

    assert {reference.removeprefix("#/$defs/") for reference in references(made)} <= set(made["$defs"])


@pytest.mark.parametrize("text", [*map(read, ORDER), WHOLE, *examples()])
def test_files_that_load_are_accepted(text: str) -> None:
    """Every template, every example of the documentation and a file with every field and short form pass."""
    assert errors(text) == []


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(experiments())
def test_what_is_written_is_accepted(made: Experiment) -> None:
    """Whatever `dumps` writes passes."""
    assert errors(file.dumps(made)) == []


@pytest.mark.parametrize(
    "text",
    [
        "nodes: {a: {memry: 1}}",
        "nodes: {a: {count: abc}}",
        "nodes: {a: {count: -1}}",
        "nodes: {a: {networks: {n: {dealy: 1ms}}}}",
        "nodes: {a: {networks: {n: {up: {x: 1}}}}}",
        "nodes: {a: {files: [{source: a}]}}",
        "nodes: {A: {}}",
        "nodes: {}",
        "nodes: 5",
        "nodes: [a, a]",
        "nodes: [a]\nzone: 1",
        "nodes: [a]\nnetworks: {n: {rate: 1}}",
        "nodes: [a]\nlinks: {l: {}}",
        "nodes: [a]\nlinks: {l: {between: [a]}}",
        "nodes: [a]\nservices: {s: {on: a}}",
        "nodes: [a]\nservices: {s: {on: a, command: x, restart: maybe}}",
        "nodes: [a]\nservices: {s: {on: a, command: x, ready: {port: 70000}}}",
        "nodes: [a]\ncollect: [{on: a}]",
        "nodes: [a]\nlease: {duration: 1h, at_end: never}",
        "nodes: [a]\nparameters: {p: {default: 1, typ: integer}}",
        "nodes: [a]\nparameters: {p-q: 1}",
        "nodes: [a]\nsites: {s: {}}",
    ],
)
def test_what_does_not_load_is_refused(text: str) -> None:
    """Unknown fields, wrong types, wrong words and what is missing are found by the schema as well."""
    assert errors(f"name: x\n{text}") != []


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("settings: {cgroups: no, relays: 3}", True),
        ("settings: {relays: '${n}'}", True),
        ("settings: {region: north}", False),
        ("settings: {relays: many}", False),
        ("provider: local\nsettings: {cgroup: yes}", False),
        ("provider: cloud\nsettings: {region: north, proxy: {host: a}}", True),
        ("provider: cloud\nsettings: {region: '${where}'}", True),
        ("provider: cloud\nsettings: {region: west}", False),
        ("provider: cloud\nsettings: {region: north, proxy: {port: 1}}", False),
        ("provider: cloud\nsettings: {region: north, proxy: {host: a, prot: 1}}", False),
        ("provider: lab\nsites: {lab: {provider: cloud, settings: {region: south}}}", True),
        ("provider: lab\nsites: {lab: {provider: cloud, settings: {cgroups: yes}}}", False),
        ("provider: lab\nsites: {lab: {provider: local, settings: {cgroups: yes}}}", True),
    ],
)
def test_settings_follow_the_provider(text: str, right: bool) -> None:
    """The settings of the provider that is named, or of the default, are checked by its own schema, for sites too."""
    assert (errors(f"name: x\nnodes: [a]\n{text}", PROVIDERS) == []) is right
    assert errors(f"name: x\nnodes: [a]\n{text}") == []
