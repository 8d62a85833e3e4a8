"""The experiment file: from text to an `Experiment`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ..errors import ExperimentFileError, Problem
from . import checks, document
from .document import Document, Mark, Path, Place, Scalar
from .model import Experiment, Parameter
from .selectors import nearest
from .substitution import UnknownParameter, Value, is_literal, is_shell, substitute, write
from .wording import Finding, findings
from .writing import dumps

__all__ = ["check", "dumps", "loads"]

Given = Mapping[str, object]

_LONGEST_SHOWN = 60


def loads(
    text: str | bytes,
    source: str = "experiment.yaml",
    parameters: Given | None = None,
    providers: checks.Providers | None = None,
) -> Experiment:
    """The experiment that `text` describes, its `${name}` replaced by the values of its parameters.

    source: what problems call the file.
    parameters: values given in place of defaults; text is converted to the parameter's type.
    providers: {name of a provider: model of its settings}. Without it, providers and their settings are not checked.

    The result's `parameters` keep their definitions, with the values in use as their defaults.
    Raises ExperimentFileError with everything that is wrong, in the order of the file.
    """
    return _Loading(document.read(text, source), parameters or {}, providers).experiment()


def check(experiment: Experiment, providers: checks.Providers | None = None) -> None:
    """Check an experiment made of Python objects as `loads` checks a file. Raises ExperimentFileError with everything found."""
    found = [Problem(document.dotted(item.path), item.message, "experiment", expected=item.expected, suggestion=item.suggestion)
             for item in checks.check(experiment, providers=providers)]  # fmt: skip
    if found:
        raise ExperimentFileError(found)


class _Loading:
    """One file on its way to an experiment. What is wrong is noted and set aside, so that the rest can be checked as well."""

    def __init__(self, read: Document, given: Given, providers: checks.Providers | None) -> None:
        self.document = read
        self.given = given
        self.providers = providers
        self.problems: dict[tuple[Path, str], tuple[Mark, Problem]] = {}
        self.wrong: set[Path] = set()
        self.definitions: dict[str, Parameter] = {}
        self.values: dict[str, Value] = {}

    def experiment(self) -> Experiment:
        self._define_parameters()
        data = self.document.data(self._value)
        assert isinstance(data, dict)  # noqa: S101 (the document's root is a mapping)
        data = {key: value for key, value in data.items() if value is not None}
        if isinstance(data.get("parameters"), dict):
            data["parameters"] = {name: item.model_dump(exclude_unset=True) for name, item in self.definitions.items()}
        experiment = self._validate(data)
        if experiment:
            for finding in checks.check(experiment, self._names(), self.providers):
                self._note(finding)
        if self.problems or self.document.problems or experiment is None:
            read = [(Mark(problem.line or 1, problem.column or 1), problem) for problem in self.document.problems]
            ordered = sorted([*read, *self.problems.values()], key=lambda item: item[0])
            raise ExperimentFileError([problem for _, problem in ordered])
        return experiment

    def _define_parameters(self) -> None:
        written = self.document.data(_typed, ("parameters",))
        for name, definition in written.items() if isinstance(written, dict) else ():
            try:
                read = Experiment.model_validate({"name": "x", "nodes": {"x": {}}, "parameters": {name: definition}})
            except ValidationError as error:
                for finding in findings(Experiment, error.errors()):
                    self._note(finding)
                continue
            parameter = read.parameters[name]
            self.definitions[name] = parameter
            self.values[name] = parameter.default
        for name, value in self.given.items():
            self._give(name, value, written if isinstance(written, dict) else {})

    def _give(self, name: str, value: object, written: Mapping[str, object]) -> None:
        where = self.document.place(("parameters",)).key
        parameter = self.definitions.get(name)
        if parameter is None:
            if name not in written:
                listed = f"one of {', '.join(written)}" if written else "none: the file declares no parameters"
                message = f"no parameter is called {name[:60]!r}"
                self._add(where, Finding(("parameters",), message, listed, nearest(name, list(written))))
            return
        try:
            self.values[name] = parameter.check(value)
        except ValueError as error:
            place = self.document.place(("parameters", name))
            self._add(place.key, Finding(place.path, "the value given does not fit", str(error)), got=_shortened(str(value)))
            return
        self.definitions[name] = parameter.model_copy(update={"default": self.values[name]})

    def _value(self, path: Path, scalar: Scalar) -> object:
        """A scalar's value: typed where any type may stand, elsewhere text, which the model's fields convert."""
        if is_literal(path):
            return scalar.value
        try:
            value = substitute(scalar.text, self.values, lenient=is_shell(path))
        except UnknownParameter as error:
            # one that is declared, but wrongly, has its problem already
            if not self._is_declared(error.name):
                self._note(self._unknown(path, error.name))
            self.wrong.add(path)
            return scalar.text
        except ValueError as error:
            self._note(Finding(path, "too long", str(error)))
            return scalar.text
        if value == scalar.text:
            return scalar.value if _is_typed(path) or scalar.value is None else scalar.text
        return value if _is_typed(path) else write(value)

    def _unknown(self, path: Path, name: str) -> Finding:
        listed = f"one of {', '.join(self.values)}, or $${{ for a literal ${{" if self.values else "$${ for a literal ${"
        return Finding(path, f"no parameter is called {name[:60]!r}", listed, nearest(name, self.values))

    def _is_declared(self, name: str) -> bool:
        place = self.document.place(("parameters", name))
        return place.path == ("parameters", name)

    def _validate(self, data: dict[str, Any]) -> Experiment | None:
        """The experiment, if need be without what is wrong in it; None when too little is left."""
        first = True
        while True:
            try:
                return Experiment.model_validate(data)
            except ValidationError as error:
                found = findings(Experiment, error.errors())
            # later rounds only show what follows from what the first one found
            for finding in found if first else ():
                self._note(finding)
            aside: list[Path] = []
            for finding in found:
                if not any(finding.path[: len(path)] == path for path in aside):
                    aside.append(finding.path)
                    if not _set_aside(data, finding.path):
                        return None
            first = False

    def _names(self) -> checks.Names:
        def keys(section: str) -> list[str]:
            tree = self.document.place((section,))
            if not tree.path or isinstance(tree.tree, Scalar):
                return []
            return [item.text if isinstance(item, Scalar) else str(item) for item in tree.tree.items if isinstance(item, str | Scalar)]

        roles: dict[str, None] = {}
        for node in keys("nodes"):
            written = self.document.data(_typed, ("nodes", node, "roles"))
            roles |= dict.fromkeys(map(str, written if isinstance(written, list) else [written] * (written is not None)))
        return checks.Names(keys("networks"), keys("nodes"), list(roles), keys("sites"))

    def _note(self, finding: Finding) -> None:
        place = self.document.place(finding.path)
        names = finding.missing or (finding.at_key and place.path == finding.path)
        path = finding.path if finding.missing else place.path or finding.path
        if any(path[: len(wrong)] == wrong for wrong in self.wrong):
            return
        self._add(place.key if names else place.start, replace(finding, path=path), None if names else self._got(place))
        if place.path and not names:
            self.wrong.add(place.path)

    def _add(self, mark: Mark, finding: Finding, got: str | None = None) -> None:
        path = document.dotted(finding.path)
        problem = Problem(path, finding.message, self.document.source, mark.line, mark.column, finding.expected, got, finding.suggestion)
        self.problems.setdefault((finding.path, finding.message), (mark, problem))

    def _got(self, place: Place) -> str | None:
        tree = place.tree
        if isinstance(tree, document.Sequence):
            return "a list" if tree.items else "an empty list"
        if isinstance(tree, document.Mapping):
            return ("a mapping" if tree.items else "an empty mapping") if place.path else None
        if tree.value is None:
            return "nothing"
        try:
            value = tree.text if is_literal(place.path) else substitute(tree.text, self.values, lenient=True)
        except ValueError:
            value = tree.text
        return _shortened(tree.text) + ("" if value == tree.text else f", which is {_shortened(str(value))}")


def _typed(path: Path, scalar: Scalar) -> object:
    return scalar.value


def _is_typed(path: Path) -> bool:
    match path:
        case ("settings", *_) | ("sites", _, "settings", *_):
            return True
    return False


def _shortened(text: str) -> str:
    text = " ".join(text.split()) or text
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…")


def _set_aside(data: dict[str, Any], path: Path) -> bool:
    """Take what is wrong at a path out of the data, or the innermost part around it. False when nothing would be left."""
    if path == ("name",):
        data["name"] = "unnamed"
        return True
    if path[0] == "links" and path[2:3] == ("delays",):
        # what would be left of it would be found to say too little
        path = path[:3]
    trail = _trail(data, path)
    if not trail:
        return False
    if len(trail) == 2 and path[0] == "services" and path[2:] == ("command",) and isinstance(trail[1][0][trail[1][1]], dict):
        trail[1][0][trail[1][1]]["command"] = "true"
        return True
    if path[0] == "collect" and len(trail) > 1:
        # keeps the others at their positions
        data["collect"][trail[1][1]] = "/"
        return True
    while isinstance(trail[-1][0], list):
        trail.pop()
    holder, key = trail[-1]
    if path[0] == "nodes" and path[2:] == ("count",):
        # still a group, of which no member is known
        holder[key] = 0
    else:
        del holder[key]
        if key == "networks":
            # which would be found to join too few
            holder.pop("routes", None)
    return True


def _trail(data: Any, path: Path) -> list[tuple[Any, Any]]:
    """The containers from the outermost inwards with the key that leads on, as far as the path is there."""
    trail = []
    for step in path:
        key: str | int = step
        if isinstance(data, dict):
            if isinstance(step, int) and step < len(data):
                key = list(data)[step]
            if key not in data:
                break
        elif not isinstance(data, list) or not isinstance(step, int) or step >= len(data):
            break
        trail.append((data, key))
        data = data[key]
    return trail
