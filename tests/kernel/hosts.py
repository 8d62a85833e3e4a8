"""A Wardian kernel whose "nodes" are folders of this host: real router, real agents, real node kernels, no namespaces.

`python -m tests.kernel.hosts -f CONNECTION_FILE` is what tests start in place of `python -m wardian.kernel`. The folder named by
WARDIAN_TEST_NODES holds nodes.json: {name: {"group", "index", "roles", "state"}}; without that file the environment is not up.
WARDIAN_TEST_RESTART: for so long an agent may take to end a kernel, seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.nodes.conftest import HostChannel
from wardian.environment.live import not_up
from wardian.experiment import selectors
from wardian.kernel import app
from wardian.kernel.places import reach
from wardian.kernel.router import Router


@dataclass(frozen=True)
class HostNode:
    name: str
    group: str
    index: int | None
    roles: tuple[str, ...]
    state: str
    detail: str = ""


class HostEnvironment:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, HostNode] = {}
        self.names: tuple[str, ...] = ()
        self.lease = None

    @classmethod
    async def find(cls) -> HostEnvironment:
        environment = cls(Path(os.environ["WARDIAN_TEST_NODES"]))
        await environment.refresh()
        return environment

    async def refresh(self) -> None:
        try:
            nodes = json.loads((self.folder / "nodes.json").read_text())
        except FileNotFoundError:
            raise not_up(str(self.folder / "experiment.yaml"), "default") from None
        self.nodes = {name: HostNode(name, **{**item, "roles": tuple(item["roles"])}) for name, item in nodes.items()}

    def secrets(self) -> set[str]:
        """Of its nodes' variables: none."""
        return set()

    def select(self, selector: str) -> list[str]:
        references = [selectors.NodeRef(node.name, node.group, node.index, node.roles) for node in self.nodes.values()]
        return selectors.resolve(selector, references, self.names)

    def channel(self, node: str) -> HostChannel:
        folder = self.folder / node.replace("[", "-").rstrip("]")
        folder.mkdir(mode=0o700, exist_ok=True)
        return HostChannel(str(folder), WARDIAN_TEST_NODE=node)


async def _run(connection: dict[str, object], folder: Path) -> int:
    journal = os.environ.get("WARDIAN_TEST_JOURNAL")
    router = Router(
        connection,
        folder,
        find=HostEnvironment.find,
        open_link=app.open_link,
        notebook=os.environ.get("WARDIAN_SESSION") or os.environ.get("JPY_SESSION_NAME", "default"),
        journal=Path(journal) if journal else None,
    )
    return await app.serve(router)


if __name__ == "__main__":
    private = app.make_folder()
    reach._RESTART = float(os.environ.get("WARDIAN_TEST_RESTART", reach._RESTART))
    try:
        sys.exit(asyncio.run(_run(json.loads(Path(sys.argv[2]).read_text()), private)))
    finally:
        shutil.rmtree(private, ignore_errors=True)
