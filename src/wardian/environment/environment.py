"""The environment of one experiment file: planned, grown, looked at, worked on, torn down.

This is the object that scripts and the command line hold (`wardian.aio.Environment`; `wardian.Environment` is its synchronous face).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import BusyError, NotUpError, PlanError, WardianError
from ..experiment import places
from ..experiment.model import Experiment
from ..experiment.plan import Plan
from ..experiment.resources import EnvironmentRecord, Observed, ObservedResource, Resource
from ..experiment.topology import expand
from ..experiment.units import as_seconds, format_duration
from ..journal import Journal
from ..nodes import files
from ..nodes.files import Transfer
from ..nodes.run import Result, run_on
from ..providers import registry
from ..providers.base import Provider
from . import clocks, faults, fidelity, keeper, links, live, quota, services, slots, sources, treatment
from .apply import Event, Listener, apply
from .clocks import Offset
from .collect import collect
from .desired import Desired
from .inflicting import Faults, parsed
from .links import LinkView
from .live import FOLDER, LiveEnvironment
from .verify import Report, verify

Confirm = Callable[[Plan, Sequence[str]], bool]
"""Asked with a plan, and with the names of the nodes and networks it removes that run well now."""


@dataclass(frozen=True, slots=True)
class Down:
    """What `down` did: whether there was an environment, and where collected files went."""

    existed: bool
    collected: tuple[Transfer, ...] = ()
    folder: Path | None = None


class Environment:
    """The environment of an experiment file under an instance name, whether it exists or not.

    file: the experiment file.
    instance: name that tells several environments of one file apart; "default" unless given.
    parameters: values for the experiment's parameters.
    provider: a provider or site to use in place of all that the file names.
    settings: of the provider, over those of the file.
    Its attribute `pins`, {node: digest}, says which images nodes are made from, whatever the names of these mean by now.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        instance: str | None = None,
        parameters: Mapping[str, object] | None = None,
        provider: str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.file = Path(file).resolve()
        self.instance = instance or live.default_instance()
        self.parameters = dict(parameters or {})
        self.settings = dict(settings or {})
        self.pins: dict[str, str] = {}
        self._provider_name = provider
        self._journal: Journal | None = None

    @property
    def folder(self) -> Path:
        """That of the experiment file."""
        return self.file.parent

    @property
    def journal(self) -> Journal:
        """The journal in the experiment's folder, opened at first use."""
        if self._journal is None:
            self._journal = open_journal(self.file)
        return self._journal

    def close(self) -> None:
        """Write what the journal still holds."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from .display import mimebundle

        return mimebundle(self)

    def load(self) -> Experiment:
        """The experiment as the file says, with the parameters set. Raises ExperimentFileError."""
        return sources.load(self.file, self.parameters)

    def provider(self) -> Provider:
        """What grows it, by the file or as it was told. Raises ExperimentFileError and PlanError."""
        return self.desired().provider

    def providers(self) -> list[Provider]:
        """That of each place where it grows. Raises as `provider`."""
        return [registry.make(place.provider, place.settings) for place in self._places(self.load())]

    def desired(self) -> Desired:
        """What the file asks for, and of which provider. Raises ExperimentFileError and PlanError."""
        return self._desired(self.load())

    def as_grown(self, observed: Observed) -> tuple[Experiment, list[Resource]]:
        """The experiment as the file says now, with the parameters that it was grown with as far as it still has them, and its resources.

        Digests of files are left out. Raises ExperimentFileError and PlanError.
        """
        used = observed.environment.spec.get("parameters", {}) if observed.environment else {}
        declared = self.load().parameters
        experiment = sources.load(self.file, {name: value for name, value in used.items() if name in declared} | self.parameters)
        return experiment, expand(experiment, observed, tables=sources.read_tables(experiment, self.folder, str(self.file)))

    async def plan(self, *, strict: bool = False) -> Plan:
        """What `up` would do. With `strict`, a caveat is a PlanError."""
        return (await self.planned(strict=strict))[0]

    async def planned(self, *, strict: bool = False) -> tuple[Plan, Observed]:
        """What `up` would do, and what exists now."""
        desired = self._desired(self.load())
        observed = await self._observe(desired.provider)
        return await desired.plan(observed, strict=strict), observed

    async def up(self, *, strict: bool = False, confirm: Confirm | None = None, listen: Listener | None = None) -> Plan:
        """Make the environment as the file says, and give the plan that was carried out.

        confirm: asked, when there is something to do, with the plan and with what it removes that runs well now; False leaves
        everything as it is.
        listen: told what happens.
        Raises BusyError when another command works on it, and the first error of the plan; running it again finishes the work.
        """
        desired = self._desired(self.load())
        async with self._lock(desired.provider, "wardian up"):
            observed = await self._observe(desired.provider)
            plan = await desired.plan(observed, strict=strict)
            identity = observed.environment.id if observed.environment else f"{desired.experiment.name}-{secrets.token_hex(4)}"
            wanted = bool(plan) and (confirm is None or confirm(plan, lost(plan, observed)))
            if wanted:
                await apply(plan, desired.provider, identity, self.instance, self.folder, self.journal, listen or _nobody)
            if observed.environment or plan:
                await keeper.ensure(desired.provider, identity, bool(desired.experiment.lease))
            anew = wanted and any(item.action == "create" and item.kind == "node" for item in plan.operations)
            if anew and await desired.provider.own_clocks(identity):
                await self.clocks()
            return plan

    async def down(self, *, force: bool = False, gather: bool = True, listen: Callable[[str, str], None] | None = None) -> Down:
        """Collect what the file names, then remove everything of the environment.

        gather: whether to collect. force: tear down even if collecting fails.
        Raises TransferError, with everything still standing, when collecting fails without `force`.
        """
        found = await self._find()
        if found is None:
            return Down(existed=False)
        record, provider = found
        async with self._lock(provider, "wardian down"):
            return await tear_down(record, provider, self.journal, force=force, gather=gather, listen=listen)

    @property
    def fault(self) -> Faults:
        """What can be inflicted on it: `async with environment.fault.pause("server"): …`."""
        return Faults(self)

    async def live(self, *, glance: bool = False) -> live.LiveEnvironment:
        """The environment as it exists; with `glance`, nodes far away are not asked how they are. Raises NotUpError if there is none."""
        return await live.find(self.file, self.instance, glance=glance)

    async def observe(self) -> Observed:
        """Everything that exists of it, with files and services; empty if there is nothing."""
        found = await self._find()
        if found is None:
            return Observed()
        record, provider = found
        await keeper.revive(provider, record)
        return await services.observe(provider, record.id)

    async def exec(self, selector: str, argv: Sequence[str], **options: Any) -> list[Result]:
        """Run a command on the nodes that `selector` picks; options are those of `nodes.run.run_on`."""
        environment = await self.live(glance=True)
        return await run_on(environment.channels(environment.select(selector)), argv, **options)

    async def put(self, selector: str, source: str | os.PathLike[str], target: str) -> list[Transfer]:
        """Copy a file or folder to the nodes that `selector` picks."""
        environment = await self.live(glance=True)
        transfers = []
        for node in environment.select(selector):
            entry = self.journal.transfer(environment=environment.record.id, node=node, direction="put", source=str(source), target=target)
            transfers.append(await _recorded(entry, files.put(environment.channel(node), node, Path(source), target)))
        return transfers

    async def get(self, selector: str, source: str, target: str | os.PathLike[str]) -> list[Transfer]:
        """Copy a file or folder from the nodes that `selector` picks; from several, each into a folder named like the node."""
        environment = await self.live(glance=True)
        nodes = environment.select(selector)
        transfers = []
        for node in nodes:
            place = Path(target) / node if len(nodes) > 1 else Path(target)
            if len(nodes) > 1:
                place.mkdir(parents=True, exist_ok=True)
            entry = self.journal.transfer(environment=environment.record.id, node=node, direction="get", source=source, target=str(place))
            transfers.append(await _recorded(entry, files.get(environment.channel(node), node, source, place)))
        return transfers

    async def snapshot(self, node: str, name: str, *, report: Callable[[str, str], None] | None = None) -> treatment.Snapshot:
        """Make a node's disk, as it is now, an image of this name, which `image:` can name from then on.

        report: told the node and the state that this is in. Raises NotUpError, SelectorError, NodeDownError, BusyError, and ProviderError
        where there is an image of that name already or none can be made.
        """
        return await treatment.snapshot(self, node, name, report)

    async def reboot(
        self, selector: str, *, hard: bool = False, announce: Callable[[Plan], None] | None = None, listen: Listener | None = None
    ) -> Plan:
        """Reboot nodes, which keep their disks, and put on them what the file says; gives what was done.

        hard: as a power cut does. announce: told what will be done. listen: told what happens. Faults that concern the nodes end.
        Raises NotUpError, SelectorError, BusyError, and ProviderError where that cannot be; running `up` or it again finishes the work.
        """
        return await treatment.renew(self, "reboot", selector, {"hard": hard}, announce, listen or _nobody)

    async def rebuild(
        self,
        selector: str,
        *,
        image: str | None = None,
        announce: Callable[[Plan], None] | None = None,
        listen: Listener | None = None,
    ) -> Plan:
        """Make nodes anew from their image, or until they are made anew again from this one; their disks are lost. As `reboot`."""
        return await treatment.renew(self, "rebuild", selector, {"image": image}, announce, listen or _nobody)

    async def clocks(self, *, run: str | None = None) -> list[Offset]:
        """How far the clocks of the nodes are from this host's; the journal has it, too. run: that this is a part of."""
        environment = await self.live(glance=True)
        offsets = await clocks.measure(environment)
        clocks.record(self.journal, environment.record.id, offsets, run)
        return offsets

    async def links(self) -> list[LinkView]:
        """All links and access links as they are now. Raises NotUpError."""
        return links.views((await self.live()).observed)

    async def set_link(self, name: str, *, way: str | None = None, **changes: object) -> Plan:
        """Change what links do, in place and until the next `up`, which brings them back to the file; gives what was done.

        name: as `links.pick` takes it: `wan`, `client[0]/west`, `all/*`. way: "there" or "back" of a link, "up" or "down" of an access
        link; both unless given. changes: parts of a shape as the experiment file has them (`delay="80ms"`, `rate="10mbit"`,
        `queue=100`, `mtu=1400`), or None to have a part no more.
        Raises ExperimentFileError for a wrong value, SelectorError for a wrong name, BusyError, PlanError, and NotUpError.
        """
        environment = await self.live()
        async with self._lock(environment.provider, "wardian link set"):
            await environment.refresh()
            items = links.pick(environment, name)
            wanted = [links.changed(item, changes, way, self.folder) for item in items]
            return await self._reshape(environment, items, wanted, "link set")

    async def extend_lease(self, duration: float | str, *, bounded: bool = True) -> float:
        """Hold the environment for longer, until the next `up`, which brings the lease back to the file; gives when it ends now.

        duration: what is added to what is left, seconds or as in the file ("30min").
        bounded: whether a policy bounds it.
        Raises PlanError where it has no lease, or a longer one than a policy allows, ProviderError where its site does not give more,
        NotUpError, BusyError.
        """
        added = parsed("duration", as_seconds, duration)
        return await self._change_lease(added, f"lease extend {format_duration(added)}", bounded)

    async def shrink_lease(self, duration: float | str) -> float:
        """Hold the environment for less; otherwise as `extend_lease`. Raises PlanError where less than that is left."""
        less = parsed("duration", as_seconds, duration)
        return await self._change_lease(-less, f"lease shrink {format_duration(less)}", bounded=False)

    async def _change_lease(self, added: float, reason: str, bounded: bool) -> float:
        environment = await self.live()
        async with self._lock(environment.provider, f"wardian {reason}"):
            await environment.refresh()
            record = environment.observed.environment
            before = keeper.lease_end(record) if record else None
            if record is None or before is None:
                raise PlanError(
                    "it has no lease: it is held until `wardian down`", remedy="write a `lease:` into the file and run `wardian up`"
                )
            end = max(before, time.time()) + added
            if end <= time.time():
                raise PlanError(
                    f"less is left: {format_duration(max(0, round(before - time.time())))}", remedy="`wardian down` ends it now"
                )
            items = [*environment.observed.of("lease"), ObservedResource("environment", record.name, record.spec)]
            wanted: list[Resource] = []
            for item in items:
                held = item.spec if item.kind == "lease" else item.spec["lease"]
                longer = {**held, "duration": held["duration"] + end - before}
                wanted.append(Resource(item.kind, item.name, longer if item.kind == "lease" else {**item.spec, "lease": longer}))
            if bounded:
                quota.check_lease(wanted[-1])
            # what a site holds comes first: it may refuse
            for item, changed in zip(items, wanted, strict=True):
                await self._reshape(environment, [item], [changed], reason)
            await environment.refresh()
            return (keeper.lease_end(environment.observed.environment) if environment.observed.environment else None) or end

    async def slots(self, sites: Sequence[str] | None = None, *, days: int = 7) -> list[slots.SiteSlots]:
        """When it could run, on each of the sites that the file names, the earliest first; asked of their reservation services.

        Of an experiment that grows at several, it is when what each holds of it could run, and then when all of it could.
        sites: just these. days: how far ahead. Raises ExperimentFileError, and PlanError for a site that the file does not name.
        """
        experiment = self.load()
        several = [place.name for place in self._places(experiment)]
        known = list(dict.fromkeys([experiment.provider, *experiment.sites])) if not self._provider_name and len(several) == 1 else several
        if unknown := set(sites or ()) - set(known):
            raise PlanError(f"there is no site {sorted(unknown)[0]}", remedy=f"those of the file: {', '.join(known)}")
        if len(several) > 1:
            return await slots.of_parts(self, sites or several, days)
        targets = {
            site: Environment(self.file, instance=self.instance, parameters=self.parameters, provider=site) for site in sites or known
        }
        return await slots.of_sites(targets, days)

    async def restart_traces(self, name: str) -> Plan:
        """Have the traces of links begin again from their start, now. name: as for `set_link`."""
        environment = await self.live()
        async with self._lock(environment.provider, "wardian link restart"):
            await environment.refresh()
            pairs = list(links.without_traces(links.pick(environment, name)))
            if not pairs:
                raise PlanError(f"{name} has no trace", remedy="`wardian link show` shows what each link does")
            items = [item for item, _ in pairs]
            await self._reshape(environment, items, [bare for _, bare in pairs], "link restart")
            stopped = [replace(item, spec=bare.spec) for item, bare in pairs]
            again = [Resource(item.kind, item.name, item.spec) for item in items]
            return await self._reshape(environment, stopped, again, "link restart")

    async def verify(
        self, *names: str, all_pairs: bool = False, seconds: float = 5.0, listen: Callable[[str], None] | None = None
    ) -> Report:
        """Measure whether links do what the file says, with the parameters that the environment was grown with.

        names: links, as `links.pick` takes them; all of which something is written, unless given. all_pairs: between every two nodes.
        seconds: longest for counting the losses between two nodes. listen: told what is being measured.
        Raises NotUpError, SelectorError, NodeDownError, and PlanError where there is nothing to measure. The journal has the result.
        """
        environment = await self.live()
        only = [item.key for name in names for item in links.pick(environment, name)] if names else None
        entry = self.journal.operation(
            environment=environment.record.id, instance=self.instance, action="verify", kind="link", targets=names or ["all"]
        )
        with entry:
            _, desired = self.as_grown(environment.observed)
            async with fidelity.watch(environment.provider, environment.record.id, self.journal, kind="verify.doubt"):
                report = await verify(environment, desired, only=only, all_pairs=all_pairs, seconds=seconds, listen=listen)
            self.journal.event(environment=environment.record.id, kind="verify", detail=report.to_json())
            if not report.ok:
                entry.done("failed", report.summary())
        return report

    async def _reshape(
        self, environment: LiveEnvironment, items: Sequence[ObservedResource], wanted: Sequence[Resource], reason: str
    ) -> Plan:
        provider, record = environment.provider, environment.record
        # what can be had of a link may depend on all else: on hosts, on who sends over it
        whole = {item.key: Resource(item.kind, item.name, item.spec) for item in environment.observed.resources.values() if item.spec}
        able = await provider.capabilities(list((whole | {item.key: item for item in wanted}).values()))
        kinds = {item.kind for item in wanted}
        caveats = tuple(caveat for caveat in able.caveats if caveat.resource.partition(" ")[0] in kinds)
        plan = links.plan(items, wanted, replace(able, caveats=caveats), reason)
        await apply(plan, provider, record.id, self.instance, self.folder, self.journal, _nobody)
        await keeper.ensure(provider, record.id, bool(record.spec.get("lease")))
        return plan

    def _lock(self, provider: Provider, purpose: str) -> AbstractAsyncContextManager[None]:
        return provider.lock(str(self.file), self.instance, purpose)

    async def _find(self) -> tuple[EnvironmentRecord, Provider] | None:
        """The record and provider of the environment as it exists, whatever the file says now."""
        return await live.holder(str(self.file), self.instance)

    async def _observe(self, provider: Provider) -> Observed:
        found = await self._find()
        if found is None:
            return Observed()
        record, holder = found
        if holder.name != provider.name:
            raise PlanError(
                f"this environment is up on {holder.name}, not on {provider.name}",
                remedy="tear it down first (`wardian down`), or grow another beside it with -e NAME",
            )
        return await self._unlike_pins(await services.observe(provider, record.id), provider)

    async def _unlike_pins(self, observed: Observed, provider: Provider) -> Observed:
        """What exists, with nodes that are from other images than their pins said to be so: then a plan makes them anew."""
        if not self.pins or observed.environment is None:
            return observed
        others = {}
        for node, image in (await provider.images(observed.environment.id)).items():
            item = observed.resources.get(("node", node))
            if item is not None and self.pins.get(node, image["digest"]) != image["digest"]:
                others[item.key] = replace(item, spec={**item.spec, "image": image["digest"]})
        return replace(observed, resources={**observed.resources, **others})

    def _places(self, experiment: Experiment) -> list[places.Place]:
        chosen = [places.named(experiment, self._provider_name)] if self._provider_name else places.of(experiment)
        return [replace(place, settings={**place.settings, **self.settings}) for place in chosen]

    def _desired(self, experiment: Experiment) -> Desired:
        chosen = self._places(experiment)
        provider = registry.make_at(chosen)
        provider.pins = self.pins
        experiment = places.settled(experiment) if len(chosen) > 1 else experiment
        return Desired(experiment, provider, self.file, self.instance)


