"""What the provider has done on an environment, as functions of plain values: so they run in this process, or in a helper elsewhere.

Each takes a `Job` first. All block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import MissingToolError
from ...experiment.resources import Caveat, Observed, Resource
from ..base import Fault, Finding, Progress, Usage
from .layers import Stop
from .state import State

if TYPE_CHECKING:
    from ..images.store import Stored
    from .growth import Growth


@dataclass(frozen=True)
class Job:
    """What work is given besides its arguments.

    report: told about each resource as its state changes. stop: set to end it early. plain: whether nodes are processes alone.
    """

    state: State
    report: Progress
    stop: Stop = field(default_factory=Stop)
    plain: bool = False


def create(job: Job, environment: str, resources: Sequence[Resource], pins: Mapping[str, str]) -> None:
    _growth(job)(job.state, environment, job.report, job.stop, pins).create(resources)


def update(job: Job, environment: str, resources: Sequence[Resource]) -> None:
    _growth(job)(job.state, environment, job.report).update(resources)


def delete(job: Job, environment: str, resources: Sequence[tuple[str, str]]) -> None:
    _growth(job)(job.state, environment, job.report).delete(resources)


def destroy(job: Job, environment: str) -> None:
    _growth(job)(job.state, environment, job.report).destroy()


def reboot(job: Job, environment: str, resources: Sequence[Resource]) -> None:
    _growth(job)(job.state, environment, job.report, job.stop).reboot(resources)


def forget_disks(job: Job, environment: str, nodes: Sequence[str]) -> None:
    _growth(job)(job.state, environment, job.report).forget_disks(nodes)


def snapshot(job: Job, environment: str, node: str, name: str) -> str:
    from . import snapshots

    return snapshots.snapshot(job.state.environment(environment), node, name, lambda said: job.report(node, said))


def image_digest(job: Job, environment: str, image: str) -> str:
    from . import images

    record = job.state.environment(environment).record()
    return images.digest(image, Path(record.file).parent if record else Path("/"), lambda said: job.report(image, said))


def _growth(job: Job) -> type[Growth]:
    if job.plain:
        from .plain.growth import PlainGrowth

        return PlainGrowth
    from .growth import Growth

    return Growth


def observe(job: Job, environment: str) -> Observed:
    from . import observation

    return observation.observe(job.state.environment(environment))


def usage(job: Job, environment: str) -> Mapping[str, Usage]:
    from . import usage as used

    return used.of(job.state.environment(environment))


def traffic(job: Job, environment: str) -> Mapping[str, Mapping[str, int]]:
    from . import traffic as carried

    return carried.of(job.state.environment(environment))


def traffic_matrix(job: Job, environment: str, counting: bool) -> Mapping[tuple[str, str], int]:
    from . import matrix

    folder = job.state.environment(environment)
    if counting:
        return matrix.of(folder)
    matrix.end(folder)
    return {}


def keep(job: Job, environment: str) -> list[int]:
    from . import relays

    return relays.keep(job.state.environment(environment), job.state)


def inflict(job: Job, environment: str, kind: str, targets: Sequence[str], faults: Sequence[Fault]) -> None:
    from . import faults as afflictions

    afflictions.inflict(job.state.environment(environment), kind, targets, faults)


def kill(job: Job, environment: str, nodes: Sequence[str]) -> None:
    from . import faults as afflictions

    afflictions.kill(job.state.environment(environment), nodes)


def caveats(job: Job, desired: Sequence[Resource]) -> list[Caveat]:
    from . import limits

    if any(resource.kind == "node" for resource in desired):
        _holds_disks(job.state.root)
    return limits.caveats(desired, job.state.root)


@cache
def _holds_disks(state: Path) -> None:
    """Raise MissingToolError where a state folder cannot hold what nodes write; tried until it can."""
    from . import doctor

    if (found := doctor.overlay(State(state))).state == "missing":
        raise MissingToolError(found.detail, remedy=found.remedy)


def collect_garbage(job: Job) -> list[str]:
    from . import garbage

    return garbage.collect(job.state, job.report)


def add_image(job: Job, path: Path, name: str | None, limit: int) -> Stored:
    from ..images.store import Store

    return Store().add(path, name=name, limit=limit, report=lambda said: job.report(str(path), said))


def fetch_images(job: Job, images: Sequence[Mapping[str, str]], folder: Path) -> dict[str, str]:
    from .images import fetched

    found = {image["digest"]: fetched(image, folder, job.report) for image in images}
    return {digest: problem for digest, problem in found.items() if problem}


def remove_image(job: Job, stored: Stored) -> None:
    from ..images.store import Store

    Store().remove(stored)


def collect_images(job: Job, unused_since: float, named: bool) -> list[Stored]:
    from ..images.store import Store

    return Store().collect(unused_since, named=named)


def diagnose(job: Job) -> list[Finding]:
    from . import doctor

    return doctor.diagnose(job.state)
