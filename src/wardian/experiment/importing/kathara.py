"""Kathará's labs (and Netkit's before it): `lab.conf`, with `NODE.startup` scripts and a folder of files for each node beside it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from ...errors import ExperimentFileError, Problem
from . import quantities
from .draft import Draft
from .report import Spot

WHAT = "a Kathará lab: lines such as `pc1[0]=A`"
DEFAULT_IMAGE = "kathara/base"

_LINE = re.compile(r"""\s*(?P<node>[A-Za-z0-9_.-]+)\s*\[\s*(?P<key>[^\]\s]+)\s*\]\s*=\s*(?P<value>"[^"]*"|'[^']*'|[^#]*?)\s*(?:#.*)?""")
_SETTING = re.compile(r"""\s*(?P<name>[A-Za-z][A-Za-z0-9_]*)\s*=\s*(?P<value>"[^"]*"|'[^']*'|.*?)\s*""")
_ABOUT = ("LAB_DESCRIPTION", "LAB_NAME", "LAB_VERSION", "LAB_AUTHOR", "LAB_EMAIL", "LAB_WEB", "LAB_CREATION_DATE")
_BEFORE = "/hostlab"


LONGEST_LINE = 2000
"""A line longer than this, in characters, is none of a lab."""


def setting(line: str) -> re.Match[str] | None:
    """The parts of a line such as `pc1[0]=A`, or None."""
    return _LINE.fullmatch(line) if len(line) <= LONGEST_LINE else None


@dataclass(frozen=True, slots=True)
class _Setting:
    key: str
    value: str
    spot: Spot


@dataclass(slots=True)
class _Device:
    """What lab.conf says of one node."""

    first: Spot
    interfaces: dict[int, _Setting] = field(default_factory=dict)
    settings: list[_Setting] = field(default_factory=list)

    def last(self, key: str) -> _Setting | None:
        return next((item for item in reversed(self.settings) if item.key == key), None)


def draft(draft: Draft, text: bytes) -> None:
    """Fill a draft with what a lab says. Raises ExperimentFileError when it is none."""
    _Lab(draft).take(text.decode("utf-8", "replace"))


