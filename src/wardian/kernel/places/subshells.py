"""Subshells of kernels (Jupyter protocol 5.5): they answer questions while the kernel runs a cell."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from ..wire import CONTROL, Message
from .place import Place


class Subshells:
    """One subshell of each kernel that was ever asked for one. Kernels that have none never answer."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._ids: WeakKeyDictionary[Place, str] = WeakKeyDictionary()
        self._waiting: dict[str, tuple[Place, list[Callable[[str], None]]]] = {}

    def of(self, place: Place, then: Callable[[str], None]) -> None:
        """Call `then` with the id of the place's subshell, once it is known."""
        known = self._ids.get(place)
        if known is not None:
            then(known)
            return
        for asked, waiting in self._waiting.values():
            if asked is place:
                waiting.append(then)
                return
        request = Message.new("create_subshell_request", {}, self._session)
        self._waiting[request.id] = place, [then]
        place.send(CONTROL, request)

    def received(self, message: Message) -> bool:
        """Take a message that may answer a request of ours; whether it does."""
        if message.parent_id not in self._waiting:
            return False
        if message.kind == "create_subshell_reply" and message.content.get("status") == "ok":
            place, waiting = self._waiting.pop(message.parent_id)
            self._ids[place] = identity = str(message.content["subshell_id"])
            for then in waiting:
                then(identity)
        return True
