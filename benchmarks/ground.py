"""Where environments to be measured grow: folders and a state folder of their own, of which nothing is left in the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wardian import aio

UNSET = ("WARDIAN_STATE", "WARDIAN_JOURNAL", "WARDIAN_EXPERIMENT", "WARDIAN_INSTANCE", "PYTHONDONTWRITEBYTECODE")
"""Variables that would change what is measured; without the last, bytecode is kept as it is for an installed package."""

WARDIAN = str(Path(sys.executable).with_name("wardian"))


class Ground:
    """A folder below which experiments are put."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._count = 0

    def experiment(self, nodes: int) -> Path:
        """A new folder with an experiment file: `nodes` nodes named box[0], … on one network, without shaping."""
        self._count += 1
        folder = self.root / f"experiment-{self._count}"
        folder.mkdir()
        (folder / "experiment.yaml").write_text(f"name: bench\nnetworks: [lan]\nnodes:\n  box: {{count: {nodes}}}\n")
        return folder

    @contextmanager
    def up(self, nodes: int) -> Iterator[Path]:
        """The folder of an experiment that is up."""
        folder = self.experiment(nodes)
        environment = aio.Environment(folder / "experiment.yaml")
        try:
            asyncio.run(environment.up())
            yield folder
        finally:
            asyncio.run(environment.down())
            environment.close()

    def command(self, folder: Path, *arguments: str) -> None:
        """Run the `wardian` command. Raises CalledProcessError if it fails."""
        subprocess.run([WARDIAN, *arguments], cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)


@contextmanager
def ground() -> Iterator[Ground]:
    """A ground to measure on. What an aborted measurement left standing on it is torn down."""
    root = Path(tempfile.mkdtemp(prefix="wardian-bench-", dir="/var/tmp"))
    kept = {name: os.environ.pop(name, None) for name in UNSET}
    os.environ["WARDIAN_STATE"] = str(root / "state")
    try:
        yield Ground(root)
    finally:
        for file in root.glob("experiment-*/experiment.yaml"):
            environment = aio.Environment(file)
            asyncio.run(environment.down(force=True, gather=False))
            environment.close()
        shutil.rmtree(root)
        del os.environ["WARDIAN_STATE"]
        os.environ.update({name: value for name, value in kept.items() if value is not None})
