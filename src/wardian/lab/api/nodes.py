"""Working on nodes: files both ways, terminals, ports and kernels."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from jupyter_core.utils import ensure_async
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.iostream import StreamClosedError

from ...errors import WardianError
from .environments import NODE_QUERY
from .handler import Handler
from .operation import MOMENT, TEXT, TRUTH, WHOLE, Operation, Route, each, operation, query, shape
from .shapes import ENVIRONMENT_QUERY, INSTANCE, PATH

FILES = "wardian:files"

LARGEST_FILE = 8 * 2**30
"""Of an upload or a download, bytes."""

_NODE_PATH = {"minLength": 1, "maxLength": 4096, "pattern": r"^[^\u0000]*$"}
_NODE = {"type": "string", "minLength": 1, "maxLength": 200}
_WHICH = {"path": PATH, "node": _NODE}
_INSTANCE = {"instance": INSTANCE}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}

_LISTING = shape(
    "A folder of a node: `folder` is its absolute path, `whole` is false where it has more than is listed.",
    {
        "folder": TEXT,
        "items": each(
            shape(
                "", {"name": TEXT, "kind": {"enum": ["file", "folder", "link", "other"]}, "size": WHOLE, "changed": MOMENT, "mode": WHOLE}
            )
        ),
        "whole": TRUTH,
    },
)

_COPIED = shape("A file that is on the node now.", {"target": TEXT, "bytes": WHOLE, "sha256": TEXT})

_OPEN = shape(
    "A port of a node that is open on this machine: `here` on loopback, and at `url` for the browser. `trouble` is why the last connection "
    "failed that did.",
    {"id": TEXT, "node": TEXT, "port": WHOLE, "here": WHOLE, "url": TEXT, "connections": WHOLE},
    {"trouble": TEXT},
)


class Files(Handler):
    """A folder of a node."""

    auth_resource = FILES

    @operation(
        Operation(
            "What is in a folder of a node",
            query={
                **NODE_QUERY,
                "folder": query(TEXT, "the folder; the home directory there without one", **{**_NODE_PATH, "default": "."}),
            },
            gives={200: _LISTING},
        )
    )
    async def get(self) -> None:
        """List it."""
        asked = self.query
        file = self.experiment_file(asked["path"])
        self.answer(await self.work(self.desk.nodes.listing(file, asked["instance"], asked["node"], asked["folder"])))


class File(Handler):
    """A file of a node."""

    auth_resource = FILES

    _spool: IO[bytes] | None = None

    async def prepare(self) -> None:  # type: ignore[override]  # as the class that it extends
        """Refuse an upload before it has come, and take one into a file."""
        if self.request.method == "PUT":
            # the server's own bound is for what it holds in memory
            self.request.connection.set_max_body_size(LARGEST_FILE)  # type: ignore[union-attr]
        await super().prepare()
        if self.request.method == "PUT":
            if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, "write", FILES)):
                raise web.HTTPError(403, "this user may not write files of nodes")
            self._folder = tempfile.TemporaryDirectory(prefix="wardian-upload-")
            self._spool = (Path(self._folder.name) / "data").open("wb")
            self._size = 0

    def data_received(self, chunk: bytes) -> None:
        """Take a part of an upload."""
        if self._spool is None:
            if self.request.method != "PUT":
                super().data_received(chunk)
            return
        self._size += len(chunk)
        self._refuse_larger(self._size)
        self._spool.write(chunk)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say with a refusal of an upload that the connection ends: what of it is under way is not read."""
        if self.request.method == "PUT":
            self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    def on_finish(self) -> None:
        """Remove what came."""
        if self._spool is not None:
            self._spool.close()
            self._folder.cleanup()
            self._spool = None
        super().on_finish()

    def on_connection_close(self) -> None:
        """An upload was given up."""
        super().on_connection_close()
        self.on_finish()

    @operation(
        Operation(
            "The content of a file of a node",
            query={**NODE_QUERY, "file": query(TEXT, "the file's path there", **_NODE_PATH)},
            gives={200: {"type": "string", "format": "binary"}},
            produces="application/octet-stream",
        )
    )
    async def get(self) -> None:
        """Send it as it comes."""
        asked = self.query
        file = self.experiment_file(asked["path"])
        download = await self.work(self.desk.nodes.download(file, asked["instance"], asked["node"], asked["file"], LARGEST_FILE))
        name = asked["file"].rstrip("/").rpartition("/")[2]
        try:
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Content-Length", str(download.size))
            self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}")
            self.set_header("X-Content-Type-Options", "nosniff")
            while chunk := await self.work(download.read()):
                self.write(chunk)
                # waits until it is sent: a slow browser holds up the node, not our memory
                await self.flush()
            self.finish(set_content_type="application/octet-stream")
        except (StreamClosedError, WardianError) as error:
            # what is on its way can only be cut short, which its length shows
            self.log.warning("a download of %s was cut short: %s", name, error)
            self.request.connection.stream.close()  # type: ignore[union-attr]
        finally:
            await self.work(download.close())

    @operation(
        Operation(
            "Put a file on a node; one of that name is replaced, once all of the new one is there",
            query={
                **NODE_QUERY,
                "folder": query(TEXT, "the folder there, which has to exist", **_NODE_PATH),
                "name": query(TEXT, "the file's name", minLength=1, maxLength=255, pattern=r"^(?!\.{1,2}$)[^/\u0000]+$"),
            },
            body={"type": "string", "format": "binary"},
            media="application/octet-stream",
            gives={201: _COPIED},
            limit=LARGEST_FILE,
        )
    )
    async def put(self) -> None:
        """Copy what came."""
        asked = self.query
        assert self._spool is not None  # noqa: S101 (made before the body came)
        self._spool.close()
        source = Path(self._spool.name)
        file = self.experiment_file(asked["path"])
        copied = await self.work(self.desk.nodes.upload(file, asked["instance"], asked["node"], source, asked["folder"], asked["name"]))
        self.answer(copied, 201)


