"""The experiment as Python objects: what a user asks for, and nothing about how it is grown.

Every class is frozen. Numbers carry the units of `units.py`: seconds, bits a second, bytes, fractions.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from .containers import Build, Capabilities, Gpus, Ports, Volumes
from .containers import BuildSpec as BuildSpec
from .containers import Port as Port
from .containers import Volume as Volume
from .fields import Duration, Fraction, Model, Name, Size, Variable, Variables, at_least, expected
from .links import Access as Access
from .links import Link as Link
from .links import Mtu
from .links import QueueSpec as QueueSpec
from .links import Shape as Shape
from .links import TraceFile as TraceFile


class Network(Model):
    """A switch. `delay` and `loss` written here are between every pair of members, one way."""

    subnet: ipaddress.IPv4Network | None = Field(default=None, description="address range, such as 10.1.0.0/24")
    delay: Duration | None = Field(default=None, description="one-way delay between every pair of members")
    loss: Fraction | None = Field(default=None, description="loss between every pair of members, one way")
    mtu: Mtu | None = Field(default=None, description="largest packet, bytes; 1500 where none is written")

    @field_validator("subnet")
    @classmethod
    def _room(cls, value: ipaddress.IPv4Network | None) -> ipaddress.IPv4Network | None:
        if value is not None and value.prefixlen > 29:
            raise ValueError("a subnet with room for members, /29 or larger")
        return value


class FileCopy(Model):
    """A file or folder copied onto the node before its services start."""

    source: str = Field(description="path, relative to the experiment file")
    target: str = Field(description="absolute path on the node")
    mode: str | None = Field(default=None, description="permissions, octal, such as 0755")

    @field_validator("mode", mode="before")
    @classmethod
    def _octal(cls, value: object) -> object:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if text is not None and not (isinstance(text, str) and re.fullmatch("0?[0-7]{3}", text)):
            raise ValueError("permissions in octal, such as 0755")
        return text

    @field_validator("target")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/") or ".." in value.split("/"):
            raise ValueError("an absolute path without ..")
        return value


def _files(value: object) -> object:
    """`{"serve.py": "/srv/serve.py"}` means the same as the list of source and target."""
    if isinstance(value, dict):
        return [{"source": source, "target": target} for source, target in value.items()]
    return value


def _entries(value: object) -> object:
    """A list of names means a mapping from each to nothing; an entry that is nothing means one with nothing set."""
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise ValueError("a list of names, or a mapping from names to what is set there")
        if len(set(value)) < len(value):
            raise ValueError("each name once")
        value = dict.fromkeys(value)
    return {key: {} if item is None else item for key, item in value.items()} if isinstance(value, dict) else value


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _interpreter(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"/[^\0\n]*[^/\0\n]|[A-Za-z0-9_][A-Za-z0-9_.+-]*", value):
        raise ValueError("an absolute path such as /opt/py/bin/python, or a name such as python3.12")
    return value


class Node(Model):
    """One node, or a group of `count` like nodes."""

    count: int | None = Field(default=None, ge=0, le=10000, description="how many; without it one node, not a group")
    roles: Annotated[list[Name], BeforeValidator(_list)] = Field(default=[], description="names shared with other nodes")
    image: str | None = Field(default=None, description="what it boots from: a directory or tar, or for docker the name of an image")
    build: Build | None = Field(default=None, description="a folder with a Dockerfile that its image is built from")
    cpus: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="processors, such as 0.5")
    memory: Annotated[Size, at_least(4 * 2**20, "4MiB")] | None = Field(default=None, description="memory limit")
    env: Variables = Field(default={}, description="environment variables of everything that runs there")
    python: Annotated[str, BeforeValidator(_interpreter)] | None = Field(
        default=None, description="interpreter of its Python cells: an absolute path on the node, or a name such as python3.12"
    )
    files: Annotated[list[FileCopy], BeforeValidator(_files)] = Field(default=[], description="copied in: {source: target}")
    setup: str | None = Field(default=None, description="shell script run once, with internet access, to prepare the image")
    internet: bool = Field(default=False, description="whether the node reaches the internet")
    routes: bool = Field(default=False, description="whether it forwards between its networks")
    networks: Annotated[dict[str, Access], BeforeValidator(_entries), BeforeValidator(_list)] | None = Field(
        default=None, description="networks it is a member of, each with its access link"
    )
    volumes: Volumes = Field(default=[], description="folders of the Engine's machine, or its volumes: {source: target}")
    ports: Ports = Field(default=[], description="ports of the node that are reached on the Engine's machine")
    capabilities: Capabilities = Field(default=[], description="what root may do there that it otherwise may not, such as NET_ADMIN")
    gpus: Gpus | None = Field(default=None, description="how many GPUs it has, or all")
    site: str | None = Field(default=None, description="where it is grown, one of sites")

    @model_validator(mode="after")
    def _one_image(self) -> Node:
        if self.build and self.image:
            raise expected("either an image or a build", "build")
        return self


def _shell(value: object) -> object:
    return ["/bin/sh", "-c", value] if isinstance(value, str) else value


def _command(value: object) -> object:
    """Refuses here, with one message, what a union of types would refuse once for each."""
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(item, str) for item in texts) or not texts[0].strip():
        raise ValueError("a command: a line for /bin/sh, or a list of arguments")
    return value


class Ready(Model):
    """When a service counts as ready: exactly one of these."""

    port: int | None = Field(default=None, ge=1, le=65535, description="a TCP port that accepts connections")
    command: Annotated[list[str], BeforeValidator(_shell), BeforeValidator(_command)] | None = Field(
        default=None, description="argument list, or a line for /bin/sh, that exits 0 when ready"
    )
    log: str | None = Field(default=None, description="regular expression that a line of its log matches")
    timeout: Duration = Field(default=30.0, description="how long it may take")

    @field_validator("log")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        return value

    @model_validator(mode="after")
    def _one(self) -> Ready:
        if sum(item is not None for item in (self.port, self.command, self.log)) != 1:
            raise ValueError("exactly one of port, command and log")
        return self


IMAGE = "image"
"""The command of a service that runs what its node's image starts by itself."""


