"""A Python script followed without being run: constants, loops, functions and classes of the file itself; all else is unknown.

Nothing is ever imported, called or looked up outside of the syntax tree. Values are plain ones (numbers, text, lists, …), those of
`objects`, or UNKNOWN. How far a script is followed is bounded, and so is everything that it can make grow.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from . import operations
from .objects import MOST_ITEMS, UNKNOWN, Class, Element, External, Function, Instance, TooLong

MOST_STEPS = 300_000
"""How many statements and expressions of a script are followed."""

DEEPEST_CALL = 40
"""How many of its functions may be inside each other."""


class Listener(Protocol):
    """Told of what a script makes."""

    def made(self, cls: Class | External, arguments: list[Any], named: dict[str, Any], line: int) -> Any:
        """An object was made; gives what its `subject` is, None if it is of no interest."""

    def called(self, subject: Any, method: str, arguments: list[Any], named: dict[str, Any], line: int) -> Any:
        """A method of a subject was called that the file does not define; gives its value."""

    def element(self, element: Element, method: str, arguments: list[Any], line: int) -> Any:
        """A method of a host or switch was called."""

    def skipped(self, node: ast.AST, why: str) -> None:
        """A part of the script could not be followed."""

    def assumed(self, node: ast.AST, name: str) -> None:
        """A function was given what is unknown for a parameter, and its default is taken."""


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Script:
    """One script. `run` follows its top level; `call` one of its functions."""

    def __init__(self, tree: ast.Module, listener: Listener) -> None:
        self.tree = tree
        self.listener = listener
        self.steps = 0
        self.depth = 0
        self.scope: dict[str, Any] = {"__name__": "__main__"}

    def run(self) -> None:
        self._body(self.tree.body, self.scope)

    def make(self, cls: Class, arguments: list[Any], named: dict[str, Any], line: int) -> Instance:
        """An object of a class of the file, its `__init__` and `build` followed."""
        instance = Instance(cls, subject=self.listener.made(cls, arguments, named, line))
        if cls.find("__init__"):
            self._method(instance, "__init__", arguments, named)
        elif instance.subject is not None and cls.find("build"):
            self._method(instance, "build", arguments, named)
        return instance

    def call(self, function: Function, arguments: list[Any], named: dict[str, Any]) -> Any:
        """What a function of the file gives for these arguments."""
        if self.depth >= DEEPEST_CALL:
            raise TooLong
        scope = {**function.scope, **self._bound(function, arguments, named)}
        if function.cls is not None:
            scope["__class__"] = (function.cls, function.owner)
        self.depth += 1
        try:
            if isinstance(function.node, ast.Lambda):
                return self._value(function.node.body, scope)
            self._body(function.node.body, scope)
        except _Return as given:
            return given.value
        finally:
            self.depth -= 1
        return None

    def _method(self, instance: Instance, name: str, arguments: list[Any], named: dict[str, Any], above: Class | None = None) -> Any:
        found = self._above(instance, name, above) if above else instance.cls.find(name) if instance.cls else None
        if found and isinstance(found[0], Function):
            function = Function(found[0].node, self.scope, instance, found[1])
            return self.call(function, [instance, *arguments], named)
        if name == "__init__" and instance.subject is not None and instance.cls and instance.cls.find("build"):
            # what Topo itself does when it is made
            return self._method(instance, "build", arguments, {key: value for key, value in named.items() if key != "topo"})
        return UNKNOWN

    def _above(self, instance: Instance, name: str, above: Class) -> tuple[Any, Class] | None:
        return next((found for base in above.bases if isinstance(base, Class) and (found := base.find(name))), None)

    def _bound(self, function: Function, arguments: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        """The parameters of a function by name; what is not given and has no default is unknown."""
        spec = function.node.args
        names = [item.arg for item in (*spec.posonlyargs, *spec.args)]
        result: dict[str, Any] = dict.fromkeys(names, UNKNOWN)
        for name, default in zip(reversed(names), reversed(spec.defaults), strict=False):
            result[name] = self._value(default, function.scope)
        for item, default_ in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            result[item.arg] = self._value(default_, function.scope) if default_ else UNKNOWN
        result |= self._known(function, result, dict(zip(names, arguments, strict=False)))
        if spec.vararg:
            result[spec.vararg.arg] = tuple(arguments[len(names) :])
        known = {name: value for name, value in named.items() if name in result}
        if spec.kwarg:
            result[spec.kwarg.arg] = {name: value for name, value in named.items() if name not in known}
        return result | self._known(function, result, known)

    def _known(self, function: Function, defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        """The arguments given, without those that are unknown where there is a default to go on with."""
        for name, value in given.items():
            if value is UNKNOWN and defaults[name] is not UNKNOWN:
                self.listener.assumed(function.node, name)
        return {name: value for name, value in given.items() if value is not UNKNOWN or defaults[name] is UNKNOWN}

    # Statements

    def _body(self, body: Iterable[ast.stmt], scope: dict[str, Any]) -> None:
        for statement in body:
            self._count()
            self._statement(statement, scope)

    def _count(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooLong

    def _statement(self, node: ast.stmt, scope: dict[str, Any]) -> None:
        match node:
            case ast.Expr(value):
                self._value(value, scope)
            case ast.Assign(targets, value):
                given = self._value(value, scope)
                for target in targets:
                    self._assign(target, given, scope)
            case ast.AnnAssign(target, _, value) if value is not None:
                self._assign(target, self._value(value, scope), scope)
            case ast.AugAssign(target, operation, value):
                before = self._value(target, scope)
                self._assign(target, operations.binary(operation, before, self._value(value, scope)), scope)
            case ast.FunctionDef(name):
                scope[name] = Function(node, scope)
            case ast.ClassDef():
                self._class(node, scope)
            case ast.Return(value):
                raise _Return(self._value(value, scope) if value else None)
            case ast.If(test, body, other):
                self._if(node, self._value(test, scope), body, other, scope)
            case ast.For(target, values, body, other):
                self._for(node, target, self._value(values, scope), [*body], [*other], scope)
            case ast.With(items, body):
                for item in items:
                    given = self._value(item.context_expr, scope)
                    if item.optional_vars:
                        self._assign(item.optional_vars, given, scope)
                self._body(body, scope)
            case ast.Try(body, _, other, final):
                self._body([*body, *other, *final], scope)
            case ast.Import(names) | ast.ImportFrom(_, names, _):
                for alias in names:
                    if alias.name != "*":
                        scope[alias.asname or alias.name.partition(".")[0]] = External(alias.name.rpartition(".")[2])
            case ast.Break():
                raise _Break
            case ast.Continue():
                raise _Continue
            case ast.Pass() | ast.Assert() | ast.Global() | ast.Nonlocal() | ast.AnnAssign() | ast.Raise() | ast.Delete():
                pass
            case _:
                self.listener.skipped(node, "is not followed")

    def _class(self, node: ast.ClassDef, scope: dict[str, Any]) -> None:
        members: dict[str, Any] = {}
        scope[node.name] = Class(node, [self._value(base, scope) for base in node.bases], members)
        inner = dict(scope)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                members[statement.name] = Function(statement, scope)
            elif isinstance(statement, ast.Assign):
                self._statement(statement, inner)
                members |= {target.id: inner[target.id] for target in statement.targets if isinstance(target, ast.Name)}

    def _if(self, node: ast.AST, test: Any, body: list[ast.stmt], other: list[ast.stmt], scope: dict[str, Any]) -> None:
        if test is UNKNOWN:
            self.listener.skipped(node, "depends on what is only known when it runs")
        else:
            self._body(body if test else other, scope)

    def _for(
        self, node: ast.AST, target: ast.expr, values: Any, body: list[ast.stmt], other: list[ast.stmt], scope: dict[str, Any]
    ) -> None:
        items = operations.items(values)
        if items is None:
            self.listener.skipped(node, "goes over what is only known when it runs")
            return
        for item in items:
            self._assign(target, item, scope)
            try:
                self._body(body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self._body(other, scope)

    def _assign(self, target: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        match target:
            case ast.Name(name):
                scope[name] = value
            case ast.Attribute(inner, name):
                owner = self._value(inner, scope)
                if isinstance(owner, Instance):
                    owner.attributes[name] = value
            case ast.Subscript(inner, index):
                holder, key = self._value(inner, scope), self._value(index, scope)
                if isinstance(holder, dict | list):
                    operations.set_item(holder, key, value)
            case ast.Tuple(parts) | ast.List(parts):
                items = operations.items(value)
                given = [UNKNOWN] * len(parts) if items is None or len(items) != len(parts) else items
                for part, item in zip(parts, given, strict=True):
                    self._assign(part, item, scope)
            case _:
                pass

    # Expressions

    def _value(self, node: ast.expr, scope: dict[str, Any]) -> Any:
        self._count()
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return scope.get(name, self.scope.get(name, External(name)))
            case ast.Attribute(inner, name):
                return self._attribute(self._value(inner, scope), name)
            case ast.List(parts):
                return self._parts(parts, scope)
            case ast.Tuple(parts):
                return tuple(self._parts(parts, scope))
            case ast.Set(parts):
                return operations.built_in("set", [self._parts(parts, scope)], {})
            case ast.Dict(keys, values):
                return self._dict(keys, values, scope)
            case ast.JoinedStr(parts):
                texts = [self._value(part, scope) for part in parts]
                return UNKNOWN if any(text is UNKNOWN for text in texts) else "".join(texts)
            case ast.FormattedValue(inner, _, spec):
                return operations.formatted(self._value(inner, scope), self._value(spec, scope) if spec else "")
            case ast.BinOp(one, operation, other):
                return operations.binary(operation, self._value(one, scope), self._value(other, scope))
            case ast.UnaryOp(operation, inner):
                return operations.unary(operation, self._value(inner, scope))
            case ast.BoolOp(operation, parts):
                return self._boolean(isinstance(operation, ast.And), parts, scope)
            case ast.Compare(first, tests, others):
                return self._compared(first, tests, others, scope)
            case ast.IfExp(test, body, other):
                known = self._value(test, scope)
                return UNKNOWN if known is UNKNOWN else self._value(body if known else other, scope)
            case ast.Subscript(inner, index):
                return operations.item(self._value(inner, scope), self._value(index, scope))
            case ast.Slice(lower, upper, step):
                bounds = [self._value(part, scope) if part else None for part in (lower, upper, step)]
                return UNKNOWN if UNKNOWN in bounds else slice(*bounds)
            case ast.ListComp(part, loops) | ast.GeneratorExp(part, loops):
                return self._comprehended(loops, dict(scope), lambda inner: self._value(part, inner))
            case ast.DictComp(key, value, loops):
                pairs = self._comprehended(loops, dict(scope), lambda inner: (self._value(key, inner), self._value(value, inner)))
                return operations.built_in("dict", [pairs], {})
            case ast.Lambda():
                return Function(node, scope)
            case ast.Call():
                return self._call(node, scope)
            case _:
                return UNKNOWN

    def _attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Instance):
            found = owner.cls.find(name) if owner.cls else None
            return owner.attributes.get(name, found[0] if found else UNKNOWN)
        return External(name) if isinstance(owner, External) else UNKNOWN

    def _parts(self, parts: list[ast.expr], scope: dict[str, Any]) -> list[Any]:
        result = []
        for part in parts:
            if isinstance(part, ast.Starred):
                result += operations.items(self._value(part.value, scope)) or []
            else:
                result.append(self._value(part, scope))
        return result

    def _dict(self, keys: list[ast.expr | None], values: list[ast.expr], scope: dict[str, Any]) -> Any:
        result: dict[Any, Any] = {}
        for key, value in zip(keys, values, strict=True):
            given = self._value(value, scope)
            if key is None:
                result |= given if isinstance(given, dict) else {}
            else:
                operations.set_item(result, self._value(key, scope), given)
        return result

    def _boolean(self, every: bool, parts: list[ast.expr], scope: dict[str, Any]) -> Any:
        value: Any = every
        for part in parts:
            value = self._value(part, scope)
            if value is UNKNOWN or bool(value) != every:
                break
        return value

    def _compared(self, first: ast.expr, tests: list[ast.cmpop], others: list[ast.expr], scope: dict[str, Any]) -> Any:
        one = self._value(first, scope)
        for operation, node in zip(tests, others, strict=True):
            other = self._value(node, scope)
            known = operations.compared(operation, one, other)
            if known is UNKNOWN or not known:
                return known
            one = other
        return True

    def _comprehended(self, loops: list[ast.comprehension], scope: dict[str, Any], result: Callable[[dict[str, Any]], Any]) -> Any:
        if not loops:
            return [result(scope)]
        items = operations.items(self._value(loops[0].iter, scope))
        if items is None:
            return UNKNOWN
        made: list[Any] = []
        for item in items:
            self._assign(loops[0].target, item, scope)
            if all(self._value(test, scope) for test in loops[0].ifs):
                inner = self._comprehended(loops[1:], scope, result)
                if inner is UNKNOWN:
                    return UNKNOWN
                made += inner
                if len(made) > MOST_ITEMS:
                    raise TooLong
        return made

    # Calls

    def _call(self, node: ast.Call, scope: dict[str, Any]) -> Any:
        arguments = self._parts(node.args, scope)
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self._value(keyword.value, scope)
            if keyword.arg is not None:
                named[keyword.arg] = value
            elif isinstance(value, dict):
                named |= {str(key): item for key, item in value.items()}
        if isinstance(node.func, ast.Attribute):
            return self._method_call(node, node.func, arguments, named, scope)
        function = self._value(node.func, scope)
        if isinstance(function, Function):
            return self.call(function, arguments, named)
        if isinstance(function, Class):
            return self.make(function, arguments, named, node.lineno)
        if isinstance(function, External):
            return self._external(function, arguments, named, scope, node)
        return UNKNOWN

    def _external(self, function: External, arguments: list[Any], named: dict[str, Any], scope: dict[str, Any], node: ast.Call) -> Any:
        if function.name == "super":
            return scope.get("__class__", UNKNOWN)
        if operations.is_built_in(function.name):
            return operations.built_in(function.name, arguments, named)
        subject = self.listener.made(function, arguments, named, node.lineno)
        return UNKNOWN if subject is None else Instance(None, subject=subject)

    def _method_call(
        self, node: ast.Call, function: ast.Attribute, arguments: list[Any], named: dict[str, Any], scope: dict[str, Any]
    ) -> Any:
        owner, name = self._value(function.value, scope), function.attr
        if isinstance(owner, tuple) and len(owner) == 2 and isinstance(owner[0], Class) and isinstance(owner[1], Instance):
            return self._inherited(owner[1], name, arguments, named, owner[0], node)
        if isinstance(owner, Class | External) and arguments and isinstance(arguments[0], Instance):
            # Topo.__init__(self, …), the older way to call what is inherited
            above = owner if isinstance(owner, Class) else None
            if above is not None and above.find(name):
                found = above.find(name)
                if found and isinstance(found[0], Function):
                    return self.call(Function(found[0].node, self.scope, arguments[0], found[1]), arguments, named)
            return self._inherited(arguments[0], name, arguments[1:], named, None, node)
        if isinstance(owner, Instance):
            member = self._attribute(owner, name)
            if isinstance(member, Function) and name not in owner.attributes:
                return self._method(owner, name, arguments, named)
            if isinstance(member, Function):
                return self.call(member, arguments, named)
            return UNKNOWN if owner.subject is None else self.listener.called(owner.subject, name, arguments, named, node.lineno)
        if isinstance(owner, Element) and not operations.has_method(str, name):
            return self.listener.element(owner, name, arguments, node.lineno)
        if isinstance(owner, External):
            return self._external(External(name), arguments, named, scope, node) if not operations.is_built_in(name) else UNKNOWN
        return operations.method(owner, name, arguments, named)

    def _inherited(
        self, instance: Instance, name: str, arguments: list[Any], named: dict[str, Any], above: Class | None, node: ast.Call
    ) -> Any:
        if above is not None and self._above(instance, name, above):
            return self._method(instance, name, arguments, named, above)
        if name == "__init__":
            built = instance.cls.find("build") if instance.cls else None
            return self._method(instance, "build", arguments, named) if built and instance.subject is not None else None
        return UNKNOWN if instance.subject is None else self.listener.called(instance.subject, name, arguments, named, node.lineno)
