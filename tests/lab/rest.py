"""A Jupyter server with Wardian's extension, below a base URL as JupyterHub gives one, and a client of its REST interface and events."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
import websocket

from tests.kernel.conftest import ROOT
from tests.stage import Stage, eventually

BASE = "/user/ada/"


class Rest:
    """A server whose root is the folder above that of a stage, and with its state folder."""

    def __init__(self, stage: Stage, *options: str, root: Path | None = None) -> None:
        self.stage = stage
        self.root = root or stage.folder
        self.token = secrets.token_hex(16)
        self.log = stage.state / "server.log"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"token {self.token}"
        self.start(*options)

    def start(self, *options: str) -> None:
        """Start it, and return once it listens."""
        private = {
            name: str(self.stage.state / "private") for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
        }
        env = self.stage.env | private | {"JUPYTER_TOKEN": self.token, "JUPYTER_CONFIG_PATH": str(ROOT / "etc" / "jupyter")}
        home = Path(private["HOME"])
        home.mkdir(exist_ok=True)
        # what it does not need takes longer to load than all the rest
        other = dict.fromkeys(("jupyterlab", "jupyter_lsp", "notebook_shim"), False)
        (home / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": other}}))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
                    *("--ServerApp.port=0", f"--ServerApp.root_dir={self.root}", f"--ServerApp.base_url={BASE}", *options),
                ],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.url = eventually(self._url, "the server listens", within=60)

    def _url(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.log.read_text())
        # it tells its address before it listens
        with suppress(requests.ConnectionError):
            if found and requests.get(f"http://127.0.0.1:{found[1]}{BASE}api", timeout=30).ok:
                return f"http://127.0.0.1:{found[1]}{BASE}wardian/api"
        return None

    def ask(self, method: str, route: str, *, code: int = 200, body: Any = None, **query: Any) -> Any:
        """The JSON of an answer, which has to have this status."""
        answer = self.session.request(method, f"{self.url}/{route}", params=query, json=body, timeout=60)
        assert answer.status_code == code, f"{method} {route}: {answer.status_code} {answer.text}\n{self.log.read_text()[-3000:]}"
        return answer.json() if answer.content else None

    def get(self, route: str, *, code: int = 200, **query: Any) -> Any:
        """GET, the experiment of the stage being meant unless the query names another."""
        return self.ask("GET", route, code=code, **{"path": "experiment.yaml", **query})

    def post(self, route: str, *, code: int = 200, **body: Any) -> Any:
        """POST a body."""
        return self.ask("POST", route, code=code, body=body)

    def listen(self, **query: Any) -> Listener:
        """Open the websocket of events."""
        return Listener(self, {"path": "experiment.yaml", **query})

    def close(self) -> None:
        """End it as Ctrl-C would."""
        self.process.terminate()
        self.process.wait(30)
        self.session.close()


class Listener:
    """A client of the websocket of events, who keeps the state as a front end does."""

    def __init__(self, rest: Rest, query: dict[str, str], **headers: str) -> None:
        url = requests.Request("GET", f"{rest.url}/events", params=query).prepare().url
        assert url is not None
        given = [f"Authorization: token {rest.token}", *(f"{name}: {value}" for name, value in headers.items())]
        self.socket = websocket.create_connection(
            url.replace("http", "ws", 1), header=given, timeout=60, suppress_origin="Origin" not in headers
        )
        self.state: dict[str, Any] = {}
        self.number = 0
        self.entries: list[dict[str, Any]] = []
        self.kinds: list[str] = []

    def read(self) -> dict[str, Any]:
        """Take in one message."""
        message: dict[str, Any] = json.loads(self.socket.recv())
        self.kinds.append(message["type"])
        if message["type"] == "snapshot":
            self.state, self.number = message["state"], message["number"]
        elif message["type"] == "patch":
            assert message["from"] == self.number, "a difference is missing"
            self.state, self.number = merged(self.state, message["patch"]), message["number"]
        elif message["type"] == "entries":
            self.entries += message["entries"]
        return message

    def until(self, condition: Any) -> Any:
        """Read on until a condition on the state gives something true."""
        if not self.state:
            self.read()
        while not (value := condition(self)):
            self.read()
        return value

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def merged(target: Any, patch: Any) -> Any:
    """A JSON Merge Patch, as RFC 7396 applies it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
