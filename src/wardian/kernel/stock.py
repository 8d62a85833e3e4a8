"""`%load_ext wardian` in another IPython kernel: `%%on`, `%on` and the magics, by the same router.

The router runs on an event loop in a thread. Its home is the kernel that it runs in, and its clients are that kernel's: a cell for nodes is
given to it by the main thread, which waits, and passes on interrupts and questions. Its output goes out through the kernel's own socket, as
output of the cell that it belongs to. The magics reach it as they do in Wardian's kernel, by the private socket.
"""

from __future__ import annotations

import asyncio
import atexit
import getpass
import json
import os
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from ..environment.live import default_instance, experiment_file, experiment_of, find, journal_target
from ..errors import WardianError
from .app import make_folder, open_link
from .cells.binding import BindingError, Bound, bind, first_line
from .cells.cell import Cell
from .front.clients import Clients
from .front.sockets import Client, Front
from .places.home import HomePlace
from .places.reach import Environment, Find
from .router import Router
from .session import extension
from .session.private import VARIABLE
from .wire import IOPUB, SHELL, Message, dump

_REMEMBERED = 1000
"""Cells whose late output is still shown where they are."""
_STOPPING = 5.0
"""How long the end may take, seconds."""
_SHOWN = frozenset({"stream", "display_data", "update_display_data", "execute_result", "clear_output", "error"})
_CELL = "_wardian_cell"

NOTICE = (
    "Wardian: %%on, %on and the other magics work in this kernel, too. It cannot see what only a cell's metadata binds, and widgets do not "
    'live on nodes; the kernel "Python 3 (Wardian)" has both.'
)


class CellFailed(WardianError):
    """A cell failed on nodes. It is raised as a class of the name that the error has there."""

    def __init__(self, message: str, traceback: list[str]) -> None:
        super().__init__(message)
        self.traceback = traceback


def load(shell: InteractiveShell, find_environment: Find | None = None) -> None:
    """Bring Wardian into a running kernel. Raises BindingError where its notebook relies on what cannot be seen here."""
    extension.show_errors(shell)
    if getattr(shell, "kernel", None) is None:
        raise WardianError("cells on nodes need a Jupyter kernel", remedy="use a notebook, or `jupyter console`")
    if _stock(shell) is not None:
        return
    notebook = notebook_file(shell)
    refuse(notebook)
    file = experiment_of(notebook) if notebook is not None else experiment_file(Path.cwd())

    async def find_here() -> Environment:
        return await find(file, default_instance())

    name = str(notebook) if notebook is not None else os.environ.get("WARDIAN_SESSION") or "default"
    journal = journal_target(file) if file is not None and file.is_file() else None
    stock = _Stock(shell, find_environment or find_here, name, journal)
    shell.wardian = stock
    stock.install()
    if not getattr(shell, "wardian_told", False):
        shell.wardian_told = True
        print(NOTICE)


def unload(shell: InteractiveShell) -> None:
    """Take it out again. The kernels on nodes, and their variables, wait for it to come back."""
    stock = _stock(shell)
    if stock is not None:
        shell.wardian = None
        stock.remove()
        extension.show_errors(shell, False)


def notebook_file(shell: InteractiveShell) -> Path | None:
    """The notebook that this kernel runs, as Jupyter or VS Code tell it; None where they do not."""
    for path in (os.environ.get("JPY_SESSION_NAME"), shell.user_ns.get("__vsc_ipynb_file__")):
        if isinstance(path, str) and Path(path).suffix == ".ipynb" and Path(path).is_file():
            return Path(path)
    return None


