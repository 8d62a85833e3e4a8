"""`python -m wardian.kernel -f CONNECTION_FILE`: what the kernelspec starts."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ..descriptors import raise_limit
from ..environment.live import default_instance, experiment_file, experiment_of, find, journal_target
from ..providers.base import Channel
from ..providers.preloaded import Preloaded
from .places.connection import Link
from .places.reach import Environment
from .router import Router

_LONGEST = 60
"""Characters that the path of our folder may have: Unix sockets are made in it, and theirs end at 107."""
_SWITCH = 0.0002
"""Seconds after which a thread that waits for the interpreter gets it."""


def main(preloaded: Preloaded | None = None) -> int:
    """Run one kernel until it is shut down, and give its exit code. preloaded: what Python kernels are forked from, ours to end."""
    parser = argparse.ArgumentParser(prog="python -m wardian.kernel", description="The Jupyter kernel of Wardian.")
    parser.add_argument("-f", dest="connection", type=Path, required=True, help="connection file")
    arguments, _ = parser.parse_known_args()
    logging.basicConfig(format="[wardian.kernel] %(levelname)s %(message)s", level=os.environ.get("WARDIAN_LOG", "WARNING").upper())
    # The journal's threads would keep the interpreter for 5 ms at a time, which is as long as a cell's whole round trip.
    sys.setswitchinterval(_SWITCH)
    raise_limit()
    folder = make_folder()
    try:
        return asyncio.run(_run(json.loads(arguments.connection.read_text()), folder, preloaded))
    finally:
        if preloaded is not None:
            preloaded.close()
        shutil.rmtree(folder, ignore_errors=True)


def make_folder() -> Path:
    """A private folder for this process. Folders that killed ones left behind are removed."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _LONGEST:
        parent = Path("/tmp")  # noqa: S108
    prefix = f"wardian-kernel-{os.getuid()}-"
    for left in parent.glob(f"{prefix}*"):
        process = left.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists() and left.lstat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


async def _run(connection: dict[str, object], folder: Path, preloaded: Preloaded | None) -> int:
    notebook = os.environ.get("JPY_SESSION_NAME")
    file = experiment_of(Path(notebook)) if notebook else experiment_file(Path.cwd())

    async def find_environment() -> Environment:
        return await find(file, default_instance())

    router = Router(
        connection,
        folder,
        find=find_environment,
        open_link=partial(open_link, preloaded=preloaded),
        preloaded=preloaded,
        notebook=notebook or os.environ.get("WARDIAN_SESSION") or "default",
        journal=journal_target(file) if file is not None and file.is_file() else None,
        run=os.environ.get("WARDIAN_RUN"),
        written=partial(_written, file) if file is not None else None,
    )
    return await serve(router)


def _written(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    # Imported at first use: it is needed only where the environment is not up.
    from ..environment.environment import Environment
    from ..environment.view import as_written
    from ..experiment.topology import names_known

    view = as_written(Environment(file))
    keys = ("group", "index", "roles", "state")
    nodes = [{"name": name, **{key: node[key] for key in keys}, "detail": ""} for name, node in view.nodes().items()]
    return nodes, list(names_known(view.experiment)) if view.experiment else []


async def open_link(channel: Channel, node: str, client: str, preloaded: Preloaded | None = None) -> Link:
    """Open the link to a node's agent; client: an id that stays the same when a link is replaced. preloaded: as for `AgentLink.open`."""
    # Imported at first use: a kernel starts sooner without it, and many notebooks begin at home.
    from ..nodes.link import AgentLink

    return await AgentLink.open(channel, node, client=client, preloaded=preloaded)


async def serve(router: Router) -> int:
    """Run a router until it has stopped. SIGTERM and the end of whoever started us stop it, and leave the kernels on nodes."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, router.stop)
    # Interrupts come as messages; a Ctrl-C in the terminal of whoever started us is not for us. Handled and not ignored,
    # because processes that we start would inherit that.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    parent = os.environ.get("JPY_PARENT_PID", "")
    if parent.isdigit() and int(parent) > 1 and int(parent) == os.getppid():
        watched = os.pidfd_open(int(parent))

        def orphaned() -> None:
            loop.remove_reader(watched)
            router.stop()

        loop.add_reader(watched, orphaned)
    await router.start()
    return await router.stopped
