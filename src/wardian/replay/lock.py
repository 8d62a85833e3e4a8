"""The lock: what an experiment was resolved to, as text that people compare and commit, and what is otherwise now.

It holds parameters, a digest of each part of the experiment file, the files that nodes copy with the commit that last changed each, the
digests of images, and the packages of nodes and of home. All of it is known once nodes exist: it is taken from an environment that is up,
or from the record of a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..environment import facts as nodes
from ..environment import sources
from ..environment.environment import Environment
from ..environment.live import LiveEnvironment
from ..errors import LockError, NotUpError
from ..experiment import places
from ..experiment.model import Experiment
from ..experiment.plan import Plan
from ..experiment.resources import digest
from ..experiment.topology import members
from ..journal.records import PACKAGES, RunRecord
from ..journal.redact import REDACTED, redact_values
from ..providers import registry
from . import facts

FILE = "experiment.lock"
VERSION = 1
LARGEST = 32 * 2**20
_HEAD = "# What this experiment was resolved to. Written by `wardian lock`: commit it, do not edit it.\n"
_PARTS = ("networks", "links", "nodes", "services")
_WHOLE = ("settings", "collect", "lease")
_SECTIONS = {"parameters": (1, 1), "experiment": (1, 1), "files": (2, 2), "images": (2, 2), "packages": (2, 3)}
"""What a lock has, and how many mappings it is of in one another, at least and at most."""
HERE = "here"

Data = dict[str, Any]
"""A lock as plain data: {"version", "provider"} and the sections."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is otherwise than locked. locked, now: None where it is not there. remedy: how it is as locked again."""

    what: str
    locked: str | None
    now: str | None
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: locked {self.locked or 'without'}, here {self.now or 'without'}; {self.remedy}"


async def resolve(environment: Environment, run: str | None = None) -> Data:
    """What the experiment is resolved to now.

    run: a recorded run to take it from. Without, the environment that is up, else the last run that went well.
    Raises LockError where there is neither, or where files changed since.
    """
    if run is None:
        try:
            return await from_live(environment)
        except NotUpError:
            ran = [item for item in environment.journal.runs(status="ok") if item.detail["experiment"] == str(environment.file)]
            if not ran:
                said = f"{environment.file}: nothing is resolved yet: packages and images are known once nodes exist"
                raise LockError(said, remedy="grow it with `wardian up`, or `wardian run` a notebook, and lock then") from None
            run = ran[-1].id
    return await from_record(environment, environment.journal.show(run, experiment=str(environment.file)))


async def from_live(environment: Environment) -> Data:
    """What the environment that is up was resolved to. Raises NotUpError, and LockError where it is not as the file says."""
    live = await environment.live()
    used = live.record.spec.get("parameters") or {}
    provider = live.record.provider
    same = _provider(sources.load(environment.file), None) == provider
    other = None if same or provider not in registry.names() else provider
    grown = Environment(environment.file, instance=environment.instance, parameters=used, provider=other)
    if await grown.plan():
        raise LockError("the environment is not as the file says now", remedy="bring it there with `wardian up`, and lock then")
    return await _data(environment, provider, used, await gathered(live))


async def from_record(environment: Environment, record: RunRecord) -> Data:
    """What a recorded run was resolved to. Raises LockError where the experiment's files are not those that it ran with."""
    head = record.run
    read = record.fact(facts.READ) or {}
    experiment = sources.load(environment.file, _known(environment, head.detail["parameters"]))
    changed = [name for name, digest in _digests(experiment, environment.folder).items() if read.get(name) != digest]
    if hashlib.sha256(environment.file.read_bytes()).hexdigest() != head.detail["experiment_digest"]:
        changed.insert(0, environment.file.name)
    if changed:
        said = f"{', '.join(changed)} changed since run {head.id[-8:]}"
        raise LockError(said, remedy="run it again and lock then, or `wardian up` and lock what is up")
    found = [(fact.node, fact.name, fact.value) for fact in record.facts]
    return await _data(environment, head.detail["provider"], head.detail["parameters"], found)


async def gathered(live: LiveEnvironment) -> list[tuple[str | None, str, Any]]:
    """What the nodes of an environment are, and home: (node, name of the fact, value)."""
    found: list[tuple[str | None, str, Any]] = []
    await nodes.gather(live, lambda node, name, value: found.append((node, name, value)))
    return found


