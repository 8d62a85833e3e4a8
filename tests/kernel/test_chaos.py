"""Numbered lines stream from eight nodes while something is killed: no line is lost, none comes twice, no cell hangs."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardian.journal import Journal

from .conftest import ROOT, TIMEOUT, Notebook, _stop_agents, lanes, write_nodes
from .test_lost import bridges, ended, wait_until

LINES = 300
NODES = {f"w[{index}]": {"group": "w", "index": index, "roles": [], "state": "ready"} for index in range(8)}
CODES = {
    "bash": f"""%%on w --lang bash
for ((i = 0; i < {LINES}; i++)); do
    echo ROUND-$i; echo $i > "$WARDIAN_RUN_DIR/progress"; ((i % 10)) || sleep 0.01
done""",
    "python": f"""%%on w
import os, pathlib, time
for i in range({LINES}):
    print(f"ROUND-{{i}}", flush=i % 3 == 0)
    if i % 10 == 0: time.sleep(0.01)""",
}
PID = {"bash": "%%on w --lang bash\necho $$", "python": "%%on w\nimport os\nprint(os.getpid())"}

# another process that uses the same agents, as the command line does
CLI = """
import asyncio, json, sys
from tests.nodes.conftest import HostChannel, Kernel
from wardian.nodes.link import AgentLink
async def flood(folder):
    link = await AgentLink.open(HostChannel(folder), "host")
    kernel = await Kernel.start(link, "cli", "bash")
    kernel.execute("while true; do echo noise; sleep 0.001; done")
    await asyncio.sleep(600)
async def main():
    await asyncio.gather(*map(flood, sys.argv[1:]))
asyncio.run(main())
"""


class Chaos:
    """One notebook after the other on eight nodes, and a random choice of what dies."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.journal = folder / "journal.db"
        self.random = random.Random(seed)
        self.notebook = self.start()
        self.cli: subprocess.Popen[bytes] | None = None

    def start(self) -> Notebook:
        return Notebook(self.folder, "chaos", WARDIAN_TEST_JOURNAL=str(self.journal))

    def round(self, number: int, kind: str, language: str) -> None:
        """One cell, and one death under it."""
        mark = f"round{number}"
        victims = self.random.sample(list(NODES), self.random.randint(1, 4)) if kind != "node kernel" else [self.random.choice(list(NODES))]
        pids = self.pids(language) if kind == "node kernel" else {}
        if kind == "cli":
            folders = [str(self.place(node)) for node in NODES]
            self.cli = subprocess.Popen([sys.executable, "-c", CLI, *folders], cwd=ROOT)
        cell = self.notebook.send(CODES[language].replace("ROUND", mark))
        printed = self.until(cell, mark, self.random.randint(1, LINES * len(NODES) * 3 // 4))
        self.kill(kind, victims, pids)
        if kind == "router":
            self.notebook = self.start()
            # what was begun and has not reached the journal is found where its nodes are used
            self.notebook.run(f"{PID[language]}")
        else:
            status, rest = self.rest(cell, kind, victims)
            printed += rest
            if kind == "node kernel" and status == "ok":
                # it had run the cell to its end before it was killed
                kind = "afterwards"
        self.judge(mark, language, kind, victims, lanes(printed, NODES) if kind != "router" else None)

    def pids(self, language: str) -> dict[str, int]:
        return {node: int(text) for node, text in lanes(self.notebook.run(PID[language]).text(), NODES).items()}

    def place(self, node: str) -> Path:
        return self.folder / node.replace("[", "-").rstrip("]")

    def until(self, cell: str, mark: str, count: int) -> str:
        """What the cell prints until the client has seen so many lines."""
        printed, seen = "", 0
        while seen < count:
            message = self.notebook.client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == cell:
                if message["msg_type"] == "stream":
                    printed += message["content"]["text"]
                    # what several nodes printed alike may be shown as one line
                    seen += sum(text.count(mark) for text in lanes(message["content"]["text"], NODES).values())
                assert message["content"].get("execution_state") != "idle"
        return printed

    def kill(self, kind: str, victims: list[str], pids: dict[str, int]) -> None:
        if kind == "router":
            self.notebook.kill()
        elif kind == "node kernel":
            os.kill(pids[victims[0]], signal.SIGKILL)
        elif kind == "bridge":
            for node in victims:
                for bridge in bridges(self.notebook, node):
                    os.kill(bridge, signal.SIGKILL)
        elif self.cli is not None:
            self.cli.kill()
            self.cli.wait()

    def rest(self, cell: str, kind: str, victims: list[str]) -> tuple[str, str]:
        """How the cell ended, and what it still printed."""
        result = self.notebook.result(cell)
        if kind == "node kernel" and result.status == "error":
            assert victims[0] in result.error
        else:
            assert result.status == "ok", result.traceback
        return result.status, result.text()

    def judge(self, mark: str, language: str, kind: str, victims: list[str], seen: dict[str, str] | None) -> None:
        """Each node's lines, as the client saw them and as the journal has them, are all lines, once, in order."""
        wait_until(lambda: ended(self.journal, mark) is not None)
        entry = ended(self.journal, mark)
        assert entry is not None
        with Journal.open(self.journal) as journal:
            outputs = journal.outputs(entry.id)
        for node in NODES:
            recorded = "".join(str(o.content["text"]) for o in outputs if o.node == node and o.message_type == "stream")
            expected = [f"{mark}-{number}" for number in range(LINES)]
            for text in (recorded, *((seen.get(node, ""),) if seen is not None else ())):
                lines = [line for line in text.splitlines() if line.startswith(mark)]
                if kind == "node kernel" and node == victims[0]:
                    if language == "bash":
                        # it ends a cell with words of its own; the line under way may be cut
                        done = int((self.place(node) / "progress").read_text().strip() or 0)
                        assert len(lines) > done
                    assert lines[:-1] == expected[: len(lines) - 1]
                else:
                    assert lines == expected, (node, kind, entry.status)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wc", dir="/tmp"))
    write_nodes(folder, NODES)
    yield folder
    asyncio.run(_stop_agents(folder))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("rounds", [4, pytest.param(100, marks=pytest.mark.long)])
def test_chaos(folder: Path, rounds: int) -> None:
    """Whatever dies at a random moment (the notebook's kernel, a link, a node's kernel, another client), every line is there once."""
    chaos = Chaos(folder, seed=rounds)
    try:
        for number in range(rounds):
            kind = ("bridge", "router", "node kernel", "cli")[number % 4]
            chaos.round(number, kind, "bash" if (number + number // 4) % 2 else "python")
    finally:
        if chaos.cli is not None:
            chaos.cli.kill()
        chaos.notebook.close()
