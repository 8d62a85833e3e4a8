"""Making, changing and removing the resources of an environment whose nodes are processes. Blocking, as `..growth`.

What is no process is written down, and no more: networks and links are there for their specs' sake.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ....errors import ProviderError
from ....experiment.resources import Resource
from ....paths import user_name
from .. import channel, ending, nodespec, processes
from ..fabric import Fabric
from ..growth import REMEDY, Growth, record_of
from ..state import ResourceFolder, State
from . import loopback


class PlainGrowth(Growth):
    """One environment of such nodes."""

    _disk = "home"

    def _create_environment(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            self._folder.begin(record_of(self._id, resource.spec, time.time()), plain=True)
            self._report(resource.name, "ready")

    def _create_written(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            self._begin(resource.kind, resource.name, resource.spec).complete(resource.spec)
            self._report(resource.name, "ready")

    _create_networks = _create_links = _create_accesses = _create_written

    def _create_nodes(self, resources: Sequence[Resource]) -> None:
        specs = {resource.name: resource.spec for resource in resources}
        folders: dict[str, ResourceFolder] = {}
        facts: dict[str, dict[str, str]] = {}
        with loopback.allocating(self._state, self._id) as free:
            for name, spec in specs.items():
                facts[name] = {"address": next(free), "scratch": str(scratch(self._state, self._id, name))}
                folders[name] = self._begin("node", name, spec, **facts[name])

        def ready(answers: list[dict[str, Any]]) -> None:
            for answer in answers:
                name = answer["key"].partition(" ")[2]
                folders[name].complete(specs[name], **facts[name])
                self._release(name)
                self._report(name, "ready")

        self._spawn([self._child(name, folders[name], specs[name], facts[name]) for name in specs], ready)
        if tables := self._tables():
            self._publish(tables)

    def _child(self, name: str, folder: ResourceFolder, spec: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, Any]:
        (folder.path / self._disk).mkdir(exist_ok=True, mode=0o700)
        place = Path(facts["scratch"])
        for part in (place.parent, place, place / "run", place / "tmp"):
            _make_own(part)
        return {
            "key": f"node {name}",
            "kind": "plain",
            "directory": str(folder.path),
            "env": self._variables(name, spec, facts),
        }

    def _variables(self, name: str, spec: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, str]:
        """The variables of a node's processes, and with them the marks by which they are found should guard and init both be killed."""
        user, run, temporary = user_name(), f"{facts['scratch']}/run", f"{facts['scratch']}/tmp"  # noqa: S108 - below the node's own
        home = self._folder.resource("node", name).path / "home"
        own = {
            "HOME": str(home),
            "USER": user,
            "LOGNAME": user,
            "TMPDIR": temporary,
            "WARDIAN_RUN_DIR": run,
            "WARDIAN_SPOOL_DIR": temporary,
            "WARDIAN_ADDRESS": facts["address"],
            "WARDIAN_HOSTS": str(loopback.table_of(self._folder)),
        }
        return nodespec.variables(name, spec, {**own, **loopback.resolving(self._folder)}) | processes.marks(self._id, self._state.root)

    def _create_names(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            folder = self._begin("names", resource.name, resource.spec)
            self._publish(resource.spec["tables"])
            folder.complete(resource.spec)
            self._report(resource.name, "ready")

    def _publish(self, tables: Mapping[str, Any]) -> None:
        loopback.publish(self._state, self._folder, tables)

    # Changing

    def _update_shapes(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            self._existing(resource)[0].complete(resource.spec)

    def _update_node(self, resource: Resource, folder: ResourceFolder, known: Mapping[str, Any]) -> None:
        if folder.pid() is None:
            raise ProviderError("it is not running", resource=str(resource), remedy=REMEDY)
        if resource.spec["env"] != known["spec"]["env"]:
            variables = self._variables(resource.name, resource.spec, known["facts"])
            if failures := channel.tell([(resource.name, folder.path, {"variables": variables})]):
                raise ProviderError(failures[resource.name], resource=str(resource), remedy=REMEDY)

    def _update_network(self, resource: Resource, folder: ResourceFolder, before: Mapping[str, Any]) -> None:
        """There is nothing to change."""

    def _write_names(self, resource: Resource) -> None:
        self._publish(resource.spec["tables"])

    # Removing

    def _delete_kind(self, kind: str, names: Sequence[str], wiring: Fabric | None) -> None:
        folders = [self._folder.resource(kind, name) for name in names]
        scratches = [known["facts"]["scratch"] for folder in folders if kind == "node" and (known := folder.read())]
        super()._delete_kind(kind, names, wiring)
        for path in scratches:
            shutil.rmtree(path, ignore_errors=True)
        if kind == "names":
            loopback.withdraw(self._state, self._id)

    def _end(self, folders: Iterable[ResourceFolder]) -> None:
        nodes = [folder for folder in folders if folder.kind == "node" and folder.path.exists()]
        end_nodes(nodes)
        names = {folder.name for folder in nodes}
        while doomed := {pid for pid, node in self._marked().items() if node in names}:
            processes.end(doomed)
        if any(folder.process() is None for folder in nodes):
            # a spawner that was killed left guards that nobody wrote down; they and their inits have no node's name yet
            known = processes.running(self._folder.processes())
            written = known.union(*(ending.descendants(pid) for pid in known))
            processes.end({pid for pid, node in self._marked().items() if node is None} - written)

    def _marked(self) -> dict[int, str | None]:
        """The processes that carry the environment's marks: {number: the node that it is of, None of guards and inits}."""
        marked: dict[int, str | None] = {}
        for pid in processes.of(self._id, self._state.root):
            try:
                variables = processes.variables_of(str(pid)).decode(errors="replace").split("\0")
            except OSError:
                continue
            marked[pid] = next((each.partition("=")[2] for each in variables if each.startswith("WARDIAN_NODE=")), None)
        return marked

    def destroy(self) -> None:
        """Remove everything that carries the environment's id, its record last."""
        nodes = self._folder.resources("node")
        end_nodes(nodes)
        loopback.withdraw(self._state, self._id)
        for folder in nodes:
            if known := folder.read():
                shutil.rmtree(known["facts"]["scratch"], ignore_errors=True)
        super().destroy()

    def _keep_relay(self) -> None:
        """There is none."""


def end_nodes(folders: Iterable[ResourceFolder]) -> None:
    """Have the guards of these nodes end all of them, and return once they have."""
    ending.ask_to_end([pid for folder in folders if (pid := folder.pid()) is not None])


def scratch(state: State, environment: str, node: str) -> Path:
    """Where a node has its sockets and what is temporary: a short path, since that of a socket may have 108 bytes."""
    which = hashlib.sha256(f"{state.root}\0{environment}\0{node}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"wardian-nodes-{os.getuid()}" / which


def _make_own(folder: Path) -> None:
    """Make a folder that no other user changes; one that is there already has to be so."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        remedy = "Remove it, or set TMPDIR to a folder of yours."
        raise ProviderError("it is not a folder that this user alone may change", resource=str(folder), remedy=remedy)