def dumps(data: Mapping[str, Any]) -> str:
    """The text of a lock: the same for the same data, in one order."""
    return _HEAD + yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=1 << 20, default_flow_style=False)


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write a lock, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(dumps(data))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> Data:
    """The lock in a file. Raises LockError naming it, and where it is wrong."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise LockError(f"there is no {path}", remedy="write it with `wardian lock`") from None
    except OSError as error:
        raise LockError(f"{path} cannot be read: {error.strerror}") from error
    try:
        found = yaml.safe_load(text) if len(text) <= LARGEST else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())
        raise LockError(f"{path} is damaged: {said}", remedy="write it anew with `wardian lock`") from error
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        raise LockError(f"{path} is no lock: expected a mapping with a version", remedy="write it anew with `wardian lock`")
    if found["version"] != VERSION:
        said = f"{path} is of version {found['version']}, and this Wardian knows {VERSION}"
        raise LockError(said, remedy="upgrade Wardian, or write it anew with `wardian lock`")
    for section, (least, most) in _SECTIONS.items():
        found[section] = _checked(path, section, found.get(section) or {}, least, most)
    return found


def _checked(path: Path, where: str, value: Any, least: int, most: int) -> Any:
    """A part of a lock, with at least and at most so many mappings in one another."""
    if isinstance(value, dict) and most:
        return {str(name): _checked(path, f"{where}.{name}", item, least - 1, most - 1) for name, item in value.items()}
    if least > 0 or not isinstance(value, str | int | float):
        said = f"{path}: {where}: expected {'a mapping' if least > 0 else 'text'}"
        raise LockError(said, remedy="write it anew with `wardian lock`")
    return value if where.startswith("parameters.") else str(value)


def differences(locked: Mapping[str, Any], now: Mapping[str, Any], sections: Iterable[str] = tuple(_SECTIONS)) -> list[Drift]:
    """Everything that is otherwise, in the order of the file. sections: those that are looked at."""
    found = []
    if locked.get("provider") != now.get("provider"):
        one = "+" not in str(locked.get("provider"))
        remedy = f"grow it with --provider {locked.get('provider')}" if one else "grow it on the sites that it was locked on"
        found.append(Drift("provider", str(locked.get("provider")), str(now.get("provider")), remedy))
    compare = {"parameters": _parameters, "experiment": _experiment, "files": _files, "images": _images, "packages": _packages}
    for section in sections:
        found += compare[section](locked[section], now[section])
    return found


async def up(
    environment: Environment,
    path: Path,
    *,
    provider: str | None = None,
    report: Callable[[str], None] = lambda said: None,
    **options: Any,
) -> Plan:
    """`Environment.up`, but that it refuses to make anything else than what is locked.

    Parameters that are not given are the locked ones, and nodes are made from the locked images, which are fetched where they are not
    here. What was grown to find out that packages of nodes are others is torn down again.
    path: of the lock. provider: the one asked for; that of the file when None. report: told what is fetched. options: those of
    `Environment.up`. Raises LockError naming every difference.
    """
    locked = load(path)
    if found := await _before(environment, locked, provider):
        raise refusal(path, found)
    standing = (await environment.observe()).environment
    wanted = _by_node(environment, locked["images"])
    desired = environment.desired()
    sites = {node.name: node.node.site or "" for node in members(desired.experiment)}
    images = [{**image, "site": sites[node]} for node, image in wanted.items()]
    problems = await desired.provider.fetch_images(standing.id if standing else None, images, environment.folder, report)
    if problems:
        digests = {name: image["digest"] for name, image in locked["images"].items()}
        raise refusal(path, [Drift(f"image of {name}", it, None, problems[it]) for name, it in digests.items() if it in problems])
    environment.pins = {node: image["digest"] for node, image in wanted.items()}
    plan = await environment.up(**options)
    known = await gathered(await environment.live())
    now = {"provider": locked.get("provider"), "images": _image_table(known), "packages": _package_table(known)}
    if found := differences(locked, now, ("images", "packages")):
        if standing is None:
            await environment.down(force=True, gather=False)
        raise refusal(path, found)
    return plan


async def _before(environment: Environment, locked: Mapping[str, Any], provider: str | None) -> list[Drift]:
    """What is known to be otherwise before anything grows; the environment's parameters become the locked ones."""
    declared = environment.load().parameters
    given = {name: item.default for name, item in declared.items() if name in environment.parameters}
    environment.parameters = given | _known(environment, locked["parameters"])
    experiment = environment.load()
    home: list[tuple[str | None, str, Any]] = []
    await nodes.home(lambda node, name, value: home.append((node, name, value)))
    now = {
        "provider": _provider(experiment, provider),
        "parameters": _values(experiment) | _plain(given),
        "experiment": _parts(experiment),
        "files": await _file_table(environment, experiment),
        "packages": _package_table(home),
    }
    of_home = next((value for names, value in locked["packages"].items() if HERE in names.split(", ")), None)
    known = {**locked, "packages": {HERE: of_home} if of_home else {}}
    return differences(known, now, tuple(name for name in _SECTIONS if name != "images"))


