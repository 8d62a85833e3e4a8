"""The kinds of value that the model's fields have: names, quantities with units, environment variables.

A validator here, and in `model.py`, raises with what it *expected*, as a phrase that fits after that word; `wording.py` makes
sentences of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from . import units

NAME = re.compile(r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")


def expected(text: str, at: str) -> PydanticCustomError:
    """An error of a whole part that concerns its field `at`."""
    return PydanticCustomError("expected", "{expected}", {"expected": text, "at": at})


def _quantity(parse: Callable[[object], Any], write: Callable[[Any], str], example: str) -> tuple[Any, ...]:
    return (
        BeforeValidator(parse),
        PlainSerializer(write, return_type=str, when_used="json"),
        WithJsonSchema({"type": ["string", "number"], "examples": [example]}),
    )


def at_least(smallest: int, text: str) -> AfterValidator:
    def check(value: int) -> int:
        if value < smallest:
            raise ValueError(f"at least {text}")
        return value

    return AfterValidator(check)


Duration = Annotated[float, *_quantity(units.parse_duration, units.format_duration, "30ms")]
Rate = Annotated[int, *_quantity(units.parse_rate, units.format_rate, "100mbit")]
Size = Annotated[int, *_quantity(units.parse_size, units.format_size, "2GiB")]
Fraction = Annotated[float, *_quantity(units.parse_fraction, units.format_fraction, "0.05%")]


def _name(value: object) -> object:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("a name of at most 40 lower-case letters, digits and inner hyphens that starts with a letter")
    if value in ("all", "here"):
        raise ValueError(f"a name other than {value!r}, which has a meaning of its own in selectors")
    return value


def _variable(value: object) -> object:
    if not isinstance(value, str) or not VARIABLE.fullmatch(value):
        raise ValueError("a name of letters, digits and underscores that does not start with a digit")
    return value


Name = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME.pattern})]
Variable = Annotated[str, BeforeValidator(_variable), WithJsonSchema({"type": "string", "pattern": VARIABLE.pattern})]


def _texts(value: object) -> object:
    """Environment variables: numbers and booleans are taken as the text that YAML shows for them."""
    if not isinstance(value, dict):
        return value
    return {
        key: str(item).lower() if isinstance(item, bool) else str(item) if isinstance(item, int | float) else item
        for key, item in value.items()
    }


Variables = Annotated[dict[Variable, str], BeforeValidator(_texts)]


class Model(BaseModel):
    """Base of every part: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
