"""What a link does to what crosses it: the shape of one direction, access links, and links between networks.

The words are those of tc-netem(8). Every part is checked here; that names exist is checked in `checks.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from . import units
from .fields import Duration, Fraction, Model, Name, Rate, Size, at_least, expected

DISCIPLINES = ("fifo", "codel", "fq_codel", "pie")

SMALLEST_MTU, LARGEST_MTU = 68, 65521
"""What IPv4 asks of every link (RFC 791), and what a TAP device can carry."""

BESIDE = {
    "queue": ("rate", "a rate beside the queue: without one nothing ever waits"),
    "jitter": ("delay", "a delay beside the jitter, which makes it vary"),
    "distribution": ("jitter", "a jitter beside its distribution"),
    "loss_burst": ("loss", "a loss beside the loss_burst, which says how it comes"),
    "reorder": ("delay", "a delay beside the reorder: what overtakes is what does not wait"),
}
"""{part of a shape: (the part without which it means nothing, what is expected)}."""


def _queue(value: object) -> object:
    wanted = f"a number of packets such as 100, a size such as 64KiB, or one of {', '.join(DISCIPLINES)}"
    if isinstance(value, bool):
        raise ValueError(wanted)
    if isinstance(value, str):
        if value in DISCIPLINES:
            return {"discipline": value}
        if re.fullmatch(r"\s*[0-9]{1,18}\s*", value):
            value = int(value)
        else:
            try:
                return {"bytes": units.parse_size(value)}
            except ValueError:
                raise ValueError(wanted) from None
    if isinstance(value, int) and value < 1:
        raise ValueError("at least 1 packet")
    return {"packets": value} if isinstance(value, int) else value


class QueueSpec(Model):
    """How much waits at a link before packets are dropped, in packets or in bytes, and who goes first. Written `100` or `64KiB`."""

    packets: int | None = Field(default=None, ge=1, description="longest queue, in packets")
    bytes: Annotated[Size, at_least(1, "1B")] | None = Field(default=None, description="longest queue, in bytes")
    discipline: Literal["fifo", "codel", "fq_codel", "pie"] = Field(default="fifo", description="how the queue is served and kept short")

    @model_validator(mode="after")
    def _one(self) -> QueueSpec:
        if self.packets is not None and self.bytes is not None:
            raise ValueError("either packets or bytes")
        if self.packets is None and self.bytes is None and self.discipline == "fifo":
            raise ValueError("either packets or bytes")
        return self


Queue = Annotated[QueueSpec, BeforeValidator(_queue)]


def _trace(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


class TraceFile(Model):
    """Values that change over time, from a file, in place of those written. Written `trace: lte.csv`."""

    file: str = Field(description="path, relative to the experiment file")
    repeat: bool = Field(default=True, description="whether it begins again at its end; else its last values stay")


class Shape(Model):
    """What one direction of a link does to what crosses it."""

    delay: Duration | None = Field(default=None, description="one-way propagation delay")
    jitter: Duration | None = Field(default=None, description="how much the delay varies")
    distribution: Literal["uniform", "normal", "pareto"] | None = Field(default=None, description="of the jitter")
    loss: Fraction | None = Field(default=None, description="share of packets lost at random")
    loss_burst: float | None = Field(
        default=None, ge=1, le=1e6, allow_inf_nan=False, description="how many packets in a row are lost, on average"
    )
    duplicate: Fraction | None = Field(default=None, description="share of packets that arrive twice")
    reorder: Fraction | None = Field(default=None, description="share of packets that do not wait for the delay, and overtake")
    rate: Rate | None = Field(default=None, description="bits a second")
    queue: Queue | None = Field(
        default=None, description="queue in front of the rate: packets (100), bytes (64KiB) or a discipline (codel)"
    )
    trace: Annotated[TraceFile, BeforeValidator(_trace)] | None = Field(
        default=None, description="file with delay, rate or loss as they change over time"
    )

    @property
    def shape(self) -> dict[str, Any]:
        """The set parts alone, as a plain dict."""
        return {
            key: value.model_dump(exclude_defaults=True) if isinstance(value, Model) else value
            for key in Shape.model_fields
            if (value := getattr(self, key)) is not None
        }

    def _both_ways(self, one: str, other: str, delays: tuple[float | None, float | None] = (None, None)) -> tuple[dict[str, Any], ...]:
        """The common shape with each of two directions laid over it; what needs another part stays only where that is.

        delays: of the two directions, over those written.
        """
        shapes = []
        for name, delay in zip((one, other), delays, strict=True):
            part: Shape | None = getattr(self, name)
            shape = {**self.shape, **(part.shape if part else {}), **({} if delay is None else {"delay": delay})}
            idle = {field for field, _ in lacking(shape)}
            shapes.append({key: value for key, value in shape.items() if key not in idle})
        return tuple(shapes)

    def _check_parts(self, one: str, other: str, *, delayed: bool = False) -> None:
        """Each part stands beside those that it needs, in its own direction or in what is common.

        delayed: there are delays that stand elsewhere.
        """
        common = {**self.shape, **({"delay": 0.0} if delayed else {})}
        ways = {name: {**common, **part.shape} for name in (one, other) if (part := getattr(self, name)) is not None}
        for field, wanted in lacking(common):
            if not any(BESIDE[field][0] in shape or "trace" in shape for shape in ways.values()):
                raise expected(wanted, field)
        for name, shape in ways.items():
            for field, wanted in lacking(shape):
                if field not in common:
                    raise expected(wanted, f"{name}.{field}")
        for name, shape in {"": common, **ways}.items():
            if wanted := bad_burst(shape):
                raise expected(wanted, f"{name}.loss_burst" if name and "loss_burst" not in common else "loss_burst")


def lacking(shape: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(part, what is expected) for each part of one direction's plain shape that stands without what it needs."""
    for part, (needed, wanted) in BESIDE.items():
        if part in shape and needed not in shape and "trace" not in shape:
            yield part, wanted


