"""The synchronous face: what scripts and notebooks call, also where an event loop already runs.

All work goes to one background thread that has an event loop of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .environment import environment as core
from .environment.apply import Listener
from .environment.clocks import Offset
from .environment.faults import InForce
from .environment.inflicting import Inflicted, Inflicting
from .environment.links import LinkView
from .environment.live import NodeView
from .environment.sources import load as _load
from .environment.treatment import Snapshot
from .environment.verify import Report
from .experiment.model import Experiment
from .experiment.plan import Plan
from .experiment.resources import Observed
from .nodes.files import Transfer
from .nodes.run import Result
from .portal import shared as _portal


def load(file: str | os.PathLike[str], parameters: Mapping[str, object] | None = None) -> Experiment:
    """The experiment of a file, with these parameters set. Raises ExperimentFileError naming everything wrong with it."""
    return _load(Path(file), parameters)


class Environment:
    """The environment of an experiment file, whether it exists or not. Arguments as for `wardian.aio.Environment`.

    As a context manager it writes the journal out at the end; it does not tear the environment down.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] = "experiment.yaml",
        *,
        instance: str | None = None,
        parameters: Mapping[str, object] | None = None,
        provider: str | None = None,
    ) -> None:
        self._core = core.Environment(file, instance=instance, parameters=parameters, provider=provider)

    def load(self) -> Experiment:
        """The experiment as the file says. Raises ExperimentFileError."""
        return self._core.load()

    def plan(self, *, strict: bool = False) -> Plan:
        """What `up` would do."""
        return _portal.call(self._core.plan(strict=strict))

    def up(self, *, strict: bool = False, confirm: core.Confirm | None = None, listen: Listener | None = None) -> Plan:
        """Make the environment as the file says, and give the plan that was carried out."""
        return _portal.call(self._core.up(strict=strict, confirm=confirm, listen=listen))

    def down(self, *, force: bool = False, gather: bool = True) -> core.Down:
        """Collect what the file names, then remove everything of the environment."""
        return _portal.call(self._core.down(force=force, gather=gather))

    def observe(self) -> Observed:
        """Everything that exists of it; empty if there is nothing."""
        return _portal.call(self._core.observe())

    @property
    def nodes(self) -> dict[str, NodeView]:
        """The nodes as they are now, by name. Raises NotUpError."""
        return _portal.call(self._core.live()).nodes

    def exec(self, selector: str, argv: Sequence[str], **options: Any) -> list[Result]:
        """Run a command on the nodes that `selector` picks; options are those of `wardian.nodes.run.run_on`."""
        return _portal.call(self._core.exec(selector, argv, **options))

    def put(self, selector: str, source: str | os.PathLike[str], target: str) -> list[Transfer]:
        """Copy a file or folder to the nodes that `selector` picks."""
        return _portal.call(self._core.put(selector, source, target))

    def get(self, selector: str, source: str, target: str | os.PathLike[str]) -> list[Transfer]:
        """Copy a file or folder from the nodes that `selector` picks; from several, each into a folder named like the node."""
        return _portal.call(self._core.get(selector, source, target))

    def snapshot(self, node: str, name: str) -> Snapshot:
        """Make a node's disk, as it is now, an image of this name, which `image:` can name from then on."""
        return _portal.call(self._core.snapshot(node, name))

    def reboot(self, selector: str, *, hard: bool = False) -> Plan:
        """Reboot nodes, which keep their disks, and put on them what the file says; gives what was done."""
        return _portal.call(self._core.reboot(selector, hard=hard))

    def rebuild(self, selector: str, *, image: str | None = None) -> Plan:
        """Make nodes anew from their image, or from this one; their disks are lost. Gives what was done."""
        return _portal.call(self._core.rebuild(selector, image=image))

    def clocks(self) -> list[Offset]:
        """How far the clocks of the nodes are from this host's, measured now; the journal has it, too. Raises NotUpError."""
        return _portal.call(self._core.clocks())

    def links(self) -> list[LinkView]:
        """All links and access links as they are now. Raises NotUpError."""
        return _portal.call(self._core.links())

    def set_link(self, name: str, *, way: str | None = None, **changes: object) -> Plan:
        """Change what links do, in place and until the next `up`: `set_link("wan", delay="80ms")`. Arguments as for `wardian.aio`."""
        return _portal.call(self._core.set_link(name, way=way, **changes))

    def verify(self, *names: str, all_pairs: bool = False, seconds: float = 5.0, listen: Callable[[str], None] | None = None) -> Report:
        """Measure whether links do what the file says: `print(report)`, `report.ok`, `report.figure(path)`; see `wardian.aio`."""
        return _portal.call(self._core.verify(*names, all_pairs=all_pairs, seconds=seconds, listen=listen))

    def extend_lease(self, duration: float | str) -> float:
        """Hold the environment for longer, until the next `up`: `extend_lease("30min")`; gives when its lease ends now."""
        return _portal.call(self._core.extend_lease(duration))

    def shrink_lease(self, duration: float | str) -> float:
        """Hold the environment for less, until the next `up`: `shrink_lease("30min")`; gives when its lease ends now."""
        return _portal.call(self._core.shrink_lease(duration))

    def restart_traces(self, name: str) -> Plan:
        """Have the traces of links begin again from their start, now."""
        return _portal.call(self._core.restart_traces(name))

    @property
    def fault(self) -> Faults:
        """What can be inflicted on it: `with environment.fault.pause("server"): …`."""
        return Faults(self._core)

    def close(self) -> None:
        """Write what the journal still holds."""
        self._core.close()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return self._core._repr_mimebundle_()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Faults:
    """What can be inflicted on an environment. Arguments as for `wardian.aio`; each call inflicts at once."""

    def __init__(self, environment: core.Environment) -> None:
        self._core = environment.fault

    def partition(self, *sides: str, duration: float | str | None = None) -> Fault:
        """Have nodes of different sides hear nothing from each other: `partition("client", "server", duration=30)`."""
        return Fault(_portal.call(_inflict(self._core.partition(*sides, duration=duration))))

    def pause(self, selector: str, *, duration: float | str | None = None) -> Fault:
        """Have every process of these nodes stand still."""
        return Fault(_portal.call(_inflict(self._core.pause(selector, duration=duration))))

    def slow(self, selector: str, *, cpu: float | str, duration: float | str | None = None) -> Fault:
        """Leave these nodes a share of their processors: `slow("server", cpu="20%")`."""
        return Fault(_portal.call(_inflict(self._core.slow(selector, cpu=cpu, duration=duration))))

    def flap(self, link: str, *, every: float | str, down: float | str, duration: float | str | None = None) -> Fault:
        """Have links lose their carrier again and again: `flap("wan", every="2s", down="500ms")`."""
        return Fault(_portal.call(_inflict(self._core.flap(link, every=every, down=down, duration=duration))))

    def kill(self, selector: str, *, duration: float | str | None = None) -> list[str]:
        """End all that runs on these nodes at once; they are made anew after `duration`, or by `up`. Gives their names."""
        return _portal.call(self._core.kill(selector, duration=duration))

    def in_force(self) -> list[InForce]:
        """The faults in force, the oldest first."""
        return _portal.call(self._core.in_force())

    def undo(self, id_: str | None = None) -> list[InForce]:
        """Undo one fault by its id, or all; gives what was undone."""
        return _portal.call(self._core.undo(id_))


class Fault:
    """A fault that was inflicted. In a `with` it is undone at the end, and when this process dies before that."""

    def __init__(self, inflicted: Inflicted) -> None:
        self._core = inflicted

    @property
    def id(self) -> str:
        """As `wardian fault ls` shows it."""
        return self._core.id

    def undo(self) -> None:
        """Undo it, unless that has happened."""
        _portal.call(self._core.undo())

    def __enter__(self) -> Self:
        _portal.call(self._core.hold())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.undo()

    def __repr__(self) -> str:
        return repr(self._core)


async def _inflict(fault: Inflicting) -> Inflicted:
    return await fault