class _Lab:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.devices: dict[str, _Device] = {}
        self.about: dict[str, str] = {}

    def take(self, text: str) -> None:
        self._read(text)
        if not self.devices:
            raise ExperimentFileError([Problem("", "no node is described here", self.draft.source, 1, 1, WHAT)])
        self.draft.head["name"] = self.about.get("LAB_NAME", "")
        if self.about.get("LAB_DESCRIPTION"):
            self.draft.head["description"] = self.about["LAB_DESCRIPTION"]
        for wanted, device in self.devices.items():
            self._device(wanted, device)
        for path, said in (("lab.dep", "nodes start at once, in no order"), ("lab.ext", "networks do not reach interfaces of the host")):
            if self.draft.folder.read(path) is not None:
                self.draft.left(Spot(path), said)
        scripts = sorted(name for name in self.draft.folder.files("") or () if name.endswith(".shutdown") and "/" not in name)
        for name in scripts:
            self.draft.left(Spot(name), "nothing is run when nodes are torn down")

    def _read(self, text: str) -> None:
        wrong = []
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if match := setting(line):
                value = match["value"].strip("\"'")
                spot = Spot(self.draft.source, number, f"{match['node']}[{match['key']}]")
                self._setting(match["node"], _Setting(match["key"].strip("\"'"), value, spot))
            elif match := _SETTING.fullmatch(line[:LONGEST_LINE]):
                self._lab_setting(match["name"], match["value"].strip("\"'"), number)
            else:
                got = repr(line.strip()[:60])
                wrong.append(
                    Problem("", "no line of a lab", self.draft.source, number, 1, "NODE[INTERFACE]=NETWORK or NODE[OPTION]=VALUE", got)
                )
        if wrong:
            raise ExperimentFileError(wrong)

    def _lab_setting(self, name: str, value: str, number: int) -> None:
        spot = Spot(self.draft.source, number, name)
        if name in _ABOUT:
            self.about[name] = value
        elif name == "machines":
            for device in re.split(r"[\s,]+", value.strip()):
                if device:
                    self.devices.setdefault(device, _Device(spot))
        else:
            self.draft.left(spot, "has no counterpart")

    def _setting(self, name: str, setting: _Setting) -> None:
        device = self.devices.setdefault(name, _Device(setting.spot))
        if setting.key.isdecimal() and len(setting.key) < 4:
            device.interfaces[int(setting.key)] = setting
        else:
            device.settings.append(setting)

    # Nodes

    def _device(self, wanted: str, device: _Device) -> None:
        draft = self.draft
        name = draft.add("nodes", wanted)
        image = device.last("image") or device.last("i")
        if image:
            draft.image(name, image.value, image.spot)
        elif draft.containers:
            draft.entries["nodes"][name]["image"] = DEFAULT_IMAGE
            draft.changed(device.first, f"names no image: {DEFAULT_IMAGE}, which is the default there", ("nodes", name))
        for setting in device.settings:
            self._option(name, setting)
        # what a device may do there unless it is told otherwise
        draft.capabilities(name, "NET_ADMIN", "SYS_ADMIN", spot=device.first)
        wires: dict[int, tuple[str, dict[str, Any]]] = {}
        for number, setting in device.interfaces.items():
            wanted_network, _, hardware = setting.value.partition("/")
            network = draft.known("networks", wanted_network) or draft.add("networks", wanted_network)
            if hardware:
                draft.left(setting.spot, "interfaces have hardware addresses of their own", ("nodes", name))
            wires[number] = (network, {})
        draft.wire(name, wires, device.first)
        if len(draft.entries["nodes"][name]["networks"]) > 1:
            # every device forwards there
            draft.entries["nodes"][name]["routes"] = True
        self._files(wanted, name, device)

    def _option(self, name: str, setting: _Setting) -> None:
        draft, at, value = self.draft, ("nodes", name), setting.value
        true = value.lower() in ("true", "yes", "on", "1")
        match setting.key:
            case "image" | "i" | "exec" | "shell" | "num_terms":
                pass
            case "mem":
                quantities.put(draft, name, "memory", value, quantities.memory, setting.spot)
            case "cpus":
                quantities.put(draft, name, "cpus", value, float, setting.spot)
            case "port":
                if draft.containers:
                    quantities.port(draft, name, value if ":" in value else f"3000:{value}", setting.spot)
            case "env":
                variable, _, text = value.partition("=")
                draft.variable(name, variable, text, setting.spot)
            case "bridged":
                if true:
                    draft.entries["nodes"][name]["internet"] = True
                    draft.kept["nodes with internet access"] += 1
            case "volume":
                source, _, rest = value.partition("|")
                target, _, mode = rest.partition("|")
                draft.bind(name, source, target, read_only=mode == "ro", spot=setting.spot)
            case "sysctl":
                if not re.fullmatch(r"net\.ipv4\.(ip_forward|conf\.all\.forwarding)\s*=\s*1", value):
                    draft.left(setting.spot, "kernel settings of a node are not set", at)
            case "ipv6":
                if true:
                    draft.left(setting.spot, "nodes have IPv4 addresses only; what a script adds works where the kernel lets it", at)
            case "privileged":
                if true:
                    draft.changed(setting.spot, "has the capabilities that are written, not all", at)
            case _:
                draft.left(setting.spot, "has no counterpart", at)

    # Files and scripts

    def _files(self, wanted: str, name: str, device: _Device) -> None:
        """What the lab puts on a node, and runs there: the scripts of all, the node's own, and the commands of lab.conf."""
        draft, spot = self.draft, Spot(f"{wanted}/")
        if draft.folder.files(wanted) is not None:
            draft.file(name, wanted, "/", spot)
        if draft.folder.files("shared") is not None:
            draft.file(name, "shared", "/shared", Spot("shared/"))
        shell = device.last("shell")
        program = shell.value if shell else "/bin/bash"
        lines = []
        for script in ("shared.startup", f"{wanted}.startup"):
            if draft.folder.read(script) is not None and draft.file(name, script, f"{_BEFORE}/{script}", Spot(script)):
                lines.append(f"{program} {shlex.quote(f'{_BEFORE}/{script}')}")
        lines += [item.value for item in device.settings if item.key == "exec"]
        if lines:
            draft.script(f"{name}-startup", name, lines, device.first)
