"""The experiment as Python objects: what a user asks for, and nothing about how it is grown.

Every class is frozen. Numbers carry the units of `units.py`: seconds, bits a second, bytes, fractions.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from . import units

NAME = re.compile(r"^[a-z][a-z0-9-]{0,39}$")


def _quantity(parse: Callable[[object], Any], write: Callable[[Any], str], example: str) -> tuple[Any, ...]:
    return (
        BeforeValidator(parse),
        PlainSerializer(write, return_type=str, when_used="json"),
        WithJsonSchema({"type": ["string", "number"], "examples": [example]}),
    )


Duration = Annotated[float, *_quantity(units.parse_duration, units.format_duration, "30ms")]
Rate = Annotated[int, *_quantity(units.parse_rate, units.format_rate, "100mbit")]
Size = Annotated[int, *_quantity(units.parse_size, units.format_size, "2GiB")]
Fraction = Annotated[float, *_quantity(units.parse_fraction, units.format_fraction, "0.05%")]


def _name(value: str) -> str:
    if not NAME.match(value):
        raise ValueError("a name of lower-case letters, digits and hyphens that starts with a letter, at most 40")
    if value in ("all", "here"):
        raise ValueError(f"a name other than {value!r}, which has a meaning of its own in selectors")
    return value


Name = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME.pattern})]


class Model(BaseModel):
    """Base of every part: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _queue(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number of packets such as 100, or a size such as 64KiB")
    if isinstance(value, int):
        return {"packets": value}
    if isinstance(value, str):
        return {"packets": int(value)} if value.strip().isdigit() else {"bytes": units.parse_size(value)}
    return value


class QueueSpec(Model):
    """How much waits at a link before packets are dropped: in packets, or in bytes. Written `100` or `64KiB`."""

    packets: int | None = Field(None, ge=1, description="longest queue, in packets")
    bytes: Size | None = Field(None, ge=1, description="longest queue, in bytes")

    @model_validator(mode="after")
    def _one(self) -> QueueSpec:
        if (self.packets is None) == (self.bytes is None):
            raise ValueError("either packets or bytes")
        return self


Queue = Annotated[QueueSpec, BeforeValidator(_queue)]


class Shape(Model):
    """What one direction of a link does to what crosses it."""

    delay: Duration | None = Field(None, description="one-way propagation delay")
    loss: Fraction | None = Field(None, description="share of packets lost at random")
    rate: Rate | None = Field(None, description="bits a second")
    queue: Queue | None = Field(None, description="queue in front of the rate: packets (100) or bytes (64KiB)")

    @property
    def shape(self) -> dict[str, Any]:
        """The set parts alone, as a plain dict."""
        return {
            key: value.model_dump(exclude_none=True) if isinstance(value, Model) else value
            for key in Shape.model_fields
            if (value := getattr(self, key)) is not None
        }

    @model_validator(mode="after")
    def _queue_needs_rate(self) -> Shape:
        if type(self) is not Shape and self.queue is not None and self.rate is None:
            directions = [getattr(self, name, None) for name in ("up", "down", "there", "back")]
            if not any(direction and direction.rate for direction in directions):
                raise ValueError("queue needs a rate: without one nothing ever waits")
        return self


class Access(Shape):
    """A node's access link to one network; `up` is from the node, `down` to it, each over what is common."""

    address: ipaddress.IPv4Address | None = Field(None, description="fixed address on the network")
    up: Shape | None = Field(None, description="from the node to the network, where it differs")
    down: Shape | None = Field(None, description="from the network to the node, where it differs")

    def directions(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The shapes (from the node, to the node)."""
        up = self.up.shape if self.up else {}
        down = self.down.shape if self.down else {}
        return {**self.shape, **up}, {**self.shape, **down}


class Network(Model):
    """A switch. `delay` and `loss` written here are between every pair of members, one way."""

    subnet: ipaddress.IPv4Network | None = Field(None, description="address range, such as 10.1.0.0/24")
    delay: Duration | None = Field(None, description="one-way delay between every pair of members")
    loss: Fraction | None = Field(None, description="loss between every pair of members, one way")

    @field_validator("subnet")
    @classmethod
    def _room(cls, value: ipaddress.IPv4Network | None) -> ipaddress.IPv4Network | None:
        if value is not None and value.prefixlen > 29:
            raise ValueError("a subnet with room for members, /29 or larger")
        return value


class Link(Shape):
    """Joins two networks. All that crosses it one way shares its one queue."""

    between: tuple[str, str] = Field(description="the two networks that it joins")
    there: Shape | None = Field(None, description="from the first to the second, where it differs")
    back: Shape | None = Field(None, description="from the second to the first, where it differs")

    def directions(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The shapes (first to second, second to first)."""
        there = self.there.shape if self.there else {}
        back = self.back.shape if self.back else {}
        return {**self.shape, **there}, {**self.shape, **back}


class FileCopy(Model):
    """A file or folder copied onto the node before its services start."""

    source: str = Field(description="path, relative to the experiment file")
    target: str = Field(description="absolute path on the node")
    mode: str | None = Field(None, pattern=r"^0?[0-7]{3}$", description="permissions, octal, such as 0755")

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


def _networks(value: object) -> object:
    if isinstance(value, list):
        return dict.fromkeys(value) if all(isinstance(item, str) for item in value) else value
    return {value: None} if isinstance(value, str) else value


def _accesses(value: object) -> object:
    value = _networks(value)
    return {key: {} if item is None else item for key, item in value.items()} if isinstance(value, dict) else value


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Node(Model):
    """One node, or a group of `count` like nodes."""

    count: int | None = Field(None, ge=0, le=10000, description="how many; without it one node, not a group")
    roles: Annotated[list[Name], BeforeValidator(_list)] = Field([], description="names shared with other nodes")
    image: str | None = Field(None, description="what it boots from; for local a directory or tar")
    cpus: float | None = Field(None, gt=0, description="processors, such as 0.5")
    memory: Size | None = Field(None, ge=4 * 2**20, description="memory limit")
    env: dict[str, str] = Field({}, description="environment variables of everything that runs there")
    files: Annotated[list[FileCopy], BeforeValidator(_files)] = Field([], description="copied in: {source: target}")
    setup: str | None = Field(None, description="shell script run once, with internet access, to prepare the image")
    internet: bool = Field(False, description="whether the node reaches the internet")
    routes: bool = Field(False, description="whether it forwards between its networks")
    networks: Annotated[dict[str, Access], BeforeValidator(_accesses)] | None = Field(
        None, description="networks it is a member of, each with its access link"
    )
    site: str | None = Field(None, description="where it is grown, one of sites")

    @field_validator("env", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: str(item) if isinstance(item, int | float) else item for key, item in value.items()}
        return value


class Ready(Model):
    """When a service counts as ready: exactly one of these."""

    port: int | None = Field(None, ge=1, le=65535, description="a TCP port that accepts connections")
    command: Annotated[list[str], BeforeValidator(_list)] | None = Field(None, description="exits 0 when ready")
    log: str | None = Field(None, description="regular expression that a line of its log matches")
    timeout: Duration = Field(30.0, description="how long it may take")

    @model_validator(mode="after")
    def _one(self) -> Ready:
        if sum(item is not None for item in (self.port, self.command, self.log)) != 1:
            raise ValueError("exactly one of port, command and log")
        return self


class Service(Model):
    """A long-running command on every node that `on` picks."""

    on: str = Field(description="selector of the nodes it runs on")
    command: str | list[str] = Field(description="argument list, or a line for /bin/sh")
    env: dict[str, str] = Field({}, description="environment variables")
    directory: str | None = Field(None, description="working directory on the node")
    ready: Ready | None = Field(None, description="when it counts as ready")
    restart: Literal["no", "on-failure", "always"] = Field("on-failure", description="when it is started again")

    @field_validator("restart", mode="before")
    @classmethod
    def _no(cls, value: object) -> object:
        return "no" if value is False else value


class Collect(Model):
    """Files fetched from nodes before they are torn down."""

    on: str = Field("all", description="selector of the nodes")
    path: str = Field(description="absolute path on the node; a file, a folder or a pattern")

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError("an absolute path on the node")
        return value


def _collect(value: object) -> object:
    return [{"path": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


class Lease(Model):
    """How long the environment is held, and what happens then."""

    duration: Duration = Field(gt=0, description="counted from `up`")
    at_end: Literal["down", "keep"] = Field("down", description="down: collect and tear down; keep: only say so")


class Site(Model):
    """A provider with its settings. The provider validates `settings`."""

    provider: str = Field(description="name of the provider")
    settings: dict[str, Any] = Field({}, description="settings of that provider")


def _parameter(value: object) -> object:
    return {"default": value} if not isinstance(value, dict) else value


_TYPES: dict[str, type | tuple[type, ...]] = {"integer": int, "number": (int, float), "string": str, "boolean": bool}


class Parameter(Model):
    """A value that `-p name=value` sets; `${name}` in the file is replaced by it. Short form: the default alone."""

    default: int | float | str | bool = Field(description="value when none is given")
    type: Literal["integer", "number", "string", "boolean"] | None = Field(None, description="of the default, unless given")
    minimum: float | None = Field(None, description="smallest value allowed")
    maximum: float | None = Field(None, description="largest value allowed")
    choices: list[int | float | str | bool] | None = Field(None, description="the values allowed")
    description: str | None = Field(None, description="what it means")

    @property
    def kind(self) -> str:
        """The type, as written or as the default shows it."""
        if self.type:
            return self.type
        if isinstance(self.default, bool):
            return "boolean"
        return {int: "integer", float: "number"}.get(type(self.default), "string")

    def check(self, value: Any) -> Any:
        """`value`, converted from text where needed. Raises ValueError saying what was expected."""
        kind = self.kind
        if isinstance(value, str) and kind != "string":
            text = value.strip().lower()
            try:
                if kind == "boolean":
                    value = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}[text]
                else:
                    value = int(text) if kind == "integer" else float(text)
            except (KeyError, ValueError):
                raise ValueError(f"a value of type {kind}") from None
        elif kind == "string" and not isinstance(value, str):
            value = str(value)
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
            raise ValueError(f"a value of type {kind}")
        if self.choices is not None and value not in self.choices:
            raise ValueError("one of " + ", ".join(map(str, self.choices)))
        if self.minimum is not None and isinstance(value, int | float) and value < self.minimum:
            raise ValueError(f"at least {self.minimum:g}")
        if self.maximum is not None and isinstance(value, int | float) and value > self.maximum:
            raise ValueError(f"at most {self.maximum:g}")
        return value

    @model_validator(mode="after")
    def _default_fits(self) -> Parameter:
        self.check(self.default)
        return self


class Experiment(Model):
    """One experiment file."""

    name: Name = Field(description="name of the experiment")
    description: str | None = Field(None, description="what it is about")
    provider: str = Field("local", description="provider, or one of sites, that grows it unless told otherwise")
    settings: dict[str, Any] = Field({}, description="settings of that provider")
    parameters: dict[str, Annotated[Parameter, BeforeValidator(_parameter)]] = Field({}, description="values that -p sets")
    sites: dict[Name, Site] = Field({}, description="providers with their settings")
    networks: Annotated[dict[Name, Network], BeforeValidator(_accesses)] = Field({}, description="networks")
    links: dict[Name, Link] = Field({}, description="links between networks")
    nodes: Annotated[dict[Name, Node], BeforeValidator(_accesses)] = Field(description="nodes and groups of nodes")
    services: dict[Name, Service] = Field({}, description="long-running commands")
    collect: Annotated[list[Collect], BeforeValidator(_collect)] = Field([], description="files fetched before teardown")
    lease: Lease | None = Field(None, description="how long it is held")

    @field_validator("nodes")
    @classmethod
    def _some(cls, value: dict[str, Node]) -> dict[str, Node]:
        if not value:
            raise ValueError("at least one node")
        return value
