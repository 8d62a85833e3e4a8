"""What an experiment file asks for under an instance name, and of which provider."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import PlanError
from ..experiment.model import Experiment
from ..experiment.plan import Plan, reconcile
from ..experiment.resources import Observed, Resource
from ..experiment.topology import expand, names_known
from ..paths import user_name
from ..providers.base import Provider
from . import quota, sources


@dataclass(frozen=True)
class Desired:
    """What is asked for, and of whom."""

    experiment: Experiment
    provider: Provider
    file: Path
    instance: str

    async def plan(self, observed: Observed, *, strict: bool) -> Plan:
        """What brings what exists to it. With `strict`, a caveat is a PlanError, and what exceeds a quota always is."""
        digests = sources.file_digests(self.experiment, self.file.parent) | sources.build_digests(self.experiment, self.file.parent)
        tables = sources.read_tables(self.experiment, self.file.parent, str(self.file))
        resources = await self.provider.complete(
            [self.environment(observed), *expand(self.experiment, observed, digests, tables)], observed
        )
        for provider, items in self.provider.parts(resources).values():
            _require_images(provider, items)
        used = await quota.shares(resources, observed.environment)
        plan = replace(reconcile(resources, observed, await self.provider.capabilities(resources)), quota=used)
        plan = replace(plan, costs=tuple(await self.provider.estimate(resources, plan))) if plan else plan
        if strict and plan.caveats:
            caveats = "\n".join(f"  {caveat}" for caveat in plan.caveats)
            raise PlanError(f"not everything can be honoured here:\n{caveats}", remedy="leave out --strict to accept the stand-ins")
        return plan

    def environment(self, observed: Observed) -> Resource:
        """The resource that stands for all of it."""
        experiment = self.experiment
        record = observed.environment
        spec = {
            "name": experiment.name,
            "instance": self.instance,
            "file": str(self.file),
            "user": user_name(),
            "host": socket.gethostname(),
            "provider": self.provider.name,
            "settings": self.provider.settings.model_dump(mode="json"),
            "parameters": {name: parameter.default for name, parameter in experiment.parameters.items()},
            "collect": [item.model_dump() for item in experiment.collect],
            "names": names_known(experiment),
            "lease": experiment.lease.model_dump() if experiment.lease else None,
        }
        return Resource("environment", record.name if record else experiment.name, spec)


def _require_images(provider: Provider, resources: Sequence[Resource]) -> None:
    """Raises PlanError where a service is what an image starts, and images of this provider start nothing."""
    asking = [item for item in resources if item.kind == "service" and isinstance(item.spec["command"], dict)]
    if asking and not provider.image_commands:
        service = asking[0].spec["service"]
        raise PlanError(
            f"services.{service}.command: nodes of {provider.name} have no image with a command of its own",
            remedy="write the command that it runs, or use `--provider docker`",
        )