def refuse(notebook: Path | None) -> None:
    """Raise BindingError if cells of a notebook are bound by their metadata alone: they would run at home."""
    if notebook is None:
        return
    try:
        cells = json.loads(notebook.read_bytes())["cells"]
        found = [
            f"cell {number} ({_title(source)})"
            for number, cell in enumerate(cells, 1)
            if cell["cell_type"] == "code" and _by_metadata(cell["metadata"], source := "".join(cell["source"]))
        ]
    except (OSError, ValueError, KeyError, TypeError):
        # No notebook that we can read has no cells that we could name.
        return
    if found:
        are = "are" if len(found) > 1 else "is"
        message = f"{', '.join(found)} of {notebook.name} {are} bound to nodes by metadata, which this kernel does not see"
        remedy = 'write %%on lines at the top of them instead, or use the kernel "Python 3 (Wardian)"'
        raise BindingError(message, remedy=remedy)


def _by_metadata(metadata: Mapping[str, Any], source: str) -> bool:
    try:
        by_both = bind(source, metadata, None).binding
        return by_both.source == "metadata" and by_both.selector is not None
    except BindingError:
        return not first_line(source)[1].startswith("%%on")


def _title(source: str) -> str:
    line = first_line(source)[1].strip()
    return line if len(line) <= 40 else line[:39] + "…"


def _stock(shell: InteractiveShell) -> _Stock | None:
    stock = getattr(shell, "wardian", None)
    return stock if isinstance(stock, _Stock) else None


class _Stock:
    """The router in its thread, and what the shell was given of it."""

    def __init__(self, shell: InteractiveShell, find_environment: Find, notebook: str, journal: Path | str | None) -> None:
        self._shell = shell
        self._folder = make_folder()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wardian-router", daemon=True)
        self._thread.start()
        self._front = _StockFront(shell)
        self._count = 0

        async def start() -> _StockRouter:
            router = _StockRouter(
                self._front,
                self._folder,
                find=find_environment,
                open_link=open_link,
                notebook=notebook,
                journal=journal,
                run=os.environ.get("WARDIAN_RUN"),
            )
            await router.start()
            return router

        self._router = asyncio.run_coroutine_threadsafe(start(), self._loop).result()

    def install(self) -> None:
        """Give the shell the magics."""
        os.environ[VARIABLE] = str(self._folder / "router")
        shell = self._shell
        extension.register(shell)
        shell.register_magic_function(lambda line, cell: self.run(f"%%on {line}\n{cell}"), "cell", "on")
        shell.register_magic_function(lambda line, cell: self.run(cell), "cell", _CELL)
        shell.input_transformers_cleanup.insert(0, self._transform)
        shell.events.register("pre_run_cell", self._begins)
        atexit.register(self._end)

    def remove(self) -> None:
        """Take them back, and end the router."""
        shell = self._shell
        for name in extension.MAGICS:
            shell.magics_manager.magics["line"].pop(name, None)
        for name in ("on", _CELL):
            shell.magics_manager.magics["cell"].pop(name, None)
        shell.input_transformers_cleanup.remove(self._transform)
        shell.events.unregister("pre_run_cell", self._begins)
        atexit.unregister(self._end)
        self._end(nodes=False)
        if os.environ.get(VARIABLE) == str(self._folder / "router"):
            del os.environ[VARIABLE]

    def run(self, source: str) -> None:
        """Run a cell where it is bound, and wait for it. Raises CellFailed."""
        kernel = self._shell.kernel
        parent = kernel.get_parent("shell")
        self._count += 1
        request = Message.new("execute_request", _content(parent, source), parent["header"].get("session", ""))
        request.header = {**json.loads(json.dumps(parent["header"], default=str)), "msg_id": f"{parent['header']['msg_id']}_{self._count}"}
        request.metadata = {key: value for key, value in parent.get("metadata", {}).items() if key in ("wardian", "cellId", "cell_id")}
        box: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._front.expect(request.id, parent["header"], box)
        sys.stdout.flush()
        sys.stderr.flush()
        self._loop.call_soon_threadsafe(self._router.take, request, self._shell.displayhook.prompt_count)
        while True:
            try:
                kind, given = box.get()
                if kind == "reply":
                    break
                self._serve(kind, given)
            except KeyboardInterrupt:
                self._loop.call_soon_threadsafe(self._router.interrupt)
        self._finish(given)

    def _finish(self, content: dict[str, Any]) -> None:
        for payload in content.get("payload", ()):
            self._shell.payload_manager.write_payload(payload)
        if content.get("status") != "ok":
            name = str(content.get("ename", "CellFailed"))
            kind = type(name, (CellFailed,), {"__module__": __name__}) if name.isidentifier() else CellFailed
            raise kind(str(content.get("evalue", "")), list(content.get("traceback", ())))

    def _serve(self, kind: str, given: Any) -> None:
        """Do what the router wants of the main thread."""
        if kind == "ask":
            content = given.content
            ask = getpass.getpass if content.get("password") else self._shell.kernel.raw_input
            answer = Message.new("input_reply", {"value": ask(content.get("prompt", "")), "status": "ok"}, "", parent=dump(given.header))
            answer.parent = given.header
            self._loop.call_soon_threadsafe(self._router.answered, answer)
        else:
            place, message = given
            found = self._shell.user_expressions(message.content.get("user_expressions") or {})
            self._loop.call_soon_threadsafe(place.answer, message, json.loads(json.dumps(found, default=str)))

    def _transform(self, lines: list[str]) -> list[str]:
        """A cell that is bound to nodes becomes a call that runs it there. Anything else than the cell that was sent stays what it is."""
        parent = self._shell.kernel.get_parent("shell")
        source = "".join(lines)
        content = parent.get("content", {})
        code = content.get("code")
        if not isinstance(code, str) or code.strip() != source.strip() or parent["header"].get("msg_type") != "execute_request":
            return lines
        bound = self._router.bound(code, parent.get("metadata", {}), bool(content.get("silent")))
        if bound is not None and bound.binding.selector is None and not bound.help:
            # An %%on here line is taken out.
            return lines if bound.start is None else f"{bound.code}\n".splitlines(keepends=True)
        return [f"get_ipython().run_cell_magic({_CELL!r}, '', {code!r})\n"]

    def _begins(self, *_: Any) -> None:
        """A cell begins, of whatever kind: what a magic in it shows is shown there."""
        parent = self._shell.kernel.get_parent("shell")
        header = json.loads(json.dumps(parent.get("header", {}), default=str))
        if "msg_id" in header:
            request = Message.new("execute_request", _content(parent, ""), "")
            request.header = header
            self._loop.call_soon_threadsafe(self._router.host, request)

    def _end(self, nodes: bool = True) -> None:
        """End the router. nodes: whether this notebook's kernels on nodes end with it."""

        async def end() -> None:
            self._router.stop(nodes=nodes)
            await self._router.stopped

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(_STOPPING)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOPPING)
        shutil.rmtree(self._folder, ignore_errors=True)


