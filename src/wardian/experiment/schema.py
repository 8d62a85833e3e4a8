"""The JSON Schema of the experiment file, for editors and for checking a file without Wardian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .model import Experiment

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = {"type": "string", "pattern": r"\$\{"}
"""A text with `${name}` in it, which may stand in place of any scalar."""

_SCALARS = ("string", "integer", "number", "boolean")
_WORDS = ["yes", "no", "on", "off"]
_NAMES = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
_TEXT = {"type": ["string", "number", "boolean"]}
_NOTHING = {"type": "null"}


def schema(providers: Mapping[str, type[BaseModel]] | None = None) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the experiment file, with the short forms that `file.loads` takes.

    providers: {name of a provider: model of its settings}; their schemas apply where `provider:` names them.
    """
    made = Experiment.model_json_schema(ref_template="#/$defs/{model}")
    parts: dict[str, Any] = made.pop("$defs")
    whole = {"$schema": DIALECT, **made, "$defs": parts}
    _widen(whole)
    _add_short_forms(whole, parts)
    if providers:
        _add_providers(whole, parts, providers)
    return whole


def _widen(node: Any, *, literal: bool = False) -> None:
    """Let a reference to a parameter stand for every scalar, and a number or a boolean for text, as they may in the file."""
    if isinstance(node, list):
        for item in node:
            _widen(item, literal=literal)
    if not isinstance(node, dict):
        return
    if "patternProperties" in node:
        # which lets names through that do not match
        ((pattern, entry),) = node.pop("patternProperties").items()
        node |= {"propertyNames": {"pattern": pattern}, "additionalProperties": entry}
    for key, item in node.items():
        if key in ("properties", "$defs"):
            for name, part in item.items():
                _widen(part, literal=literal or (key == "$defs" and name == "Parameter"))
        elif key in ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf"):
            _widen(item, literal=literal)
    if not literal:
        _widen_scalar(node)


def _widen_scalar(node: dict[str, Any]) -> None:
    if node.get("type") == "string" and not _is_constrained(node):
        node["type"] = list(_TEXT["type"])
    elif "enum" in node or "const" in node or any(node.get("type") == kind for kind in _SCALARS):
        _or(node, dict(REFERENCE))
        if node["anyOf"][0].get("type") == "boolean":
            _or(node, {"enum": _WORDS})


def _is_constrained(node: dict[str, Any]) -> bool:
    return any(key in node for key in ("pattern", "format", "enum", "const", "minLength", "maxLength"))


def _add_short_forms(whole: dict[str, Any], parts: dict[str, Any]) -> None:
    fields = whole["properties"]
    for name in ("networks", "nodes"):
        entry = fields[name].pop("additionalProperties")
        named = {key: fields[name].pop(key) for key in ("type", "propertyNames") if key in fields[name]}
        fields[name]["anyOf"] = [{**named, "additionalProperties": {"anyOf": [entry, _NOTHING]}}, _NAMES]
    fields["nodes"]["anyOf"][0]["minProperties"] = 1
    fields["collect"]["items"] = {"anyOf": [fields["collect"]["items"], {"type": "string"}]}
    definition = fields["parameters"]["additionalProperties"]
    fields["parameters"]["additionalProperties"] = {"anyOf": [definition, _TEXT]}
    for name in set(fields) - set(whole["required"]):
        _or(fields[name], _NOTHING)

    node = parts["Node"]["properties"]
    accesses = next(form for form in node["networks"]["anyOf"] if form.get("type") == "object")
    accesses["additionalProperties"] = {"anyOf": [accesses["additionalProperties"], _NOTHING]}
    node["networks"]["anyOf"] += [_NAMES, {"type": "string"}]
    _or(node["roles"], {"type": "string"})
    _or(node["files"], {"type": "object", "additionalProperties": {"type": "string"}})
    _or(node["build"], {"type": "string"})
    _or(node["volumes"], {"type": "object", "additionalProperties": {"type": "string"}})
    _or(node["ports"]["items"], {"type": ["integer", "string"]})
    _or(parts["Ready"]["properties"]["command"], {"type": "string"})
    for part in ("Shape", "Access", "Link"):
        _or(parts[part]["properties"]["queue"], {"type": ["integer", "string"]})
        _or(parts[part]["properties"]["trace"], {"type": "string"})
    parts["Link"]["oneOf"] = [{"required": ["between"]}, {"required": ["among"]}]


def _or(node: dict[str, Any], form: dict[str, Any]) -> None:
    """Let `node` accept `form` as well."""
    if "anyOf" not in node:
        kept = {key: node.pop(key) for key in list(node) if key not in ("title", "description", "default", "examples")}
        node["anyOf"] = [kept]
    if form not in node["anyOf"]:
        node["anyOf"].append(form)


def _add_providers(whole: dict[str, Any], parts: dict[str, Any], providers: Mapping[str, type[BaseModel]]) -> None:
    default = Experiment.model_fields["provider"].default
    whole.setdefault("allOf", [])
    parts["Site"]["allOf"] = []
    for name, model in sorted(providers.items()):
        prefix = f"settings.{name}"
        made = model.model_json_schema(ref_template="#/$defs/" + prefix + ".{model}")
        parts.update({f"{prefix}.{inner}": part for inner, part in made.pop("$defs", {}).items()})
        parts[prefix] = made
        for part in [key for key in parts if key == prefix or key.startswith(f"{prefix}.")]:
            _widen(parts[part])
        settings = {"properties": {"settings": {"anyOf": [{"$ref": f"#/$defs/{prefix}"}, _NOTHING]}}}
        named = {"properties": {"provider": {"const": name}}, "required": ["provider"]}
        parts["Site"]["allOf"].append({"if": named, "then": settings})
        # where the file does not say, it is the default
        whole["allOf"].append({"if": {"properties": named["properties"]} if name == default else named, "then": settings})
    parts["Site"]["properties"]["provider"]["examples"] = sorted(providers)
    whole["properties"]["provider"]["examples"] = sorted(providers)
