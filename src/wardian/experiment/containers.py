"""What only nodes that are containers have: an image built on the spot, volumes, ports on their machine, capabilities, GPUs."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from .fields import Model, Variables

KEYS = ("build", "volumes", "ports", "capabilities", "gpus")
"""The keys of a node's spec that are there only where they are written, and mean something to containers only."""

_PORT = re.compile(r"(?:(?:(?P<address>[0-9.]+):)?(?P<host>[0-9]{0,5}):)?(?P<node>[0-9]{1,5})(?:/(?P<protocol>tcp|udp))?")
_A_PORT = "a port such as 8080, 8080:80 (there:node), 0.0.0.0:8080:80 or 53:53/udp"


def _context(value: object) -> object:
    return {"context": value} if isinstance(value, str) else value


class BuildSpec(Model):
    """An image built from a Dockerfile. Written as the folder alone, or in full."""

    context: str = Field(description="folder with what the image is built from, relative to the experiment file")
    dockerfile: str | None = Field(default=None, description="path of the Dockerfile in that folder; Dockerfile when not given")
    target: str | None = Field(default=None, description="stage of the Dockerfile that is built; the last when not given")
    args: Variables = Field(default={}, description="values of its ARGs")


def build_key(build: BuildSpec) -> str:
    """What the digest of a build's folder goes by among those of files."""
    return f"build {build.context} {build.dockerfile}"


Build = Annotated[BuildSpec, BeforeValidator(_context)]


class Volume(Model):
    """A folder of the Engine's machine, or a volume of the Engine's by its name, seen on the node."""

    source: str = Field(description="path, relative to the experiment file if it begins with a dot, or the name of a volume")
    target: str = Field(description="absolute path on the node")
    read_only: bool = Field(default=False, description="whether the node may only read it")

    @field_validator("target")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/") or ".." in value.split("/"):
            raise ValueError("an absolute path without ..")
        return value

    @field_validator("source")
    @classmethod
    def _place(cls, value: str) -> str:
        if not re.fullmatch(r"[./~].*|[A-Za-z0-9][A-Za-z0-9_.-]+", value):
            raise ValueError("a path such as ./data or /srv/data, or the name of a volume")
        return value


def _volumes(value: object) -> object:
    """`{"./data": "/data"}` means the same as the list of source and target."""
    if isinstance(value, dict):
        return [{"source": source, "target": target} for source, target in value.items()]
    return value


Volumes = Annotated[list[Volume], BeforeValidator(_volumes)]


def _port(value: object) -> object:
    if isinstance(value, dict | Port):
        return value
    match = _PORT.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None:
        raise ValueError(_A_PORT)
    given: dict[str, Any] = {name: text for name, text in match.groupdict().items() if text}
    return {name: int(text) if name in ("host", "node") else text for name, text in given.items()}


class Port(Model):
    """A port of the node that is reached on the Engine's machine, on its loopback interface unless another address is written."""

    node: int = Field(ge=1, le=65535, description="port on the node")
    host: int | None = Field(default=None, ge=1, le=65535, description="port there; any free one when not given")
    address: ipaddress.IPv4Address = Field(default=ipaddress.IPv4Address("127.0.0.1"), description="address that it is reached at there")
    protocol: Literal["tcp", "udp"] = Field(default="tcp", description="tcp or udp")


Ports = list[Annotated[Port, BeforeValidator(_port)]]


def _capability(value: object) -> object:
    text = value.upper().removeprefix("CAP_") if isinstance(value, str) else ""
    if not re.fullmatch(r"[A-Z][A-Z_]{2,40}", text):
        raise ValueError("a capability such as NET_ADMIN")
    return text


Capabilities = list[Annotated[str, BeforeValidator(_capability)]]


def _gpus(value: object) -> object:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if value != "all" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError("how many, or all")
    return value


Gpus = Annotated[int | Literal["all"], BeforeValidator(_gpus)]