class Terminals(Handler):
    """Terminals on nodes."""

    auth_resource = "wardian:terminals"

    @operation(
        Operation(
            "Open a terminal on a node: one of the server's own, named, that runs `wardian shell`",
            body=shape("The node.", _WHICH, _INSTANCE, additionalProperties=False),
            gives={201: shape("The terminal as `api/terminals` has it.", {"name": TEXT})},
        ),
        action="execute",
    )
    async def post(self) -> None:
        """Open it."""
        asked = self.body
        if not self.settings.get("terminals_available"):
            raise web.HTTPError(404, "this server has no terminals")
        file, instance, node = self.experiment_file(asked["path"]), asked.get("instance", "default"), asked["node"]
        await self.work(self.desk.nodes.channel(file, instance, node))
        manager = self.settings["terminal_manager"]
        argv = [sys.executable, "-m", "wardian", "shell", "-f", str(file), "-e", instance, "--", node]
        model = manager.create(name=_free_name(node, manager.terminals), shell_command=argv, cwd=str(file.parent))
        self.answer(model, 201)


class Ports(Handler):
    """Ports of nodes that are open here."""

    auth_resource = "wardian:ports"

    @operation(
        Operation("The ports of an environment that are open", query=ENVIRONMENT_QUERY, gives={200: shape("", {"ports": each(_OPEN)})})
    )
    async def get(self) -> None:
        """List them."""
        file = self.experiment_file(self.query["path"])
        found = await self.work(self.desk.nodes.ports(file, self.query["instance"]))
        self.answer({"ports": [self._with_url(item) for item in found]})

    @operation(
        Operation(
            "Open a port of a node on this machine, on loopback",
            body=shape("here: our port; the node's own if that is free, else any.", {**_WHICH, "port": _PORT}, {**_INSTANCE, "here": _PORT},
                       additionalProperties=False),
            gives={201: _OPEN},
        )
    )  # fmt: skip
    async def post(self) -> None:
        """Open it, or give it where it is open."""
        asked = self.body
        file, instance = self.experiment_file(asked["path"]), asked.get("instance", "default")
        opened = await self.work(self.desk.nodes.open_port(file, instance, asked["node"], asked["port"], asked.get("here")))
        self.answer(self._with_url(opened), 201)

    def _with_url(self, told: dict[str, Any]) -> dict[str, Any]:
        # the browser may be on another machine, for which the proxy is there
        proxied = any(name == "jupyter_server_proxy" for name in self.settings["serverapp"].extension_manager.extension_apps)
        url = url_path_join(self.base_url, "proxy", f"{told['here']}/") if proxied else f"http://127.0.0.1:{told['here']}/"
        return {**told, "url": url}


class Port(Handler):
    """One of them."""

    auth_resource = "wardian:ports"

    @operation(Operation("Close a port", gives={204: None}))
    async def delete(self, port: str) -> None:
        """Close it."""
        await self.work(self.desk.nodes.close_port(port))
        self.set_status(204)
        self.finish()


class Kernels(Handler):
    """Kernels on nodes."""

    auth_resource = "wardian:kernels"

    @operation(
        Operation(
            "Interrupt a kernel of a node, end one that no notebook has, or restart one that a notebook has, as `%restart NODE` does there",
            body=shape(
                "The kernel, as the node's route names it.",
                {**_WHICH, "kernel": _NODE, "action": {"enum": ["interrupt", "stop", "restart"]}},
                _INSTANCE,
                additionalProperties=False,
            ),
            gives={204: None},
        ),
        action="execute",
    )
    async def post(self) -> None:
        """Do it now."""
        asked = self.body
        file, instance = self.experiment_file(asked["path"]), asked.get("instance", "default")
        await self.work(self.desk.nodes.kernel(file, instance, asked["node"], asked["kernel"], asked["action"]))
        self.set_status(204)
        self.finish()


ROUTES = [
    Route("environment/files", Files),
    Route("environment/file", File),
    Route("environment/terminals", Terminals),
    Route("environment/ports", Ports),
    Route("ports/{port}", Port, {"port": {"type": "string", "minLength": 1, "maxLength": 64}}),
    Route("environment/kernels", Kernels),
]


def _free_name(node: str, taken: Any) -> str:
    """A name for a terminal that says where it is, of the letters that terminals may have."""
    stem = re.sub(r"\W+", "_", node, flags=re.ASCII).strip("_")
    return next(name for name in (stem, *(f"{stem}_{number}" for number in range(2, len(taken) + 3))) if name not in taken)