class Service(Model):
    """A long-running command on every node that `on` picks."""

    on: str = Field(description="selector of the nodes it runs on")
    command: Annotated[str | list[str], BeforeValidator(_command)] = Field(
        description="argument list, or a line for /bin/sh; image: what the image of its nodes starts by itself"
    )
    arguments: list[str] | None = Field(default=None, description="with `command: image`: in place of the image's own arguments (its CMD)")
    env: Variables = Field(default={}, description="environment variables")
    directory: str | None = Field(default=None, description="working directory on the node")
    ready: Ready | None = Field(default=None, description="when it counts as ready")
    restart: Literal["no", "on-failure", "always"] = Field(default="on-failure", description="when it is started again")

    @field_validator("restart", mode="before")
    @classmethod
    def _no(cls, value: object) -> object:
        return "no" if value is False else value

    @model_validator(mode="after")
    def _of_image(self) -> Service:
        if self.arguments is not None and self.command != IMAGE:
            raise expected(f"`command: {IMAGE}` beside it; other commands have theirs in `command`", "arguments")
        return self


class Collect(Model):
    """Files fetched from nodes before they are torn down."""

    on: str = Field(default="all", description="selector of the nodes")
    path: str = Field(description="absolute path on the node; a file, a folder or a pattern")

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError("an absolute path on the node")
        return value


