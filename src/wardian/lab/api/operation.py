"""What a route is made of: one declaration from which requests are checked, and the OpenAPI document is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from jupyter_server.auth.decorator import authorized
from tornado import web

Schema = Mapping[str, Any]
Handle = TypeVar("Handle", bound=Callable[..., Awaitable[None]])

LARGEST_BODY = 1 << 20
"""Of a JSON request, bytes, unless its operation says otherwise."""


@dataclass(frozen=True)
class Operation:
    """What one method of a route takes and gives. Schemas are JSON Schema (2020-12).

    query: {name: schema}; those without a default are required. body: None where there is none; `media` is its type.
    gives: {status: schema of the answer}; produces: the type of the answers of status 200. limit: bytes of a body, at most.
    """

    summary: str
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    media: str = "application/json"
    gives: Mapping[int, Schema | None] = field(default_factory=dict)
    produces: str = "application/json"
    limit: int = LARGEST_BODY


def operation(declared: Operation, action: str | None = None) -> Callable[[Handle], Handle]:
    """Make a method of a handler an operation: authenticated, authorised, its query and body checked before it is called.

    action: what the authoriser is asked for, where it is not what the HTTP method says.
    """

    def decorate(method: Handle) -> Handle:
        @wraps(method)
        async def checked(handler: Any, *args: str, **kwargs: str) -> None:
            await handler.serve(declared, method, args, kwargs)

        guarded: Any = web.authenticated(authorized(action=action)(checked))  # type: ignore[arg-type, type-var]
        guarded.declared = declared
        return guarded  # type: ignore[no-any-return]

    return decorate


@dataclass(frozen=True)
class Route:
    """A path below `/wardian/api`, and what answers there. parts: {name in the path: schema}."""

    path: str
    handler: type[web.RequestHandler]
    parts: Mapping[str, Schema] = field(default_factory=dict)

    def pattern(self, base: str) -> str:
        """The path as Tornado matches it; a part may not hold a slash."""
        steps = [f"(?P<{step[1:-1]}>[^/]+)" if step.startswith("{") else step for step in self.path.split("/")]
        return f"{base}/{'/'.join(steps)}"

    def operations(self) -> dict[str, Operation]:
        """{HTTP method in small letters: operation}."""
        found: dict[str, Any] = {name: getattr(self.handler, name) for name in ("get", "post", "put", "patch", "delete")}
        return {name: method.declared for name, method in found.items() if hasattr(method, "declared")}


def query(schema: Schema, description: str, **more: Any) -> Schema:
    """A parameter of the query."""
    return {**schema, "description": description, **more}


def shape(description: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """A JSON object."""
    return {
        "type": "object",
        "description": description,
        "properties": {**required, **(optional or {})},
        **({"required": list(required)} if required else {}),
        **more,
    }


def of(item: Schema, description: str = "") -> Schema:
    """An object whose values are all of one kind."""
    return {"type": "object", "additionalProperties": item, **({"description": description} if description else {})}


def each(item: Schema, **more: Any) -> Schema:
    """An array."""
    return {"type": "array", "items": item, **more}


def ref(name: str) -> Schema:
    """One of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
MOMENT: Schema = {"type": "number", "description": "seconds since the epoch"}