def _content(parent: Mapping[str, Any], source: str) -> dict[str, Any]:
    content = parent.get("content", {})
    return {
        "code": source,
        "silent": bool(content.get("silent", False)),
        "store_history": bool(content.get("store_history", True)),
        "user_expressions": {},
        "allow_stdin": bool(content.get("allow_stdin", False)),
        "stop_on_error": False,
    }


class _StockRouter(Router):
    """The router, at home in the kernel that it runs in."""

    def __init__(self, front: _StockFront, folder: Path, **arguments: Any) -> None:
        self._front = front
        super().__init__({"key": ""}, folder, **arguments)
        # Its pages do not ask for what they have missed, and the numbers of its cells are the kernel's.
        self._reach.recovery.on_left = lambda cell, left: None

    def _make_clients(self, connection: Mapping[str, Any]) -> Clients:
        return Clients(connection, self._request, self._front)

    def _make_home(self, session: str, folder: Path, preloaded: Any) -> HomePlace:
        return _StockHome(self, session, folder, self._front)

    def take(self, request: Message, number: int) -> None:
        """Run a cell whose prompt has this number."""
        self._cells.count_from(number)
        self._cells.add(Client(SHELL, [request.id.encode()]), request)

    def interrupt(self) -> None:
        """Interrupt what runs."""
        self._cells.interrupt()

    def answered(self, message: Message) -> None:
        """The user's input."""
        self._clients.answered(message)

    def host(self, request: Message) -> None:
        """A cell has begun that is not ours."""
        self._cells.host = Cell(Client(SHELL, []), request)

    def bound(self, code: str, metadata: Mapping[str, Any], silent: bool) -> Bound | None:
        """Where a cell is bound; None where that is an error, which running it will tell."""
        try:
            return bind(code, metadata, None if silent else self._cells.sticky)
        except BindingError:
            return None


