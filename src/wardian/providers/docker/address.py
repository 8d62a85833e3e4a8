"""Where the Engine is: as the setting says, else `$DOCKER_HOST`, else Docker's context, else the usual sockets, Podman's too."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import ProviderError
from ...paths import state_folder

DEFAULT = "unix:///var/run/docker.sock"

_FORMS = "Write unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST."
_SSH = ("-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s")


def engine_address(chosen: str | None = None) -> str:
    """The address of the Engine to use. chosen: what the settings say."""
    return chosen or os.environ.get("DOCKER_HOST") or _of_context() or next(_sockets(), DEFAULT)


def dial(address: str) -> socket.socket:
    """A new connection to the Engine at this address; both its directions can be closed apart. Blocking only for ssh and tcp names.

    Raises OSError when nobody answers there, ProviderError when the address is none.
    """
    url = urlsplit(address)
    if url.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(url.path)
        except OSError:
            connection.close()
            raise
    elif url.scheme == "tcp" and url.hostname:
        if os.environ.get("DOCKER_TLS_VERIFY") or url.port == 2376:
            remedy = "Reach it over SSH: DOCKER_HOST=ssh://USER@HOST. TLS cannot end one direction alone, as a command's input needs."
            raise ProviderError(f"the Engine at {address} is reached by TLS, which is not supported", remedy=remedy)
        connection = socket.create_connection((url.hostname, url.port or 2375), timeout=10)
    elif url.scheme == "ssh" and url.hostname:
        connection = _over_ssh(url.hostname, url.username, url.port)
    else:
        raise ProviderError(f"{address!r} is no address of a Docker Engine", remedy=_FORMS)
    connection.setblocking(False)
    return connection


def _over_ssh(host: str, user: str | None, port: int | None) -> socket.socket:
    folder = state_folder() / "docker"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    options = [*_SSH, "-o", f"ControlPath={folder}/ssh-%C"]
    options += ["-l", user] if user else []
    options += ["-p", str(port)] if port else []
    ours, theirs = socket.socketpair()
    with theirs:
        command = ["ssh", *options, "--", host, "docker", "system", "dial-stdio"]
        try:
            subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL, start_new_session=True)
        except OSError:
            ours.close()
            raise
    return ours


def _of_context() -> str | None:
    """The address of the context that Docker's own configuration names."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = os.environ.get("DOCKER_CONTEXT") or _json(folder / "config.json").get("currentContext")
    if not name or name == "default":
        return None
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    host = _json(meta).get("Endpoints", {}).get("docker", {}).get("Host")
    if not host:
        remedy = "`docker context ls` lists those there are; `docker context use` chooses one."
        raise ProviderError(f"Docker's context {name!r} names no Engine", remedy=remedy)
    return str(host)


def _sockets() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = ["/var/run/docker.sock"]
    places += [f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"] if runtime else []
    for path in (*places, "/run/podman/podman.sock"):
        if os.path.exists(path):
            yield f"unix://{path}"


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
