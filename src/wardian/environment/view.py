"""What there is to see of an environment: what exists beside what the file asks for, as plain JSON values.

Panels, the notebook's display of an environment and scripts read the same values. A key whose value would be null is left out, so
that the difference of two views is a JSON Merge Patch (RFC 7396).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ExperimentFileError, Problem, WardianError
from ..experiment.model import Experiment
from ..experiment.resources import EnvironmentRecord, Observed, Resource
from ..experiment.selectors import natural_order
from ..providers.base import Provider
from . import faults, links, services
from .environment import Environment
from .faults import InForce
from .keeper import lease_end
from .live import environments

ABSENT = "absent"
"""The state of what the file asks for and does not exist."""


@dataclass(frozen=True)
class View:
    """An environment as it was at one moment.

    experiment, desired: what the file asks for; None and empty where it cannot be read, then `problems` says why.
    observed: what exists; empty where it is not up.
    """

    file: str
    instance: str
    experiment: Experiment | None
    desired: tuple[Resource, ...]
    problems: tuple[Problem, ...]
    observed: Observed
    faults: tuple[InForce, ...] = ()

    @property
    def state(self) -> str:
        """ "absent", "ready", or "partial" when anything that exists is not ready or anything asked for is missing."""
        if self.observed.environment is None:
            return ABSENT
        whole = all(item.state == "ready" for item in self.observed.resources.values())
        return "ready" if whole and all(item.key in self.observed.resources for item in self.desired) else "partial"

    def to_json(self) -> dict[str, Any]:
        """The whole of it."""
        return without_null(
            {
                "instance": self.instance,
                "state": self.state,
                "experiment": experiment_json(self.experiment) if self.experiment else None,
                "problems": [problem_json(item) for item in self.problems],
                "record": record_json(self.observed.environment) if self.observed.environment else None,
                "lease": self._lease(),
                "nodes": self.nodes(),
                "networks": self.networks(),
                "links": self.links(),
                "services": self.services(),
                "faults": {item.id: fault_json(item) for item in self.faults},
            }
        )

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes by name: {"group", "index", "roles", "hostname", "state", "detail", "addresses", …}."""
        return {name: {**_node(spec), "state": state, "detail": detail or None} for name, spec, state, detail in self._both("node")}

    def networks(self) -> dict[str, dict[str, Any]]:
        """The networks by name: {"subnet", "gateway", "mtu", "state", "detail"}."""
        return {
            name: {**{key: spec.get(key) for key in ("subnet", "gateway", "mtu")}, "state": state, "detail": detail or None}
            for name, spec, state, detail in self._both("network")
        }

    def links(self) -> dict[str, dict[str, Any]]:
        """Links between networks, and access links of which something is set: {"kind", "ends", "ways", "text", "mtu", "state"}.

        ways: {direction: its SHAPE (`experiment.resources`)}; text: the same in words.
        """
        missing = [item for item in self.desired if item.kind in links.WAYS and item.key not in self.observed.resources]
        views = [links.view(item, item.state) for item in self.observed.resources.values() if item.kind in links.WAYS and item.spec]
        views += [links.view(item, ABSENT) for item in missing]
        return {
            view.name: {
                "kind": view.kind,
                "ends": list(view.ends),
                "ways": {way: dict(shape) for way, shape in view.ways.items()},
                "text": {way: view.text(way) for way in view.ways},
                "mtu": view.mtu,
                "state": view.state,
            }
            for view in sorted(views, key=lambda view: natural_order(view.name))
        }

    def services(self) -> dict[str, dict[str, Any]]:
        """The services by name, as in "web@server": {"service", "node", "state", "detail"}."""
        return {
            name: {"service": spec.get("service"), "node": spec.get("node"), "state": state, "detail": detail or None}
            for name, spec, state, detail in self._both("service")
        }

    def _both(self, kind: str) -> list[tuple[str, Mapping[str, Any], str, str]]:
        """(name, spec, state, detail) of those that exist, with the addresses that they have, and of those only asked for, in order."""
        return sorted(self._each(kind), key=lambda item: natural_order(item[0]))

    def _each(self, kind: str) -> Iterable[tuple[str, Mapping[str, Any], str, str]]:
        wanted = {item.name: item for item in self.desired if item.kind == kind}
        for item in self.observed.of(kind):
            spec = item.spec or (wanted[item.name].spec if item.name in wanted else {})
            yield item.name, {**spec, "found": dict(item.addresses)}, item.state, item.detail
        there = {item.name for item in self.observed.of(kind)}
        for name, resource in wanted.items():
            if name not in there:
                yield name, resource.spec, ABSENT, ""

    def _lease(self) -> dict[str, Any] | None:
        record = self.observed.environment
        end = lease_end(record) if record else None
        return None if record is None or end is None else {"end": end, "at_end": record.spec["lease"]["at_end"], "extendable": True}