def _collect(value: object) -> object:
    return [{"path": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


def _some_time(value: float) -> float:
    if value <= 0:
        raise ValueError("more than 0s")
    return value


class Lease(Model):
    """How long the environment is held, and what happens then."""

    duration: Annotated[Duration, AfterValidator(_some_time)] = Field(description="counted from `up`")
    at_end: Literal["down", "keep"] = Field(default="down", description="down: collect and tear down; keep: only say so")


class Replay(Model):
    """What a replay accepts where neither a cell nor its notebook says otherwise."""

    tolerance: str | None = Field(default=None, description="how far apart numbers may be, such as 5% or 2ms")
    ignore: list[str] = Field(default=[], description="regular expressions of what differs from run to run and means nothing")


class Site(Model):
    """A provider with its settings. The provider validates `settings`."""

    provider: str = Field(description="name of the provider")
    settings: dict[str, Any] = Field(default={}, description="settings of that provider")


def _parameter(value: object) -> object:
    return {"default": value} if not isinstance(value, dict) else value


def _scalar(value: object) -> object:
    if not isinstance(value, int | float | str | bool):
        raise ValueError("a number, text, or true or false")
    return value


def _limit(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("a number")
    return value


Limit = Annotated[int | float, BeforeValidator(_limit)]
Scalar = Annotated[int | float | str | bool, BeforeValidator(_scalar)]

_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = {"integer": "an integer", "number": "a number", "boolean": "true or false", "string": "text"}


class Parameter(Model):
    """A value that `-p name=value` sets; `${name}` in the file is replaced by it. Short form: the default alone."""

    default: Scalar = Field(description="value when none is given")
    type: Literal["integer", "number", "string", "boolean"] | None = Field(default=None, description="of the default, unless given")
    minimum: Limit | None = Field(default=None, description="smallest value allowed")
    maximum: Limit | None = Field(default=None, description="largest value allowed")
    choices: list[Scalar] | None = Field(default=None, description="the values allowed")
    description: str | None = Field(default=None, description="what it means")

    @property
    def kind(self) -> str:
        """The type, as written or as the default shows it."""
        if self.type:
            return self.type
        if isinstance(self.default, bool):
            return "boolean"
        return {int: "integer", float: "number"}.get(type(self.default), "string")

    def check(self, value: object) -> int | float | str | bool:
        """`value`, converted from text where needed. Raises ValueError saying what was expected."""
        given = self._convert(value)
        if self.choices is not None and given not in self.choices:
            raise ValueError("one of " + ", ".join(map(str, self.choices)))
        if isinstance(given, int | float) and not isinstance(given, bool):
            if self.minimum is not None and given < self.minimum:
                raise ValueError(f"at least {self.minimum}")
            if self.maximum is not None and given > self.maximum:
                raise ValueError(f"at most {self.maximum}")
        return given

    def _convert(self, value: object) -> int | float | str | bool:
        kind = self.kind
        try:
            if kind == "string" and isinstance(value, int | float | str):
                return str(value).lower() if isinstance(value, bool) else str(value)
            if kind == "boolean":
                return value if isinstance(value, bool) else _TRUTH[str(value).strip().lower()]
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                if kind == "integer" and (not isinstance(value, float) or value.is_integer()):
                    return int(value)
                if kind == "number" and math.isfinite(number := float(value)):
                    return number
        except (KeyError, ValueError, OverflowError):
            pass
        raise ValueError(_KINDS[kind])

    @model_validator(mode="after")
    def _default_fits(self) -> Parameter:
        try:
            self.check(self.default)
        except ValueError as error:
            raise expected(str(error), "default") from None
        return self


class Experiment(Model):
    """One experiment file."""

    name: Name = Field(description="name of the experiment")
    description: str | None = Field(default=None, description="what it is about")
    provider: str = Field(default="local", description="provider, or one of sites, that grows it unless told otherwise")
    settings: dict[str, Any] = Field(default={}, description="settings of that provider")
    parameters: dict[Variable, Annotated[Parameter, BeforeValidator(_parameter)]] = Field(default={}, description="values that -p sets")
    sites: dict[Name, Site] = Field(default={}, description="providers with their settings")
    networks: Annotated[dict[Name, Network], BeforeValidator(_entries)] = Field(default={}, description="networks")
    links: dict[Name, Link] = Field(default={}, description="links between networks")
    nodes: Annotated[dict[Name, Node], BeforeValidator(_entries)] = Field(description="nodes and groups of nodes")
    services: dict[Name, Service] = Field(default={}, description="long-running commands")
    collect: Annotated[list[Collect], BeforeValidator(_collect)] = Field(default=[], description="files fetched before teardown")
    lease: Lease | None = Field(default=None, description="how long it is held")
    replay: Replay | None = Field(default=None, description="what a replay accepts")

    @field_validator("nodes")
    @classmethod
    def _some(cls, value: dict[str, Node]) -> dict[str, Node]:
        if not value:
            raise ValueError("at least one node")
        return value
