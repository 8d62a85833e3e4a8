"""An experiment while it is made of something else: every value is checked as it comes, and what does not fit becomes a note."""

from __future__ import annotations

import ipaddress
import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ...errors import ExperimentFileError, PlanError, Problem
from .. import checks, topology
from ..document import Path
from ..fields import Model
from ..model import Experiment, Link, Network, Node, Service
from ..wording import findings
from .reading import Folder
from .report import Note, Outcome, Report, Spot

SECTIONS: Mapping[str, type[Model]] = {"networks": Network, "nodes": Node, "links": Link, "services": Service}

MOST_FILES = 500
"""How many files of one folder are copied onto a node."""

MOST_GAP = 32
"""How many interfaces may be left out in a row, and are still there, so that those after them keep their names."""

WAITING = "exec sleep 2147483647"
"""What keeps a script that has done its work: a service that ends counts as stopped."""

DONE = "wardian: configured"
"""The line of its log that says so."""


@dataclass(slots=True)
class Draft:
    """One experiment on its way.

    kind, source: what it is made of, and what that file is called.
    folder: the folder that this file lies in.
    provider: what shall grow it.
    prefix: path of that folder from the one that the experiment will lie in, "" where both are one.
    """

    kind: str
    source: str
    folder: Folder
    provider: str
    prefix: str = ""
    head: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {section: {} for section in SECTIONS})
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: dict[Note, None] = field(default_factory=dict)
    kept: Counter[str] = field(default_factory=Counter)
    copies: dict[str, None] = field(default_factory=dict)

    @property
    def containers(self) -> bool:
        """Whether nodes have images and what else only containers have."""
        return self.provider == "docker"

    # Notes

    def changed(self, spot: Spot, message: str, at: Path = ()) -> None:
        """Something is taken over, but differently."""
        self._note("changed", spot, message, at)

    def left(self, spot: Spot, message: str, at: Path = ()) -> None:
        """Something is not taken over."""
        self._note("left", spot, message, at)

    def _note(self, outcome: Outcome, spot: Spot, message: str, at: Path) -> None:
        self.notes[Note(outcome, spot, " ".join(message.split()), at)] = None

    # Entries

    def add(self, section: str, wanted: str, entry: Mapping[str, Any] | None = None) -> str:
        """A new entry, under a name as near to the wanted one as names may be, which is given back."""
        name = _unused(_plain(wanted), self.entries[section])
        self.entries[section][name] = dict(entry or {})
        self.names[section, wanted] = name
        return name

    def known(self, section: str, wanted: str) -> str | None:
        """The name that an entry was given, by the one that it has there."""
        return self.names.get((section, wanted))

    def put(self, section: str, name: str, key: str, value: Any, spot: Spot) -> bool:
        """Set one field of an entry; where its value does not fit, it is left out with a note."""
        wrong = _wrong(SECTIONS[section], {key: value})
        if wrong:
            self.left(spot, wrong, (section, name))
            return False
        self.entries[section][name][key] = value
        return True

    def append(self, node: str, key: str, value: Any, spot: Spot) -> bool:
        """Add one item to a field of a node that is a list."""
        wrong = _wrong(Node, {key: [value]})
        if wrong:
            self.left(spot, wrong, ("nodes", node))
            return False
        items = self.entries["nodes"][node].setdefault(key, [])
        if value not in items:
            items.append(value)
        return True

    def variable(self, node: str, name: str, value: str, spot: Spot) -> None:
        """Set an environment variable of a node."""
        if wrong := _wrong(Node, {"env": {name: value}}):
            self.left(spot, wrong, ("nodes", node))
        else:
            self.entries["nodes"][node].setdefault("env", {})[name] = value
            self.kept["environment variables"] += 1

    def image(self, node: str, image: str, spot: Spot) -> None:
        """What a node boots from, where its provider has images."""
        if self.containers:
            self.kept["images"] += self.put("nodes", node, "image", image, spot)
        else:
            self.left(spot, f"has the files of this host: a {self.provider} node boots from no image of a registry", ("nodes", node))

    def capabilities(self, node: str, *names: str, spot: Spot) -> None:
        """What root may do on a node; on `local` it may do what networks need anyway."""
        if self.containers:
            for name in names:
                self.append(node, "capabilities", name.upper().removeprefix("CAP_"), spot)

    # Networks

    def fitting(self, model: type[Model], values: Mapping[str, Any], spot: Spot, at: Path = ()) -> dict[str, Any]:
        """Those fields of a part whose values fit, one beside the other; the others are left out with a note."""
        result: dict[str, Any] = {}
        for key, value in values.items():
            if wrong := _wrong(model, {**result, key: value}):
                self.left(spot, f"{key}: {wrong}", at)
            else:
                result[key] = value
        return result

    def join(self, node: str, network: str, shape: Mapping[str, Any] | None = None) -> None:
        """Make a node a member of a network, on its next interface."""
        self.entries["nodes"][node].setdefault("networks", {})[network] = dict(shape or {})

    def wire(self, node: str, joined: Mapping[int, tuple[str, Mapping[str, Any]]], spot: Spot) -> None:
        """Give a node its interfaces eth0, eth1, …; those that are missing in between lead to networks of their own.

        joined: {number of the interface: (network, what its access link does)}.
        """
        members = self.entries["nodes"][node].setdefault("networks", {})
        for number in sorted(joined):
            network, shape = joined[number]
            if network in members:
                self.left(
                    spot, f"eth{number} is on network {network}, as another interface of the node: one is enough here", ("nodes", node)
                )
                continue
            if number - len(members) > MOST_GAP:
                self.changed(spot, f"eth{number} is eth{len(members)} here", ("nodes", node))
            while len(members) < number <= len(members) + MOST_GAP:
                members[self.add("networks", f"{node}-eth{len(members)}")] = {}
            members[network] = dict(shape)

    def address(self, node: str, network: str, text: str, spot: Spot) -> None:
        """Give a node its address on a network, `10.0.1.2/24`, or without the prefix where the network has its subnet already."""
        at, entry = ("nodes", node), self.entries["networks"][network]
        try:
            interface = ipaddress.IPv4Interface(text)
        except ValueError:
            self.left(spot, f"{text!r} is no IPv4 address", at)
            return
        if "/" in text and "subnet" not in entry and not self.subnet(network, str(interface.network), spot):
            return
        subnet = ipaddress.IPv4Network(entry["subnet"]) if "subnet" in entry else None
        if subnet is None or interface.ip not in subnet:
            self.left(spot, f"the address lies outside of network {network}, and another is chosen", at)
        elif interface.ip == subnet.network_address + 1:
            self.changed(spot, "another address is chosen: the first of a subnet is the network's own here", at)
        elif interface.ip in (subnet.network_address, subnet.broadcast_address):
            self.left(spot, "is the address of a network, not of a member", at)
        elif str(interface.ip) in self._addresses(network):
            self.left(spot, "is the address of another node already, and another is chosen", at)
        else:
            self.entries["nodes"][node]["networks"][network]["address"] = str(interface.ip)
            self.kept["addresses"] += 1

    def subnet(self, network: str, text: str, spot: Spot) -> bool:
        """Give a network its address range, where no other network has a part of it."""
        at = ("networks", network)
        try:
            wanted = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            self.left(spot, f"{text!r} is no IPv4 subnet", at)
            return False
        for other, entry in self.entries["networks"].items():
            if other != network and "subnet" in entry and wanted.overlaps(ipaddress.IPv4Network(entry["subnet"])):
                self.left(spot, f"the subnet {wanted} is that of network {other} too, and another is chosen", at)
                return False
        return self.put("networks", network, "subnet", str(wanted), spot)

    def _addresses(self, network: str) -> set[str]:
        return {access["address"] for entry in self.entries["nodes"].values()
                for name, access in entry.get("networks", {}).items() if name == network and "address" in access}  # fmt: skip

    # Files

    def place(self, path: str) -> str | None:
        """A path of the imported file as one relative to its folder; None where it leads out of there."""
        path = posixpath.normpath(path)
        return None if path.startswith(("/", "../", "~")) or path == ".." else path

    def file(self, node: str, source: str, target: str, spot: Spot, mode: str | None = None) -> bool:
        """Copy a file of the folder onto a node, or all files of a folder in it. Whether there was something to copy."""
        place = self.place(source)
        if place is None:
            self.left(spot, f"{source} is not copied: it lies outside of the folder of {self.source}", ("nodes", node))
            return False
        inner = self.folder.files(place)
        if inner is None and self.folder.read(place) is None:
            self.left(spot, f"there is no {source} to copy", ("nodes", node))
            return False
        names = [""] if inner is None else inner
        if len(names) > MOST_FILES:
            self.left(spot, f"only {MOST_FILES} of the {len(names)} files in {source} are copied", ("nodes", node))
        for name in names[:MOST_FILES]:
            path = posixpath.join(place, name) if name else place
            item = {"source": path, "target": posixpath.join(target, name) if name else target, **({"mode": mode} if mode else {})}
            if self.append(node, "files", item, spot):
                self.copies[path] = None
                self.kept["files"] += 1
        return True

    def bind(self, node: str, source: str, target: str, *, read_only: bool, spot: Spot) -> None:
        """A folder or file of this machine that a node sees; where nodes are no containers it gets a copy."""
        if not source.startswith((".", "/", "~")) and "/" not in source:
            if not self.containers:
                self.left(spot, f"a volume by its name ({source}) is for containers only", ("nodes", node))
                return
        elif not self.containers:
            if self.file(node, source, target, spot):
                self.changed(spot, "is copied onto the node, which does not write it back", ("nodes", node))
            return
        elif not source.startswith(("/", "~")):
            source = self.nearby(source)
        volume = {"source": source, "target": target, **({"read_only": True} if read_only else {})}
        self.kept["volumes"] += self.append(node, "volumes", volume, spot)

    def nearby(self, path: str) -> str:
        """A path relative to the imported file as one relative to the experiment, beginning with a dot."""
        joined = posixpath.normpath(posixpath.join(self.prefix, path))
        return joined if joined.startswith((".", "/")) else f"./{joined}"

    # Services

    def service(self, wanted: str, node: str, command: Sequence[str] | str, spot: Spot, **more: Any) -> str | None:
        """A long-running command on a node. Gives its name, or None where it is no command."""
        entry = {"on": node, "command": command, **{key: value for key, value in more.items() if value is not None}}
        if wrong := _wrong(Service, entry):
            self.left(spot, wrong, ("nodes", node))
            return None
        return self.add("services", wanted, entry)

    def script(self, wanted: str, node: str, lines: Sequence[str], spot: Spot) -> None:
        """Commands that are run once, when the node is up; the service stays, so that nothing runs them again."""
        command = "\n".join([*lines, f"echo {shlex.quote(DONE)}", WAITING]) + "\n"
        ready = {"log": f"^{DONE}$", "timeout": "5min"}
        if self.service(wanted, node, command, spot, ready=ready, restart="no"):
            self.kept["scripts"] += 1

    # The end

    def name_it(self, otherwise: str) -> None:
        """Settle the experiment's name, and what else stands at the head."""
        wanted = self.head.get("name") or otherwise
        self.head = {"name": _plain(wanted), **{key: value for key, value in self.head.items() if key != "name"}, "provider": self.provider}

    def finish(self) -> tuple[Experiment, Report]:
        """The experiment, which can be planned, and the report. What does not fit together is taken out, with a note.

        Raises ExperimentFileError where there is no node at all.
        """
        if not self.entries["nodes"]:
            raise ExperimentFileError([Problem("", "describes nothing that can be a node here", self.source, 1, 1, "at least one node")])
        for section, what in (("links", "links"), ("networks", "networks"), ("nodes", "nodes")):
            self.kept = Counter({what: len(self.entries[section]), **self.kept})
            self._tell_names(section)
        for node in self.entries["nodes"].values():
            node.setdefault("networks", {})
        while True:
            experiment = Experiment.model_validate({**self.head, **{key: part for key, part in self.entries.items() if part}})
            try:
                finding = next(checks.check(experiment), None)
                if finding is None:
                    topology.expand(_addressed(experiment))
                    break
                self._take_out(finding.path, finding.message)
            except PlanError as error:
                self._widen(error)
        return experiment, Report(self.kind, self.source, +self.kept, tuple(self.notes))

    def _tell_names(self, section: str) -> None:
        other = [f"{there} is {here}" for (part, there), here in self.names.items() if part == section and there != here]
        if other:
            more = f" and {len(other) - 12} more" if len(other) > 12 else ""
            names = ", ".join(other[:12]) + more
            self.changed(
                Spot(self.source), f"{section} are called otherwise, as names have lower-case letters, digits and hyphens: {names}"
            )

    def _take_out(self, path: Path, message: str) -> None:
        """Take a part out that does not fit: of links and services the whole, and of two nodes of one name the group's others."""
        if path[0] in ("links", "services"):
            path = path[:2]
        elif path[0] == "nodes" and len(path) == 2:
            path = ("nodes", str(path[1]).rpartition("-")[0], "count")
        holder: Any = {**self.entries}
        for step in path[:-1]:
            holder = holder[step]
        if isinstance(holder, list):
            holder.pop(int(path[-1]))
        else:
            del holder[path[-1]]
        self.left(Spot(self.source), f"{'.'.join(map(str, path))}: {message}", path[:2])

    def _widen(self, error: PlanError) -> None:
        """Have the largest subnet chosen, since those that are written do not suffice."""
        written = {name: entry["subnet"] for name, entry in self.entries["networks"].items() if "subnet" in entry}
        if not written:
            raise error
        largest = min(written, key=lambda name: ipaddress.IPv4Network(written[name]).prefixlen)
        del self.entries["networks"][largest]["subnet"]
        for node in self.entries["nodes"].values():
            node["networks"].get(largest, {}).pop("address", None)
        self.left(Spot(self.source), f"the subnet {written[largest]}, and addresses in it: {error.message}", ("networks", largest))


