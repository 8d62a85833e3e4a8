"""`--each VAR=LIST`: the items of a list dealt over nodes, each running the cell once an item, and taking the next when it is done."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ...errors import WardianError
from ..places.place import Place
from ..values import encoding as values
from ..wire import IOPUB, Message, item_request, new_header
from .binding import Binding, BindingError
from .cell import Cell, Ended, Output, error_content, interrupted
from .runs import NOT_RUN, FanOut

STORE = "_wardian_each_"
"""What the variables of a node's Python kernel that hold the results of its items begin with; their place in the list follows."""

_FORGET = f"""(lambda names: [names.pop(name) for name in list(names) if name.startswith({STORE!r})])(get_ipython().user_ns)\n"""
_MOST = 100_000
_LARGEST = 4 * 2**20
"""How large an item may be on its way, and how much of what bash prints for it is kept, bytes."""
_LABEL = 40


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the list. literal: as Python source. packed: as `values` packs it, in base64, where it has no literal. text: for bash."""

    index: int
    label: str
    literal: str
    packed: str
    text: str


@dataclass(frozen=True, slots=True)
class ItemEnding:
    """How the cell ended for one item."""

    index: int
    label: str
    node: str
    status: str
    language: str
    text: str = ""


class EachError(WardianError):
    """What `--each` names is no list that can be dealt out."""


def encoded(source: Any) -> str:
    """At home: the items of a list as JSON. Raises EachError."""
    if isinstance(source, (str, bytes)) or not isinstance(source, Iterable):
        raise EachError(f"--each deals the items of a list, and this is {type(source).__name__}", remedy="write --each VAR=LIST")
    items: list[list[str]] = []
    for index, value in enumerate(source):
        if index >= _MOST:
            raise EachError(f"--each deals at most {_MOST} items", remedy="deal out parts of the list, and loop over them in the cell")
        literal, packed = _literal(value), ""
        if not literal:
            try:
                packed = _packed(value)
            except values.UnmovableValue as error:
                raise EachError(f"item {index} cannot go to a node: {error}", remedy="deal out numbers, texts or paths") from None
        if len(literal) + len(packed) > _LARGEST:
            raise EachError(f"item {index} is larger than {_LARGEST // 2**20} MiB", remedy="%put the data, and deal out indices of it")
        shown = " ".join((literal or f"<{type(value).__name__} {index}>").split())
        items.append([shown if len(shown) <= _LABEL else f"{shown[: _LABEL - 1]}…", literal, packed, str(value)])
    return json.dumps(items)


def evaluation(expression: str) -> str:
    """The expression that gives, at home, the encoded items of the list that `expression` is."""
    return f'__import__("wardian.kernel.cells.scatter", fromlist=["encoded"]).encoded({expression})'


def literal_items(expression: str) -> list[Item] | None:
    """The items of a list that is written out, or None where home has to be asked. Raises EachError."""
    try:
        value = ast.literal_eval(expression)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return decoded(encoded(value))


def asked_items(expression: str, answer: dict[str, Any]) -> list[Item]:
    """The items in home's answer: the entry of `user_expressions` for `evaluation(expression)`. Raises EachError, BindingError."""
    if answer.get("status") == "ok":
        return decoded(ast.literal_eval(answer["data"]["text/plain"]))
    if answer.get("ename") == EachError.__name__:
        message, _, remedy = str(answer.get("evalue")).partition("\n")
        raise EachError(message, remedy=remedy.strip() or None)
    remedy = "write --each VAR=LIST, LIST being a Python expression or the name of a list at home"
    raise BindingError(f"cannot read the list {expression}: {answer.get('ename')}: {answer.get('evalue')}", remedy=remedy)


def decoded(text: str) -> list[Item]:
    """The items that `encoded` wrote. Raises EachError where there are none."""
    found = [Item(index, *entry) for index, entry in enumerate(json.loads(text))]
    if not found:
        raise EachError("--each has nothing to deal out: the list is empty", remedy="give it a list with items")
    return found


def _literal(value: Any) -> str:
    """`value` as Python source, if that gives it back exactly."""
    text = repr(value)
    try:
        same = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ""
    return text if type(same) is type(value) and repr(same) == text else ""


def _packed(value: Any) -> str:
    data = bytearray()
    parcel = values.pack(value)
    data += parcel.head
    parcel.send(lambda piece: data.extend(memoryview(piece).cast("B")))
    return base64.b64encode(data).decode()


