"""The OpenAPI document, made of what the routes declare."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from .operation import Operation, Route
from .shapes import COMPONENTS

_ERRORS = {
    400: "the request is not as it is described here",
    403: "who asks is not known, or may not do this",
    404: "there is no such thing",
    413: "the body is too large",
    422: "the experiment file, a name or a value is wrong",
    423: "another command is working on the environment",
    500: "the journal cannot be read or written",
    502: "the provider, a node or its agent could not do it",
    503: "the node is down",
}


def document(routes: Sequence[Route], base: str) -> dict[str, Any]:
    """The document of these routes, which are served below `base`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wardian in JupyterLab",
            "version": version("wardian"),
            "description": "Experiments, environments, nodes and the journal, for front ends. Events come over a websocket, `events`.",
        },
        "servers": [{"url": base}],
        "security": [{"token": []}, {"cookie": []}],
        "paths": {f"/{route.path}": methods for route in routes if (methods := _methods(route))},
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "`token TOKEN`"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "username",
                    "description": "the login's, with the XSRF token in X-XSRFToken for what changes anything",
                },
            },
        },
    }


def _methods(route: Route) -> dict[str, Any]:
    return {method: _operation(route, method, declared) for method, declared in route.operations().items()}


def _operation(route: Route, method: str, declared: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{method}_{route.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "summary": declared.summary,
        "tags": [route.handler.auth_resource],  # type: ignore[attr-defined]
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": schema} for name, schema in route.parts.items()),
            *(_parameter(name, dict(schema)) for name, schema in declared.query.items()),
        ],
        "responses": {
            **{str(status): _answer(schema, declared.produces) for status, schema in declared.gives.items()},
            **{str(status): _failure(words) for status, words in _ERRORS.items() if status not in declared.gives},
        },
    }
    if declared.body is not None:
        described["requestBody"] = {"required": True, "content": {declared.media: {"schema": declared.body}}}
    return described


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    optional = schema.pop("x-optional", False) or "default" in schema
    return {"name": name, "in": "query", "required": not optional, "description": schema.pop("description", ""), "schema": schema}


def _answer(schema: Any, produces: str) -> dict[str, Any]:
    if schema is None:
        return {"description": "done"}
    return {"description": schema.get("description") or "the answer", "content": {produces: {"schema": schema}}}


def _failure(words: str) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