async def look(environment: Environment) -> View:
    """Look at the environment of a file, whether it is up or not. Raises ProviderError where the provider does not answer."""
    found = await find(environment)
    return await look_at(environment, *found) if found else await asyncio.to_thread(_seen, environment, Observed(), ())


def as_written(environment: Environment) -> View:
    """What the file of an environment asks for, as if it were not up."""
    return _seen(environment, Observed(), ())


async def look_at(environment: Environment, record: EnvironmentRecord, provider: Provider) -> View:
    """Look at one that was found before."""
    observed = await services.observe(provider, record.id)
    suffered = await faults.in_force(provider, record.id) if observed.environment else []
    return await asyncio.to_thread(_seen, environment, observed, tuple(suffered))


async def find(environment: Environment) -> tuple[EnvironmentRecord, Provider] | None:
    """The record and provider of the environment of a file, if it is up."""
    for record, provider in await environments():
        if record.file == str(environment.file) and record.instance == environment.instance:
            return record, provider
    return None


def record_json(record: EnvironmentRecord) -> dict[str, Any]:
    """Who an environment is."""
    keys = ("id", "name", "instance", "provider", "user", "host", "created")
    return {**{key: getattr(record, key) for key in keys}, "parameters": dict(record.spec.get("parameters") or {})}


def experiment_json(experiment: Experiment) -> dict[str, Any]:
    """What an experiment file says of itself."""
    parameters = {name: item.model_dump(mode="json", exclude_none=True) for name, item in experiment.parameters.items()}
    about = {"name": experiment.name, "description": experiment.description, "provider": experiment.provider}
    return without_null({**about, "parameters": parameters})


def problem_json(problem: Problem) -> dict[str, Any]:
    """A problem of an experiment file, and its words as one line."""
    return without_null({**asdict(problem), "text": str(problem)})


def fault_json(fault: InForce) -> dict[str, Any]:
    """A fault that is in force."""
    return without_null(
        {
            "kind": fault.fault.kind,
            "targets": list(fault.fault.targets),
            "nodes": list(fault.nodes),
            "text": fault.text(),
            "began": fault.began,
            "until": fault.until,
            "by": fault.by,
        }
    )


def without_null(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object without the keys, its own and those of objects in it, whose value is null."""
    return {key: _bare(item) for key, item in value.items() if item is not None}


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_null(value)
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _seen(environment: Environment, observed: Observed, suffered: tuple[InForce, ...]) -> View:
    experiment: Experiment | None = None
    desired: list[Resource] = []
    problems: list[Problem] = []
    try:
        experiment, desired = environment.as_grown(observed)
    except ExperimentFileError as error:
        problems = error.problems
    except WardianError as error:
        problems = [Problem("", error.message, str(environment.file), expected=error.remedy)]
    return View(str(environment.file), environment.instance, experiment, tuple(desired), tuple(problems), observed, suffered)


def _node(spec: Mapping[str, Any]) -> dict[str, Any]:
    written = {part["network"]: part["address"].partition("/")[0] for part in spec.get("interfaces", ())}
    kept = ("group", "index", "roles", "hostname", "site", "image", "cpus", "memory")
    return {**{key: spec.get(key) for key in kept}, "addresses": written | spec.get("found", {})}
