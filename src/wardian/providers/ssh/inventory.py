"""The machines that there are: from the settings, from an Ansible inventory, or both."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import PlanError
from .settings import HostSettings, SshSettings


@dataclass(frozen=True, slots=True)
class Host:
    """One machine, and all that is needed to reach it again. Paths are absolute; None and empty mean: as `ssh` does by itself.

    program, config, known_hosts, host_keys, key_exchange and patience are of the settings, and alike for all hosts. shell: the login
    shell there, once that is known.
    """

    name: str
    address: str = ""
    user: str = ""
    port: int = 0
    key: str = ""
    jump: Host | None = None
    labels: tuple[str, ...] = ()
    python: str = ""
    password_env: str = ""
    fingerprint: str = ""
    program: str = "ssh"
    config: str = ""
    known_hosts: str = ""
    host_keys: str = "ask"
    key_exchange: str = "ssh"
    patience: float = 15.0
    shell: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is written down; nothing secret is in it."""
        return {**asdict(self), "labels": list(self.labels), "jump": self.jump.to_json() if self.jump else None}

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> Host:
        """What `to_json` gave."""
        jump = value.get("jump")
        return Host(**{**value, "labels": tuple(value["labels"]), "jump": Host.of_json(jump) if jump else None})

    def __str__(self) -> str:
        return self.name


def hosts(settings: SshSettings, folder: Path) -> list[Host]:
    """Every machine of the settings, in their order. folder: what relative paths are relative to.

    Raises PlanError for an inventory that cannot be read, and for a name that is there twice.
    """
    common: dict[str, Any] = {
        "program": settings.ssh if "/" not in settings.ssh else _path(folder, settings.ssh),
        "config": _path(folder, settings.config),
        "known_hosts": _path(folder, settings.known_hosts),
        "host_keys": settings.host_keys,
        "key_exchange": settings.key_exchange,
        "patience": settings.patience,
    }
    read = [(host, folder) for host in settings.hosts]
    if settings.inventory is not None:
        path = Path(_path(folder, settings.inventory))
        read += [(host, path.parent) for host in _of_inventory(path)]
    listed: dict[str, Host] = {}
    jumps: dict[str, str] = {}
    for host, base in read:
        if host.name in listed:
            raise PlanError(f"host {host.name} is listed twice", remedy="list each host once, in `hosts:` or in the inventory")
        listed[host.name] = _of_settings(host, base, common)
        if host.jump:
            jumps[host.name] = host.jump
    for name, jump in jumps.items():
        listed[name] = replace(listed[name], jump=bastion(jump, listed[name], listed))
    return list(listed.values())


