"""The way to one node's agent. It outlives the link that it uses: one that breaks is replaced, and everything goes on where it was."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import AgentError, NodeDownError, NodeError, WardianError
from ..record.recording import Recorder
from ..wire import CHANNELS, MalformedMessage, Message, whole_request

if TYPE_CHECKING:
    from ..record.recovery import OldCell
    from .reach import NodePlace

log = logging.getLogger("wardian.kernel")

REPEATABLE = frozenset({"kernel.start", "kernel.attach", "kernel.list", "kernel.interrupt", "kernel.output"})
"""Requests that may be made again when nobody knows whether the first was heard."""
PATIENCE = 60.0
"""How long a node that still stands may be out of reach before what runs there is given up, seconds."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_FRUITLESS = 5
"""How many links in a row may break before they have been of any use."""

_NUMBERS = {name: number for number, name in enumerate(CHANNELS)}


class Link(Protocol):
    """What is needed of a `nodes.link.AgentLink`."""

    agent: dict[str, Any]
    on_message: Callable[[str, int, str, list[bytes]], None]
    on_event: Callable[[dict[str, Any]], None]
    closed: asyncio.Future[Any]

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]: ...
    def send(self, kernel: str, channel: str, parts: Sequence[bytes]) -> None: ...
    def acknowledge(self, kernel: str, sequence: int) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    async def close(self) -> None: ...


@dataclass
class _Seen:
    """How far one kernel's messages are handled here, and how far they may be forgotten there.

    end: the last message that the kernel had sent when we attached it, -1 before that is known.
    """

    store: str
    sequence: int = 0
    recorded: int = 0
    end: int = -1
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class _Input:
    number: int
    id: str
    kernel: str
    channel: str
    parts: list[bytes]


