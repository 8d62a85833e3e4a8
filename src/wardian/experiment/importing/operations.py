"""Operations on the plain values of a script: what Python itself would give, or UNKNOWN, and never more than is allowed to grow."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .objects import MOST_ITEMS, UNKNOWN, Class, External, Function, Instance, TooLong, Unknown

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: operator.pow, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
    ast.LShift: operator.lshift, ast.RShift: operator.rshift,
}  # fmt: skip
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda one, other: one in other, ast.NotIn: lambda one, other: one not in other,
    ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_, ast.Invert: operator.invert,
}  # fmt: skip


def _inclusive(start: int, stop: int, step: int = 1) -> range:
    """Mininet's own range, whose end belongs to it."""
    return range(start, stop + (1 if step > 0 else -1), step)


_BUILT_IN: Mapping[str, Callable[..., Any]] = {
    "range": range, "irange": _inclusive, "str": str, "int": int, "float": float, "bool": bool, "len": len, "list": list, "tuple": tuple,
    "set": set, "dict": dict, "enumerate": enumerate, "zip": zip, "sorted": sorted, "reversed": reversed, "min": min, "max": max,
    "sum": sum, "abs": abs, "round": round, "chr": chr, "ord": ord, "hex": hex, "divmod": divmod,
}  # fmt: skip
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset({"format", "join", "upper", "lower", "title", "strip", "lstrip", "rstrip", "split", "replace", "startswith", "endswith",
                    "capitalize", "isdigit"}),
    list: frozenset({"append", "extend", "insert", "pop", "index", "count", "reverse", "sort", "remove", "copy"}),
    tuple: frozenset({"index", "count"}),
    dict: frozenset({"get", "items", "keys", "values", "update", "setdefault", "pop", "copy"}),
    set: frozenset({"add", "update", "discard", "union"}),
}  # fmt: skip
_REFUSED = (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError, AttributeError, MemoryError)


def binary(operation: ast.operator, one: Any, other: Any) -> Any:
    """`one + other` and its like."""
    if isinstance(operation, ast.Mult):
        length = max((len(item) for item in (one, other) if isinstance(item, str | list | tuple)), default=0)
        times = max((abs(item) for item in (one, other) if isinstance(item, int)), default=0)
        if length * times > MOST_ITEMS:
            raise TooLong
    if isinstance(operation, ast.Pow | ast.LShift) and not (_is_small(one, 10**6) and _is_small(other, 64)):
        return UNKNOWN
    if isinstance(operation, ast.Mod) and isinstance(one, str) and _is_large_format(one):
        return UNKNOWN
    return UNKNOWN if type(operation) not in _BINARY else _tried(_BINARY[type(operation)], one, other)


def unary(operation: ast.unaryop, one: Any) -> Any:
    """`-one` and its like."""
    return _tried(_UNARY[type(operation)], one)


def compared(operation: ast.cmpop, one: Any, other: Any) -> Any:
    """`one < other` and its like."""
    return _tried(_COMPARE[type(operation)], one, other)


def formatted(value: Any, spec: Any) -> Any:
    """`f"{value:spec}"`."""
    return UNKNOWN if _is_large_format(spec) else _tried(format, value, spec)


def item(holder: Any, key: Any) -> Any:
    """`holder[key]`."""
    return _tried(operator.getitem, holder, key)


def set_item(holder: Any, key: Any, value: Any) -> None:
    """`holder[key] = value`, where that can be done."""
    _tried(operator.setitem, holder, key, value)


def is_built_in(name: str) -> bool:
    """Whether a function of that name is known here."""
    return name in _BUILT_IN


def built_in(name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    """What one of the functions known here gives: `range`, `str`, `len`, …"""
    if name == "dict" and all(isinstance(given, dict) for given in arguments):
        return {key: value for given in (*arguments, named) for key, value in given.items()}
    return _listed(_tried(_BUILT_IN[name], *map(_listed, arguments), **named))


def method(owner: Any, name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    """What a method of a plain value gives: `text.format()`, `items.append()`, …"""
    kind = next((kind for kind in _METHODS if isinstance(owner, kind)), None)
    if kind is None or name not in _METHODS[kind]:
        return UNKNOWN
    if kind is str and name == "format" and _is_large_format(owner):
        return UNKNOWN
    if kind is str:
        # a short text replaced or joined many times can grow without any bound
        size = len(owner) + sum(len(part) for part in _flat(arguments) if isinstance(part, str))
        if size * max(1, len(owner)) > MOST_ITEMS * 100:
            raise TooLong
        return _listed(_tried(getattr(owner, name), *arguments, **named))
    if any(given is UNKNOWN for given in arguments) and name in ("index", "pop", "insert", "remove"):
        return UNKNOWN
    _weigh([owner, *arguments] if name in ("index", "count", "remove", "sort") else arguments)
    try:
        value = getattr(owner, name)(*arguments, **named)
    except _REFUSED:
        return UNKNOWN
    if len(owner) > MOST_ITEMS:
        raise TooLong
    return _listed(value)


def has_method(kind: type, name: str) -> bool:
    """Whether values of a kind have a method of that name here."""
    return name in _METHODS[kind]


def _tried(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What an operation on plain values gives; UNKNOWN where Python refuses it, or something in it is unknown."""
    at = work in (operator.setitem, operator.getitem)
    if not at and any(not _is_plain(item) for item in (*arguments, *named.values())):
        return UNKNOWN
    _weigh(arguments[1:2] if at else (*arguments, *named.values()))
    try:
        value = work(*arguments, **named)
    except _REFUSED:
        return UNKNOWN
    if isinstance(value, int) and value.bit_length() > 256:
        return UNKNOWN
    if isinstance(value, str | list | tuple | dict | set) and len(value) > MOST_ITEMS:
        raise TooLong
    return value


def items(value: Any) -> list[Any] | None:
    if isinstance(value, range) and len(value) > MOST_ITEMS:
        raise TooLong
    return list(value) if isinstance(value, list | tuple | range | dict | set | str) else None


def _listed(value: Any) -> Any:
    """Views and iterators as lists, so that they can be gone over again; what is too long to be one is refused."""
    if isinstance(value, range) and len(value) > MOST_ITEMS:
        raise TooLong
    if isinstance(value, str | bytes | list | tuple | dict | set | range | int | float) or value is None:
        return value
    return list(value) if hasattr(value, "__next__") or isinstance(value, type({}.items()) | type({}.keys()) | type({}.values())) else value


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from value
        else:
            yield value


def _weigh(values: Iterable[Any]) -> None:
    """Refuse what holds itself so often that to compare it, or to write it out, would never end."""
    waiting, count = list(values), 0
    while waiting:
        value = waiting.pop()
        count += 1
        if count > MOST_ITEMS * 5:
            raise TooLong
        if isinstance(value, list | tuple | set | dict):
            waiting += value.values() if isinstance(value, dict) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set | dict):
        return UNKNOWN not in value
    return not isinstance(value, Unknown | External | Function | Class | Instance)


def _is_small(value: Any, bound: int) -> bool:
    return isinstance(value, int | float) and abs(value) <= bound


def _is_large_format(text: Any) -> bool:
    """Whether a format asks for a field so wide, or for a part of a value, that it is better not followed."""
    if not isinstance(text, str):
        return True
    return bool(re.search(r"[0-9]{4}|\*|\{[^}]*[.\[!][^}]*[A-Za-z_]{2}", text))