_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<name>\[[^\]]+\]|[^:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?/?")


def bastion(jump: str, host: Host, listed: Mapping[str, Host]) -> Host:
    """The bastion before `host` that `[user@]name[:port]` names, through those before it where there are several with commas between.

    listed: the hosts that are known by name.
    Raises PlanError.
    """
    before: Host | None = None
    for hop in jump.split(","):
        found = _HOP.fullmatch(hop.strip())
        if found is None or found["name"].startswith("-"):
            raise PlanError(f"host {host.name}: {hop!r} is no bastion", remedy="write [user@]host[:port]")
        common = replace(host, address="", labels=(), python="", password_env="", fingerprint="", key="", jump=None)
        known = listed.get(hop.strip()) or replace(
            common, name=found["name"].strip("[]"), user=found["user"] or "", port=int(found["port"] or 0)
        )
        before = replace(known, jump=before)
    assert before is not None  # noqa: S101 (splitting gives one part at least)
    return before


def _of_settings(host: HostSettings, folder: Path, common: Mapping[str, Any]) -> Host:
    return Host(
        name=host.name,
        address=host.address or "",
        user=host.user or "",
        port=host.port or 0,
        key=_path(folder, host.key),
        labels=tuple(host.labels),
        python=host.python or "",
        password_env=host.password_env or "",
        fingerprint=host.fingerprint or "",
        **common,
    )


def _path(folder: Path, path: Path | str | None) -> str:
    return str(folder / Path(path).expanduser()) if path else ""


# Ansible's inventories


def _of_inventory(path: Path) -> list[HostSettings]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PlanError(
            f"the inventory {path} cannot be read: {reason}", remedy="`inventory:` is relative to the experiment file"
        ) from None
    groups = _Groups(path)
    if path.suffix in (".yaml", ".yml", ".json"):
        _read_yaml(text, groups)
    else:
        _read_ini(text, groups)
    return [_of_variables(name, variables, labels, path) for name, variables, labels in groups.hosts()]


class _Groups:
    """What an inventory says: which hosts and groups a group has, and the variables of each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, dict[str, None]] = {"all": {}}
        self.children: dict[str, dict[str, None]] = {}
        self.variables: dict[str, dict[str, Any]] = {}
        self.own: dict[str, dict[str, Any]] = {}

    def add_host(self, group: str, pattern: str, variables: Mapping[str, Any]) -> None:
        for name in _expanded(pattern, self.path):
            self.members.setdefault(group, {})[name] = None
            self.members["all"][name] = None
            self.own.setdefault(name, {}).update(variables)

    def hosts(self) -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
        """Each host, its variables (those of nearer groups over those of the ones around), and its groups."""
        for name in self.members["all"]:
            direct = [group for group, members in self.members.items() if name in members and group != "all"]
            lineage: dict[str, int] = {}
            for group in direct:
                self._climb(group, 0, lineage)
            variables = dict(self.variables.get("all", {}))
            for group in sorted(lineage, key=lambda item: -lineage[item]):
                variables |= self.variables.get(group, {})
            yield name, variables | self.own[name], tuple(group for group in lineage if group != "ungrouped")

    def _climb(self, group: str, distance: int, lineage: dict[str, int]) -> None:
        if group == "all" or lineage.get(group, -1) >= distance:
            return
        if distance > len(self.children) + len(self.members):
            raise PlanError(f"{self.path}: group {group} is a child of itself", remedy="take it out of its own children")
        lineage[group] = distance
        for parent, children in self.children.items():
            if group in children:
                self._climb(parent, distance + 1, lineage)


_SECTION = re.compile(r"\[([^\]:]+)(?::(children|vars))?\]")


def _read_ini(text: str, groups: _Groups) -> None:
    group, kind = "ungrouped", None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        where = f"{groups.path}:{number}"
        if line[0] == "[":
            header = _SECTION.match(line)
            if header is None:
                raise PlanError(f"{where}: {line} is no section", remedy="sections are [group], [group:children] and [group:vars]")
            group, kind = header[1].strip(), header[2]
        elif kind == "children":
            groups.children.setdefault(group, {})[line.split("#")[0].strip()] = None
        elif kind == "vars":
            name, equals, value = line.partition("=")
            if not equals:
                raise PlanError(f"{where}: {line!r} sets no variable", remedy="write name=value")
            groups.variables.setdefault(group, {})[name.strip()] = value.strip().strip("\"'")
        else:
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                raise PlanError(f"{where}: {error}", remedy="close the quotes") from None
            variables = dict(word.split("=", 1) for word in words[1:] if "=" in word)
            groups.add_host(group, words[0], variables)


def _read_yaml(text: str, groups: _Groups) -> None:
    import yaml

    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        remedy = "correct it; `ansible-inventory --list` reads it too"
        raise PlanError(f"the inventory {groups.path} is no YAML: {error}", remedy=remedy) from None

    def walk(name: str, group: Any) -> None:
        for host, variables in _mapping(_mapping(group).get("hosts")).items():
            groups.add_host(name, str(host), _mapping(variables))
        groups.variables.setdefault(name, {}).update(_mapping(_mapping(group).get("vars")))
        for child, below in _mapping(_mapping(group).get("children")).items():
            groups.children.setdefault(name, {})[str(child)] = None
            walk(str(child), below)

    def _mapping(value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise PlanError(f"the inventory {groups.path} is none: {value!r} stands for a mapping", remedy="see Ansible's YAML inventories")
        return value

    for name, group in _mapping(tree).items():
        walk(str(name), group)


_RANGE = re.compile(r"\[([0-9]+|[a-z]):([0-9]+|[a-z])(?::([0-9]+))?\]", re.IGNORECASE)


def _expanded(pattern: str, path: Path) -> Iterator[str]:
    """`lab[01:03].org` stands for three hosts."""
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last, step = found[1], found[2], int(found[3] or 1)
    if first.isdigit() != last.isdigit() or step < 1:
        raise PlanError(f"{path}: {pattern}: {found[0]} is no range", remedy="write such as lab[01:12] or lab[a:f]")
    if first.isdigit():
        values = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1, step)]
    else:
        values = [chr(number) for number in range(ord(first), ord(last) + 1, step)]
    for value in values:
        yield from _expanded(pattern[: found.start()] + value + pattern[found.end() :], path)


_JUMP = re.compile(r"(?:-J\s*|-o\s*ProxyJump[=\s])[\"']?([^\s\"']+)")


def _of_variables(name: str, variables: Mapping[str, Any], labels: tuple[str, ...], path: Path) -> HostSettings:
    def text(*keys: str) -> str:
        return next((str(variables[key]) for key in keys if variables.get(key) not in (None, "")), "")

    jump = _JUMP.search(f"{text('ansible_ssh_common_args')} {text('ansible_ssh_extra_args')}")
    key = text("ansible_ssh_private_key_file", "ansible_private_key_file")
    try:
        return HostSettings(
            name=name,
            address=text("ansible_host", "ansible_ssh_host") or None,
            user=text("ansible_user", "ansible_ssh_user") or None,
            port=int(text("ansible_port", "ansible_ssh_port") or 0) or None,
            key=Path(key) if key else None,
            jump=jump[1] if jump else None,
            labels=list(labels),
            python=text("ansible_python_interpreter").removeprefix("auto") or None,
        )
    except ValueError as error:
        raise PlanError(f"{path}: host {name}: {error}", remedy="correct it in the inventory") from None