def bad_burst(shape: Mapping[str, Any]) -> str:
    """What is expected of a plain shape's loss_burst, where so much is lost that bursts have to be longer; else nothing."""
    loss, burst = shape.get("loss"), shape.get("loss_burst")
    if not loss or not burst or loss == 1 or burst >= loss / (1 - loss):
        return ""
    return f"at least {loss / (1 - loss):.4g}: that many in a row go where {units.format_fraction(loss)} are lost"


Mtu = Annotated[int, Field(ge=SMALLEST_MTU, le=LARGEST_MTU)]


class Access(Shape):
    """A node's access link to one network; `up` is from the node, `down` to it, each over what is common."""

    address: ipaddress.IPv4Address | None = Field(default=None, description="fixed address on the network")
    mtu: Mtu | None = Field(default=None, description="largest packet, bytes; that of the network where none is written")
    up: Shape | None = Field(default=None, description="from the node to the network, where it differs")
    down: Shape | None = Field(default=None, description="from the network to the node, where it differs")

    def directions(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The shapes (from the node, to the node)."""
        up, down = self._both_ways("up", "down")
        return up, down

    @model_validator(mode="after")
    def _parts(self) -> Access:
        self._check_parts("up", "down")
        return self


def _pair(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("two networks, such as [east, west]")
    return value


def _several(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ValueError("two or more networks, such as [east, west, south]")
    if all(isinstance(item, str) for item in value) and len(set(value)) < len(value):
        raise ValueError("each network once")
    return value


def _delays(value: object) -> object:
    wanted = "a mapping from network to network to delay, such as {east: {west: 30ms}}, or the path of a CSV file"
    if not isinstance(value, str | dict):
        raise ValueError(wanted)
    for network, row in value.items() if isinstance(value, dict) else ():
        if not isinstance(row, dict):
            raise expected(wanted, str(network))
        for other, delay in row.items():
            try:
                units.parse_duration(delay)
            except ValueError as error:
                raise expected(str(error), f"{network}.{other}") from None
    return value


Delays = Mapping[str, Mapping[str, float]]
"""{network: {network: one-way delay, seconds}}; where only one direction is there, it is that of both."""


class Link(Shape):
    """Joins two networks, or every two of several. All that crosses one pair's link one way shares its one queue."""

    between: Annotated[tuple[str, str], BeforeValidator(_pair)] | None = Field(default=None, description="the two networks that it joins")
    among: Annotated[list[Name], BeforeValidator(_several)] | None = Field(
        default=None, description="networks of which every two are joined, in place of between"
    )
    delays: Annotated[dict[str, dict[str, Duration]] | str, BeforeValidator(_delays)] | None = Field(
        default=None, description="with among: the delay of each pair, {network: {network: delay}} or a CSV file"
    )
    mtu: Mtu | None = Field(default=None, description="largest packet that crosses it, bytes")
    there: Shape | None = Field(default=None, description="from the first to the second, where it differs")
    back: Shape | None = Field(default=None, description="from the second to the first, where it differs")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every two networks that it joins."""
        return [self.between] if self.between else list(combinations(self.among or (), 2))

    def directions(self, first: str = "", second: str = "", delays: Delays | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The shapes (first to second, second to first) of one of its pairs, under a matrix of delays."""
        matrix = self.delays if isinstance(self.delays, dict) else delays or {}
        straight, reverse = matrix.get(first, {}).get(second), matrix.get(second, {}).get(first)
        there, back = self._both_ways(
            "there", "back", (reverse if straight is None else straight, straight if reverse is None else reverse)
        )
        return there, back

    def named(self, name: str) -> Iterator[tuple[str, str, str]]:
        """(name of the link, first network, second network) for each pair; a matrix's links are named after their networks."""
        for first, second in self.pairs:
            yield (name if self.between else f"{name}-{first}-{second}"), first, second

    @model_validator(mode="after")
    def _parts(self) -> Link:
        if self.between is None and self.among is None:
            raise expected("the two networks that it joins, such as [east, west], or with `among` several", "between")
        if self.between is not None and self.among is not None:
            raise expected("either between or among", "among")
        if self.delays is not None and self.among is None:
            raise expected("networks `among` which the delays are", "delays")
        self._check_parts("there", "back", delayed=self.delays is not None)
        return self
