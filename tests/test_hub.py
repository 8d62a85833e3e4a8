"""A class under JupyterHub: its configuration as the docs have it, users of the host, and what they have of each other."""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from . import ordinary
from .ordinary import BIN, POLICY, ROOT, User
from .stage import eventually

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(3000)]

STUDENTS = int(os.environ.get("TESTS_STUDENTS", "30"))

EXPERIMENT = """
name: lab
networks: {lan: {}}
lease: {duration: 2h}
nodes:
  client: {count: 5, networks: [lan], memory: 100MiB}
"""


PROXY = BIN.parent / "hub" / "node_modules" / ".bin"
"""Where `make test-all` puts configurable-http-proxy."""


class Hub:
    """A hub that runs, and the interface that its teacher has to it."""

    def __init__(self, folder: Path, policy: str) -> None:
        (configuration,) = re.findall(r"```python\n# jupyterhub_config.py\n(.*?)```", (ROOT / "docs" / "class.md").read_text(), re.DOTALL)
        self.token = secrets.token_hex(16)
        self.log = folder / "hub.log"
        self.port = 20000 + secrets.randbelow(8000)
        scopes = ["admin:users", "admin:servers", "access:servers", "tokens"]
        (folder / "jupyterhub_config.py").write_text(
            f"{configuration}\n"
            f"c.JupyterHub.bind_url = 'http://127.0.0.1:{self.port}'\n"
            f"c.JupyterHub.hub_port = {self.port + 1}\n"
            f"c.ConfigurableHTTPProxy.api_url = 'http://127.0.0.1:{self.port + 2}'\n"
            f"c.JupyterHub.services = [{{'name': 'teacher', 'api_token': {self.token!r}}}]\n"
            f"c.JupyterHub.load_roles = [{{'name': 'teacher', 'services': ['teacher'], 'scopes': {scopes}}}]\n"
            f"c.Spawner.environment = {{'JUPYTER_CONFIG_PATH': {str(ROOT / 'etc' / 'jupyter')!r}}}\n"
        )
        env = {"PATH": f"{BIN}:{PROXY}:{os.environ['PATH']}", "HOME": str(folder), "LANG": "C.UTF-8", "TESTS_POLICY": policy}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.ordinary", "root", str(folder), str(BIN / "jupyterhub"), "-f", "jupyterhub_config.py"],
                cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        eventually(self._listens, "the hub listens", within=120)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{self.port}/hub/api/", timeout=30).ok
        return False

    def ask(self, method: str, path: str, *, body: Any = None, token: str | None = None, code: int | None = None) -> Any:
        """The JSON of an answer, which has to be of this status, or one that is no error."""
        headers = {"Authorization": f"token {token or self.token}"}
        answer = requests.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, json=body, timeout=600)
        assert answer.status_code == code if code else answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else None

    def start(self, name: str) -> str:
        """Start a user's server, and give a token of that user."""
        self.ask("POST", f"/hub/api/users/{name}/server")
        address = f"http://127.0.0.1:{self.port}/hub/api/users/{name}/server/progress"
        with requests.get(address, headers={"Authorization": f"token {self.token}"}, stream=True, timeout=600) as told:
            assert any('"ready": true' in line for line in told.iter_lines(decode_unicode=True)), self.log.read_text()
        token: str = self.ask("POST", f"/hub/api/users/{name}/tokens", body={})["token"]
        return token

    def close(self) -> None:
        """End it with all servers."""
        self.process.terminate()
        self.process.wait(120)


@pytest.fixture
def students() -> Iterator[list[User]]:
    """The class, each with the experiment in a folder."""
    if not (PROXY / "configurable-http-proxy").exists() and os.environ.get("WARDIAN_REQUIRE_ALL") != "1":
        pytest.skip("configurable-http-proxy is not installed")
    missing = not POLICY.parent.exists()
    POLICY.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        if missing:
            stack.callback(POLICY.parent.rmdir)
        yield [stack.enter_context(ordinary.user()) for _ in range(STUDENTS)]


