"""Home's side of moving values: from their own memory into the streams that the router lends, and from those into new memory."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ...errors import TransferError
from ..session.private import Call, RouterError, request
from . import encoding as values

_PATIENCE = 1.0
"""Seconds until a transfer shows how far it is."""
_REDRAW = 0.25
"""Seconds between two lines that show it."""
_MOST = 1 << 20
"""Bytes written at once."""


def get(name: str, selector: str, language: str = "python", *, by_pickle: bool = False, force: bool = False) -> dict[str, Any]:
    """The values of the variable `name` by node.

    by_pickle: accept any object, which lets the node run code here. force: do not ask whether there is room for it.
    Raises NotUpError, SelectorError, TransferError, RouterError.
    """
    if language == "bash":
        found: dict[str, Any] = request("get", name=name, selector=selector)["values"]
        return found
    nodes: list[str] = request("nodes", selector=selector)["nodes"]
    return _receive(nodes, {"name": name, "language": language, "pickle": by_pickle}, by_pickle, force)


def output(node: str, number: int) -> Any:
    """What `Out[number]` is in the Python kernel of a node. Raises as `get`."""
    return _receive([node], {"name": f"Out[{number}]", "number": number}, False, False)[node]


def names(nodes: Sequence[str]) -> dict[str, list[str]]:
    """The names of the variables that the user has set in the nodes' Python kernels, by node. Raises as `get`."""
    return _receive(nodes, {"name": "the names of variables", "names": True}, False, False)


def put(value: Any, name: str, selector: str, language: str = "python", *, by_pickle: bool = False, force: bool = False) -> list[str]:
    """Set the variable `name` on every node that `selector` picks, and give their names.

    Nothing is set where it does not arrive complete. Raises as `get`, and TransferError for a value that cannot be moved.
    """
    if language == "bash":
        if not isinstance(value, str | int | float):
            message = f"a bash variable holds text, not a value of type {type(value).__name__}"
            raise TransferError("", message, remedy="send it to a Python kernel")
        found: list[str] = request("put", name=name, selector=selector, text=str(value))["nodes"]
        return found
    try:
        parcel = values.pack(value, by_pickle)
    except values.UnmovableValue as error:
        remedy = None if by_pickle else "convert it to a frame, an array or plain values first, or add --pickle"
        raise TransferError("", f"{name}: {error}", remedy=remedy) from None
    nodes: list[str] = request("nodes", selector=selector)["nodes"]
    with ExitStack() as stack:
        arguments = {"name": name, "language": language, "pickle": by_pickle, "force": force}
        calls = [stack.enter_context(Call("put-value", node=node, **arguments)) for node in nodes]
        progress = _Progress(f"{name} → {', '.join(nodes)}", parcel.size)
        sink = _Fan(calls, [call.lent() for call in calls], progress)
        sink.write(parcel.head)
        parcel.send(sink.write)
        for call in calls:
            call.answer()
        progress.end()
    return nodes


def _receive(nodes: Sequence[str], arguments: dict[str, Any], by_pickle: bool, force: bool) -> dict[str, Any]:
    found = {}
    with ExitStack() as stack:
        # All begin at once, and wait for their turn in their pipes.
        calls = {node: stack.enter_context(Call("get-value", node=node, **arguments)) for node in nodes}
        for node, call in calls.items():
            progress = _Progress(f"{node} → {arguments['name']}", 0)
            source = _Stream(call, call.lent(), progress)
            try:
                description = values.describe(source)
                progress.total = description["size"]
                found[node] = values.unpack(source, description, by_pickle, force)
            except (values.UnmovableValue, ValueError, RecursionError) as error:
                raise TransferError(node, f"{arguments['name']}: {error}") from None
            call.taken()
            call.answer()
            progress.end()
    return found


class _Fan:
    """Writes the same to several streams, to each as fast as it takes it."""

    def __init__(self, calls: Sequence[Call], streams: Sequence[int], progress: _Progress) -> None:
        self._calls = dict(zip(streams, calls, strict=True))
        self._progress = progress
        self._poll = select.poll()
        for stream, call in self._calls.items():
            os.set_blocking(stream, False)
            self._poll.register(call, select.POLLIN)

    def write(self, data: Any) -> None:
        """Write all of `data` to all. Raises what the router says where a node refuses it."""
        views = dict.fromkeys(self._calls, memoryview(data).cast("B"))
        for stream in views:
            self._poll.register(stream, select.POLLOUT)
        while views:
            for descriptor, _ in self._poll.poll():
                if descriptor not in self._calls:
                    self._answered(descriptor, views)
                elif descriptor in views:
                    self._step(descriptor, views)
            slowest = max((len(view) for view in views.values()), default=0)
            self._progress.at(len(data) - slowest)
        self._progress.add(len(data))

    def _step(self, stream: int, views: dict[int, memoryview]) -> None:
        try:
            views[stream] = views[stream][os.write(stream, views[stream][:_MOST]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The answer says why.
            self._calls[stream].answer()
            raise RouterError("the node closed the stream") from None
        if not views[stream]:
            del views[stream]
            self._poll.unregister(stream)

    def _answered(self, descriptor: int, views: dict[int, memoryview]) -> None:
        """A node has ended: it refused the value, or was quicker than others."""
        stream, call = next((stream, call) for stream, call in self._calls.items() if call.fileno() == descriptor)
        call.answer()
        self._poll.unregister(call)
        if stream in views:
            raise RouterError("the node had enough before everything was sent")


class _Stream:
    """A stream as a source of values."""

    def __init__(self, call: Call, stream: int, progress: _Progress) -> None:
        self._call = call
        self._stream = stream
        self._progress = progress
        os.set_blocking(stream, False)
        self._poll = select.poll()
        self._poll.register(stream, select.POLLIN)
        self._poll.register(call, select.POLLIN)

    def readinto(self, view: memoryview) -> None:
        """Fill `view`. Raises what the router says where the node fails."""
        while view:
            try:
                count = os.readv(self._stream, [view])
            except BlockingIOError:
                self._wait()
                continue
            if not count:
                self._call.answer()
                raise values.UnmovableValue("the stream ended before it was complete")
            view = view[count:]
            self._progress.add(count)

    def _wait(self) -> None:
        ready = {descriptor for descriptor, _ in self._poll.poll()}
        if self._stream not in ready:
            # An answer before everything has been taken is an error.
            self._call.answer()
            raise RouterError("the node ended before everything was there")


class _Progress:
    """Shows how far a transfer is, on one line, once it has taken a while; of what is small, nothing."""

    def __init__(self, what: str, total: int) -> None:
        self.total = total
        self._what = what
        self._done = 0
        self._started = time.monotonic()
        self._next = self._started + _PATIENCE
        self._shown = False

    def add(self, count: int) -> None:
        """So many bytes more are through."""
        self._done += count
        self.at(0)

    def at(self, ahead: int) -> None:
        """So many bytes more are through for now."""
        now = time.monotonic()
        if now >= self._next and max(self.total, self._done + ahead) >= 2**20:
            self._next = now + _REDRAW
            self._show(self._done + ahead, now)

    def end(self) -> None:
        """It is over."""
        if self._shown:
            self._show(self._done, time.monotonic())
            sys.stdout.write("\n")

    def _show(self, done: int, now: float) -> None:
        self._shown = True
        rate = done / 2**20 / max(now - self._started, 1e-6)
        sys.stdout.write(f"\r{self._what} │ {done / 2**20:,.0f} of {max(self.total, done) / 2**20:,.0f} MiB, {rate:,.0f} MiB/s")
        sys.stdout.flush()