def open_journal(file: Path) -> Journal:
    """The journal of an experiment file: `$WARDIAN_JOURNAL`, else the one in the file's folder.

    Within a run, what is recorded belongs to it.
    """
    journal = Journal.open(live.journal_target(file))
    journal.current_run = os.environ.get("WARDIAN_RUN")
    return journal


async def tear_down(
    record: EnvironmentRecord,
    provider: Provider,
    journal: Journal,
    *,
    force: bool = False,
    gather: bool = True,
    listen: Callable[[str, str], None] | None = None,
) -> Down:
    """Collect and destroy; the caller holds the lock."""
    progress = listen or (lambda name, state: None)
    # nothing can be collected from a node that stands still
    await faults.free(provider, record.id, "wardian down", journal)
    transfers: list[Transfer] = []
    wanted = record.spec.get("collect") or []
    target = Path(record.file).parent / FOLDER / "collected" / record.id
    if wanted and gather:
        try:
            environment = live.LiveEnvironment(record, provider)
            await environment.refresh()
            transfers = await collect(environment, wanted, target)
        except WardianError as error:
            journal.event(environment=record.id, kind="collect.failed", detail={"error": str(error)})
            if not force:
                error.remedy = "nothing was torn down; `wardian down --force` does so all the same"
                raise
        for item in transfers:
            entry = journal.transfer(environment=record.id, node=item.node, direction="get", source=item.source, target=item.target)
            entry.done("ok", bytes=item.bytes, sha256=item.sha256)
    entry = journal.operation(
        environment=record.id, instance=record.instance, action="delete", kind="environment", targets=[record.name], reason="wardian down"
    )
    await keeper.stop(record.id)
    try:
        await provider.destroy(record.id, progress)
    except WardianError as error:
        entry.done("failed", str(error))
        raise
    entry.done("ok")
    return Down(True, tuple(transfers), target if transfers else None)


def lost(plan: Plan, observed: Observed) -> list[str]:
    """Nodes and networks that a plan removes although nothing is wrong with them."""
    removed = [
        target for item in plan.operations if item.action == "delete" and item.kind in ("node", "network") for target in item.targets
    ]
    return [target.name for target in removed if observed.resources[target.key].state in ("ready", "unreachable")]


async def _recorded(entry: Any, transfer: Any) -> Transfer:
    try:
        done: Transfer = await transfer
    except WardianError as error:
        entry.done("failed", str(error))
        raise
    entry.done("ok", bytes=done.bytes, sha256=done.sha256)
    return done


def _nobody(event: Event) -> None:
    """Nobody is listening."""


__all__ = ["FOLDER", "BusyError", "Down", "Environment", "NotUpError", "tear_down"]