class _StockHome(HomePlace):
    """The kernel that we are in. It runs nothing for us, but the main thread, while it waits for a cell, evaluates expressions."""

    def __init__(self, listener: Any, session: str, folder: Path, front: _StockFront) -> None:
        super().__init__(listener, session, folder)
        self._front = front

    async def start(self, env: Mapping[str, str], ended: Callable[[int], None]) -> None:
        """It runs already."""
        self.info = {}
        self.opened()
        self.on_open()

    def send(self, channel: int, message: Message) -> None:
        """Have the main thread evaluate; where it does not wait for us there is nothing that it should."""
        if not self._front.evaluate(self, message):
            asyncio.get_running_loop().call_soon(self.answer, message, {})

    def answer(self, message: Message, found: dict[str, Any]) -> None:
        """What came of a request."""
        for channel, kind, content in (
            (SHELL, "execute_reply", {"status": "ok", "execution_count": 0, "user_expressions": found, "payload": []}),
            (IOPUB, "status", {"execution_state": "idle"}),
        ):
            reply = Message.new(kind, content, "", parent=dump(message.header))
            reply.parent = message.header
            self.received(channel, reply)

    async def stop(self) -> None:
        """It goes on."""


class _StockFront(Front):
    """The clients of the kernel that we are in: its iopub socket, and the main thread that waits for a cell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._kernel = shell.kernel
        self._parents: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._boxes: dict[str, SimpleQueue[tuple[str, Any]]] = {}

    def expect(self, request: str, parent: dict[str, Any], box: SimpleQueue[tuple[str, Any]]) -> None:
        """A cell will be sent. parent: the header of the kernel's own request; box: where its reply and what it asks for go."""
        self._parents[request] = parent
        while len(self._parents) > _REMEMBERED:
            self._parents.popitem(last=False)
        self._boxes[request] = box

    def evaluate(self, place: _StockHome, message: Message) -> bool:
        """Have the main thread evaluate expressions, if it waits."""
        for box in reversed(self._boxes.values()):
            box.put(("evaluate", (place, message)))
            return True
        return False

    def reply(self, client: Client, message: Message) -> None:
        """A cell has ended."""
        box = self._boxes.pop(client.identities[0].decode(), None) if client.identities else None
        if box is not None:
            box.put(("reply", message.content))

    def ask(self, client: Client, message: Message) -> None:
        """A cell asks for input."""
        box = self._boxes.get(client.identities[0].decode())
        if box is not None:
            box.put(("ask", message))

    def publish(self, message: Message) -> None:
        """Send a cell's output as the kernel's own. Its error is raised in place of being sent; what widgets are made of is left out."""
        header = json.loads(message.parent_bytes)
        name = str(header.get("msg_id", ""))
        if message.kind not in _SHOWN or (message.kind == "error" and name in self._boxes):
            return
        parent = {"header": self._parents.get(name, header)}
        session = self._kernel.session
        full = session.msg(message.kind, message.content, parent=parent, metadata=message.metadata)
        topic = f"kernel.{self._kernel.ident}.{message.kind}".encode()
        session.send(self._kernel.iopub_socket, full, ident=topic, buffers=message.buffers)

    def drain(self) -> None:
        """Nothing waits: the main thread gives one cell at a time."""

    def close(self) -> None:
        """The sockets are the kernel's."""