class Question:
    """Asks home for the items of a list. `items` gives them, or raises."""

    def __init__(self, expression: str, session: str) -> None:
        # Not silent: an interrupt has to know when the kernel has begun.
        content: dict[str, Any] = {"code": "", "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": False}
        content["user_expressions"] = {"items": evaluation(expression)}
        self.request = Message.new("execute_request", content, session)
        self.items: asyncio.Future[list[Item]] = asyncio.get_running_loop().create_future()
        self._expression = expression

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Its output concerns nobody."""

    def finished(self, place: Place, reply: Message) -> None:
        """Read the answer."""
        if self.items.done():
            return
        try:
            self.items.set_result(asked_items(self._expression, reply.content.get("user_expressions", {}).get("items", {})))
        except WardianError as error:
            self.items.set_exception(error)

    def lost(self, place: Place, error: WardianError) -> None:
        """Home is gone."""
        if not self.items.done():
            self.items.set_exception(error)


class _Unseen:
    """A request of our own on a place, whose output nobody sees. done(error content or None) is called once."""

    def __init__(self, run: Each, code: str, done: Callable[[Place, dict[str, Any] | None], None]) -> None:
        self.request = run.request.copy()
        self.request.header = {**self.request.header, "msg_id": new_header("", "")["msg_id"]}
        self.request.content = {**self.request.content, "code": code, "silent": True, "store_history": False, "user_expressions": {}}
        self._done = done

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Its output concerns nobody."""

    def finished(self, place: Place, reply: Message) -> None:
        """It ended."""
        self._done(place, None if reply.content.get("status") == "ok" else reply.content)

    def lost(self, place: Place, error: WardianError) -> None:
        """The place is gone."""
        self._done(place, error_content(error, place.name))


class _Step:
    """The cell for one item on one node."""

    def __init__(self, run: Each, item: Item, lane: str) -> None:
        self.item = item
        self.lane = lane
        self.text: list[str] = []
        self._kept = 0
        self._run = run
        self.request = run.request.copy()
        # each of its own, so that output that is late belongs to the right item
        self.request.header = {**self.request.header, "msg_id": item_request(run.request.id, item.index)}
        self.request.content = {**self.request.content, "store_history": False}

    def received(self, place: Place, channel: int, message: Message) -> None:
        """Output."""
        if channel == IOPUB and message.kind == "stream" and place.language != "python":
            self._keep(message.content)
        self._run.received(place, channel, message)

    def _keep(self, content: dict[str, Any]) -> None:
        if content.get("name") == "stdout" and self._kept < _LARGEST:
            self.text.append(str(content.get("text", ""))[: _LARGEST - self._kept])
            self._kept += len(self.text[-1])

    def finished(self, place: Place, reply: Message) -> None:
        """The item is done."""
        self._run.step_ended(self, place, reply.content, reply.metadata)

    def lost(self, place: Place, error: WardianError) -> None:
        """The node is gone."""
        self._run.step_ended(self, place, {"status": "error", **error_content(error, place.name)}, None)


