"""One connection a host, held by one `ssh` process that all processes of the user share (OpenSSH's connection sharing).

That process is started when it is needed, belongs to nobody, and ends by itself some minutes after its last session. Where the host
opens no further session on a connection (MaxSessions of its sshd, 10 by default), a further connection takes what comes.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import math
import os
import re
import shlex
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from ...errors import MissingToolError, ProviderError
from .. import looking
from . import mux
from .asking import Questions
from .inventory import Host, bastion
from .refusals import HostError, reason

PERSIST = 600
"""Seconds for which a connection without sessions is kept."""

CONNECT = 10
"""Seconds that a host may take to answer, at most."""

_MOST = 64
"""Connections to one host."""

_FULL = 1.0
"""Seconds for which a connection that took no further session is passed over."""

_USELESS = 3
"""New connections in a row that take no session, until the host is believed to take none at all."""

_NOT_THE_WAY = ("labels", "python", "shell", "host_keys", "password_env", "fingerprint")
"""What of a host does not say how it is reached."""

_full: dict[str, float] = {}
_useful: set[str] = set()


async def open_session(host: Host, command: str, descriptors: Sequence[int], *, terminal: str | None = None) -> tuple[mux.Session, str]:
    """Start a command on a host, as `mux.open_session` does, and say over which control socket. Connects first where need be.

    Raises HostError.
    """
    useless = 0
    for number in range(_MOST):
        path = control_socket(host, number)
        if time.monotonic() - _full.get(path, -_FULL) < _FULL:
            continue
        begun = False
        while True:
            try:
                async with answering(host):
                    session = await mux.open_session(path, command, descriptors, terminal=terminal)
                _useful.add(path)
                return session, path
            except mux.Gone:
                if begun:
                    raise HostError(host.name, "the connection ended as soon as it was made", kind="silent") from None
                await _begin(host, path)
                begun = True
            except mux.Refused as error:
                useless += begun and path not in _useful
                if useless == _USELESS:
                    remedy = "Its sshd may allow no commands (MaxSessions, ForceCommand, a restricted account)."
                    raise HostError(host.name, f"it opens no session: {error}", kind="denied", remedy=remedy) from None
                _full[path] = time.monotonic()
                break
    raise HostError(host.name, f"it opens no session, with {_MOST} connections", kind="denied", remedy="Raise MaxSessions of its sshd.")


@asynccontextmanager
async def answering(host: Host) -> AsyncIterator[None]:
    """A host that is connected is waited for; raises HostError where somebody looks, and it takes longer than a look may."""
    try:
        async with looking.limit():
            yield
    except TimeoutError:
        raise HostError(host.name, f"it has not answered for {looking.SECONDS} s", kind="silent", begun=True) from None


async def is_connected(path: str) -> bool:
    """Whether the connection of a control socket is still there."""
    try:
        await mux.process_of(path)
    except mux.Gone:
        return False
    return True


async def disconnect(host: Host) -> None:
    """End the connections to a host, whoever uses them."""
    for number in range(_MOST):
        path = control_socket(host, number)
        if os.path.exists(path):
            await mux.terminate(path)
            with suppress(FileNotFoundError):
                os.unlink(path)


def control_socket(host: Host, number: int = 0) -> str:
    """The control socket of a host's connection: the same for all who would reach the host in the same way."""
    way = {key: value for key, value in asdict(host).items() if key not in _NOT_THE_WAY}
    name = hashlib.sha256(json.dumps(way, sort_keys=True).encode()).hexdigest()[:16]
    return str(runtime_folder() / f"{name}.{number}")