def _addressed(experiment: Experiment) -> Experiment:
    """The part of an experiment whose addresses may not suffice: networks with subnets, and one for which a subnet is chosen."""
    chosen = next((name for name, network in experiment.networks.items() if network.subnet is None), None)
    networks = {name: network for name, network in experiment.networks.items() if network.subnet or name == chosen}
    nodes = {}
    for name, node in experiment.nodes.items():
        joined = {network: access for network, access in (node.networks or {}).items() if network in networks}
        nodes[name] = node.model_copy(update={"routes": False, "networks": joined})
    return experiment.model_copy(update={"links": {}, "networks": networks, "nodes": nodes})


def _wrong(model: type[Model], values: Mapping[str, Any]) -> str:
    """What is wrong with some fields of a part, in words; nothing where they fit."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        # what is missing stands elsewhere
        for finding in findings(model, error.errors()):
            if not finding.missing:
                wanted = f": expected {finding.expected}" if finding.expected else ""
                return f"{finding.message}{wanted}"
    return ""


def _plain(text: str) -> str:
    name = re.sub(r"-{2,}", "-", re.sub("[^a-z0-9-]", "-", text.lower())).strip("-")
    if not name or not name[0].isalpha():
        name = f"n-{name}".strip("-")
    return f"{name}-0" if name in ("all", "here") else name[:40].rstrip("-")


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name[: 39 - len(str(number))].rstrip('-')}-{number}"
    return candidate