class Each(FanOut):
    """The items of a list dealt over nodes. `items` says, in the order of the list, how the cell ended for each."""

    grouped = False

    def __init__(
        self, cell: Cell, code: str, binding: Binding, places: Sequence[Place], output: Output, ended: Ended, items: Sequence[Item]
    ) -> None:
        super().__init__(cell, code, binding, places, output, ended)
        self.request.content = {**self.request.content, "allow_stdin": False}
        self._variable = binding.each[0] if binding.each else ""
        self._todo = deque(items)
        self._item_endings: dict[int, ItemEnding] = {}
        self._steps: dict[str, _Step] = {}
        self._lane_of: dict[str, str] = {}
        self._unseen: dict[str, _Unseen] = {}
        self._to_keep: dict[str, int] = {}
        self._dealt_to: set[str] = set()
        self._failed_nodes: set[str] = set()
        self._labels: set[str] = set()

    @property
    def items(self) -> list[ItemEnding]:
        """How the cell ended for each item that was dealt, in the order of the list."""
        return [self._item_endings[index] for index in sorted(self._item_endings)]

    def step_ended(self, step: _Step, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        """One item is done; its node takes the next."""
        if self._steps.pop(place.name, None) is not step:
            return
        self._cut.ended(place)
        if place.name in self._overdue:
            content = {**content, "status": "error", **self._late(place, content)}
        self._judge(step.lane, place, content, metadata)
        self._lanes.ended(step.lane)
        status = str(content.get("status"))
        item = step.item
        self._item_endings[item.index] = ItemEnding(item.index, item.label, place.name, status, place.language, "".join(step.text))
        if status == "ok" and place.language == "python":
            self._to_keep[place.name] = item.index
        elif status != "ok":
            self._failed_nodes.add(place.name)
        self._deal(place)

    def interrupt(self) -> None:
        """Interrupt what runs; what has not been dealt out is not."""
        self._todo_left_out()
        super().interrupt()

    def _show(self, place: Place, message: Message) -> None:
        self._show_in(self._lane_of[message.parent_id], place, message)

    def _begin(self) -> None:
        for place in self.places:
            self._deal(place, ahead=False)

    def _deal(self, place: Place, *, ahead: bool = True) -> None:
        usable = place.error is None and place.stuck is None
        if not usable or not self._todo:
            self._retire(place, usable)
            return
        item = self._todo.popleft()
        step = _Step(self, item, self._lane(item, place))
        self._steps[place.name] = step
        self._lane_of[step.request.id] = step.lane
        self._lanes.open(step.lane)

        def prepared(place: Place, error: dict[str, Any] | None) -> None:
            self._unseen.pop(place.name, None)
            if error is not None and not place.interrupt(step):
                self.step_ended(step, place, {**error, "status": "error"}, None)

        unseen = self._unseen[place.name] = _Unseen(self, self._preparation(place, item), prepared)
        # Both at once, and before whatever waits there: nothing comes between setting the variable and using it.
        place.execute(unseen, ahead=ahead)
        if self._steps.get(place.name) is step:
            place.execute(step, ahead=ahead)

    def _retire(self, place: Place, usable: bool) -> None:
        """Nothing is left to do there."""

        def done(place: Place, error: dict[str, Any] | None = None) -> None:
            self._unseen.pop(place.name, None)
            status = "error" if place.name in self._failed_nodes else "ok"
            self._end(place, {"status": status}, {})

        keeping = self._keeping(place)
        if usable and keeping:
            unseen = self._unseen[place.name] = _Unseen(self, keeping, done)
            place.execute(unseen, ahead=True)
        else:
            done(place)

    def _keeping(self, place: Place) -> str:
        """Code that keeps the result of the last item there."""
        index = self._to_keep.pop(place.name, None)
        return f"get_ipython().user_ns['{STORE}{index}'] = get_ipython().last_execution_result.result\n" if index is not None else ""

    def _preparation(self, place: Place, item: Item) -> str:
        if place.language == "bash":
            quoted = "'" + item.text.replace("'", "'\\''") + "'"
            return f"export {self._variable}={quoted}"
        new = "" if place.name in self._dealt_to else _FORGET
        self._dealt_to.add(place.name)
        value = item.literal
        if not value:
            load = "codec['unpack'](source, codec['describe'](source))"
            inside = f"(lambda source: {load})(__import__('io').BytesIO(__import__('base64').b64decode({item.packed!r})))"
            value = f'(lambda codec: (exec({_codec()!r}, codec), {inside})[1])({{"__name__": "wardian_values"}})'
        return f"{self._keeping(place)}{new}{self._variable} = {value}"

    def _lane(self, item: Item, place: Place) -> str:
        label = f"{self._variable}={item.label}"
        if label in self._labels:
            label += f" (item {item.index})"
        self._labels.add(label)
        return f"{label} on {place.name}"

    def _interrupt(self, place: Place) -> None:
        step = self._steps.get(place.name)
        unseen = self._unseen.get(place.name)
        if unseen is not None:
            place.interrupt(unseen)
        if step is not None and not place.interrupt(step):
            self.step_ended(step, place, {"status": "error", **interrupted()}, None)

    def _abandon(self, place: Place, error: WardianError) -> None:
        for execution in (self._steps.get(place.name), self._unseen.get(place.name)):
            if execution is not None:
                place.abandon(execution, error)

    def lost(self, place: Place, error: WardianError) -> None:
        """A node was left behind."""
        step = self._steps.get(place.name)
        if step is not None:
            step.lost(place, error)
        else:
            self._end(place, {"status": "error"}, {})

    def _place_ended(self, place: Place, content: dict[str, Any], metadata: dict[str, Any] | None) -> None:
        if not self._open:
            self._todo_left_out()
            self._close()

    def _todo_left_out(self) -> None:
        if not self._todo:
            return
        lane = f"{len(self._todo)} more item{'' if len(self._todo) == 1 else 's'}"
        self._lanes.open(lane)
        self._lanes.error(lane, NOT_RUN)
        self._lanes.ended(lane, 0.0)
        for item in self._todo:
            self._item_endings[item.index] = ItemEnding(item.index, item.label, "", "not run", "")
        self._todo.clear()


@cache
def _codec() -> str:
    return files("wardian.kernel.values").joinpath("encoding.py").read_text()
