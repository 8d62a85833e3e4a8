"""Comms, which widgets are made of: which kernel each of them leads to."""

from __future__ import annotations

from ..cells.binding import HERE
from ..wire import Message
from .place import Place

WIDGETS = "jupyter.widget"
WIDGETS_AT_ONCE = "jupyter.widget.control"
"""Targets of ipywidgets: one widget, and what tells the state of all widgets of a kernel."""


class Comms:
    """The open comms of all kernels."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Place, str]] = {}

    def passed(self, place: Place, message: Message) -> None:
        """A kernel or a client opens or closes a comm. place: the kernel."""
        number = str(message.content.get("comm_id"))
        if message.kind == "comm_open":
            self._open[number] = place, str(message.content.get("target_name"))
        elif message.kind == "comm_close":
            self._open.pop(number, None)

    def place(self, message: Message) -> Place | None:
        """The kernel that a client's message is for, if it is known."""
        return self._open.get(str(message.content.get("comm_id")), (None, ""))[0]

    def on_nodes(self, target: str | None) -> dict[str, dict[str, str]]:
        """The comms of nodes' kernels, as a reply to `comm_info_request` lists them. target: of these alone."""
        return {
            number: {"target_name": name}
            for number, (place, name) in self._open.items()
            if place.name != HERE and place.error is None and target in (None, name)
        }