def runtime_folder() -> Path:
    """Where control sockets are: a folder that only this user can enter. Raises ProviderError if another user has made it."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base, "wardian-ssh") if base and len(base) < 50 else Path(f"/tmp/wardian-ssh-{os.getuid()}")  # noqa: S108
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise ProviderError(f"{folder} has to be a folder that only you can enter", remedy="Remove it, or set XDG_RUNTIME_DIR.")
    return folder


async def _begin(host: Host, path: str) -> None:
    """Have a connection at this control socket, made by us or by whoever was quicker."""
    async with _locked(f"{path}.lock"):
        if look := looking.current():
            look.heed(host.name)
        if await is_connected(path):
            return
        with suppress(FileNotFoundError):
            os.unlink(path)
        await _connect(host, path)


@asynccontextmanager
async def _locked(path: str) -> AsyncIterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting = asyncio.get_running_loop().run_in_executor(None, fcntl.flock, descriptor, fcntl.LOCK_EX)
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            waiting.add_done_callback(lambda _: os.close(descriptor))
            raise
    try:
        yield
    finally:
        os.close(descriptor)


async def _connect(host: Host, path: str) -> None:
    """Start the `ssh` that holds the connection; it has left for the background when this returns. Raises HostError."""
    host = await _with_configured_jump(host)
    options = _options(host)
    if host.jump is not None:
        # over the bastion's one connection, which has to be there
        through = await _bastion(host.jump)
        options += ["-o", f"ProxyCommand={through}"]
    command = [host.program, "-M", "-N", "-S", path, *options, "--", host.name]
    with tempfile.TemporaryFile() as said:
        async with Questions(host, Path(path).parent) as questions:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=questions.variables(),
                    start_new_session=True,
                )
            except OSError as error:
                remedy = "Install OpenSSH's client (Debian: openssh-client), or name it by `ssh:` in the settings."
                raise MissingToolError(f"{host.program} cannot be run: {error.strerror}", remedy=remedy) from None
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                raise
        if code:
            said.seek(0)
            raise reason(host, said.read().decode(errors="replace"), questions)


def _options(host: Host) -> list[str]:
    """Those of every `ssh` to this host. What the user's own configuration says of forwardings and commands is left out."""
    check = {"ask": "ask", "accept-new": "accept-new", "known": "yes"}[host.host_keys]
    settings: dict[str, str | int] = {
        "ControlPersist": PERSIST,
        "ConnectTimeout": math.ceil(min(looking.SECONDS if looking.current() else CONNECT, host.patience)),
        "ServerAliveInterval": max(1, math.ceil(host.patience / 3)),
        "ServerAliveCountMax": 3,
        "StrictHostKeyChecking": "ask" if host.fingerprint else check,
        "NumberOfPasswordPrompts": 1 if host.password_env else 3,
        "LogLevel": "ERROR",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "HostName": host.address,
        "UserKnownHostsFile": host.known_hosts,
        "IdentitiesOnly": "yes" if host.key else "",
        "KexAlgorithms": "^curve25519-sha256" if host.key_exchange == "classic" else "",
    }
    result = ["-a", "-x", "-T"]
    for flag, value in (("-F", host.config), ("-l", host.user), ("-p", host.port), ("-i", host.key)):
        result += [flag, str(value)] if value else []
    for name, value in settings.items():
        result += ["-o", f"{name}={_quoted(str(value)) if name == 'UserKnownHostsFile' else value}"] if value else []
    return result


def _quoted(path: str) -> str:
    """A path where `ssh` takes a list of them."""
    return f'"{path}"' if " " in path else path


async def _bastion(jump: Host) -> str:
    """The ProxyCommand that goes through a bastion's one connection, which is made first where it is not there."""
    path = control_socket(jump)
    if not await is_connected(path):
        await _begin(jump, path)
    command = [jump.program, *(["-F", jump.config] if jump.config else []), "-S", path, "-o", "ControlMaster=no", "-o", "ProxyCommand=none"]
    return shlex.join(command).replace("%", "%%") + f" -W '[%h]:%p' -- {shlex.quote(jump.name).replace('%', '%%')}"


async def _with_configured_jump(host: Host) -> Host:
    """The host with the bastion that `~/.ssh/config` names for it, so that this has one connection too."""
    if host.jump is not None or not any(_mentions_jump(path) for path in _configurations(host)):
        return host
    command = [host.program, *(["-F", host.config] if host.config else []), "-G", "--", host.name]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    output, _ = await process.communicate()
    found = re.search(r"^proxyjump (\S+)$", output.decode(errors="replace"), re.MULTILINE)
    if found is None or found[1].lower() == "none":
        return host
    from dataclasses import replace

    return replace(host, jump=bastion(found[1], host, {}))


def _configurations(host: Host) -> Iterator[Path]:
    yield Path(host.config) if host.config else Path("~/.ssh/config").expanduser()
    for pattern in () if host.config else ("/etc/ssh", "~/.ssh"):
        yield from Path(pattern).expanduser().glob("*config*/*")
    yield Path("/etc/ssh/ssh_config")


def _mentions_jump(path: Path) -> bool:
    try:
        return b"proxyjump" in path.read_bytes().lower()
    except OSError:
        return False
