"""Making, changing and removing the resources of one environment. Blocking: the provider calls it in a worker thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from ...descriptors import explained
from ...errors import ProviderError, WardianError
from ...experiment.resources import EnvironmentRecord, Resource
from ..base import Progress
from . import channel, fabric, faults, images, internet, mounts, netlink, nodespec, processes, relays, skeleton, wayout
from .cgroups import Cgroups
from .fabric import Fabric
from .layers import Builder, Stop
from .spawner import spawn
from .state import EnvironmentFolder, ResourceFolder, State, read_json, remove_tree, write_json

REMEDY = "Run `wardian up` again to make it anew, or `wardian down` to remove what is left."


class Growth:
    """One environment, to be worked on.

    report: told about each resource as its state changes. stop: set to end what takes long. pins: see `Provider.pins`.
    """

    _disk: ClassVar[str] = "upper"
    """What of a node's folder is its disk."""

    def __init__(
        self, state: State, environment: str, report: Progress, stop: Stop | None = None, pins: Mapping[str, str] | None = None
    ) -> None:
        self._stop = stop or Stop()
        self._pins = pins or {}
        self._state = state
        self._id = environment
        self._report = report
        self._folder: EnvironmentFolder = state.environment(environment)
        self._cgroups = Cgroups.find()

    # Making

    def create(self, resources: Sequence[Resource]) -> None:
        """Make these, which do not exist."""
        makers = {
            "environment": self._create_environment,
            "network": self._create_networks,
            "node": self._create_nodes,
            "link": self._create_links,
            "access": self._create_accesses,
            "names": self._create_names,
        }
        for kind, group in _by_kind(resources).items():
            try:
                makers[kind](group)
            except OSError as error:
                raise _explained(error, group) from error

    def _create_environment(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            self._folder.begin(record_of(self._id, resource.spec, time.time()))
            children = [_holder(str(resource), self._folder.fabric, "wardian-fabric", fabric.FABRIC_SYSCTLS)]
            if mounts.in_user_namespace():
                # what is the host's network namespace to root is this process's own to an ordinary user, and has to outlive it
                self._folder.outside.mkdir(exist_ok=True, mode=0o700)
                children.append(_holder("outside", self._folder.outside, "wardian-outside") | {"host_network": True})
            self._spawn(children)
            self._report(resource.name, "ready")

    def _create_networks(self, resources: Sequence[Resource]) -> None:
        specs = {resource.name: resource.spec for resource in resources}
        folders = {name: self._begin("network", name, spec) for name, spec in specs.items()}
        gateways = {f"network {name}": name for name, spec in specs.items() if spec["gateway"]}
        with self._fabric() as wiring:
            wiring.add_networks(list(specs))

            def join(answers: list[dict[str, Any]]) -> None:
                for answer in answers:
                    name = gateways[answer["key"]]
                    wiring.add_gateway(name, answer["pid"], specs[name])
                    if "mtu" in specs[name]:
                        wiring.set_mtu(fabric.gateway_port(name), answer["pid"], fabric.INSIDE, specs[name]["mtu"])

            children = [_holder(key, folders[name].path, f"wardian-gw-{name}", fabric.GATEWAY_SYSCTLS) for key, name in gateways.items()]
            if children:
                self._spawn(children, join)
        for name, spec in specs.items():
            folders[name].complete(spec)
            self._report(name, "ready")

    def _create_nodes(self, resources: Sequence[Resource]) -> None:
        specs = {resource.name: resource.spec for resource in resources}
        with _NUMBERS:
            facts = self._uplink_facts(specs)
            folders = {name: self._begin("node", name, spec, **facts[name]) for name, spec in specs.items()}
        tables = self._tables()
        with self._fabric() as wiring:
            online = any(spec["internet"] for spec in specs.values())
            uplink = internet.ensure(self._folder, self._state, wiring.socket, wiring.namespace) if online else None

            def join(answers: list[dict[str, Any]]) -> None:
                pids = {answer["key"].partition(" ")[2]: answer["pid"] for answer in answers}
                wiring.add_nodes((name, pid, specs[name]) for name, pid in pids.items())
                if uplink is not None:
                    out = [(name, pid, uplink[facts[name]["uplink"]]) for name, pid in pids.items() if facts[name]]
                    leads = [(name, pid, f"{address}/{uplink.prefixlen}", str(uplink[1])) for name, pid, address in out]
                    wiring.add_uplinks(leads, internet.BRIDGE, internet.INTERFACE)
                for name in pids:
                    folders[name].complete(specs[name], **facts[name], **bases[name].facts)
                    self._release(name)
                    self._report(name, "ready")

            bases = {name: self._base(name, folders[name], spec) for name, spec in specs.items()}
            over = {path: skeleton.layers(self._state.root, path) for path in {base.path for base in bases.values()}}
            children = [
                self._node_child(name, folders[name], spec, tables, bases[name], over[bases[name].path]) for name, spec in specs.items()
            ]
            self._spawn(children, join)

    def _uplink_facts(self, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
        """Which host of the uplink's subnet each node is that reaches the internet."""
        taken = {(folder.read() or {}).get("facts", {}).get("uplink") for folder in self._folder.resources("node")}
        free = (number for number in range(2, 2 ** (32 - internet.LENGTH) - 1) if number not in taken)
        try:
            return {name: {"uplink": next(free)} if spec["internet"] else {} for name, spec in specs.items()}
        except StopIteration:
            raise ProviderError("too many nodes with internet", resource=f"environment {self._id}") from None

    def _base(self, name: str, folder: ResourceFolder, spec: Mapping[str, Any]) -> images.Base:
        """What the node boots from, unpacked if need be."""
        record = self._folder.record()
        beside = Path(record.file).parent if record else Path("/")
        try:
            image = self._pins.get(name, spec["image"])
            return images.base(image, beside, folder.path, f"{name} of {self._id}", lambda said: self._report(name, said))
        except ProviderError as error:
            raise ProviderError(error.message, resource=f"node {name}", remedy=error.remedy) from error

    def _layer(self, name: str, spec: Mapping[str, Any], base: images.Base) -> str | None:
        """The folder of the node's layer, made if need be."""
        if spec["setup"] is None:
            return None
        given = processes.variables(self._id, self._state.root)
        groups = self._cgroups.plan(self._id, f"setup {name}", None, None)
        variables = nodespec.variables(name, spec, base.variables)
        try:
            builder = Builder(self._state, given, self._report, self._stop)
            return str(builder.layer(name, base.path, base.identity, spec["setup"], variables, groups))
        finally:
            self._cgroups.remove(self._id, f"setup {name}")

    def _node_child(
        self, name: str, folder: ResourceFolder, spec: Mapping[str, Any], tables: Mapping[str, Any], base: images.Base, over: list[str]
    ) -> dict[str, Any]:
        layer = self._layer(name, spec, base)
        layers = [layer, *over] if layer else over
        groups = self._cgroups.plan(self._id, name, spec["cpus"], spec["memory"])
        return nodespec.child(name, folder.path, spec, tables, base=base, layers=layers, hidden=self._state.root, cgroups=groups)

    def _create_links(self, resources: Sequence[Resource]) -> None:
        with self._fabric() as wiring:
            for resource in resources:
                gateways = [self._gateway(network, resource) for network in resource.spec["networks"]]
                with _NUMBERS:
                    number = self._free_link_number()
                    folder = self._begin("link", resource.name, resource.spec, number=number)
                facts = {"number": number, **_beginning(resource.spec)}
                wiring.add_link(resource.name, number, resource.spec["networks"], gateways)
                self._set_mtu(wiring, resource)
                wiring.shape([fabric.link_segment(resource.name, resource.spec, facts.get("began", 0.0))])
                for network, pid in zip(resource.spec["networks"], gateways, strict=True):
                    self._route_links(wiring, network, pid, extra={resource.name: (number, resource.spec["networks"])})
                folder.complete(resource.spec, **facts)
                self._report(resource.name, "ready")
        self._keep_relay()

    def _create_accesses(self, resources: Sequence[Resource]) -> None:
        folders = [self._begin("access", resource.name, resource.spec) for resource in resources]
        facts = [_beginning(resource.spec) for resource in resources]
        with self._fabric() as wiring:
            for resource in resources:
                self._set_mtu(wiring, resource)
            beginnings = zip(resources, facts, strict=True)
            wiring.shape([fabric.access_segment(item.name, item.spec, known.get("began", 0.0)) for item, known in beginnings])
        for folder, resource, known in zip(folders, resources, facts, strict=True):
            folder.complete(resource.spec, **known)
        self._keep_relay()
        for resource in resources:
            self._report(resource.name, "ready")

    def _create_names(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            folder = self._begin("names", resource.name, resource.spec)
            self._write_names(resource)
            folder.complete(resource.spec)
            self._report(resource.name, "ready")

    # Making anew

    def reboot(self, resources: Sequence[Resource]) -> None:
        """End these nodes and make them anew, each with the disk that it has; killed midway, `create` does so as well."""
        for resource in resources:
            self._promise(resource)
        # their inits first: of what is ended one by one, some would be told that it ended by itself
        faults.kill(self._folder, [item.name for item in resources if self._folder.resource("node", item.name).pid() is not None])
        self.delete([resource.key for resource in resources])
        self.create(resources)

    def forget_disks(self, nodes: Sequence[str]) -> None:
        """Have these nodes made anew without the disks that a reboot which was cut short promised them."""
        for node in nodes:
            self._release(node)

    def _promise(self, node: Resource) -> None:
        """Write down that a node's disk is to be kept until the node is whole again, and what it was made from."""
        place = self._aside(node.name)
        if not (place / "node.json").exists():
            facts = (self._folder.resource("node", node.name).read() or {}).get("facts", {})
            remove_tree(place)
            place.mkdir(parents=True, mode=0o700)
            # the image's digest, since its name may mean another by now
            write_json(place / "node.json", {"made_from": _origin(node.spec), "digest": facts.get("image", {}).get("digest")})

    def _promised(self, folder: ResourceFolder) -> bool:
        """Whether a node that is not whole is to have its disk when it is."""
        whole = (folder.read() or {}).get("complete") and folder.pid() is not None
        return not whole and (self._aside(folder.name) / "node.json").exists()

    def _put_aside(self, folder: ResourceFolder) -> None:
        if (folder.path / self._disk).exists():
            (folder.path / self._disk).rename(self._aside(folder.name) / self._disk)

    def _take_back(self, folder: ResourceFolder, spec: Mapping[str, Any]) -> None:
        place = self._aside(folder.name)
        known = read_json(place / "node.json")
        if known is None or known["made_from"] != _origin(spec):
            # what changed on a disk says nothing without what it changed
            self._release(folder.name)
            return
        if (place / self._disk).exists():
            (place / self._disk).rename(folder.path / self._disk)
        if known["digest"]:
            self._pins = {**self._pins, folder.name: known["digest"]}

    def _release(self, node: str) -> None:
        """What is left of the disk that was kept for a node goes; first that it was kept, since a part of it is none."""
        (self._aside(node) / "node.json").unlink(missing_ok=True)
        remove_tree(self._aside(node))

    def _aside(self, node: str) -> Path:
        return self._folder.path / "aside" / quote(node, safe="[]")

    # Changing

    def update(self, resources: Sequence[Resource]) -> None:
        """Bring these to a new spec."""
        for kind, group in _by_kind(resources).items():
            try:
                if kind == "environment":
                    self._update_environment(group)
                elif kind in ("access", "link"):
                    self._update_shapes(group)
                else:
                    for resource in group:
                        self._update_one(resource)
                for resource in group:
                    self._report(resource.name, "ready")
            except OSError as error:
                raise _explained(error, group) from error

    def _update_environment(self, resources: Sequence[Resource]) -> None:
        for resource in resources:
            record = self._folder.record()
            if record is None:
                raise ProviderError("it does not exist", resource=str(resource), remedy=REMEDY)
            self._folder.write_record(record_of(self._id, resource.spec, record.created))

    def _update_shapes(self, resources: Sequence[Resource]) -> None:
        folders = [self._existing(resource) for resource in resources]
        make = {"access": fabric.access_segment, "link": fabric.link_segment}
        segments, facts = [], []
        for (_, known), resource in zip(folders, resources, strict=True):
            kept = {key: value for key, value in known["facts"].items() if key != "began"}
            facts.append(kept | _beginning(resource.spec, known))
            segments.append(make[resource.kind](resource.name, resource.spec, facts[-1].get("began", 0.0)))
        with self._fabric() as wiring:
            for (_, known), resource in zip(folders, resources, strict=True):
                if known["spec"].get("mtu") != resource.spec.get("mtu"):
                    self._set_mtu(wiring, resource)
            wiring.shape(segments)
        for (folder, _), resource, known in zip(folders, resources, facts, strict=True):
            folder.complete(resource.spec, **known)
        self._keep_relay()

    def _update_one(self, resource: Resource) -> None:
        folder, known = self._existing(resource)
        if resource.kind == "node":
            self._update_node(resource, folder, known)
        elif resource.kind == "network":
            self._update_network(resource, folder, known["spec"])
        elif resource.kind == "names":
            self._write_names(resource)
        folder.complete(resource.spec, **known["facts"])

    def _update_node(self, resource: Resource, folder: ResourceFolder, known: Mapping[str, Any]) -> None:
        spec, before, pid = resource.spec, known["spec"], folder.pid()
        if pid is None:
            raise ProviderError("it is not running", resource=str(resource), remedy=REMEDY)
        if spec["env"] != before["env"]:
            variables = nodespec.variables(resource.name, spec, known["facts"].get("image", {}).get("variables", {}))
            failures = channel.tell([(resource.name, folder.path, {"variables": variables})])
            if failures:
                raise ProviderError(failures[resource.name], resource=str(resource), remedy=REMEDY)
        if (spec["cpus"], spec["memory"]) != (before["cpus"], before["memory"]):
            self._cgroups.change(self._id, resource.name, spec["cpus"], spec["memory"])
        if spec["routes_between"] != before["routes_between"]:
            _set_sysctls(pid, nodespec.sysctls(spec))
        if spec["routes"] != before["routes"]:
            with self._fabric() as wiring:
                wiring.change_routes(pid, before["routes"], spec["routes"])

    def _update_network(self, resource: Resource, folder: ResourceFolder, before: Mapping[str, Any]) -> None:
        pid = folder.pid()
        if pid is None:
            if resource.spec["gateway"]:
                raise ProviderError("its gateway is not running", resource=str(resource), remedy=REMEDY)
            return
        with self._fabric() as wiring:
            if before.get("mtu") != resource.spec.get("mtu"):
                wiring.set_mtu(fabric.gateway_port(resource.name), pid, fabric.INSIDE, resource.spec.get("mtu", fabric.MTU))
            wiring.change_routes(pid, before["routes"], resource.spec["routes"])
            self._route_links(wiring, resource.name, pid, spec=resource.spec, before=before)

    # Removing

    def delete(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove these, in whatever state they are; a disk that `reboot` promised to keep stays for `create`."""
        pid = self._folder.fabric_pid()
        groups: dict[str, list[str]] = {}
        for kind, name in keys:
            groups.setdefault(kind, []).append(name)
        with ExitStack() as stack:
            wiring = stack.enter_context(Fabric(pid)) if pid is not None else None
            for kind, names in groups.items():
                self._delete_kind(kind, names, wiring)

    def _delete_kind(self, kind: str, names: Sequence[str], wiring: Fabric | None) -> None:
        folders = [self._folder.resource(kind, name) for name in names]
        promised = [folder for folder in folders if kind == "node" and self._promised(folder)]
        ports: list[str] = []
        segments: list[str] = []
        for folder in folders:
            spec = (folder.read() or {}).get("spec", {})
            if kind == "network":
                ports += [fabric.gateway_port(folder.name), fabric.bridge(folder.name)]
            elif kind == "node":
                ports += [fabric.node_port(folder.name, interface["network"]) for interface in spec.get("interfaces", ())]
                ports.append(fabric.uplink_port(folder.name))
            elif kind == "link":
                ports += fabric.link_ports(folder.name)
                segments.append(f"link:{folder.name}")
            elif kind == "access":
                segments.append(f"access:{folder.name}")
        if kind in ("network", "node"):
            self._end(folders)
        if wiring is not None and (ports or segments):
            wiring.remove(ports, segments)
        if wiring is not None and kind == "access":
            self._rejoin(folders, wiring)
        if kind == "node":
            for name in names:
                self._cgroups.remove(self._id, name)
        if kind == "environment":
            self._delete_environment()
        for folder in folders:
            if folder in promised:
                self._put_aside(folder)
            elif kind == "node":
                self._release(folder.name)
            folder.remove()
            self._report(folder.name, "gone")
        if segments:
            self._keep_relay()

    def _rejoin(self, folders: Sequence[ResourceFolder], wiring: Fabric) -> None:
        """Have nodes that go on without their access link's shape reach their network all the same."""
        there = {link.name for link in wiring.interfaces()}
        for folder in folders:
            spec = (folder.read() or {}).get("spec")
            if not spec or not {fabric.node_port(spec["node"], spec["network"]), fabric.bridge(spec["network"])} <= there:
                continue
            plain = {key: value for key, value in spec.items() if key != "mtu"} | {"up": {}, "down": {}}
            try:
                wiring.shape([fabric.access_segment(folder.name, plain)])
            except ProviderError:
                # a node that ended just now takes its port along, a moment later
                if fabric.node_port(spec["node"], spec["network"]) in {link.name for link in wiring.interfaces()}:
                    raise
                continue
            if "mtu" in spec and self._folder.resource("node", spec["node"]).pid() is not None:
                self._set_mtu(wiring, Resource("access", folder.name, plain))

    def _end(self, folders: Iterable[ResourceFolder]) -> None:
        doomed: set[int] = set()
        cut_short = False
        for folder in folders:
            identity = folder.process()
            cut_short = cut_short or (identity is None and folder.path.exists())
            doomed |= processes.running([identity] if identity else [])
            if folder.kind == "node":
                self._cgroups.thaw(self._id, folder.name)
                doomed |= self._cgroups.members(self._id, folder.name)
        if cut_short:
            # a spawner that was killed between making a process and writing it down left it to be known by its variables alone
            known = processes.running(self._folder.processes()) | processes.running(relays.identities(self._folder))
            doomed |= processes.of(self._id, self._state.root) - known
        processes.end(doomed)

    def _delete_environment(self) -> None:
        processes.end(processes.running(relays.identities(self._folder)))
        processes.end({pid for pid in (self._folder.fabric_pid(), self._folder.outside_pid()) if pid is not None})
        wayout.end(self._folder)
        self._remove_uplink()
        (self._folder.path / "uplink.json").unlink(missing_ok=True)
        self._folder.forget()

    def destroy(self) -> None:
        """Remove everything that carries the environment's id, its record last."""
        self._cgroups.thaw(self._id)
        while doomed := self._alive():
            processes.end(doomed)
        wayout.end(self._folder)
        self._cgroups.remove(self._id)
        self._remove_uplink()
        self._folder.remove()

    def _remove_uplink(self) -> None:
        known = read_json(self._folder.path / "uplink.json")
        if known is not None:
            internet.remove(self._id, self._state, known)

    def _alive(self) -> set[int]:
        recorded = processes.running([*self._folder.processes(), *relays.identities(self._folder)])
        return recorded | self._cgroups.members(self._id) | processes.of(self._id, self._state.root)

    # What the steps share

    def _spawn(self, children: Sequence[Mapping[str, Any]], ready: Any = None) -> None:
        given = processes.variables(self._id, self._state.root)
        failures = spawn(given, children, self._state.held, ready or (lambda _: None))
        for key, reason in failures.items():
            raise _refused(key, reason)

    def _begin(self, kind: str, name: str, spec: Mapping[str, Any], **facts: Any) -> ResourceFolder:
        if not self._folder.path.is_dir():
            raise ProviderError(f"there is no environment {self._id} to put it in", resource=f"{kind} {name}")
        folder = self._folder.resource(kind, name)
        if folder.path.exists():
            raise ProviderError("it exists already", resource=f"{kind} {name}", remedy="Delete it first.")
        folder.begin(spec, **facts)
        if kind == "node":
            self._take_back(folder, spec)
        self._report(name, "creating")
        return folder

    def _existing(self, resource: Resource) -> tuple[ResourceFolder, dict[str, Any]]:
        folder = self._folder.resource(resource.kind, resource.name)
        known = folder.read()
        if known is None:
            raise ProviderError("it does not exist", resource=str(resource), remedy=REMEDY)
        self._report(resource.name, "updating")
        return folder, known

    def _fabric(self) -> Fabric:
        pid = self._folder.fabric_pid()
        if pid is None:
            raise ProviderError("the process that holds its networks is not running", resource=f"environment {self._id}", remedy=REMEDY)
        return Fabric(pid)

    def _gateway(self, network: str, resource: Resource) -> int:
        pid = self._folder.resource("network", network).pid()
        if pid is None:
            raise ProviderError(f"network {network} has no gateway that runs", resource=str(resource), remedy=REMEDY)
        return pid

    def _free_link_number(self) -> int:
        taken = {(folder.read() or {}).get("facts", {}).get("number") for folder in self._folder.resources("link")}
        return next(number for number in range(1, 32768) if number not in taken)

    def _route_links(
        self,
        wiring: Fabric,
        network: str,
        pid: int,
        *,
        spec: Mapping[str, Any] | None = None,
        before: Mapping[str, Any] | None = None,
        extra: Mapping[str, tuple[int, Sequence[str]]] | None = None,
    ) -> None:
        """Have a gateway's routes lead into those of its links that exist."""
        known = self._folder.resource("network", network).read()
        wanted = spec or (known or {}).get("spec")
        if wanted is None:
            return
        links = dict(extra or {})
        for folder in self._folder.resources("link"):
            made = folder.read()
            if made and made["complete"]:
                links[folder.name] = made["facts"]["number"], made["spec"]["networks"]
        sides = {name: (number, list(ends).index(network)) for name, (number, ends) in links.items() if network in ends}
        gone = {route["to"] for route in (before or {}).get("routes", ()) if "link" in route} - {route["to"] for route in wanted["routes"]}
        wiring.route_links(pid, wanted, sides, gone)

    def _set_mtu(self, wiring: Fabric, resource: Resource) -> None:
        """Give both ends of an access link or a link the size that is written, or that of everything else."""
        spec, mtu = resource.spec, resource.spec.get("mtu", fabric.MTU)
        if resource.kind == "link":
            for port, network in zip(fabric.link_ports(resource.name), spec["networks"], strict=True):
                wiring.set_mtu(port, self._gateway(network, resource), fabric.link_interface(resource.name), mtu)
            return
        folder = self._folder.resource("node", spec["node"])
        pid, known = folder.pid(), folder.read()
        if pid is None or known is None:
            raise ProviderError(f"node {spec['node']} is not running", resource=str(resource), remedy=REMEDY)
        interface = next(item["name"] for item in known["spec"]["interfaces"] if item["network"] == spec["network"])
        wiring.set_mtu(fabric.node_port(spec["node"], spec["network"]), pid, interface, mtu)

    def _tables(self) -> Mapping[str, Any]:
        for folder in self._folder.resources("names"):
            known = folder.read()
            if known:
                tables: Mapping[str, Any] = known["spec"]["tables"]
                return tables
        return {}

    def _write_names(self, resource: Resource) -> None:
        requests = []
        for folder in self._folder.resources("node"):
            known = folder.read()
            if known and folder.pid() is not None:
                text = nodespec.hosts(known["spec"], resource.spec["tables"])
                requests.append((folder.name, folder.path, {"write": "/etc/hosts", "text": text}))
        for node, reason in channel.tell(requests).items():
            if self._folder.resource("node", node).pid() is not None:
                raise ProviderError(f"the names could not be written on {node}: {reason}", resource=str(resource))

    def _keep_relay(self) -> None:
        relays.keep(self._folder, self._state)


_NUMBERS = threading.Lock()


def _holder(key: str, directory: Path, title: str, sysctls: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A process that holds a network namespace, as `spawn.py` wants it."""
    place = {"directory": str(directory), "title": title, "host_network": False}
    return {"key": key, "kind": "holder", **place, "sysctls": dict(sysctls or {})}


def record_of(environment: str, spec: Mapping[str, Any], created: float) -> EnvironmentRecord:
    """The record of an environment with this spec. created: seconds since the epoch."""
    fields = {name: spec[name] for name in ("name", "instance", "file", "user", "host")}
    return EnvironmentRecord(id=environment, provider="local", created=created, spec=dict(spec), **fields)


def _beginning(spec: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, float]:
    """When the traces of a link begin: now, unless they are those that it had before; nothing where there are none."""

    def traces(shapes: Mapping[str, Any]) -> list[Any]:
        return [shapes.get(way, {}).get("trace") for way in ("there", "back", "up", "down")]

    if not any(traces(spec)):
        return {}
    if before is not None and traces(before["spec"]) == traces(spec) and "began" in before["facts"]:
        return {"began": before["facts"]["began"]}
    return {"began": time.time()}


def _origin(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a node's disk says nothing without."""
    return {key: spec[key] for key in ("image", "setup")}


def _by_kind(resources: Sequence[Resource]) -> dict[str, list[Resource]]:
    groups: dict[str, list[Resource]] = {}
    for resource in resources:
        groups.setdefault(resource.kind, []).append(resource)
    return groups


def _set_sysctls(pid: int, values: dict[str, str]) -> None:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netlink.in_namespace(namespace, lambda: mounts.set_sysctls(values))
    finally:
        os.close(namespace)


def _refused(key: str, reason: str) -> ProviderError:
    return ProviderError(reason, resource=key, remedy="`wardian doctor` tries what nodes need, and says what to change.")


def _explained(error: OSError, resources: Sequence[Resource]) -> ProviderError:
    known = explained(error)
    if isinstance(known, WardianError):
        return ProviderError(known.message, resource=str(resources[0]), remedy=known.remedy)
    return ProviderError(error.strerror or str(error), resource=str(resources[0]))