class Connection:
    """The way to one node's agent."""

    def __init__(
        self,
        node: str,
        open_link: Callable[[str], Awaitable[Link]],
        missing: Callable[[], Awaitable[WardianError | None]],
        recorder: Recorder,
        lost: Callable[[NodePlace, WardianError], None],
        ended: Callable[[], None],
        stopped: Callable[[NodePlace], None],
    ) -> None:
        """open_link: opens a link for a client id. missing: says why the node is not there any more, if so.

        lost: called for each place that is lost. ended: called when there is no way any more. stopped: called, after `lost`, for a place
        whose kernel somebody else has stopped.
        """
        self.node = node
        self.places: dict[str, NodePlace] = {}
        self._open_link = open_link
        self._missing = missing
        self._recorder = recorder
        self._lost = lost
        self._ended = ended
        self._stopped = stopped
        self._client = uuid.uuid4().hex
        self._agent: object = None
        self._link: Link | None = None
        self._ready = asyncio.Event()
        self._over: WardianError | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._fruitless = 0
        self._paused = False
        self._seen: dict[str, _Seen] = {}
        self._sent = 0
        self._inputs: deque[_Input] = deque()
        self._numbers: dict[str, int] = {}

    async def open(self) -> None:
        """Connect. Raises NodeError."""
        link = await self._open_link(self._client)
        self._agent = link.agent.get("agent")
        self._use(link)
        self._ready.set()

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Ask the agent for something. Raises NodeError.

        When the link breaks meanwhile, what may be repeated is asked again over the next one.
        """
        while True:
            link = await self._usable()
            try:
                return await link.request(op, **arguments)
            except NodeError:
                if not link.closed.done():
                    raise
                self._broken(link)
                if op not in REPEATABLE:
                    remedy = "`wardian status` tells how the node is"
                    message = f"the connection broke during {op}, and whether it was done there is not known"
                    raise NodeDownError(self.node, message, remedy=remedy) from None

    def send(self, kernel: str, channel: int, message: Message) -> None:
        """Give a kernel a message, now or as soon as there is a link again. Raises AgentError if no frame can hold it."""
        sent = _Input(self._sent + 1, message.id, kernel, CHANNELS[channel], message.parts())
        if self._over is not None:
            raise self._over
        if self._link is not None and not self._link.closed.done():
            self._link.send(kernel, sent.channel, sent.parts)
        self._sent += 1
        self._inputs.append(sent)
        self._numbers[sent.id] = sent.number

    async def attach(self, place: NodePlace, started: dict[str, Any], leftovers: Callable[[], Sequence[OldCell]]) -> None:
        """Have a kernel's messages sent here. started: the answer to kernel.start. leftovers: gives what an earlier kernel left there."""
        store = str(started.get("store", ""))
        seen = self._seen.get(place.kernel)
        if seen is None or seen.store != store:
            # Everything up to there is in the journal; what comes again from before is not new.
            position = await self._recorder.position(store) if started.get("end") else 0
            seen = self._seen[place.kernel] = _Seen(store, position, position)
        for cell in leftovers():
            place.adopt(cell)
        self.places[place.kernel] = place
        answer = await self.request("kernel.attach", kernel=place.kernel, after=None)
        if seen.recorded and self._link is not None:
            self._link.acknowledge(place.kernel, seen.recorded)
        executing = answer.get("executing", [])
        seen.end = int(answer.get("end", 0))
        # what was forgotten there already does not come again
        if max(seen.sequence, int(answer.get("next", 1)) - 1) >= seen.end:
            seen.caught_up.set()
        # Only once all that was said before we came is handled is it clear what has ended.
        await seen.caught_up.wait()
        for cell in leftovers():
            request = next((request for request in executing if whole_request(request) == cell.request.id), None)
            # an item may have ended while that was asked
            if request is None or request == cell.items.get(place.name, ("",))[0]:
                cell.over(place)
            else:
                place.adopt(cell.part(request))
                place.resume(request)

    def detach(self, kernel: str) -> None:
        """A kernel was stopped: its numbers begin anew when it is started again."""
        self._take(kernel)
        self._seen.pop(kernel, None)

    def recorded(self, store: str, sequence: int) -> bool:
        """Everything up to this number of a store may be forgotten there. Whether the store is one of this node's."""
        for kernel, seen in self._seen.items():
            if seen.store == store:
                seen.recorded = sequence
                if self._link is not None and not self._link.closed.done():
                    self._link.acknowledge(kernel, sequence)
                return True
        return False

    def hold(self, hold: bool) -> None:
        """Read nothing more from the node for now, or read on."""
        self._paused = hold
        if self._link is not None:
            self._link.pause() if hold else self._link.resume()

    async def close(self) -> None:
        """Let go of the agent. Its kernels run on, and keep what they say."""
        self._over = self._over or AgentError(self.node, "the connection was closed")
        self._ready.set()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.resume()
            await link.close()

    # --- links

    async def _usable(self) -> Link:
        while self._link is None or self._over is not None:
            if self._over is not None:
                raise self._over
            await self._ready.wait()
        return self._link

    def _use(self, link: Link) -> None:
        self._link = link
        link.on_message = self._message
        link.on_event = self._event
        if self._paused:
            link.pause()
        link.closed.add_done_callback(lambda _: self._broken(link))

    def _broken(self, link: Link) -> None:
        if self._link is not link or self._over is not None:
            return
        self._link = None
        self._ready.clear()
        self._fruitless += 1
        reason = link.closed.exception() if not link.closed.cancelled() else None
        log.info("the link to %s has ended (%s); it is replaced", self.node, reason)
        self._reconnecting = asyncio.create_task(self._reconnect(reason if isinstance(reason, NodeError) else None))

    async def _reconnect(self, reason: NodeError | None) -> None:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + PATIENCE, _FIRST_PAUSE
        while self._fruitless <= _FRUITLESS:
            try:
                link = await self._open_link(self._client)
            except NodeError as error:
                reason = error
            else:
                await self._take_up(link)
                return
            missing = await self._missing()
            if missing is not None or loop.time() > deadline:
                self._lose(missing or reason)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._lose(reason or NodeDownError(self.node, "the connection to the node ends again and again"))

    async def _take_up(self, link: Link) -> None:
        if link.agent.get("agent") != self._agent:
            await link.close()
            remedy = "run the cell again: it gets a new kernel, without the variables of the old one"
            self._lose(AgentError(self.node, "the agent there has died, and its kernels with it", remedy=remedy))
            return
        self._use(link)
        # What the agent had is not sent again; what it had not comes in the same order as before.
        self._confirm(int(link.agent["inputs"]))
        for item in self._inputs:
            link.send(item.kernel, item.channel, item.parts)
        for kernel, place in list(self.places.items()):
            try:
                await link.request("kernel.attach", kernel=kernel, after=None)
            except NodeError as error:
                if link.closed.done():
                    return
                self._take(kernel)
                self._lost(place, error)
        if self.places:
            self._fruitless = 0
        self._ready.set()

    def _lose(self, error: WardianError) -> None:
        self._over = error
        self._ready.set()
        self._ended()
        for kernel in list(self.places):
            if (place := self._take(kernel)) is not None:
                self._lost(place, error)

    def _take(self, kernel: str) -> NodePlace | None:
        """A place that is lost: nobody waits for what it still had to say."""
        if kernel in self._seen:
            self._seen[kernel].caught_up.set()
        return self.places.pop(kernel, None)

    def _confirm(self, number: int) -> None:
        """The agent has had all inputs up to this one."""
        while self._inputs and self._inputs[0].number <= number:
            self._numbers.pop(self._inputs.popleft().id, None)

    # --- what the agent says

    def _message(self, kernel: str, sequence: int, channel: str, parts: list[bytes]) -> None:
        place, seen = self.places.get(kernel), self._seen.get(kernel)
        if place is None or seen is None or sequence <= seen.sequence:
            return
        seen.sequence = sequence
        self._fruitless = 0
        self._recorder.begin(seen.store, sequence)
        try:
            message = Message(parts)
            self._confirm(self._numbers.get(message.parent_id, 0))
            place.received(_NUMBERS[channel], message)
        except MalformedMessage as error:
            log.warning("%s sent what is no message: %s", self.node, error)
        finally:
            self._recorder.end()
        if 0 <= seen.end <= sequence:
            seen.caught_up.set()

    def _event(self, event: dict[str, Any]) -> None:
        kind, kernel = event.get("event"), str(event.get("kernel"))
        if kind not in ("kernel.taken", "kernel.died", "kernel.stopped"):
            return
        place = self._take(kernel)
        if place is None:
            return
        if kind == "kernel.taken":
            error: WardianError = AgentError(self.node, f"its {place.language} kernel was taken over by another session of this notebook")
        else:
            what = "has died" if kind == "kernel.died" else "was restarted from elsewhere"
            remedy = "run the cell again: it gets a new kernel, without the variables of the old one"
            error = NodeDownError(self.node, f"its {place.language} kernel {what}", remedy=remedy)
        self._lost(place, error)
        if kind == "kernel.stopped":
            self._seen.pop(kernel, None)
            self._stopped(place)