def _by_node(environment: Environment, images: Data) -> dict[str, dict[str, str]]:
    """The locked image of each node that has one."""
    found = {node.name: images.get(node.name) or images.get(node.group) for node in members(environment.load())}
    return {node: image for node, image in found.items() if image}


def refusal(path: Path, found: Sequence[Drift]) -> LockError:
    """The error that names every difference."""
    count = f"{len(found)} difference{'s' if len(found) > 1 else ''}"
    lines = "".join(f"\n  {item}" for item in found)
    return LockError(f"{path}: {count} from what is here:{lines}", remedy="or accept what is here: wardian up, then wardian lock")


def _provider(experiment: Experiment, chosen: str | None) -> str:
    """The provider behind a name, which may be that of a site; without one those of the file."""
    known = [places.named(experiment, chosen)] if chosen else places.of(experiment)
    return "+".join(sorted({place.provider for place in known}))


async def _data(environment: Environment, provider: str, used: Mapping[str, Any], found: Iterable[tuple[str | None, str, Any]]) -> Data:
    experiment = sources.load(environment.file, _known(environment, used))
    known = list(found)
    return {
        "version": VERSION,
        "provider": provider,
        "parameters": _values(experiment),
        "experiment": _parts(experiment),
        "files": await _file_table(environment, experiment),
        "images": _image_table(known),
        "packages": _package_table(known),
    }


def _known(environment: Environment, used: Mapping[str, Any]) -> dict[str, Any]:
    """Of the values that a run had, those of the experiment's own parameters."""
    declared = sources.load(environment.file).parameters
    return {name: value for name, value in used.items() if name in declared and value != REDACTED}


def _values(experiment: Experiment) -> Data:
    return _plain({name: item.default for name, item in experiment.parameters.items()})


def _plain(values: Mapping[str, Any]) -> Data:
    clean: Data = redact_values(values)
    return clean


def _parts(experiment: Experiment) -> dict[str, str]:
    dump = _plain(experiment.model_dump(mode="json", exclude_defaults=True))
    parts = {f"{section}.{name}": value for section in _PARTS for name, value in (dump.get(section) or {}).items()}
    parts |= {section: dump[section] for section in _WHOLE if dump.get(section)}
    return {name: digest({"": value}) for name, value in parts.items()}


def _digests(experiment: Experiment, folder: Path) -> dict[str, str]:
    return sources.file_digests(experiment, folder) | sources.build_digests(experiment, folder)


async def _file_table(environment: Environment, experiment: Experiment) -> Data:
    folder = environment.folder
    digests = await asyncio.to_thread(_digests, experiment, folder)
    commits = await asyncio.gather(*(facts.last_commit(folder, name) for name in digests))
    found = ((name, digest, commit) for (name, digest), commit in zip(digests.items(), commits, strict=True))
    return {name: {"sha256": digest} | ({"commit": commit} if commit else {}) for name, digest, commit in sorted(found)}


def _image_table(found: Iterable[tuple[str | None, str, Any]]) -> Data:
    images = {node: value for node, name, value in found if name == nodes.IMAGE and node and "digest" in value}
    return dict(sorted(_by_group(images).items()))


def _package_table(found: Iterable[tuple[str | None, str, Any]]) -> Data:
    """{nodes that are alike: {"python": version, "dpkg": {package: version}, …}}; of home the packages of its Python alone."""
    known: dict[str, Data] = {}
    for node, name, value in found:
        if name == nodes.PYTHON:
            known.setdefault(node or HERE, {})["python"] = str(value["version"])
        elif name.startswith(PACKAGES) and (node or name.endswith(".pip")):
            manager = name.removeprefix(PACKAGES)
            known.setdefault(node or HERE, {})[manager] = {package: str(version) for package, version in sorted(value.items())}
    alike: dict[str, list[str]] = {}
    for name, value in sorted(_by_group({node: dict(sorted(item.items())) for node, item in known.items()}).items()):
        alike.setdefault(json.dumps(value), []).append(name)
    return {", ".join(names): json.loads(text) for text, names in sorted(alike.items(), key=lambda item: item[1])}