def test_thirty_students(students: list[User], tmp_path: Path) -> None:
    """Each student grows five nodes by the panel's interface through the hub, sees his quota before and only his own after, and reaches
    no other's server; root sees all of it, and ends one.
    """
    for user in students:
        user.policy("default: {nodes: 10, memory: 4GiB, lease: 4h}\n")
        user.write("lab/experiment.yaml", EXPERIMENT)
    hub = Hub(tmp_path, students[0].env["TESTS_POLICY"])
    try:
        hub.ask("POST", "/hub/api/users", body={"usernames": [user.name for user in students]})
        begun = time.monotonic()
        with ThreadPoolExecutor(len(students)) as pool:
            tokens = list(pool.map(lambda user: hub.start(user.name), students))
            started, servers = time.monotonic(), memory(students)
            grow_begun = time.monotonic()
            list(pool.map(lambda user, token: grow(hub, user.name, token), students, tokens))
            grown, all_in_all = time.monotonic(), memory(students)
        print(
            f"{STUDENTS} servers in {started - begun:.1f} s, {servers / STUDENTS / 2**20:.0f} MiB each; {5 * STUDENTS} nodes in "
            f"{grown - grow_begun:.1f} s, {(all_in_all - servers) / STUDENTS / 2**20:.0f} MiB for five; load {os.getloadavg()}"
        )
        first, second = students[:2]
        hub.ask("GET", f"/user/{second.name}/wardian/api/environments", token=tokens[0], code=403)
        rows = [row for row in held() if row["user"] in {user.name for user in students}]
        assert sorted((row["user"], row["nodes"]) for row in rows) == sorted((user.name, 5) for user in students)
        (row,) = (row for row in rows if row["user"] == first.name)
        assert f"ended {row['id']}" in admin("end", row["id"], "--user", first.name)
        assert hub.ask("GET", f"/user/{first.name}/wardian/api/environments", token=tokens[0]) in ([], {"environments": []})
        begun = time.monotonic()
        ended = admin("end", *(row["id"] for row in rows if row["user"] != first.name))
        print(f"{STUDENTS - 1} environments ended in {time.monotonic() - begun:.1f} s")
        assert len(ended.splitlines()) == STUDENTS - 1
    finally:
        if left := [row["id"] for row in held() if row["user"] in {user.name for user in students}]:
            admin("end", "--force", *left)
        hub.close()


def grow(hub: Hub, name: str, token: str) -> None:
    """As the panel does it: the plan, then `up` of that plan, until all nodes are ready."""
    server = f"/user/{name}/wardian/api"
    plan = hub.ask("POST", f"{server}/environment/plan", body={"path": "lab/experiment.yaml"}, token=token)
    assert "Of your quota then: nodes 5 of 10, memory 500.0 MiB of 4.0 GiB, lease 2h of 4h" in plan["text"]
    hub.ask("POST", f"{server}/environment/up", body={"path": "lab/experiment.yaml", "digest": plan["digest"]}, token=token)

    def ready() -> bool:
        found = hub.ask("GET", f"{server}/environment?path=lab/experiment.yaml", token=token)
        return [node["state"] for node in found["nodes"].values()] == ["ready"] * 5

    eventually(ready, f"{name}'s nodes", within=600)


def memory(students: list[User]) -> int:
    """The proportional set size of all processes of these users, bytes."""
    users = {pwd.getpwnam(user.name).pw_uid for user in students}
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # not the owner of the folder: who may not be traced is root's there
            if int(re.findall(r"^Uid:\t(\d+)", (folder / "status").read_text(), re.MULTILINE)[0]) in users:
                rollup = (folder / "smaps_rollup").read_text()
                total += 1024 * int(re.findall(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)[0])
    return total


def held() -> list[dict[str, Any]]:
    """What everybody holds, as root sees it."""
    rows: list[dict[str, Any]] = json.loads(admin("ls", "--json"))["environments"]
    return rows


def admin(*argv: str) -> str:
    """What `wardian admin` says to root."""
    command = [sys.executable, "-m", "tests.ordinary", "root", "/", str(BIN / "wardian"), "admin", *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
