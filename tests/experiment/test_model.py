# ruff: noqa: E501 (tables of cases, one a line)
"""The experiment as Python objects."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from wardian.experiment.model import Access, Experiment, Link, Node, Parameter, QueueSpec, Ready, Service, Shape


def test_parts_are_frozen_and_know_their_fields() -> None:
    """No part can be changed once made, and a field that it does not have is refused."""
    node = Node(cpus=1)
    with pytest.raises(ValidationError, match="frozen"):
        node.cpus = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="memry"):
        Node(memry="1GiB")  # type: ignore[call-arg]


def test_a_direction_is_laid_over_what_is_common() -> None:
    """What is written for one direction replaces the common part there, and only there."""
    link = Link.model_validate(
        {"between": ["a", "b"], "delay": "10ms", "rate": "1mbit", "queue": 5, "back": {"delay": "20ms", "queue": "1KiB"}}
    )
    there, back = link.directions()
    assert there == {"delay": 0.01, "rate": 10**6, "queue": {"packets": 5}}
    assert back == {"delay": 0.02, "rate": 10**6, "queue": {"bytes": 1024}}


def test_a_queue_stays_only_where_there_is_a_rate() -> None:
    """A common queue with a rate for one direction alone is a queue of that direction."""
    access = Access.model_validate({"queue": 5, "up": {"rate": "1mbit"}, "down": {"loss": "1%"}})
    assert access.directions() == ({"rate": 10**6, "queue": {"packets": 5}}, {"loss": 0.01})


@pytest.mark.parametrize("shape", [{"queue": 5}, {"up": {"queue": 5}}, {"up": {"rate": "1mbit"}, "down": {"queue": 5}}])
def test_a_queue_without_any_rate_is_refused(shape: dict[str, object]) -> None:
    """A queue where nothing limits the rate would never fill, and so is an error."""
    with pytest.raises(ValidationError, match="a rate beside the queue"):
        Access.model_validate(shape)


def test_the_shape_holds_what_is_set() -> None:
    """A shape as plain values has only the parts that were given."""
    assert Shape().shape == {}
    assert Shape(delay="1ms", queue=QueueSpec(packets=3)).shape == {"delay": 0.001, "queue": {"packets": 3}}  # type: ignore[arg-type]


@pytest.mark.parametrize("queue", [{}, {"packets": 1, "bytes": 1}, {"packets": 0}, True, "-1", "2 cows"])
def test_a_queue_is_packets_or_bytes(queue: object) -> None:
    """A queue is one of the two, at least one, and nothing else."""
    with pytest.raises(ValidationError):
        Shape.model_validate({"queue": queue})


@pytest.mark.parametrize("name", ["a", "a" * 40, "a-b-1"])
def test_names_that_are_hostnames_are_accepted(name: str) -> None:
    """A name may have lower-case letters, digits and inner hyphens, up to 40 of them."""
    assert list(Experiment.model_validate({"name": name, "nodes": {name: {}}}).nodes) == [name]


@pytest.mark.parametrize("name", ["", "A", "a_b", "1a", "a-", "-a", "a" * 41, "a\n", "all", "here", 5, None])
def test_other_names_are_refused(name: object) -> None:
    """What would be no hostname, or has a meaning in selectors, is no name."""
    for data in ({"name": name, "nodes": {"a": {}}}, {"name": "a", "nodes": {"a": {"roles": [name]}}}):
        with pytest.raises(ValidationError):
            Experiment.model_validate(data)


def test_a_readiness_command_may_be_a_line_for_the_shell() -> None:
    """A readiness command written as text runs by /bin/sh, as a service's does."""
    assert Ready.model_validate({"command": "test -e /x"}).command == ["/bin/sh", "-c", "test -e /x"]
    assert Ready.model_validate({"command": ["true"]}).command == ["true"]


@pytest.mark.parametrize("command", ["", " ", [], [""], [5], {}, None, 5])
def test_a_command_is_not_empty(command: object) -> None:
    """A command without a program is refused, whatever its form."""
    with pytest.raises(ValidationError, match="a command"):
        Service.model_validate({"on": "a", "command": command})


@pytest.mark.parametrize(
    ("definition", "kind"),
    [({"default": 5}, "integer"), ({"default": 5.0}, "number"), ({"default": True}, "boolean"), ({"default": "a"}, "string"),
     ({"default": 5, "type": "number"}, "number"), ({"default": "5", "type": "integer"}, "integer")],
)  # fmt: skip
def test_a_parameter_has_the_type_of_its_default_unless_given(definition: dict[str, object], kind: str) -> None:
    """The type that is written counts, and without one that of the default."""
    assert Parameter.model_validate(definition).kind == kind


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [("integer", "20", 20), ("integer", 20.0, 20), ("number", "1e3", 1000.0), ("number", 5, 5.0), ("boolean", "off", False), ("boolean", "YES", True),
     ("boolean", 1, True), ("string", 5, "5"), ("string", True, "true")],
)  # fmt: skip
def test_a_given_value_takes_the_parameter_s_type(kind: str, value: object, result: object) -> None:
    """A value that can be read as the parameter's type becomes of that type."""
    default = {"integer": 0, "number": 0.0, "boolean": False, "string": ""}[kind]
    found = Parameter.model_validate({"default": default}).check(value)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("definition", "value", "expected"),
    [
        ({"default": 5}, "x", "an integer"),
        ({"default": 5}, 2.5, "an integer"),
        ({"default": 5}, True, "an integer"),
        ({"default": 5}, "9" * 5000, "an integer"),
        ({"default": 5.0}, "inf", "a number"),
        ({"default": 5.0}, [], "a number"),
        ({"default": "a"}, None, "text"),
        ({"default": True}, "maybe", "true or false"),
        ({"default": 5, "minimum": 5}, 4, "at least 5"),
        ({"default": 5, "maximum": 5.5}, 6, "at most 5.5"),
        ({"default": "a", "choices": ["a", "b"]}, "c", "one of a, b"),
    ],
)
def test_a_given_value_that_does_not_fit_says_what_would(definition: dict[str, object], value: object, expected: str) -> None:
    """A value of another type or out of bounds raises ValueError with what was expected."""
    with pytest.raises(ValueError, match=f"^{expected}$"):
        Parameter.model_validate(definition).check(value)


@pytest.mark.parametrize(
    "definition",
    [{"default": 5, "minimum": 6}, {"default": "a", "choices": ["b"]}, {"default": "a", "type": "integer"}, {"default": None}, {}],
)
def test_a_default_fits_its_own_definition(definition: dict[str, object]) -> None:
    """A parameter whose default its own bounds or type refuse cannot be made."""
    with pytest.raises(ValidationError):
        Parameter.model_validate(definition)
