"""Requests against what their operation declares. Loaded with the first request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from tornado import web

from .operation import Operation, Schema

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def query(declared: Operation, given: Mapping[str, list[bytes]]) -> dict[str, Any]:
    """The values of a query, in the types that are declared. What is not declared is let be. Raises a 400 naming what is wrong."""
    values: dict[str, Any] = {}
    for name, schema in declared.query.items():
        if name not in given:
            if "default" not in schema:
                if schema.get("x-optional"):
                    values[name] = None
                    continue
                raise web.HTTPError(400, f"the query lacks {name}: {schema.get('description', '')}")
            values[name] = schema["default"]
            continue
        texts = [_decoded(name, text) for text in given[name]]
        several = schema.get("type") == "array"
        values[name] = _valid(name, schema, [_typed(text, schema["items"]) for text in texts] if several else _typed(texts[-1], schema))
    return values


def body(declared: Operation, data: bytes) -> Any:
    """The JSON of a body. Raises a 400 saying where it is not as declared."""
    try:
        value = json.loads(data or b"{}", parse_constant=_refuse)
        # lone surrogates are JSON and no text: nothing could be written or named with them
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise web.HTTPError(400, f"the body is no JSON in UTF-8: {error}") from None
    return _valid("body", declared.body or {}, value)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _decoded(name: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise web.HTTPError(400, f"{name} is not in UTF-8") from None


def _typed(text: str, schema: Schema) -> Any:
    kind = schema.get("type")
    try:
        if kind == "integer":
            return int(text)
        if kind == "number" and isfinite(number := float(text)):
            return number
    except ValueError:
        return text
    return _TRUTH.get(text.lower(), text) if kind == "boolean" else text


def _valid(name: str, schema: Schema, value: Any) -> Any:
    error = best_match(_validator(json.dumps(schema)).iter_errors(value))
    if error is not None:
        where = name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        raise web.HTTPError(400, f"{where}: {error.message[:500]}")
    return value


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema))