def _by_group(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same by group where all its members have one value."""
    groups: dict[str, list[str]] = {}
    for name in values:
        groups.setdefault(name.partition("[")[0], []).append(name)
    found: Data = {}
    for group, names in groups.items():
        same = all(values[name] == values[names[0]] for name in names)
        found |= {group: values[names[0]]} if same else {name: values[name] for name in names}
    return found


def _parameters(locked: Data, now: Data) -> list[Drift]:
    return [
        Drift(f"parameter {name}", _text(old), _text(new), _give(name, old, new))
        for name, old, new in _unlike(locked, now)
        if REDACTED not in (old, new)
    ]


def _give(name: str, old: Any, new: Any) -> str:
    if old is None or new is None:
        return "take it out of the experiment file" if old is None else "declare it in the experiment file"
    return f"give -p {name}={old}"


def _experiment(locked: Data, now: Data) -> list[Drift]:
    def remedy(name: str, old: Any, new: Any) -> str:
        return f"undo the edit of {name} in the experiment file" if old and new else f"{'take out' if new else 'put back'} {name}"

    return [Drift(name, old and f"as {old}", new and f"as {new}", remedy(name, old, new)) for name, old, new in _unlike(locked, now)]


def _files(locked: Data, now: Data) -> list[Drift]:
    found = []
    for name, old, new in _unlike(*({key: value.get("sha256") for key, value in table.items()} for table in (locked, now))):
        commit = locked.get(name, {}).get("commit")
        remedy = f"bring it back: git checkout {commit[:12]} -- {name}" if commit else "bring it back" if old else "it was not there"
        found.append(Drift(f"file {name}", old and old[:12], new and new[:12], remedy))
    return found


def _images(locked: Data, now: Data) -> list[Drift]:
    found = []
    tables = _aligned(locked, now)
    for name, old, new in _unlike(*({key: value.get("digest") for key, value in table.items()} for table in tables)):
        image = tables[0].get(name, {})
        pull = f"docker pull {image['registry']} && docker tag {image['registry']} {image['name']}" if image.get("registry") else ""
        found.append(Drift(f"image of {name}", old, new, pull or "load the image that was locked"))
    return found


def _packages(locked: Data, now: Data) -> list[Drift]:
    found = []
    for node, old, new in _unlike(*_aligned(locked, now)):
        if old is None or new is None:
            found.append(Drift(f"packages of {node}", "known" if old else None, "known" if new else None, "lock it anew"))
            continue
        if old.get("python") != new.get("python"):
            found.append(Drift(f"Python of {node}", old.get("python"), new.get("python"), "use the interpreter that was locked"))
        for manager in dict.fromkeys([*old, *new]):
            if manager != "python":
                lists = (item.get(manager) for item in (old, new))
                for package, before, now_ in _unlike(*(item if isinstance(item, dict) else {} for item in lists)):
                    if REDACTED not in (before, now_):
                        found.append(Drift(f"{manager} {package} of {node}", before, now_, _install(manager, package, before)))
    return found


def _install(manager: str, package: str, version: str | None) -> str:
    if version is None:
        return "remove it"
    command = {"pip": "pip install {}=={}", "dpkg": "apt-get install {}={}", "apk": "apk add {}={}", "conda": "conda install {}={}"}
    return command.get(manager, "install {} {}").format(package, version)


def _aligned(one: Data, other: Data) -> tuple[Data, Data]:
    """Two tables by the same nodes: a group of one that the other knows by its members is taken apart."""
    tables = [{name: value for names, value in table.items() for name in names.split(", ")} for table in (one, other)]

    def apart(table: Data, names: Iterable[str]) -> Data:
        found: Data = {}
        for name, value in table.items():
            of_group = [member for member in names if member.partition("[")[0] == name != member]
            found |= dict.fromkeys(of_group or [name], value)
        return found

    return apart(tables[0], tables[1]), apart(tables[1], tables[0])


def _unlike(locked: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, locked.get(name), now.get(name)) for name in dict.fromkeys([*locked, *now]) if locked.get(name) != now.get(name)]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
