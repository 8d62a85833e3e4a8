"""A place to use the `wardian` command as people do: a folder, a state folder of its own, and a look at what is left afterwards."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
WARDIAN = str(BIN / "wardian")


def require(tool: str) -> str:
    """The path of a program; without it the test is skipped, or fails where everything is required (WARDIAN_REQUIRE_ALL=1)."""
    found = shutil.which(tool, path=f"{BIN}:{os.environ.get('PATH', '')}")
    if found is None:
        lacking = f"the program {tool} is not installed"
        if os.environ.get("WARDIAN_REQUIRE_ALL") == "1":
            pytest.fail(lacking)
        pytest.skip(lacking)
    return found


def eventually(condition: Callable[[], Any], what: str, *, within: float = 30.0) -> Any:
    """Wait until `condition` gives something true, and give that; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {within:g} s in vain until {what}")
        time.sleep(0.02)
    return value


class Stage:
    """One experiment folder, and the command line run in it.

    Experiments are named `NAME` in the text given to `write`; the name put in its place begins the id of every environment grown here.
    """

    def __init__(self, root: Path, state: Path) -> None:
        self.name = f"t{secrets.token_hex(3)}"
        self.folder = root / self.name
        self.folder.mkdir()
        self.state = state
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("WARDIAN_", "COMP_", "JUPYTER_", "MPLBACKEND"))
        }
        self.env |= {
            "WARDIAN_STATE": str(state),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "JUPYTER_PATH": str(BIN.parent / "share" / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(state / "jupyter"),
            "IPYTHONDIR": str(state / "ipython"),
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }
        self.started: list[subprocess.Popen[Any]] = []

    def write(self, text: str, name: str = "experiment.yaml") -> Path:
        """Write the experiment file, or another file of its folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", self.name))
        return path

    def edit(self, old: str, new: str) -> None:
        """Replace text in the experiment file."""
        path = self.folder / "experiment.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def run(
        self, *arguments: str, code: int = 0, env: dict[str, str] | None = None, timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `wardian` with these arguments to its end; it has to exit with `code`, and never with a traceback."""
        done = subprocess.run(
            [WARDIAN, *arguments],
            **{"cwd": self.folder, "stdin": subprocess.DEVNULL, **options},
            env=self.env | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        said = f"wardian {' '.join(arguments)}: exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, said
        assert done.returncode == code, said
        return done

    def json(self, *arguments: str, code: int = 0, **options: Any) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.run(*arguments, code=code, **options).stdout)

    def error(self, *arguments: str, code: int, **options: Any) -> str:
        """What a command that has to fail says: one clear message on standard error, with no output."""
        done = self.run(*arguments, code=code, **options)
        said = done.stderr.strip()
        assert said, f"wardian {' '.join(arguments)} says nothing about its exit code {code}"
        return said

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Begin `wardian` with these arguments, its output to pipes."""
        settings = {"cwd": self.folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([WARDIAN, *arguments], env=self.env, text=True, start_new_session=True, **settings)
        self.started.append(process)
        return process

    def environments(self) -> list[str]:
        """Ids of environments that anything is left of in the state folder."""
        folder = self.state / "environments"
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def identity(self) -> str:
        """The id of the only environment."""
        (identity,) = self.environments()
        return identity

    def pid(self, node: str, identity: str | None = None) -> int:
        """The host's number of a node's init."""
        path = self.state / "environments" / (identity or self.identity()) / "node" / node / "process.json"
        return int(json.loads(path.read_text())["pid"])

    def processes(self) -> dict[int, str]:
        """Processes of the host that carry this state folder or one of its environments: {number: command line}."""
        marks = (f"WARDIAN_STATE={self.state}\0".encode(), f"WARDIAN_ENVIRONMENT={self.name}-".encode())
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with suppress(OSError):
                    if any(mark in Path(f"/proc/{name}/environ").read_bytes() + b"\0" for mark in marks):
                        found[int(name)] = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    def left(self) -> dict[str, Any]:
        """Everything that is left of environments grown here; empty when all is as it was before."""
        found: dict[str, Any] = {
            "processes": self.processes(),
            "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{self.state}/" in line],
            "interfaces": [part for part in _output("ip", "-d", "-o", "link") if f"wardian {self.name}" in part],
            "rules": [line for line in _output("nft", "list", "ruleset") if self.name in line],
            "cgroups": [str(path) for path in _cgroups() if path.name.startswith(f"{self.name}-")],
            "files": [str(path) for place in ("environments", "keepers") for path in (self.state / place).glob("*")],
            "fabrics": [path for path in _output("ip", "netns", "list") if self.name in path],
        }
        return {what: things for what, things in found.items() if things}

    def assert_nothing_left(self) -> None:
        """Everything is gone, also what still ends by itself just now."""
        deadline = time.monotonic() + 10
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, json.dumps(left, indent=2)

    def close(self) -> None:
        """Tear down what is up, and see to it that nothing is left: not for this test, and not for the next."""
        try:
            for identity in self.environments():
                self.run("down", identity, "--force", "--no-collect")
            self.assert_nothing_left()
        except BaseException:
            self._clear()
            raise
        finally:
            self._end_started()
            shutil.rmtree(self.state, ignore_errors=True)

    def _end_started(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.started.clear()

    def _clear(self) -> None:
        self._end_started()
        for identity in self.environments():
            subprocess.run([WARDIAN, "down", identity, "--force", "--no-collect"], env=self.env, capture_output=True, timeout=60)
        subprocess.run([WARDIAN, "gc"], env=self.env, capture_output=True, timeout=60)
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for path in _cgroups():
            if path.name.startswith(f"{self.name}-"):
                for inner in sorted(path.rglob("*"), reverse=True):
                    with suppress(OSError):
                        inner.rmdir()
                with suppress(OSError):
                    path.rmdir()


def make_stage(root: Path) -> Stage:
    """A stage below `root`; its state folder has a short path, because paths of sockets in it may have 107 bytes."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return Stage(root, Path(tempfile.mkdtemp(prefix="w", dir="/var/tmp")))


def _output(*argv: str) -> list[str]:
    if shutil.which(argv[0]) is None:
        return []
    return subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()


def _cgroups() -> list[Path]:
    found = []
    for base in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")]:
        with suppress(OSError):
            found += [path for path in (base / "wardian").iterdir() if path.is_dir()]
    return found
