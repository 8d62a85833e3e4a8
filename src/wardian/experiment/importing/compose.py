"""Docker Compose files: services become nodes of their own, with a service that runs their command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from ...errors import ExperimentFileError, Problem
from ..model import IMAGE
from . import quantities
from .draft import Draft
from .reading import Layers, Text, Value, variables

WHAT = "a compose file: a mapping with `services`"

_TAKEN = {
    "image", "build", "command", "entrypoint", "environment", "env_file", "networks", "ports", "expose", "volumes", "cap_add", "cpus",
    "mem_limit", "deploy", "scale", "restart", "healthcheck", "working_dir", "gpus", "configs", "secrets", "network_mode", "profiles",
    "extends", "hostname", "container_name", "depends_on", "links", "privileged",
}  # fmt: skip
_SILENT = {"labels", "logging", "tty", "stdin_open", "pull_policy", "init", "platform", "annotations", "attach", "develop", "x-podman"}
_RESTART = {"no": "no", "always": "always", "unless-stopped": "always", "on-failure": "on-failure"}


def draft(draft: Draft, text: bytes, values: Mapping[str, str]) -> None:
    """Fill a draft with what a compose file says. Raises ExperimentFileError when it is none."""
    _Project(draft, Text(text, draft.source, WHAT, values)).take()


class _Project:
    def __init__(self, draft: Draft, text: Text) -> None:
        self.draft = draft
        self.text = text
        self.root = text.root

    def take(self) -> None:
        services = self.root["services"]
        if not isinstance(services.data, dict) or not services.data:
            spot = services.spot
            raise ExperimentFileError([Problem("services", "missing", spot.file, spot.line, 1, "a mapping from names to services")])
        self.draft.head["name"] = self.root["name"].text
        self._networks()
        started = {service.key: self._layers(service, ()) for service in services.entries()}
        always = {key: layers for key, layers in started.items() if not layers["profiles"]}
        for key, layers in started.items():
            if always and key not in always:
                self.draft.left(layers["profiles"].spot, "is of a profile, and not started unless that is asked for")
        for key, layers in (always or started).items():
            self._service(services[key], layers)
        self._rest()

    def _rest(self) -> None:
        for key in self.root.data:
            if key in ("include", "models"):
                self.draft.left(self.root[key].spot, "other files are not read: import them by themselves")
            elif key not in ("name", "version", "services", "networks", "volumes", "configs", "secrets") and not key.startswith("x-"):
                self.draft.left(self.root[key].spot, "has no counterpart")
        for entry in self.root["volumes"].entries():
            for key in entry.data if isinstance(entry.data, dict) else ():
                if key not in ("labels", "name") and not (key == "driver" and entry[key].text == "local"):
                    self.draft.left(entry[key].spot, "a volume is the Engine's own, with nothing set")
        for name, path in self.text.unset.items():
            self.draft.changed(Value(self.text, path, None).spot, f"the variable {name} has no value, and counts as empty")
        said = "nodes do not reach the internet unless `internet: yes` is written at them"
        if self.draft.containers:
            self.draft.changed(self.root["services"].spot, said)

    def _layers(self, service: Value, above: tuple[str, ...]) -> Layers:
        """A service over the one that it extends, where that is in the same file."""
        extends = service["extends"]
        base = extends["service"].text or extends.text
        if not extends:
            return Layers([service])
        if extends["file"] or base in above or base == service.key or not self.root["services"][base]:
            self.draft.left(extends.spot, "what it extends is not in this file")
            return Layers([service])
        return Layers([*self._layers(self.root["services"][base], (*above, service.key)).values, service])

    # Networks

    def _networks(self) -> None:
        for network in self.root["networks"].entries():
            name = self.draft.add("networks", network.key)
            self.draft.names["networks", network.key] = name
            at = ("networks", name)
            for config in network["ipam"]["config"].items():
                if config["subnet"] and ":" not in config["subnet"].text:
                    self.draft.subnet(name, config["subnet"].text, config["subnet"].spot)
                elif config["subnet"]:
                    self.draft.left(config["subnet"].spot, "nodes have IPv4 addresses only", at)
            mtu = network["driver_opts"]["com.docker.network.driver.mtu"]
            if mtu.text.isdecimal():
                self.draft.put("networks", name, "mtu", int(mtu.text), mtu.spot)
            if network["external"].true:
                self.draft.changed(network["external"].spot, "is a network of this experiment, apart from the one outside", at)
            if network["driver"].text not in ("", "bridge", "default"):
                self.draft.changed(network["driver"].spot, "is an ordinary network", at)

    def _join(self, name: str, layers: Layers) -> None:
        mode = layers["network_mode"]
        if mode and mode.text not in ("bridge", "default"):
            if mode.text != "none":
                self.draft.left(mode.spot, "has no network: a node has interfaces of its own, not those of another", ("nodes", name))
            return
        joined: dict[str, Value] = {}
        for value in layers.all("networks"):
            joined |= {item.text: item for item in value.items()} | {item.key: item for item in value.entries()}
        if not joined:
            joined["default"] = layers["networks"]
        for wanted, value in joined.items():
            network = self.draft.known("networks", wanted)
            if network is None:
                if wanted != "default":
                    self.draft.left(value.spot, f"there is no network {wanted}", ("nodes", name))
                    continue
                network = self.draft.add("networks", wanted)
            self.draft.join(name, network)
            if value["ipv4_address"]:
                self.draft.address(name, network, value["ipv4_address"].text, value["ipv4_address"].spot)
            if value["aliases"]:
                self.draft.left(value["aliases"].spot, "a node is known by its own name only", ("nodes", name))

    # Services

    def _service(self, service: Value, layers: Layers) -> None:
        draft = self.draft
        name = draft.add("nodes", service.key)
        at = ("nodes", name)
        self._boot(name, layers)
        self._join(name, layers)
        self._limits(name, layers)
        for value in layers.all("env_file"):
            self._env_files(name, value)
        for value in layers.all("environment"):
            for variable, text, where in value.pairs():
                draft.variable(name, variable, self.text.values.get(variable, "") if text is None else text, where.spot)
        if draft.containers:
            for value in layers.all("ports"):
                self._ports(name, value)
            for value in layers.all("cap_add"):
                for item in value.items():
                    draft.capabilities(name, item.text, spot=item.spot)
            if layers["privileged"].true:
                draft.changed(layers["privileged"].spot, "has the capabilities that are written, not all", at)
        for value in layers.all("volumes"):
            self._volumes(name, value)
        for section in ("configs", "secrets"):
            for value in layers.all(section):
                self._texts(name, section, value)
        self._command(name, layers)
        self._differences(name, service, layers)

    def _differences(self, name: str, service: Value, layers: Layers) -> None:
        at = ("nodes", name)
        for key in ("hostname", "container_name"):
            if layers[key] and layers[key].text not in (name, service.key):
                self.draft.changed(layers[key].spot, "is known by the name of its node", at)
        if layers["depends_on"]:
            self.draft.left(layers["depends_on"].spot, "services start at once, in no order; `ready:` says when one counts as started", at)
        for key in layers.names():
            if key not in _TAKEN | _SILENT and not key.startswith("x-"):
                self.draft.left(layers[key].spot, f"`{key}` has no counterpart", at)

    def _boot(self, name: str, layers: Layers) -> None:
        draft, build = self.draft, layers["build"]
        if not build or not draft.containers:
            if layers["image"]:
                draft.image(name, layers["image"].text, layers["image"].spot)
            elif build:
                draft.left(build.spot, "has the files of this host: only containers are built", ("nodes", name))
            return
        context = build["context"].text or build.text or "."
        folder, file = draft.place(context), build["dockerfile"].text or "Dockerfile"
        if build["dockerfile_inline"] or (folder is not None and draft.folder.read(f"{folder}/{file}") is None):
            draft.left(build.spot, f"there is no {file} to build it from: write an `image:`", ("nodes", name))
            return
        entry: dict[str, Any] = {"context": draft.nearby(context)}
        if build["dockerfile"]:
            entry["dockerfile"] = file
        if build["target"]:
            entry["target"] = build["target"].text
        arguments = {variable: text or "" for variable, text, _ in build["args"].pairs()}
        if arguments:
            entry["args"] = arguments
        draft.kept["images to build"] += draft.put("nodes", name, "build", entry, build.spot)
        for key in build.data if isinstance(build.data, dict) else ():
            if key not in ("context", "dockerfile", "target", "args", "labels", "tags"):
                draft.left(build[key].spot, f"`{key}` of a build has no counterpart", ("nodes", name))

    def _limits(self, name: str, layers: Layers) -> None:
        draft, deploy = self.draft, layers["deploy"]
        limits = deploy["resources"]["limits"]
        for key, value, read in (
            ("cpus", layers["cpus"] or limits["cpus"], float),
            ("memory", layers["mem_limit"] or limits["memory"], quantities.memory),
        ):
            quantities.put(draft, name, key, value.data, read, value.spot)
        count = layers["scale"] or deploy["replicas"]
        if count and count.text != "1":
            draft.kept["groups"] += draft.put("nodes", name, "count", count.data, count.spot)
        devices = deploy["resources"]["reservations"]["devices"]
        gpus = layers["gpus"].data or next((item.get("count", "all") for item in devices.data or () if _is_gpu(item)), None)
        if gpus and draft.containers:
            draft.kept["limits"] += draft.put(
                "nodes", name, "gpus", gpus if not isinstance(gpus, list) else "all", (layers["gpus"] or devices).spot
            )

    def _env_files(self, name: str, value: Value) -> None:
        for item in value.items():
            path = item.text or item["path"].text
            place = self.draft.place(path)
            text = self.draft.folder.read(place) if place else None
            if text is None:
                self.draft.left(item.spot, f"there is no {path}", ("nodes", name))
                continue
            for variable, content in variables(text):
                self.draft.variable(name, variable, content, item.spot)

    def _ports(self, name: str, value: Value) -> None:
        for item in value.items():
            if isinstance(item.data, dict):
                entry = item.data
                host = f"{entry.get('published')}:" if entry.get("published") else ""
                address = f"{entry['host_ip']}:" if entry.get("host_ip") else ""
                text = f"{address}{host}{entry.get('target')}/{entry.get('protocol', 'tcp')}"
            else:
                text = item.text
            quantities.port(self.draft, name, text, item.spot)

    def _volumes(self, name: str, value: Value) -> None:
        for item in value.items():
            if isinstance(item.data, dict):
                source, target = item["source"].text or item["src"].text, item["target"].text or item["dst"].text
                kind, read_only = item["type"].text or "volume", item["read_only"].true
            else:
                source, _, rest = item.text.partition(":")
                target, _, mode = rest.partition(":")
                kind, read_only = "bind" if source.startswith((".", "/", "~")) else "volume", "ro" in mode.split(",")
                if not target:
                    source, target = "", source
            if kind in ("tmpfs", "cluster", "npipe", "image") or not source:
                self.draft.left(item.spot, "what has no name is the node's own, and goes with it", ("nodes", name))
            elif source == "/var/run/docker.sock":
                self.draft.left(item.spot, "the Engine's socket is not given to nodes", ("nodes", name))
            else:
                self.draft.bind(name, source if kind == "volume" else _marked(source), target, read_only=read_only, spot=item.spot)

    def _texts(self, name: str, section: str, value: Value) -> None:
        """Files that are given to services by name."""
        for item in value.items():
            wanted = item.text or item["source"].text
            defined = self.root[section][wanted]
            target = item["target"].text or ("/run/secrets/" if section == "secrets" else "/") + wanted
            target = target if target.startswith("/") else f"/run/secrets/{target}" if section == "secrets" else f"/{target}"
            if defined["file"]:
                self.draft.file(name, defined["file"].text, target, item.spot)
            else:
                self.draft.left(item.spot, f"only {section} that are files are there", ("nodes", name))

    # Commands

    def _command(self, name: str, layers: Layers) -> None:
        """The service that runs what the container would: the image's own, else what the file says."""
        draft, at = self.draft, ("nodes", name)
        main, lead = layers["command"], layers["entrypoint"]
        spot = (main or lead or layers["image"] or layers["build"]).spot
        entry = draft.entries["nodes"].get(name, {})
        whole = draft.containers and not lead and ("image" in entry or "build" in entry)
        if whole and not main and (layers["tty"].true or layers["stdin_open"].true):
            draft.left(spot, "an image that waits at a terminal has no service", at)
            return
        try:
            first, rest = _arguments(lead), _arguments(main)
        except ValueError as error:
            draft.left(spot, f"no command that can be read: {error}", at)
            return
        command: str | list[str] = IMAGE if whole else [*first, *rest]
        if not command or (not first and command[0].startswith("-")):
            if draft.containers:
                draft.left(spot, "there is no image whose command could be run: write it as a service", at)
            return
        more: dict[str, Any] = {"arguments": rest} if whole and main else {}
        more["directory"] = layers["working_dir"].text or None
        more["restart"] = _RESTART.get(layers["restart"].text.partition(":")[0] or "no", "no")
        if draft.service(name, name, command, spot, ready=self._ready(layers), **more):
            draft.kept["commands"] += 1

    def _ready(self, layers: Layers) -> dict[str, Any] | None:
        check = layers["healthcheck"]
        test = check["test"]
        if not test or check["disable"].true:
            return None
        words = [item.text for item in test.items()]
        if isinstance(test.data, str):
            command: str | list[str] = test.data
        elif words[:1] == ["CMD-SHELL"]:
            command = " ".join(words[1:])
        elif words[:1] == ["CMD"]:
            command = words[1:]
        else:
            return None
        try:
            interval, start = (
                quantities.duration(check[key].text or default) for key, default in (("interval", "30s"), ("start_period", "0s"))
            )
        except ValueError:
            interval, start = 30.0, 0.0
        tries = int(check["retries"].text) if check["retries"].text.isdecimal() else 3
        self.draft.kept["health checks"] += 1
        return {"command": command, "timeout": f"{max(1, math.ceil(start + interval * max(1, tries)))}s"}


def _arguments(value: Value) -> list[str]:
    return shlex.split(value.data) if isinstance(value.data, str) else [item.text for item in value.items()]


def _marked(path: str) -> str:
    """A path as one of a folder, which a name of a volume could not be."""
    return path if path.startswith((".", "/", "~")) else f"./{path}"


def _is_gpu(item: object) -> bool:
    return isinstance(item, dict) and "gpu" in str(item.get("capabilities", ""))
