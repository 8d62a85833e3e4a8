"""`wardian.fetch`: files of nodes beside the notebook, as links that it can show."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...errors import TransferError
from ..session.private import request

FOLDER = "fetched"
"""Where files come to lie, in the notebook's folder; below it a folder for each node."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file or folder of a node that was copied here. path: where it is now; bytes, files: how much there is; sha256: of the content."""

    node: str
    source: str
    path: Path
    bytes: int
    files: int
    sha256: str

    @property
    def link(self) -> str:
        """The way to it from the notebook, as a URL: JupyterLab and a page exported beside the notebook follow it."""
        return quote(os.path.relpath(self.path, notebook_folder()).replace(os.sep, "/"))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{self.node}:{self.source} → {self.path} ({_amount(self)})"

    def _repr_html_(self) -> str:
        name = html.escape(f"{self.node}:{self.source}")
        return f'<a href="{html.escape(self.link, quote=True)}" target="_blank" rel="noopener">{name}</a> <small>{_amount(self)}</small>'


class FetchedFiles(dict[str, Fetched]):
    """What was copied from several nodes, by node."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.values()))

    def _repr_html_(self) -> str:
        return "<br>".join(fetched._repr_html_() for fetched in self.values())


def fetch(selector: str, path: str, target: str | os.PathLike[str] | None = None) -> Fetched | FetchedFiles:
    """Copy a file or folder of a node here: `wardian.fetch("client", "/tmp/plot.png")`. Shown in a notebook it is a link; from
    several nodes comes a dict by node.

    target: where to, from the working directory; where None `fetched/NODE/` in the notebook's folder, replacing what an earlier
    fetch has left there. With several nodes it is a folder, and each one's copy goes into one named like the node.
    Raises NotUpError, SelectorError, TransferError, RouterError.
    """
    nodes: list[str] = request("nodes", selector=selector)["nodes"]
    found = FetchedFiles()
    for node in nodes:
        place = notebook_folder() / FOLDER / node if target is None else Path.cwd() / target
        if target is not None and len(nodes) > 1:
            place /= node
        if target is None or len(nodes) > 1:
            try:
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TransferError(node, f"cannot make the folder {place}: {error.strerror}", remedy="name another as target") from None
        [done] = request("fetch", source=path, target=str(place), selector=node)["transfers"]
        found[node] = Fetched(node, path, Path(done["target"]), done["bytes"], done["files"], done["sha256"])
    return next(iter(found.values())) if len(found) == 1 else found


def notebook_folder() -> Path:
    """The folder that the notebook lies in, as far as it is known; else the working directory."""
    notebook = os.environ.get("JPY_SESSION_NAME")
    if notebook and os.path.isabs(notebook) and Path(notebook).parent.is_dir():
        return Path(notebook).parent
    return Path.cwd()


def _amount(fetched: Fetched) -> str:
    files = "" if fetched.files == 1 else f"{fetched.files} files, "
    return f"{files}{fetched.bytes:,} bytes"
