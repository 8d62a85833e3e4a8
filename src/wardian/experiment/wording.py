"""What the model's validation found, as sentences for people."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from .document import Path
from .selectors import nearest

_EXPECTED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "ip_v4_address": "an IPv4 address such as 10.1.0.10",
    "ip_v4_network": "an IPv4 network such as 10.1.0.0/24, its part for the members all zero",
    "ip_any_address": "an IP address",
    "path_type": "a path",
    "value_error": "{error}",
    "expected": "{expected}",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong at a path of the experiment; where that is in the text is not known here.

    at_key: whether it is the name at the path that is wrong, and not the value.
    missing: whether there is nothing at the path.
    """

    path: Path
    message: str
    expected: str | None = None
    suggestion: str | None = None
    at_key: bool = False
    missing: bool = False


def findings(model: type[BaseModel], errors: Sequence[ErrorDetails], under: Path = ()) -> list[Finding]:
    """Pydantic's errors about `model`, whose fields stand below the path `under`, in plain words."""
    return [_finding(model, error, under) for error in errors]


def _finding(model: type[BaseModel], error: ErrorDetails, under: Path) -> Finding:
    kind, context = error["type"], dict(error.get("ctx") or {})
    steps = tuple(step for step in error["loc"] if step != "[key]")
    path = (*under, *steps)
    if kind == "missing":
        return Finding(path, "missing", _described(model, steps), missing=True)
    if kind == "extra_forbidden":
        fields = _fields(model, steps[:-1])
        return Finding(path, "unknown field", _listed(fields), nearest(str(steps[-1]), fields), at_key=True)
    if "[key]" in error["loc"]:
        return Finding(path, "not a name that can be used here", _EXPECTED[kind].format_map(context), at_key=True)
    for step in str(context.pop("at", "")).split("."):
        path = (*path, step) if step else path
    if kind not in _EXPECTED:
        return Finding(path, error["msg"][:1].lower() + error["msg"][1:])
    expected = _EXPECTED[kind].format_map(context)
    suggestion = None
    if kind in ("literal_error", "enum"):
        suggestion = nearest(str(error["input"]), expected.split("'")[1::2])
    return Finding(path, "wrong value", expected, suggestion)


def _fields(model: type[BaseModel], steps: Path) -> list[str]:
    part = _part(model, steps)
    return [field.alias or name for name, field in part.model_fields.items()] if part else []


def _described(model: type[BaseModel], steps: Path) -> str | None:
    part = _part(model, steps[:-1])
    field = part.model_fields.get(str(steps[-1])) if part else None
    return field.description if field else None


def _part(model: type[BaseModel], steps: Path) -> type[BaseModel] | None:
    """The class of the part of a model that stands at a path, or None where that is no part with fields of its own."""
    kind: Any = model
    for step in steps:
        kind = _model_of(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            kind = field.annotation if field else None
        elif get_origin(kind) in (dict, Mapping, list, Sequence, tuple):
            kind = get_args(kind)[-1]
        else:
            return None
    kind = _model_of(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _model_of(kind: Any) -> Any:
    """A type without `Annotated` and without `| None`."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next((item for item in get_args(kind) if item is not type(None)), None)
        else:
            return kind


def _listed(names: Sequence[str]) -> str | None:
    return "one of " + ", ".join(names) if names else None
