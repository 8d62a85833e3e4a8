"""An experiment as YAML text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from . import document
from .document import Path
from .model import Experiment
from .substitution import Value, escape, is_literal, is_shell

_BLOCK = re.compile(r"[^\s](?:[\x20-\x7e\xa1-\u1fff]*\n)+(?:[\x20-\x7e\xa1-\u1fff]*[^\s])?")
_PLAIN_CHARACTERS = re.compile(r"[\x20-\x7e\xa1-\u1fff\u2030-\ud7ff\U00010000-\U0010ffff]*")
_WIDEST_ROW = 100


def dumps(experiment: Experiment) -> str:
    """The experiment as YAML text, in units as people write them and without what is the default; `loads` reads it back."""
    data = _short(experiment.model_dump(mode="json", exclude_defaults=True))
    values = {name: parameter.default for name, parameter in experiment.parameters.items()}
    escaped = _escaped(data, (), values)
    text: str = yaml.dump(escaped, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10**6)
    return text


def _short(data: dict[str, Any]) -> dict[str, Any]:
    """The short forms, where they say the same."""
    for node in data.get("nodes", {}).values():
        if "networks" in node and not any(node["networks"].values()):
            node["networks"] = list(node["networks"])
        for access in node["networks"].values() if isinstance(node.get("networks"), dict) else ():
            _short_queues(access)
        files = {item["source"]: item["target"] for item in node.get("files", ()) if "mode" not in item}
        if files and len(files) == len(node["files"]):
            node["files"] = files
        if isinstance(node.get("build"), dict) and list(node["build"]) == ["context"]:
            node["build"] = node["build"]["context"]
        if "cpus" in node:
            node["cpus"] = _whole(node["cpus"])
    for name, link in data.get("links", {}).items():
        _short_queues(link)
        first = "between" if "between" in link else "among"
        data["links"][name] = {first: link[first], **link}
    if "parameters" in data:
        data["parameters"] = {name: item["default"] if list(item) == ["default"] else item for name, item in data["parameters"].items()}
    if "collect" in data:
        data["collect"] = [item["path"] if list(item) == ["path"] else item for item in data["collect"]]
    return data


def _short_queues(shape: dict[str, Any]) -> None:
    for part in (shape, *(inner for inner in shape.values() if isinstance(inner, dict))):
        if isinstance(part.get("queue"), dict) and len(part["queue"]) == 1:
            (part["queue"],) = part["queue"].values()
        if isinstance(part.get("trace"), dict) and list(part["trace"]) == ["file"]:
            part["trace"] = part["trace"]["file"]
        if "loss_burst" in part:
            part["loss_burst"] = _whole(part["loss_burst"])


def _escaped(data: Any, path: Path, values: Mapping[str, Value]) -> Any:
    if isinstance(data, dict):
        return {key: _escaped(item, (*path, key), values) for key, item in data.items()}
    if isinstance(data, list):
        return [_escaped(item, (*path, position), values) for position, item in enumerate(data)]
    if isinstance(data, str) and not is_literal(path):
        return escape(data, values, lenient=is_shell(path))
    return data


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `document` would take for something other than text; YAML 1.1's further words (`on`, `no`) stay plain."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (declared so where it is inherited from)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None
    if _BLOCK.fullmatch(text):
        style = "|"
    elif not _PLAIN_CHARACTERS.fullmatch(text):
        style = '"'
    elif not isinstance(document.scalar(text), str) or text == "<<":
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _row(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    short = all(isinstance(item, str | int | float) and "\n" not in str(item) for item in items) and len(str(items)) <= _WIDEST_ROW
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=short)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _row)
for _tag, _pattern in (
    ("null", r"null\Z"),
    ("bool", r"(true|false)\Z"),
    ("int", r"-?[0-9]+\Z"),
    ("float", r"-?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?\Z|-?\.inf\Z|\.nan\Z"),
):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), None)
